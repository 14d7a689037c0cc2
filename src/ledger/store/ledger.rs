//! A ledger on a store: operations in transactions, several in one where they come together.

use uuid::Uuid;

use super::plausible::{self, Plausible, SEEN, Seen};
use super::table::CLOCK;
use super::{Concerned, JobStop, Locked, Patience, Store, save};
use crate::ledger::asker::{Asker, Reach};
use crate::ledger::book::rows::Account;
use crate::ledger::book::{Asked, Books, Changes, Kept, Operation, Outcome};
use crate::ledger::job_name::JobName;
use crate::ledger::keys::Secret;
use crate::ledger::protocol::{Finish, FinishAnswer, OpenAnswer, OpenRequest, Report, ReportAnswer};
use crate::ledger::views::{Change, ChangeAnswer, NewKey, Query, View};
use crate::ledger::{Interrupter, Ledger, LedgerError};

/// A transaction that another one came in the way of is tried again so often.
const TRIES_MAX: usize = 8;

/// Who looks at an account does so much of what is to be done there, and no more.
const TIDYINGS_MAX: usize = 4;

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
        self.post_with(asked, Patience::Long)
    }

    /// The same, which waits for accounts that are locked as long as `patience` says. With none, what concerns them fails by
    /// [`LedgerError::Locked`], and all else is performed.
    ///
    /// # Errors
    /// As of [`Self::post`]; with a short one also where an account stays locked.
    pub fn post_with(
        &mut self,
        asked: &[Asked<'_>],
        patience: Patience,
    ) -> Result<Vec<Result<Outcome, LedgerError>>, LedgerError> {
        let concerned = Concerned { patience, ..concerned(asked) };
        let mut kept = std::mem::take(&mut self.kept);
        let (outcomes, freed, changes) = self.within(|store, now_us| {
            let locked = store.lock(&concerned)?;
            let kept = std::mem::take(&mut kept).as_stored(&locked);
            let mut books = Books::with(store, now_us, kept, locked.busy.clone());
            let outcomes = books.attempt_each(asked)?;
            let freed = books.take_freed();
            let changes = books.changes()?;
            only_of(&locked, &changes)?;
            save::save(store, &changes)?;
            Ok((outcomes, freed, changes))
        })?;
        self.kept = changes.into_kept();
        self.freed.extend(freed);
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

    /// Commits what time it is, to see whether anything can be committed; the number of the ledger's epoch.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn commit_clock(&mut self) -> Result<u64, LedgerError> {
        self.within(|store, now_us| {
            let at = store.monotonic();
            store.write(&CLOCK, vec![plausible::row(now_us, &at)])?;
            Books::new(store, now_us).epoch_number()
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

    /// Marks what fell silent in an account, and posts what stayed so, as far as a few transactions go.
    fn tidy(&mut self, owner: &str) -> Result<(), LedgerError> {
        for _ in 0..TIDYINGS_MAX {
            if !self.look(|store, now_us| Books::new(store, now_us).is_untidy(owner))? {
                return Ok(());
            }
            self.post_one(Operation::Tidy(owner))?;
        }
        Ok(())
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

/// Whether all the jobs are stopped that a name may mean, or those of the principal `first` where it has some. Where no account is
/// named an unknown one goes on: a ledger that was put back learns of it with the next report.
fn stopped(mut found: Vec<JobStop>, name: &JobName, first: Option<&str>) -> Result<View, LedgerError> {
    found.retain(|job| {
        name.user.as_ref().is_none_or(|user| *user == job.owner)
            && name.principal.as_ref().is_none_or(|principal| *principal == job.principal)
    });
    let is_first = |job: &JobStop| first == Some(&job.principal);
    if found.iter().any(is_first) {
        found.retain(is_first);
    }
    match (&name.user, found.as_slice()) {
        (Some(_), []) => Err(LedgerError::Missing(format!("no job {:?} is known", name.id))),
        (_, found) => Ok(View::Stopped(!found.is_empty() && found.iter().all(|job| job.is_stopped))),
    }
}

/// The accounts that operations will write.
fn concerned<'a>(asked: &[Asked<'a>]) -> Concerned<'a> {
    let Concerned { patience, mut owners, mut attempts, mut jobs } = Concerned::default();
    for Asked { operation, asker } in asked {
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
                | Change::SettleTokens { job, .. } => match whose(asker, job) {
                    Some(owner) => owners.push(owner),
                    None => jobs.extend(job.clone().within(asker)),
                },
                // What concerns the whole ledger stands in the account of nobody.
                Change::SetRates { .. }
                | Change::SetSettings { .. }
                | Change::CreateKey { .. }
                | Change::RevokeKey { .. } => owners.push(""),
            },
            Operation::KeyUsed(_) => {}
        }
    }
    owners.sort_unstable();
    owners.dedup();
    Concerned { patience, owners, attempts, jobs }
}

/// The account of a job that an asker names, where that says it already.
fn whose<'a>(asker: &'a Asker, name: &'a JobName) -> Option<&'a str> {
    match &asker.reach {
        Reach::Owner(own) => Some(own),
        Reach::All | Reach::Principal => name.user.as_deref(),
    }
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
        let (id, hash) = (secret.id().to_owned(), secret.hash());
        self.change(&Change::CreateKey { id, hash, key: key.clone() })?;
        Ok(secret)
    }

    fn interrupter(&self) -> Option<Interrupter> {
        self.store.interrupter()
    }

    fn read(&mut self, query: &Query) -> Result<View, LedgerError> {
        match query {
            // A look that costs next to nothing, and waits for no writer.
            Query::AttemptStop { attempt, .. } => return self.attempt_stop(*attempt).map(View::Stopped),
            Query::Stopped { job, first } => {
                return stopped(self.store.job_stops(&job.id)?, job, first.as_deref());
            }
            // What fell silent is marked first, so that it is shown as that. Where nothing is to be marked, nobody waits for a writer.
            Query::Account { user } => self.tidy(user)?,
            _ => {}
        }
        let now_us = self.store.begin_reading()?;
        let view = believe(&mut self.store, &mut self.clock, now_us);
        let view = view.and_then(|()| super::views::read(&mut self.store, now_us, query));
        self.store.rollback();
        view
    }
}
