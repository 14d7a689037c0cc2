//! The embedded ledger: one SQLite file, shared by the jobmeter processes of one machine.
//!
//! WAL with `synchronous=FULL`: what was answered survives a power cut. Each transaction is `BEGIN IMMEDIATE`, so that
//! those of many processes are serial and a balance is never read and then changed by somebody else. There is no process
//! that could run a timer: expiry and periods are evaluated inside each transaction, by this machine's clock.

mod backup;
mod network;
mod open;
mod upgrade;
mod whole;

use std::collections::HashMap;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use self::backup::{Restoring, backup, restore};
pub use self::whole::{identity, is_missing};
use super::{Concerned, JobStop, Locked, Mode, Monotonic, Row, Store, StoreLedger, Table, Value};
use crate::ledger::{Interrupter, LedgerError};
use crate::sys::clock::Clock;
use crate::sys::process::boot_id;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params_from_iter};

/// Pages that a service keeps. More would be no help with more rows than that: what is asked for next is anywhere, and a
/// page comes out of the system's own cache in 2 µs.
const CACHE_OF_SERVICE_KIB: i64 = 16 * 1024;
/// So much of the log is copied into the file at once, in pages of 4 KiB. With 100 000 jobs each report writes a page of its
/// own, of some 10 000, and the more of the log is copied at once, the more often a page is copied once for several
/// reports; but all wait for that, 40 ms here.
const LOG_OF_SERVICE_PAGES: i64 = 8_000;
/// What of a log stays on the disk that somebody who read for long had made longer.
const LOG_OF_SERVICE_MAX_BYTES: i64 = LOG_OF_SERVICE_PAGES * 4_096;

/// File systems write times down in steps of 10 ms at most.
const TICK_MAX: Duration = Duration::from_millis(20);

/// One SQLite file.
pub struct Sqlite {
    db: Connection,
    path: PathBuf,
    /// Which file it is; of what is in memory, none.
    identity: Option<(u64, u64)>,
    /// It is a service's, which leaves everything in the file.
    leaves_whole: bool,
    clock: Box<dyn Clock>,
    /// By the addresses of tables.
    statements: HashMap<usize, String>,
    /// Changes with each commit of another connection; as it was when it was last asked for.
    data_version: Option<i64>,
    /// As it was when somebody last asked whether it had changed.
    written: Option<Written>,
}

/// The ledger on it.
pub type SqliteLedger = StoreLedger<Sqlite>;

impl std::fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.path).finish_non_exhaustive()
    }
}

impl StoreLedger<Sqlite> {
    /// Opens the file, and makes it where there is none.
    ///
    /// # Errors
    /// Where it is on a network file system, no ledger, of a newer version, or cannot be read and written.
    pub fn open_file(path: &Path, clock: Box<dyn Clock>) -> Result<Self, LedgerError> {
        Sqlite::open(path, clock).map(Self::new)
    }
}

fn gone(path: &Path) -> LedgerError {
    LedgerError::Unavailable(format!("{}: the file was removed or replaced while it was in use", path.display()))
}

/// How long the log is, and when it and the file were written to: each commit changes one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written([(u64, SystemTime); 2]);

impl Written {
    /// `None` where nobody can tell: the log is away, or is written to just now, so that the next commit may leave the same time.
    fn of(path: &Path) -> Option<Self> {
        let told = |path: &Path| std::fs::metadata(path).and_then(|meta| Ok((meta.len(), meta.modified()?))).ok();
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let (log, file) = (told(Path::new(&log))?, told(path)?);
        let is_old = |(_, at): (u64, SystemTime)| at.elapsed().is_ok_and(|since| since > TICK_MAX);
        (is_old(log) && is_old(file)).then_some(Self([log, file]))
    }
}

/// SQLite numbers parameters by `?1`, and takes several texts as one of JSON.
fn dialect(sql: &str) -> String {
    let mut parts = sql.split("= ANY($");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, after) = part.split_once(')').unwrap_or((part, ""));
        text.push_str(&format!("IN (SELECT value FROM json_each(${number})){after}"));
    }
    text.replace('$', "?")
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        let borrowed = match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Texts(texts) => {
                let json = serde_json::to_string(texts).unwrap_or_default();
                return Ok(rusqlite::types::ToSqlOutput::from(json));
            }
        };
        Ok(rusqlite::types::ToSqlOutput::Borrowed(borrowed))
    }
}

/// Writes one row of a table.
fn statement(table: &Table) -> String {
    let Table { name, columns, .. } = table;
    if table.mode == Mode::Update {
        let pairs: Vec<String> = columns.iter().zip(1..).map(|(column, at)| format!("{column} = ?{at}")).collect();
        let (keys, sets) = pairs.split_at_checked(table.key_count).unwrap_or((&pairs, &[]));
        return format!("UPDATE {name} SET {} WHERE {}", sets.join(", "), keys.join(" AND "));
    }
    let places: Vec<String> = (1..=columns.len()).map(|at| format!("?{at}")).collect();
    format!("INSERT INTO {name} ({}) VALUES ({}){}", table.names(), places.join(", "), table.on_conflict())
}

fn value(value: ValueRef<'_>) -> Result<Value, LedgerError> {
    match value {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(number) => Ok(Value::Int(number)),
        ValueRef::Text(text) => Ok(Value::Text(String::from_utf8_lossy(text).into_owned())),
        ValueRef::Real(_) | ValueRef::Blob(_) => {
            Err(LedgerError::Broken("the books are damaged: a value is neither number nor text".to_owned()))
        }
    }
}

impl Sqlite {
    /// See [`StoreLedger::open_file`].
    ///
    /// # Errors
    /// As there.
    pub fn open(path: &Path, clock: Box<dyn Clock>) -> Result<Self, LedgerError> {
        let db = open::open(path)?;
        let identity = identity(path).ok_or_else(|| gone(path))?;
        Ok(Self::of(db, path, Some(identity), clock))
    }

    /// Opens the file where there is one.
    ///
    /// # Errors
    /// As for [`Self::open`], and where there is none.
    pub fn open_existing(path: &Path, clock: Box<dyn Clock>) -> Result<Self, LedgerError> {
        if is_missing(path) {
            let why = "there is no ledger yet: the first job makes it, or the first change of an operator";
            return Err(LedgerError::Refused(format!("{}: {why}", path.display())));
        }
        Self::open(path, clock)
    }

    /// What there would be at a path before anything is written, in memory.
    ///
    /// # Errors
    /// Where SQLite refuses.
    pub fn empty(path: &Path, clock: Box<dyn Clock>) -> Result<Self, LedgerError> {
        Ok(Self::of(open::in_memory()?, path, None, clock))
    }

    fn of(db: Connection, path: &Path, identity: Option<(u64, u64)>, clock: Box<dyn Clock>) -> Self {
        let (path, statements) = (path.to_owned(), HashMap::new());
        Self { db, path, identity, leaves_whole: false, clock, statements, data_version: None, written: None }
    }

    /// With room for the pages that a service needs again and again, and a longer log, of which it leaves nothing beside the
    /// file; a sidecar of a few MiB has neither memory nor time to spare.
    ///
    /// # Errors
    /// Where SQLite refuses.
    pub fn with_much_memory(mut self) -> Result<Self, LedgerError> {
        self.told(self.db.pragma_update(None, "cache_size", -CACHE_OF_SERVICE_KIB))?;
        self.told(self.db.pragma_update(None, "wal_autocheckpoint", LOG_OF_SERVICE_PAGES))?;
        self.told(self.db.pragma_update(None, "journal_size_limit", LOG_OF_SERVICE_MAX_BYTES))?;
        self.leaves_whole = true;
        Ok(self)
    }

    /// SQLite would go on in a file that has been deleted or moved away, and what it acknowledged would be lost.
    fn is_there(&self) -> Result<(), LedgerError> {
        if self.identity.is_none() || identity(&self.path) == self.identity {
            return Ok(());
        }
        Err(gone(&self.path))
    }

    fn begin_by(&self, sql: &str) -> Result<i64, LedgerError> {
        self.is_there()?;
        // Read before the lock: periods never move backwards all the same.
        let now_us = self.clock.realtime_us();
        self.told(self.db.prepare_cached(sql).and_then(|mut begin| begin.execute([])))?;
        Ok(now_us)
    }

    /// An error of SQLite's with the file that it is about.
    fn told<T>(&self, result: rusqlite::Result<T>) -> Result<T, LedgerError> {
        result.map_err(|error| open::with_path(&self.path, LedgerError::from(error)))
    }

    fn rows(&self, sql: &str, parameters: &[Value]) -> rusqlite::Result<Vec<Result<Row, LedgerError>>> {
        let mut statement = self.db.prepare_cached(&dialect(sql))?;
        let columns = statement.column_count();
        let mut found = statement.query(params_from_iter(parameters))?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let values = (0..columns).map(|at| row.get_ref(at).map_err(LedgerError::from).and_then(value));
            rows.push(values.collect::<Result<Vec<_>, _>>().map(Row::new));
        }
        Ok(rows)
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        // A log beside another file that has taken the place of this one is that one's. Where somebody else has the file
        // open, or the disk is full, the log stays, and nothing is lost: the next who opens the file reads it.
        if self.leaves_whole && self.is_there().is_ok() {
            whole::leave_whole(&self.db).ok();
        }
    }
}

impl Store for Sqlite {
    fn begin(&mut self) -> Result<i64, LedgerError> {
        self.begin_by("BEGIN IMMEDIATE")
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic { boot: boot_id(), us: self.clock.boottime_us() }
    }

    fn begin_reading(&mut self) -> Result<i64, LedgerError> {
        self.begin_by("BEGIN DEFERRED")
    }

    fn lock(&mut self, _concerned: &Concerned<'_>) -> Result<Locked, LedgerError> {
        // The whole file is.
        let asked =
            self.db.prepare_cached("PRAGMA data_version").and_then(|mut ask| ask.query_row([], |row| row.get(0)));
        let before = self.data_version.replace(self.told(asked)?);
        Ok(Locked { revisions: None, busy: HashSet::new(), goes_on: before.is_some() && before == self.data_version })
    }

    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, LedgerError> {
        self.told(self.rows(sql, parameters))?.into_iter().collect()
    }

    fn write(&mut self, table: &'static Table, rows: Vec<Vec<Value>>) -> Result<(), LedgerError> {
        let sql = self.statements.entry(std::ptr::from_ref(table).addr()).or_insert_with(|| statement(table));
        let written = self.db.prepare_cached(sql).and_then(|mut statement| {
            rows.iter().try_fold(0, |count, row| statement.execute(params_from_iter(row)).map(|one| count + one))
        });
        let missing = || LedgerError::Broken(format!("a row of the table {} could not be written", table.name));
        if self.told(written)? == rows.len() { Ok(()) } else { Err(missing()) }
    }

    fn commit(&mut self) -> Result<(), LedgerError> {
        self.told(self.db.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]).map(|_| ())))
    }

    fn rollback(&mut self) {
        // Where SQLite has rolled back by itself there is none to roll back.
        if !self.db.is_autocommit() {
            self.db.execute_batch("ROLLBACK").ok();
        }
    }

    fn interrupter(&self) -> Option<Interrupter> {
        let handle = self.db.get_interrupt_handle();
        Some(Arc::new(move || {
            handle.interrupt();
            Ok(())
        }))
    }

    fn may_have_changed(&mut self) -> bool {
        let now = Written::of(&self.path);
        let before = std::mem::replace(&mut self.written, now);
        self.written.is_none() || before != self.written
    }

    fn job_stops(&mut self, id: &str) -> Result<Vec<JobStop>, LedgerError> {
        self.is_there()?;
        let found = self.db.prepare_cached(super::STOPPED).and_then(|mut statement| {
            let read = |row: &rusqlite::Row<'_>| {
                Ok(JobStop { owner: row.get(0)?, principal: row.get(1)?, is_stopped: row.get(2)? })
            };
            statement.query_map([id], read)?.collect()
        });
        self.told(found)
    }

    fn check(&mut self) -> Result<Vec<String>, LedgerError> {
        let lines = self.query("PRAGMA integrity_check(10)", &[])?;
        let lines = lines.into_iter().map(|mut row| row.text()).collect::<Result<Vec<_>, _>>()?;
        Ok(lines.into_iter().filter(|line| line != "ok").map(|line| format!("SQLite says: {line}")).collect())
    }
}

#[cfg(test)]
mod tests;
