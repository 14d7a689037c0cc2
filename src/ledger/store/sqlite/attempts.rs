//! Attempts: charged as they report, and finished.

use rusqlite::OptionalExtension;

use super::Books;
use super::accounts::{Account, UNLIMITED};
use super::entries::Entry;
use super::row::Attempt;
use crate::domain::book::{Part, sum};
use crate::domain::lease::{self, Ask, LEASE_MS, Sized, WAIT_MS};
use crate::domain::rating::{Price, RateCard};
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::protocol::{
    ClosedPeriod, Decision, Finish, FinishAnswer, Lease, NextPeriod, Reason, Report, ReportAnswer, StopReason,
};

/// A rate is measured over at most this, in µs.
const RATE_WINDOW_US: i64 = 10_000_000;
/// And over at least this.
const RATE_WINDOW_MIN_US: i64 = 200_000;
/// A waiting attempt that did not ask again within this no longer waits.
const WAITS_US: i64 = 3_000_000;

impl Books<'_> {
    pub(super) fn note<'b>(
        &self,
        kind: &'b str,
        account: &'b Account,
        attempt: &'b Attempt,
        why: &'b str,
    ) -> Entry<'b> {
        Entry {
            kind,
            user: &account.user,
            period: account.period,
            day: crate::domain::calendar::day_start(self.now_s()),
            job: Some(&attempt.job),
            attempt: Some(attempt.id),
            by: "meter",
            why,
            ..Entry::default()
        }
    }

    pub(super) fn rate_card(&self) -> Result<RateCard, LedgerError> {
        let mut statement = self.tx.prepare_cached("SELECT card FROM rates ORDER BY version DESC LIMIT 1")?;
        let card: Option<String> = statement.query_row([], |row| row.get(0)).optional()?;
        match card {
            Some(card) => serde_json::from_str(&card)
                .map_err(|error| LedgerError::Broken(format!("the rate card is damaged: {error}"))),
            None => Ok(RateCard::default()),
        }
    }

    /// What the job's own limit leaves free; [`UNLIMITED`] without one.
    pub(super) fn job_free(&self, job: &str, attempt: Option<&Attempt>) -> Result<Nanocredits, LedgerError> {
        let mut statement = self.tx.prepare_cached(
            "SELECT credit_limit, (SELECT coalesce(sum(charged), 0) FROM attempt WHERE job = ?1 AND id <> ?2), \
             (SELECT coalesce(sum(h.amount), 0) FROM hold h JOIN attempt a ON a.id = h.attempt WHERE a.job = ?1), \
             tokens_charged FROM job WHERE id = ?1",
        )?;
        let (limit, charged, held, tokens): (Option<i64>, i64, i64, i64) = statement
            .query_row((job, attempt.map(|attempt| attempt.id.to_string()).unwrap_or_default()), |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?;
        // What this transaction charged to the attempt itself is not written yet.
        let own = attempt.map_or(0, |attempt| attempt.state.charged.total.0);
        let used = charged.saturating_add(own).saturating_add(held).saturating_add(tokens);
        Ok(limit.map_or(UNLIMITED, |limit| Nanocredits(limit.saturating_sub(used).max(0))))
    }

    /// Charges and renews.
    pub(super) fn report(&self, report: &Report) -> Result<ReportAnswer, LedgerError> {
        let mut attempt = self.attempt(report.attempt)?.ok_or_else(|| super::epoch::never_opened(report.attempt))?;
        let account = self.account_of(&attempt, report.period)?;
        if attempt.ended_us.is_some() {
            let decision = Decision::Stop(StopReason::OperatorStop);
            let balance = self.balance(&account)?;
            return Ok(ReportAnswer { seq: report.seq, balance, burn_per_second: Nanocredits::ZERO, decision });
        }
        let newer = report.seq > attempt.state.seq;
        if newer {
            attempt.state.seq = report.seq;
            attempt.state.resources = report.resources;
            confirm(&mut attempt, report.ceiling_version);
            self.remember_ceiling(&mut attempt, &account, report)?;
        }
        self.take_usage(&mut attempt, &account, &report.usage, report.period, report.closed.as_ref())?;
        self.measure_rate(&mut attempt);
        attempt.state.waits = newer && report.waiting;
        let decision = self.decide(&mut attempt, &account)?;
        attempt.chart(self.now_us);
        self.keep(&attempt)?;
        let burn_per_second = self.burn_per_second(&account)?;
        Ok(ReportAnswer { seq: report.seq, balance: self.balance(&account)?, burn_per_second, decision })
    }

    /// Merges a usage, closes a period that ended, and charges what the ceiling covers.
    fn take_usage(
        &self,
        attempt: &mut Attempt,
        account: &Account,
        usage: &crate::domain::usage::Usage,
        period: i64,
        closed: Option<&ClosedPeriod>,
    ) -> Result<(), LedgerError> {
        let closed = closed.filter(|closed| closed.period == attempt.period && period > attempt.period);
        if let Some(closed) = closed
            && self.has_period(&attempt.user, period)?
        {
            attempt.state.usage = attempt.state.usage.merged(&closed.usage);
            let price = attempt.state.rates.price(&attempt.state.usage);
            self.charge_covered(attempt, account, &price)?;
            self.enter_period(attempt, period, &price)?;
        }
        attempt.state.usage = attempt.state.usage.merged(usage);
        let price = attempt.state.rates.price(&attempt.state.usage);
        self.charge_covered(attempt, account, &price)?;
        let unburned = attempt.ceiling().saturating_sub(attempt.state.accounted.total);
        self.release_to(attempt, attempt.period, unburned)
    }

    /// Charges up to the price, after raising the ceiling to it as far as something is free.
    pub(super) fn charge_covered(
        &self,
        attempt: &mut Attempt,
        account: &Account,
        price: &Price,
    ) -> Result<(), LedgerError> {
        self.cover(attempt, account, price.total)?;
        let level = price.total.min(attempt.ceiling());
        self.charge_to(attempt, attempt.period, price, level)
    }

    /// From `price` on a later period pays: with the slice that was held in it for this attempt, if there is one.
    fn enter_period(&self, attempt: &mut Attempt, period: i64, price: &Price) -> Result<(), LedgerError> {
        self.give_up(attempt, price);
        self.release_to(attempt, attempt.period, Nanocredits::ZERO)?;
        let amount = match attempt.state.next.take() {
            Some((next, amount)) if next == period => amount,
            Some((next, _)) => {
                self.release_to(attempt, next, Nanocredits::ZERO)?;
                Nanocredits::ZERO
            }
            None => Nanocredits::ZERO,
        };
        let version = attempt.newest().0;
        attempt.period = period;
        attempt.state.ceilings = vec![(version, attempt.state.accounted.total.saturating_add(amount))];
        Ok(())
    }

    fn measure_rate(&self, attempt: &mut Attempt) {
        let passed_us = self.now_us.saturating_sub(attempt.state.rate_since_us);
        let total = attempt.state.accounted.total;
        if passed_us >= RATE_WINDOW_MIN_US {
            let burned = i128::from(total.saturating_sub(attempt.state.rate_from).0);
            let rate = burned * 1_000_000 / i128::from(passed_us);
            attempt.state.rate = Nanocredits(i64::try_from(rate).unwrap_or(i64::MAX)).at_least_zero();
        }
        if !(0..RATE_WINDOW_US).contains(&passed_us) {
            (attempt.state.rate_since_us, attempt.state.rate_from) = (self.now_us, total);
        }
    }

    fn decide(&self, attempt: &mut Attempt, account: &Account) -> Result<Decision, LedgerError> {
        let stopped: bool =
            self.tx.query_row("SELECT stopped FROM job WHERE id = ?1", [&attempt.job], |row| row.get(0))?;
        if stopped {
            return Ok(Decision::Stop(StopReason::OperatorStop));
        }
        if attempt.period < account.period && attempt.state.next.is_none() {
            self.hold_slice(attempt, account.period, &self.free(account)?)?;
        }
        if attempt.period != account.period {
            // Its period is over. It may have burned more of it than it has said, so that what it holds of it stays held
            // until it says that it has entered the next one.
            if attempt.state.next.is_none() && attempt.state.waits {
                return Ok(Decision::Stop(StopReason::CreditsExhausted));
            }
            let lease = self.lease(attempt, account, lease::REPORT_SOON_MS)?;
            return Ok(Decision::Lease(lease));
        }
        let ask = self.ask(attempt, account)?;
        match lease::size(&ask) {
            Sized::Ceiling(ceiling) => {
                self.set_ceiling(attempt, account, ceiling)?;
                attempt.state.waits = false;
                Ok(Decision::Lease(self.lease(attempt, account, lease::report_in_ms(&ask))?))
            }
            Sized::Exhausted if self.settles_in_ms()? == 0 => Ok(Decision::Stop(StopReason::CreditsExhausted)),
            // After a restore nothing is given yet, which does not mean that nothing is left.
            Sized::Wait | Sized::Exhausted => {
                attempt.lease_until_us = self.now_us.saturating_add(ms_to_us(LEASE_MS));
                Ok(Decision::Wait { retry_in_ms: WAIT_MS })
            }
            Sized::JobLimit => Ok(Decision::Stop(StopReason::JobLimit)),
        }
    }

    fn ask(&self, attempt: &Attempt, account: &Account) -> Result<Ask, LedgerError> {
        let (mut live, mut silent, mut somebody_waits) = (1_u32, Nanocredits::ZERO, false);
        let (mut reclaimable, mut job_reclaimable) = (Nanocredits::ZERO, Nanocredits::ZERO);
        for other in self.unended(&account.user)?.iter().filter(|other| other.id != attempt.id) {
            let held = self.held(other, other.period)?;
            if !self.is_live(other) {
                silent = silent.saturating_add(held);
                continue;
            }
            live = live.saturating_add(1);
            let asked_lately = other.lease_until_us.saturating_sub(ms_to_us(LEASE_MS)) >= self.now_us - WAITS_US;
            if other.state.waits {
                somebody_waits |= asked_lately;
                continue;
            }
            let beyond = held.saturating_sub(other.minimum()).at_least_zero();
            reclaimable = reclaimable.saturating_add(beyond);
            if other.job == attempt.job {
                job_reclaimable = job_reclaimable.saturating_add(beyond);
            }
        }
        let left = self.balance(account)?.left.map_or(UNLIMITED, |left| left.saturating_sub(silent));
        Ok(Ask {
            price: attempt.state.accounted.total,
            ceiling: attempt.ceiling(),
            guard: attempt.guard(),
            minimum: attempt.minimum(),
            rate: attempt.state.rate,
            left,
            available: if self.settles_in_ms()? == 0 { sum(&self.free(account)?) } else { Nanocredits::ZERO },
            reclaimable,
            job_available: self.job_free(&attempt.job, Some(attempt))?,
            job_reclaimable,
            live,
            waiting: attempt.state.waits,
            somebody_waits,
        })
    }

    fn set_ceiling(&self, attempt: &mut Attempt, account: &Account, ceiling: Nanocredits) -> Result<(), LedgerError> {
        let more = ceiling.saturating_sub(attempt.ceiling());
        if more > Nanocredits::ZERO {
            self.hold(attempt, account.period, &self.free(account)?, more)?;
        }
        if ceiling != attempt.newest().1 {
            let version = self.next_version(attempt)?;
            attempt.state.ceilings.push((version, ceiling));
        }
        Ok(())
    }

    /// The lease as it stands, renewed; and where the period ends within it, a slice of the next one.
    pub(super) fn lease(
        &self,
        attempt: &mut Attempt,
        account: &Account,
        report_in_ms: u64,
    ) -> Result<Lease, LedgerError> {
        let (version, ceiling) = attempt.newest();
        let of_current = attempt.period == account.period;
        let ends_in_ms = if of_current { account.resets_in_ms(self.now_us) } else { 0 };
        let lasts_ms = LEASE_MS.min(ends_in_ms);
        if of_current && ends_in_ms < LEASE_MS && attempt.state.next.is_none() {
            self.hold_next(attempt, account)?;
        }
        let next = attempt.state.next.map(|(period, amount)| NextPeriod {
            period,
            starts_in_ms: ends_in_ms,
            amount,
            lasts_ms: LEASE_MS,
        });
        let until_ms = if next.is_some() { ends_in_ms.saturating_add(LEASE_MS) } else { lasts_ms };
        attempt.lease_until_us = self.now_us.saturating_add(ms_to_us(until_ms));
        let report_in_ms = report_in_ms.min(lasts_ms / 2);
        let last = self.last(attempt, account)?;
        Ok(Lease { version, ceiling, period: attempt.period, lasts_ms, report_in_ms, next, last })
    }

    /// Why the ceiling cannot be raised as things stand, if it cannot.
    fn last(&self, attempt: &Attempt, account: &Account) -> Result<Option<StopReason>, LedgerError> {
        Ok(if self.job_free(&attempt.job, Some(attempt))? == Nanocredits::ZERO {
            Some(StopReason::JobLimit)
        } else if sum(&self.free(account)?) == Nanocredits::ZERO {
            Some(StopReason::CreditsExhausted)
        } else {
            None
        })
    }

    fn hold_next(&self, attempt: &mut Attempt, account: &Account) -> Result<(), LedgerError> {
        let held = self.allowance_held(&account.user, account.ends)?;
        let free = account.next_limit().map_or(UNLIMITED, |limit| limit.saturating_sub(held).at_least_zero());
        self.ensure_period(account)?;
        self.hold_slice(attempt, account.ends, &[(crate::domain::book::Source::ALLOWANCE, free)])
    }

    /// A minimum slice of a later period, so that the attempt can go over to it.
    fn hold_slice(&self, attempt: &mut Attempt, period: i64, free: &[Part]) -> Result<(), LedgerError> {
        let amount = attempt.minimum();
        if self.settles_in_ms()? == 0 && sum(free) >= amount && self.job_free(&attempt.job, Some(attempt))? >= amount {
            self.hold(attempt, period, free, amount)?;
            attempt.state.next = Some((period, amount));
        }
        Ok(())
    }

    /// The account's burn over all attempts with a live lease.
    pub(super) fn burn_per_second(&self, account: &Account) -> Result<Nanocredits, LedgerError> {
        let attempts = self.unended(&account.user)?;
        let live = attempts.iter().filter(|attempt| self.is_live(attempt) && !attempt.state.waits);
        Ok(live.fold(Nanocredits::ZERO, |sum, attempt| sum.saturating_add(attempt.state.rate)))
    }

    /// Charges the final usage and releases every hold.
    pub(super) fn finish(&self, finish: &Finish) -> Result<FinishAnswer, LedgerError> {
        let mut attempt = self.attempt(finish.attempt)?.ok_or_else(|| super::epoch::never_opened(finish.attempt))?;
        let account = self.account_of(&attempt, finish.period)?;
        let again = attempt.ended_us.is_some();
        if again {
            self.correct(&mut attempt, &account, finish)?;
        } else {
            self.take_usage(&mut attempt, &account, &finish.usage, finish.period, finish.closed.as_ref())?;
            attempt.receipt = Some(finish.receipt.clone());
            self.end(&mut attempt, &account, finish.reason)?;
        }
        Ok(FinishAnswer {
            charged: attempt.state.charged,
            overshoot: attempt.state.overshoot,
            balance: self.balance(&account)?,
            again,
        })
    }

    /// Ends it: what no hold covered is given up, and all holds go back.
    pub(super) fn end(&self, attempt: &mut Attempt, account: &Account, reason: Reason) -> Result<(), LedgerError> {
        let price = attempt.state.rates.price(&attempt.state.usage);
        self.give_up(attempt, &price);
        self.release_to(attempt, attempt.period, Nanocredits::ZERO)?;
        if let Some((next, _)) = attempt.state.next.take() {
            self.release_to(attempt, next, Nanocredits::ZERO)?;
        }
        attempt.ended_us = Some(self.now_us);
        attempt.reason = Some(reason);
        attempt.chart(self.now_us);
        self.append(&self.note("finish", account, attempt, reason.as_str()))?;
        self.keep(attempt)
    }
}

/// Drops the ceilings that the attempt no longer obeys.
fn confirm(attempt: &mut Attempt, version: u64) {
    if attempt.state.ceilings.iter().any(|(known, _)| *known == version) {
        attempt.state.ceilings.retain(|(known, _)| *known >= version);
    }
}

pub(super) fn ms_to_us(ms: u64) -> i64 {
    i64::try_from(ms.saturating_mul(1_000)).unwrap_or(i64::MAX)
}
