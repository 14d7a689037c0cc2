//! What may be done to an account.

use proptest::collection::vec;
use proptest::prelude::*;

/// Half as many on average.
const STEPS_MAX: usize = 119;

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Seconds.
    Pass(i64),
    /// To so many seconds after the next midnight, or before it.
    Midnight(i64),
    Open,
    /// Which, how much more was burned, whether the newest ceiling is confirmed, and whether it is frozen.
    Report(usize, i64, bool, bool),
    Finish(usize, i64),
    Grant(i64, Option<i64>),
    Revoke(u32),
    Correct(i64, Option<u32>),
    Limit(Option<i64>, bool),
    CarryOver(bool),
    /// Leases last so long from now on, in ms.
    Lease(u64),
    Tokens(u64),
    Reserve(u64, u64),
    /// Which, and of how many.
    Settle(usize, u64),
}

/// What may be done to an account, in any order.
pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let amount = || 1..3_000_000_i64;
    let which = || 0..4_usize;
    let step = prop_oneof![
        4 => (2..40_i64).prop_map(Step::Pass),
        2 => (40..40_000_i64).prop_map(Step::Pass),
        1 => (40_000..400_000_i64).prop_map(Step::Pass),
        3 => (-28..10_i64).prop_map(Step::Midnight),
        4 => Just(Step::Open),
        12 => (which(), 0..400_000_i64, any::<bool>(), any::<bool>()).prop_map(|(a, b, c, d)| Step::Report(a, b, c, d)),
        3 => (which(), 0..400_000_i64).prop_map(|(a, b)| Step::Finish(a, b)),
        3 => (prop_oneof![3 => amount(), 1 => 3_000_000..60_000_000_i64], proptest::option::of(2..200_000_i64)).prop_map(|(a, b)| Step::Grant(a, b)),
        1 => (1..6_u32).prop_map(Step::Revoke),
        3 => (-4_000_000..2_000_000_i64, proptest::option::weighted(0.2, 1..6_u32)).prop_map(|(a, b)| Step::Correct(a, b)),
        2 => (proptest::option::weighted(0.9, prop_oneof![3 => 0..3_000_000_i64, 1 => 3_000_000..60_000_000_i64]), any::<bool>()).prop_map(|(a, b)| Step::Limit(a, b)),
        1 => any::<bool>().prop_map(Step::CarryOver),
        1 => prop_oneof![5_000..120_000_u64, 5_000..=3_600_000_u64].prop_map(Step::Lease),
        2 => (0..300_u64).prop_map(Step::Tokens),
        2 => (0..300_u64, 2..200_000_u64).prop_map(|(a, b)| Step::Reserve(a, b)),
        2 => (which(), 0..300_u64).prop_map(|(a, b)| Step::Settle(a, b)),
    ];
    vec(step, 1..=STEPS_MAX)
}
