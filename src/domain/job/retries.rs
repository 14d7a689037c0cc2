//! When a report that did not get through is sent again: not together with those of other attempts, and in time for what the job has left.

use super::{Job, RETRY_FIRST_US, State};
use crate::domain::units::Nanocredits;

/// Retries of a failed report are at most this far apart.
const MAX_US: u64 = 30_000_000;
/// But no further than this part of the time after which the job could not go on without an answer.
const PART: u64 = 4;

impl Job {
    pub(super) fn retry_later(&mut self, now_us: u64, seq: u64) {
        if self.outstanding == Some(seq) {
            self.outstanding = None;
            let most_us = self.lasts_us(now_us).checked_div(PART).unwrap_or(0);
            let step_us = self.retry_us.min(most_us).max(RETRY_FIRST_US);
            // From half to one and a half of the time, so that many that failed together do not come back together.
            let half_us = step_us.checked_div(2).unwrap_or(0);
            self.report_at_us = now_us.saturating_add(half_us).saturating_add(self.spread_over(step_us));
            self.retry_us = self.retry_us.saturating_mul(2).min(MAX_US);
        }
    }

    /// How long it can go on without an answer, as it burned lately: whoever needs one soonest asks first.
    fn lasts_us(&self, now_us: u64) -> u64 {
        let between = |from_us: u64, until_us: u64| until_us.saturating_sub(from_us);
        if let State::Held { until_us, .. } = self.state {
            return between(now_us, until_us);
        }
        if self.grant.unbounded {
            return u64::MAX;
        }
        let more = |now: Nanocredits, then: Nanocredits| {
            now.0.checked_sub(then.0).map_or(0, |more| u128::try_from(more).unwrap_or(0))
        };
        let since_us = u128::from(between(self.account.at_us, now_us));
        let (burned, left) = (more(self.price, self.price_at_account), more(self.left(), self.guard()));
        let by_burn = left.checked_mul(since_us).and_then(|product| product.checked_div(burned)).unwrap_or(u128::MAX);
        between(now_us, self.lease_ends_us()).min(u64::try_from(by_burn).unwrap_or(u64::MAX))
    }
}
