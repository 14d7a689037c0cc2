//! How much an attempt may hold: the sizes of leases, who waits, and who is stopped.

use super::units::Nanocredits;

/// A report is due at the latest after this, in ms.
pub const REPORT_MS: u64 = 10_000;
/// A report is due at the latest after this when little is left or somebody waits, in ms.
pub const REPORT_SOON_MS: u64 = 1_000;
/// A waiting attempt asks again after this, in ms.
pub const WAIT_MS: u64 = 250;

/// In which a ledger answers, on a machine whose every CPU the job keeps busy, in µs.
const ANSWER_US: u64 = 500_000;
/// In which it mostly does.
const ANSWER_MOSTLY_US: u64 = 50_000;

/// Whether it is time to ask is looked at so often at most, in µs.
pub const QUESTION_LOOK_US: u64 = 50_000;

/// For how long what is left has to last when more is asked for. A job that cannot be frozen while its question is open would end.
#[must_use]
pub const fn answer_us(can_hold: bool) -> u64 {
    if can_hold { ANSWER_MOSTLY_US } else { ANSWER_US + QUESTION_LOOK_US }
}

/// What an attempt can burn in `us` at `per_second`, rounded up.
#[must_use]
pub fn burned_in(per_second: Nanocredits, us: u64) -> Nanocredits {
    let product = u128::from(per_second.at_least_zero().0.unsigned_abs()).saturating_mul(u128::from(us));
    Nanocredits(i64::try_from(product.div_ceil(1_000_000)).unwrap_or(i64::MAX))
}

/// m = 2 G + highest rate × 0.5 s.
#[must_use]
pub fn minimum_slice(highest_rate: Nanocredits, guard: Nanocredits) -> Nanocredits {
    guard.saturating_add(guard).saturating_add(burned_in(highest_rate, ANSWER_US))
}

/// What the books know when an attempt reports.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Of its cumulative usage.
    pub price: Nanocredits,
    /// The highest ceiling that it may obey.
    pub ceiling: Nanocredits,
    /// G: highest rate × (tick + time to stop).
    pub guard: Nanocredits,
    /// m.
    pub minimum: Nanocredits,
    /// Over the last seconds.
    pub rate: Nanocredits,
    /// How long the lease lasts, in ms.
    pub lease_ms: u64,
    /// Not charged and not held by silent attempts.
    pub left: Nanocredits,
    /// Free in the account.
    pub available: Nanocredits,
    /// What running attempts hold beyond their own minimum.
    pub reclaimable: Nanocredits,
    /// Free under the job's own limit.
    pub job_available: Nanocredits,
    /// What other tasks of the job hold beyond their own minimum.
    pub job_reclaimable: Nanocredits,
    /// Attempts with a live lease, this one included.
    pub live: u32,
    /// Frozen at its ceiling.
    pub waiting: bool,
    /// Another attempt of the account waits.
    pub somebody_waits: bool,
}

/// What it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sized {
    /// This ceiling: higher, the same, or lower.
    Ceiling(Nanocredits),
    /// Others hold what is left.
    Wait,
    /// Nothing is left, free or reclaimable.
    Exhausted,
    /// The job's own limit is reached.
    JobLimit,
}

/// The size of a slice before what is available limits it.
#[must_use]
pub fn slice(ask: &Ask) -> Nanocredits {
    let by_rate = burned_in(ask.rate, ask.lease_ms.saturating_mul(1_000));
    let shares = i64::from(ask.live.max(1)).saturating_mul(2);
    let fair = Nanocredits(ask.left.at_least_zero().0.checked_div(shares).unwrap_or(0));
    ask.minimum.max(by_rate.min(fair))
}

/// What is added to a hold when `wanted` more is asked for: what would remain below a minimum slice goes along.
#[must_use]
pub fn raise(
    wanted: Nanocredits,
    available: Nanocredits,
    job_available: Nanocredits,
    minimum: Nanocredits,
) -> Nanocredits {
    let can = available.min(job_available).at_least_zero();
    let given = wanted.min(can).at_least_zero();
    if available.saturating_sub(given) < minimum || job_available.saturating_sub(given) < minimum { can } else { given }
}

/// Decides.
#[must_use]
pub fn size(ask: &Ask) -> Sized {
    let slice = slice(ask);
    let target = ask.price.saturating_add(slice);
    let unburned = ask.ceiling.saturating_sub(ask.price).at_least_zero();
    let ceiling = if target > ask.ceiling {
        let wanted = target.saturating_sub(ask.ceiling);
        ask.ceiling.saturating_add(raise(wanted, ask.available, ask.job_available, ask.minimum))
    } else {
        let comes_back = unburned.saturating_sub(slice);
        let worth_it = comes_back.saturating_add(comes_back) > unburned;
        if ask.somebody_waits || worth_it { target } else { ask.ceiling }
    };
    if !ask.waiting || ceiling > ask.price.saturating_add(ask.guard) {
        return Sized::Ceiling(ceiling);
    }
    // Frozen, and what is free does not let it go on.
    let needed = ask.guard.saturating_add(Nanocredits(1));
    let with = |free: Nanocredits, reclaimable: Nanocredits| unburned.saturating_add(free).saturating_add(reclaimable);
    if with(ask.job_available, ask.job_reclaimable) < needed {
        Sized::JobLimit
    } else if with(ask.available, ask.reclaimable) < needed {
        Sized::Exhausted
    } else {
        Sized::Wait
    }
}

/// When the next report is due.
#[must_use]
pub fn report_in_ms(ask: &Ask) -> u64 {
    let little = Nanocredits(ask.minimum.0.saturating_mul(i64::from(ask.live.max(1))).saturating_mul(4));
    if ask.somebody_waits || ask.left < little { REPORT_SOON_MS } else { REPORT_MS }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask() -> impl Strategy<Value = Ask> {
        let amount = || 0..10_000i64;
        (
            (amount(), amount(), 0..100i64, amount(), amount()),
            (amount(), amount(), amount(), amount()),
            (1..70u32, any::<bool>(), any::<bool>(), 5_000..3_600_000u64),
        )
            .prop_map(
                |(
                    (price, unburned, guard, rate, left),
                    (available, back, job, job_back),
                    (live, waiting, others, lease_ms),
                )| {
                    Ask {
                        price: Nanocredits(price),
                        ceiling: Nanocredits(price + unburned),
                        guard: Nanocredits(guard),
                        minimum: minimum_slice(Nanocredits(rate), Nanocredits(guard)),
                        rate: Nanocredits(rate),
                        lease_ms,
                        left: Nanocredits(left),
                        available: Nanocredits(available),
                        reclaimable: Nanocredits(back),
                        job_available: Nanocredits(job),
                        job_reclaimable: Nanocredits(job_back),
                        live,
                        waiting,
                        somebody_waits: others,
                    }
                },
            )
    }

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn never_gives_more_than_is_free_nor_takes_what_is_burned(ask in ask()) {
            match size(&ask) {
                Sized::Ceiling(ceiling) => {
                    prop_assert!(ceiling.0 - ask.ceiling.0 <= ask.available.0.min(ask.job_available.0));
                    prop_assert!(ceiling >= ask.price.saturating_add(ask.minimum).min(ask.ceiling));
                    prop_assert!(!ask.waiting || ceiling > ask.price.saturating_add(ask.guard));
                }
                Sized::Wait => prop_assert!(ask.waiting && ask.reclaimable.0 + ask.job_reclaimable.0 > 0),
                Sized::Exhausted | Sized::JobLimit => prop_assert!(ask.waiting),
            }
        }

        #[test]
        fn the_last_slice_takes_the_rest(wanted in 0..1000i64, free in 0..1000i64, minimum in 1..100i64) {
            let [wanted, free, minimum] = [wanted, free, minimum].map(Nanocredits);
            let given = raise(wanted, free, Nanocredits(i64::MAX), minimum);
            let rest = free.saturating_sub(given);
            prop_assert!(rest == Nanocredits::ZERO || rest >= minimum);
        }
    }
}
