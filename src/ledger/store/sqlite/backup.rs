//! Copies of a ledger: made while it is in use, and put back.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::whole::{beside, is_missing, refuse_incomplete};
use super::{SqliteLedger, open, whole};
use crate::ledger::LedgerError;
use crate::ledger::book::{Before, Books};
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
    copy_whole(&from, to).map_err(|error| open::with_path(to, error))
}

/// How a copy is put back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restoring {
    /// Also one that was made without its log, of which the last that was written is missing.
    pub takes_incomplete: bool,
}

/// Puts a copy in the place of the ledger, also for processes that use it now, and begins an epoch: what was acknowledged
/// after the copy was made is forgotten, and comes back with the reports and spool files of the attempts. What was there before
/// is kept beside it, in the file that is returned. `by` and `why` are for the books.
///
/// # Errors
/// Where `from` is no ledger or was copied without its log, one of the two cannot be opened, or there is no room to keep what
/// was there.
pub fn restore(
    path: &Path,
    from: &Path,
    how: Restoring,
    (by, why): (&str, &str),
    clock: Box<dyn Clock>,
) -> Result<Option<PathBuf>, LedgerError> {
    if !from.exists() {
        return Err(LedgerError::Refused(format!("{}: there is no such file", from.display())));
    }
    if !how.takes_incomplete {
        refuse_incomplete(from).map_err(|error| open::with_path(from, error))?;
    }
    let now_us = clock.realtime_us();
    let (before, mut kept) = look_before(path, now_us)?;
    // The epoch begins in a copy of the copy, which then comes in as a whole: nobody sees the old books without it.
    let scratch = beside(path, ".restoring");
    let restored = (|| {
        remove(&scratch)?;
        duplicate(from, &scratch)?;
        let mut ledger = SqliteLedger::open_file(&scratch, clock)?;
        ledger.as_told(|store, now_us| {
            let mut books = Books::new(store, now_us);
            books.restored(before.unwrap_or_default(), by, why)?;
            let changes = books.changes()?;
            sessions::remove_all(store)?;
            save::save(store, &changes)
        })?;
        let old = open::open(path)?;
        if before.is_some() {
            let aside = beside(path, &format!(".replaced-{now_us}"));
            copy_whole(&old, &aside).map_err(|error| open::with_path(&aside, error))?;
            kept = Some(aside);
        }
        drop(old);
        // It becomes another file.
        whole::forget(&ledger.store.db)?;
        copy(&ledger.store.db, path).map_err(|error| open::with_path(path, error))
    })();
    let removed = remove(&scratch);
    restored.and(removed).map(|()| kept)
}

/// The epoch of what is there and the longest lease that it gave, if there is anything that can be read; what cannot be is moved to
/// where it is kept.
fn look_before(path: &Path, now_us: i64) -> Result<(Option<Before>, Option<PathBuf>), LedgerError> {
    if is_missing(path) {
        return Ok((None, None));
    }
    match open::open(path) {
        Ok(db) => {
            let sql = "SELECT (SELECT coalesce(max(number), 0) FROM epoch), coalesce((SELECT max(lease_ms, CASE WHEN since_us + 2000 * \
                       outlasting_ms >= ?1 THEN outlasting_ms ELSE 0 END) FROM ledger_setting ORDER BY version DESC LIMIT 1), 0)";
            let counts = db.query_row(sql, [now_us], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
            let counted = |count: i64| u64::try_from(count).map_err(|error| LedgerError::Broken(error.to_string()));
            Ok((Some(Before { epoch: counted(counts.0)?, lease_ms: counted(counts.1)? }), None))
        }
        Err(LedgerError::Broken(_)) => put_aside(path, now_us).map(|kept| (None, Some(kept))),
        Err(error) => Err(error),
    }
}

/// Takes a file away with its log.
fn remove(path: &Path) -> Result<(), LedgerError> {
    for suffix in ["", "-wal", "-shm"] {
        let path = beside(path, suffix);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LedgerError::Refused(format!("cannot remove {}: {error}", path.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

/// With its log, if it was not made by [`backup`] but taken from a ledger that was in use. One that lacks it gets an empty one,
/// as whoever takes it knows.
fn duplicate(from: &Path, to: &Path) -> Result<(), LedgerError> {
    let copied = |suffix: &str| {
        open::make_for_its_user_alone(&beside(to, suffix))?;
        copy_bytes(&beside(from, suffix), &beside(to, suffix)).map_err(|error| {
            let (from, to) = (from.display(), to.display());
            LedgerError::Refused(format!("cannot copy {from}{suffix} to {to}{suffix}: {error}"))
        })
    };
    copied("")?;
    if beside(from, "-wal").exists() {
        copied("-wal")
    } else if refuse_incomplete(from).is_err() {
        open::make_for_its_user_alone(&beside(to, "-wal"))
    } else {
        Ok(())
    }
}

/// What of it others may read stays as it is.
fn copy_bytes(from: &Path, to: &Path) -> std::io::Result<()> {
    let no_link = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    let (mut from, mut to) = (File::open(from)?, File::options().write(true).custom_flags(no_link).open(to)?);
    std::io::copy(&mut from, &mut to).map(|_| ())
}

fn put_aside(path: &Path, now_us: i64) -> Result<PathBuf, LedgerError> {
    let kept = beside(path, &format!(".damaged-{now_us}"));
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (beside(path, suffix), beside(&kept, suffix));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LedgerError::Refused(format!("cannot move {} aside: {error}", from.display())));
            }
            _ => {}
        }
    }
    Ok(kept)
}

/// To a new file, which says that it has no log.
fn copy_whole(from: &Connection, to: &Path) -> Result<(), LedgerError> {
    if let Err(error) = File::options().write(true).create_new(true).mode(0o600).open(to) {
        return Err(LedgerError::Refused(format!("cannot write {}: {error}", to.display())));
    }
    copy(from, to)?;
    Ok(Connection::open(to)?.pragma_update(None, "journal_mode", "DELETE")?)
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
