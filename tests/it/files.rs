//! What a service and the command line do with the ledger's file.

use std::io::Read;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::service::{own_address, serve};
use crate::station::{Called, Station, ended, line_of, nano};

fn names(station: &Station) -> Vec<String> {
    let entries = std::fs::read_dir(station.directory.path()).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn reading_makes_no_file() {
    let station = Station::new();
    for line in ["status", "jobs list", "usage", "account show", "rates show", "doctor"] {
        let called = station.call(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(called.status, 0, "{line}: {called:?}");
    }
    for line in ["ledger verify", "key list", "jobs stop j-1", "ledger backup x.db"] {
        let called = station.call(&line.split(' ').collect::<Vec<_>>());
        assert!(called.status == 1 && called.err.contains("there is no ledger"), "{line}: {called:?}");
    }
    let made = names(&station);
    assert!(!made.iter().any(|name| name.contains("ledger.db")), "{made:?}");
    station.ok(&["account", "limit", "5"]);
    assert!(station.path("ledger.db").exists());
}

#[test]
fn a_copy_without_its_log_is_told_as_incomplete() {
    let station = Station::new();
    station.ok(&["account", "limit", "5"]);
    let (file, copy) = (station.path("ledger.db"), station.path("copy.db"));
    std::fs::copy(&file, &copy).unwrap();
    let copy = copy.to_str().unwrap();
    for arguments in
        [&["--ledger", copy, "ledger", "verify"][..], &["--ledger", copy, "status"], &["ledger", "restore", copy]]
    {
        let called = station.call(arguments);
        assert!(called.status == 1 && called.err.contains("without its log"), "{arguments:?}: {called:?}");
    }
    let restored = station.ok(&["ledger", "restore", copy, "--incomplete"]);
    assert!(restored.out.contains("what it held before is kept in"), "{restored:?}");
    station.verify();
    let kept = names(&station).into_iter().find(|name| name.contains(".replaced-")).expect("what was there");
    station.ok(&["--ledger", station.path(&kept).to_str().unwrap(), "ledger", "verify"]);
}

#[test]
fn a_service_that_stops_leaves_one_file() {
    let station = Station::new();
    let (mut child, url) = serve(&station, &own_address(), &[]);
    let changed = station
        .command(&["account", "limit", "7"])
        .envs([
            ("JOBMETER_LEDGER", url.as_str()),
            ("JOBMETER_KEY", station.path("service.db.admin-key").to_str().unwrap()),
        ])
        .output()
        .unwrap();
    assert!(changed.status.success(), "{changed:?}");
    assert!(station.path("service.db-wal").exists());
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(ended(&mut child).success());
    assert!(!station.path("service.db-wal").exists(), "{:?}", names(&station));
    std::fs::copy(station.path("service.db"), station.path("copy.db")).unwrap();
    let shown = station.json(&["--ledger", station.path("copy.db").to_str().unwrap(), "account", "show"]);
    assert_eq!(nano(&shown["account"]["limit"]), 7_000_000_000);
}

/// SQLite would go on in the old file, of which nobody knows any more.
#[test]
fn a_service_whose_file_is_moved_or_replaced_ends() {
    for is_replaced in [false, true] {
        let station = Station::new();
        let db = station.path("service.db");
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--db", db.to_str().unwrap()];
        let mut child = station.command(&arguments).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = child.stderr.take().unwrap();
        let line: Value = serde_json::from_str(&line_of(&mut log)).unwrap();
        assert!(line["url"].is_string(), "{line}");
        std::fs::rename(&db, station.path("moved.db")).unwrap();
        if is_replaced {
            std::fs::write(&db, "something else").unwrap();
        }
        let status = ended(&mut child);
        let mut said = String::new();
        log.read_to_string(&mut said).unwrap();
        let called = Called { status: status.code().unwrap_or(-1), out: String::new(), err: said };
        let why = if is_replaced { "another file has taken its place" } else { "removed or moved away" };
        assert!(called.status == 1 && called.err.contains(why), "{called:?}");
        // Nothing was made or taken away in the place of the old file, which is whole with its log.
        assert_eq!(db.exists(), is_replaced);
        assert!(!is_replaced || std::fs::read_to_string(&db).unwrap() == "something else");
        std::fs::rename(station.path("service.db-wal"), station.path("moved.db-wal")).unwrap();
        station.ok(&["--ledger", station.path("moved.db").to_str().unwrap(), "ledger", "verify"]);
    }
}
