//! Whether a ledger's file is all of it. SQLite writes what was committed last into a log beside the file (`ledger.db-wal`), and a copy
//! of the file alone is a ledger of some time before, in which credits that were spent are free again.
//!
//! A file that is in use says in its header that it has a log, and in a table which inode it was when it was opened. So a
//! file that should have a log, has none, and is another inode was copied without it. What a service leaves behind, and a
//! backup, say that they have no log.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::ledger::LedgerError;
use crate::sys::clock::pause;

/// The first bytes of a file of SQLite's, two before those that are its versions for reading and writing
/// (sqlite.org/fileformat2.html).
const MAGIC: &[u8] = b"SQLite format 3\0";
/// The versions of a file that has a log.
const WITH_LOG: [u8; 2] = [2, 2];
const VERSIONS_AT: usize = 18;
/// A process that ends takes its log away after it has written so into the file, and one that begins makes it before: looked
/// at again, what was under way is over.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// The file beside another whose name goes on like this.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Which file it is: its device and inode, `None` where there is none.
#[must_use]
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Whether nothing at all is there.
#[must_use]
pub fn is_missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Refuses a copy that was made without its log. Creates nothing.
///
/// # Errors
/// Where the file is such a copy.
pub(super) fn refuse_incomplete(path: &Path) -> Result<(), LedgerError> {
    for look in 0..LOOKS {
        if look > 0 {
            pause(BETWEEN_LOOKS);
        }
        // What cannot be read says it again when it is opened.
        if !lacks_log(path).unwrap_or(false) {
            return Ok(());
        }
    }
    Err(LedgerError::Broken(format!(
        "it was copied from a ledger in use without its log: what was written last is missing. Copy {}-wal as well, or make \
         copies by `jobmeter ledger backup`; to go on from what is there: `jobmeter ledger restore --incomplete`",
        path.file_name().unwrap_or_default().display()
    )))
}

fn lacks_log(path: &Path) -> io::Result<bool> {
    if beside(path, "-wal").exists() || !says_it_has_log(path)? {
        return Ok(false);
    }
    let recorded = recorded(path).ok().flatten();
    let is_another = recorded.is_some_and(|inode| identity(path).is_some_and(|(_, own)| own.cast_signed() != inode));
    Ok(is_another && !beside(path, "-wal").exists())
}

fn says_it_has_log(path: &Path) -> io::Result<bool> {
    let mut header = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(VERSIONS_AT as u64 + 2).read_to_end(&mut header)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(header.starts_with(MAGIC) && header.get(VERSIONS_AT..).is_some_and(|versions| versions == WITH_LOG))
}

/// The inode that the file was when it was opened last, as the file alone says without a log.
fn recorded(path: &Path) -> rusqlite::Result<Option<i64>> {
    let letters = path.as_os_str().as_bytes().iter().map(|byte| match byte {
        b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    let uri = format!("file:{}?immutable=1", letters.collect::<String>());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    asked(&Connection::open_with_flags(uri, flags)?)
}

fn asked(db: &Connection) -> rusqlite::Result<Option<i64>> {
    let known: i64 =
        db.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'jobmeter_file'", [], |row| row.get(0))?;
    if known == 0 {
        return Ok(None);
    }
    db.query_row("SELECT inode FROM jobmeter_file", [], |row| row.get(0)).optional()
}

/// Writes into the file itself which one it is, where it does not say so yet.
///
/// # Errors
/// Those of SQLite.
pub(super) fn record(db: &mut Connection, path: &Path) -> Result<(), LedgerError> {
    let Some((_, inode)) = identity(path) else { return Ok(()) };
    let inode = inode.cast_signed();
    if asked(db)? == Some(inode) {
        return Ok(());
    }
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS jobmeter_file (one INTEGER PRIMARY KEY CHECK (one = 1), inode BIGINT NOT NULL)",
    )?;
    tx.execute("INSERT OR REPLACE INTO jobmeter_file (one, inode) VALUES (1, ?1)", [inode])?;
    tx.commit()?;
    checkpoint(db, "PASSIVE")
}

/// Takes out of the file which one it is: its pages go to another.
///
/// # Errors
/// Those of SQLite.
pub(super) fn forget(db: &Connection) -> Result<(), LedgerError> {
    Ok(db.execute("DELETE FROM jobmeter_file", []).map(|_| ())?)
}

/// Copies the log into the file, as far as those who read let it.
///
/// # Errors
/// Those of SQLite.
fn checkpoint(db: &Connection, mode: &str) -> Result<(), LedgerError> {
    Ok(db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))?)
}

/// Leaves everything in the file, and no log beside it where nobody else has it open.
///
/// # Errors
/// Those of SQLite, also where another process keeps the log in use.
pub(super) fn leave_whole(db: &Connection) -> Result<(), LedgerError> {
    db.busy_timeout(Duration::ZERO)?;
    checkpoint(db, "TRUNCATE")?;
    Ok(db.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?)
}
