//! Attempts: charged as they report, told what they may do, and finished.

use uuid::Uuid;

use super::alerts::Touched;
use super::balance::spendable;
use super::holds::give_up;
use super::rows::{Account, Attempt};
use super::{Books, Outcome, ms_to_us};
use crate::domain::book::{Part, UNLIMITED, sum};
use crate::domain::lease::{self, Ask, Sized, WAIT_MS};
use crate::domain::rating::Price;
use crate::domain::units::Nanocredits;
use crate::domain::usage::Usage;
use crate::ledger::LedgerError;
use crate::ledger::attempt_secret::AttemptSecret;
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
    /// What the job's own limit leaves free for this attempt, which may have changed since it was kept;
    /// [`UNLIMITED`] without one.
    pub(super) fn job_free(&mut self, attempt: &Attempt) -> Result<Nanocredits, LedgerError> {
        let missing = || LedgerError::Broken(format!("the books have no job {}", attempt.job));
        let job = self.shelf.job_of(attempt)?.ok_or_else(missing)?;
        let Some(limit) = job.limit else { return Ok(UNLIMITED) };
        let (sums, tokens) = (job.sums, job.tokens_charged);
        let kept = self.shelf.kept(attempt.id).map(Attempt::job_sums).unwrap_or_default();
        let sums = sums.exchanged(&kept, &attempt.job_sums())?;
        let used = sums.charged.saturating_add(sums.held).saturating_add(tokens);
        Ok(limit.saturating_sub(used).at_least_zero())
    }

    /// To who may not go on with it, it was never opened. Its secret is asked for as well.
    fn attempt_to_go_on_with(&mut self, id: Uuid) -> Result<Attempt, LedgerError> {
        let found = self.shelf.attempt(id)?;
        let found = found.filter(|attempt| self.asker.may_go_on_with(&attempt.owner, &attempt.principal));
        found.ok_or_else(|| super::epoch::never_opened(id))
    }

    /// The same for its last word.
    fn attempt_to_finish(&mut self, finish: &Finish) -> Result<Attempt, LedgerError> {
        let shown = finish.secret.as_ref().map(AttemptSecret::hash);
        let found = self.shelf.attempt(finish.attempt)?.filter(|attempt| {
            let knows_secret = shown.is_some() && attempt.secret == shown;
            self.asker.may_finish(&attempt.owner, &attempt.principal, knows_secret)
        });
        found.ok_or_else(|| super::epoch::never_opened(finish.attempt))
    }

    /// Charges and renews.
    pub(super) fn report(&mut self, report: &Report) -> Result<Outcome, LedgerError> {
        let mut attempt = self.attempt_to_go_on_with(report.attempt)?;
        attempt.hear(report.secret.as_ref())?;
        let account = self.account_of(&attempt, report.period)?;
        if attempt.ended_us.is_some() {
            let decision = Decision::Stop(StopReason::OperatorStop);
            let balance = self.balance(&account)?;
            let answer = ReportAnswer { seq: report.seq, balance, burn_per_second: Nanocredits::ZERO, decision };
            return Ok(Outcome::Reported { answer, owner: attempt.owner });
        }
        let newer = report.seq > attempt.seq;
        if newer {
            attempt.seq = report.seq;
            let pace = report.resources.pace(&attempt.rates);
            // By the faster of both: nobody knows when it became another.
            attempt.pace.cpus_ppm = attempt.pace.cpus_ppm.max(pace.cpus_ppm);
            attempt.grow(self.now_us);
            attempt.pace = pace;
            confirm(&mut attempt, report.ceiling_version);
            self.remember_ceiling(&mut attempt, &account, report)?;
        }
        self.take_usage(&mut attempt, &account, &report.usage, report.period, report.closed.as_ref())?;
        self.measure_rate(&mut attempt);
        // The same report again, as a service asks it that keeps it waiting, waits as well.
        attempt.waits = report.seq >= attempt.seq && report.waiting;
        self.mark_silent(&account.owner)?;
        let decision = self.decide(&mut attempt, &account)?;
        let balance = self.balance(&account)?;
        let owner = attempt.owner.clone();
        self.keep(attempt)?;
        let burn_per_second = self.shelf.account(&owner)?.map(|account| account.sums.rate).unwrap_or_default();
        let answer = ReportAnswer { seq: report.seq, balance, burn_per_second, decision };
        Ok(Outcome::Reported { answer, owner })
    }

    /// Merges a usage, closes a period that ended, and charges what the ceiling covers.
    fn take_usage(
        &mut self,
        attempt: &mut Attempt,
        account: &Account,
        usage: &Usage,
        period: i64,
        closed: Option<&ClosedPeriod>,
    ) -> Result<(), LedgerError> {
        // A period that a clock which was ahead has left in the books is nobody's to enter.
        let may_enter = period > attempt.period && period <= account.period;
        let closed = closed.filter(|closed| closed.period == attempt.period && may_enter);
        if let Some(closed) = closed
            && self.has_period(&attempt.owner, period)?
        {
            let believed = attempt.believed(&closed.usage);
            self.take_in(attempt, &believed)?;
            let price = attempt.rates.price(&attempt.usage);
            self.charge_covered(attempt, account, &price)?;
            self.enter_period(attempt, period, &price)?;
        }
        let believed = attempt.believed(usage);
        self.take_in(attempt, &believed)?;
        let price = attempt.rates.price(&attempt.usage);
        self.charge_covered(attempt, account, &price)?;
        let unburned = attempt.ceiling().saturating_sub(attempt.accounted.total);
        self.release_to(attempt, attempt.period, unburned)?;
        self.pay_debt(&attempt.owner)
    }

    /// Charges up to the price: out of what is held, a ceiling that was lowered or not, and then of what is free.
    pub(super) fn charge_covered(
        &mut self,
        attempt: &mut Attempt,
        account: &Account,
        price: &Price,
    ) -> Result<(), LedgerError> {
        let held = attempt.accounted.total.plus(attempt.held(attempt.period))?;
        self.charge_to(attempt, attempt.period, price, price.total.min(held))?;
        if attempt.accounted.total > attempt.ceiling() {
            let version = self.next_version(attempt)?;
            attempt.ceilings.push((version, attempt.accounted.total));
        }
        self.cover(attempt, account, price.total)?;
        let level = price.total.min(attempt.ceiling());
        self.charge_to(attempt, attempt.period, price, level)?;
        self.owe_late(attempt, account, price)
    }

    /// From `price` on a later period pays: with the slice that was held in it for this attempt, if there is one.
    fn enter_period(&mut self, attempt: &mut Attempt, period: i64, price: &Price) -> Result<(), LedgerError> {
        give_up(attempt, price);
        self.release_to(attempt, attempt.period, Nanocredits::ZERO)?;
        let amount = match attempt.next.take() {
            Some((next, amount)) if next == period => amount,
            Some((next, _)) => {
                self.release_to(attempt, next, Nanocredits::ZERO)?;
                Nanocredits::ZERO
            }
            None => Nanocredits::ZERO,
        };
        let version = attempt.newest().0;
        attempt.period = period;
        attempt.ceilings = vec![(version, attempt.accounted.total.saturating_add(amount))];
        self.pay_debt(&attempt.owner)
    }

    fn measure_rate(&self, attempt: &mut Attempt) {
        let passed_us = self.now_us.saturating_sub(attempt.rate_since_us);
        let total = attempt.accounted.total;
        if passed_us >= RATE_WINDOW_MIN_US {
            let burned = i128::from(total.saturating_sub(attempt.rate_from).0);
            let rate = burned * 1_000_000 / i128::from(passed_us);
            attempt.rate = Nanocredits(i64::try_from(rate).unwrap_or(i64::MAX)).at_least_zero();
        }
        if !(0..RATE_WINDOW_US).contains(&passed_us) {
            (attempt.rate_since_us, attempt.rate_from) = (self.now_us, total);
        }
    }

    fn decide(&mut self, attempt: &mut Attempt, account: &Account) -> Result<Decision, LedgerError> {
        if account.suspended || self.shelf.job_of(attempt)?.is_some_and(|job| job.stopped) {
            return Ok(Decision::Stop(StopReason::OperatorStop));
        }
        if attempt.period < account.period && attempt.next.is_none() {
            let free = self.free(account)?;
            self.hold_slice(attempt, account.period, &free)?;
        }
        if attempt.period != account.period {
            // Its period is over. It may have burned more of it than it has said, so that what it holds of it stays held
            // until it says that it has entered the next one.
            if attempt.next.is_none() && attempt.waits {
                return Ok(Decision::Stop(StopReason::CreditsExhausted));
            }
            return Ok(Decision::Lease(self.lease(attempt, account, lease::REPORT_SOON_MS)?));
        }
        let ask = self.ask(attempt, account)?;
        match lease::size(&ask) {
            Sized::Ceiling(ceiling) => {
                self.set_ceiling(attempt, account, ceiling)?;
                attempt.waits = false;
                Ok(Decision::Lease(self.lease(attempt, account, lease::report_in_ms(&ask))?))
            }
            Sized::Exhausted if self.settles_in_ms()? == 0 => {
                self.touch(Touched::Exhausted(attempt.owner.clone()));
                Ok(Decision::Stop(StopReason::CreditsExhausted))
            }
            // After a restore nothing is given yet, which does not mean that nothing is left.
            Sized::Wait | Sized::Exhausted => {
                let lease_ms = self.lease_ms()?;
                self.renew(attempt, lease_ms)?;
                let waits_until_us = self.now_us.saturating_add(WAITS_US);
                self.shelf.change_account(&attempt.owner, |account| account.sums.waits_until_us = waits_until_us);
                Ok(Decision::Wait { retry_in_ms: WAIT_MS })
            }
            Sized::JobLimit => Ok(Decision::Stop(StopReason::JobLimit)),
        }
    }

    /// What the rules look at. The sums of account and job hold this attempt as it was kept last.
    fn ask(&mut self, attempt: &Attempt, account: &Account) -> Result<Ask, LedgerError> {
        let kept = self.shelf.kept(attempt.id).map(|kept| (kept.account_sums(), kept.job_sums()));
        let (of_account, of_job) = kept.unwrap_or_default();
        let sums = self.shelf.account(&attempt.owner)?.map(|account| account.sums).unwrap_or_default();
        let job = self.shelf.job_of(attempt)?.filter(|job| job.limit.is_some()).map(|job| job.sums).unwrap_or_default();
        let silent = sums.silent.saturating_sub(of_account.silent);
        let left = self.snapshot(account)?.left.map_or(UNLIMITED, |left| left.saturating_sub(silent));
        let available = if self.settles_in_ms()? == 0 { sum(&self.free(account)?) } else { Nanocredits::ZERO };
        Ok(Ask {
            price: attempt.accounted.total,
            ceiling: attempt.ceiling(),
            guard: attempt.guard(),
            minimum: attempt.minimum(),
            rate: attempt.rate,
            lease_ms: self.lease_ms()?,
            left,
            available,
            reclaimable: sums.beyond.saturating_sub(of_account.beyond).at_least_zero(),
            job_available: self.job_free(attempt)?,
            job_reclaimable: job.beyond.saturating_sub(of_job.beyond).at_least_zero(),
            live: u32::try_from(sums.live - of_account.live + 1).unwrap_or(1).max(1),
            waiting: attempt.waits,
            somebody_waits: sums.waits_until_us > self.now_us,
        })
    }

    fn set_ceiling(
        &mut self,
        attempt: &mut Attempt,
        account: &Account,
        ceiling: Nanocredits,
    ) -> Result<(), LedgerError> {
        let more = ceiling.saturating_sub(attempt.ceiling());
        if more > Nanocredits::ZERO {
            let free = self.free(account)?;
            self.hold(attempt, account.period, &free, more)?;
        }
        if ceiling != attempt.newest().1 {
            let version = self.next_version(attempt)?;
            attempt.ceilings.push((version, ceiling));
        }
        Ok(())
    }

    /// A lease that was given before leases became shorter may be all that its sidecar knows: it counts to its end.
    fn renew(&mut self, attempt: &mut Attempt, lasts_ms: u64) -> Result<(), LedgerError> {
        let until_us = self.now_us.saturating_add(ms_to_us(lasts_ms));
        let longest_ms = self.longest_lease_ms()?;
        let is_longer = longest_ms > self.lease_ms()?;
        let latest_us = self.now_us + 2 * ms_to_us(longest_ms);
        let given_us = Some(attempt.lease_until_us).filter(|given_us| is_longer && *given_us <= latest_us);
        let until_us = given_us.map_or(until_us, |given_us| given_us.max(until_us));
        (attempt.lease_until_us, attempt.live) = (until_us, true);
        self.over_from(&attempt.owner, until_us);
        Ok(())
    }

    /// The lease as it stands, renewed; and where the period ends within it, a slice of the next one.
    pub(super) fn lease(
        &mut self,
        attempt: &mut Attempt,
        account: &Account,
        report_in_ms: u64,
    ) -> Result<Lease, LedgerError> {
        let (version, ceiling) = attempt.newest();
        let of_current = attempt.period == account.period;
        let ends_in_ms = if of_current { account.resets_in_ms(self.now_us) } else { 0 };
        let lease_ms = self.lease_ms()?;
        let lasts_ms = lease_ms.min(ends_in_ms);
        if of_current && ends_in_ms < lease_ms && attempt.next.is_none() {
            self.hold_next(attempt, account)?;
        }
        let next = attempt.next.map(|(period, amount)| NextPeriod {
            period,
            starts_in_ms: ends_in_ms,
            amount,
            lasts_ms: lease_ms,
        });
        self.renew(attempt, if next.is_some() { ends_in_ms.saturating_add(lease_ms) } else { lasts_ms })?;
        let report_in_ms = report_in_ms.min(lasts_ms / 2);
        let last = self.last(attempt, account)?;
        let unbounded = self.is_unbounded(attempt, account)?;
        Ok(Lease { version, ceiling, period: attempt.period, lasts_ms, report_in_ms, next, last, unbounded })
    }

    /// Whether no limit stands behind what it burns, now or in a period that is to come.
    fn is_unbounded(&mut self, attempt: &Attempt, account: &Account) -> Result<bool, LedgerError> {
        let has_limit = account.limit.is_some() || account.next.is_some_and(|(limit, _)| limit.is_some());
        let of_periods =
            attempt.period != account.period || self.period(&account.owner, account.period)?.limit.is_some();
        Ok(!has_limit && !of_periods && self.shelf.job_of(attempt)?.is_some_and(|job| job.limit.is_none()))
    }

    /// Why the ceiling cannot be raised as things stand, if it cannot.
    fn last(&mut self, attempt: &Attempt, account: &Account) -> Result<Option<StopReason>, LedgerError> {
        Ok(if self.job_free(attempt)? == Nanocredits::ZERO {
            Some(StopReason::JobLimit)
        } else if sum(&self.free(account)?) == Nanocredits::ZERO {
            Some(StopReason::CreditsExhausted)
        } else {
            None
        })
    }

    fn hold_next(&mut self, attempt: &mut Attempt, account: &Account) -> Result<(), LedgerError> {
        self.ensure_next_period(account)?;
        let debt = self.shelf.account(&account.owner)?.map(|account| account.debt).unwrap_or_default();
        // What is owed then is paid first.
        let free = self.period(&account.owner, account.ends)?.free().less(debt)?.at_least_zero();
        let parts = spendable(free, &self.grants(&account.owner)?, account.ends);
        self.hold_slice(attempt, account.ends, &parts)
    }

    /// A minimum slice of a later period, so that the attempt can go over to it.
    fn hold_slice(&mut self, attempt: &mut Attempt, period: i64, free: &[Part]) -> Result<(), LedgerError> {
        let amount = attempt.minimum();
        if self.settles_in_ms()? == 0 && sum(free) >= amount && self.job_free(attempt)? >= amount {
            self.hold(attempt, period, free, amount)?;
            attempt.next = Some((period, amount));
        }
        Ok(())
    }

    /// Charges the final usage and releases every hold.
    pub(super) fn finish(&mut self, finish: &Finish) -> Result<FinishAnswer, LedgerError> {
        let mut attempt = self.attempt_to_finish(finish)?;
        attempt.hear(finish.secret.as_ref())?;
        let account = self.account_of(&attempt, finish.period)?;
        let again = attempt.ended_us.is_some();
        if again {
            self.correct(&mut attempt, &account, finish)?;
        } else {
            attempt.grow(self.now_us);
            self.take_usage(&mut attempt, &account, &finish.usage, finish.period, finish.closed.as_ref())?;
            self.end(&mut attempt, &account, finish.reason)?;
            self.note_unbelieved(&attempt, &account, &finish.usage);
            attempt.told = true;
            self.shelf.put_receipt(attempt.id, finish.receipt.clone());
        }
        let (charged, overshoot) = (attempt.charged, attempt.overshoot);
        self.keep(attempt)?;
        Ok(FinishAnswer { charged, overshoot, balance: self.balance(&account)?, again })
    }

    /// What its resources cannot have done is charged to nobody, and said.
    fn note_unbelieved(&mut self, attempt: &Attempt, account: &Account, said: &Usage) {
        let (said, believed) = (said.cpu_used_seconds, attempt.usage.cpu_used_seconds);
        if said > believed {
            let why = format!("it said {said} s of CPU time, and its resources can have used {believed} s");
            self.note("unbelieved", account, attempt, "ledger", &why);
        }
    }

    /// Ends it: what no hold covered is given up, and all holds go back.
    pub(super) fn end(&mut self, attempt: &mut Attempt, account: &Account, reason: Reason) -> Result<(), LedgerError> {
        let price = attempt.rates.price(&attempt.usage);
        self.owe_late(attempt, account, &price)?;
        give_up(attempt, &price);
        self.release_to(attempt, attempt.period, Nanocredits::ZERO)?;
        if let Some((next, _)) = attempt.next.take() {
            self.release_to(attempt, next, Nanocredits::ZERO)?;
        }
        self.pay_debt(&attempt.owner)?;
        attempt.ended_us = Some(self.now_us);
        attempt.reason = Some(reason);
        attempt.live = false;
        self.note("finish", account, attempt, "meter", reason.as_str());
        Ok(())
    }
}

/// Drops the ceilings that the attempt no longer obeys.
fn confirm(attempt: &mut Attempt, version: u64) {
    if attempt.ceilings.iter().any(|(known, _)| *known == version) {
        attempt.ceilings.retain(|(known, _)| *known >= version);
    }
}
