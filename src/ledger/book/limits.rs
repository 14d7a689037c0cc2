//! Limits: what an account is given in a period, from when on, and whether it may spend anything at all.

use super::alerts::Touched;
use super::rows::{Account, Entry, Period};
use super::{Books, ms_to_us};
use crate::domain::calendar::day_end;
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::views::{ChangeAnswer, LimitSince, PeriodLength};

/// A limit to be set.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewLimit {
    pub(super) limit: Option<Nanocredits>,
    pub(super) length: PeriodLength,
    pub(super) since: Option<LimitSince>,
    pub(super) carry_over: Option<bool>,
}

impl Books<'_> {
    /// Sets it: where nothing else is said, at once if it rises or if nothing was spent of the present one.
    pub(super) fn set_limit(
        &mut self,
        user: &str,
        new: &NewLimit,
        (by, why): (&str, &str),
    ) -> Result<ChangeAnswer, LedgerError> {
        let &NewLimit { limit, length, since, carry_over } = new;
        if limit.is_some_and(|limit| limit < Nanocredits::ZERO) {
            return Err(LedgerError::Refused("a limit cannot be negative".to_owned()));
        }
        self.free_up(user);
        self.touch(Touched::Changed(user.to_owned()));
        let account = self.account(user)?;
        let account = self.uncut(&account, length)?;
        let at_once = self.counts_at_once(&account, new)?;
        if since == Some(LimitSince::Now) && !at_once {
            let why =
                "credits of the present period were used: another length of the period counts from the next day on";
            return Err(LedgerError::Refused(format!("{why}, so leave out --since now")));
        }
        let starts =
            if at_once { self.set_now(&account, limit, length)? } else { self.set_next(&account, limit, length)? };
        if let Some(carries_over) = carry_over {
            self.shelf.change_account(user, |account| account.carries_over = carries_over);
        }
        let since =
            if at_once { "at once".to_owned() } else { format!("from {} on", crate::domain::calendar::date(starts)) };
        let told = limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        let carried = carry_over.map_or("", |carried| if carried { ", carried over" } else { ", not carried over" });
        let why = format!("{told} a {}{carried} {since}: {why}", length.as_str());
        let amount = limit.unwrap_or(Nanocredits(-1));
        let entry = self.of_account("limit", &account, by, &why);
        self.shelf.append(Entry { amount, source: i64::from(at_once), ..entry });
        self.answer(&account)
    }

    /// A month that was to end early, for days to follow, goes on to its end where it is to be months after all.
    fn uncut(&mut self, account: &Account, length: PeriodLength) -> Result<Account, LedgerError> {
        let (_, ends) = Period::bounds(account.length, account.period);
        let is_cut = account.ends < ends && account.next.is_some() && !self.has_period(&account.owner, account.ends)?;
        if !is_cut || length != account.length {
            return Ok(account.clone());
        }
        let given = self.given_until(account, (account.limit, account.length), ends)?;
        self.shelf.change_account(&account.owner, |account| account.next = None);
        self.end_at(account, given, ends);
        Ok(Account { ends, next: None, ..account.clone() })
    }

    /// What a limit gives in the account's period, where that lasts until `ends`: one that begins within a month, behind shorter ones,
    /// has its part of it.
    fn given_until(
        &mut self,
        account: &Account,
        (limit, length): (Option<Nanocredits>, PeriodLength),
        ends: i64,
    ) -> Result<Option<Nanocredits>, LedgerError> {
        let (from, _) = Period::bounds(length, self.now_s().max(account.period));
        let is_first = from < account.period && self.shelf.spans(&account.owner, from, account.period)?.is_empty();
        let start = if is_first { from } else { account.period };
        Ok(Period::given(limit, length, (start, ends))?)
    }

    /// The account's period gives so much, and lasts until then.
    fn end_at(&mut self, account: &Account, given: Option<Nanocredits>, ends: i64) {
        self.shelf.change_account(&account.owner, |account| account.ends = ends);
        self.shelf.change_period(&account.owner, account.period, |period| (period.limit, period.ends) = (given, ends));
    }

    fn counts_at_once(&mut self, account: &Account, new: &NewLimit) -> Result<bool, LedgerError> {
        let period = self.period(&account.owner, account.period)?;
        let used = [period.spent, period.charged, period.held, period.taken];
        let is_unused = used.iter().all(|part| *part == Nanocredits::ZERO);
        let falls = match (account.limit, new.limit) {
            (Some(before), Some(now)) => now < before,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let wanted = match new.since {
            Some(LimitSince::Now) => true,
            Some(LimitSince::NextPeriod) => false,
            None => is_unused || !falls,
        };
        let may_change_length = is_unused && !self.has_period(&account.owner, account.ends)?;
        Ok(wanted && (new.length == account.length || may_change_length))
    }

    /// From now on. A period of another length ends when that ends.
    fn set_now(
        &mut self,
        account: &Account,
        limit: Option<Nanocredits>,
        length: PeriodLength,
    ) -> Result<i64, LedgerError> {
        let (_, to) = Period::bounds(length, self.now_s().max(account.period));
        let ends = if length == account.length { account.ends } else { to };
        let given = self.given_until(account, (limit, length), ends)?;
        self.shelf.change_account(&account.owner, |account| {
            (account.limit, account.length, account.next) = (limit, length, None);
        });
        self.end_at(account, given, ends);
        self.set_promised(account, limit, length)?;
        Ok(account.period)
    }

    /// The period of which attempts were promised slices has the limit that it will have; its start, where there is one.
    fn set_promised(
        &mut self,
        account: &Account,
        limit: Option<Nanocredits>,
        length: PeriodLength,
    ) -> Result<Option<i64>, LedgerError> {
        let owner = &account.owner;
        let Some(promised) = self.shelf.period(owner, account.ends)?.cloned() else { return Ok(None) };
        // Nobody is in it yet: where days are to follow, it is one.
        let ends = promised.ends.min(Period::bounds(length, promised.start).1);
        let given = Period::given(limit, length, (promised.start, ends))?;
        self.shelf.change_period(owner, promised.start, |period| (period.limit, period.ends) = (given, ends));
        Ok(Some(promised.start))
    }

    /// From the next period on, which begins with a day where days follow months: the first one for which the part of the month before it
    /// covers what was used of the month.
    fn set_next(
        &mut self,
        account: &Account,
        limit: Option<Nanocredits>,
        length: PeriodLength,
    ) -> Result<i64, LedgerError> {
        self.shelf.change_account(&account.owner, |account| account.next = Some((limit, length)));
        if let Some(start) = self.set_promised(account, limit, length)? {
            return Ok(start);
        }
        if (account.length, length) != (PeriodLength::Month, PeriodLength::Day) {
            return Ok(account.ends);
        }
        let period = self.period(&account.owner, account.period)?;
        let used = period.charged.plus(period.taken)?.plus(period.held)?;
        // Leases that are out know the end that it had, and one of them may last for a second time.
        let cut_after_us = 2 * ms_to_us(self.longest_lease_ms()?);
        let mut ends = day_end((self.now_us + cut_after_us).div_euclid(1_000_000));
        while ends < account.ends {
            let given = Period::given(account.limit, account.length, (account.period, ends))?;
            if given.is_none_or(|given| given >= used) {
                self.end_at(account, given, ends);
                return Ok(ends);
            }
            ends = day_end(ends);
        }
        Ok(account.ends)
    }

    /// Nothing of the account starts from now on, and what runs stops at its next word; or it may again.
    pub(super) fn suspend(
        &mut self,
        user: &str,
        suspended: bool,
        (by, why): (&str, &str),
    ) -> Result<ChangeAnswer, LedgerError> {
        self.free_up(user);
        let account = self.account(user)?;
        let again = account.suspended == suspended;
        if !again {
            let entry = self.of_account(if suspended { "suspend" } else { "resume" }, &account, by, why);
            self.shelf.append(entry);
            self.shelf.change_account(user, |account| account.suspended = suspended);
        }
        Ok(ChangeAnswer { again, balance: Some(self.balance(&account)?), ..ChangeAnswer::nothing(again) })
    }
}
