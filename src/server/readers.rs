//! Connections that read, beside the writer's.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::ledger::location::Location;
use crate::ledger::views::{Query, View};
use crate::ledger::{Ledger, LedgerError};

type Reader = Box<dyn Ledger>;

/// They are used and dropped on threads that may block, since the client of PostgreSQL has an event loop of its own, which
/// must not end inside of ours.
pub(super) struct Readers {
    db: Location,
    /// None once closed.
    idle: Mutex<Option<Vec<Reader>>>,
    turns: Semaphore,
}

impl Readers {
    /// So many read at the same time, each with a connection of its own.
    pub(super) fn new(db: Location, readers_max: usize) -> Self {
        Self { db, idle: Mutex::new(Some(Vec::new())), turns: Semaphore::new(readers_max) }
    }

    pub(super) async fn read(self: &Arc<Self>, query: Query) -> Result<View, LedgerError> {
        let stopping = || LedgerError::Unavailable("the ledger is stopping".to_owned());
        let _one = self.turns.acquire().await.map_err(|_| stopping())?;
        let readers = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).as_mut().and_then(Vec::pop);
            let mut reader = match idle {
                Some(reader) => reader,
                // With the little memory of a sidecar's: the writer has the pages that are wanted again and again.
                None => readers.db.connect()?,
            };
            let view = reader.read(&query);
            // One whose connection may be lost is not used again.
            if !matches!(view, Err(LedgerError::Unavailable(_) | LedgerError::Broken(_)))
                && let Some(idle) = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
            {
                idle.push(reader);
            }
            view
        });
        read.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Ends the connections, now or when their read has ended.
    pub(super) async fn close(self: &Arc<Self>) {
        self.turns.close();
        let readers = Arc::clone(self);
        let closed = tokio::task::spawn_blocking(move || {
            readers.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        });
        closed.await.ok();
    }
}
