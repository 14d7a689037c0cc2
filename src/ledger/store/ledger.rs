//! A ledger on a store: operations in transactions, several in one where they come together.

use uuid::Uuid;

use super::plausible::{self, Plausible, SEEN, Seen};
use super::table::CLOCK;
use super::{Concerned, JobStop, Locked, Store, save};
use crate::ledger::book::rows::Account;
use crate::ledger::book::{Asked, Books, Changes, Kept, Operation, Outcome};
use crate::ledger::keys::Secret;
use crate::ledger::protocol::{Finish, FinishAnswer, OpenAnswer, OpenRequest, Report, ReportAnswer};
use crate::ledger::views::{Change, ChangeAnswer, NewKey, Query, View};
use crate::ledger::{Interrupter, Ledger, LedgerError};

/// A transaction that another one came in the way of is tried again so often.
const TRIES_MAX: usize = 8;

/// A ledger whose books are in a database.
#[derive(Debug)]
pub struct StoreLedger<S> {
    pub(super) store: S,
    freed: Vec<String>,
    /// As the last transaction left them; none after whatever else wrote, or failed.
    kept: Kept,
    clock: Plausible,
    /// Whose job was not stopped when it was asked for last.
    pub(super) unstopped: Option<Uuid>,
}

impl<S: Store> StoreLedger<S> {
    /// On an open store.
    pub fn new(store: S) -> Self {
        Self { store, freed: Vec::new(), kept: Kept::default(), clock: Plausible::default(), unstopped: None }
    }

    /// Accounts in which the last transaction made something free, for who waits for that.
    pub fn take_freed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.freed)
    }

    /// The store itself.
    pub fn into_store(self) -> S {
        self.store
    }

    /// Performs operations in one transaction, which is durable when this returns.
    ///
    /// # Errors
    /// Where the store fails; then nothing of any of them is kept.
    pub fn post(&mut self, asked: &[Asked<'_>]) -> Result<Vec<Result<Outcome, LedgerError>>, LedgerError> {
        let concerned = concerned(asked);
        let mut kept = std::mem::take(&mut self.kept);
        let (outcomes, freed, changes) = self.within(|store, now_us| {
            let locked = store.lock(&concerned)?;
            let kept = std::mem::take(&mut kept).as_stored(&locked);
            let mut books = Books::with(store, now_us, kept);
            let outcomes = books.attempt_each(asked)?;
            let freed = books.take_freed();
            let changes = books.changes()?;
            only_of(&locked, &changes)?;
            save::save(store, &changes)?;
            Ok((outcomes, freed, changes))
        })?;
        self.kept = changes.into_kept();
        self.freed = freed;
        Ok(outcomes)
    }

    /// Acts within a transaction, again where another one came in the way.
    pub(super) fn within<T>(
        &mut self,
        mut act: impl FnMut(&mut dyn Store, i64) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        self.transact(|store, clock, now_us| {
            believe(store, clock, now_us)?;
            let done = act(store, now_us)?;
            if let Some(row) = clock.take_row() {
                store.write(&CLOCK, vec![row])?;
            }
            Ok(done)
        })
    }

    /// The same by an operator's word, which the clock is believed for.
    pub(super) fn as_told<T>(
        &mut self,
        mut act: impl FnMut(&mut dyn Store, i64) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        self.transact(|store, _, now_us| {
            let done = act(store, now_us)?;
            let at = store.monotonic();
            store.write(&CLOCK, vec![plausible::row(now_us, &at)])?;
            Ok(done)
        })
    }

    /// From now on the ledger's clock is believed, which was not before.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn trust_clock(&mut self, by: &str, why: &str) -> Result<(), LedgerError> {
        let concerned = Concerned { owners: vec![""], ..Concerned::default() };
        self.as_told(|store, now_us| {
            store.lock(&concerned)?;
            let mut books = Books::new(store, now_us);
            books.clock_is_trusted(by, why)?;
            let changes = books.changes()?;
            save::save(store, &changes)
        })
    }

    fn transact<T>(
        &mut self,
        mut act: impl FnMut(&mut dyn Store, &mut Plausible, i64) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        self.kept = Kept::default();
        let mut tries = 0;
        loop {
            let now_us = self.store.begin()?;
            let done = act(&mut self.store, &mut self.clock, now_us);
            match done.and_then(|done| self.store.commit().map(|()| done)) {
                Ok(done) => return Ok(done),
                Err(error) => {
                    self.store.rollback();
                    tries += 1;
                    match error {
                        LedgerError::Conflict(_) if tries < TRIES_MAX => {}
                        LedgerError::Conflict(why) => return Err(LedgerError::Unavailable(why)),
                        error => return Err(error),
                    }
                }
            }
        }
    }

    fn post_one(&mut self, operation: Operation<'_>) -> Result<Outcome, LedgerError> {
        self.post(&[operation.into()])?.pop().unwrap_or_else(|| Err(LedgerError::unasked()))
    }
}

/// An error where the time is not believed.
fn believe(store: &mut dyn Store, clock: &mut Plausible, now_us: i64) -> Result<(), LedgerError> {
    let at = store.monotonic();
    clock.check((now_us, at), || store.query(SEEN, &[])?.into_iter().next().map(Seen::read).transpose())
}

/// What is written must have been locked before it was read. An attempt of which nothing was known at the lock may have come
/// into the books since then.
fn only_of(locked: &Locked, changes: &Changes) -> Result<(), LedgerError> {
    let Some(revisions) = &locked.revisions else { return Ok(()) };
    match changes.accounts.iter().find(|account| !revisions.contains_key(&account.owner)) {
        Some(Account { owner, .. }) => Err(LedgerError::Conflict(format!("the account {owner:?} was not locked"))),
        None => Ok(()),
    }
}

/// To who may see the jobs of `only` alone, one of somebody else is as unknown as one that there is not. To others an unknown one
/// goes on: a ledger that was put back learns of it with the next report.
fn stopped(found: Option<JobStop>, job: &str, only: Option<&str>) -> Result<View, LedgerError> {
    let is_seen = |found: &JobStop| only.is_none_or(|only| only == found.owner);
    match found.filter(is_seen) {
        Some(found) => Ok(View::Stopped(found.is_stopped)),
        None if only.is_none() => Ok(View::Stopped(false)),
        None => Err(LedgerError::Missing(format!("no job {job:?} is known"))),
    }
}

/// The accounts that operations will write.
fn concerned<'a>(asked: &[Asked<'a>]) -> Concerned<'a> {
    let Concerned { mut owners, mut attempts, mut jobs } = Concerned::default();
    for Asked { operation, .. } in asked {
        match operation {
            Operation::Open(request) => owners.push(request.identity.user.as_str()),
            Operation::Report(report) => attempts.push(report.attempt),
            Operation::Finish(finish) => attempts.push(finish.attempt),
            Operation::Tidy(owner) => owners.push(owner),
            Operation::Change(change) => match change {
                Change::SetLimit { user, .. }
                | Change::Suspend { user, .. }
                | Change::Resume { user, .. }
                | Change::RepairPeriod { user, .. }
                | Change::Grant { user, .. }
                | Change::RevokeGrant { user, .. }
                | Change::Adjust { user, .. } => owners.push(user),
                Change::Settle { attempt, .. } => attempts.push(*attempt),
                Change::StopJob { job, .. }
                | Change::ChargeTokens { job, .. }
                | Change::ReserveTokens { job, .. }
                | Change::SettleTokens { job, .. } => jobs.push(job),
                // What concerns the whole ledger stands in the account of nobody.
                Change::SetRates { .. } | Change::CreateKey { .. } | Change::RevokeKey { .. } => owners.push(""),
            },
        }
    }
    owners.sort_unstable();
    owners.dedup();
    Concerned { owners, attempts, jobs }
}

impl<S: Store> Ledger for StoreLedger<S> {
    fn open(&mut self, request: &OpenRequest) -> Result<OpenAnswer, LedgerError> {
        match self.post_one(Operation::Open(request))? {
            Outcome::Opened(answer) => Ok(*answer),
            _ => Err(LedgerError::unasked()),
        }
    }

    fn report(&mut self, report: &Report) -> Result<ReportAnswer, LedgerError> {
        match self.post_one(Operation::Report(report))? {
            Outcome::Reported { answer, .. } => Ok(answer),
            _ => Err(LedgerError::unasked()),
        }
    }

    fn finish(&mut self, finish: &Finish) -> Result<FinishAnswer, LedgerError> {
        match self.post_one(Operation::Finish(finish))? {
            Outcome::Finished(answer) => Ok(answer),
            _ => Err(LedgerError::unasked()),
        }
    }

    fn change(&mut self, change: &Change) -> Result<ChangeAnswer, LedgerError> {
        match self.post_one(Operation::Change(change))? {
            Outcome::Changed(answer) => Ok(answer),
            _ => Err(LedgerError::unasked()),
        }
    }

    fn new_key(&mut self, key: &NewKey) -> Result<Secret, LedgerError> {
        let secret = Secret::new();
        let NewKey { name, scope, user, by } = key.clone();
        let (id, hash) = (secret.id().to_owned(), secret.hash());
        self.change(&Change::CreateKey { id, hash, name, scope, user, by })?;
        Ok(secret)
    }

    fn interrupter(&self) -> Option<Interrupter> {
        self.store.interrupter()
    }

    fn read(&mut self, query: &Query) -> Result<View, LedgerError> {
        match query {
            // A look that costs next to nothing, and waits for no writer.
            Query::AttemptStop { attempt, .. } => return self.attempt_stop(*attempt).map(View::Stopped),
            Query::Stopped { job, only } => return stopped(self.store.job_stop(job)?, job, only.as_deref()),
            // What fell silent is marked first, so that it is shown as that.
            Query::Account { user } => {
                self.post_one(Operation::Tidy(user))?;
            }
            _ => {}
        }
        let now_us = self.store.begin_reading()?;
        let view = believe(&mut self.store, &mut self.clock, now_us);
        let view = view.and_then(|()| super::views::read(&mut self.store, now_us, query));
        self.store.rollback();
        view
    }
}
