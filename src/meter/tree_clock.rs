//! CPU time of the front's descendants: the own clocks of those that live, and what living parents and the front have
//! waited for. The front is a subreaper, so what the job's processes leave behind comes to it.
//!
//! The own clock of a process (clock_getcpuclockid(3)) goes through every exec, counts threads that have ended, counts what a
//! group counts to the ns, and of a process that has ended until it is waited for; whoever asks needs no permission
//! (measured on Linux 6.18). What is in doubt is left out: the sum is never more than what was burned.
//!
//! Children of a parent that ignores SIGCHLD are waited for by nobody: what they burned after the last look is lost.

use std::collections::BTreeMap;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::{MeterError, Reading};
use crate::domain::units::Microseconds;
use crate::sys::process::{cpu_us_of, ignores_sigchld};
use crate::sys::shared::SharedPage;
use crate::sys::tree::{self, Stat, TICK_US};

/// The kernel tells user and system time of children each in whole ticks.
const ROUNDED_US: u64 = 2 * TICK_US;

/// A process at the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    start: u64,
    parent: i32,
    own_us: u64,
    /// Of children that it has waited for.
    waited_us: u64,
}

type Processes = BTreeMap<i32, Seen>;

/// The sum over all of them.
#[derive(Debug)]
pub(super) struct TreeClock {
    front: i32,
    before_us: u64,
    shared: Option<SharedPage>,
    seen: Processes,
    /// Burned by children, as far as they were seen, that nobody has waited for.
    unwaited_us: u64,
    ignores_sigchld: bool,
    highest: Reading,
}

impl TreeClock {
    /// Of everything below `front`, which tells by `shared` to the µs what it has waited for; `before_us` it had waited for
    /// before.
    pub(super) fn new(front: i32, before_us: u64, shared: Option<SharedPage>) -> Self {
        Self {
            front,
            before_us,
            shared,
            seen: Processes::new(),
            unwaited_us: 0,
            ignores_sigchld: false,
            highest: Reading::default(),
        }
    }

    /// Whether children were seen, or may have been, that nobody waits for.
    pub(super) fn is_lossy(&self) -> bool {
        self.ignores_sigchld || self.unwaited_us > 0
    }

    /// Reads all clocks.
    ///
    /// # Errors
    /// Where the front has gone, or `/proc` does not show it.
    pub(super) fn read(&mut self) -> Result<Reading, MeterError> {
        let front = Stat::read(self.front).ok_or_else(|| MeterError::Io {
            what: format!("/proc/{}/stat", self.front),
            source: std::io::Error::from(std::io::ErrorKind::NotFound),
        })?;
        let told_us = us(front.children_user.saturating_add(front.children_system)).saturating_sub(self.before_us);
        let shared = self.shared;
        let waited = || told_us.max(shared.map_or(0, |shared| shared.reaped_us()));
        let (waited_us, running) = collect(waited, || Running::below(self.front));
        let lost_us = unwaited_us(&self.seen, &running.processes, is_gone, waited_us_of_living);
        self.unwaited_us = self.unwaited_us.saturating_add(lost_us);
        self.ignores_sigchld = self.ignores_sigchld || running.ignores_sigchld(&self.seen);
        let burned_us = running.burned_us().saturating_add(waited_us).saturating_add(self.unwaited_us);
        let reading = Reading {
            cpu_seconds: Microseconds(burned_us),
            user_seconds: Microseconds(us(running.user.saturating_add(front.children_user))),
            system_seconds: Microseconds(us(running.system.saturating_add(front.children_system))),
        };
        self.remember(running.processes);
        // A process that ends between its parent's line and its own is missed for one look.
        if reading.cpu_seconds > self.highest.cpu_seconds {
            self.highest = reading;
        }
        Ok(self.highest)
    }

    /// One that lives and was missed has not gone.
    fn remember(&mut self, now: Processes) {
        let before = std::mem::replace(&mut self.seen, now);
        for (pid, seen) in before {
            if !self.seen.contains_key(&pid) && Stat::read(pid).is_some_and(|stat| stat.start == seen.start) {
                self.seen.insert(pid, seen);
            }
        }
    }
}

fn us(ticks: u64) -> u64 {
    ticks.saturating_mul(TICK_US)
}

/// The front is asked first: what it waits for while the others are looked at stands among them as well, and the highest figure
/// stays.
fn collect(waited: impl FnOnce() -> u64, running: impl FnOnce() -> Running) -> (u64, Running) {
    let waited_us = waited();
    (waited_us, running())
}

/// What was not waited for yet.
#[derive(Debug, Default)]
struct Running {
    processes: Processes,
    user: u64,
    system: u64,
}

impl Running {
    /// Parents are read before their children, so that a child that its parent has counted is not there to be read any more.
    fn below(front: i32) -> Self {
        let own = nix::unistd::getpid().as_raw();
        let mut running = Self::default();
        for (pid, parent) in tree::children_below(front, own, usize::MAX) {
            if let Some(stat) = Stat::of_child(pid, parent).filter(|stat| running.is_next(front, stat)) {
                running.add(&stat, cpu_us_of(Pid::from_raw(pid)));
            }
        }
        running
    }

    /// One that has a new parent since it was listed may be listed twice, and its number may mean another one.
    fn is_next(&self, front: i32, stat: &Stat) -> bool {
        let is_of_job = stat.parent == front || self.processes.contains_key(&stat.parent);
        is_of_job && !self.processes.contains_key(&stat.pid)
    }

    fn add(&mut self, stat: &Stat, clock_us: u64) {
        let own_us = clock_us.max(us(stat.user.saturating_add(stat.system)));
        let waited_us = us(stat.children_user.saturating_add(stat.children_system));
        self.processes.insert(stat.pid, Seen { start: stat.start, parent: stat.parent, own_us, waited_us });
        self.user = self.user.saturating_add(stat.user).saturating_add(stat.children_user);
        self.system = self.system.saturating_add(stat.system).saturating_add(stat.children_system);
    }

    fn burned_us(&self) -> u64 {
        self.processes.values().fold(0, |sum, seen| sum.saturating_add(seen.own_us).saturating_add(seen.waited_us))
    }

    /// Asked of those alone that ran since, since nobody else can have changed that.
    fn ignores_sigchld(&self, before: &Processes) -> bool {
        let ran = |pid: &i32, now: &Seen| before.get(pid).is_none_or(|seen| seen.own_us != now.own_us);
        self.processes.iter().any(|(pid, now)| ran(pid, now) && ignores_sigchld(*pid))
    }
}

/// What children had burned that have ended, where their parent lives on and has not come to count it.
///
/// `is_gone` is asked of the children first, and what a parent has waited for afterwards: a child is counted there before it
/// goes. A parent that has ended, which `waited_us` does not know, may have left its children to the front.
fn unwaited_us(
    before: &Processes,
    now: &Processes,
    is_gone: impl Fn(i32) -> bool,
    waited_us: impl Fn(i32, u64) -> Option<u64>,
) -> u64 {
    let mut ended: BTreeMap<i32, u64> = BTreeMap::new();
    for (_, seen) in before.iter().filter(|(pid, _)| !now.contains_key(pid) && is_gone(**pid)) {
        let burned_us = ended.entry(seen.parent).or_default();
        *burned_us = burned_us.saturating_add(seen.own_us).saturating_add(seen.waited_us);
    }
    let lost = |(parent, burned_us): (i32, u64)| {
        let before = before.get(&parent)?;
        let counted_us = waited_us(parent, before.start)?.saturating_sub(before.waited_us);
        Some(burned_us.saturating_sub(counted_us.saturating_add(ROUNDED_US)))
    };
    ended.into_iter().filter_map(lost).fold(0, u64::saturating_add)
}

/// That `/proc` does not show it is not enough: with `hidepid` it may have become another user.
fn is_gone(pid: i32) -> bool {
    nix::sys::signal::kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}

fn waited_us_of_living(pid: i32, start: u64) -> Option<u64> {
    let stat = Stat::read(pid).filter(|stat| stat.start == start && !stat.is_dead())?;
    Some(us(stat.children_user.saturating_add(stat.children_system)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(parent: i32, own_us: u64, waited_us: u64) -> Seen {
        Seen { start: 1, parent, own_us, waited_us }
    }

    #[test]
    fn what_the_front_waits_for_while_the_others_are_looked_at_counts_once() {
        let shared = SharedPage::map().unwrap();
        let running = || {
            shared.set_reaped_us(1_000_000);
            Running { processes: Processes::from([(i32::MAX, seen(1, 1_000_000, 0))]), ..Running::default() }
        };
        let (waited_us, running) = collect(|| shared.reaped_us(), running);
        assert_eq!(waited_us + running.burned_us(), 1_000_000);
    }

    #[test]
    fn no_number_counts_twice_or_for_somebody_else() {
        let stat =
            |pid, parent| Stat::parse(&format!("{pid} (x) R {parent} 0 0 0 0 0 0 0 0 0 1 0 0 0 20 0 1 0 9")).unwrap();
        let mut running = Running::default();
        running.add(&stat(7, 1), 0);
        assert!(running.is_next(1, &stat(8, 1)) && running.is_next(1, &stat(8, 7)));
        assert!(!running.is_next(1, &stat(7, 1)), "it was listed under two parents");
        assert!(!running.is_next(1, &stat(8, 6)), "it is of another parent");
    }

    #[test]
    fn what_nobody_waited_for_is_kept_as_it_was_seen() {
        let before =
            Processes::from([(5, seen(1, 0, 50_000)), (8, seen(5, 400_000, 100_000)), (9, seen(5, 70_000, 0))]);
        let now = Processes::from([(5, seen(1, 0, 50_000))]);
        let lost_us = |waited_us| unwaited_us(&before, &now, |pid| pid == 8, |_, _| waited_us);
        assert_eq!(lost_us(Some(50_000)), 480_000);
        assert_eq!(lost_us(Some(550_000)), 0, "its parent waited for it after its own line was read");
        assert_eq!(lost_us(None), 0, "its parent has ended too, and the front waits for it");
        assert_eq!(unwaited_us(&before, &now, |_| false, |_, _| Some(50_000)), 0, "it lives, and was missed");
        assert_eq!(unwaited_us(&before, &before, |_| true, |_, _| Some(50_000)), 0, "it was read again");
    }
}
