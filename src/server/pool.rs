//! Connections to the database beside the writer's.
//!
//! Whoever has asked may go away, or be given up: what his connection is at then ends as well. Until it has, nobody else gets its turn, so
//! that however many ask and go, no more is read at the same time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::ledger::location::Location;
use crate::ledger::store::{Store, StoreLedger};
use crate::ledger::views::{Query, View};
use crate::ledger::{Interrupter, Ledger, LedgerError};
use crate::sys::process::yield_to_others;

/// Connections that read for people and programs. With the little memory of a sidecar's: the writer has the pages that are wanted
/// again and again.
pub(super) type Readers = Pool<Box<dyn Ledger>>;
/// Connections that know the sessions of browsers.
pub(super) type Sessions = Pool<StoreLedger<Box<dyn Store>>>;

/// Reads at the same time.
const READERS_MAX: usize = 4;
/// Reads that may take long, at the same time.
const LONG_READERS_MAX: usize = 2;
/// Looks for keys at the same time.
const KEY_READERS_MAX: usize = 2;
/// Looks for sessions at the same time.
const SESSION_READERS_MAX: usize = 2;

/// All of a service.
#[derive(Clone)]
pub(super) struct Pools {
    readers: Arc<Readers>,
    /// For reports over time, exports and `verify`, whose time is nobody else's.
    long_readers: Arc<Readers>,
    /// Of their own, since a report must not wait for a page that takes long.
    pub(super) key_readers: Arc<Readers>,
    /// For looks, which wait for no writer.
    pub(super) sessions: Arc<Sessions>,
    /// Of its own, since it may have to wait for the poster.
    pub(super) session_writer: Arc<Sessions>,
    /// For sidecars that ask whether their job was stopped: they wait for nobody else.
    pub(super) stops: Arc<Sessions>,
}

impl Pools {
    /// Nothing is opened yet.
    pub(super) fn new(db: &Location) -> Self {
        Self {
            readers: Readers::of(db, READERS_MAX, Urgency::Usual),
            long_readers: Readers::of(db, LONG_READERS_MAX, Urgency::Low),
            key_readers: Readers::of(db, KEY_READERS_MAX, Urgency::Usual),
            sessions: Sessions::of(db, SESSION_READERS_MAX),
            session_writer: Sessions::of(db, 1),
            stops: Sessions::of(db, 1),
        }
    }

    /// Reads beside others of its kind: what may take long waits for that alone.
    pub(super) async fn read(&self, query: Query) -> Result<View, LedgerError> {
        let takes_long =
            matches!(query, Query::Usage { .. } | Query::UsageOfEach { .. } | Query::Verify | Query::Figures);
        if takes_long { self.long_readers.read(query).await } else { self.readers.read(query).await }
    }

    pub(super) async fn close(&self) {
        for pool in [&self.readers, &self.long_readers, &self.key_readers] {
            pool.close().await;
        }
        for pool in [&self.sessions, &self.session_writer, &self.stops] {
            pool.close().await;
        }
    }
}

/// What may be interrupted.
pub(super) trait Connection: Send + 'static {
    fn interrupter(&self) -> Option<Interrupter>;
}

impl Connection for Box<dyn Ledger> {
    fn interrupter(&self) -> Option<Interrupter> {
        Ledger::interrupter(self.as_ref())
    }
}

impl Connection for StoreLedger<Box<dyn Store>> {
    fn interrupter(&self) -> Option<Interrupter> {
        Ledger::interrupter(self)
    }
}

/// How soon the machine's processors are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    Usual,
    /// When nobody else wants them.
    Low,
}

type Connect<C> = fn(&Location) -> Result<C, LedgerError>;

/// They are used and dropped on threads that may block, since the client of PostgreSQL has an event loop of its own, which
/// must not end inside of ours.
pub(super) struct Pool<C> {
    db: Location,
    connect: Connect<C>,
    /// None once closed.
    idle: Mutex<Option<Vec<C>>>,
    turns: Arc<Semaphore>,
    urgency: Urgency,
}

/// A question, as far as both ends know of it.
#[derive(Default)]
struct Asked {
    is_abandoned: bool,
    /// While a connection is at it.
    interrupter: Option<Interrupter>,
}

/// Its end where the answer is waited for. Where that goes first, the question is abandoned.
struct Waiting(Arc<Mutex<Asked>>);

fn locked(asked: &Mutex<Asked>) -> MutexGuard<'_, Asked> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut asked = locked(&self.0);
        asked.is_abandoned = true;
        if asked.interrupter.is_some()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(interrupt_until_ended(Arc::clone(&self.0)));
        }
    }
}

/// Between two statements there is nothing to interrupt: it is done again.
async fn interrupt_until_ended(asked: Arc<Mutex<Asked>>) {
    let mut pause = Duration::from_millis(20);
    while let Some(interrupt) = { locked(&asked).interrupter.clone() } {
        let interrupted = tokio::task::spawn_blocking(move || interrupt()).await;
        if let Ok(Err(error)) = interrupted {
            tracing::debug!(%error, "A question that nobody waits for goes on until its time is over.");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

fn stopping() -> LedgerError {
    LedgerError::Unavailable("the ledger is stopping".to_owned())
}

impl<C: Connection> Pool<C> {
    /// So many are in use at the same time.
    fn new(db: Location, connect: Connect<C>, count_max: usize, urgency: Urgency) -> Self {
        Self { db, connect, idle: Mutex::new(Some(Vec::new())), turns: Arc::new(Semaphore::new(count_max)), urgency }
    }

    /// Acts on a connection that nobody else uses meanwhile.
    pub(super) async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        act: impl FnOnce(&mut C) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| stopping())?;
        let (pool, asked) = (Arc::clone(self), Arc::new(Mutex::new(Asked::default())));
        let waiting = Waiting(Arc::clone(&asked));
        let answer = match self.urgency {
            Urgency::Usual => {
                let acted = tokio::task::spawn_blocking(move || pool.act(&asked, turn, act));
                acted.await.unwrap_or_else(|_| Err(stopping()))
            }
            Urgency::Low => {
                let (sender, answer) = oneshot::channel();
                let acts = move || {
                    yield_to_others();
                    // Who has asked may have gone.
                    _ = sender.send(pool.act(&asked, turn, act));
                };
                let started = std::thread::Builder::new().name("long reader".to_owned()).spawn(acts);
                started.map_err(|error| LedgerError::Unavailable(format!("no thread can be started: {error}")))?;
                answer.await.unwrap_or_else(|_| Err(stopping()))
            }
        };
        drop(waiting);
        answer
    }

    fn act<T>(
        &self,
        asked: &Mutex<Asked>,
        _turn: OwnedSemaphorePermit,
        act: impl FnOnce(&mut C) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let abandoned = || LedgerError::Unavailable("nobody waits for the answer".to_owned());
        if locked(asked).is_abandoned {
            return Err(abandoned());
        }
        let idle = self.idle().as_mut().and_then(Vec::pop);
        let mut connection = match idle {
            Some(connection) => connection,
            None => (self.connect)(&self.db)?,
        };
        locked(asked).interrupter = connection.interrupter();
        let answer = if locked(asked).is_abandoned { Err(abandoned()) } else { act(&mut connection) };
        let is_abandoned = {
            let mut asked = locked(asked);
            asked.interrupter = None;
            asked.is_abandoned
        };
        // One that may be lost is not used again; nor one whose interruption may still be on its way to the database.
        if !is_abandoned
            && !matches!(answer, Err(LedgerError::Unavailable(_) | LedgerError::Broken(_)))
            && let Some(idle) = self.idle().as_mut()
        {
            idle.push(connection);
        }
        answer
    }

    fn idle(&self) -> MutexGuard<'_, Option<Vec<C>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connections, now or when their work has ended.
    pub(super) async fn close(self: &Arc<Self>) {
        self.turns.close();
        let pool = Arc::clone(self);
        let closed = tokio::task::spawn_blocking(move || drop(pool.idle().take()));
        // Where the thread could not be had, they end with the process.
        closed.await.ok();
    }
}

impl Readers {
    fn of(db: &Location, count_max: usize, urgency: Urgency) -> Arc<Self> {
        Arc::new(Self::new(db.clone(), Location::connect_existing, count_max, urgency))
    }

    pub(super) async fn read(self: &Arc<Self>, query: Query) -> Result<View, LedgerError> {
        self.with(move |reader| reader.read(&query)).await
    }
}

impl Sessions {
    fn of(db: &Location, count_max: usize) -> Arc<Self> {
        Arc::new(Self::new(db.clone(), |db| db.existing_store().map(StoreLedger::new), count_max, Urgency::Usual))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::ledger::store::postgres;

    /// A question that would take minutes.
    const ENDLESS: &str = "WITH RECURSIVE count (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < 2000000000) SELECT count(*) \
                           FROM count";

    async fn asked_and_given_up(pool: &Arc<Sessions>) {
        let (begun, begins) = mpsc::channel();
        let asking = Arc::clone(pool);
        let asked = tokio::spawn(async move {
            let endless = move |ledger: &mut StoreLedger<Box<dyn Store>>| {
                begun.send(()).unwrap();
                ledger.look(|store, _| store.query(ENDLESS, &[]).map(|_| ()))
            };
            asking.with(endless).await
        });
        tokio::task::spawn_blocking(move || begins.recv().unwrap()).await.unwrap();
        asked.abort();
        assert!(asked.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_ends_and_leaves_its_turn() {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Location::File(folder.path().join("ledger.db"));
        let made = sqlite.clone();
        tokio::task::spawn_blocking(move || drop(made.store().unwrap())).await.unwrap();
        let made = tokio::task::spawn_blocking(|| postgres::tests::new_database().1);
        let postgresql: Location = made.await.unwrap().parse().unwrap();
        for (db, urgency) in [(&sqlite, Urgency::Usual), (&sqlite, Urgency::Low), (&postgresql, Urgency::Low)] {
            let connect: Connect<_> = |db| db.existing_store().map(StoreLedger::new);
            let pool = Arc::new(Pool::new(db.clone(), connect, 1, urgency));
            for _ in 0..3 {
                asked_and_given_up(&pool).await;
            }
            let next = tokio::time::timeout(Duration::from_mins(1), pool.with(|_| Ok(7))).await;
            assert_eq!(next.expect("its turn comes at once").unwrap(), 7);
            pool.close().await;
        }
    }
}
