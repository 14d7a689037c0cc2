//! The book: the rules by which credits are held, charged and given back, whatever the store.
//!
//! A transaction takes the rows that its operations concern out of the store, changes them here, and puts those that
//! changed back. Several operations share one transaction ([`Books::attempt_each`]), so that one commit pays for all of
//! them; one that fails leaves nothing of itself.
//!
//! Architecture Invariant: no SQL here, no clock, and no rule in the stores. Rows come and go through [`Shelf`] alone.

mod accounts;
pub(crate) mod alerts;
mod balance;
mod believed;
mod changes;
mod correction;
mod drawer;
mod epoch;
mod grants;
mod holds;
mod journal;
mod kept;
mod limits;
mod opening;
mod repair;
mod reports;
pub mod rows;
mod shelf;
mod silence;
mod sources;
mod speaking;
mod steady;
mod tokens;
mod turnover;
mod whole;
mod written;

use std::collections::HashSet;

use self::alerts::Touched;
pub use self::kept::Kept;
pub use self::rows::Before;
use self::rows::{Account, Attempt, Entry, Grant};
use self::shelf::Shelf;
pub use self::steady::Extent;
#[cfg(test)]
pub(crate) use self::steady::Steady;
pub use self::written::Changes;
use super::LedgerError;
use super::asker::{Asker, DIRECT};
use super::job_name::{JobKey, JobName};
use super::protocol::{Finish, FinishAnswer, OpenAnswer, OpenRequest, Report, ReportAnswer};
use super::store::Store;
use super::views::{Change, ChangeAnswer, Standing};
use crate::domain::balance::Snapshot;

/// Of the jobs that a beginning may mean, so many are told.
const BEGINNINGS_MAX: usize = 3;

/// What an attempt paid out of one source of one period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paid {
    /// Which period.
    pub period: i64,
    /// From where.
    pub source: crate::domain::book::Source,
    /// The sum.
    pub amount: crate::domain::units::Nanocredits,
    /// The last day.
    pub day: i64,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// See [`super::Ledger::open`].
    Open(&'a OpenRequest),
    /// See [`super::Ledger::report`].
    Report(&'a Report),
    /// See [`super::Ledger::finish`].
    Finish(&'a Finish),
    /// See [`super::Ledger::change`].
    Change(&'a Change),
    /// Marks what fell silent and posts what stayed so, before an account is shown.
    Tidy(&'a str),
    /// Writes down that the key of this id was used.
    KeyUsed(&'a str),
}

/// An operation, and who asks for it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What.
    pub operation: Operation<'a>,
    /// To them what they may not change is not there.
    pub asker: &'a Asker,
}

impl<'a> From<Operation<'a>> for Asked<'a> {
    fn from(operation: Operation<'a>) -> Self {
        Self { operation, asker: &DIRECT }
    }
}

/// And its answer.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Of [`Operation::Open`].
    Opened(Box<OpenAnswer>),
    /// Of [`Operation::Report`].
    Reported {
        /// For the sidecar.
        answer: ReportAnswer,
        /// Whose account.
        owner: String,
    },
    /// Of [`Operation::Finish`].
    Finished(FinishAnswer),
    /// Of [`Operation::Change`].
    Changed(ChangeAnswer),
    /// Of [`Operation::Tidy`].
    Tidied(Box<Account>),
    /// Of [`Operation::KeyUsed`], which nobody waits for.
    Noted,
}

/// See [`Books::shown`].
#[derive(Clone, Debug)]
pub struct Shown {
    /// In its current period.
    pub account: Account,
    /// As it stands.
    pub snapshot: Snapshot,
    /// Live ones, in the order in which they are spent, and those of which something is held.
    pub grants: Vec<Grant>,
    /// Whether there is such an account.
    pub standing: Standing,
}

/// The books within one transaction, and the ledger's time in it.
pub struct Books<'a> {
    shelf: Shelf<'a>,
    now_us: i64,
    /// Of the operation under way.
    asker: Asker,
    /// Accounts in which something became free, for who waits for that.
    freed: Vec<String>,
    /// Those of the operation under way: what is owed there is paid at its end.
    freed_now: Vec<String>,
    /// By the operation under way.
    touched: Option<Touched>,
}

impl std::fmt::Debug for Books<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Books").field("now_us", &self.now_us).finish_non_exhaustive()
    }
}

impl<'a> Books<'a> {
    /// Opens them at the ledger's time, within a transaction of a store.
    pub fn new(store: &'a mut dyn Store, now_us: i64) -> Self {
        Self::with(store, now_us, Kept::default(), HashSet::new())
    }

    /// The same, with rows that the store would give as they are; what concerns accounts that are `busy` fails.
    pub fn with(store: &'a mut dyn Store, now_us: i64, kept: Kept, busy: HashSet<String>) -> Self {
        Self {
            shelf: Shelf::new(store, kept, busy),
            now_us,
            asker: DIRECT.clone(),
            freed: Vec::new(),
            freed_now: Vec::new(),
            touched: None,
        }
    }

    /// An account as it is shown: how it stands, and its grants.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn shown(&mut self, owner: &str) -> Result<Shown, LedgerError> {
        let is_known = self.shelf.account(owner)?.is_some();
        let standing = match (is_known, self.settings()?.unknown_users) {
            (true, _) => Standing::Known,
            (false, true) => Standing::Unknown,
            (false, false) => Standing::NotAdmitted,
        };
        let account = self.account(owner)?;
        let snapshot = self.snapshot(&account)?;
        let grants = self.grants(owner)?;
        Ok(Shown { account, snapshot, grants, standing })
    }

    /// The one job that a name means to whoever looks: by its id, or by a beginning of at least four characters that no other has.
    ///
    /// # Errors
    /// Where there is none, or more than one.
    pub fn job_named(&mut self, name: &JobName) -> Result<JobKey, LedgerError> {
        let found = self.shelf.jobs_named(name)?;
        let found = if found.is_empty() { self.shelf.jobs_beginning(name)? } else { found };
        match found.as_slice() {
            [] => Err(LedgerError::Missing(name.missing())),
            [one] => Ok(one.clone()),
            [first, ..] if found.iter().all(|key| key.id == first.id) => {
                let name = JobName { id: first.id.clone(), ..name.clone() };
                Err(LedgerError::Refused(name.ambiguous(&found)))
            }
            _ => {
                let mut ids: Vec<&str> = found.iter().map(|key| key.id.as_str()).collect();
                ids.dedup();
                ids.truncate(BEGINNINGS_MAX);
                let (text, ids) = (&name.id, ids.join(", "));
                Err(LedgerError::Refused(format!("{text:?} is the beginning of several jobs: {ids}")))
            }
        }
    }

    /// Performs operations one after the other. The outer error is the store's, and concerns all of them; an inner one
    /// concerns the operation alone, of which nothing is kept.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn attempt_each(&mut self, asked: &[Asked<'_>]) -> Result<Vec<Result<Outcome, LedgerError>>, LedgerError> {
        let concerned = asked.iter().filter_map(|asked| match asked.operation {
            Operation::Report(report) => Some(report.attempt),
            Operation::Finish(finish) => Some(finish.attempt),
            _ => None,
        });
        let concerned: Vec<_> = concerned.collect();
        if concerned.len() > 1 {
            self.shelf.prefetch(&concerned)?;
        }
        let mut outcomes = Vec::with_capacity(asked.len());
        for Asked { operation, asker } in asked {
            self.shelf.mark();
            self.asker.clone_from(asker);
            self.touched = None;
            self.freed_now.clear();
            let outcome = self.perform(operation).and_then(|outcome| self.pay_and_watch().map(|()| outcome));
            match outcome {
                // The store itself is out of order: nobody's work can be kept.
                Err(error @ (LedgerError::Unavailable(_) | LedgerError::Conflict(_))) => return Err(error),
                Err(_) => self.shelf.undo(),
                Ok(_) => {}
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    /// After an operation: what became free pays what is owed, and thresholds that were reached are told.
    fn pay_and_watch(&mut self) -> Result<(), LedgerError> {
        for owner in std::mem::take(&mut self.freed_now) {
            self.pay_debt(&owner)?;
        }
        self.watch()
    }

    /// Begins an epoch, where what was there before the restore is known; see [`super::store`].
    ///
    /// # Errors
    /// Where the store fails.
    pub fn restored(&mut self, before: Before, by: &str, why: &str) -> Result<(), LedgerError> {
        self.begin_epoch(before, by, why)
    }

    /// An operator says that the ledger's clock is right.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn clock_is_trusted(&mut self, by: &str, why: &str) -> Result<(), LedgerError> {
        self.of_ledger("clock", by, why)
    }

    /// The accounts in which something became free, or the state of a job changed.
    pub fn take_freed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.freed)
    }

    /// Something became free.
    fn free_up(&mut self, owner: &str) {
        for freed in [&mut self.freed, &mut self.freed_now] {
            if !freed.iter().any(|known| known == owner) {
                freed.push(owner.to_owned());
            }
        }
    }

    /// What has to be written.
    ///
    /// # Errors
    /// Where something cannot be written as JSON.
    pub fn changes(self) -> Result<Changes, LedgerError> {
        self.shelf.changes(self.now_us)
    }

    fn perform(&mut self, operation: &Operation<'_>) -> Result<Outcome, LedgerError> {
        Ok(match operation {
            Operation::Open(request) => Outcome::Opened(Box::new(self.open(request)?)),
            Operation::Report(report) => self.report(report)?,
            Operation::Finish(finish) => Outcome::Finished(self.finish(finish)?),
            Operation::Change(change) => Outcome::Changed(self.change(change)?),
            Operation::Tidy(owner) => Outcome::Tidied(Box::new(self.looked_at(owner)?)),
            Operation::KeyUsed(id) => {
                self.shelf.put_key_use(id);
                Outcome::Noted
            }
        })
    }

    /// Seconds since 1970, UTC.
    fn now_s(&self) -> i64 {
        self.now_us.div_euclid(1_000_000)
    }

    /// An entry about an account, as of now.
    fn of_account(&self, kind: &'static str, account: &Account, by: &str, why: &str) -> Entry {
        Entry {
            kind,
            owner: account.owner.clone(),
            period: account.period,
            day: crate::domain::calendar::day_start(self.now_s().max(account.period)),
            by: by.to_owned(),
            why: why.to_owned(),
            ..Entry::default()
        }
    }

    /// An entry about an attempt that moves nothing.
    fn note(&mut self, kind: &'static str, account: &Account, attempt: &Attempt, by: &str, why: &str) {
        let entry = Entry {
            job: Some(attempt.job.clone()),
            attempt: Some(attempt.id),
            ..self.of_account(kind, account, by, why)
        };
        self.shelf.append(entry);
    }
}

fn ms_to_us(ms: u64) -> i64 {
    i64::try_from(ms.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
