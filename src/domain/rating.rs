//! Rating: usage → virtual seconds → credits.
//!
//! A price is a pure function of cumulative usage. The three components are cut from one running sum that is floored
//! at each cut, so cpu + gpu + tokens = total holds to the last nanocredit and rounding never accumulates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::units::{Microseconds, Nanocredits};
use super::usage::{GpuUsage, Usage};
use super::weight::{GpuWeight, weight_of, weight_of_all};

const PPM: u128 = 1_000_000;
const PPM_OF_PPM: u128 = 1_000_000_000_000;
const PPM_IN_ONE: u64 = 1_000_000;

/// Which CPU time is priced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CpuBasis {
    /// What the kernel counted.
    #[default]
    Used,
    /// Wall time × CPUs that the job may use.
    Allocated,
    /// The larger of the two.
    Max,
}

/// Which GPU time is priced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GpuBasis {
    /// Integral of utilisation.
    #[default]
    Busy,
    /// Wall time.
    Allocated,
}

/// The prices, pinned for an attempt when it is opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateCard {
    /// Counts up by one with each change.
    pub version: u64,
    /// A: credits per virtual CPU second.
    pub cpu_per_second: Nanocredits,
    /// B: credits per virtual GPU second.
    pub gpu_per_second: Nanocredits,
    /// Credits per million tokens.
    pub per_million_tokens: Nanocredits,
    /// Weight of a CPU second in parts per million.
    pub cpu_weight_ppm: u64,
    /// Weight of a second of a GPU that no pattern fits, in parts per million.
    pub gpu_weight_ppm: u64,
    /// Weights by the names of devices; the first that fits decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_weights: Vec<GpuWeight>,
    /// Which CPU time is priced.
    pub cpu_basis: CpuBasis,
    /// Which GPU time is priced.
    pub gpu_basis: GpuBasis,
    /// Where busy time is priced: what a second counts for which a GPU is the job's and does nothing, from 0, for nothing, to 1 000 000
    /// parts per million, for as much as if it worked.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gpu_holding_ppm: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(ppm: &u64) -> bool {
    *ppm == 0
}

/// Virtual seconds: usage after its basis and weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VirtualTime {
    /// CPU.
    pub cpu_seconds: Microseconds,
    /// GPU.
    pub gpu_seconds: Microseconds,
    /// Their sum.
    pub total_seconds: Microseconds,
}

/// A price with its parts; their sum is the total, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Price {
    /// For CPU time.
    pub cpu: Nanocredits,
    /// For GPU time.
    pub gpu: Nanocredits,
    /// For tokens.
    pub tokens: Nanocredits,
    /// All of it.
    pub total: Nanocredits,
}

impl Default for RateCard {
    /// The card that a new ledger starts with: 5 credits are 20 000 CPU seconds, 2 000 GPU seconds or a million tokens.
    fn default() -> Self {
        Self {
            version: 1,
            cpu_per_second: Nanocredits(250_000),
            gpu_per_second: Nanocredits(2_500_000),
            per_million_tokens: Nanocredits(5_000_000_000),
            cpu_weight_ppm: 1_000_000,
            gpu_weight_ppm: 1_000_000,
            gpu_weights: Vec::new(),
            cpu_basis: CpuBasis::Used,
            gpu_basis: GpuBasis::Busy,
            gpu_holding_ppm: 0,
        }
    }
}

/// Time (µs) × weight (ppm) × price (nanocredits per second), in units of 10⁻¹² nanocredits; held at the end of the
/// range, where the price is beyond every balance anyway.
fn time_product(time: Microseconds, weight_ppm: u64, price: Nanocredits) -> u128 {
    at_price(u128::from(time.0).saturating_mul(u128::from(weight_ppm)), price)
}

fn at_price(weighted: u128, price: Nanocredits) -> u128 {
    weighted.saturating_mul(u128::from(price.at_least_zero().0.unsigned_abs()))
}

fn floor_nanocredits(product: u128) -> i64 {
    let floored = product.checked_div(PPM_OF_PPM).unwrap_or(0);
    i64::try_from(floored).unwrap_or(i64::MAX)
}

fn weighted(time: Microseconds, weight_ppm: u64) -> Microseconds {
    let product = u128::from(time.0).saturating_mul(u128::from(weight_ppm)).checked_div(PPM).unwrap_or(0);
    Microseconds(u64::try_from(product).unwrap_or(u64::MAX))
}

impl RateCard {
    fn cpu_time(&self, usage: &Usage) -> Microseconds {
        match self.cpu_basis {
            CpuBasis::Used => usage.cpu_used_seconds,
            CpuBasis::Allocated => usage.cpu_allocated_seconds,
            CpuBasis::Max => usage.cpu_used_seconds.max(usage.cpu_allocated_seconds),
        }
    }

    fn gpu_time(&self, device: &GpuUsage) -> Microseconds {
        match self.gpu_basis {
            GpuBasis::Busy => self.busy_and_held(device),
            GpuBasis::Allocated => device.allocated_seconds,
        }
    }

    /// Between the two, by how much what is only held counts.
    fn busy_and_held(&self, device: &GpuUsage) -> Microseconds {
        let holding_ppm = self.gpu_holding_ppm.min(PPM_IN_ONE);
        let (busy, allocated) = (device.busy_seconds, device.allocated_seconds.max(device.busy_seconds));
        let idle = Microseconds(allocated.0.abs_diff(busy.0));
        busy.saturating_add(weighted(idle, holding_ppm))
    }

    /// How much of a device's time is priced by what it did in it, in µs, rounded up.
    #[must_use]
    pub fn busy_part(&self, us: u64) -> u64 {
        us.abs_diff(weighted(Microseconds(us), self.gpu_holding_ppm.min(PPM_IN_ONE)).0)
    }

    /// Weight of a second of a device of this name, in parts per million.
    #[must_use]
    pub fn gpu_weight_ppm_of(&self, model: &str) -> u64 {
        weight_of(&self.gpu_weights, self.gpu_weight_ppm, model)
    }

    /// Weights of so many devices of each model, added up, in parts per million.
    #[must_use]
    pub fn gpus_ppm(&self, models: &BTreeMap<String, u64>) -> u64 {
        weight_of_all(&self.gpu_weights, self.gpu_weight_ppm, models)
    }

    /// Over all devices: µs × ppm.
    fn weighted_gpu_time(&self, usage: &Usage) -> u128 {
        let of = |device: &GpuUsage| {
            u128::from(self.gpu_time(device).0).saturating_mul(u128::from(self.gpu_weight_ppm_of(&device.model)))
        };
        usage.gpus.values().map(of).fold(0, u128::saturating_add)
    }

    /// Virtual seconds of this usage.
    #[must_use]
    pub fn virtual_time(&self, usage: &Usage) -> VirtualTime {
        let cpu_seconds = weighted(self.cpu_time(usage), self.cpu_weight_ppm);
        let gpu_us = self.weighted_gpu_time(usage).checked_div(PPM).unwrap_or(0);
        let gpu_seconds = Microseconds(u64::try_from(gpu_us).unwrap_or(u64::MAX));
        VirtualTime { cpu_seconds, gpu_seconds, total_seconds: cpu_seconds.saturating_add(gpu_seconds) }
    }

    /// Credits for this usage.
    #[must_use]
    pub fn price(&self, usage: &Usage) -> Price {
        let token_price = u128::from(self.per_million_tokens.at_least_zero().0.unsigned_abs());
        let cpu = time_product(self.cpu_time(usage), self.cpu_weight_ppm, self.cpu_per_second);
        let gpu = at_price(self.weighted_gpu_time(usage), self.gpu_per_second);
        let tokens = u128::from(usage.tokens).saturating_mul(token_price).saturating_mul(PPM);
        let to_cpu = floor_nanocredits(cpu);
        let to_gpu = floor_nanocredits(cpu.saturating_add(gpu));
        let total = floor_nanocredits(cpu.saturating_add(gpu).saturating_add(tokens));
        Price {
            cpu: Nanocredits(to_cpu),
            gpu: Nanocredits(to_gpu.saturating_sub(to_cpu)),
            tokens: Nanocredits(total.saturating_sub(to_gpu)),
            total: Nanocredits(total),
        }
    }

    /// The most that so many tokens can cost, whatever was consumed before: rounded up.
    #[must_use]
    pub fn tokens_at_most(&self, tokens: u64) -> Nanocredits {
        let price = u128::from(self.per_million_tokens.at_least_zero().0.unsigned_abs());
        let credits = u128::from(tokens).saturating_mul(price).div_ceil(PPM);
        Nanocredits(i64::try_from(credits).unwrap_or(i64::MAX))
    }

    /// The most that a job can burn in one second: `cpus_ppm` millionths of a CPU, and devices whose weights add up to
    /// `gpus_ppm`.
    #[must_use]
    pub fn highest_rate_per_second(&self, cpus_ppm: u64, gpus_ppm: u64) -> Nanocredits {
        let cpu = time_product(Microseconds(cpus_ppm), self.cpu_weight_ppm, self.cpu_per_second);
        let gpu = time_product(Microseconds(gpus_ppm), PPM_IN_ONE, self.gpu_per_second);
        // Rounded up: a bound that is too low would let a job run past its ceiling.
        Nanocredits(floor_nanocredits(cpu.saturating_add(gpu)).saturating_add(1))
    }

    /// What the devices alone can burn in one second at most.
    #[must_use]
    pub fn highest_gpu_rate_per_second(&self, gpus_ppm: u64) -> Nanocredits {
        match gpus_ppm {
            0 => Nanocredits::ZERO,
            _ => self.highest_rate_per_second(0, gpus_ppm),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usage(cpu: u64, gpu: u64, tokens: u64) -> Usage {
        let (busy_seconds, allocated_seconds) = (Microseconds(gpu), Microseconds(gpu));
        let device = GpuUsage { model: "NVIDIA H200".to_owned(), busy_seconds, allocated_seconds };
        Usage {
            cpu_used_seconds: Microseconds(cpu),
            cpu_allocated_seconds: Microseconds(cpu),
            gpus: [("GPU-0".to_owned(), device)].into(),
            tokens,
        }
    }

    #[test]
    fn five_credits_are_what_the_first_card_says() {
        let card = RateCard::default();
        assert_eq!(card.price(&usage(20_000_000_000, 0, 0)).total, Nanocredits(5_000_000_000));
        assert_eq!(card.price(&usage(0, 2_000_000_000, 0)).total, Nanocredits(5_000_000_000));
        assert_eq!(card.price(&usage(0, 0, 1_000_000)).total, Nanocredits(5_000_000_000));
    }

    #[test]
    fn the_largest_usage_is_priced_without_overflow() {
        let card = RateCard { cpu_weight_ppm: u64::MAX, cpu_per_second: Nanocredits(i64::MAX), ..RateCard::default() };
        assert_eq!(card.price(&usage(u64::MAX, u64::MAX, u64::MAX)).total, Nanocredits(i64::MAX));
    }

    #[test]
    fn a_device_counts_by_its_name() {
        let weight = GpuWeight { pattern: "*H200*".to_owned(), weight_ppm: 3_000_000 };
        let card = RateCard { gpu_weights: vec![weight], ..RateCard::default() };
        let mut both = usage(0, 1_000_000, 0);
        let plain = GpuUsage { model: "Tesla T4".to_owned(), ..both.gpus["GPU-0"].clone() };
        both.gpus.insert("GPU-1".to_owned(), plain);
        assert_eq!(card.price(&both).gpu, Nanocredits(4 * 2_500_000));
        assert_eq!(card.virtual_time(&both).gpu_seconds, Microseconds(4_000_000));
        let models = [("NVIDIA H200".to_owned(), 1), ("Tesla T4".to_owned(), 1)].into();
        assert_eq!(card.highest_rate_per_second(0, card.gpus_ppm(&models)), Nanocredits(4 * 2_500_000 + 1));
    }

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn parts_sum_to_the_total_and_the_total_never_decreases(
            cpu in 0..1u64 << 50, gpu in 0..1u64 << 50, tokens in 0..1u64 << 40, more in 0..1u64 << 30,
            a in 0..1_000_000_000i64, b in 0..1_000_000_000i64, weight in 1..50_000_000u64,
        ) {
            let card = RateCard {
                cpu_per_second: Nanocredits(a), gpu_per_second: Nanocredits(b),
                cpu_weight_ppm: weight, gpu_weight_ppm: weight, ..RateCard::default()
            };
            let price = card.price(&usage(cpu, gpu, tokens));
            prop_assert_eq!(price.cpu.0 + price.gpu.0 + price.tokens.0, price.total.0);
            prop_assert!(card.price(&usage(cpu + more, gpu, tokens)).total >= price.total);
            prop_assert!(card.price(&usage(cpu, gpu + more, tokens)).total >= price.total);
        }

        /// Between busy and allocated time, and never less for more.
        #[test]
        fn what_is_held_counts_in_part(busy in 0..1u64 << 50, idle in 0..1u64 << 50, more in 0..1u64 << 30, holding in 0..=2_000_000u64) {
            let card = RateCard { gpu_holding_ppm: holding, ..RateCard::default() };
            let of = |busy_us, allocated_us| {
                let device = GpuUsage { busy_seconds: Microseconds(busy_us), allocated_seconds: Microseconds(allocated_us), ..GpuUsage::default() };
                card.gpu_time(&device).0
            };
            let counted = of(busy, busy + idle);
            prop_assert!((busy..=busy + idle).contains(&counted));
            prop_assert!(of(busy, busy + idle + more) >= counted && of(busy + more, busy + idle + more) >= counted);
            prop_assert!(of(busy + more.min(idle), busy + idle) >= counted);
        }

        #[test]
        fn tokens_never_cost_more_than_they_can(before in 0..1u64 << 40, tokens in 0..1u64 << 40, price in 0..1i64 << 40) {
            let card = RateCard { per_million_tokens: Nanocredits(price), ..RateCard::default() };
            let of = |tokens| card.price(&Usage { tokens, ..Usage::default() }).total;
            let (cost, most) = (of(before + tokens).saturating_sub(of(before)), card.tokens_at_most(tokens));
            prop_assert!(cost <= most && most.0 - cost.0 <= 1);
        }

        #[test]
        fn merging_is_idempotent_commutative_and_never_lowers(x in 0..1u64 << 60, y in 0..1u64 << 60) {
            let (a, b) = (usage(x, y, x), usage(y, x, y));
            prop_assert_eq!(a.merged(&b), b.merged(&a));
            prop_assert_eq!(a.merged(&b).merged(&b), a.merged(&b));
            prop_assert!(RateCard::default().price(&a.merged(&b)).total >= RateCard::default().price(&a).total);
        }
    }
}
