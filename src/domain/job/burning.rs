//! How soon a job can come to its ceiling, and where.

use super::Job;
use crate::domain::deadline::Bounds;
use crate::domain::lease::answer_us;
use crate::domain::rating::CpuBasis;
use crate::domain::units::{Microseconds, Nanocredits};

impl Job {
    /// When the ceiling itself could be reached or the lease is over, whether or not these stop it: past this the front need not trust
    /// the keeper.
    #[must_use]
    pub fn trusted_until_us(&self) -> u64 {
        let left = self.grant.ceiling.saturating_sub(self.price).at_least_zero();
        self.grant.ends_us.min(self.looked_at_us.saturating_add(self.earliest_us(left)))
    }

    /// At which reading of CPU time it has to be stopped, if its lease stays as it is. `None` where something else burns as well:
    /// time that is allocated, or a GPU that it could open.
    #[must_use]
    pub fn stop_at(&self) -> Option<Microseconds> {
        let rates = &self.rules.rates;
        if self.bounds.gpus_ppm > 0 || rates.cpu_basis != CpuBasis::Used {
            return None;
        }
        let left = self.left().saturating_sub(self.guard()).at_least_zero();
        let more_us = self.burned_within(left, self.bounds.cpu.cpus_ppm);
        self.usage.cpu_used_seconds.0.checked_add(more_us).map(Microseconds)
    }

    pub(super) fn earliest_us(&self, credits: Nanocredits) -> u64 {
        if self.bounds.gpus_ppm > 0 {
            return self.burned_within(credits, 1_000_000);
        }
        // Credits → CPU time at this rate → the earliest time at which that can have been burned.
        self.bounds.cpu.earliest_us(self.burned_within(credits, self.bounds.cpu.cpus_ppm))
    }

    /// For how many µs these credits are enough at the highest rate, of what passes at `per_second` millionths.
    fn burned_within(&self, credits: Nanocredits, per_second: u64) -> u64 {
        let price = self.rules.rates.highest_rate_per_second(self.bounds.cpu.cpus_ppm, self.bounds.gpus_ppm);
        let product = u128::from(credits.0.unsigned_abs()).checked_mul(u128::from(per_second));
        let price = u128::from(price.0.unsigned_abs().max(1));
        let scaled = product.and_then(|product| product.checked_div(price)).unwrap_or(0);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }

    /// What has to be left when more is asked for, so that the answer comes while the job still runs: the guard, what one reading can
    /// add at once, and what can be burned until the ledger answers.
    #[must_use]
    pub fn reserve(&self) -> Nanocredits {
        self.burned_unseen(answer_us(self.rules.can_hold), self.bounds.gpu_step_us)
    }

    /// G: what may be burned unseen between the last tick and the stop, and on a device since it was last read.
    #[must_use]
    pub fn guard(&self) -> Nanocredits {
        self.burned_unseen(0, 0)
    }

    /// The same, and what can be burned by all in `more_us` and by the devices in `more_gpu_us`.
    fn burned_unseen(&self, more_us: u64, more_gpu_us: u64) -> Nanocredits {
        let Bounds { cpu, gpus_ppm, stop_us, gpu_age_us, .. } = self.bounds;
        let per_second = self.rules.rates.highest_rate_per_second(cpu.cpus_ppm, gpus_ppm);
        let of_gpus = self.rules.rates.highest_gpu_rate_per_second(gpus_ppm);
        let product = |rate: Nanocredits, us: u64, more_us: u64| {
            let us = [us, more_us].into_iter().map(u128::from).sum();
            u128::from(rate.0.unsigned_abs()).saturating_mul(us)
        };
        let unseen = product(per_second, stop_us, more_us).saturating_add(product(of_gpus, gpu_age_us, more_gpu_us));
        Nanocredits(i64::try_from(unseen.checked_div(1_000_000).unwrap_or(0)).unwrap_or(i64::MAX))
    }
}
