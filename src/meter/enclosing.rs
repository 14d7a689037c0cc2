//! CPU time of the group that jobmeter was started in, less jobmeter's own: for containers and Slurm jobs, where no
//! group may be made and nothing else runs in the enclosing one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::unistd::Pid;

use super::cgroup2::parse_cpu_stat;
use super::{CpuSource, Meter, MeterError, Reading};
use crate::domain::printable::printable;
use crate::domain::units::Microseconds;
use crate::sys::cgroup::Group;
use crate::sys::clock::{after, is_before, pause};
use crate::sys::process::{cpu_us_of, own_cpu_us};
use crate::sys::tree::Stat;

/// A process that is about to end, or to be moved elsewhere, has so long for it: what a script has started just before.
const LEAVE_MAX: Duration = Duration::from_millis(200);
const LOOK_EACH: Duration = Duration::from_millis(5);
/// An error names no more.
const NAMED_MAX: usize = 3;

/// Those that stay there.
fn others_in(group: &Group, own: Pid, wait_max: Duration) -> Vec<i32> {
    let until_us = after(wait_max);
    loop {
        let others: Vec<i32> = group.listed().into_iter().filter(|pid| *pid != own.as_raw()).collect();
        if others.is_empty() || !is_before(until_us) {
            return others;
        }
        pause(LOOK_EACH);
    }
}

fn named(pids: &[i32]) -> String {
    let name = |pid: &i32| match Stat::read(*pid) {
        Some(stat) => format!("{pid} ({})", printable(&stat.command)),
        None => pid.to_string(),
    };
    let mut names: Vec<String> = pids.iter().take(NAMED_MAX).map(name).collect();
    names.extend(pids.len().checked_sub(NAMED_MAX + 1).map(|more| format!("and {} more", more + 1)));
    names.join(", ")
}

/// `cpu.stat` of the enclosing group.
#[derive(Debug)]
pub struct EnclosingMeter {
    what: String,
    cpu_stat: File,
    start: Reading,
    front: Pid,
    front_us: u64,
    helpers_us: u64,
    highest_us: u64,
}

impl EnclosingMeter {
    /// Where `group` holds nothing but this process. Where there is no other source (`is_forced`), others have a moment to leave it.
    ///
    /// # Errors
    /// Where it holds more, is the whole machine's, or cannot be read.
    pub fn new(group: &Group, is_forced: bool) -> Result<Self, MeterError> {
        let unusable = |why: String| MeterError::Unusable { source_name: "enclosing", why };
        let what = group.path().join("cpu.stat").display().to_string();
        // Only the root of the real hierarchy has no `cgroup.type` (cgroups(7)).
        if group.open_file("cgroup.type").is_err() {
            return Err(unusable(format!("{} is the whole machine's group", group.path().display())));
        }
        let own = nix::unistd::getpid();
        let others = others_in(group, own, if is_forced { LEAVE_MAX } else { Duration::ZERO });
        if !others.is_empty() {
            let named = if is_forced { named(&others) } else { format!("{} of them", others.len()) };
            return Err(unusable(format!("other processes are in {}: {named}", group.path().display())));
        }
        let cpu_stat = group.open_file("cpu.stat").map_err(|source| MeterError::Io { what: what.clone(), source })?;
        let (start, front_us) = (Reading::default(), own_cpu_us());
        let mut meter = Self { what, cpu_stat, start, front: own, front_us, helpers_us: 0, highest_us: 0 };
        meter.start = meter.counter()?;
        Ok(meter)
    }

    fn counter(&self) -> Result<Reading, MeterError> {
        let mut buffer = [0_u8; 1024];
        let length = self
            .cpu_stat
            .read_at(&mut buffer, 0)
            .map_err(|source| MeterError::Io { what: self.what.clone(), source })?;
        parse_cpu_stat(&self.what, std::str::from_utf8(buffer.get(..length).unwrap_or_default()).unwrap_or_default())
    }

    /// Of front, keeper and helpers, since the start.
    fn own_us(&self) -> u64 {
        let keeper_us = if nix::unistd::getpid() == self.front { 0 } else { own_cpu_us() };
        cpu_us_of(self.front).saturating_sub(self.front_us).saturating_add(keeper_us).saturating_add(self.helpers_us)
    }
}

impl Meter for EnclosingMeter {
    fn read(&mut self) -> Result<Reading, MeterError> {
        // What the keeper has burned since the last tick comes into the group's counter when its own clock is asked (measured on Linux
        // 6.18: else it is taken off without having been counted, 0.4 to 1.4 ms in a run).
        let own_before_us = self.own_us();
        let now = self.counter()?;
        let all_us = now.cpu_seconds.saturating_sub(self.start.cpu_seconds).0;
        self.highest_us = self.highest_us.max(all_us.saturating_sub(self.own_us().max(own_before_us)));
        Ok(Reading {
            cpu_seconds: Microseconds(self.highest_us),
            user_seconds: now.user_seconds.saturating_sub(self.start.user_seconds),
            system_seconds: now.system_seconds.saturating_sub(self.start.system_seconds),
        })
    }

    fn set_helpers_us(&mut self, us: u64) {
        self.helpers_us = us;
    }

    fn source(&self) -> CpuSource {
        CpuSource::Enclosing
    }

    fn error_bound(&self) -> Option<Microseconds> {
        // What enters the group from outside (an exec probe) is metered with it, so that no bound holds in general.
        None
    }
}
