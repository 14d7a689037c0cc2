//! The suite on SQLite, and what concerns files alone.

#![allow(clippy::pedantic, reason = "a test, not an interface")]

mod files;
mod restores;
#[path = "../suite/mod.rs"]
mod suite;

use super::*;
use crate::ledger::Ledger;
use crate::ledger::usage_range::UsageRange;
use crate::ledger::views::{Query, View, Whose};

type Place = tempfile::TempDir;

fn store_for_tests(clock: Box<dyn Clock>) -> (Place, Box<dyn Store>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&directory.path().join("l.db"), clock).unwrap();
    (directory, Box::new(store))
}

fn another_store(place: &Place, clock: Box<dyn Clock>) -> Box<dyn Store> {
    Box::new(Sqlite::open(&place.path().join("l.db"), clock).unwrap())
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

/// As jobmeter 0.1 made it before tokens could be reserved, with an account that has spent something.
#[test]
fn a_file_of_the_version_before_is_brought_forward() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(&crate::ledger::store::MIGRATIONS[0].replace("/* by key */", "WITHOUT ROWID")).unwrap();
    old.execute_batch(
        "INSERT INTO account VALUES ('u', 5000000000, 'day', 1795478400, 1795564800, 0, NULL, NULL, 1, 0, 0, 0, 0, 0, 0);
         INSERT INTO period VALUES ('u', 1795478400, 1795564800, 5000000000, 0, 7, 0);
         INSERT INTO entry VALUES ('u', 1, 1795478400000000, 'charge', 1795478400, 1795478400, 0, 7, 7, 0, 0, 28, 0, 0,
             NULL, NULL, 'meter', '');
         PRAGMA application_id = 0x4a424d54; PRAGMA user_version = 3;",
    )
    .unwrap();
    drop(old);
    for _ in 0..2 {
        let clock = suite::HandClock(std::sync::Arc::new((1_795_521_600 * 1_000_000).into()));
        let mut ledger = SqliteLedger::open_file(&path, Box::new(clock)).unwrap();
        let View::Verified(found) = ledger.read(&Query::Verify).unwrap() else { panic!() };
        assert_eq!((found.problems, found.entries), (Vec::new(), 1));
        // Names of before are somebody's, and what was used before counts.
        let another = ledger.read(&Query::Account { user: "U".into() });
        assert!(matches!(another, Err(crate::ledger::LedgerError::Refused(_))), "{another:?}");
        let db = Connection::open(&path).unwrap();
        let turnover: i64 = db.query_row("SELECT turnover FROM account", [], |row| row.get(0)).unwrap();
        assert!(turnover >= 4 * 7 + 28, "{turnover}");
        let View::Account(account) = ledger.read(&Query::Account { user: "u".into() }).unwrap() else { panic!() };
        assert_eq!(account.current.0, 7);
        let range = UsageRange::new(Some("2026-11"), None, None, None).unwrap();
        let query = Query::Usage { whose: Whose::User("u".into()), range };
        let View::Usage(days) = ledger.read(&query).unwrap() else { panic!() };
        let days: Vec<_> = days.iter().map(|day| (day.total_credits.0, day.total_virtual_cpu_time.0)).collect();
        assert_eq!(days, [(7, 28)]);
    }
    // What the sums of days say is held against the entries, too.
    for (damage, problems) in [("UPDATE usage_day SET cpu_us = 27", 1), ("UPDATE usage_day SET day = day + 86400", 2)] {
        let db = Connection::open(&path).unwrap();
        db.execute_batch(damage).unwrap();
        let mut ledger = SqliteLedger::open_file(&path, Box::new(crate::sys::clock::SystemClock)).unwrap();
        let View::Verified(found) = ledger.read(&Query::Verify).unwrap() else { panic!() };
        assert_eq!(found.problems.len(), problems, "{:?}", found.problems);
    }
}

/// Entries that an older version wrote name none before them; an attempt that runs on has both kinds.
#[test]
fn what_an_attempt_paid_is_found_across_versions() {
    let mut world = suite::World::new();
    let path = world.place.path().join("l.db");
    let (attempt, lease) = world.open("j", None);
    for (seq, cpu) in [(1, "0.1"), (2, "0.2"), (3, "0.3")] {
        world.report(attempt, seq, &suite::seconds(cpu), &lease, false);
    }
    let db = Connection::open(&path).unwrap();
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM entry WHERE previous IS NOT NULL"), 2);
    db.execute_batch(
        "DROP TRIGGER entry_no_update; UPDATE entry SET previous = NULL; UPDATE attempt SET last_entry = 0",
    )
    .unwrap();
    for (seq, cpu) in [(4, "0.4"), (5, "0.5"), (6, "0.6")] {
        world.report(attempt, seq, &suite::seconds(cpu), &lease, false);
    }
    world.check();
    assert_eq!(count("SELECT count(*) FROM entry WHERE previous IS NOT NULL"), 2);
    let paid = world.finish(attempt, &suite::seconds("0.7"), lease.period).charged.total;
    let burn = world.job("j").attempts.remove(0).burn;
    assert_eq!(burn.last().unwrap().charged, paid);
    world.check();
    // A chain that leads elsewhere is found.
    let (other, lease) = world.open("other", None);
    world.report(other, 1, &suite::seconds("0.1"), &lease, false);
    world.report(other, 2, &suite::seconds("0.2"), &lease, false);
    db.execute_batch("UPDATE entry SET previous = 3 WHERE number = (SELECT max(number) FROM entry)").unwrap();
    let View::Verified(found) = world.ledger.read(&Query::Verify).unwrap() else { panic!() };
    assert!(found.problems.iter().any(|problem| problem.contains("follows 3")), "{:?}", found.problems);
}

/// The figure that wakes people up says what `verify` says, also of an account that holds nothing more.
#[test]
fn an_account_that_overspent_is_counted() {
    let mut world = suite::World::new();
    let (attempt, lease) = world.open("j", None);
    world.finish(attempt, &suite::seconds("0.1"), lease.period);
    let mut overspent = |damage: &str| {
        Connection::open(world.place.path().join("l.db")).unwrap().execute_batch(damage).unwrap();
        let View::Figures(figures) = world.ledger.read(&Query::Figures).unwrap() else { panic!() };
        figures.overspent
    };
    assert_eq!(overspent(""), 0);
    assert_eq!(overspent("UPDATE period SET charged = credit_limit + 1"), 1);
}
