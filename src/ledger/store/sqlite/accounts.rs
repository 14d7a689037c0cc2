//! Accounts: limits, periods, and what is free, held and left.

use rusqlite::OptionalExtension;

use super::Books;
use super::row::Attempt;
use crate::domain::book::{Part, Source};
use crate::domain::calendar;
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::protocol::Balance;
use crate::ledger::views::PeriodLength;

/// What a user may spend who was never given a limit: five credits a day.
const LIMIT_DEFAULT: Nanocredits = Nanocredits(5_000_000_000);
/// Stands for "no limit" where an amount is needed: far beyond every price, far below the end of the range.
pub(super) const UNLIMITED: Nanocredits = Nanocredits(i64::MAX / 4);

/// An account in its current period.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) user: String,
    pub(super) limit: Option<Nanocredits>,
    pub(super) length: PeriodLength,
    pub(super) period: i64,
    pub(super) ends: i64,
    pub(super) adjusted: Nanocredits,
    /// From the next period on.
    pub(super) next: Option<(Option<Nanocredits>, PeriodLength)>,
}

/// A grant as it stands.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) id: i64,
    pub(super) amount: Nanocredits,
    pub(super) charged: Nanocredits,
    pub(super) held: Nanocredits,
    pub(super) expires_s: Option<i64>,
    pub(super) why: String,
}

pub(super) fn length_text(length: PeriodLength) -> &'static str {
    match length {
        PeriodLength::Day => "day",
        PeriodLength::Month => "month",
    }
}

fn length_of(text: &str) -> PeriodLength {
    if text == "month" { PeriodLength::Month } else { PeriodLength::Day }
}

fn end_of_period(length: PeriodLength, at_s: i64) -> i64 {
    match length {
        PeriodLength::Day => calendar::day_end(at_s),
        PeriodLength::Month => calendar::month_end(at_s),
    }
}

fn start_of_period(length: PeriodLength, at_s: i64) -> i64 {
    match length {
        PeriodLength::Day => calendar::day_start(at_s),
        PeriodLength::Month => calendar::month_start(at_s),
    }
}

impl Account {
    /// The limit of the next period.
    pub(super) fn next_limit(&self) -> Option<Nanocredits> {
        self.next.map_or(self.limit, |(limit, _)| limit)
    }

    /// Until the reset; a clock that was set back does not make it negative.
    pub(super) fn resets_in_ms(&self, now_us: i64) -> u64 {
        u64::try_from(self.ends.saturating_mul(1_000).saturating_sub(now_us / 1_000)).unwrap_or(0)
    }
}

impl Books<'_> {
    /// The account in the period that holds the ledger's time; a user who was never seen gets the default. Periods
    /// never move backwards: a clock that was set back stays in the period that was reached.
    pub(super) fn account(&self, user: &str) -> Result<Account, LedgerError> {
        let stored = self.stored_account(user)?;
        match stored {
            Some(account) if self.now_s() < account.ends => Ok(account),
            Some(account) => self.next_period(account, self.now_s()),
            None => self.new_account(user),
        }
    }

    fn stored_account(&self, user: &str) -> Result<Option<Account>, LedgerError> {
        let mut statement = self.tx.prepare_cached(
            "SELECT a.credit_limit, a.length, a.period, a.ends, p.adjusted, a.next_set, a.next_limit, \
             a.next_length FROM account a JOIN period p ON p.user = a.user AND p.start = a.period WHERE a.user = ?1",
        )?;
        let account = statement.query_row([user], |row| {
            let next_set: bool = row.get(5)?;
            let next = (row.get::<_, Option<i64>>(6)?.map(Nanocredits), row.get::<_, Option<String>>(7)?);
            Ok(Account {
                user: user.to_owned(),
                limit: row.get::<_, Option<i64>>(0)?.map(Nanocredits),
                length: length_of(&row.get::<_, String>(1)?),
                period: row.get(2)?,
                ends: row.get(3)?,
                adjusted: Nanocredits(row.get(4)?),
                next: next_set.then(|| (next.0, length_of(next.1.as_deref().unwrap_or("day")))),
            })
        });
        Ok(account.optional()?)
    }

    fn new_account(&self, user: &str) -> Result<Account, LedgerError> {
        let length = PeriodLength::Day;
        let (period, ends) = (start_of_period(length, self.now_s()), end_of_period(length, self.now_s()));
        let account = Account {
            user: user.to_owned(),
            limit: Some(LIMIT_DEFAULT),
            length,
            period,
            ends,
            adjusted: Nanocredits::ZERO,
            next: None,
        };
        self.keep_account(&account)?;
        Ok(account)
    }

    /// The account in the period in which an attempt runs. A slice of the next period was promised to it by a duration,
    /// and that has passed on a clock that nobody sets: where this machine's clock was set back meanwhile, the period
    /// has begun all the same. A restore forgets promises, so that after one any attempt may have had it.
    pub(super) fn account_of(&self, attempt: &Attempt, period: i64) -> Result<Account, LedgerError> {
        let account = self.account(&attempt.user)?;
        let promised = attempt.state.next.is_some_and(|(start, _)| start == period)
            || (period == account.ends && self.epoch()?.number > 0);
        if promised && period > account.period { self.next_period(account, period) } else { Ok(account) }
    }

    fn next_period(&self, before: Account, at_s: i64) -> Result<Account, LedgerError> {
        let (limit, length) = before.next.unwrap_or((before.limit, before.length));
        let account = Account {
            limit,
            length,
            period: start_of_period(length, at_s).max(before.ends),
            ends: end_of_period(length, at_s),
            adjusted: Nanocredits::ZERO,
            next: None,
            user: before.user,
        };
        self.keep_account(&account)?;
        Ok(account)
    }

    /// Writes it, and the limit of its period.
    pub(super) fn keep_account(&self, account: &Account) -> Result<(), LedgerError> {
        let limit = account.limit.map(|limit| limit.0);
        let next_limit = account.next.and_then(|(limit, _)| limit).map(|limit| limit.0);
        let next_length = account.next.map(|(_, length)| length_text(length));
        self.tx.execute(
            "INSERT INTO account (user, credit_limit, length, period, ends, next_set, next_limit, next_length) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (user) DO UPDATE SET credit_limit = ?2, length = ?3, \
             period = ?4, ends = ?5, next_set = ?6, next_limit = ?7, next_length = ?8",
            (
                &account.user,
                limit,
                length_text(account.length),
                account.period,
                account.ends,
                account.next.is_some(),
                next_limit,
                next_length,
            ),
        )?;
        self.tx.execute(
            "INSERT INTO period (user, start, ends, credit_limit) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (user, start) DO UPDATE SET credit_limit = ?4",
            (&account.user, account.period, account.ends, limit),
        )?;
        Ok(())
    }

    /// The period after the account's, of which an attempt is promised a slice. It stands there even when a clock that
    /// jumps makes the account skip it.
    pub(super) fn ensure_period(&self, account: &Account) -> Result<(), LedgerError> {
        let length = account.next.map_or(account.length, |(_, length)| length);
        let limit = account.next_limit().map(|limit| limit.0);
        self.tx.execute(
            "INSERT OR IGNORE INTO period (user, start, ends, credit_limit) VALUES (?1, ?2, ?3, ?4)",
            (&account.user, account.ends, end_of_period(length, account.ends), limit),
        )?;
        Ok(())
    }

    /// Grants that are not expired and not used up, in the order in which they are spent.
    pub(super) fn grants(&self, user: &str) -> Result<Vec<Grant>, LedgerError> {
        let mut statement = self.tx.prepare_cached(
            "SELECT id, amount, charged, expires_s, why, \
             (SELECT coalesce(sum(h.amount), 0) FROM hold h WHERE h.user = ?1 AND h.source = g.id) FROM credit_grant g \
             WHERE user = ?1 AND charged < amount AND (expires_s IS NULL OR expires_s > ?2) \
             ORDER BY expires_s IS NULL, expires_s, id",
        )?;
        let rows = statement.query_map((user, self.now_s()), |row| {
            Ok(Grant {
                id: row.get(0)?,
                amount: Nanocredits(row.get(1)?),
                charged: Nanocredits(row.get(2)?),
                expires_s: row.get(3)?,
                why: row.get(4)?,
                held: Nanocredits(row.get(5)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What of the allowance of a period is held.
    pub(super) fn allowance_held(&self, user: &str, period: i64) -> Result<Nanocredits, LedgerError> {
        let mut statement = self.tx.prepare_cached(
            "SELECT coalesce(sum(amount), 0) FROM hold WHERE user = ?1 AND source = 0 AND period = ?2",
        )?;
        Ok(Nanocredits(statement.query_row((user, period), |row| row.get(0))?))
    }

    /// What was charged to the allowance of its period, by this transaction as well: an account that was read before a
    /// charge does not know it.
    pub(super) fn charged(&self, account: &Account) -> Result<Nanocredits, LedgerError> {
        let mut statement = self.tx.prepare_cached("SELECT charged FROM period WHERE user = ?1 AND start = ?2")?;
        Ok(Nanocredits(statement.query_row((&account.user, account.period), |row| row.get(0))?))
    }

    /// What may be held or charged now, in the order in which it is spent.
    pub(super) fn free(&self, account: &Account) -> Result<Vec<Part>, LedgerError> {
        let held = self.allowance_held(&account.user, account.period)?;
        let allowance = match account.limit {
            Some(limit) => limit
                .saturating_add(account.adjusted)
                .saturating_sub(self.charged(account)?)
                .saturating_sub(held)
                .at_least_zero(),
            None => UNLIMITED,
        };
        let mut free = vec![(Source::ALLOWANCE, allowance)];
        for grant in self.grants(&account.user)? {
            let rest = grant.amount.saturating_sub(grant.charged).saturating_sub(grant.held);
            free.push((Source(grant.id), rest.at_least_zero()));
        }
        Ok(free)
    }

    /// The same for a period that may be over: what it left unspent can still pay for what was burned in it.
    pub(super) fn free_in(&self, account: &Account, period: i64) -> Result<Vec<Part>, LedgerError> {
        if period == account.period {
            return self.free(account);
        }
        let mut statement = self
            .tx
            .prepare_cached("SELECT credit_limit, adjusted, charged FROM period WHERE user = ?1 AND start = ?2")?;
        let (limit, adjusted, charged): (Option<i64>, i64, i64) =
            statement.query_row((&account.user, period), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let held = self.allowance_held(&account.user, period)?;
        let free = limit.map_or(UNLIMITED, |limit| {
            Nanocredits(limit.saturating_add(adjusted).saturating_sub(charged)).saturating_sub(held).at_least_zero()
        });
        let mut parts = self.free(account)?;
        parts.retain(|(source, _)| *source != Source::ALLOWANCE);
        parts.insert(0, (Source::ALLOWANCE, free));
        Ok(parts)
    }

    pub(super) fn has_period(&self, user: &str, start: i64) -> Result<bool, LedgerError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM period WHERE user = ?1 AND start = ?2)";
        Ok(self.tx.prepare_cached(sql)?.query_row((user, start), |row| row.get(0))?)
    }

    /// A period before the account's that the books do not have, where none of those that they have overlaps it.
    pub(super) fn insert_past_period(&self, account: &Account, start: i64) -> Result<(), LedgerError> {
        if start != start_of_period(account.length, start) {
            return Ok(());
        }
        let ends = end_of_period(account.length, start);
        self.tx.execute(
            "INSERT INTO period (user, start, ends, credit_limit) SELECT ?1, ?2, ?3, ?4 \
             WHERE NOT EXISTS (SELECT 1 FROM period WHERE user = ?1 AND start < ?3 AND ends > ?2)",
            (&account.user, start, ends, account.limit.map(|limit| limit.0)),
        )?;
        Ok(())
    }

    /// Free and held together: what is not charged yet.
    pub(super) fn balance(&self, account: &Account) -> Result<Balance, LedgerError> {
        let Some(limit) = account.limit else { return Ok(Balance { left: None, limit: None }) };
        let (mut left, mut all) = (
            limit.saturating_add(account.adjusted).saturating_sub(self.charged(account)?),
            limit.saturating_add(account.adjusted),
        );
        for grant in self.grants(&account.user)? {
            left = left.saturating_add(grant.amount.saturating_sub(grant.charged));
            all = all.saturating_add(grant.amount);
        }
        Ok(Balance { left: Some(left), limit: Some(all) })
    }

    /// Whether its lease is not over.
    pub(super) fn is_live(&self, attempt: &Attempt) -> bool {
        attempt.ended_us.is_none() && attempt.lease_until_us >= self.now_us
    }
}
