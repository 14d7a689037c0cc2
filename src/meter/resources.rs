//! The highest rate at which a job can burn: online CPUs within its cpuset, and the tightest bandwidth limit above it.
//! Never its affinity, which a job widens as it likes.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use crate::domain::deadline::{HighestRate, Quota};
use crate::sys::clock::{Clock, SystemClock};

/// An operator may change a limit at any time; it is read again after this, in µs.
const FRESH_US: u64 = 100_000;

/// Reads the limits of the groups that a job is below.
#[derive(Debug)]
pub struct RateReader {
    groups: Vec<PathBuf>,
    v1_cpu: Option<PathBuf>,
    v1_cpuset: Option<PathBuf>,
    last: Cell<(u64, HighestRate)>,
}

impl RateReader {
    /// For a job below `group` (v2), or below jobmeter's own v1 groups.
    #[must_use]
    pub fn new(group: Option<&Path>) -> Self {
        let v1 = |controller| crate::sys::cgroup1::own_group(controller).ok().map(|group| group.path().to_owned());
        let mut groups: Vec<PathBuf> =
            group.map(|group| group.ancestors().map(Path::to_owned).collect()).unwrap_or_default();
        groups.retain(|path| path.join("cgroup.procs").exists());
        let none = HighestRate { cpus_ppm: 0, quota: None };
        let reader = Self { groups, v1_cpu: v1("cpu"), v1_cpuset: v1("cpuset"), last: Cell::new((0, none)) };
        reader.last.set((SystemClock.boottime_us(), reader.read()));
        reader
    }

    /// As of now, or a moment ago.
    #[must_use]
    pub fn highest_rate(&self) -> HighestRate {
        let now_us = SystemClock.boottime_us();
        let (at_us, rate) = self.last.get();
        if now_us.saturating_sub(at_us) < FRESH_US {
            return rate;
        }
        let rate = self.read();
        self.last.set((now_us, rate));
        rate
    }

    fn read(&self) -> HighestRate {
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok();
        let mut cpus = online.as_deref().and_then(parse_list).unwrap_or_else(|| vec![(0, CPUS_UNKNOWN - 1)]);
        let v2 = self.groups.iter().map(|group| group.join("cpuset.cpus.effective")).find(|path| path.exists());
        let v1 = self.v1_cpuset.as_ref().map(|group| group.join("cpuset.effective_cpus"));
        for path in [v2, v1].into_iter().flatten() {
            if let Some(allowed) = std::fs::read_to_string(path).ok().as_deref().and_then(parse_list) {
                cpus = intersect(&cpus, &allowed);
            }
        }
        let count: u64 = cpus.iter().map(|(first, last)| last - first + 1).sum();
        let quotas =
            self.groups.iter().filter_map(|group| quota2(group)).chain(self.v1_cpu.as_deref().and_then(quota1));
        HighestRate {
            cpus_ppm: count.max(1) * 1_000_000,
            quota: quotas.min_by_key(|quota| quota.quota_us.saturating_mul(1_000_000) / quota.period_us.max(1)),
        }
    }
}

/// Where the kernel does not say how many CPUs are online, no rate is too high.
const CPUS_UNKNOWN: u64 = 8_192;

fn quota2(group: &Path) -> Option<Quota> {
    let text = std::fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    let burst = std::fs::read_to_string(group.join("cpu.max.burst")).ok().and_then(|text| text.trim().parse().ok());
    Some(Quota { quota_us: quota.parse().ok()?, period_us: period.parse().ok()?, burst_us: burst.unwrap_or(0) })
}

fn quota1(group: &Path) -> Option<Quota> {
    let number = |name: &str| std::fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    // Without a limit the file says -1, which is no such number.
    let (quota_us, period_us) = (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?);
    Some(Quota { quota_us, period_us, burst_us: number("cpu.cfs_burst_us").unwrap_or(0) })
}

/// `0-3,8` as ranges; `None` where it is empty or something else.
fn parse_list(text: &str) -> Option<Vec<(u64, u64)>> {
    let ranges = text.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some((first, last))
    });
    ranges.collect()
}

fn intersect(a: &[(u64, u64)], b: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let pairs = a.iter().flat_map(|one| b.iter().map(move |other| (one.0.max(other.0), one.1.min(other.1))));
    pairs.filter(|(first, last)| first <= last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_of_cpus() {
        assert_eq!(parse_list("0-3,8\n").unwrap(), [(0, 3), (8, 8)]);
        assert_eq!(parse_list(""), None);
        assert_eq!(parse_list("3-1"), None);
        assert_eq!(intersect(&[(0, 3), (8, 8)], &[(2, 9)]), [(2, 3), (8, 8)]);
    }

    #[test]
    fn reads_quotas_of_both_versions() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("cpu.max", "max 100000\n");
        assert_eq!(quota2(directory.path()), None);
        write("cpu.max", "50000 100000\n");
        write("cpu.max.burst", "1000\n");
        let quota = Quota { quota_us: 50_000, period_us: 100_000, burst_us: 1_000 };
        assert_eq!(quota2(directory.path()), Some(quota));
        write("cpu.cfs_quota_us", "-1\n");
        write("cpu.cfs_period_us", "100000\n");
        assert_eq!(quota1(directory.path()), None);
    }
}
