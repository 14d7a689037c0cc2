//! What whoever watches an account sees of it, and what differs between two looks.

use std::collections::HashMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::super::pool::Pools;
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::views::{AccountView, Query, View};

/// No event tells of more jobs: these are the newest.
const JOBS_MAX: u32 = 100;

/// An account at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) account: AccountView,
    pub(super) running: Vec<RunningJob>,
}

/// A job that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct RunningJob {
    pub(super) job: String,
    /// Which has opened it.
    pub(super) principal: String,
    pub(super) name: Option<String>,
    /// `running` or `provisional`.
    pub(super) state: String,
    pub(super) charged: Nanocredits,
}

/// The data of an event `account`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Seen)] // The name in the OpenAPI document since its first version.
pub(super) struct AccountEvent<'a> {
    /// As in `users/{user}/credits`.
    account: &'a AccountView,
    /// What runs: the newest 100 jobs.
    running: &'a [RunningJob],
    changed: Changed,
}

/// What is no longer as in the event before. In the first event of a stream that is everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Changed {
    /// Whether anything of the account has changed, the time of the look aside.
    pub(super) account: bool,
    /// The jobs that have started, burned or ended, by their ids.
    pub(super) jobs: Vec<String>,
}

impl Changed {
    /// What differs since `before`; everything where there is none.
    pub(super) fn since(before: Option<&Seen>, now: &Seen) -> Self {
        let Some(before) = before else {
            return Self { account: true, jobs: now.running.iter().map(|job| job.job.clone()).collect() };
        };
        let key = |job: &RunningJob| (job.principal.clone(), job.job.clone());
        let mut gone: HashMap<_, &RunningJob> = before.running.iter().map(|job| (key(job), job)).collect();
        let mut jobs: Vec<String> = Vec::new();
        for job in &now.running {
            if gone.remove(&key(job)) != Some(job) {
                jobs.push(job.job.clone());
            }
        }
        jobs.extend(before.running.iter().filter(|job| gone.contains_key(&key(job))).map(|job| job.job.clone()));
        Self { account: facts(&before.account) != facts(&now.account), jobs }
    }

    pub(super) fn is_nothing(&self) -> bool {
        !self.account && self.jobs.is_empty()
    }
}

/// An account without what passes with the time alone: two looks at books in which nothing happens are the same.
fn facts(account: &AccountView) -> AccountView {
    AccountView { resets_in_ms: 0, exhausted_at: None, ..account.clone() }
}

impl Seen {
    /// As JSON, with what has changed.
    ///
    /// # Errors
    /// Where it cannot be written down, which no value of these is known to do.
    pub(super) fn event(&self, changed: Changed) -> Result<String, LedgerError> {
        let event = AccountEvent { account: &self.account, running: &self.running, changed };
        serde_json::to_string(&event)
            .map_err(|error| LedgerError::Broken(format!("an event cannot be written: {error}")))
    }
}

/// Looks at an account.
///
/// # Errors
/// Where the ledger cannot be read.
pub(super) async fn look(pools: Pools, user: String) -> Result<Seen, LedgerError> {
    let account = match pools.read(Query::Account { user: user.clone() }).await? {
        View::Account(account) => *account,
        _ => return Err(LedgerError::unasked()),
    };
    if account.running == 0 {
        return Ok(Seen { account, running: Vec::new() });
    }
    let query = Query::Jobs { user: Some(user), kind: None, running_only: true, count_max: JOBS_MAX, before: None };
    let View::Jobs { jobs, .. } = pools.read(query).await? else {
        return Err(LedgerError::unasked());
    };
    let running = jobs.into_iter().map(|job| RunningJob {
        job: job.job,
        principal: job.principal,
        name: job.name,
        state: job.state,
        charged: job.charged.total,
    });
    Ok(Seen { account, running: running.collect() })
}
