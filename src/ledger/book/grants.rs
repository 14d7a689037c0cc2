//! Grants and corrections: extra credits, and credits taken back.

use super::Books;
use super::alerts::Touched;
use super::holds::Move;
use super::rows::{Account, Entry, Grant};
use crate::domain::book::{Source, sum, take};
use crate::domain::units::{NANOCREDITS_MAX, Nanocredits};
use crate::ledger::LedgerError;
use crate::ledger::views::ChangeAnswer;

/// What every reader can show as a time, in seconds since 1970.
const EXPIRES_MAX_S: i64 = 9_000_000_000;

/// A correction to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Correction {
    /// Gives where it is above zero, takes where it is below.
    pub(super) amount: Nanocredits,
    /// Taken of this one alone.
    pub(super) grant: Option<i64>,
    /// Of what is given, in seconds since 1970; the period's end where nothing is said.
    pub(super) expires_s: Option<i64>,
}

impl Books<'_> {
    pub(super) fn grant(
        &mut self,
        user: &str,
        amount: Nanocredits,
        expires_s: Option<i64>,
        who: (&str, &str),
    ) -> Result<ChangeAnswer, LedgerError> {
        if amount <= Nanocredits::ZERO {
            return Err(LedgerError::Refused("a grant must be more than zero".to_owned()));
        }
        let account = self.account(user)?;
        self.give(&account, "grant", amount, expires_s, who)?;
        self.answer(&account)
    }

    /// A new grant, which pays what is owed first.
    pub(super) fn give(
        &mut self,
        account: &Account,
        kind: &'static str,
        amount: Nanocredits,
        expires_s: Option<i64>,
        (by, why): (&str, &str),
    ) -> Result<i64, LedgerError> {
        if expires_s.is_some_and(|expires| expires <= self.now_s()) {
            return Err(LedgerError::Refused("the grant would have expired already".to_owned()));
        }
        if expires_s.is_some_and(|expires| expires > EXPIRES_MAX_S) {
            return Err(LedgerError::Refused(
                "the grant would expire after the year 2255: leave out its expiry".to_owned(),
            ));
        }
        let owner = &account.owner;
        self.check_given(account, amount)?;
        self.free_up(owner);
        self.touch(Touched::Changed(owner.clone()));
        let id = self.shelf.new_grant_id(owner)?;
        self.shelf.put_grant(Grant::new(owner, id, amount, expires_s, why));
        let entry = self.of_account(kind, account, by, why);
        self.shelf.append(Entry { source: id, amount, ..entry });
        Ok(id)
    }

    /// Ends what is free of a grant. What jobs hold of it stays good.
    pub(super) fn revoke_grant(
        &mut self,
        user: &str,
        id: i64,
        (by, why): (&str, &str),
    ) -> Result<ChangeAnswer, LedgerError> {
        let account = self.account(user)?;
        let grant = self.grant_of(user, id)?;
        let now_s = self.now_s();
        let again = !grant.is_live(now_s);
        if !again {
            self.touch(Touched::Changed(user.to_owned()));
            self.shelf.change_grant(user, id, |grant| grant.revoked_s = Some(now_s));
            let entry = self.of_account("revoke", &account, by, why);
            self.shelf.append(Entry { source: id, amount: grant.rest(), ..entry });
        }
        Ok(ChangeAnswer { again, balance: Some(self.balance(&account)?), ..ChangeAnswer::nothing(again) })
    }

    fn grant_of(&mut self, user: &str, id: i64) -> Result<Grant, LedgerError> {
        let unknown =
            || LedgerError::Missing(format!("{user:?} has no grant {id}: `jobmeter account show` tells their numbers"));
        self.shelf.grant(user, id)?.cloned().ok_or_else(unknown)
    }

    pub(super) fn adjust(
        &mut self,
        user: &str,
        correction: &Correction,
        (by, why): (&str, &str),
    ) -> Result<ChangeAnswer, LedgerError> {
        let account = self.account(user)?;
        let &Correction { amount, grant, expires_s } = correction;
        if amount == Nanocredits::ZERO {
            return Err(LedgerError::Refused("a correction by zero changes nothing".to_owned()));
        }
        if amount > Nanocredits::ZERO {
            if grant.is_some() {
                let why = "only a negative correction names a grant: a positive one is a grant of its own";
                return Err(LedgerError::Refused(why.to_owned()));
            }
            self.give(&account, "adjust", amount, expires_s.or(Some(account.ends)), (by, why))?;
            return self.answer(&account);
        }
        if expires_s.is_some() {
            return Err(LedgerError::Refused("only a positive correction has an expiry".to_owned()));
        }
        self.touch(Touched::Changed(user.to_owned()));
        let amount = Nanocredits::ZERO.less(amount)?;
        self.check_taken(&account, amount)?;
        let free = match grant {
            None => self.free(&account)?,
            Some(id) => vec![(Source(id), self.free_of_grant(user, id, amount)?)],
        };
        for (source, part) in take(&free, amount) {
            self.move_in(user, account.period, source, Move { taken: part, ..Move::default() })?;
            self.note_taken(&account, source, part, (by, why))?;
        }
        let debt = amount.less(sum(&take(&free, amount)))?;
        if debt > Nanocredits::ZERO {
            self.owe(user, debt)?;
            self.note_taken(&account, Source::DEBT, debt, (by, why))?;
        }
        self.answer(&account)
    }

    fn note_taken(
        &mut self,
        account: &Account,
        source: Source,
        taken: Nanocredits,
        (by, why): (&str, &str),
    ) -> Result<(), LedgerError> {
        let amount = Nanocredits::ZERO.less(taken)?;
        self.correct_period(account, amount)?;
        let entry = self.of_account("adjust", account, by, why);
        self.shelf.append(Entry { source: source.0, amount, ..entry });
        Ok(())
    }

    /// What is free of one grant, which must be as much as is to be taken of it.
    fn free_of_grant(&mut self, user: &str, id: i64, amount: Nanocredits) -> Result<Nanocredits, LedgerError> {
        let grant = self.grant_of(user, id)?;
        let free = if grant.is_live(self.now_s()) { grant.rest() } else { Nanocredits::ZERO };
        if free < amount {
            return Err(LedgerError::Refused(format!(
                "{free} credits of the grant {id} are free, and {amount} cannot be taken of it: leave out --grant to take of all"
            )));
        }
        Ok(free)
    }

    /// What an account is given stays where every reader can sum it: nothing ends at the end of a range.
    pub(super) fn check_given(&mut self, account: &Account, more: Nanocredits) -> Result<(), LedgerError> {
        let grants = self.grants(&account.owner)?;
        let given: i128 = grants.iter().map(|grant| i128::from(grant.amount.0)).sum();
        if given + i128::from(more.0) <= i128::from(NANOCREDITS_MAX) {
            return Ok(());
        }
        Err(LedgerError::Refused("an account has a thousand million credits in grants at most".to_owned()))
    }

    fn check_taken(&mut self, account: &Account, more: Nanocredits) -> Result<(), LedgerError> {
        let corrected = self.period(&account.owner, account.period)?.corrected;
        let debt = self.shelf.account(&account.owner)?.map(|account| account.debt).unwrap_or_default();
        let taken = i128::from(debt.0).max(-i128::from(corrected.0)) + i128::from(more.0);
        if taken <= i128::from(NANOCREDITS_MAX) {
            return Ok(());
        }
        Err(LedgerError::Refused(
            "an account is corrected by a thousand million credits in a period at most".to_owned(),
        ))
    }
}
