//! CPU time of a group that something else made, and that goes away when its last process has ended.

use super::cgroup2::Cgroup2Meter;
use super::{CpuSource, Meter, MeterError, Reading};
use crate::domain::units::Microseconds;
use crate::sys::cgroup::Group;

/// Its counter, less what it said before.
#[derive(Debug)]
pub struct AttachedMeter {
    counter: Cgroup2Meter,
    before: Microseconds,
    last: Reading,
}

impl AttachedMeter {
    /// Where `before_us` had been burned in the group already.
    ///
    /// # Errors
    /// Where `cpu.stat` cannot be read.
    pub fn new(group: &Group, before_us: u64) -> Result<Self, MeterError> {
        let mut counter = Cgroup2Meter::new(group)?;
        counter.read()?;
        Ok(Self { counter, before: Microseconds(before_us), last: Reading::default() })
    }

    /// What had been burned in the group until now, in µs.
    ///
    /// # Errors
    /// Where `cpu.stat` cannot be read.
    pub fn burned_us(group: &Group) -> Result<u64, MeterError> {
        Ok(Cgroup2Meter::new(group)?.read()?.cpu_seconds.0)
    }
}

impl Meter for AttachedMeter {
    /// A group that has gone burns no more: what it said last stands.
    fn read(&mut self) -> Result<Reading, MeterError> {
        if let Ok(now) = self.counter.read() {
            self.last = Reading { cpu_seconds: now.cpu_seconds.saturating_sub(self.before), ..now };
        }
        Ok(self.last)
    }

    fn source(&self) -> CpuSource {
        CpuSource::Cgroup2
    }

    fn error_bound(&self) -> Option<Microseconds> {
        // What is burned between the last look and the end of the group is lost with it.
        None
    }
}
