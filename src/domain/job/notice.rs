//! The notice: a signal once, ahead of the end.

use super::Job;
use super::words::AccountState;
use crate::domain::lease::burned_in;
use crate::domain::units::Nanocredits;

/// How fast it burns is not known from less.
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
        let above = Nanocredits(self.left().0.checked_sub(self.last_call()?.0)?).at_least_zero();
        self.looked_at_us.checked_add(self.earliest_us(above))
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
        let own = Nanocredits(self.price.0.checked_sub(self.price_at_account.0).unwrap_or(0)).at_least_zero();
        let per_second = self.account.burn_per_second.max(burned_per_second(own, since_us));
        let burned = own.max(burned_in(per_second, since_us));
        // What devices have done since they were read is burned as well.
        let ahead_us = [before_us, self.bounds.gpu_age_us];
        left <= ahead_us.map(|us| burned_in(per_second, us)).into_iter().fold(burned, Nanocredits::saturating_add)
    }
}

fn burned_per_second(burned: Nanocredits, in_us: u64) -> Nanocredits {
    let within_second = u128::from(burned.0.unsigned_abs()) * 1_000_000;
    let rate = within_second.checked_div(u128::from(in_us)).filter(|_| in_us >= BURN_LEAST_US).unwrap_or(0);
    Nanocredits(i64::try_from(rate).unwrap_or(i64::MAX))
}
