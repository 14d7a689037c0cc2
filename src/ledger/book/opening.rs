//! Opening: an attempt joins its job and gets its first lease, or a refusal, which is an entry too.

use std::collections::BTreeMap;

use super::Books;
use super::alerts::{Touched, reached};
use super::rows::{Account, Attempt, Entry, Job, JobSums};
use super::tokens::free_of;
use crate::domain::book::{UNLIMITED, sum};
use crate::domain::capacity::Capacity;
use crate::domain::lease;
use crate::domain::rating::RateCard;
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::attempt_secret::AttemptSecret;
use crate::ledger::job_name::JobKey;
use crate::ledger::protocol::{OpenAnswer, OpenRequest, Resources, StopReason};

const ONE_CPU_PPM: u64 = 1_000_000;

impl Books<'_> {
    /// Opens an attempt, or says why not.
    pub(super) fn open(&mut self, request: &OpenRequest) -> Result<OpenAnswer, LedgerError> {
        let identity = &request.identity;
        if !self.asker.may_open_for(&identity.user) {
            return Err(LedgerError::Missing(format!("no account {:?} is known to this key", identity.user)));
        }
        if let Some(attempt) = self.shelf.attempt(identity.attempt)? {
            return self.opened_again(request, attempt);
        }
        if request.resume.is_none() {
            self.admit(&identity.user)?;
        }
        let account = self.tidy(&identity.user)?;
        if let Some(resume) = &request.resume {
            return self.reopen(request, resume, &account);
        }
        if let retry_in_ms @ 1.. = self.settles_in_ms()? {
            return Ok(OpenAnswer::Wait { retry_in_ms });
        }
        let job = self.joined_job(request)?;
        let rates = self.rate_card()?;
        let mut attempt = self.new_attempt(request, &account, rates);
        let (free, job_free) = (self.free(&account)?, free_of(&job).unwrap_or(UNLIMITED));
        let minimum = attempt.minimum();
        let needed = job.limit.map_or(minimum, |limit| minimum.min(limit));
        let reason = if job.stopped || account.suspended {
            Some(StopReason::OperatorStop)
        } else if job_free < needed {
            Some(StopReason::JobLimit)
        } else if sum(&free) < needed {
            Some(StopReason::CreditsExhausted)
        } else {
            None
        };
        if reason == Some(StopReason::CreditsExhausted) && self.is_near_its_end(&account, request, needed)? {
            self.touch(Touched::Exhausted(account.owner.clone()));
        }
        if let Some(reason) = reason {
            return self.refuse(&account, request, reason);
        }
        let ceiling = lease::raise(minimum, sum(&free), job_free, minimum.min(needed));
        // What the rest rule adds may not empty an account for one attempt that has burned nothing yet.
        let ceiling = ceiling.min(minimum.saturating_add(minimum));
        // From here on nothing is refused, which would leave a job that never ran.
        self.shelf.put_job(job);
        let version = self.next_version(&attempt)?;
        attempt.ceilings.push((version, ceiling));
        self.hold(&mut attempt, account.period, &free, ceiling)?;
        self.opened(request, attempt, &account, "", false)
    }

    /// Whether what is left is too little, and much was spent or not even one CPU could begin. That a wide job cannot does not exhaust an
    /// account.
    fn is_near_its_end(
        &mut self,
        account: &Account,
        request: &OpenRequest,
        needed: Nanocredits,
    ) -> Result<bool, LedgerError> {
        let balance = self.balance(account)?;
        let (Some(left), Some(limit)) = (balance.left, balance.limit) else { return Ok(false) };
        let stop_us = request.resources.stop_us;
        let resources = Resources { cpus_ppm: ONE_CPU_PPM, gpus: 0, gpu_models: BTreeMap::new(), stop_us };
        let rates = self.rate_card()?;
        let narrow = self.new_attempt(&OpenRequest { resources, ..request.clone() }, account, rates);
        let spent = limit.0.checked_sub(left.0).map(Nanocredits);
        let is_spent = spent.is_some_and(|spent| reached(spent, limit) > 0);
        Ok(left < needed && (is_spent || left < narrow.minimum()))
    }

    /// Keeps what was opened, and says so.
    pub(super) fn opened(
        &mut self,
        request: &OpenRequest,
        mut attempt: Attempt,
        account: &Account,
        why: &str,
        again: bool,
    ) -> Result<OpenAnswer, LedgerError> {
        let lease = self.lease(&mut attempt, account, lease::REPORT_SOON_MS)?;
        self.note("open", account, &attempt, "meter", why);
        self.shelf.put_identity(request.identity.clone());
        let rates = attempt.rates.clone();
        self.keep(attempt)?;
        Ok(OpenAnswer::Opened { rates, lease, balance: self.balance(account)?, again })
    }

    fn opened_again(&mut self, request: &OpenRequest, mut attempt: Attempt) -> Result<OpenAnswer, LedgerError> {
        let is_its = attempt.owner == request.identity.user && attempt.job == request.identity.job;
        if !is_its || !self.asker.may_go_on_with(&attempt.owner, &attempt.principal) {
            return Err(match request.resume {
                Some(_) => super::epoch::never_opened(attempt.id),
                None => LedgerError::Refused(format!("the attempt {} is another job's", attempt.id)),
            });
        }
        attempt.hear(request.secret.as_ref())?;
        if attempt.ended_us.is_some() {
            return Err(LedgerError::Refused(format!("the attempt {} has ended", attempt.id)));
        }
        let account = self.account(&attempt.owner)?;
        if account.suspended || self.shelf.job_of(&attempt)?.is_some_and(|job| job.stopped) {
            return self.refuse(&account, request, StopReason::OperatorStop);
        }
        let lease = self.lease(&mut attempt, &account, lease::REPORT_SOON_MS)?;
        let rates = attempt.rates.clone();
        self.keep(attempt)?;
        Ok(OpenAnswer::Opened { rates, lease, balance: self.balance(&account)?, again: true })
    }

    /// The asker's job that an attempt is to join, as it will be with it; a new one where there is none. It is not kept yet.
    pub(super) fn joined_job(&mut self, request: &OpenRequest) -> Result<Job, LedgerError> {
        let identity = &request.identity;
        let (owner, principal) = (identity.user.clone(), self.asker.principal.clone());
        let key = JobKey { owner, principal, id: identity.job.clone() };
        Ok(match self.shelf.job(&key)?.cloned() {
            // The newest word counts: a requeue may come with a higher limit, or with the first one.
            Some(job) => {
                let is_first = job.limit.is_none() && request.limit.is_some();
                let sums = if is_first { self.shelf.sums_of(&job)? } else { job.sums };
                Job { limit: request.limit.or(job.limit), sums, ..job }
            }
            None => Job {
                key,
                kind: identity.kind,
                name: identity.name.clone(),
                limit: request.limit,
                started_us: self.now_us,
                stopped: false,
                tokens: 0,
                tokens_charged: Nanocredits::ZERO,
                tokens_overshoot: Nanocredits::ZERO,
                sums: JobSums::default(),
            },
        })
    }

    pub(super) fn rate_card(&mut self) -> Result<RateCard, LedgerError> {
        self.shelf.newest_rates()
    }

    pub(super) fn new_attempt(&self, request: &OpenRequest, account: &Account, rates: RateCard) -> Attempt {
        Attempt {
            id: request.identity.attempt,
            job: request.identity.job.clone(),
            owner: request.identity.user.clone(),
            principal: self.asker.principal.clone(),
            period: account.period,
            started_us: self.now_us,
            lease_until_us: self.now_us,
            pace: request.resources.pace(&rates),
            capacity: Some(Capacity::since(self.now_us, self.now_us, request.resources.cpus_ppm)),
            rates,
            rate_since_us: self.now_us,
            secret: request.secret.as_ref().map(AttemptSecret::hash),
            ..Attempt::default()
        }
    }

    fn refuse(
        &mut self,
        account: &Account,
        request: &OpenRequest,
        reason: StopReason,
    ) -> Result<OpenAnswer, LedgerError> {
        let why = match reason {
            StopReason::CreditsExhausted => "credits exhausted",
            StopReason::JobLimit => "the job's own limit is reached",
            StopReason::OperatorStop if account.suspended => "the account is suspended by an operator",
            StopReason::OperatorStop => "the job was stopped by an operator",
        };
        let entry = Entry {
            job: Some(request.identity.job.clone()),
            attempt: Some(request.identity.attempt),
            ..self.of_account("refuse", account, "ledger", why)
        };
        self.shelf.append(entry);
        let resets_in_ms = account.resets_in_ms(self.now_us);
        Ok(OpenAnswer::Refused { reason, balance: self.balance(account)?, resets_in_ms })
    }
}
