//! The book's posting rules: from where credits are taken, in which order, and how a charge is cut into components.

use super::rating::Price;
use super::units::Nanocredits;

/// Where credits come from: the allowance of a period, or a grant by its number (which is never zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(pub i64);

impl Source {
    /// The allowance is spent first.
    pub const ALLOWANCE: Self = Self(0);
    /// Nothing had it: it is owed.
    pub const DEBT: Self = Self(-1);
}

/// What a user may spend a day who was never given a limit.
pub const LIMIT_DEFAULT: Nanocredits = Nanocredits(5_000_000_000);

/// Stands for "no limit" where an amount is needed: far beyond every price, far below the end of the range.
pub const UNLIMITED: Nanocredits = Nanocredits(i64::MAX / 4);

/// An amount and where it comes from.
pub type Part = (Source, Nanocredits);

/// The sum of parts, held at the ends of the range.
#[must_use]
pub fn sum(parts: &[Part]) -> Nanocredits {
    parts.iter().fold(Nanocredits::ZERO, |sum, (_, amount)| sum.saturating_add(*amount))
}

/// Takes `amount`, or what there is, out of `sources` in their order. Never more than a source has, never a negative
/// part.
#[must_use]
pub fn take(sources: &[Part], amount: Nanocredits) -> Vec<Part> {
    let mut wanted = amount.at_least_zero();
    let mut parts = Vec::new();
    for (source, free) in sources {
        let part = wanted.min(free.at_least_zero());
        if part > Nanocredits::ZERO {
            parts.push((*source, part));
            wanted = wanted.saturating_sub(part);
        }
    }
    parts
}

/// Cuts a charge of `amount` into components: first what CPU time costs and was not accounted for, then GPU time, then
/// tokens. What the floors of the cuts leave over (at most two nanocredits) goes to CPU, so that the sum is exact.
#[must_use]
pub fn components(accounted: &Price, price: &Price, amount: Nanocredits) -> Price {
    let mut left = amount.at_least_zero();
    let mut cut = |now: Nanocredits, before: Nanocredits| {
        let part = left.min(now.saturating_sub(before).at_least_zero());
        left = left.saturating_sub(part);
        part
    };
    let cpu = cut(price.cpu, accounted.cpu);
    let gpu = cut(price.gpu, accounted.gpu);
    let tokens = cut(price.tokens, accounted.tokens);
    Price { cpu: cpu.saturating_add(left), gpu, tokens, total: amount.at_least_zero() }
}

/// The sum of two prices, component by component.
#[must_use]
pub fn plus(a: &Price, b: &Price) -> Price {
    Price {
        cpu: a.cpu.saturating_add(b.cpu),
        gpu: a.gpu.saturating_add(b.gpu),
        tokens: a.tokens.saturating_add(b.tokens),
        total: a.total.saturating_add(b.total),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::pedantic, reason = "a test, not an interface")]

    use proptest::prelude::*;

    use super::*;
    use crate::domain::rating::RateCard;
    use crate::domain::units::Microseconds;
    use crate::domain::usage::{GpuUsage, Usage};

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn takes_what_is_wanted_in_order_and_never_more_than_there_is(
            free in proptest::collection::vec(-50..1000i64, 0..6), amount in -10..3000i64,
        ) {
            let sources: Vec<Part> =
                free.iter().enumerate().map(|(at, free)| (Source(at as i64), Nanocredits(*free))).collect();
            let parts = take(&sources, Nanocredits(amount));
            let there: i64 = free.iter().map(|free| (*free).max(0)).sum();
            prop_assert_eq!(sum(&parts).0, amount.max(0).min(there));
            for (source, part) in &parts {
                prop_assert!(part.0 > 0 && part.0 <= free[source.0 as usize]);
            }
            // A later source is touched only when all earlier ones are used up.
            if let Some((last, _)) = parts.last() {
                for (source, free) in &sources {
                    if source < last && free.0 > 0 {
                        prop_assert!(parts.contains(&(*source, *free)));
                    }
                }
            }
        }

        #[test]
        fn components_of_many_charges_sum_to_the_total(
            steps in proptest::collection::vec((0..100_000u64, 0..100_000u64, 0..50u64), 1..40),
        ) {
            let card = RateCard::default();
            let (mut usage, mut accounted) = (Usage::default(), Price::default());
            for (cpu, gpu, tokens) in steps {
                usage.cpu_used_seconds = usage.cpu_used_seconds.saturating_add(Microseconds(cpu));
                let device: &mut GpuUsage = usage.gpus.entry("GPU-0".to_owned()).or_default();
                device.busy_seconds = device.busy_seconds.saturating_add(Microseconds(gpu));
                usage.tokens += tokens;
                let price = card.price(&usage);
                let amount = price.total.saturating_sub(accounted.total);
                accounted = plus(&accounted, &components(&accounted, &price, amount));
                prop_assert_eq!(accounted.total, price.total);
                prop_assert_eq!(accounted.cpu.0 + accounted.gpu.0 + accounted.tokens.0, accounted.total.0);
                prop_assert!((accounted.cpu.0 - price.cpu.0).abs() <= 40);
            }
        }
    }
}
