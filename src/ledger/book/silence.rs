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

/// How long after its period an attempt stays silent before it is settled at all that it holds, in seconds. Without a limit no silence
/// stops it: it goes on for as long as its spool is kept.
const fn settled_after_s(has_limit: bool) -> i64 {
    if has_limit { DAY_S } else { 7 * DAY_S }
}

impl Books<'_> {
    /// Marks attempts whose lease is over. What they hold stays held in full. Reservations that are over go back.
    pub(super) fn mark_silent(&mut self, owner: &str) -> Result<(), LedgerError> {
        // Leases only grow, so that before the first of them can be over there is nothing to look for.
        if self.shelf.account(owner)?.is_some_and(|account| self.now_us <= account.sums.silent_from_us) {
            return Ok(());
        }
        let over = self.shelf.over(owner, self.now_us)?;
        for id in over.expired {
            self.expire(id)?;
        }
        for id in over.silent {
            self.mark_if_silent(id)?;
        }
        // Where many fall silent one after the other, each look would go through all of them. Of those that fell silent together, the next
        // transaction takes some more.
        let from_us = if over.is_all {
            self.shelf.silent_from(owner, self.now_us)?.max(self.now_us.saturating_add(LOOK_US))
        } else {
            self.now_us - 1
        };
        self.shelf.change_account(owner, |account| account.sums.silent_from_us = from_us);
        Ok(())
    }

    fn mark_if_silent(&mut self, id: Uuid) -> Result<(), LedgerError> {
        let found = self.shelf.attempt(id)?;
        let is_silent =
            |attempt: &Attempt| attempt.live && attempt.ended_us.is_none() && attempt.lease_until_us < self.now_us;
        if let Some(mut attempt) = found.filter(is_silent) {
            attempt.live = false;
            self.keep(attempt)?;
        }
        Ok(())
    }

    /// Whether an account's period is over, or something in it may have fallen silent, or stayed so for long after its period.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn is_untidy(&mut self, owner: &str) -> Result<bool, LedgerError> {
        let (now_us, now_s) = (self.now_us, self.now_s());
        let Some(account) = self.shelf.account(owner)? else { return Ok(false) };
        if account.ends <= now_s || account.sums.silent_from_us < now_us {
            return Ok(true);
        }
        let ended_s = now_s - settled_after_s(account.limit.is_some());
        Ok(!self.shelf.unsettled_since(owner, ended_s, now_us)?.is_empty())
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
        self.unused_account(owner)
    }

    /// Before an account is shown or something is opened in it.
    pub(super) fn tidy(&mut self, owner: &str) -> Result<Account, LedgerError> {
        let account = self.account(owner)?;
        self.mark_silent(owner)?;
        self.post_silent(&account)?;
        self.account(owner)
    }

    /// What stays silent for so long after its period is posted as charged; a later report of its spool corrects that.
    fn post_silent(&mut self, account: &Account) -> Result<(), LedgerError> {
        let ended_s = self.now_s() - settled_after_s(account.limit.is_some());
        for id in self.shelf.unsettled_since(&account.owner, ended_s, self.now_us)? {
            let found = self.shelf.attempt(id)?.filter(|attempt| !attempt.live && attempt.ended_us.is_none());
            if let Some(mut attempt) = found {
                let why = if account.limit.is_some() { "a day" } else { "a week" };
                self.note("settle", account, &attempt, "meter", &format!("silent for {why} after its period"));
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
        self.mark_if_silent(id)?;
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
