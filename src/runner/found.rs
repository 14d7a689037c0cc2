//! What a start finds of the meters of earlier jobs in its spool, said in a line each: those that died, whose jobs it ends and
//! charges, and those that somebody has stopped, whose jobs burn on uncharged until they go on.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::leftovers::{self, Flushed, How, LeftOver};
use super::summary::seconds;
use crate::sys::proc;
use crate::sys::process::StatFile;
use crate::sys::tree;

/// No more meters than these are named.
const NAMED_MAX: usize = 5;

/// Without the one that has just started.
pub(super) fn lines(directory: &Path, flushed: &Flushed) -> Vec<String> {
    let settled = flushed.settled.iter().filter(|found| found.attempt.is_some()).map(|found| {
        let cpu = found.cpu_seconds.map(seconds).unwrap_or_default();
        let job = named(found);
        match found.how {
            How::MeterLost => {
                format!("jobmeter: note: the meter of {job} was lost: what ran on was ended, {cpu} s CPU are charged")
            }
            How::OutOfSight => format!(
                "jobmeter: note: the meter of {job} was lost in another PID namespace: nothing is ended from here, \
                 {cpu} s CPU are charged as it wrote last"
            ),
            How::Ended => {
                format!("jobmeter: note: {job} had ended before, and is settled now: {cpu} s CPU are charged")
            }
        }
    });
    let kept = flushed.kept.iter().map(|found| {
        let (job, why) = (named(found), &found.state);
        match found.how {
            How::Ended => format!("jobmeter: note: {job} has ended, and is not settled yet: {why}"),
            How::MeterLost | How::OutOfSight => {
                format!("jobmeter: note: the meter of {job} was lost, and is not settled yet: {why}")
            }
        }
    });
    let stopped = if flushed.in_use > 1 { stopped(directory) } else { Vec::new() };
    let mut lines: Vec<String> = stopped.into_iter().chain(settled).chain(kept).collect();
    let more = lines.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        lines.truncate(NAMED_MAX);
        lines.push(format!("jobmeter: note: and {more} more: `jobmeter spool list` names them"));
    }
    lines
}

fn named(found: &LeftOver) -> String {
    match &found.job {
        Some(job) => format!("job {job}"),
        None => found.path.display().to_string(),
    }
}

fn stopped(directory: &Path) -> Vec<String> {
    let locks = proc::locks().unwrap_or_default();
    let listed = leftovers::list(directory).unwrap_or_default();
    let found = listed.iter().filter_map(|file| {
        let inode = std::fs::symlink_metadata(&file.path).ok()?.ino();
        let front = holder(&locks, inode).filter(|pid| is_stopped_meter(*pid))?;
        // A front alone stops along with its command, as the shell's job control wants it.
        let keeper = tree::descendant_pids(front, 0, 64).into_iter().find(|pid| is_stopped_meter(*pid))?;
        Some(format!(
            "jobmeter: warning: the meter of {} was stopped: its job burns uncharged until `kill -CONT {front} {keeper}`",
            named(file)
        ))
    });
    found.collect()
}

fn is_stopped_meter(pid: i32) -> bool {
    let is_meter = proc::read(pid, "comm").is_ok_and(|name| name.starts_with("jobmeter"));
    is_meter && StatFile::open(nix::unistd::Pid::from_raw(pid)).is_ok_and(|stat| stat.is_stopped())
}

/// Who holds the lock of the file with this inode, by `/proc/locks` (proc(5)).
fn holder(locks: &str, inode: u64) -> Option<i32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (kind, pid, file) = (words.next()?, words.nth(2)?, words.next()?);
        let is_it = kind == "FLOCK" && file.rsplit(':').next()?.parse() == Ok(inode);
        is_it.then(|| pid.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fe:00:12 0 EOF\n2: FLOCK  ADVISORY  WRITE 4711 fe:00:12 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 8 fe:00:12 0 EOF\n3: FLOCK  ADVISORY  READ  9 00:2d:13 0 EOF\n";
        assert_eq!((holder(locks, 12), holder(locks, 13), holder(locks, 14)), (Some(4711), Some(9), None));
        assert_eq!(holder("nonsense\n: FLOCK\n", 1), None);
    }

    #[test]
    fn what_was_lost_is_said_in_a_line() {
        let found = |job: &str, state: &str| LeftOver {
            path: "x.spool".into(),
            attempt: Some(uuid::Uuid::nil()),
            job: Some(job.to_owned()),
            user: None,
            ledger: None,
            cpu_seconds: Some(crate::domain::units::Microseconds(1_500_000)),
            state: state.to_owned(),
            how: How::MeterLost,
        };
        let mut flushed = Flushed { settled: vec![found("a", "settled")], kept: vec![found("b", "away")], in_use: 1 };
        let none = Path::new("/nonexistent");
        assert_eq!(
            lines(none, &flushed),
            [
                "jobmeter: note: the meter of job a was lost: what ran on was ended, 1.500 s CPU are charged",
                "jobmeter: note: the meter of job b was lost, and is not settled yet: away",
            ]
        );
        flushed.kept[0].how = How::Ended;
        flushed.settled[0].how = How::OutOfSight;
        assert_eq!(
            lines(none, &flushed),
            [
                "jobmeter: note: the meter of job a was lost in another PID namespace: nothing is ended from here, 1.500 s \
                 CPU are charged as it wrote last",
                "jobmeter: note: job b has ended, and is not settled yet: away",
            ]
        );
        flushed.kept = vec![found("b", "away"); 9];
        assert_eq!(lines(none, &flushed).len(), NAMED_MAX + 1);
    }
}
