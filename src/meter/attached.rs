//! CPU time of a group that something else made, and that goes away when its last process has ended.

use nix::errno::Errno;

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
    /// A group that has gone burns no more: what it said last stands. One that is there and cannot be read is not metered.
    fn read(&mut self) -> Result<Reading, MeterError> {
        match self.counter.read() {
            Ok(now) => self.last = Reading { cpu_seconds: now.cpu_seconds.saturating_sub(self.before), ..now },
            Err(error) if has_gone(&error) => {}
            Err(error) => return Err(error),
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

/// What an open file of a group that was removed says to its reader.
fn has_gone(error: &MeterError) -> bool {
    matches!(error, MeterError::Io { source, .. } if source.raw_os_error() == Some(Errno::ENODEV as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_group_that_was_removed_has_gone() {
        let fault = |errno: Errno| MeterError::Io { what: "cpu.stat".to_owned(), source: errno.into() };
        assert!(has_gone(&fault(Errno::ENODEV)));
        assert!(!has_gone(&fault(Errno::EIO)) && !has_gone(&fault(Errno::ENOMEM)));
        assert!(!has_gone(&MeterError::Format { what: "cpu.stat".to_owned(), line: String::new() }));
    }
}
