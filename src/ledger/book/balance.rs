//! The one rule for a balance: what is free, what is left, and how a debt is paid.
//!
//! A source, which is the period's allowance or a grant, was given so much; of that some was charged, some taken, and some is
//! held. What remains of a live one is free. `left = free + held − debt`, and `limit = left + charged − corrected`: what an
//! account could spend in this period, if nothing of it had been spent. Nobody else makes a sum of these.

use super::Books;
use super::holds::Move;
use super::rows::{Account, Entry, Grant};
use crate::domain::balance::Snapshot;
use crate::domain::book::{Part, Source, sum, take};
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::protocol::Balance;

impl From<Snapshot> for Balance {
    fn from(snapshot: Snapshot) -> Self {
        Self { left: snapshot.left, limit: snapshot.limit, suspended: snapshot.suspended }
    }
}

impl Books<'_> {
    /// The account as it stands.
    pub(super) fn snapshot(&mut self, account: &Account) -> Result<Snapshot, LedgerError> {
        self.pay_debt(&account.owner)?;
        // As it is in the books now: what an operation was begun with may be old.
        let current = self.shelf.account(&account.owner)?.unwrap_or(account);
        let (start, debt, suspended) = (current.period, current.debt, current.suspended);
        let period = self.period(&account.owner, start)?;
        let (limit, allowance, mut held) = (period.limit, period.free(), period.held);
        let (charged, corrected) = (period.spent, period.corrected);
        let grants = self.grants(&account.owner)?;
        for grant in &grants {
            held = held.plus(grant.held)?;
        }
        let unlimited = Snapshot { limit: None, charged, corrected, left: None, free: None, held, debt, suspended };
        if limit.is_none() {
            return Ok(unlimited);
        }
        let free = sum(&spendable(allowance, &grants, self.now_s()));
        let left = free.plus(held)?.less(debt)?;
        let limit = left.plus(charged)?.less(corrected)?;
        Ok(Snapshot { limit: Some(limit), left: Some(left), free: Some(free), ..unlimited })
    }

    pub(super) fn balance(&mut self, account: &Account) -> Result<Balance, LedgerError> {
        self.snapshot(account).map(Balance::from)
    }

    /// What may be held or charged now, in the order in which it is spent.
    pub(super) fn free(&mut self, account: &Account) -> Result<Vec<Part>, LedgerError> {
        self.free_in(account, account.period)
    }

    /// The same for a period that may be over: what it left unspent can still pay for what was burned in it.
    pub(super) fn free_in(&mut self, account: &Account, period: i64) -> Result<Vec<Part>, LedgerError> {
        self.pay_debt(&account.owner)?;
        self.unspent(&account.owner, period)
    }

    /// The same, whatever is owed.
    fn unspent(&mut self, owner: &str, period: i64) -> Result<Vec<Part>, LedgerError> {
        let allowance = self.period(owner, period)?.free();
        Ok(spendable(allowance, &self.grants(owner)?, self.now_s()))
    }

    /// Those of which something is held or left, in the order in which they are spent.
    pub(super) fn grants(&mut self, owner: &str) -> Result<Vec<Grant>, LedgerError> {
        let mut grants = self.shelf.grants(owner, self.now_s())?;
        grants.sort_by_key(|grant| (grant.expires_s.is_none(), grant.expires_s, grant.id));
        Ok(grants)
    }

    /// What is owed is paid by whatever is free: at the end of an operation, or as soon as somebody looks at what is free. So nothing is
    /// while something is owed.
    pub(super) fn pay_debt(&mut self, owner: &str) -> Result<(), LedgerError> {
        let Some(account) = self.shelf.account(owner)?.filter(|account| account.debt > Nanocredits::ZERO).cloned()
        else {
            return Ok(());
        };
        let free = self.unspent(owner, account.period)?;
        for (source, amount) in take(&free, account.debt) {
            self.take_out(&account, source, amount)?;
            let entry = self.of_account("repay", &account, "ledger", "paid what was owed");
            self.shelf.append(Entry { source: source.0, amount, ..entry });
            self.owe(owner, Nanocredits::ZERO.less(amount)?)?;
        }
        Ok(())
    }

    /// So much more is owed, or less.
    pub(super) fn owe(&mut self, owner: &str, amount: Nanocredits) -> Result<(), LedgerError> {
        let debt = self.shelf.account(owner)?.map(|account| account.debt).unwrap_or_default().plus(amount)?;
        self.shelf.change_account(owner, |account| account.debt = debt);
        Ok(())
    }

    /// What was owed, or is owed less, shows in the period that the account is in.
    pub(super) fn correct_period(&mut self, account: &Account, amount: Nanocredits) -> Result<(), LedgerError> {
        let corrected = self.period(&account.owner, account.period)?.corrected.plus(amount)?;
        self.shelf.change_period(&account.owner, account.period, |period| period.corrected = corrected);
        Ok(())
    }

    /// Takes what is free of a source in the account's period.
    pub(super) fn take_out(
        &mut self,
        account: &Account,
        source: Source,
        taken: Nanocredits,
    ) -> Result<(), LedgerError> {
        self.move_in(&account.owner, account.period, source, Move { taken, ..Move::default() })
    }
}

/// What is left of an allowance and of the grants that are good at this time, in the order in which they are spent.
pub(super) fn spendable(allowance: Nanocredits, grants: &[Grant], at_s: i64) -> Vec<Part> {
    let live = grants.iter().filter(|grant| grant.is_live(at_s)).map(|grant| (Source(grant.id), grant.rest()));
    std::iter::once((Source::ALLOWANCE, allowance)).chain(live).collect()
}
