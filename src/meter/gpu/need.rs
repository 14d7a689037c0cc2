//! Whether NVML has to be asked: a job that has no device asks for nothing until one of its processes has one open, so that neither
//! helper nor device works for it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::declared::Selection;
use super::identity::DriverFiles;
use super::openings::Openings;
use super::options::GpuOptions;
use crate::sys::clock::{Clock, SystemClock, after};
use crate::sys::containment::ContainmentSpec;

/// A file that was just opened is in no list yet, and a program opens several.
const SCAN_FIRST: Duration = Duration::from_millis(5);
/// Where others open files all the time.
const SCAN_MAX: Duration = Duration::from_millis(200);
/// A process that has opened a file works on a device some time later, and shows then only.
const SOON_US: u64 = 5_000_000;
/// What worked is in the driver's ring for so long.
const KEPT_US: u64 = 12_000_000;

/// What NVML has to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asking {
    /// None of the job's processes has a device, nor had one lately.
    Nothing,
    /// Of the job's devices, and of those which its processes have open, by their minor numbers.
    Open(BTreeSet<u32>),
    /// Of all, since files do not tell who uses which.
    All,
}

#[derive(Debug)]
pub(super) struct Need {
    files: DriverFiles,
    openings: Openings,
    /// Who has such a file open may use a device, and nobody else.
    files_tell: bool,
    /// Somebody wants it to be asked.
    always: bool,
    /// What has been seen to work is asked for until then.
    until_us: u64,
    soon_until_us: u64,
    /// Somebody has opened a file: whether that was the job is looked for then.
    scan_at_us: Option<u64>,
    scan_after: Duration,
    scanned_at_us: u64,
    /// Which it had open, by their minor numbers, and until when they are asked for.
    seen: BTreeMap<u32, u64>,
    /// Which of its processes had one open at the last scan.
    openers: BTreeSet<i32>,
}

impl Need {
    /// `is_told`: the machine's helper tells of openings.
    pub(super) fn new(options: &GpuOptions, job: &ContainmentSpec, is_told: bool) -> Self {
        let files = DriverFiles::default();
        // Root has so few of them that its meters must not take one each.
        let openings = if is_told { Openings::of_none() } else { Openings::watch(&files) };
        // Whose namespace is another's may have other files of the same devices; what has none is in a library alone.
        let is_attached = matches!(job, ContainmentSpec::Attached { .. });
        let is_elsewhere = options.library.is_some() || is_attached || files.minors().is_empty();
        let files_tell = !is_elsewhere && !files.tell_too_little() && (is_told || openings.fd().is_some());
        let always = matches!(options.selection, Some(Selection::All | Selection::These(_)));
        Self {
            files,
            openings,
            files_tell,
            always,
            until_us: 0,
            soon_until_us: 0,
            scan_at_us: None,
            scan_after: SCAN_FIRST,
            scanned_at_us: 0,
            seen: BTreeMap::new(),
            openers: BTreeSet::new(),
        }
    }

    /// Of what it has to be asked now. `has_one` is whether a device is the job's.
    pub(super) fn of(&mut self, living: impl FnOnce() -> Vec<i32>, has_one: bool) -> Asking {
        if !self.files_tell {
            return Asking::All;
        }
        let open = self.files.open_by(&living());
        let now_us = SystemClock.boottime_us();
        let until_us = now_us.saturating_add(KEPT_US);
        self.seen.extend(open.minors.iter().map(|minor| (*minor, until_us)));
        self.seen.retain(|_, until_us| now_us < *until_us);
        let is_hidden = !open.complete || (open.driver && open.minors.is_empty());
        if has_one || is_hidden || !self.seen.is_empty() {
            self.until_us = until_us;
        }
        if !self.always && now_us >= self.until_us {
            Asking::Nothing
        } else if is_hidden {
            Asking::All
        } else {
            Asking::Open(self.seen.keys().copied().collect())
        }
    }

    /// Whether a device may be about to become the job's.
    pub(super) fn is_soon(&self) -> bool {
        SystemClock.boottime_us() < self.soon_until_us
    }

    /// The machine's helper tells no more.
    pub(super) fn watch_itself(&mut self) {
        if self.openings.fd().is_none() {
            self.openings = Openings::watch(&self.files);
            self.files_tell &= self.openings.fd().is_some();
        }
    }

    /// What tells of an opening; none while it is not known yet whose the last one was.
    pub(super) fn told_by(&self) -> Option<BorrowedFd<'_>> {
        self.openings.fd().filter(|_| self.scan_at_us.is_none())
    }

    /// Somebody has opened a file of the driver.
    pub(super) fn opened(&mut self) {
        let _had_one = self.openings.forget();
        let now_us = SystemClock.boottime_us();
        let is_quiet = now_us.saturating_sub(self.scanned_at_us) > SOON_US;
        self.scan_after = if is_quiet { SCAN_FIRST } else { self.scan_after };
        self.scan_at_us = Some(after(self.scan_after));
    }

    pub(super) fn scan_at_us(&self) -> Option<u64> {
        self.scan_at_us
    }

    /// Whether it was another process of the job than those that had one open before.
    pub(super) fn scan(&mut self, living: &[i32]) -> bool {
        self.scan_at_us = None;
        self.scanned_at_us = SystemClock.boottime_us();
        let open = self.files.open_by(living);
        let before = std::mem::replace(&mut self.openers, open.pids);
        self.scan_after = self.scan_after.saturating_mul(2).min(SCAN_MAX);
        let has_new_one = !open.complete || !self.openers.is_subset(&before);
        if has_new_one {
            self.soon_until_us = self.scanned_at_us.saturating_add(SOON_US);
        }
        has_new_one
    }
}
