//! The other truths about a job, for people who look for what made it slow: never billed. What the kernel does not
//! count here is absent, not zero.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::steal::steal_us;
use crate::domain::printable::printable;
use crate::domain::units::Microseconds;
use crate::sys::cgroup::Group;
use crate::sys::containment::Containment;
use crate::sys::tree::{Stat, TICK_US};

/// A sample looks at no more processes, so that a fork storm costs little.
const SAMPLED_MAX: usize = 256;
/// How many are kept between samples.
const KNOWN_MAX: usize = 4_096;
/// How many are named.
const BUSIEST_MAX: usize = 5;
/// A process that burned much, as far as samples saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusyProcess {
    /// Its process id.
    pub pid: i32,
    /// Its name.
    pub command: String,
    /// At the last sample.
    pub cpu_seconds: Microseconds,
}

/// What is shown beside the bill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breakdown {
    /// Kept waiting by a quota: `throttled_usec` of `cpu.stat`.
    pub throttled_seconds: Option<Microseconds>,
    /// Some task waited for a CPU: `cpu.pressure`, some.
    pub pressure_seconds: Option<Microseconds>,
    /// Taken by the hypervisor from the whole machine meanwhile: `/proc/stat`.
    pub steal_seconds: Option<Microseconds>,
    /// `frozen_usec` of `cgroup.stat.local` (Linux 6.18).
    pub frozen_seconds: Option<Microseconds>,
    /// `memory.peak`.
    pub peak_bytes: Option<u64>,
    /// `oom_kill` of `memory.events`.
    pub oom_kills: Option<u64>,
    /// `io.stat`.
    pub read_bytes: Option<u64>,
    /// `io.stat`.
    pub written_bytes: Option<u64>,
    /// The most first.
    pub busiest: Vec<BusyProcess>,
}

/// Takes the samples.
#[derive(Debug)]
pub struct Sampler {
    steal_us: Option<u64>,
    known: BTreeMap<(i32, u64), BusyProcess>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self::new()
    }
}

impl Sampler {
    /// From now on.
    #[must_use]
    pub fn new() -> Self {
        Self { steal_us: steal_us(), known: BTreeMap::new() }
    }

    /// Looks at the processes that live now.
    pub fn sample(&mut self, containment: &Containment) {
        for stat in containment.processes().into_iter().take(SAMPLED_MAX).filter_map(Stat::read) {
            let cpu_seconds = Microseconds(stat.user.saturating_add(stat.system).saturating_mul(TICK_US));
            // A process names itself, and the name goes where receipts go.
            let command = printable(&stat.command).into_owned();
            self.known.insert((stat.pid, stat.start), BusyProcess { pid: stat.pid, command, cpu_seconds });
        }
        if self.known.len() > KNOWN_MAX {
            let mut all: Vec<_> = std::mem::take(&mut self.known).into_iter().collect();
            all.sort_by_key(|(_, process)| std::cmp::Reverse(process.cpu_seconds));
            self.known = all.into_iter().take(KNOWN_MAX / 2).collect();
        }
    }

    /// The last look, while what is left stands still.
    pub fn finish(&mut self, containment: &Containment) -> Breakdown {
        self.sample(containment);
        let mut busiest: Vec<BusyProcess> = std::mem::take(&mut self.known).into_values().collect();
        busiest.retain(|process| process.cpu_seconds > Microseconds::ZERO);
        busiest.sort_by_key(|process| std::cmp::Reverse(process.cpu_seconds));
        busiest.truncate(BUSIEST_MAX);
        let steal_seconds = self.steal_us.and_then(|before| Some(Microseconds(steal_us()?.saturating_sub(before))));
        let breakdown = match containment {
            Containment::Cgroup2(group) | Containment::Attached { group, .. } => of_group(group),
            Containment::Cgroup1 { .. } | Containment::Tree { .. } => Breakdown::default(),
        };
        Breakdown { steal_seconds, busiest, ..breakdown }
    }
}

fn of_group(group: &Group) -> Breakdown {
    let read = |name: &str| group.read_file(name).ok();
    let micros = |name: &str, key: &str| field(&read(name)?, key).map(Microseconds);
    let io = read("io.stat");
    let io_sum = |key: &str| io.as_ref().map(|text| sum(text, key));
    Breakdown {
        throttled_seconds: micros("cpu.stat", "throttled_usec"),
        pressure_seconds: read("cpu.pressure").and_then(|text| pressure(&text)).map(Microseconds),
        steal_seconds: None,
        frozen_seconds: micros("cgroup.stat.local", "frozen_usec"),
        peak_bytes: read("memory.peak").and_then(|text| text.trim().parse().ok()),
        oom_kills: read("memory.events").and_then(|text| field(&text, "oom_kill")),
        read_bytes: io_sum("rbytes="),
        written_bytes: io_sum("wbytes="),
        busiest: Vec::new(),
    }
}

fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// `some avg10=… total=N`, in µs.
fn pressure(text: &str) -> Option<u64> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    some.split(' ').find_map(|word| word.strip_prefix("total=")?.parse().ok())
}

/// One line a device: `8:0 rbytes=1 wbytes=2 …`.
fn sum(text: &str, key: &str) -> u64 {
    let values = text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
    values.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_formats() {
        assert_eq!(field("usage_usec 5\nthrottled_usec 7\n", "throttled_usec"), Some(7));
        assert_eq!(field("oom 1\noom_kill 2\noom_kill_x 3\n", "oom_kill"), Some(2));
        assert_eq!(field("", "oom_kill"), None);
        let text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1234\nfull avg10=0.00 total=9\n";
        assert_eq!(pressure(text), Some(1234));
        assert_eq!(sum("8:0 rbytes=10 wbytes=1\n8:16 rbytes=5 wbytes=2 dios=0\n", "rbytes="), 15);
    }
}
