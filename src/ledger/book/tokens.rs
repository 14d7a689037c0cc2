//! Tokens that are charged to a job itself: at once, or after the most that they may cost was set aside.

use uuid::Uuid;

use super::holds::Move;
use super::rows::{Account, Entry, Hold, Job, JobSums, Reservation};
use super::{Books, ms_to_us};
use crate::domain::book::{sum, take};
use crate::domain::rating::{Price, RateCard};
use crate::domain::units::Nanocredits;
use crate::domain::usage::Usage;
use crate::ledger::LedgerError;
use crate::ledger::job_name::JobKey;
use crate::ledger::protocol::StopReason;
use crate::ledger::views::{ChangeAnswer, Reserved};

/// Tokens to be paid.
struct Bill<'a> {
    count: u64,
    card: &'a RateCard,
    /// What was set aside for them.
    held: &'a [Hold],
    reservation: Option<Uuid>,
    by: &'a str,
}

impl Books<'_> {
    pub(super) fn charge_tokens(&mut self, job: &JobKey, count: u64, by: &str) -> Result<ChangeAnswer, LedgerError> {
        let (job, account) = self.job_and_account(job)?;
        let card = self.rate_card()?;
        self.pay(job, &account, &Bill { count, card: &card, held: &[], reservation: None, by })
    }

    /// Sets aside what `count` tokens can cost at most, or says why not.
    pub(super) fn reserve_tokens(
        &mut self,
        job: &JobKey,
        count: u64,
        lasts_ms: u64,
        id: Uuid,
        by: &str,
    ) -> Result<ChangeAnswer, LedgerError> {
        let (job, account) = self.job_and_account(job)?;
        if self.shelf.reservation(id)?.is_some() {
            return Err(LedgerError::Refused(format!("the reservation {id} is known already")));
        }
        let rates = self.rate_card()?;
        let amount = rates.tokens_at_most(count);
        let free = if self.settles_in_ms()? == 0 { self.free(&account)? } else { Vec::new() };
        let refused = if job.stopped || account.suspended {
            Some(StopReason::OperatorStop)
        } else if free_of(&job).is_some_and(|free| free < amount) {
            Some(StopReason::JobLimit)
        } else if sum(&free) < amount {
            Some(StopReason::CreditsExhausted)
        } else {
            None
        };
        if refused.is_some() {
            let entry = self.of_account("refuse", &account, by, &format!("up to {count} tokens, {amount} credits"));
            self.shelf.append(Entry { job: Some(job.key.id), ..entry });
            return Ok(ChangeAnswer { refused, ..self.answer(&account)? });
        }
        let mut holds = Vec::new();
        for (source, amount) in take(&free, amount) {
            self.move_in(&account.owner, account.period, source, Move { held: amount, ..Move::default() })?;
            holds.push(Hold { period: account.period, source, amount });
        }
        let entry = self.of_account("reserve", &account, by, &format!("up to {count} tokens, {amount} credits"));
        self.shelf.append(Entry { job: Some(job.key.id.clone()), attempt: Some(id), ..entry });
        let until_us = self.now_us.saturating_add(ms_to_us(lasts_ms));
        self.over_from(&account.owner, until_us);
        self.count_in_job(&job.key, &JobSums::default(), &JobSums::held(amount))?;
        let (tokens, of_job) = (count, job.key);
        let (open, settled_us, used) = (true, None, 0);
        self.shelf.put_reservation(Reservation {
            id,
            job: of_job,
            tokens,
            rates,
            until_us,
            holds,
            open,
            settled_us,
            used,
        });
        let reserved = Some(Reserved { reservation: id, held: amount, lasts_ms });
        Ok(ChangeAnswer { reserved, ..self.answer(&account)? })
    }

    /// Charges what was used of a reservation, and gives the rest of it back.
    pub(super) fn settle_tokens(
        &mut self,
        job: &JobKey,
        id: Uuid,
        count: u64,
        by: &str,
    ) -> Result<ChangeAnswer, LedgerError> {
        let (job, account) = self.job_and_account(job)?;
        let reservation = match self.shelf.reservation(id)? {
            Some(known) if known.job == job.key => known,
            Some(_) => return Err(no_reservation(&job, id)),
            None => self.forgotten_reservation(&job, id, count)?,
        };
        if reservation.settled_us.is_some() {
            let used = reservation.used;
            return Err(LedgerError::Refused(format!("the reservation {id} was settled before, at {used} tokens")));
        }
        let (card, held) = (&reservation.rates, reservation.holds.as_slice());
        let answer = self.pay(job, &account, &Bill { count, card, held, reservation: Some(id), by })?;
        let settled_us = Some(self.now_us);
        let over = Reservation { holds: Vec::new(), open: false, settled_us, used: count, ..reservation };
        self.shelf.put_reservation(over);
        Ok(answer)
    }

    /// One that a restore may have forgotten: nothing is held for it any more, and what was used is owed all the same.
    fn forgotten_reservation(&mut self, job: &Job, id: Uuid, tokens: u64) -> Result<Reservation, LedgerError> {
        if !self.may_have_forgotten()? {
            return Err(no_reservation(job, id));
        }
        let (rates, until_us, holds, open) = (self.rate_card()?, self.now_us, Vec::new(), false);
        let (job, settled_us, used) = (job.key.clone(), None, 0);
        Ok(Reservation { id, job, tokens, rates, until_us, holds, open, settled_us, used })
    }

    /// Its time is over, by the ledger's clock: what it held goes back. What is settled late is paid out of what is free, so
    /// that a clock which jumps can cost the platform tokens, and never an account more than it has.
    pub(super) fn expire(&mut self, id: Uuid) -> Result<(), LedgerError> {
        let found = self.shelf.reservation(id)?.filter(|found| found.open && found.until_us < self.now_us);
        let Some(mut reservation) = found else { return Ok(()) };
        let owner = reservation.job.owner.clone();
        let account = self.account(&owner)?;
        let held = self.give_back(&owner, &reservation.holds)?;
        self.pay_debt(&owner)?;
        self.count_in_job(&reservation.job, &JobSums::held(held), &JobSums::default())?;
        let entry = self.of_account("expire", &account, "ledger", &format!("up to {} tokens", reservation.tokens));
        self.shelf.append(Entry { job: Some(reservation.job.id.clone()), attempt: Some(id), ..entry });
        (reservation.holds, reservation.open) = (Vec::new(), false);
        self.shelf.put_reservation(reservation);
        Ok(())
    }

    fn give_back(&mut self, owner: &str, holds: &[Hold]) -> Result<Nanocredits, LedgerError> {
        for hold in holds {
            let held = Nanocredits::ZERO.saturating_sub(hold.amount);
            self.move_in(owner, hold.period, hold.source, Move { held, ..Move::default() })?;
        }
        Ok(Hold::sum(holds))
    }

    /// The job that is to be charged, and its account, after what was over has gone back.
    fn job_and_account(&mut self, job: &JobKey) -> Result<(Job, Account), LedgerError> {
        self.account(&job.owner)?;
        self.mark_silent(&job.owner)?;
        let missing = || LedgerError::Broken(format!("the books have no job {}", job.id));
        Ok((self.shelf.job(job)?.cloned().ok_or_else(missing)?, self.account(&job.owner)?))
    }

    /// Charges tokens: first out of what was set aside for them, then out of what is free; the rest is overshoot.
    fn pay(&mut self, mut job: Job, account: &Account, bill: &Bill<'_>) -> Result<ChangeAnswer, LedgerError> {
        let &Bill { count, card, held, reservation, by } = bill;
        let total = job.tokens.checked_add(count).filter(|total| i64::try_from(*total).is_ok());
        let total = total.ok_or_else(|| LedgerError::Refused(format!("{count} tokens are too many for one job")))?;
        // Priced on the job's total, so that rounding never accumulates; a dearer card does not reprice what was paid.
        let price_of = |tokens: u64| card.price(&Usage { tokens, ..Usage::default() }).total;
        let cost = price_of(total).saturating_sub(price_of(job.tokens)).at_least_zero();
        self.take_in_credits(&account.owner, cost, count)?;
        if job.limit.is_some() {
            job.sums.held = job.sums.held.saturating_sub(Hold::sum(held));
        }
        let mut left = cost;
        let mut parts = Vec::new();
        for hold in held {
            let part = left.min(hold.amount);
            left = left.saturating_sub(part);
            // In one step: what is free for a moment would pay what is owed.
            let by = Move { held: Nanocredits::ZERO.less(hold.amount)?, charged: part, ..Move::default() };
            self.move_in(&account.owner, hold.period, hold.source, by)?;
            parts.push((hold.period, hold.source, part));
        }
        let of_job = free_of(&job).map_or(left, |free| left.min(free.saturating_sub(cost.saturating_sub(left))));
        let free = self.free(account)?;
        for (source, part) in take(&free, of_job) {
            left = left.saturating_sub(part);
            self.move_in(&account.owner, account.period, source, Move { charged: part, ..Move::default() })?;
            parts.push((account.period, source, part));
        }
        parts.retain(|(_, _, part)| *part > Nanocredits::ZERO);
        if parts.is_empty() {
            // What could not be paid is told all the same.
            parts.push((account.period, crate::domain::book::Source::ALLOWANCE, Nanocredits::ZERO));
        }
        let mut tokens = count;
        for (period, source, amount) in parts {
            let day = self.day_of(period, &account.owner)?;
            let parts = Price { tokens: amount, total: amount, ..Price::default() };
            let entry = self.of_account("tokens", account, by, "");
            let (job, source, attempt) = (Some(job.key.id.clone()), source.0, reservation);
            self.post_use(Entry { period, day, source, amount, parts, tokens, job, attempt, ..entry })?;
            tokens = 0;
        }
        let charged = cost.saturating_sub(left);
        job.tokens = total;
        job.tokens_charged = job.tokens_charged.saturating_add(charged);
        job.tokens_overshoot = job.tokens_overshoot.saturating_add(left);
        self.shelf.put_job(job);
        Ok(ChangeAnswer { charged, overshoot: left, ..self.answer(account)? })
    }
}

fn no_reservation(job: &Job, id: Uuid) -> LedgerError {
    LedgerError::Missing(format!("the job {} has no reservation {id}", job.key.id))
}

/// What the job's own limit leaves free; `None` without one.
pub(super) fn free_of(job: &Job) -> Option<Nanocredits> {
    let used = job.sums.charged.saturating_add(job.sums.held).saturating_add(job.tokens_charged);
    job.limit.map(|limit| limit.saturating_sub(used).at_least_zero())
}
