//! CPU time by `/proc`: the front is a subreaper, so what the job's processes leave behind comes to it and is counted
//! when it is waited for. Children of a parent that ignores SIGCHLD are lost, so no bound is declared.

use super::{CpuSource, Meter, MeterError, Reading};
use crate::domain::units::Microseconds;
use crate::sys::shared::SharedPage;
use crate::sys::tree::{self, Stat, TICK_US};

/// Sums the front's descendants.
#[derive(Debug)]
pub struct ProcfsMeter {
    front: i32,
    before_us: u64,
    shared: Option<SharedPage>,
    highest: Reading,
}

impl ProcfsMeter {
    /// Of everything below `front`, which tells by `shared` to the µs what it has waited for; `before_us` it had waited for
    /// before.
    #[must_use]
    pub fn new(front: i32, before_us: u64, shared: Option<SharedPage>) -> Self {
        Self { front, before_us, shared, highest: Reading::default() }
    }
}

fn time(ticks: u64) -> Microseconds {
    Microseconds(ticks.saturating_mul(TICK_US))
}

/// What the front has waited for, and the ticks of what runs. The front is asked first: what it waits for while the list is made
/// stands in the list as well, and the highest figure stays.
fn collect(waited: impl FnOnce() -> Microseconds, running: impl FnOnce() -> Vec<Stat>) -> (Microseconds, u64, u64) {
    let waited = waited();
    let (mut user, mut system) = (0, 0);
    for stat in running() {
        user += stat.user + stat.children_user;
        system += stat.system + stat.children_system;
    }
    (waited, user, system)
}

/// `/proc` is read in the order of process ids. Where numbers have begun again, a child's line is read before its parent's: one
/// that has gone meanwhile may be among those that its parent waited for.
fn is_counted_once(stat: &Stat) -> bool {
    stat.parent < stat.pid || Stat::read(stat.pid).is_some_and(|now| now.start == stat.start)
}

impl Meter for ProcfsMeter {
    fn read(&mut self) -> Result<Reading, MeterError> {
        let own = nix::unistd::getpid().as_raw();
        let front = Stat::read(self.front).ok_or_else(|| MeterError::Io {
            what: format!("/proc/{}/stat", self.front),
            source: std::io::Error::from(std::io::ErrorKind::NotFound),
        })?;
        let shared = self.shared;
        let waited = || {
            let ticks = time(front.children_user + front.children_system).saturating_sub(Microseconds(self.before_us));
            ticks.max(Microseconds(shared.map_or(0, |shared| shared.reaped_us())))
        };
        let running = || tree::descendants(self.front, own).into_iter().filter(is_counted_once).collect();
        let (waited, user, system) = collect(waited, running);
        let reading = Reading {
            cpu_seconds: time(user + system).saturating_add(waited),
            user_seconds: time(user + front.children_user),
            system_seconds: time(system + front.children_system),
        };
        // A process that died between its own line and its parent's is missed for one look.
        if reading.cpu_seconds > self.highest.cpu_seconds {
            self.highest = reading;
        }
        Ok(self.highest)
    }

    fn source(&self) -> CpuSource {
        CpuSource::Procfs
    }

    fn error_bound(&self) -> Option<Microseconds> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, parent: i32) -> Stat {
        let start = Stat::read(pid).map_or(0, |stat| stat.start);
        let command = "job".to_owned();
        let (children_user, children_system) = (0, 0);
        Stat {
            pid,
            parent,
            command,
            state: 'Z',
            start,
            user: 60,
            system: 40,
            children_user,
            children_system,
            threads: 1,
        }
    }

    #[test]
    fn what_the_front_waits_for_while_the_list_is_made_counts_once() {
        let shared = SharedPage::map().unwrap();
        let waited = || Microseconds(shared.reaped_us());
        let running = || {
            let list = vec![stat(i32::MAX, 1)];
            shared.set_reaped_us(1_000_000);
            list
        };
        let (waited, user, system) = collect(waited, running);
        assert_eq!(time(user + system).saturating_add(waited), Microseconds(1_000_000));
    }

    #[test]
    fn what_a_later_parent_may_have_waited_for_counts_once() {
        let own = i32::try_from(std::process::id()).unwrap();
        // It lives; it has gone, and its line was read before its parent's; it has gone, and its parent's was first.
        for (pid, parent, is_counted) in [(own, i32::MAX, true), (i32::MAX - 1, i32::MAX, false), (i32::MAX, 1, true)] {
            assert_eq!(is_counted_once(&stat(pid, parent)), is_counted, "{pid} of {parent}");
        }
    }
}
