//! What an attempt's table has to have in common with the shorter ones that most reports write.

#![allow(clippy::pedantic, reason = "a test, not an interface")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::book::Source;
use crate::domain::units::{Microseconds, Nanocredits};
use crate::domain::usage::GpuUsage;
use crate::ledger::attempt_secret::AttemptSecret;
use crate::ledger::book::Steady;
use crate::ledger::store::Table;

/// Each makes another attempt of it. What is pinned when it is opened, never changes.
const STEPS: [fn(&mut Attempt); 38] = [
    |attempt| attempt.period = 1,
    |attempt| attempt.lease_until_us = 1,
    |attempt| attempt.live = true,
    |attempt| attempt.ended_us = Some(1),
    |attempt| attempt.reason = Some(Reason::Completed),
    |attempt| attempt.told = true,
    |attempt| attempt.seq = 1,
    |attempt| attempt.pace.cpus_ppm = 1,
    |attempt| attempt.pace.gpus_ppm = 1,
    |attempt| attempt.pace.stop_us = 1,
    |attempt| attempt.usage.cpu_used_seconds = Microseconds(1),
    |attempt| attempt.usage.cpu_allocated_seconds = Microseconds(1),
    |attempt| attempt.usage.gpus = BTreeMap::from([("GPU-1".to_owned(), GpuUsage::default())]),
    |attempt| attempt.usage.tokens = 1,
    |attempt| attempt.told_tokens = 1,
    |attempt| attempt.accounted.cpu = Nanocredits(1),
    |attempt| attempt.accounted.gpu = Nanocredits(1),
    |attempt| attempt.accounted.tokens = Nanocredits(1),
    |attempt| attempt.accounted.total = Nanocredits(1),
    |attempt| attempt.accounted_time.cpu_seconds = Microseconds(1),
    |attempt| attempt.accounted_time.gpu_seconds = Microseconds(1),
    |attempt| attempt.accounted_time.total_seconds = Microseconds(1),
    |attempt| attempt.charged.cpu = Nanocredits(1),
    |attempt| attempt.charged.gpu = Nanocredits(1),
    |attempt| attempt.charged.tokens = Nanocredits(1),
    |attempt| attempt.charged.total = Nanocredits(1),
    |attempt| attempt.overshoot = Nanocredits(1),
    |attempt| attempt.ceilings.push((1, Nanocredits(1))),
    |attempt| attempt.holds.push(Hold { period: 0, source: Source::ALLOWANCE, amount: Nanocredits(1) }),
    |attempt| attempt.next = Some((1, Nanocredits(1))),
    |attempt| attempt.next = Some((1, Nanocredits(2))),
    |attempt| attempt.waits = true,
    |attempt| attempt.rate = Nanocredits(1),
    |attempt| attempt.rate_since_us = 1,
    |attempt| attempt.rate_from = Nanocredits(1),
    |attempt| attempt.last_entry = 1,
    |attempt| attempt.secret = Some(AttemptSecret::from([1; 32]).hash()),
    |attempt| attempt.secret = Some(AttemptSecret::from([2; 32]).hash()),
];

fn row(table: &Table, values: Vec<Value>) -> BTreeMap<&'static str, Value> {
    assert_eq!(table.columns.len(), values.len());
    table.columns.iter().copied().zip(values).collect()
}

proptest! {
    #![proptest_config(crate::properties::config())]

    #[test]
    fn a_shorter_row_leaves_out_only_what_is_as_it_was(
        first in proptest::collection::vec(any::<bool>(), STEPS.len()),
        then in proptest::collection::vec(prop::bool::weighted(0.1), STEPS.len()),
    ) {
        let walk = |attempt: &mut Attempt, steps: &[bool]| {
            STEPS.iter().zip(steps).filter(|(_, taken)| **taken).for_each(|(step, _)| step(attempt));
        };
        let mut before = Attempt::default();
        walk(&mut before, &first);
        let mut after = before.clone();
        walk(&mut after, &then);
        let whole = [&before, &after].map(|of| row(&ATTEMPT, attempt(of)));
        let changed: Vec<&str> = whole[0].keys().copied().filter(|name| whole[0][name] != whole[1][name]).collect();
        let shorter = row(&ATTEMPT_BURNS, attempt_that_burns(&after));
        for (name, value) in &shorter {
            prop_assert_eq!(value, &whole[1][name], "{}", name);
        }
        match Steady::extent(Some(&Steady::of(&before)), &after) {
            Extent::Burns => prop_assert!(changed.iter().all(|name| shorter.contains_key(name)), "{:?}", changed),
            Extent::GoesOn => prop_assert!(changed.iter().all(|name| !ATTEMPT_GOES_ON.kept.contains(name)), "{:?}", changed),
            Extent::Whole => {}
        }
    }
}
