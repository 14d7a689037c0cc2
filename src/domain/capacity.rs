//! What an attempt can have used: what its declared resources can do in the time since it began. No report, honest or not, is believed
//! beyond that.
//!
//! Time is added up from report to report, so that CPUs that go away later do not lower what was possible before. Where a clock is set
//! back, nothing is known of it any more, and nothing is bounded.

#![expect(clippy::arithmetic_side_effects, reason = "sums and products of 64-bit numbers, in 128 bits")]

use super::usage::Usage;

/// Beyond what time allows, in µs of each resource: a quota's burst, and readings that are older than the clock's last step.
const SLACK_US: u64 = 10_000_000;
/// And one part in so many: clocks of two machines do not run at the same rate.
const SLACK_PART: u64 = 16;

/// Up to an attempt's last word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// CPU time that its CPUs had, in µs.
    pub cpu_us: u64,
    /// How long it has run, in µs.
    pub alive_us: u64,
    /// When that was, in µs since 1970.
    pub heard_us: i64,
}

impl Capacity {
    /// Of one that began then and has so many millionths of a CPU.
    #[must_use]
    pub fn since(started_us: i64, now_us: i64, cpus_ppm: u64) -> Self {
        Self { heard_us: started_us, ..Self::default() }.grown(now_us, cpus_ppm)
    }

    /// At a later word, when it has had so many millionths of a CPU since the one before.
    #[must_use]
    pub fn grown(self, now_us: i64, cpus_ppm: u64) -> Self {
        let passed_us = u64::try_from(i128::from(now_us) - i128::from(self.heard_us)).unwrap_or(0);
        let cpu_us = u128::from(self.cpu_us) + u128::from(passed_us) * at_least_one(cpus_ppm) / 1_000_000;
        Self {
            cpu_us: narrowed(cpu_us),
            alive_us: narrowed(u128::from(self.alive_us) + u128::from(passed_us)),
            heard_us: now_us,
        }
    }

    /// As much of a usage as can be.
    #[must_use]
    pub fn bounded(&self, usage: &Usage, cpus_ppm: u64) -> Usage {
        let burst_us = narrowed(u128::from(SLACK_US) * at_least_one(cpus_ppm) / 1_000_000);
        let (cpu_most, most) = (with_slack(self.cpu_us, burst_us), with_slack(self.alive_us, SLACK_US));
        let mut usage = usage.clone();
        usage.cpu_used_seconds.0 = usage.cpu_used_seconds.0.min(cpu_most);
        usage.cpu_allocated_seconds.0 = usage.cpu_allocated_seconds.0.min(cpu_most);
        for gpu in usage.gpus.values_mut() {
            gpu.busy_seconds.0 = gpu.busy_seconds.0.min(most);
            gpu.allocated_seconds.0 = gpu.allocated_seconds.0.min(most);
        }
        usage
    }
}

/// One CPU at least: who declares next to nothing still runs on something.
fn at_least_one(cpus_ppm: u64) -> u128 {
    u128::from(cpus_ppm).max(1_000_000)
}

fn with_slack(us: u64, burst_us: u64) -> u64 {
    narrowed(u128::from(us) + u128::from(us / SLACK_PART) + u128::from(burst_us))
}

/// Into what a database holds.
fn narrowed(us: u128) -> u64 {
    u64::try_from(us).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::units::Microseconds;
    use crate::domain::usage::GpuUsage;

    const SECOND: i64 = 1_000_000;

    const fn pace(cpus: u64) -> u64 {
        cpus * 1_000_000
    }

    fn believed(capacity: Capacity, cpus_ppm: u64) -> (u64, u64) {
        let most = Microseconds(u64::MAX);
        let gpu = GpuUsage { busy_seconds: most, allocated_seconds: most, ..GpuUsage::default() };
        let usage = Usage { cpu_used_seconds: most, gpus: [("g".to_owned(), gpu)].into(), ..Usage::default() };
        let bounded = capacity.bounded(&usage, cpus_ppm);
        (bounded.cpu_used_seconds.0 / 1_000_000, bounded.gpus["g"].busy_seconds.0 / 1_000_000)
    }

    #[test]
    fn time_and_cpus_bound_what_can_have_been_used() {
        let begun = Capacity::since(0, 0, pace(4));
        assert_eq!(believed(begun, pace(4)), (40, 10));
        let later = begun.grown(160 * SECOND, pace(4));
        assert_eq!(believed(later, pace(4)), (640 + 40 + 40, 160 + 10 + 10));
        // Three of the four go away: what was possible before stays so.
        let fewer = later.grown(320 * SECOND, pace(1));
        assert_eq!(believed(fewer, pace(1)).0, 640 + 160 + 50 + 10);
    }

    #[test]
    fn nothing_leaves_the_range() {
        let endless = Capacity::since(i64::MIN, i64::MAX, pace(1_000_000));
        assert_eq!(endless.cpu_us, i64::MAX.unsigned_abs());
        assert!(believed(endless, pace(1_000_000)).0 > 0);
    }
}
