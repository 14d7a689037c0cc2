//! The file itself: copies without their log, what is left behind, who may read it, and how long its log gets.

use std::os::unix::fs::PermissionsExt;

use super::super::whole::beside;
use super::suite::{self, World, seconds};
use super::*;
use crate::ledger::LedgerError;
use crate::sys::clock::SystemClock;

fn clock() -> Box<SystemClock> {
    Box::new(SystemClock)
}

/// An account that has spent something, on a service's connection or on a sidecar's.
fn spent(world: &mut World) {
    let (attempt, lease) = world.open("j", None);
    world.finish(attempt, &seconds("0.4"), lease.period);
}

fn entries(path: &Path) -> Result<u64, LedgerError> {
    let View::Verified(found) = SqliteLedger::open_file(path, clock())?.read(&Query::Verify)? else { panic!() };
    assert_eq!(found.problems, Vec::<String>::new());
    Ok(found.entries)
}

fn copy_file(world: &World, from: &str, to: &str) -> PathBuf {
    let (from, to) = (world.place.path().join(from), world.place.path().join(to));
    std::fs::copy(&from, &to).unwrap();
    to
}

#[test]
fn a_copy_without_its_log_is_noticed() {
    let mut world = World::new();
    spent(&mut world);
    let copy = copy_file(&world, "l.db", "copy.db");
    let error = entries(&copy).unwrap_err();
    assert!(
        matches!(&error, LedgerError::Broken(why) if why.contains("copy.db") && why.contains("without its log")),
        "{error}"
    );
    assert!(!beside(&copy, "-wal").exists(), "looking makes nothing");
    // With its log it is whole, and so is a backup.
    copy_file(&world, "l.db", "both.db");
    let both = copy_file(&world, "l.db-wal", "both.db-wal").with_file_name("both.db");
    let backed_up = world.place.path().join("backup.db");
    backup(&world.place.path().join("l.db"), &backed_up).unwrap();
    let known = entries(&world.place.path().join("l.db")).unwrap();
    assert!(known > 0);
    for whole in [both, backed_up] {
        assert_eq!(entries(&whole).unwrap(), known);
    }
    // The ledger itself goes on.
    world.check();
}

/// What a service leaves behind is one file, which can be copied as it is.
#[test]
fn a_service_leaves_everything_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("l.db");
    let mut ledger = StoreLedger::new(Sqlite::open(&path, clock()).unwrap().with_much_memory().unwrap());
    let request = World::request("j", None);
    ledger.open(&request).unwrap();
    // While somebody else has it open, everything is in the file all the same.
    let other = SqliteLedger::open_file(&path, clock()).unwrap();
    drop(ledger);
    assert_eq!(beside(&path, "-wal").metadata().unwrap().len(), 0);
    drop(other);
    drop(Sqlite::open(&path, clock()).unwrap().with_much_memory().unwrap());
    let names: Vec<_> = std::fs::read_dir(directory.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["l.db"]);
    let copy = directory.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    let mut ledger = SqliteLedger::open_file(&copy, clock()).unwrap();
    let View::Job(Some(job)) = ledger.read(&Query::Job { job: "j".into() }).unwrap() else { panic!() };
    assert_eq!(job.attempts.len(), 1);
}

/// SQLite's own shell writes the log into the file and takes it away when it is the last to close it.
#[test]
fn a_file_that_another_program_closed_is_whole() {
    let mut world = World::new();
    spent(&mut world);
    let path = world.place.path().join("l.db");
    let clock = world.clock.clone();
    world.ledger = StoreLedger::new(Box::new(Sqlite::empty(&path, Box::new(clock.clone())).unwrap()));
    drop(Connection::open(&path).unwrap().query_row("SELECT count(*) FROM entry", [], |_| Ok(())));
    assert!(!beside(&path, "-wal").exists());
    assert!(entries(&path).unwrap() > 0);
}

/// One that an older jobmeter made says nothing of which file it was.
#[test]
fn a_backup_of_an_older_version_is_taken() {
    let mut world = World::new();
    spent(&mut world);
    let path = world.place.path().join("l.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch("DROP TABLE jobmeter_file").unwrap();
    let old = world.place.path().join("old.db");
    let mut to = Connection::open(&old).unwrap();
    rusqlite::backup::Backup::new(&db, &mut to).unwrap().step(-1).unwrap();
    to.pragma_update(None, "journal_mode", "WAL").unwrap();
    drop(to);
    assert!(!beside(&old, "-wal").exists());
    assert!(entries(&old).unwrap() > 0);
}

#[test]
fn who_only_reads_makes_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/l.db");
    let error = Sqlite::open_existing(&path, clock()).unwrap_err();
    assert!(matches!(&error, LedgerError::Refused(why) if why.contains("there is no ledger yet")), "{error}");
    let mut empty = StoreLedger::new(Sqlite::empty(&path, clock()).unwrap());
    let View::Account(account) = empty.read(&Query::Account { user: "u".into() }).unwrap() else { panic!() };
    assert_eq!(account.current.0, 0);
    drop(empty);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn files_are_for_their_user_alone() {
    let mut world = World::new();
    spent(&mut world);
    let place = world.place.path();
    backup(&place.join("l.db"), &place.join("copy.db")).unwrap();
    let by = ("op", "w");
    let kept = restore(&place.join("l.db"), &place.join("copy.db"), Restoring::default(), by, clock()).unwrap();
    assert!(kept.is_some_and(|kept| kept.exists()));
    for entry in std::fs::read_dir(place).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
}

/// Who reads for long keeps what was written meanwhile in the log; after that the disk gets its room back.
#[test]
fn a_log_shrinks_after_somebody_has_read_for_long() {
    let mut world = World::new();
    let path = world.place.path().join("l.db");
    let length = || beside(&path, "-wal").metadata().unwrap().len();
    let mut reader = Sqlite::open(&path, clock()).unwrap();
    reader.begin_reading().unwrap();
    reader.query("SELECT count(*) FROM entry", &[]).unwrap();
    let (attempt, lease) = world.open("j", None);
    let mut seq = 0;
    let mut burn = |world: &mut World| {
        seq += 1;
        world.report(attempt, seq, &suite::seconds(&format!("0.{seq:06}")), &lease, false);
    };
    while length() < 6 << 20 {
        burn(&mut world);
    }
    reader.rollback();
    for _ in 0..3 {
        burn(&mut world);
    }
    assert!(length() <= 4 << 20, "{}", length());
}

/// Nothing is replaced before what was there is kept, and only a whole copy is put back unasked.
#[test]
fn a_restore_keeps_what_was_there() {
    let mut world = World::new();
    spent(&mut world);
    let (path, copy) = (world.place.path().join("l.db"), copy_file(&world, "l.db", "copy.db"));
    let known = entries(&path).unwrap();
    let by = ("op", "w");
    let error = restore(&path, &copy, Restoring::default(), by, clock()).unwrap_err();
    assert!(error.to_string().contains("without its log"), "{error}");
    assert_eq!(entries(&path).unwrap(), known);
    let how = Restoring { takes_incomplete: true };
    let kept = restore(&path, &copy, how, by, Box::new(world.clock.clone())).unwrap().unwrap();
    assert_eq!(entries(&kept).unwrap(), known);
    assert!(entries(&path).unwrap() < known);
    // And one that is put in the place of nothing replaces nothing.
    let new = world.place.path().join("new.db");
    assert_eq!(restore(&new, &kept, Restoring::default(), by, clock()).unwrap(), None);
}
