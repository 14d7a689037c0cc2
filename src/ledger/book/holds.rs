//! Holds: credits set aside for an attempt, each with the source to which it goes back; and charges, which are paid out of
//! them.

use super::Books;
use super::alerts::Touched;
use super::rows::{Account, Attempt, Entry, Hold, Job, JobSums};
use crate::domain::book::{Part, Source, components, plus, sum, take};
use crate::domain::calendar::day_start;
use crate::domain::rating::{Price, VirtualTime};
use crate::domain::units::{Nanocredits, OutOfRange};
use crate::ledger::LedgerError;
use crate::ledger::job_name::JobKey;

/// What changes in a period's allowance or a grant.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Move {
    pub(super) held: Nanocredits,
    pub(super) charged: Nanocredits,
    pub(super) taken: Nanocredits,
}

impl Move {
    /// With this on top.
    fn onto(self, before: Self) -> Result<Self, OutOfRange> {
        Ok(Self {
            held: before.held.plus(self.held)?,
            charged: before.charged.plus(self.charged)?,
            taken: before.taken.plus(self.taken)?,
        })
    }

    /// What becomes free by it; less than zero where something is used.
    fn freed(self) -> Result<Nanocredits, OutOfRange> {
        Nanocredits::ZERO.less(self.held)?.less(self.charged)?.less(self.taken)
    }
}

impl Books<'_> {
    /// Adds to what is held of a source, charged to it and taken of it. What becomes free of an earlier period's allowance by that is
    /// carried over.
    pub(super) fn move_in(&mut self, owner: &str, period: i64, source: Source, by: Move) -> Result<(), LedgerError> {
        let freed = by.freed()?;
        if by.charged > Nanocredits::ZERO {
            self.touch(Touched::Spent(owner.to_owned()));
        }
        if source == Source::ALLOWANCE {
            let row = self.period(owner, period)?;
            let Move { held, charged, taken } =
                by.onto(Move { held: row.held, charged: row.charged, taken: row.taken })?;
            self.shelf.change_period(owner, period, |row| {
                (row.held, row.charged, row.taken) = (held, charged, taken);
            });
        } else {
            let missing = || LedgerError::Broken(format!("the books have no grant {} of {owner}", source.0));
            let row = self.shelf.grant(owner, source.0)?.ok_or_else(missing)?;
            let Move { held, charged, taken } =
                by.onto(Move { held: row.held, charged: row.charged, taken: row.taken })?;
            self.shelf.change_grant(owner, source.0, |row| {
                (row.held, row.charged, row.taken) = (held, charged, taken);
            });
        }
        if freed > Nanocredits::ZERO { self.use_freed(owner, (source, period), freed) } else { Ok(()) }
    }

    fn use_freed(
        &mut self,
        owner: &str,
        (source, period): (Source, i64),
        freed: Nanocredits,
    ) -> Result<(), LedgerError> {
        self.free_up(owner);
        let Some(account) = self.shelf.account(owner)?.filter(|account| account.carries_over).cloned() else {
            return Ok(());
        };
        if source != Source::ALLOWANCE || period >= account.period {
            return Ok(());
        }
        let row = self.period(owner, period)?;
        let rest = row.limit.map_or(Nanocredits::ZERO, |_| row.free());
        self.carry(&account, period, rest.min(freed))
    }

    /// Posts an entry of what was used, which counts in its period, whatever paid it.
    pub(super) fn post_use(&mut self, entry: Entry) -> Result<(), LedgerError> {
        let spent = self.period(&entry.owner, entry.period)?.spent.plus(entry.amount)?;
        self.shelf.change_period(&entry.owner, entry.period, |period| period.spent = spent);
        self.shelf.append(entry);
        Ok(())
    }

    /// Holds `amount` more, out of `free`, which must have it.
    pub(super) fn hold(
        &mut self,
        attempt: &mut Attempt,
        period: i64,
        free: &[Part],
        amount: Nanocredits,
    ) -> Result<(), LedgerError> {
        // In the order of `free`, which is the one in which holds are spent.
        for (source, part) in take(free, amount) {
            let known = attempt.holds.iter_mut().find(|hold| (hold.period, hold.source) == (period, source));
            match known {
                Some(hold) => hold.amount = hold.amount.saturating_add(part),
                None => attempt.holds.push(Hold { period, source, amount: part }),
            }
            self.move_in(&attempt.owner, period, source, Move { held: part, ..Move::default() })?;
        }
        self.sort_holds(attempt)
    }

    /// The allowance first, then grants as they expire.
    fn sort_holds(&mut self, attempt: &mut Attempt) -> Result<(), LedgerError> {
        if attempt.holds.len() < 2 {
            return Ok(());
        }
        let mut keyed = Vec::with_capacity(attempt.holds.len());
        for hold in &attempt.holds {
            let expires_s = match hold.source {
                Source::ALLOWANCE => None,
                Source(id) => self.shelf.grant(&attempt.owner, id)?.and_then(|grant| grant.expires_s),
            };
            let of_grant = hold.source != Source::ALLOWANCE;
            keyed.push(((of_grant, of_grant && expires_s.is_none(), expires_s, hold.source), *hold));
        }
        keyed.sort_by_key(|(key, _)| *key);
        attempt.holds = keyed.into_iter().map(|(_, hold)| hold).collect();
        Ok(())
    }

    /// Takes `part` out of a hold.
    fn reduce(
        &mut self,
        attempt: &mut Attempt,
        period: i64,
        source: Source,
        part: Nanocredits,
        charged: Nanocredits,
    ) -> Result<(), LedgerError> {
        for hold in attempt.holds.iter_mut().filter(|hold| (hold.period, hold.source) == (period, source)) {
            hold.amount = hold.amount.saturating_sub(part);
        }
        attempt.holds.retain(|hold| hold.amount > Nanocredits::ZERO);
        let held = Nanocredits::ZERO.saturating_sub(part);
        self.move_in(&attempt.owner, period, source, Move { held, charged, ..Move::default() })
    }

    /// Gives back what is held beyond `keep`, the last source first.
    pub(super) fn release_to(
        &mut self,
        attempt: &mut Attempt,
        period: i64,
        keep: Nanocredits,
    ) -> Result<(), LedgerError> {
        let mut holds = attempt.held_parts(period);
        let too_much = sum(&holds).saturating_sub(keep.at_least_zero());
        holds.reverse();
        for (source, part) in take(&holds, too_much) {
            self.reduce(attempt, period, source, part, Nanocredits::ZERO)?;
        }
        Ok(())
    }

    /// Charges an attempt up to the cumulative price `level`, out of what it holds in `period`.
    pub(super) fn charge_to(
        &mut self,
        attempt: &mut Attempt,
        period: i64,
        price: &Price,
        level: Nanocredits,
    ) -> Result<(), LedgerError> {
        let wanted = level.saturating_sub(attempt.accounted.total);
        if wanted <= Nanocredits::ZERO {
            return Ok(());
        }
        let parts = take(&attempt.held_parts(period), wanted);
        let mut left = components(&attempt.accounted, price, sum(&parts));
        attempt.accounted = plus(&attempt.accounted, &left);
        attempt.charged = plus(&attempt.charged, &left);
        let day = self.day_of(period, &attempt.owner)?;
        let (mut time, mut tokens) = (VirtualTime::default(), 0);
        if !parts.is_empty() {
            (time, tokens) = unposted(attempt);
        }
        for (source, amount) in parts {
            self.reduce(attempt, period, source, amount, amount)?;
            let parts = cut(&mut left, amount);
            let source = source.0;
            self.post_use(Entry { source, amount, parts, time, tokens, ..charge(attempt, "charge", period, day) })?;
            (time, tokens) = (VirtualTime::default(), 0);
        }
        Ok(())
    }

    /// What was used late and no source can pay is owed, as far as the job's own limit lets it cost anything.
    pub(super) fn owe_late(
        &mut self,
        attempt: &mut Attempt,
        account: &Account,
        price: &Price,
    ) -> Result<(), LedgerError> {
        let rest = price.total.saturating_sub(attempt.accounted.total);
        if attempt.period >= account.period || rest <= Nanocredits::ZERO {
            return Ok(());
        }
        let amount = rest.min(self.job_free(attempt)?);
        if amount <= Nanocredits::ZERO {
            return Ok(());
        }
        let parts = components(&attempt.accounted, price, amount);
        attempt.accounted = plus(&attempt.accounted, &parts);
        attempt.charged = plus(&attempt.charged, &parts);
        let day = self.day_of(attempt.period, &attempt.owner)?;
        let (time, tokens) = unposted(attempt);
        let source = Source::DEBT.0;
        self.post_use(Entry { source, amount, parts, time, tokens, ..charge(attempt, "charge", attempt.period, day) })?;
        self.change_debt(attempt, account, amount, "used in an earlier period, and paid by nothing")
    }

    /// What an attempt used late is owed, or no longer.
    pub(super) fn change_debt(
        &mut self,
        attempt: &Attempt,
        account: &Account,
        amount: Nanocredits,
        why: &str,
    ) -> Result<(), LedgerError> {
        self.owe(&attempt.owner, amount)?;
        self.correct_period(account, Nanocredits::ZERO.less(amount)?)?;
        let entry = self.of_account("debt", account, "ledger", why);
        let (job, attempt_id) = (Some(attempt.job.clone()), Some(attempt.id));
        self.shelf.append(Entry { source: Source::DEBT.0, amount, job, attempt: attempt_id, ..entry });
        self.pay_debt(&attempt.owner)
    }

    /// The UTC day of what was burned in `period` and is posted now: today, but not past the period.
    pub(super) fn day_of(&mut self, period: i64, owner: &str) -> Result<i64, LedgerError> {
        let ends = self.period(owner, period)?.ends;
        Ok(day_start(self.now_s().clamp(period, ends.saturating_sub(1).max(period))))
    }

    /// Raises an attempt's ceiling to cover `level` as far as something is free.
    pub(super) fn cover(
        &mut self,
        attempt: &mut Attempt,
        account: &Account,
        level: Nanocredits,
    ) -> Result<(), LedgerError> {
        let ceiling = attempt.ceiling();
        if level <= ceiling {
            return Ok(());
        }
        let free = self.free_in(account, attempt.period)?;
        let job_free = self.job_free(attempt)?;
        let more = level.saturating_sub(ceiling).min(sum(&free)).min(job_free.at_least_zero());
        if more > Nanocredits::ZERO {
            self.hold(attempt, attempt.period, &free, more)?;
            let version = self.next_version(attempt)?;
            attempt.ceilings.push((version, ceiling.saturating_add(more)));
        }
        Ok(())
    }

    /// Writes an attempt back, and what it adds to the sums of its account and its job.
    pub(super) fn keep(&mut self, attempt: Attempt) -> Result<(), LedgerError> {
        let before = self.shelf.kept(attempt.id);
        let (account_before, job_before) =
            before.map(|before| (before.account_sums(), before.job_sums())).unwrap_or_default();
        let (account_after, job_after) = (attempt.account_sums(), attempt.job_sums());
        if account_before != account_after {
            let sums = self.shelf.account(&attempt.owner)?.map(|account| account.sums).unwrap_or_default();
            let sums = sums.exchanged(&account_before, &account_after)?;
            self.shelf.change_account(&attempt.owner, |account| account.sums = sums);
        }
        let has_limit = |job: &Job| job.limit.is_some();
        if job_before != job_after && self.shelf.job_of(&attempt)?.is_some_and(has_limit) {
            self.count_in_job(&attempt.job_key(), &job_before, &job_after)?;
        }
        self.shelf.put_attempt(attempt);
        Ok(())
    }

    /// Counts what changed in an attempt of a job, or is set aside for its tokens, where the job has a limit of its own:
    /// nobody asks for the sums of others.
    pub(super) fn count_in_job(&mut self, job: &JobKey, before: &JobSums, after: &JobSums) -> Result<(), LedgerError> {
        if before == after {
            return Ok(());
        }
        if let Some(sums) = self.shelf.job(job)?.filter(|job| job.limit.is_some()).map(|job| job.sums) {
            let sums = sums.exchanged(before, after)?;
            self.shelf.change_job(job, |job| job.sums = sums);
        }
        Ok(())
    }
}

/// An entry of an attempt's usage.
pub(super) fn charge(attempt: &Attempt, kind: &'static str, period: i64, day: i64) -> Entry {
    Entry {
        kind,
        owner: attempt.owner.clone(),
        period,
        day,
        job: Some(attempt.job.clone()),
        attempt: Some(attempt.id),
        by: "meter".to_owned(),
        ..Entry::default()
    }
}

/// Virtual time and tokens that no entry has told yet; told after this.
pub(super) fn unposted(attempt: &mut Attempt) -> (VirtualTime, u64) {
    let now = attempt.rates.virtual_time(&attempt.usage);
    let before = std::mem::replace(&mut attempt.accounted_time, now);
    let cpu_seconds = now.cpu_seconds.saturating_sub(before.cpu_seconds);
    let gpu_seconds = now.gpu_seconds.saturating_sub(before.gpu_seconds);
    let tokens = attempt.usage.tokens.saturating_sub(attempt.told_tokens);
    attempt.told_tokens = attempt.usage.tokens;
    (VirtualTime { cpu_seconds, gpu_seconds, total_seconds: cpu_seconds.saturating_add(gpu_seconds) }, tokens)
}

/// What could not be covered is given up: reported, never charged.
pub(super) fn give_up(attempt: &mut Attempt, price: &Price) {
    let rest = price.total.saturating_sub(attempt.accounted.total).at_least_zero();
    let parts = components(&attempt.accounted, price, rest);
    attempt.accounted = plus(&attempt.accounted, &parts);
    attempt.overshoot = attempt.overshoot.saturating_add(rest);
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
