//! What an attempt can have used: what its declared resources can do in the time since it began. No report, honest or not, is believed
//! beyond that.
//!
//! Time is added up from report to report, so that CPUs that go away later do not lower what was possible before. Where a clock is set
//! back, nothing is known of it any more, and nothing is bounded.

#![expect(clippy::arithmetic_side_effects, reason = "sums and products of 64-bit numbers, in 128 bits")]

use super::units::Microseconds;
use super::usage::{GpuUsage, Usage};

/// Beyond what time allows, in µs of each resource: a quota's burst, and readings that are older than the clock's last step.
const SLACK_US: u64 = 10_000_000;
/// And one part in so many: clocks of two machines do not run at the same rate.
const SLACK_PART: u64 = 16;
const PPM: u128 = 1_000_000;

/// What an attempt can use in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    /// Millionths of a CPU.
    pub cpus_ppm: u64,
    /// Weights of all its GPUs, added up, in parts per million.
    pub gpus_ppm: u64,
}

/// Up to an attempt's last word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// CPU time that its CPUs had, in µs.
    pub cpu_us: u64,
    /// GPU time that its GPUs had, times their weights, in µs.
    pub gpu_us: u64,
    /// How long it has run, in µs.
    pub alive_us: u64,
    /// When that was, in µs since 1970.
    pub heard_us: i64,
}

impl Capacity {
    /// Of one that began then.
    #[must_use]
    pub fn since(started_us: i64, now_us: i64, speed: Speed) -> Self {
        Self { heard_us: started_us, ..Self::default() }.grown(now_us, speed)
    }

    /// At a later word, when it has had this speed since the one before.
    #[must_use]
    pub fn grown(self, now_us: i64, speed: Speed) -> Self {
        let passed_us = u64::try_from(i128::from(now_us) - i128::from(self.heard_us)).unwrap_or(0);
        let in_time = |ppm: u128| u128::from(passed_us) * ppm / PPM;
        Self {
            cpu_us: narrowed(u128::from(self.cpu_us) + in_time(at_least_one(speed.cpus_ppm))),
            gpu_us: narrowed(u128::from(self.gpu_us) + in_time(speed.gpus_ppm.into())),
            alive_us: narrowed(u128::from(self.alive_us) + u128::from(passed_us)),
            heard_us: now_us,
        }
    }

    /// As much of a usage as can be, when `before` was believed already. `weight_ppm` is that of a model of GPUs.
    #[must_use]
    pub fn bounded(&self, before: &Usage, usage: &Usage, speed: Speed, weight_ppm: impl Fn(&str) -> u64) -> Usage {
        let burst_us = |ppm: u128| narrowed(u128::from(SLACK_US) * ppm / PPM);
        let cpu_most = with_slack(self.cpu_us, burst_us(at_least_one(speed.cpus_ppm)));
        let mut usage = usage.clone();
        usage.cpu_used_seconds.0 = usage.cpu_used_seconds.0.min(cpu_most);
        usage.cpu_allocated_seconds.0 = usage.cpu_allocated_seconds.0.min(cpu_most);
        let weighted_us = with_slack(self.gpu_us, burst_us(speed.gpus_ppm.into()));
        for of in [GpuUsage::busy, GpuUsage::allocated] {
            self.bound_gpus(before, &mut usage, weighted_us, &weight_ppm, of);
        }
        usage
    }

    /// No device is believed to have run longer than the attempt, and all together no more than the declared ones can have done. One
    /// is believed in any case, as one CPU is.
    fn bound_gpus(
        &self,
        before: &Usage,
        usage: &mut Usage,
        weighted_us: u64,
        weight_ppm: &impl Fn(&str) -> u64,
        of: fn(&mut GpuUsage) -> &mut Microseconds,
    ) {
        let most = with_slack(self.alive_us, SLACK_US);
        let known = |uuid: &str| before.gpus.get(uuid).cloned().map_or(0, |mut gpu| of(&mut gpu).0);
        let weight = |uuid: &str, gpu: &GpuUsage| {
            u128::from(weight_ppm(before.gpus.get(uuid).map_or(gpu.model.as_str(), |known| known.model.as_str())))
        };
        let heaviest = usage.gpus.iter().map(|(uuid, gpu)| weight(uuid, gpu)).max().unwrap_or(0);
        let used: u128 = before.gpus.iter().map(|(uuid, gpu)| u128::from(known(uuid)) * weight(uuid, gpu)).sum();
        let could = (u128::from(weighted_us) * PPM).max(u128::from(most) * heaviest);
        let mut left = could.max(used) - used;
        for (uuid, gpu) in &mut usage.gpus {
            let (known_us, weight) = (known(uuid), weight(uuid, gpu));
            let said = of(gpu);
            let more = u128::from(said.0.min(most).max(known_us) - known_us);
            let more = left.checked_div(weight).map_or(more, |of_left| more.min(of_left));
            left -= more * weight;
            said.0 = said.0.min(narrowed(u128::from(known_us) + more));
        }
    }
}

impl GpuUsage {
    fn busy(&mut self) -> &mut Microseconds {
        &mut self.busy_seconds
    }

    fn allocated(&mut self) -> &mut Microseconds {
        &mut self.allocated_seconds
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

    fn cpus(count: u64) -> Speed {
        Speed { cpus_ppm: count * 1_000_000, gpus_ppm: 0 }
    }

    fn believed(capacity: Capacity, speed: Speed) -> (u64, u64) {
        let usage = Usage { cpu_used_seconds: Microseconds(u64::MAX), ..gpus(["g"]) };
        let bounded = capacity.bounded(&Usage::default(), &usage, speed, |_| 1_000_000);
        (bounded.cpu_used_seconds.0 / 1_000_000, bounded.gpus["g"].busy_seconds.0 / 1_000_000)
    }

    /// Each for ever.
    fn gpus<const N: usize>(names: [&str; N]) -> Usage {
        let most = Microseconds(u64::MAX);
        let gpu = GpuUsage { busy_seconds: most, allocated_seconds: most, ..GpuUsage::default() };
        Usage { gpus: names.map(|name| (name.to_owned(), gpu.clone())).into(), ..Usage::default() }
    }

    fn seconds_of(usage: &Usage) -> Vec<u64> {
        usage.gpus.values().map(|gpu| gpu.busy_seconds.0 / 1_000_000).collect()
    }

    #[test]
    fn time_and_cpus_bound_what_can_have_been_used() {
        let begun = Capacity::since(0, 0, cpus(4));
        assert_eq!(believed(begun, cpus(4)), (40, 10));
        let later = begun.grown(160 * SECOND, cpus(4));
        assert_eq!(believed(later, cpus(4)), (640 + 40 + 40, 160 + 10 + 10));
        // Three of the four go away: what was possible before stays so.
        let fewer = later.grown(320 * SECOND, cpus(1));
        assert_eq!(believed(fewer, cpus(1)).0, 640 + 160 + 50 + 10);
    }

    /// Two were declared, each of half a weight; three are said to have run, and then three others.
    #[test]
    fn all_gpus_together_are_bounded_by_those_that_were_declared() {
        let (speed, half) = (Speed { cpus_ppm: 0, gpus_ppm: 1_000_000 }, |_: &str| 500_000);
        let capacity = Capacity::since(0, 160 * SECOND, speed);
        let first = capacity.bounded(&Usage::default(), &gpus(["a", "b", "c"]), speed, half);
        assert_eq!(seconds_of(&first), [180, 180, 0]);
        let others = capacity.bounded(&first, &gpus(["A", "B", "C"]), speed, half);
        assert_eq!(seconds_of(&others), [0, 0, 0]);
        // Both go away: one is believed, from what was used before on.
        let none = Speed::default();
        let later = capacity.grown(480 * SECOND, none).bounded(&first, &gpus(["a", "b"]), none, half);
        assert_eq!(seconds_of(&later), [340, 180]);
    }

    #[test]
    fn nothing_leaves_the_range() {
        let endless = Capacity::since(i64::MIN, i64::MAX, cpus(1_000_000));
        assert_eq!(endless.cpu_us, i64::MAX.unsigned_abs());
        assert!(believed(endless, cpus(1_000_000)).0 > 0);
    }
}
