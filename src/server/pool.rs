//! Connections to the database beside the writer's.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::ledger::location::Location;
use crate::ledger::store::{Store, StoreLedger};
use crate::ledger::views::{Query, View};
use crate::ledger::{Ledger, LedgerError};

/// Connections that read for people and programs. With the little memory of a sidecar's: the writer has the pages that are wanted
/// again and again.
pub(super) type Readers = Pool<Box<dyn Ledger>>;
/// Connections that know the sessions of browsers.
pub(super) type Sessions = Pool<StoreLedger<Box<dyn Store>>>;

/// Reads at the same time.
const READERS_MAX: usize = 4;
/// Looks for keys at the same time.
const KEY_READERS_MAX: usize = 2;
/// Looks for sessions at the same time.
const SESSION_READERS_MAX: usize = 2;

/// All of a service.
#[derive(Clone)]
pub(super) struct Pools {
    pub(super) readers: Arc<Readers>,
    /// Of their own, since a report must not wait for a page that takes long.
    pub(super) key_readers: Arc<Readers>,
    /// For looks, which wait for no writer.
    pub(super) sessions: Arc<Sessions>,
    /// Of its own, since it may have to wait for the poster.
    pub(super) session_writer: Arc<Sessions>,
}

impl Pools {
    /// Nothing is opened yet.
    pub(super) fn new(db: &Location) -> Self {
        Self {
            readers: Readers::of(db, READERS_MAX),
            key_readers: Readers::of(db, KEY_READERS_MAX),
            sessions: Sessions::of(db, SESSION_READERS_MAX),
            session_writer: Sessions::of(db, 1),
        }
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.key_readers.close().await;
        self.sessions.close().await;
        self.session_writer.close().await;
    }
}

type Connect<C> = fn(&Location) -> Result<C, LedgerError>;

/// They are used and dropped on threads that may block, since the client of PostgreSQL has an event loop of its own, which
/// must not end inside of ours.
pub(super) struct Pool<C> {
    db: Location,
    connect: Connect<C>,
    /// None once closed.
    idle: Mutex<Option<Vec<C>>>,
    turns: Semaphore,
}

impl<C: Send + 'static> Pool<C> {
    /// So many are in use at the same time.
    fn new(db: Location, connect: Connect<C>, count_max: usize) -> Self {
        Self { db, connect, idle: Mutex::new(Some(Vec::new())), turns: Semaphore::new(count_max) }
    }

    /// Acts on a connection that nobody else uses meanwhile.
    pub(super) async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        act: impl FnOnce(&mut C) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let stopping = || LedgerError::Unavailable("the ledger is stopping".to_owned());
        let _one = self.turns.acquire().await.map_err(|_| stopping())?;
        let pool = Arc::clone(self);
        let acted = tokio::task::spawn_blocking(move || {
            let idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner).as_mut().and_then(Vec::pop);
            let mut connection = match idle {
                Some(connection) => connection,
                None => (pool.connect)(&pool.db)?,
            };
            let answer = act(&mut connection);
            // One that may be lost is not used again.
            if !matches!(answer, Err(LedgerError::Unavailable(_) | LedgerError::Broken(_)))
                && let Some(idle) = pool.idle.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
            {
                idle.push(connection);
            }
            answer
        });
        acted.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Ends the connections, now or when their work has ended.
    pub(super) async fn close(self: &Arc<Self>) {
        self.turns.close();
        let pool = Arc::clone(self);
        let closed = tokio::task::spawn_blocking(move || {
            pool.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        });
        // Where the thread could not be had, they end with the process.
        closed.await.ok();
    }
}

impl Readers {
    fn of(db: &Location, count_max: usize) -> Arc<Self> {
        Arc::new(Self::new(db.clone(), Location::connect_existing, count_max))
    }

    pub(super) async fn read(self: &Arc<Self>, query: Query) -> Result<View, LedgerError> {
        self.with(move |reader| reader.read(&query)).await
    }
}

impl Sessions {
    fn of(db: &Location, count_max: usize) -> Arc<Self> {
        Arc::new(Self::new(db.clone(), |db| db.existing_store().map(StoreLedger::new), count_max))
    }
}
