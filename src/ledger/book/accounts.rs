//! Accounts: limits, periods, and what is free and left.

use super::Books;
use super::rows::{Account, AccountSums, Attempt, Grant, Period};
use crate::domain::book::{Part, Source};
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::protocol::Balance;
use crate::ledger::views::PeriodLength;

/// What a user may spend who was never given a limit: five credits a day.
const LIMIT_DEFAULT: Nanocredits = Nanocredits(5_000_000_000);
/// Stands for "no limit" where an amount is needed: far beyond every price, far below the end of the range.
pub(super) const UNLIMITED: Nanocredits = Nanocredits(i64::MAX / 4);

impl Books<'_> {
    /// The account in the period that holds the ledger's time; a user who was never seen gets the default. Periods
    /// never move backwards: a clock that was set back stays in the period that was reached.
    pub(super) fn account(&mut self, owner: &str) -> Result<Account, LedgerError> {
        match self.shelf.account(owner)?.cloned() {
            Some(account) if self.now_s() < account.ends => Ok(account),
            Some(account) => self.next_period(&account, self.now_s()),
            None => Ok(self.new_account(owner)),
        }
    }

    fn new_account(&mut self, owner: &str) -> Account {
        let length = PeriodLength::Day;
        let (period, ends) = Period::bounds(length, self.now_s());
        let account = Account {
            owner: owner.to_owned(),
            limit: Some(LIMIT_DEFAULT),
            length,
            period,
            ends,
            next: None,
            entries: 0,
            sums: AccountSums::default(),
            revision: 0,
        };
        self.shelf.put_account(account.clone());
        self.shelf.put_period(new_period(&account, period, ends, account.limit));
        account
    }

    /// The account in the period in which an attempt runs. A slice of the next period was promised to it by a duration,
    /// and that has passed on a clock that nobody sets: where the ledger's clock was set back meanwhile, the period has
    /// begun all the same. A restore forgets promises: any attempt may have had one of the period that was near then.
    pub(super) fn account_of(&mut self, attempt: &Attempt, period: i64) -> Result<Account, LedgerError> {
        let account = self.account(&attempt.owner)?;
        let promised = attempt.next.is_some_and(|(start, _)| start == period)
            || (period == account.ends && self.may_have_been_promised(period)?);
        if promised && period > account.period { self.next_period(&account, period) } else { Ok(account) }
    }

    fn next_period(&mut self, before: &Account, at_s: i64) -> Result<Account, LedgerError> {
        let (limit, length) = before.next.unwrap_or((before.limit, before.length));
        let (start, ends) = Period::bounds(length, at_s);
        let start = start.max(before.ends);
        self.shelf.change_account(&before.owner, |account| {
            (account.limit, account.length, account.period, account.ends) = (limit, length, start, ends);
            account.next = None;
        });
        let account = self.shelf.account(&before.owner)?.unwrap_or(before).clone();
        // It is there already where a slice of it was promised.
        if self.shelf.period(&account.owner, start)?.is_none() {
            self.shelf.put_period(new_period(&account, start, ends, limit));
        }
        Ok(account)
    }

    /// The period after the account's, of which an attempt is promised a slice. It stands there even when a clock that
    /// jumps makes the account skip it.
    pub(super) fn ensure_next_period(&mut self, account: &Account) -> Result<(), LedgerError> {
        if self.shelf.period(&account.owner, account.ends)?.is_none() {
            let length = account.next.map_or(account.length, |(_, length)| length);
            let (_, ends) = Period::bounds(length, account.ends);
            self.shelf.put_period(new_period(account, account.ends, ends, account.next_limit()));
        }
        Ok(())
    }

    /// A period before the account's that the books do not have, where none of those that they have overlaps it.
    pub(super) fn ensure_past_period(&mut self, account: &Account, at_s: i64) -> Result<(), LedgerError> {
        let (start, ends) = Period::bounds(account.length, at_s);
        if start == at_s && !self.shelf.overlaps(&account.owner, start, ends)? {
            self.shelf.put_period(new_period(account, start, ends, account.limit));
        }
        Ok(())
    }

    pub(super) fn has_period(&mut self, owner: &str, start: i64) -> Result<bool, LedgerError> {
        Ok(self.shelf.period(owner, start)?.is_some())
    }

    /// A period that must be there.
    pub(super) fn period(&mut self, owner: &str, start: i64) -> Result<&Period, LedgerError> {
        let missing = || LedgerError::Broken(format!("the books have no period {start} of {owner}"));
        self.shelf.period(owner, start)?.ok_or_else(missing)
    }

    /// What may be held or charged now, in the order in which it is spent.
    pub(super) fn free(&mut self, account: &Account) -> Result<Vec<Part>, LedgerError> {
        self.free_in(account, account.period)
    }

    /// The same for a period that may be over: what it left unspent can still pay for what was burned in it.
    pub(super) fn free_in(&mut self, account: &Account, period: i64) -> Result<Vec<Part>, LedgerError> {
        let period = self.period(&account.owner, period)?;
        let allowance = period.limit.map_or(UNLIMITED, |limit| {
            let spendable = limit.saturating_add(period.adjusted);
            spendable.saturating_sub(period.charged).saturating_sub(period.held).at_least_zero()
        });
        let mut free = vec![(Source::ALLOWANCE, allowance)];
        free.extend(self.free_of_grants(account, self.now_s())?);
        Ok(free)
    }

    /// What grants leave that are good at this time, those first that expire first.
    pub(super) fn free_of_grants(&mut self, account: &Account, at_s: i64) -> Result<Vec<Part>, LedgerError> {
        let mut grants = self.shelf.grants(&account.owner)?;
        grants.retain(|grant| grant.expires_s.is_none_or(|expires_s| expires_s > at_s));
        grants.sort_by_key(|grant| (grant.expires_s.is_none(), grant.expires_s, grant.id));
        let rest = |grant: &Grant| grant.amount.saturating_sub(grant.charged).saturating_sub(grant.held);
        Ok(grants.iter().map(|grant| (Source(grant.id), rest(grant).at_least_zero())).collect())
    }

    /// Free and held together: what is not charged yet.
    pub(super) fn balance(&mut self, account: &Account) -> Result<Balance, LedgerError> {
        let period = self.period(&account.owner, account.period)?;
        let Some(limit) = period.limit else { return Ok(Balance { left: None, limit: None }) };
        let mut all = limit.saturating_add(period.adjusted);
        let mut left = all.saturating_sub(period.charged);
        let now_s = self.now_s();
        for grant in self.shelf.grants(&account.owner)? {
            if grant.expires_s.is_none_or(|expires_s| expires_s > now_s) {
                left = left.saturating_add(grant.amount.saturating_sub(grant.charged));
                all = all.saturating_add(grant.amount);
            }
        }
        Ok(Balance { left: Some(left), limit: Some(all) })
    }
}

fn new_period(account: &Account, start: i64, ends: i64, limit: Option<Nanocredits>) -> Period {
    let (adjusted, charged, held) = (Nanocredits::ZERO, Nanocredits::ZERO, Nanocredits::ZERO);
    Period { owner: account.owner.clone(), start, ends, limit, adjusted, charged, held, alerted: 0 }
}
