//! Accounts and their periods: how one follows the other, and what goes over.

use super::Books;
use super::holds::Move;
use super::rows::{Account, Attempt, Entry, Grant, Period};
use crate::domain::book::Source;
use crate::domain::units::{NANOCREDITS_MAX, Nanocredits};
use crate::domain::user_name;
use crate::ledger::LedgerError;

impl Books<'_> {
    /// The account in the period that holds the ledger's time; a user who was never seen gets the default. Periods
    /// never move backwards: a clock that was set back stays in the period that was reached.
    pub(super) fn account(&mut self, owner: &str) -> Result<Account, LedgerError> {
        match self.shelf.account(owner)?.cloned() {
            Some(account) if self.now_s() < account.ends => Ok(account),
            Some(account) => self.next_period(&account, self.now_s()),
            None => self.new_account(owner),
        }
    }

    /// Whether this can be the name of a user: of one who has an account, or of somebody new. An account of before goes on
    /// under any name.
    pub(super) fn check_user(&mut self, name: &str) -> Result<(), LedgerError> {
        if self.shelf.account(name)?.is_some() {
            return Ok(());
        }
        user_name::check(name).map_err(|why| LedgerError::Refused(why.to_string()))?;
        match self.shelf.owner_named(name)?.filter(|owner| owner != name) {
            Some(meant) => Err(LedgerError::Refused(format!(
                "there is an account {meant:?}, and {name:?} differs from it by case, form or spaces alone: say {meant:?}"
            ))),
            None => Ok(()),
        }
    }

    fn new_account(&mut self, owner: &str) -> Result<Account, LedgerError> {
        self.check_user(owner)?;
        if self.shelf.owner_named(owner)?.is_none() {
            self.shelf.put_name(owner);
        }
        let account = self.unused_account(owner)?;
        self.shelf.put_account(account.clone());
        self.shelf.put_period(Period::new(owner, (account.period, account.ends), account.limit));
        self.note_default(&account);
        Ok(self.shelf.account(owner)?.unwrap_or(&account).clone())
    }

    /// As that of a user who was never seen is.
    pub(super) fn unused_account(&mut self, owner: &str) -> Result<Account, LedgerError> {
        let settings = self.settings()?;
        let bounds = Period::bounds(settings.period, self.now_s());
        Ok(Account { limit: settings.limit(), ..Account::new(owner, settings.period, bounds) })
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

    /// The account in the period that holds `at_s`, as if each one before it had begun on time.
    fn next_period(&mut self, before: &Account, at_s: i64) -> Result<Account, LedgerError> {
        let (limit, length) = before.next.unwrap_or((before.limit, before.length));
        let promised_ends = self.shelf.period(&before.owner, before.ends)?.map(|promised| promised.ends);
        if promised_ends.is_some_and(|ends| ends <= at_s) {
            let promised = self.next_period(before, before.ends)?;
            return self.next_period(&promised, at_s);
        }
        let (start, ends) = Period::bounds(length, at_s);
        let start = if promised_ends.is_some() { before.ends } else { start.max(before.ends) };
        let mut ends = promised_ends.unwrap_or(ends);
        // A clock that was ahead may have left a period within it.
        for (from, _) in self.shelf.spans(&before.owner, start, ends)? {
            ends = if from > start { ends.min(from) } else { ends };
        }
        self.carry_rest(before)?;
        self.shelf.change_account(&before.owner, |account| {
            (account.limit, account.length, account.period, account.ends) = (limit, length, start, ends);
            account.next = None;
        });
        let account = self.shelf.account(&before.owner)?.unwrap_or(before).clone();
        let given = Period::given(limit, length, (start, ends))?;
        // It is there already where a slice of it was promised.
        if self.has_period(&account.owner, start)? {
            self.shelf.change_period(&account.owner, start, |period| period.limit = given);
        } else {
            self.shelf.put_period(Period::new(&account.owner, (start, ends), given));
        }
        // Who has grants alone is told once how far they are spent, and not each morning.
        if limit == Some(Nanocredits::ZERO) && before.limit == limit {
            let alerted = self.period(&account.owner, before.period)?.alerted;
            self.shelf.change_period(&account.owner, start, |period| period.alerted = alerted);
        }
        self.pass_unused(&account, before.ends)?;
        self.bring_debt(&account.owner)?;
        Ok(self.shelf.account(&before.owner)?.unwrap_or(&account).clone())
    }

    /// Periods between `from_s` and the one that the account is in now passed without a look at it: what they gave pays debt, and is
    /// carried over.
    fn pass_unused(&mut self, account: &Account, from_s: i64) -> Result<(), LedgerError> {
        let (limit, debt) = (account.limit, account.debt);
        if from_s >= account.period || (debt == Nanocredits::ZERO && !(account.carries_over && limit.is_some())) {
            return Ok(());
        }
        let given =
            limit.map_or(Ok(debt), |limit| Period::given_between(limit, account.length, from_s, account.period));
        let given = given?;
        let (paid, rest) = (given.min(debt), given.less(given.min(debt))?);
        let why = "by periods that passed unused";
        if paid > Nanocredits::ZERO {
            self.owe(&account.owner, Nanocredits::ZERO.less(paid)?)?;
            let entry = self.of_account("unused", account, "ledger", why);
            self.shelf.append(Entry { source: Source::DEBT.0, amount: paid, ..entry });
        }
        let rest = rest.min(self.room_to_carry(&account.owner)?);
        if account.carries_over && limit.is_some() && rest > Nanocredits::ZERO {
            let source = self.add_to_carried(account, rest)?;
            let entry = self.of_account("unused", account, "ledger", why);
            self.shelf.append(Entry { source, amount: rest, ..entry });
        }
        Ok(())
    }

    /// What is owed when a period begins corrects it; its allowance pays first.
    fn bring_debt(&mut self, owner: &str) -> Result<(), LedgerError> {
        let Some(account) = self.shelf.account(owner)?.filter(|account| account.debt > Nanocredits::ZERO).cloned()
        else {
            return Ok(());
        };
        self.correct_period(&account, Nanocredits::ZERO.less(account.debt)?)?;
        let entry = self.of_account("brought", &account, "ledger", "owed since an earlier period");
        self.shelf.append(Entry { source: Source::DEBT.0, amount: account.debt, ..entry });
        self.pay_debt(owner)
    }

    /// What the allowance of the account's period leaves is kept.
    fn carry_rest(&mut self, account: &Account) -> Result<(), LedgerError> {
        let period = self.period(&account.owner, account.period)?;
        let rest = period.limit.map_or(Nanocredits::ZERO, |_| period.free());
        self.carry(account, account.period, rest)
    }

    /// Where the account carries over, `amount` of what a period's allowance leaves goes to the grant for that.
    pub(super) fn carry(&mut self, account: &Account, start: i64, amount: Nanocredits) -> Result<(), LedgerError> {
        let amount = amount.min(self.room_to_carry(&account.owner)?);
        if !account.carries_over || amount <= Nanocredits::ZERO {
            return Ok(());
        }
        let by = Move { taken: amount, ..Move::default() };
        self.move_in(&account.owner, start, Source::ALLOWANCE, by)?;
        let source = self.add_to_carried(account, amount)?;
        let entry = self.of_account("carry", account, "ledger", "carried over");
        self.shelf.append(Entry { period: start, source, amount, ..entry });
        Ok(())
    }

    /// No grant is more than the largest amount, however long an account carries over.
    fn room_to_carry(&mut self, owner: &str) -> Result<Nanocredits, LedgerError> {
        let given = self.carried_grant(owner)?.map(|grant| grant.amount).unwrap_or_default();
        Ok(Nanocredits(NANOCREDITS_MAX).less(given)?.at_least_zero())
    }

    /// One that was revoked gets nothing more.
    fn carried_grant(&mut self, owner: &str) -> Result<Option<Grant>, LedgerError> {
        let Some(id) = self.shelf.account(owner)?.and_then(|account| account.carried_grant) else { return Ok(None) };
        Ok(self.shelf.grant(owner, id)?.filter(|grant| grant.revoked_s.is_none()).cloned())
    }

    /// The number of the grant that has it then.
    fn add_to_carried(&mut self, account: &Account, amount: Nanocredits) -> Result<i64, LedgerError> {
        let owner = &account.owner;
        self.free_up(owner);
        if let Some(grant) = self.carried_grant(owner)? {
            let given = grant.amount.plus(amount)?;
            self.shelf.change_grant(owner, grant.id, |grant| grant.amount = given);
            return Ok(grant.id);
        }
        let id = self.shelf.new_grant_id(owner)?;
        self.shelf.put_grant(Grant::new(owner, id, amount, None, "carried over"));
        self.shelf.change_account(owner, |account| account.carried_grant = Some(id));
        Ok(id)
    }

    /// The period after the account's, of which an attempt is promised a slice. It stands there even when a clock that
    /// jumps makes the account skip it.
    pub(super) fn ensure_next_period(&mut self, account: &Account) -> Result<(), LedgerError> {
        if !self.has_period(&account.owner, account.ends)? {
            let (limit, length) = account.next.unwrap_or((account.limit, account.length));
            let (_, ends) = Period::bounds(length, account.ends);
            let span = (account.ends, ends);
            self.shelf.put_period(Period::new(&account.owner, span, Period::given(limit, length, span)?));
        }
        Ok(())
    }

    /// A period before the account's that the books do not have, where none of those that they have overlaps it.
    pub(super) fn ensure_past_period(&mut self, account: &Account, at_s: i64) -> Result<(), LedgerError> {
        let (start, ends) = Period::bounds(account.length, at_s);
        if start == at_s && self.shelf.spans(&account.owner, start, ends)?.is_empty() {
            self.shelf.put_period(Period::new(&account.owner, (start, ends), account.limit));
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
}
