//! The first key, which makes all others.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::ledger::keys::{KeyView, Scope, Secret};
use crate::ledger::views::{Change, NewKey, Query, View};
use crate::ledger::{Ledger, LedgerError};
use crate::sys::trust;

/// The first start makes a key that may do everything, and writes it to a file that its user alone can read. It is in
/// the file before it is in the books: a crash in between leaves a file whose key the next start takes in. Of services that
/// start at once with one file, one makes the key and the others take it.
pub(super) fn ensure_admin_key(ledger: &mut dyn Ledger, file: &Path) -> Result<(), LedgerError> {
    let secret = match read(file)? {
        Some(secret) => secret,
        None => {
            let is_valid = |key: &KeyView| key.scope == Scope::Admin && !key.is_over;
            if keys(ledger)?.iter().any(is_valid) {
                return Ok(());
            }
            write(file, &Secret::new()).map_err(|error| refused(file, &error.to_string()))?;
            read(file)?.ok_or_else(|| refused(file, "it was removed just now"))?
        }
    };
    if is_known(ledger, &secret)? {
        return Ok(());
    }
    let key = NewKey::new("first admin key", Scope::Admin, "jobmeter serve");
    let (id, hash) = (secret.id().to_owned(), secret.hash());
    let made = ledger.change(&Change::CreateKey { id, hash, key });
    match made {
        // Another service was faster.
        Err(_) if is_known(ledger, &secret)? => Ok(()),
        made => made.map(|_| ()),
    }
}

fn refused(file: &Path, why: &str) -> LedgerError {
    LedgerError::Refused(format!("cannot use the admin key file {}: {why}: name another", file.display()))
}

fn keys(ledger: &mut dyn Ledger) -> Result<Vec<KeyView>, LedgerError> {
    match ledger.read(&Query::Keys { id: None })? {
        View::Keys(known) => Ok(known),
        _ => Err(LedgerError::unasked()),
    }
}

fn is_known(ledger: &mut dyn Ledger, secret: &Secret) -> Result<bool, LedgerError> {
    Ok(keys(ledger)?.iter().any(|key| key.id == secret.id()))
}

/// The key in the file, if there is one.
fn read(file: &Path) -> Result<Option<Secret>, LedgerError> {
    match trust::read_to_string(file) {
        Ok(text) => {
            let secret = text.parse::<Secret>();
            secret.map(Some).map_err(|why| LedgerError::Refused(format!("{}: {why}", file.display())))
        }
        Err(why) if why.is_missing() => Ok(None),
        // Whoever put it there knows it.
        Err(why) => Err(refused(file, &why.to_string())),
    }
}

/// The file appears with the whole key in it, or not at all; one that is there stays.
fn write(file: &Path, secret: &Secret) -> io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{}", Uuid::now_v7()));
    let new = PathBuf::from(name);
    let written = (|| {
        let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        writeln!(open, "{}", secret.text())?;
        open.sync_all()?;
        match std::fs::hard_link(&new, file) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    })();
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => written.and(Err(error)),
        _ => written,
    }
}
