//! Sources of credits: what a period's allowance or a grant was given, and what remains of it.

use super::rows::{Account, AccountSums, Grant, Period};
use crate::domain::book::UNLIMITED;
use crate::domain::calendar;
use crate::domain::units::{NANOCREDITS_MAX, Nanocredits, OutOfRange};
use crate::ledger::views::PeriodLength;

impl Account {
    /// One that was never used, in this period.
    #[must_use]
    pub fn new(owner: &str, length: PeriodLength, (period, ends): (i64, i64)) -> Self {
        Self {
            owner: owner.to_owned(),
            limit: None,
            length,
            period,
            ends,
            next: None,
            entries: 0,
            sums: AccountSums::default(),
            debt: Nanocredits::ZERO,
            suspended: false,
            carries_over: false,
            carried_grant: None,
            turnover: 0,
            revision: 0,
        }
    }

    /// Until the reset; a clock that was set back does not make it negative.
    #[must_use]
    pub fn resets_in_ms(&self, now_us: i64) -> u64 {
        u64::try_from(self.ends.saturating_mul(1_000).saturating_sub(now_us / 1_000)).unwrap_or(0)
    }
}

impl Period {
    /// One of which nothing was spent, from start to end.
    #[must_use]
    pub fn new(owner: &str, (start, ends): (i64, i64), limit: Option<Nanocredits>) -> Self {
        let (taken, charged, held) = (Nanocredits::ZERO, Nanocredits::ZERO, Nanocredits::ZERO);
        let (spent, corrected, alerted) = (Nanocredits::ZERO, Nanocredits::ZERO, 0);
        Self { owner: owner.to_owned(), start, ends, limit, taken, charged, held, spent, corrected, alerted }
    }

    /// Of `length`, the one that holds `at_s`.
    #[must_use]
    pub fn bounds(length: PeriodLength, at_s: i64) -> (i64, i64) {
        match length {
            PeriodLength::Day => (calendar::day_start(at_s), calendar::day_end(at_s)),
            PeriodLength::Month => (calendar::month_start(at_s), calendar::month_end(at_s)),
        }
    }

    /// What a limit gives from start to end: of a month that began with days, or is cut, its part.
    ///
    /// # Errors
    /// Where that is no amount.
    pub fn given(
        limit: Option<Nanocredits>,
        length: PeriodLength,
        (start, ends): (i64, i64),
    ) -> Result<Option<Nanocredits>, OutOfRange> {
        let (from, to) = Self::bounds(length, start);
        let part = |limit: Nanocredits| {
            let (has, whole) = (i128::from(ends) - i128::from(start), (i128::from(to) - i128::from(from)).max(1));
            let given = if has >= whole { i128::from(limit.0) } else { i128::from(limit.0) * has / whole };
            i64::try_from(given).map(Nanocredits).map_err(|_| OutOfRange)
        };
        limit.map(part).transpose()
    }

    /// What a limit gives in all periods from `from_s` to `to_s`; no account is given more than the largest amount.
    ///
    /// # Errors
    /// Where a part of it is no amount.
    pub fn given_between(
        limit: Nanocredits,
        length: PeriodLength,
        from_s: i64,
        to_s: i64,
    ) -> Result<Nanocredits, OutOfRange> {
        let most = i128::from(NANOCREDITS_MAX);
        if length == PeriodLength::Day {
            let days = (i128::from(to_s) - i128::from(from_s)) / i128::from(calendar::DAY_S);
            let given = (days * i128::from(limit.0)).min(most);
            return i64::try_from(given).map(Nanocredits).map_err(|_| OutOfRange);
        }
        let (mut given, mut start) = (Nanocredits::ZERO, from_s);
        while start < to_s && i128::from(given.0) < most {
            let ends = Self::bounds(length, start).1.min(to_s);
            given = given.plus(Self::given(Some(limit), length, (start, ends))?.unwrap_or_default())?;
            start = ends;
        }
        Ok(given.min(Nanocredits(NANOCREDITS_MAX)))
    }

    /// What remains of the allowance. It is never less than was charged, taken and held, so that a limit which was lowered leaves nothing
    /// free, and no debt.
    #[must_use]
    pub fn free(&self) -> Nanocredits {
        // Without a limit as well, no more is held at a time than a sum can hold.
        let Some(limit) = self.limit else {
            return UNLIMITED.saturating_sub(self.held.at_least_zero()).at_least_zero();
        };
        let used = [self.charged, self.taken, self.held].map(|part| i128::from(part.0)).iter().sum::<i128>();
        let free = i128::from(limit.0) - used;
        Nanocredits(i64::try_from(free.max(0)).unwrap_or(UNLIMITED.0))
    }
}

impl Grant {
    /// One of which nothing was spent.
    #[must_use]
    pub fn new(owner: &str, id: i64, amount: Nanocredits, expires_s: Option<i64>, why: &str) -> Self {
        let (charged, taken, held) = (Nanocredits::ZERO, Nanocredits::ZERO, Nanocredits::ZERO);
        Self {
            id,
            owner: owner.to_owned(),
            amount,
            charged,
            taken,
            held,
            expires_s,
            revoked_s: None,
            why: why.to_owned(),
        }
    }

    /// Whether it is good at this time, in seconds since 1970.
    #[must_use]
    pub fn is_live(&self, at_s: i64) -> bool {
        self.revoked_s.is_none() && self.expires_s.is_none_or(|expires_s| expires_s > at_s)
    }

    /// What remains of it, live or not.
    #[must_use]
    pub fn rest(&self) -> Nanocredits {
        let used = [self.charged, self.taken, self.held].map(|part| i128::from(part.0)).iter().sum::<i128>();
        Nanocredits(i64::try_from((i128::from(self.amount.0) - used).max(0)).unwrap_or(i64::MAX))
    }
}
