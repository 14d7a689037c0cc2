//! How soon an amount of CPU time can be burned at the highest possible rate: the time of the next look.

/// A bandwidth limit (`cpu.max`, `cpu.max.burst`), in µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// CPU time per period.
    pub quota_us: u64,
    /// Length of the period.
    pub period_us: u64,
    /// Unused quota that may be saved up.
    pub burst_us: u64,
}

/// The highest rate at which the job can use CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HighestRate {
    /// Online CPUs that its cpuset allows, in millionths of a CPU: µs of CPU time per second.
    pub cpus_ppm: u64,
    /// Its bandwidth limit.
    pub quota: Option<Quota>,
}

/// How fast an attempt can burn, and how much of that is unseen when it is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Its CPUs.
    pub cpu: HighestRate,
    /// Weights of all devices that are its own, added up, in parts per million.
    pub gpus_ppm: u64,
    /// Tick plus time to stop.
    pub stop_us: u64,
    /// How old the newest reading of a device can be.
    pub gpu_age_us: u64,
    /// How much of a device's time one reading can add at once.
    pub gpu_step_us: u64,
}

impl Bounds {
    /// The time within which the long-run rate burns at least what can be unseen at a stop: what the ledger is told.
    #[must_use]
    pub fn unseen_us(&self) -> u64 {
        let of_gpus = if self.gpus_ppm > 0 { self.gpu_age_us } else { 0 };
        self.cpu.stretched_us(self.stop_us).saturating_add(of_gpus)
    }
}

fn ceiling_division(dividend: u128, divisor: u128) -> u128 {
    dividend.div_ceil(divisor.max(1))
}

impl HighestRate {
    /// The earliest time, in µs from now, at which `cpu_us` more could have been burned. A quota is refilled at a time
    /// that cannot be known from outside, so within t it allows one refill more than t holds periods, and the burst.
    #[must_use]
    pub fn earliest_us(&self, cpu_us: u64) -> u64 {
        let by_cpus =
            u128::from(cpu_us).saturating_mul(1_000_000).checked_div(u128::from(self.cpus_ppm.max(1))).unwrap_or(0);
        let by_quota = self.quota.map_or(0, |quota| {
            let refilled = u128::from(cpu_us.saturating_sub(quota.burst_us));
            let refills = ceiling_division(refilled, u128::from(quota.quota_us));
            // ⌈t / period⌉ + 1 ≥ refills, so t > (refills − 2) × period.
            refills.saturating_sub(2).saturating_mul(u128::from(quota.period_us))
        });
        u64::try_from(by_cpus.max(by_quota)).unwrap_or(u64::MAX)
    }

    /// The most CPU time that can be burned within `wall_us`.
    #[must_use]
    pub fn most_us(&self, wall_us: u64) -> u64 {
        let by_cpus = u128::from(wall_us).saturating_mul(u128::from(self.cpus_ppm)).checked_div(1_000_000).unwrap_or(0);
        let by_quota = self.quota.map_or(u128::MAX, |quota| {
            ceiling_division(u128::from(wall_us), u128::from(quota.period_us))
                .saturating_add(1)
                .saturating_mul(u128::from(quota.quota_us))
                .saturating_add(u128::from(quota.burst_us))
        });
        u64::try_from(by_cpus.min(by_quota)).unwrap_or(u64::MAX)
    }

    /// How long the long-run rate takes to burn what can be burned at once within `stop_us`: behind a bandwidth limit a
    /// job bursts on all CPUs at first. Rounded up.
    #[must_use]
    pub fn stretched_us(&self, stop_us: u64) -> u64 {
        let product = u128::from(stop_us).saturating_mul(u128::from(self.cpus_ppm));
        u64::try_from(ceiling_division(product, u128::from(self.sustained_ppm()))).unwrap_or(u64::MAX)
    }

    /// The long-run rate in millionths of a CPU.
    #[must_use]
    pub fn sustained_ppm(&self) -> u64 {
        let by_quota = self.quota.map_or(u64::MAX, |quota| {
            let ppm =
                ceiling_division(u128::from(quota.quota_us).saturating_mul(1_000_000), u128::from(quota.period_us));
            u64::try_from(ppm).unwrap_or(u64::MAX)
        });
        self.cpus_ppm.min(by_quota)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_cpus_burn_two_seconds_in_one() {
        let rate = HighestRate { cpus_ppm: 2_000_000, quota: None };
        assert_eq!(rate.earliest_us(2_000_000), 1_000_000);
        assert_eq!(rate.most_us(1_000_000), 2_000_000);
    }

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn nothing_can_be_burned_before_the_earliest_time(
            cpu_us in 1..100_000_000u64, cpus in 1..512u64,
            quota in proptest::option::of((1_000..1_000_000u64, 1_000..1_000_000u64, 0..1_000_000u64)),
        ) {
            let quota = quota.map(|(quota_us, period_us, burst_us)| Quota { quota_us, period_us, burst_us });
            let rate = HighestRate { cpus_ppm: cpus * 1_000_000, quota };
            let earliest = rate.earliest_us(cpu_us);
            if earliest > 1 {
                prop_assert!(rate.most_us(earliest - 1) <= cpu_us, "{} in {}", rate.most_us(earliest - 1), earliest - 1);
            }
        }
    }
}
