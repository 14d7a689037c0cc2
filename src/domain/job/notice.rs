//! The notice: a signal once, ahead of the end.

use super::Job;
use super::words::AccountState;
use crate::domain::units::Nanocredits;

/// A burn is not told from its beginning in less.
const BURN_LEAST_US: u64 = 100_000;

impl Job {
    /// The account, as it was when this much of the job had been burned.
    pub(super) fn take_account(&mut self, account: AccountState) {
        self.account = account;
        self.price_at_account = self.price;
    }

    /// However fast it burns, the notice comes before what a job that nothing more can be had for is frozen at.
    fn last_call(&self) -> Option<Nanocredits> {
        (self.rules.notice_before_us.is_some() && !self.noticed && self.is_last()).then(|| self.reserve())
    }

    /// When the last call could be reached.
    pub(super) fn last_call_at_us(&self) -> Option<u64> {
        let above = self.left().saturating_sub(self.last_call()?).at_least_zero();
        Some(self.looked_at_us.saturating_add(self.earliest_us(above)))
    }

    pub(super) fn notice_is_due(&self, now_us: u64) -> bool {
        if self.last_call().is_some_and(|last_call| self.left() <= last_call) {
            return true;
        }
        let (Some(before_us), Some(left), false) = (self.rules.notice_before_us, self.account.left, self.noticed)
        else {
            return false;
        };
        let since_us = now_us.saturating_sub(self.account.at_us);
        let own = self.price.saturating_sub(self.price_at_account).at_least_zero();
        let own_per_second = if since_us < BURN_LEAST_US {
            0
        } else {
            of(own, 1_000_000).checked_div(u128::from(since_us)).unwrap_or(0)
        };
        let per_second = of(self.account.burn_per_second, 1).max(own_per_second);
        let foreseen = per_second.saturating_mul(u128::from(since_us)).checked_div(1_000_000).unwrap_or(0);
        let left = of(left, 1).saturating_sub(foreseen.max(of(own, 1)));
        left == 0 || left.saturating_mul(1_000_000) <= per_second.saturating_mul(u128::from(before_us))
    }
}

fn of(credits: Nanocredits, times: u128) -> u128 {
    u128::from(credits.at_least_zero().0.unsigned_abs()).saturating_mul(times)
}
