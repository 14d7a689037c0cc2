//! Opening a ledger file, and what SQLite's errors mean to a caller.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::{network, upgrade, whole};
use crate::domain::user_name::folded;
use crate::ledger::LedgerError;
use crate::ledger::store::{ADDED, MIGRATIONS, NAMES_VERSION};
use crate::sys::clock::{Clock, SystemClock, pause};
use crate::sys::trust;

/// "JBMT": tells a ledger from every other SQLite file.
const APPLICATION_ID: i64 = 0x4a42_4d54;
/// The version of files as the first migration makes them.
const SCHEMA_FIRST: i64 = 3;
/// The version of files from which on the table of names is there.
const SCHEMA_NAMES: i64 = SCHEMA_FIRST - 1 + NAMES_VERSION.cast_signed();
/// The version of the tables as they are now; forward only. Those before [`SCHEMA_FIRST`] are taken over by [`upgrade`].
const SCHEMA_VERSION: i64 = 13;
const _: () = assert!(MIGRATIONS.len() == 11, "each migration raises the version");
/// What the tables have on SQLite alone.
const TRIGGERS: &str = "
    CREATE TRIGGER entry_no_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
    CREATE TRIGGER entry_no_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;";
/// Many processes share the file; each holds it for a commit of some milliseconds.
const BUSY_MAX: Duration = Duration::from_secs(10);
const BUSY_LOOK: Duration = Duration::from_millis(1);
/// What of a log stays on the disk that somebody who read for long had made longer: as much as SQLite lets come together.
const LOG_MAX_BYTES: i64 = 4 << 20;
/// So many statements stay prepared; a group of reports has some twenty, and SQLite's cache of 16 would lose each of them
/// before it is asked for again.
const STATEMENTS_MAX: usize = 64;

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Unavailable("other jobmeter processes keep it busy: try again".to_owned())
            }
            Some(ErrorCode::DiskFull) => Self::Unavailable("the disk is full: free some space".to_owned()),
            Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) => Self::Unavailable(text),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Self::Refused("it cannot be written: check the permissions of the file and of its directory".to_owned())
            }
            Some(ErrorCode::CannotOpen) => {
                Self::Refused("it cannot be opened: check that the directory exists and may be written".to_owned())
            }
            Some(ErrorCode::NotADatabase) => {
                Self::Broken("it is not a ledger, or is damaged: name another file by --ledger".to_owned())
            }
            _ => Self::Broken(text),
        }
    }
}

/// The same error, with the file that it is about.
pub(super) fn with_path(path: &Path, error: LedgerError) -> LedgerError {
    let named = |text: String| format!("{}: {text}", path.display());
    match error {
        // These are about a value, which they name.
        error @ (LedgerError::Missing(_)
        | LedgerError::Outdated(_)
        | LedgerError::Unknown(_)
        | LedgerError::Foreign
        | LedgerError::Locked(_)
        | LedgerError::Conflict(_)) => error,
        // A refusal is about a value, which it names.
        LedgerError::Refused(text) if !text.starts_with("it cannot") => LedgerError::Refused(text),
        LedgerError::Refused(text) => LedgerError::Refused(named(text)),
        LedgerError::Unavailable(text) => LedgerError::Unavailable(named(text)),
        LedgerError::Broken(text) => LedgerError::Broken(named(text)),
    }
}

/// Opens, checks and where need be makes the file.
pub(super) fn open(path: &Path) -> Result<Connection, LedgerError> {
    let led_elsewhere = |why: trust::Distrust| LedgerError::Refused(format!("{}: {why}", path.display()));
    let is_root = nix::unistd::geteuid().is_root();
    if is_root && let Some(why) = trust::resolve(path).err().filter(|why| !why.is_missing()) {
        return Err(led_elsewhere(why));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_directory(parent)
        .map_err(|error| LedgerError::Refused(format!("cannot make the directory {}: {error}", parent.display())))?;
    network::refuse(parent)?;
    whole::refuse_incomplete(path).map_err(|error| with_path(path, error))?;
    make_for_its_user_alone(path)?;
    if is_root {
        return open_with(&trust::resolve(path).map_err(led_elsewhere)?, OpenFlags::SQLITE_OPEN_NOFOLLOW);
    }
    open_with(path, OpenFlags::empty())
}

/// Makes an empty file, of which SQLite makes a ledger. Command lines of everybody are in it. One that is there stays as it is.
///
/// # Errors
/// Where it cannot be made, but for what SQLite says itself when it opens the file.
pub(super) fn make_for_its_user_alone(path: &Path) -> Result<(), LedgerError> {
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            Err(LedgerError::Unavailable(format!("{}: {error}", path.display())))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn open_with(path: &Path, more: OpenFlags) -> Result<Connection, LedgerError> {
    let flags =
        more | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags).map_err(LedgerError::from);
    let prepared = opened.and_then(prepare).and_then(|mut db| whole::record(&mut db, path).map(|()| db));
    prepared.map_err(|error| with_path(path, error))
}

/// A ledger that nobody else sees, and that ends with the connection.
pub(super) fn in_memory() -> Result<Connection, LedgerError> {
    prepare(Connection::open_in_memory()?)
}

/// The default place is made with its parents, for its user alone.
fn make_directory(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn prepare(mut db: Connection) -> Result<Connection, LedgerError> {
    db.busy_handler(Some(wait_for_others))?;
    // In one read, since another process may be making the ledger just now.
    let look = db.transaction_with_behavior(TransactionBehavior::Deferred)?;
    let tables: i64 = look.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let number = |name: &str| look.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (id, version) = (number("application_id")?, number("user_version")?);
    look.finish()?;
    if id != APPLICATION_ID && (id != 0 || tables != 0) {
        return Err(LedgerError::Broken("it is an SQLite file, but no ledger: name another by --ledger".to_owned()));
    }
    if version > SCHEMA_VERSION {
        return Err(LedgerError::Broken(format!(
            "it is a ledger of version {version}, and this jobmeter knows versions up to {SCHEMA_VERSION}: use a newer \
             jobmeter"
        )));
    }
    write_ahead(&db)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "cache_size", -512)?;
    db.pragma_update(None, "journal_size_limit", LOG_MAX_BYTES)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // With what is bound now and then another plan, a statement would be compiled anew each time.
    db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // The last process to close would else copy the log into the file and sync twice, at the end of every short job.
    db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    if version < SCHEMA_VERSION || !missing_columns(&db)?.is_empty() {
        migrate(&mut db)?;
    }
    Ok(db)
}

/// SQLite's own handler waits longer each time, up to 100 ms, so that who has waited longest waits on: with 64 processes
/// the slowest call took seconds.
fn wait_for_others(times: i32) -> bool {
    pause(BUSY_LOOK);
    u128::from(times.unsigned_abs()) * BUSY_LOOK.as_micros() < BUSY_MAX.as_micros()
}

/// The change to WAL fails at once, without the busy handler, while another process opens the file.
fn write_ahead(db: &Connection) -> Result<(), LedgerError> {
    let until_us = SystemClock.boottime_us().saturating_add(u64::try_from(BUSY_MAX.as_micros()).unwrap_or(u64::MAX));
    loop {
        match db.pragma_update(None, "journal_mode", "WAL").map_err(LedgerError::from) {
            Err(LedgerError::Unavailable(_)) if SystemClock.boottime_us() < until_us => pause(BUSY_LOOK),
            done => return done,
        }
    }
}

/// The statements that add them, see [`ADDED`].
fn missing_columns(db: &Connection) -> Result<Vec<String>, LedgerError> {
    let mut look = db.prepare("SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2")?;
    let mut missing = Vec::new();
    for (table, column, kind) in ADDED {
        if look.query_row([table, column], |row| row.get::<_, i64>(0))? == 0 {
            missing.push(format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"));
        }
    }
    Ok(missing)
}

fn migrate(db: &mut Connection) -> Result<(), LedgerError> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have made it between the look and the lock.
    let version: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    // Rows are kept in the order of their keys.
    let tables = MIGRATIONS.map(|migration| migration.replace("/* by key */", "WITHOUT ROWID"));
    for (at, tables) in (SCHEMA_FIRST..).zip(&tables).filter(|(at, _)| *at > version) {
        if at == SCHEMA_FIRST && version > 0 {
            upgrade::put_aside(&tx)?;
        }
        tx.execute_batch(tables)?;
        if at == SCHEMA_FIRST && version > 0 {
            upgrade::take_over(&tx)?;
        }
        if at == SCHEMA_FIRST {
            tx.execute_batch(TRIGGERS)?;
        }
        if at == SCHEMA_NAMES {
            know_names(&tx)?;
        }
    }
    for addition in missing_columns(&tx)? {
        tx.execute_batch(&addition)?;
    }
    if version < SCHEMA_VERSION {
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    Ok(tx.commit()?)
}

/// Whose each name is, of those that are there before the table of names.
fn know_names(tx: &Transaction<'_>) -> Result<(), LedgerError> {
    let mut owners = tx.prepare("SELECT owner FROM account WHERE owner <> '' ORDER BY owner")?;
    let owners = owners.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let mut put = tx.prepare("INSERT INTO account_name (folded, owner) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
    owners.iter().try_for_each(|owner| put.execute([&folded(owner), owner]).map(|_| ()))?;
    Ok(())
}
