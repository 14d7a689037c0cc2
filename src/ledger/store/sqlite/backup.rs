//! Copies of a ledger: made while it is in use, and put back.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::open;
use crate::ledger::LedgerError;

/// Copies the ledger to a new file, in use or not. The copy is whole: it is made within one read transaction.
///
/// # Errors
/// Where one of the two cannot be opened, or `to` exists.
pub fn backup(path: &Path, to: &Path) -> Result<(), LedgerError> {
    if !path.exists() {
        return Err(LedgerError::Refused(format!("{}: there is no ledger", path.display())));
    }
    if to.exists() {
        return Err(LedgerError::Refused(format!("{} exists: a backup overwrites nothing", to.display())));
    }
    let from = open::open(path)?;
    copy(&from, to).map_err(|error| open::with_path(to, error))
}

/// Puts a copy in the place of the ledger. What the ledger holds is replaced, also for processes that use it now.
///
/// # Errors
/// Where `from` is no ledger, or one of the two cannot be opened.
pub fn restore(path: &Path, from: &Path) -> Result<(), LedgerError> {
    if !from.exists() {
        return Err(LedgerError::Refused(format!("{}: there is no such file", from.display())));
    }
    // Opening it checks that it is a ledger of a version that is known.
    let copied = open::open(from)?;
    drop(open::open(path)?);
    copy(&copied, path).map_err(|error| open::with_path(path, error))
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
