//! Opening: an attempt joins its job and gets its first lease, or a refusal, which is an entry too.

use rusqlite::OptionalExtension;

use super::Books;
use super::accounts::Account;
use super::entries::Entry;
use super::row::{Attempt, State};
use crate::domain::book::sum;
use crate::domain::lease;
use crate::domain::rating::{Price, VirtualTime};
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::protocol::{OpenAnswer, OpenRequest, StopReason};

impl Books<'_> {
    /// Opens an attempt, or says why not.
    pub(super) fn open(&self, request: &OpenRequest) -> Result<OpenAnswer, LedgerError> {
        let identity = &request.identity;
        if let Some(attempt) = self.attempt(identity.attempt)? {
            return self.opened_again(attempt);
        }
        let account = self.account(&identity.user)?;
        self.post_silent(&account)?;
        if let Some(resume) = &request.resume {
            return self.reopen(request, resume, &account);
        }
        if let retry_in_ms @ 1.. = self.settles_in_ms()? {
            return Ok(OpenAnswer::Wait { retry_in_ms });
        }
        let (stopped, limit) = self.join_job(request)?;
        let mut attempt = self.new_attempt(request, &account)?;
        let (free, job_free) = (self.free(&account)?, self.job_free(&attempt.job, Some(&attempt))?);
        let minimum = attempt.minimum();
        let needed = limit.map_or(minimum, |limit| minimum.min(limit));
        let reason = if stopped {
            Some(StopReason::OperatorStop)
        } else if job_free < needed {
            Some(StopReason::JobLimit)
        } else if sum(&free) < needed {
            Some(StopReason::CreditsExhausted)
        } else {
            None
        };
        if let Some(reason) = reason {
            return self.refuse(&account, request, reason);
        }
        let ceiling = lease::raise(minimum, sum(&free), job_free, minimum.min(needed));
        // What the rest rule adds may not empty an account for one attempt that has burned nothing yet.
        let ceiling = ceiling.min(minimum.saturating_add(minimum));
        let version = self.next_version(&attempt)?;
        attempt.state.ceilings.push((version, ceiling));
        self.keep(&attempt)?;
        self.hold(&attempt, account.period, &free, ceiling)?;
        let lease = self.lease(&mut attempt, &account, lease::REPORT_SOON_MS)?;
        self.append(&self.note("open", &account, &attempt, ""))?;
        self.keep(&attempt)?;
        let balance = self.balance(&account)?;
        Ok(OpenAnswer::Opened { rates: attempt.state.rates, lease, balance, again: false })
    }

    fn opened_again(&self, mut attempt: Attempt) -> Result<OpenAnswer, LedgerError> {
        if attempt.ended_us.is_some() {
            return Err(LedgerError::Refused(format!("the attempt {} has ended", attempt.id)));
        }
        let account = self.account(&attempt.user)?;
        let lease = self.lease(&mut attempt, &account, lease::REPORT_SOON_MS)?;
        self.keep(&attempt)?;
        let balance = self.balance(&account)?;
        Ok(OpenAnswer::Opened { rates: attempt.state.rates, lease, balance, again: true })
    }

    /// The job, made where it is new; whether it was stopped, and its own limit.
    pub(super) fn join_job(&self, request: &OpenRequest) -> Result<(bool, Option<Nanocredits>), LedgerError> {
        let identity = &request.identity;
        let known: Option<(String, bool, Option<i64>)> = self
            .tx
            .query_row("SELECT user, stopped, credit_limit FROM job WHERE id = ?1", [&identity.job], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        if let Some((user, stopped, limit)) = known {
            if user != identity.user {
                return Err(LedgerError::Refused(format!(
                    "the job {} belongs to the user {user}: give this one another id by --job",
                    identity.job
                )));
            }
            // The newest word counts: a requeue may come with a higher limit.
            let limit = request.limit.map(|limit| limit.0).or(limit);
            self.tx.execute("UPDATE job SET credit_limit = ?2 WHERE id = ?1", (&identity.job, limit))?;
            return Ok((stopped, limit.map(Nanocredits)));
        }
        self.tx.execute(
            "INSERT INTO job (id, user, kind, name, credit_limit, started_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (
                &identity.job,
                &identity.user,
                identity.kind.as_str(),
                &identity.name,
                request.limit.map(|limit| limit.0),
                self.now_us,
            ),
        )?;
        Ok((false, request.limit))
    }

    pub(super) fn new_attempt(&self, request: &OpenRequest, account: &Account) -> Result<Attempt, LedgerError> {
        Ok(Attempt {
            id: request.identity.attempt,
            job: request.identity.job.clone(),
            user: request.identity.user.clone(),
            started_us: self.now_us,
            period: account.period,
            lease_until_us: self.now_us,
            ended_us: None,
            reason: None,
            receipt: None,
            state: State {
                identity: request.identity.clone(),
                rates: self.rate_card()?,
                resources: request.resources,
                usage: crate::domain::usage::Usage::default(),
                accounted: Price::default(),
                accounted_time: VirtualTime::default(),
                charged: Price::default(),
                overshoot: Nanocredits::ZERO,
                ceilings: Vec::new(),
                next: None,
                seq: 0,
                waits: false,
                rate: Nanocredits::ZERO,
                rate_since_us: self.now_us,
                rate_from: Nanocredits::ZERO,
                burn: Vec::new(),
            },
        })
    }

    fn refuse(&self, account: &Account, request: &OpenRequest, reason: StopReason) -> Result<OpenAnswer, LedgerError> {
        let why = match reason {
            StopReason::CreditsExhausted => "credits exhausted",
            StopReason::JobLimit => "the job's own limit is reached",
            StopReason::OperatorStop => "the job was stopped by an operator",
        };
        self.append(&Entry {
            kind: "refuse",
            user: &account.user,
            period: account.period,
            day: self.day_of(account.period, &account.user)?,
            job: Some(&request.identity.job),
            attempt: Some(request.identity.attempt),
            by: "ledger",
            why,
            ..Entry::default()
        })?;
        let resets_in_ms = account.resets_in_ms(self.now_us);
        Ok(OpenAnswer::Refused { reason, balance: self.balance(account)?, resets_in_ms })
    }
}
