//! When a report that did not get through is sent again: not together with those of other attempts, and in time for what the job has left.

use super::{Job, State};

/// Retries of a failed report start here and double.
pub(super) const FIRST_US: u64 = 100_000;
/// Retries of a failed report are at most this far apart.
const MAX_US: u64 = 30_000_000;
/// But no further than this part of the time after which the job could not go on without an answer.
const PART: u64 = 4;

impl Job {
    pub(super) fn retry_later(&mut self, now_us: u64, seq: u64) {
        if self.outstanding == Some(seq) {
            self.outstanding = None;
            let most_us = self.lasts_us(now_us).checked_div(PART).unwrap_or(0);
            let step_us = self.retry_us.min(most_us).max(FIRST_US);
            // From half to one and a half of the time, so that many that failed together do not come back together.
            let half_us = step_us.checked_div(2).unwrap_or(0);
            self.report_at_us = now_us.saturating_add(half_us).saturating_add(self.spread_over(step_us));
            self.retry_us = self.retry_us.saturating_mul(2).min(MAX_US);
        }
    }

    /// How long it can go on without an answer, as it burned lately: whoever needs one soonest asks first.
    fn lasts_us(&self, now_us: u64) -> u64 {
        if let State::Held { until_us, .. } = self.state {
            return until_us.saturating_sub(now_us);
        }
        if self.grant.unbounded {
            return u64::MAX;
        }
        let since_us = now_us.saturating_sub(self.account.at_us);
        let burned = self.price.saturating_sub(self.price_at_account).at_least_zero();
        let left = self.left().saturating_sub(self.guard()).at_least_zero();
        let product = u128::from(left.0.unsigned_abs()).saturating_mul(u128::from(since_us));
        let by_burn = product.checked_div(u128::from(burned.0.unsigned_abs())).unwrap_or(u128::MAX);
        self.lease_ends_us().saturating_sub(now_us).min(u64::try_from(by_burn).unwrap_or(u64::MAX))
    }
}
