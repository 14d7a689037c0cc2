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

impl Meter for ProcfsMeter {
    fn read(&mut self) -> Result<Reading, MeterError> {
        let own = nix::unistd::getpid().as_raw();
        let front = Stat::read(self.front).ok_or_else(|| MeterError::Io {
            what: format!("/proc/{}/stat", self.front),
            source: std::io::Error::from(std::io::ErrorKind::NotFound),
        })?;
        let (mut user, mut system) = (0, 0);
        for stat in tree::descendants(self.front, own) {
            user += stat.user + stat.children_user;
            system += stat.system + stat.children_system;
        }
        let time = |ticks: u64| Microseconds(ticks.saturating_mul(TICK_US));
        let reaped = time(front.children_user + front.children_system).saturating_sub(Microseconds(self.before_us));
        let reaped = reaped.max(Microseconds(self.shared.map_or(0, |shared| shared.reaped_us())));
        let reading = Reading {
            cpu_seconds: time(user + system).saturating_add(reaped),
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
