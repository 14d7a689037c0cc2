//! CPU time by `/proc`: what the clocks of the front's descendants say. Children of a parent that ignores SIGCHLD are lost,
//! so no bound is declared.

use super::tree_clock::TreeClock;
use super::{CpuSource, Meter, MeterError, Reading};
use crate::domain::units::Microseconds;
use crate::sys::shared::SharedPage;

/// Sums the front's descendants.
#[derive(Debug)]
pub struct ProcfsMeter(TreeClock);

impl ProcfsMeter {
    /// Of everything below `front`, which tells by `shared` to the µs what it has waited for; `before_us` it had waited for
    /// before.
    #[must_use]
    pub fn new(front: i32, before_us: u64, shared: Option<SharedPage>) -> Self {
        Self(TreeClock::new(front, before_us, shared))
    }
}

impl Meter for ProcfsMeter {
    fn read(&mut self) -> Result<Reading, MeterError> {
        self.0.read()
    }

    fn source(&self) -> CpuSource {
        CpuSource::Procfs
    }

    fn error_bound(&self) -> Option<Microseconds> {
        None
    }

    fn degraded(&self) -> Option<&'static str> {
        self.0.is_lossy().then_some(
            "procfs: a process of the job ignores SIGCHLD or waits for no child: what its children burned before they \
             ended may be missing",
        )
    }
}
