//! Copies of a ledger: made while it is in use, and put back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::{SqliteLedger, open};
use crate::ledger::LedgerError;
use crate::ledger::book::Books;
use crate::ledger::store::{save, sessions};
use crate::sys::clock::Clock;
use crate::sys::identity::FileIdentity;

/// Copies the ledger to a new file, in use or not. The copy is whole: it is made within one read transaction.
///
/// # Errors
/// Where one of the two cannot be opened, or `to` exists.
pub fn backup(path: &Path, to: &Path) -> Result<(), LedgerError> {
    if !path.exists() {
        return Err(LedgerError::Refused(format!("{}: there is no ledger", path.display())));
    }
    if to.symlink_metadata().is_ok() {
        return Err(LedgerError::Refused(format!("{} exists: a backup overwrites nothing", to.display())));
    }
    let from = open::open(path)?;
    let unwritable = |error| LedgerError::Refused(format!("cannot write {}: {error}", to.display()));
    let _as_owner = FileIdentity::of_folder_of(to).map_err(unwritable)?;
    copy(&from, to).map_err(|error| open::with_path(to, error))
}

/// Puts a copy in the place of the ledger, also for processes that use it now, and begins an epoch: what was acknowledged
/// after the copy was made is forgotten, and comes back with the reports and spool files of the attempts. A ledger that
/// cannot be read any more is kept beside it. `by` and `why` are for the books.
///
/// # Errors
/// Where `from` is no ledger, or one of the two cannot be opened.
pub fn restore(path: &Path, from: &Path, by: &str, why: &str, clock: Box<dyn Clock>) -> Result<(), LedgerError> {
    if !from.exists() {
        return Err(LedgerError::Refused(format!("{}: there is no such file", from.display())));
    }
    let before = match open::open(path) {
        Ok(db) => {
            let number = "SELECT coalesce(max(number), 0) FROM epoch";
            db.query_row(number, [], |row| row.get::<_, i64>(0)).map_or(0, |number| u64::try_from(number).unwrap_or(0))
        }
        Err(LedgerError::Broken(_)) => {
            put_aside(path, clock.realtime_us())?;
            0
        }
        Err(error) => return Err(error),
    };
    // The epoch begins in a copy of the copy, which then comes in as a whole: nobody sees the old books without it.
    let scratch = beside(path, ".restoring");
    let restored = (|| {
        duplicate(from, &scratch)?;
        let mut ledger = SqliteLedger::open_file(&scratch, clock)?;
        ledger.as_told(|store, now_us| {
            let mut books = Books::new(store, now_us);
            books.restored(before, by, why)?;
            let changes = books.changes()?;
            sessions::remove_all(store)?;
            save::save(store, &changes)
        })?;
        drop(open::open(path)?);
        copy(&ledger.store.db, path).map_err(|error| open::with_path(path, error))
    })();
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(beside(&scratch, suffix)).ok();
    }
    restored
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// With its log, if it was not made by [`backup`] but taken from a ledger that was in use.
fn duplicate(from: &Path, to: &Path) -> Result<(), LedgerError> {
    for suffix in ["", "-wal"] {
        let (from, to) = (beside(from, suffix), beside(to, suffix));
        if suffix.is_empty() || from.exists() {
            std::fs::copy(&from, &to).map_err(|error| {
                LedgerError::Refused(format!("cannot copy {} to {}: {error}", from.display(), to.display()))
            })?;
        }
    }
    Ok(())
}

fn put_aside(path: &Path, now_us: i64) -> Result<(), LedgerError> {
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (beside(path, suffix), beside(path, &format!(".damaged-{}{suffix}", now_us / 1_000_000)));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LedgerError::Refused(format!("cannot move {} aside: {error}", from.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

fn copy(from: &Connection, to: &Path) -> Result<(), LedgerError> {
    let mut to = Connection::open(to)?;
    to.busy_timeout(Duration::from_secs(10))?;
    let backup = rusqlite::backup::Backup::new(from, &mut to)?;
    // All pages in one step, so that no writer comes between.
    match backup.step(-1)? {
        rusqlite::backup::StepResult::Done => Ok(()),
        _ => Err(LedgerError::Unavailable("other jobmeter processes keep it busy: try again".to_owned())),
    }
}
