//! Attempts that fell silent: marked, shown as provisional, settled by an operator or, a day after their period, posted as
//! charged.

use uuid::Uuid;

use super::Books;
use super::rows::{Account, Attempt};
use crate::domain::calendar::DAY_S;
use crate::domain::rating::Price;
use crate::domain::usage::Usage;
use crate::ledger::LedgerError;
use crate::ledger::protocol::Reason;
use crate::ledger::views::ChangeAnswer;

/// Attempts that fell silent are looked for this often at most.
const LOOK_US: i64 = 1_000_000;

impl Books<'_> {
    /// Marks attempts whose lease is over. What they hold stays held in full. Reservations that are over go back.
    pub(super) fn mark_silent(&mut self, owner: &str) -> Result<(), LedgerError> {
        // Leases only grow, so that before the first of them can be over there is nothing to look for.
        if self.shelf.account(owner)?.is_some_and(|account| self.now_us <= account.sums.silent_from_us) {
            return Ok(());
        }
        let (silent, expired) = self.shelf.over(owner, self.now_us)?;
        for id in expired {
            self.expire(id)?;
        }
        for id in silent {
            if let Some(mut attempt) = self.shelf.attempt(id)?.filter(|attempt| attempt.lease_until_us < self.now_us) {
                attempt.live = false;
                self.keep(attempt)?;
            }
        }
        // Where many fall silent one after the other, each look would go through all of them.
        let from_us = self.shelf.silent_from(owner, self.now_us)?.max(self.now_us.saturating_add(LOOK_US));
        self.shelf.change_account(owner, |account| account.sums.silent_from_us = from_us);
        Ok(())
    }

    /// Something in the account is over at `until_us`: it is looked for no later than that.
    pub(super) fn over_from(&mut self, owner: &str, until_us: i64) {
        let from_us = self.shelf.kept_account(owner).map_or(0, |account| account.sums.silent_from_us);
        if until_us < from_us {
            self.shelf.change_account(owner, |account| account.sums.silent_from_us = until_us);
        }
    }

    /// Before an account is shown. Who looks makes none: it would take the name from whoever differs by case alone.
    pub(super) fn looked_at(&mut self, owner: &str) -> Result<Account, LedgerError> {
        if self.shelf.account(owner)?.is_some() {
            return self.tidy(owner);
        }
        self.check_user(owner)?;
        Ok(self.unused_account(owner))
    }

    /// Before an account is shown or something is opened in it.
    pub(super) fn tidy(&mut self, owner: &str) -> Result<Account, LedgerError> {
        let account = self.account(owner)?;
        self.mark_silent(owner)?;
        self.post_silent(&account)?;
        self.account(owner)
    }

    /// What is silent a day after its period is posted as charged; a later report of its spool corrects that.
    fn post_silent(&mut self, account: &Account) -> Result<(), LedgerError> {
        for id in self.shelf.unsettled(&account.owner, account.period)? {
            let Some(mut attempt) = self.shelf.attempt(id)?.filter(|attempt| !attempt.live) else { continue };
            let ends = self.period(&account.owner, attempt.period)?.ends;
            if attempt.ended_us.is_none() && self.now_s() >= ends.saturating_add(DAY_S) {
                self.note("settle", account, &attempt, "meter", "silent for a day after its period");
                self.settle_at(&mut attempt, account, None)?;
                self.keep(attempt)?;
            }
        }
        Ok(())
    }

    pub(super) fn settle(
        &mut self,
        id: Uuid,
        usage: Option<&Usage>,
        by: &str,
        why: &str,
    ) -> Result<ChangeAnswer, LedgerError> {
        let unknown = || LedgerError::Missing(format!("no attempt {id} is known"));
        let owner = self.shelf.attempt(id)?.ok_or_else(unknown)?.owner;
        let account = self.account(&owner)?;
        self.mark_silent(&owner)?;
        let mut attempt = self.shelf.attempt(id)?.ok_or_else(unknown)?;
        if attempt.ended_us.is_some() {
            return Ok(ChangeAnswer { again: true, ..self.answer(&account)? });
        }
        if attempt.live {
            return Err(LedgerError::Refused(format!(
                "the attempt {id} has a live lease: stop its job by `jobmeter jobs stop {}`",
                attempt.job
            )));
        }
        self.note("settle", &account, &attempt, by, why);
        let before = attempt.charged.total;
        self.settle_at(&mut attempt, &account, usage)?;
        let (charged, overshoot) = (attempt.charged.total.saturating_sub(before), attempt.overshoot);
        self.keep(attempt)?;
        Ok(ChangeAnswer { charged, overshoot, ..self.answer(&account)? })
    }

    /// Ends a silent attempt: at a usage, or at all that it holds.
    fn settle_at(
        &mut self,
        attempt: &mut Attempt,
        account: &Account,
        usage: Option<&Usage>,
    ) -> Result<(), LedgerError> {
        let period = attempt.period;
        if let Some(usage) = usage {
            self.take_in(attempt, usage)?;
        }
        let price = attempt.rates.price(&attempt.usage);
        self.charge_covered(attempt, account, &price)?;
        if usage.is_none() {
            // All of the hold counts as CPU time, which is what a silent attempt can have burned. It ends, whatever the account has
            // come to.
            let more = attempt.held(period).min(self.room_to_use(&attempt.owner)?);
            self.take_in_credits(&attempt.owner, more, 0)?;
            let accounted = attempt.accounted;
            let level = accounted.total.saturating_add(more);
            let price = Price { cpu: accounted.cpu.saturating_add(more), total: level, ..accounted };
            self.charge_to(attempt, period, &price, level)?;
        }
        self.end(attempt, account, Reason::MeterLost)
    }
}
