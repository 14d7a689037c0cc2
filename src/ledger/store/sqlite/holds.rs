//! Holds: credits set aside for an attempt, each with the source to which it goes back.

use super::Books;
use super::accounts::Account;
use super::entries::Entry;
use super::row::Attempt;
use crate::domain::book::{Part, Source, components, plus, sum, take};
use crate::domain::calendar::day_start;
use crate::domain::rating::{Price, VirtualTime};
use crate::domain::units::{Microseconds, Nanocredits};
use crate::ledger::LedgerError;

impl Books<'_> {
    /// The holds of an attempt in a period, in the order in which they are spent.
    fn holds(&self, attempt: &Attempt, period: i64) -> Result<Vec<Part>, LedgerError> {
        let mut statement = self.tx.prepare_cached(
            "SELECT h.source, h.amount FROM hold h LEFT JOIN credit_grant g ON g.id = h.source \
             WHERE h.attempt = ?1 AND h.period = ?2 ORDER BY h.source > 0, g.expires_s IS NULL, g.expires_s, h.source",
        )?;
        let rows = statement
            .query_map((attempt.id.to_string(), period), |row| Ok((Source(row.get(0)?), Nanocredits(row.get(1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What an attempt holds in a period.
    pub(super) fn held(&self, attempt: &Attempt, period: i64) -> Result<Nanocredits, LedgerError> {
        Ok(sum(&self.holds(attempt, period)?))
    }

    /// Holds `amount` more, out of `free`, which must have it.
    pub(super) fn hold(
        &self,
        attempt: &Attempt,
        period: i64,
        free: &[Part],
        amount: Nanocredits,
    ) -> Result<(), LedgerError> {
        for (source, part) in take(free, amount) {
            self.tx
                .prepare_cached(
                    "INSERT INTO hold (attempt, user, period, source, amount) VALUES (?1, ?2, ?3, ?4, ?5) \
                     ON CONFLICT (attempt, period, source) DO UPDATE SET amount = amount + ?5",
                )?
                .execute((attempt.id.to_string(), &attempt.user, period, source.0, part.0))?;
        }
        Ok(())
    }

    /// Gives back what is held beyond `keep`, the last source first.
    pub(super) fn release_to(&self, attempt: &Attempt, period: i64, keep: Nanocredits) -> Result<(), LedgerError> {
        let mut holds = self.holds(attempt, period)?;
        let too_much = sum(&holds).saturating_sub(keep.at_least_zero());
        holds.reverse();
        for (source, part) in take(&holds, too_much) {
            self.reduce(attempt, period, source, part)?;
        }
        Ok(())
    }

    fn reduce(&self, attempt: &Attempt, period: i64, source: Source, part: Nanocredits) -> Result<(), LedgerError> {
        let id = attempt.id.to_string();
        let gone = self
            .tx
            .prepare_cached("DELETE FROM hold WHERE attempt = ?1 AND period = ?2 AND source = ?3 AND amount = ?4")?
            .execute((&id, period, source.0, part.0))?;
        if gone == 0 {
            self.tx
                .prepare_cached(
                    "UPDATE hold SET amount = amount - ?4 WHERE attempt = ?1 AND period = ?2 AND source = ?3",
                )?
                .execute((&id, period, source.0, part.0))?;
        }
        Ok(())
    }

    /// Charges an attempt up to the cumulative price `level`, out of what it holds in `period`.
    pub(super) fn charge_to(
        &self,
        attempt: &mut Attempt,
        period: i64,
        price: &Price,
        level: Nanocredits,
    ) -> Result<(), LedgerError> {
        let wanted = level.saturating_sub(attempt.state.accounted.total);
        if wanted <= Nanocredits::ZERO {
            return Ok(());
        }
        let parts = take(&self.holds(attempt, period)?, wanted);
        let mut left = components(&attempt.state.accounted, price, sum(&parts));
        attempt.state.accounted = plus(&attempt.state.accounted, &left);
        attempt.state.charged = plus(&attempt.state.charged, &left);
        let mut time = self.unposted_time(attempt);
        let mut tokens = attempt.state.usage.tokens.saturating_sub(self.posted_tokens(attempt)?);
        for (source, amount) in parts {
            self.reduce(attempt, period, source, amount)?;
            self.pay(&attempt.user, period, source, amount)?;
            let cut = cut(&mut left, amount);
            self.append(&Entry {
                kind: "charge",
                user: &attempt.user,
                period,
                day: self.day_of(period, &attempt.user)?,
                source: source.0,
                amount,
                parts: cut,
                time,
                tokens,
                job: Some(&attempt.job),
                attempt: Some(attempt.id),
                by: "meter",
                why: "",
            })?;
            (time, tokens) = (VirtualTime::default(), 0);
        }
        Ok(())
    }

    /// Virtual time that no entry has told yet; told after this.
    pub(super) fn unposted_time(&self, attempt: &mut Attempt) -> VirtualTime {
        let now = attempt.state.rates.virtual_time(&attempt.state.usage);
        let before = std::mem::replace(&mut attempt.state.accounted_time, now);
        let cpu_seconds = now.cpu_seconds.saturating_sub(before.cpu_seconds);
        let gpu_seconds = now.gpu_seconds.saturating_sub(before.gpu_seconds);
        VirtualTime { cpu_seconds, gpu_seconds, total_seconds: cpu_seconds.saturating_add(gpu_seconds) }
    }

    pub(super) fn posted_tokens(&self, attempt: &Attempt) -> Result<u64, LedgerError> {
        let mut statement =
            self.tx.prepare_cached("SELECT coalesce(sum(tokens), 0) FROM entry WHERE job = ?1 AND attempt = ?2")?;
        if attempt.state.usage.tokens == 0 {
            return Ok(0);
        }
        let posted: i64 = statement.query_row((&attempt.job, attempt.id.to_string()), |row| row.get(0))?;
        Ok(super::entries::unsigned(posted))
    }

    /// The UTC day of what was burned in `period` and is posted now: today, but not past the period.
    pub(super) fn day_of(&self, period: i64, user: &str) -> Result<i64, LedgerError> {
        let mut statement = self.tx.prepare_cached("SELECT ends FROM period WHERE user = ?1 AND start = ?2")?;
        let ends: i64 = statement.query_row((user, period), |row| row.get(0))?;
        Ok(day_start(self.now_s().clamp(period, ends.saturating_sub(1))))
    }

    /// What could not be covered is given up: reported, never charged.
    pub(super) fn give_up(&self, attempt: &mut Attempt, price: &Price) {
        let rest = price.total.saturating_sub(attempt.state.accounted.total).at_least_zero();
        let parts = components(&attempt.state.accounted, price, rest);
        attempt.state.accounted = plus(&attempt.state.accounted, &parts);
        attempt.state.overshoot = attempt.state.overshoot.saturating_add(rest);
    }

    /// Raises an attempt's ceiling to cover `level` as far as something is free.
    pub(super) fn cover(
        &self,
        attempt: &mut Attempt,
        account: &Account,
        level: Nanocredits,
    ) -> Result<(), LedgerError> {
        let ceiling = attempt.ceiling();
        if level <= ceiling {
            return Ok(());
        }
        let free = self.free_in(account, attempt.period)?;
        let job_free = self.job_free(&attempt.job, Some(attempt))?;
        let more = level.saturating_sub(ceiling).min(sum(&free)).min(job_free.at_least_zero());
        if more > Nanocredits::ZERO {
            self.hold(attempt, attempt.period, &free, more)?;
            let version = self.next_version(attempt)?;
            attempt.state.ceilings.push((version, ceiling.saturating_add(more)));
        }
        Ok(())
    }
}

/// Cuts `amount` off a charge's components, in their order.
fn cut(left: &mut Price, amount: Nanocredits) -> Price {
    let part = components(&Price::default(), left, amount);
    left.cpu = left.cpu.saturating_sub(part.cpu);
    left.gpu = left.gpu.saturating_sub(part.gpu);
    left.tokens = left.tokens.saturating_sub(part.tokens);
    left.total = left.total.saturating_sub(part.total);
    part
}

/// µs as an amount of time that is never negative.
pub(super) fn micros(us: i64) -> Microseconds {
    Microseconds(super::entries::unsigned(us))
}
