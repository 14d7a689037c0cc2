//! Process ids of the job over time. The driver names processes that have ended, so those of the last seconds are kept.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use crate::domain::printable::printable;
use crate::sys::proc;
use crate::sys::tree::Stat;

/// The driver's ring holds 12 s.
const KEPT_US: u64 = 15_000_000;

/// Whose process it is; `None` where it has gone.
#[must_use]
pub fn owner_of(pid: i32) -> Option<u32> {
    Some(std::fs::metadata(proc::path(pid, "status").ok()?).ok()?.uid())
}

/// As the kernel calls it; empty where it has gone.
#[must_use]
pub fn command_of(pid: u32) -> String {
    // A process names itself, and the name goes where receipts go.
    i32::try_from(pid).ok().and_then(Stat::read).map(|stat| printable(&stat.command).into_owned()).unwrap_or_default()
}

/// The ids, each with its start and when it was last seen.
#[derive(Clone, Debug, Default)]
pub struct JobPids(BTreeMap<i32, (u64, u64)>);

impl JobPids {
    /// These live now.
    pub fn see(&mut self, living: &[i32], now_us: u64) {
        self.see_with(living, now_us, |pid| Stat::read(pid).map(|stat| stat.start));
    }

    fn see_with(&mut self, living: &[i32], now_us: u64, start_of: impl Fn(i32) -> Option<u64>) {
        for pid in living {
            let known = self.0.get(pid).map(|(start, _)| *start);
            // A number that comes to mean another process means one of the job all the same: it is in the job's group. So
            // does one that has gone since the list was made, whose start nobody knows.
            let start = known.or_else(|| start_of(*pid)).unwrap_or(0);
            self.0.insert(*pid, (start, now_us));
        }
        let gone = |pid: i32, start: u64| start_of(pid).is_some_and(|now| now != start);
        self.0.retain(|pid, (start, seen_us)| {
            *seen_us == now_us || (now_us.saturating_sub(*seen_us) <= KEPT_US && !gone(*pid, *start))
        });
    }

    /// Whether it is one of the job.
    #[must_use]
    pub fn has(&self, pid: u32) -> bool {
        i32::try_from(pid).is_ok_and(|pid| self.0.contains_key(&pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_known_until_their_number_is_anothers() {
        let mut pids = JobPids::default();
        pids.see_with(&[10, 11], 0, |_| Some(1));
        pids.see_with(&[11], 1_000_000, |pid| (pid == 11).then_some(1));
        assert!(pids.has(10) && pids.has(11) && !pids.has(12) && !pids.has(u32::MAX));
        pids.see_with(&[11], 2_000_000, |pid| Some(if pid == 10 { 7 } else { 1 }));
        assert!(!pids.has(10) && pids.has(11));
        pids.see_with(&[], 60_000_000, |_| None);
        assert!(!pids.has(11));
    }
}
