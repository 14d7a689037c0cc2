//! CPU time of a cgroup v2: `usage_usec` of `cpu.stat`, which the kernel keeps whether or not a controller is enabled,
//! and which counts dead and nested tasks. `user_usec` and `system_usec` are an estimated split of the same sum.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{CpuSource, Meter, MeterError, Reading};
use crate::domain::units::Microseconds;
use crate::sys::cgroup::Group;

/// Reads `cpu.stat` of the job's own group, which began at zero.
#[derive(Debug)]
pub struct Cgroup2Meter {
    what: String,
    cpu_stat: File,
    highest: Reading,
}

impl Cgroup2Meter {
    /// Holds the counter of `group` open.
    ///
    /// # Errors
    /// Where `cpu.stat` cannot be opened.
    pub fn new(group: &Group) -> Result<Self, MeterError> {
        let what = group.path().join("cpu.stat").display().to_string();
        let cpu_stat = group.open_file("cpu.stat").map_err(|source| MeterError::Io { what: what.clone(), source })?;
        Ok(Self { what, cpu_stat, highest: Reading::default() })
    }
}

/// Reads the three base fields; unknown keys are ignored, since kernels add some.
pub(super) fn parse_cpu_stat(what: &str, text: &str) -> Result<Reading, MeterError> {
    let (mut cpu, mut user, mut system) = (None, 0, 0);
    for line in text.lines() {
        let unexpected = || MeterError::Format { what: what.to_owned(), line: line.to_owned() };
        let (key, value) = line.split_once(' ').ok_or_else(unexpected)?;
        let field = match key {
            "usage_usec" => cpu.insert(0),
            "user_usec" => &mut user,
            "system_usec" => &mut system,
            _ => continue,
        };
        *field = value.parse().map_err(|_| unexpected())?;
    }
    let cpu = cpu.ok_or_else(|| MeterError::Format { what: what.to_owned(), line: "(no usage_usec)".to_owned() })?;
    Ok(Reading {
        cpu_seconds: Microseconds(cpu),
        user_seconds: Microseconds(user),
        system_seconds: Microseconds(system),
    })
}

impl Meter for Cgroup2Meter {
    fn read(&mut self) -> Result<Reading, MeterError> {
        let mut buffer = [0_u8; 1024];
        let length = self
            .cpu_stat
            .read_at(&mut buffer, 0)
            .map_err(|source| MeterError::Io { what: self.what.clone(), source })?;
        let text = std::str::from_utf8(buffer.get(..length).unwrap_or_default()).unwrap_or_default();
        let reading = parse_cpu_stat(&self.what, text)?;
        // The kernel never lowers the counter; should one do so, what was seen stays charged.
        if reading.cpu_seconds >= self.highest.cpu_seconds {
            self.highest = reading;
        }
        Ok(self.highest)
    }

    fn source(&self) -> CpuSource {
        CpuSource::Cgroup2
    }

    fn error_bound(&self) -> Option<Microseconds> {
        // A frozen or dead task has been accounted for to the nanosecond; the file is in whole microseconds.
        Some(Microseconds(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_base_fields_and_ignores_others() {
        let text = "usage_usec 12\nuser_usec 7\nsystem_usec 5\nnice_usec 0\nnr_periods 3\n";
        let reading = parse_cpu_stat("cpu.stat", text).unwrap();
        assert_eq!((reading.cpu_seconds.0, reading.user_seconds.0, reading.system_seconds.0), (12, 7, 5));
    }

    #[test]
    fn names_file_and_line_of_what_it_cannot_read() {
        let error = parse_cpu_stat("/x/cpu.stat", "usage_usec many\n").unwrap_err().to_string();
        assert!(error.contains("/x/cpu.stat") && error.contains("usage_usec many"), "{error}");
        assert!(parse_cpu_stat("cpu.stat", "").is_err());
    }
}
