//! The embedded ledger: one SQLite file, shared by the jobmeter processes of one machine.
//!
//! WAL with `synchronous=FULL`: what was answered survives a power cut. Each call is one `BEGIN IMMEDIATE` transaction,
//! so calls of many processes are serial and a balance is never read and then changed by somebody else. There is no
//! process that could run a timer: expiry and periods are evaluated inside each transaction, by this machine's clock.

mod accounts;
mod attempts;
mod backup;
mod changes;
mod correction;
mod entries;
mod epoch;
mod holds;
mod network;
mod open;
mod opening;
mod row;
mod verify;
mod views;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

pub use self::backup::{backup, restore};
use crate::ledger::protocol::{Finish, FinishAnswer, OpenAnswer, OpenRequest, Report, ReportAnswer};
use crate::ledger::views::{Change, ChangeAnswer, Query, View};
use crate::ledger::{Ledger, LedgerError};
use crate::sys::clock::Clock;

/// One SQLite file.
pub struct SqliteLedger {
    db: Connection,
    path: PathBuf,
    inode: u64,
    clock: Box<dyn Clock>,
}

/// The books within one transaction, and the ledger's time in it.
pub(super) struct Books<'a> {
    tx: Transaction<'a>,
    now_us: i64,
}

impl Books<'_> {
    /// Seconds since 1970, UTC.
    fn now_s(&self) -> i64 {
        self.now_us.div_euclid(1_000_000)
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|meta| std::os::unix::fs::MetadataExt::ino(&meta))
}

impl std::fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteLedger").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SqliteLedger {
    /// Opens the file, and makes it where there is none.
    ///
    /// # Errors
    /// Where it is on a network file system, no ledger, of a newer version, or cannot be read and written.
    pub fn open(path: &Path, clock: Box<dyn Clock>) -> Result<Self, LedgerError> {
        let db = open::open(path)?;
        Ok(Self { db, path: path.to_owned(), inode: inode(path).unwrap_or(0), clock })
    }

    /// SQLite would go on in a file that has been deleted or moved away, and what it acknowledged would be lost.
    fn is_there(&self) -> Result<(), LedgerError> {
        if inode(&self.path) == Some(self.inode) {
            return Ok(());
        }
        let path = self.path.display();
        Err(LedgerError::Unavailable(format!("{path}: the file was removed or replaced while it was in use")))
    }

    fn is_stopped(&self, job: &str) -> Result<bool, LedgerError> {
        self.is_there()?;
        let mut statement = self.db.prepare_cached("SELECT stopped FROM job WHERE id = ?1")?;
        Ok(statement.query_row([job], |row| row.get(0)).optional()?.unwrap_or(false))
    }

    fn within<T>(&mut self, act: impl FnOnce(&Books<'_>) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        self.is_there()?;
        let now_us = self.clock.realtime_us();
        let path = &self.path;
        let named = |error: LedgerError| open::with_path(path, error);
        let tx = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| named(LedgerError::from(error)))?;
        let books = Books { tx, now_us };
        let answer = act(&books).map_err(named)?;
        books.tx.commit().map_err(|error| named(LedgerError::from(error)))?;
        Ok(answer)
    }
}

impl Ledger for SqliteLedger {
    fn open(&mut self, request: &OpenRequest) -> Result<OpenAnswer, LedgerError> {
        self.within(|books| books.open(request))
    }

    fn report(&mut self, report: &Report) -> Result<ReportAnswer, LedgerError> {
        self.within(|books| books.report(report))
    }

    fn finish(&mut self, finish: &Finish) -> Result<FinishAnswer, LedgerError> {
        self.within(|books| books.finish(finish))
    }

    fn change(&mut self, change: &Change) -> Result<ChangeAnswer, LedgerError> {
        self.within(|books| books.change(change))
    }

    fn read(&mut self, query: &Query) -> Result<View, LedgerError> {
        if let Query::Stopped { job } = query {
            // Each sidecar asks this each second: it may not wait for writers, nor make them wait.
            return Ok(View::Stopped(self.is_stopped(job).map_err(|error| open::with_path(&self.path, error))?));
        }
        self.within(|books| books.read(query))
    }
}

#[cfg(test)]
mod tests;
