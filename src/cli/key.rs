//! `jobmeter key`: keys of a ledger service.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use super::args::Key;
use super::output::{Failure, Output};
use super::settings::Settings;
use super::values::Span;
use crate::ledger::LedgerError;
use crate::ledger::keys::{KeyView, Secret};
use crate::ledger::views::{Change, NewKey, Query, View};
use crate::sys::identity::FileIdentity;

pub(super) fn key(key: Key, settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    let mut ledger = match &key {
        Key::Create { .. } => settings.connect()?,
        Key::List | Key::Revoke { .. } => settings.connect_existing()?,
    };
    match key {
        Key::Create { name, scope, principal, expires_in, only_user, to } => {
            let user = only_user.then(|| settings.user.clone());
            let expires_at = expires_in.map(Span::after_now_s);
            // A key that nobody can keep is not made.
            let new = to.as_deref().map(create).transpose()?;
            let by = settings.by.clone();
            let made = ledger.new_key(&NewKey { name, scope, user, principal, expires_at, by });
            let made = made.inspect_err(|_| drop(to.as_deref().map(remove)))?;
            let id = made.id().to_owned();
            match to.zip(new) {
                Some((file, new)) => {
                    write(&file, new, &made)?;
                    let told = format!("key {id} is in {}\n", file.display());
                    out.print(&serde_json::json!({ "id": id, "file": file }), |_| told)
                }
                None => {
                    out.print(&serde_json::json!({ "id": id, "key": made.text() }), |_| format!("{}\n", made.text()))
                }
            }
        }
        Key::List => {
            let View::Keys(keys) = ledger.read(&Query::Keys { id: None })? else {
                return Err(LedgerError::unasked().into());
            };
            out.print(&keys, |style| {
                let rows: Vec<_> = keys.iter().map(row).collect();
                let header = ["ID", "SCOPE", "USER", "PRINCIPAL", "CREATED", "ENDS", "LAST USED", "REVOKED", "NAME"];
                style.table(&header, &rows)
            })
        }
        Key::Revoke { id } => {
            let answer = ledger.change(&Change::RevokeKey { id: id.clone(), by: settings.by.clone() })?;
            let told = if answer.again { "had been revoked before" } else { "is revoked" };
            out.print(&answer, |_| format!("key {id} {told}\n"))
        }
    }
}

fn row(key: &KeyView) -> Vec<String> {
    let at = |time: &Option<String>| time.clone().unwrap_or_default();
    vec![
        key.id.clone(),
        key.scope.as_str().to_owned(),
        key.user.clone().unwrap_or_else(|| "all".to_owned()),
        key.principal.clone(),
        key.created_at.clone(),
        at(&key.expires_at),
        at(&key.used_at),
        at(&key.revoked_at),
        key.name.clone(),
    ]
}

/// A new file that its user alone can read: whom the folder belongs to.
fn create(file: &Path) -> Result<File, Failure> {
    let mut new = std::fs::OpenOptions::new();
    let opened =
        FileIdentity::of_folder_of(file).and_then(|_as_owner| new.write(true).create_new(true).mode(0o600).open(file));
    opened.map_err(|error| Failure::new(format!("cannot write {}", file.display())).because(error))
}

/// What has just been made, where nobody has put something else in its place.
fn remove(file: &Path) -> std::io::Result<()> {
    let _as_owner = FileIdentity::of_folder_of(file)?;
    std::fs::remove_file(file)
}

fn write(file: &Path, mut new: File, key: &Secret) -> Result<(), Failure> {
    let written = writeln!(new, "{}", key.text()).and_then(|()| new.sync_all());
    let hint = format!("key {} was made all the same: revoke it by `jobmeter key revoke {}`", key.id(), key.id());
    written.map_err(|error| Failure::new(format!("cannot write {}", file.display())).because(error).hint(hint))
}
