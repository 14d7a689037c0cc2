//! An account that a clock which was ahead has moved into a period that has not come: put back by an operator. What it was given for
//! that period, and for those before it, is taken back.

use std::collections::BTreeSet;

use super::rows::{Account, Entry, Period};
use super::{Books, ms_to_us};
use crate::domain::book::Source;
use crate::domain::calendar::date;
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::views::ChangeAnswer;

impl Books<'_> {
    /// The account is in the period that holds the ledger's time again. Leases that would last for years are over: an attempt that runs
    /// reports, and one that does not can be settled.
    pub(super) fn repair_period(&mut self, user: &str, (by, why): (&str, &str)) -> Result<ChangeAnswer, LedgerError> {
        let unknown =
            || LedgerError::Missing(format!("no account {user:?} is known: `jobmeter account show` makes it"));
        let before = self.shelf.account(user)?.cloned().ok_or_else(unknown)?;
        if before.period <= self.now_s() {
            return Ok(ChangeAnswer { balance: Some(self.balance(&before)?), ..ChangeAnswer::nothing(true) });
        }
        let (start, ends) = self.ensure_period_of_now(&before)?;
        self.shelf.change_account(user, |account| {
            (account.period, account.ends) = (start, ends);
            (account.sums.silent_from_us, account.sums.waits_until_us) = (0, 0);
        });
        self.free_up(user);
        let latest_us = self.now_us + 2 * ms_to_us(self.longest_lease_ms()?);
        for id in self.shelf.leased_beyond(user, latest_us)? {
            if let Some(mut attempt) = self.shelf.attempt(id)? {
                (attempt.lease_until_us, attempt.live) = (self.now_us, false);
                self.keep(attempt)?;
            }
        }
        let account = self.shelf.account(user)?.unwrap_or(&before).clone();
        let told = format!("from {} to {}: {why}", date(before.period), date(start));
        let (gained, owed) = self.booked_ahead(&account)?;
        let entry = self.of_account("repair", &account, by, &told);
        self.shelf.append(entry);
        self.enter("brought", &account, owed, "owed in a period that has not come")?;
        self.owe(user, gained)?;
        self.enter("debt", &account, gained, "given for periods that have not come")?;
        self.answer(&account)
    }

    /// Part of what is owed, which corrects the account's period.
    fn enter(
        &mut self,
        kind: &'static str,
        account: &Account,
        amount: Nanocredits,
        why: &str,
    ) -> Result<(), LedgerError> {
        if amount > Nanocredits::ZERO {
            self.correct_period(account, Nanocredits::ZERO.less(amount)?)?;
            let entry = self.of_account(kind, account, "ledger", why);
            self.shelf.append(Entry { source: Source::DEBT.0, amount, ..entry });
        }
        Ok(())
    }

    /// Of periods that have not come: what the account has had of them, and how much of its debt was made in them. Each of them
    /// has again all that it gives, for when it comes.
    fn booked_ahead(&mut self, account: &Account) -> Result<(Nanocredits, Nanocredits), LedgerError> {
        let owner = account.owner.as_str();
        let booked = self.shelf.booked_ahead(owner, account.ends)?;
        let mut gained = booked.unused.less(self.passed_unused(account)?)?.at_least_zero();
        let ahead: BTreeSet<_> = self.shelf.spans(owner, account.ends, i64::MAX)?.into_iter().collect();
        for (start, _) in ahead {
            let period = self.period(owner, start)?;
            let (limit, charged) = (period.limit, period.charged);
            let used = charged.plus(period.taken)?;
            if limit.is_none() || used <= Nanocredits::ZERO {
                continue;
            }
            gained = gained.plus(used)?;
            let returned = Nanocredits::ZERO.less(charged)?;
            self.shelf.change_period(owner, start, |period| period.taken = returned);
            let entry = self.of_account("adjust", account, "ledger", "given for a period that has not come");
            self.shelf.append(Entry { period: start, source: Source::ALLOWANCE.0, amount: used, ..entry });
        }
        // What an operator has revoked meanwhile is taken back already.
        Ok((gained.less(booked.revoked)?.at_least_zero(), booked.owed))
    }

    /// What periods gave that have passed unused before the account's.
    fn passed_unused(&mut self, account: &Account) -> Result<Nanocredits, LedgerError> {
        let Some(limit) = account.limit else { return Ok(Nanocredits::ZERO) };
        let before = self.shelf.spans(&account.owner, i64::MIN, account.period)?;
        let last = before.into_iter().map(|(_, ends)| ends).filter(|ends| *ends <= account.period).max();
        let from_s = last.unwrap_or(account.period);
        Ok(Period::given_between(limit, account.length, from_s, account.period)?)
    }

    /// The period that holds the ledger's time, made where there is none.
    fn ensure_period_of_now(&mut self, account: &Account) -> Result<(i64, i64), LedgerError> {
        let now_s = self.now_s();
        let (mut start, mut ends) = Period::bounds(account.length, now_s);
        for (from, to) in self.shelf.spans(&account.owner, start, ends)? {
            if (from..to).contains(&now_s) {
                return Ok((from, to));
            }
            (start, ends) = if to <= now_s { (start.max(to), ends) } else { (start, ends.min(from)) };
        }
        let given = Period::given(account.limit, account.length, (start, ends))?;
        self.shelf.put_period(Period::new(&account.owner, (start, ends), given));
        Ok((start, ends))
    }
}
