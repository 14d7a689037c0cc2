//! The embedded ledger: one SQLite file, shared by the jobmeter processes of one machine.
//!
//! WAL with `synchronous=FULL`: what was answered survives a power cut. Each call is one `BEGIN IMMEDIATE` transaction,
//! so calls of many processes are serial and a balance is never read and then changed by somebody else. There is no
//! process that could run a timer: expiry and periods are evaluated inside each transaction, by this machine's clock.

mod accounts;
mod attempts;
mod backup;
mod changes;
mod entries;
mod holds;
mod open;
mod opening;
mod row;
mod verify;
mod views;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Transaction, TransactionBehavior};

pub use self::backup::{backup, restore};
use crate::ledger::protocol::{Finish, FinishAnswer, OpenAnswer, OpenRequest, Report, ReportAnswer};
use crate::ledger::views::{Change, ChangeAnswer, Query, View};
use crate::ledger::{Ledger, LedgerError};
use crate::sys::clock::Clock;

/// One SQLite file.
pub struct SqliteLedger {
    db: Connection,
    path: PathBuf,
    clock: Box<dyn Clock>,
}

/// The books within one transaction, and the ledger's time in it.
pub(super) struct Books<'a> {
    tx: Transaction<'a>,
    now_us: i64,
}

impl Books<'_> {
    fn now_s(&self) -> i64 {
        self.now_us.div_euclid(1_000_000)
    }
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
        Ok(Self { db, path: path.to_owned(), clock })
    }

    fn within<T>(&mut self, act: impl FnOnce(&Books<'_>) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
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
        self.within(|books| books.read(query))
    }
}

#[cfg(test)]
mod tests;
