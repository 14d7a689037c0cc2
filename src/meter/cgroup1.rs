//! CPU time of a cgroup v1: `cpuacct.usage`, in ns, dead and nested tasks included.

use super::{CpuSource, Meter, MeterError, Reading};
use crate::domain::units::Microseconds;
use crate::sys::cgroup1::V1Group;
use crate::sys::tree::TICK_US;

/// Reads `cpuacct.usage` of the job's own group.
#[derive(Debug)]
pub struct Cgroup1Meter {
    group: V1Group,
    highest_us: u64,
}

impl Cgroup1Meter {
    /// Of a group that was made for the job, so that it began at zero.
    #[must_use]
    pub fn new(group: V1Group) -> Self {
        Self { group, highest_us: 0 }
    }
}

impl Meter for Cgroup1Meter {
    fn read(&mut self) -> Result<Reading, MeterError> {
        let what = self.group.path().join("cpuacct.usage").display().to_string();
        let text = self.group.read("cpuacct.usage").map_err(|source| MeterError::Io { what: what.clone(), source })?;
        let ns: u64 = text.trim().parse().map_err(|_| MeterError::Format { what, line: text.trim().to_owned() })?;
        self.highest_us = self.highest_us.max(ns.div_ceil(1_000));
        let stat = self.group.read("cpuacct.stat").unwrap_or_default();
        let field = |name: &str| {
            let line = stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
            Microseconds(line.unwrap_or(0).saturating_mul(TICK_US))
        };
        Ok(Reading {
            cpu_seconds: Microseconds(self.highest_us),
            user_seconds: field("user "),
            system_seconds: field("system "),
        })
    }

    fn source(&self) -> CpuSource {
        CpuSource::Cgroup1
    }

    fn error_bound(&self) -> Option<Microseconds> {
        Some(Microseconds(1))
    }
}
