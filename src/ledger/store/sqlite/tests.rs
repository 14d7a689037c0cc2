//! The suite on SQLite, and what concerns files alone.

#![allow(clippy::pedantic, reason = "a test, not an interface")]

mod restores;
#[path = "../suite/mod.rs"]
mod suite;

use super::*;

type Place = tempfile::TempDir;

fn store_for_tests(clock: Box<dyn Clock>) -> (Place, Box<dyn Store>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&directory.path().join("l.db"), clock).unwrap();
    (directory, Box::new(store))
}

#[test]
fn what_is_no_ledger_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.db");
    std::fs::write(&path, "this is a text of somebody else, longer than a header\n".repeat(100)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = SqliteLedger::open_file(&path, Box::new(crate::sys::clock::SystemClock)).unwrap_err();
    assert!(error.to_string().contains("x.db"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_ledger_of_a_newer_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.db");
    drop(SqliteLedger::open_file(&path, Box::new(crate::sys::clock::SystemClock)).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = SqliteLedger::open_file(&path, Box::new(crate::sys::clock::SystemClock)).unwrap_err();
    assert!(matches!(&error, LedgerError::Broken(why) if why.contains("newer")), "{error}");
}
