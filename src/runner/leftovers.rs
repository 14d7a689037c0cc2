//! What is left over: spool files that nobody locks. Their jobs are frozen, read and killed, and their burn is told to
//! the ledger. Each start of jobmeter does this, and `jobmeter spool flush`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::Serialize;
use uuid::Uuid;

use super::origin::Origin;
use super::receipt::Receipt;
use super::spool::{Header, Record, Spool, is_own_folder, out_of_others_reach};
use crate::domain::units::Microseconds;
use crate::domain::usage::Usage;
use crate::ledger::location::{Connect, Location};
use crate::ledger::protocol::{Finish, Reason};
use crate::ledger::{Ledger, LedgerError};
use crate::meter::attached::AttachedMeter;
use crate::meter::cgroup1::Cgroup1Meter;
use crate::meter::cgroup2::Cgroup2Meter;
use crate::meter::procfs::ProcfsMeter;
use crate::meter::{CpuSource, Meter};
use crate::sys::cgroup1::V1Group;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::containment::{Containment, ContainmentSpec, Reopened};
use crate::sys::process::boot_id;

const OUT_OF_SIGHT: &str = "settled as it was last written: its job ran in another PID namespace";
const FREEZE_WAIT_MAX: Duration = Duration::from_millis(5);
const KILL_WAIT_MAX: Duration = Duration::from_secs(5);
/// Acknowledged totals are kept so long, so that they can be sent again after a restore of the ledger.
const KEPT: Duration = Duration::from_hours(168);

/// A spool file.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOver {
    /// Where it is.
    pub path: PathBuf,
    /// Of which attempt; `None` where the file cannot be read.
    pub attempt: Option<Uuid>,
    /// Of which job.
    pub job: Option<String>,
    /// Whose.
    pub user: Option<String>,
    /// Where its burn goes.
    pub ledger: Option<String>,
    /// Kept in it.
    pub cpu_seconds: Option<Microseconds>,
    /// `metered` (a jobmeter has it locked), `left over`, or what is wrong with the file.
    pub state: String,
    /// What had become of its job.
    #[serde(skip)]
    pub how: How,
}

/// What had become of a job whose file was left over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum How {
    /// Its meter was lost, and what ran on is ended.
    #[default]
    MeterLost,
    /// Its meter was lost where its processes cannot be named from here.
    OutOfSight,
    /// It had ended: the ledger was away, or something did not die.
    Ended,
}

/// What became of the files that were left over.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Flushed {
    /// Told to the ledger.
    pub settled: Vec<LeftOver>,
    /// Kept, and why, in `state`.
    pub kept: Vec<LeftOver>,
    /// Metered by a jobmeter that lives.
    pub in_use: usize,
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    out_of_others_reach(directory)?;
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", directory.display()))),
    };
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "spool"))
        .collect();
    paths.sort();
    Ok(paths)
}

fn described(path: &Path, header: &Header, (record, how): (&Record, How), state: String) -> LeftOver {
    let usage = record.finish.as_ref().map_or(&record.usage, |finish| &finish.usage);
    LeftOver {
        path: path.to_owned(),
        attempt: Some(header.identity.attempt),
        job: Some(header.identity.job.clone()),
        user: Some(header.identity.user.clone()),
        ledger: Some(header.ledger.clone()),
        cpu_seconds: Some(usage.cpu_used_seconds),
        state,
        how,
    }
}

fn unreadable(path: &Path, error: &io::Error) -> LeftOver {
    LeftOver {
        path: path.to_owned(),
        attempt: None,
        job: None,
        user: None,
        ledger: None,
        cpu_seconds: None,
        state: error.to_string(),
        how: How::default(),
    }
}

/// All spool files of a directory.
///
/// # Errors
/// Where the directory cannot be read.
pub fn list(directory: &Path) -> io::Result<Vec<LeftOver>> {
    let listed = files(directory)?.into_iter().map(|path| match Spool::peek(&path) {
        Ok((header, record)) => {
            let state = if Spool::is_locked(&path) { "metered" } else { "left over" };
            described(&path, &header, (&record, how(&record)), state.to_owned())
        }
        Err(error) => unreadable(&path, &error),
    });
    Ok(listed.collect())
}

/// Settles everything that nobody meters any more; `known` is the ledger whose key or password is known here.
///
/// # Errors
/// Where the directory cannot be read; a file that cannot be settled is kept, and says why.
pub fn flush(directory: &Path, known: &Location, connect: Connect) -> io::Result<Flushed> {
    let mut flushed = Flushed::default();
    for path in files(directory)? {
        match Spool::adopt(&path) {
            Ok(Some((spool, header, record))) => match settle(spool, &header, record, known, connect) {
                Ok((record, how)) => {
                    let state = if how == How::OutOfSight { OUT_OF_SIGHT } else { "settled" };
                    flushed.settled.push(described(&path, &header, (&record, how), state.to_owned()));
                }
                Err((record, why)) => flushed.kept.push(described(&path, &header, (&record, how(&record)), why)),
            },
            Ok(None) => flushed.in_use += 1,
            // Its own jobmeter has settled it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => flushed.kept.push(unreadable(&path, &error)),
        }
    }
    purge(&directory.join("acknowledged"));
    Ok(flushed)
}

fn source(containment: &ContainmentSpec) -> CpuSource {
    match containment {
        ContainmentSpec::Cgroup2 { .. } | ContainmentSpec::Attached { .. } => CpuSource::Cgroup2,
        ContainmentSpec::Cgroup1 { .. } => CpuSource::Cgroup1,
        ContainmentSpec::Tree { .. } => CpuSource::Procfs,
    }
}

fn how(record: &Record) -> How {
    if record.finish.is_some() { How::Ended } else { How::MeterLost }
}

/// Ends and settles one attempt: the record as it was settled, or as it stands and why it is kept.
pub(super) fn settle(
    mut spool: Spool,
    header: &Header,
    mut record: Record,
    known: &Location,
    connect: Connect,
) -> Result<(Record, How), (Record, String)> {
    if let Some(socket) = header.socket.as_deref().filter(|path| path.extension() == Some("sock".as_ref())) {
        super::socket::remove(socket);
    }
    let mut how = how(&record);
    if how != How::Ended {
        match end_job(header, &mut record) {
            Ok(is_seen) if !is_seen => how = How::OutOfSight,
            Ok(_) => {}
            Err(why) => return Err((record, why.to_string())),
        }
        if record.period.is_none() {
            // It died before it knew whether its attempt was open: nothing was started.
            let unused = finish(header, &Record { usage: Usage::default(), ..record.clone() });
            let told = connect(&location(header, known)).and_then(|mut ledger| ledger.finish(&unused).map(|_| ()));
            // A ledger that does not know the attempt has nothing open for it.
            if let Err(error) = told.or_else(unless_unknown) {
                return Err((record, format!("the ledger did not take it: {error}")));
            }
            if let Err(why) = take_away(header) {
                return Err((record, why.to_string()));
            }
            spool.discard().ok();
            return Ok((record, how));
        }
        record.finish = Some(finish(header, &record));
        if let Err(error) = spool.write(record.clone()) {
            return Err((record, format!("{}: {error}", spool.path().display())));
        }
    }
    let told = connect(&location(header, known)).and_then(|mut ledger| {
        record.finish.as_ref().map(|finish| tell(ledger.as_mut(), header, &record, finish)).transpose()
    });
    match told {
        Ok(_) => match take_away(header) {
            Ok(()) => {
                spool.acknowledge().ok();
                Ok((record, how))
            }
            Err(why) => Err((record, why.to_string())),
        },
        Err(error) => Err((record, format!("the ledger did not take it: {error}"))),
    }
}

fn unless_unknown(error: LedgerError) -> Result<(), LedgerError> {
    if matches!(error, LedgerError::Unknown(_)) { Ok(()) } else { Err(error) }
}

/// Where a spool's burn goes. It holds neither key nor password: they are those of the ledger that is known, where that is
/// the same.
fn location(header: &Header, known: &Location) -> Location {
    if known.to_string() == header.ledger {
        return known.clone();
    }
    // Whatever its name, this one was a ledger once.
    header.ledger.parse().unwrap_or_else(|_| Location::File(PathBuf::from(&header.ledger)))
}

fn tell(ledger: &mut dyn Ledger, header: &Header, record: &Record, finish: &Finish) -> Result<(), LedgerError> {
    let origin = Origin {
        identity: header.identity.clone(),
        resources: header.resources.clone(),
        limit: header.limit,
        secret: header.secret,
        rates_version: record.rates_version.unwrap_or(0),
        began: header.began(),
    };
    // A record has none.
    let finish = Finish { secret: header.secret, ..finish.clone() };
    origin.finish(ledger, &finish, &SystemClock).map(|_| ())
}

fn finish(header: &Header, record: &Record) -> Finish {
    let receipt = Receipt::of_lost(&header.identity, source(&header.containment), header.started_at_us, record);
    Finish {
        attempt: header.identity.attempt,
        usage: record.usage.clone(),
        period: record.period.unwrap_or_default(),
        closed: record.closed.clone(),
        reason: Reason::MeterLost,
        receipt: serde_json::to_value(receipt).unwrap_or_default(),
        secret: header.secret,
    }
}

/// What of a job is still there, so that its file is kept.
#[derive(Debug)]
enum Stays {
    Unseen(io::Error),
    Alive(Vec<i32>),
    Group(io::Error),
}

impl std::fmt::Display for Stays {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unseen(error) => write!(to, "{error}"),
            Self::Alive(pids) => write!(to, "process ids {pids:?} do not die of SIGKILL"),
            Self::Group(error) => write!(to, "its group cannot be removed: {error}"),
        }
    }
}

/// Freezes what still runs, reads it, and kills it; whether it could be looked for.
fn end_job(header: &Header, record: &mut Record) -> Result<bool, Stays> {
    if header.boot_id != boot_id() {
        return Ok(true);
    }
    let containment = match Containment::reopen(&header.containment).map_err(Stays::Unseen)? {
        Reopened::Found(containment) => containment,
        Reopened::Gone => return Ok(true),
        Reopened::OutOfSight => return Ok(false),
    };
    containment.freeze(FREEZE_WAIT_MAX);
    if let Some(read) = read(&containment) {
        record.usage.cpu_used_seconds = record.usage.cpu_used_seconds.max(read);
    }
    if containment.is_populated() {
        take_gpus_as_allocated(record);
    }
    record.at_us = SystemClock.realtime_us();
    kill(&containment)?;
    if matches!(containment, Containment::Attached { .. }) {
        containment.thaw();
    }
    Ok(true)
}

/// What a job that has ended left behind in the groups that were made for it: what did not die then, or the groups alone.
fn take_away(header: &Header) -> Result<(), Stays> {
    let is_ours = matches!(header.containment, ContainmentSpec::Cgroup2 { .. } | ContainmentSpec::Cgroup1 { .. });
    if !is_ours || header.boot_id != boot_id() {
        return Ok(());
    }
    let found = Containment::reopen(&header.containment).map_err(Stays::Unseen)?.found();
    let Some(containment) = found else { return Ok(()) };
    kill(&containment)?;
    containment.remove().map_err(Stays::Group)
}

fn kill(containment: &Containment) -> Result<(), Stays> {
    if containment.kill(KILL_WAIT_MAX) {
        return Ok(());
    }
    Err(Stays::Alive(containment.processes()))
}

/// Nobody has read its GPUs since the last record, while it went on.
fn take_gpus_as_allocated(record: &mut Record) {
    let passed = Microseconds(SystemClock.boottime_us().saturating_sub(record.boot_us));
    let unread = passed.saturating_add(Microseconds(record.gpu_age_us));
    if record.boot_us > 0 {
        for gpu in record.usage.gpus.values_mut() {
            gpu.allocated_seconds = gpu.allocated_seconds.saturating_add(passed);
            gpu.busy_seconds = gpu.busy_seconds.saturating_add(unread).min(gpu.allocated_seconds);
        }
    }
}

/// What a group's counter says; `None` where no group counts.
pub(super) fn read_group(containment: &Containment) -> Option<Microseconds> {
    if matches!(containment, Containment::Tree { .. }) { None } else { read(containment) }
}

fn read(containment: &Containment) -> Option<Microseconds> {
    let reading = match containment {
        Containment::Cgroup2(group) => Cgroup2Meter::new(group).ok()?.read(),
        Containment::Attached { group, before_us } => AttachedMeter::new(group, *before_us).ok()?.read(),
        Containment::Cgroup1 { others, .. } => {
            others.first().map(|group| V1Group::at(group.path())).map(Cgroup1Meter::new)?.read()
        }
        Containment::Tree { front, before_us, .. } => ProcfsMeter::new(*front, *before_us, None).read(),
    };
    reading.ok().map(|reading| reading.cpu_seconds)
}

/// Tells the ledger at `location` once more what it had acknowledged in the last days: after a restore it may have
/// forgotten that. What it still knows is not changed by it.
///
/// # Errors
/// Where the directory cannot be read.
pub fn resend(directory: &Path, location: &Location, connect: Connect) -> io::Result<Flushed> {
    let mut flushed = Flushed::default();
    let here = location.to_string();
    for path in files(&directory.join("acknowledged"))? {
        let (header, record) = match Spool::peek(&path) {
            Ok(read) => read,
            Err(error) => {
                flushed.kept.push(unreadable(&path, &error));
                continue;
            }
        };
        let Some(finish) = record.finish.as_ref().filter(|_| header.ledger == here) else { continue };
        match connect(location).and_then(|mut ledger| tell(ledger.as_mut(), &header, &record, finish)) {
            Ok(()) => flushed.settled.push(described(&path, &header, (&record, How::Ended), "sent again".to_owned())),
            Err(error) => flushed.kept.push(described(&path, &header, (&record, How::Ended), error.to_string())),
        }
    }
    Ok(flushed)
}

/// What was acknowledged long ago. The folder is held, so that no other can take its place meanwhile.
fn purge(directory: &Path) {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    if !is_own_folder(directory) {
        return;
    }
    let Ok(mut folder) = Dir::open(directory, flags, Mode::empty()) else { return };
    let names: Vec<_> = folder.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
    let oldest_s = SystemClock.realtime_us() / 1_000_000 - i64::try_from(KEPT.as_secs()).unwrap_or(i64::MAX);
    for name in names.iter().filter(|name| name.to_bytes().ends_with(b".spool")) {
        let found = fstatat(&folder, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        if found.is_ok_and(|found| found.st_mtime < oldest_s) {
            // The next start tries again.
            unlinkat(&folder, name.as_c_str(), UnlinkatFlags::NoRemoveDir).ok();
        }
    }
}
