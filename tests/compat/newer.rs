//! What a later version will have written: refused in one sentence that says what to update, and left as it is.

use std::path::Path;

use crate::fixture::{assert_refused, call_in, json_in, versions};
use crate::station::Station;

/// The same file, in the tables of a version that nobody knows yet.
fn made_newer(path: &Path) -> i64 {
    let database = rusqlite::Connection::open(path).unwrap();
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    database.pragma_update(None, "user_version", version + 1).unwrap();
    version + 1
}

#[test]
fn a_newer_ledger_is_refused() {
    for version in versions() {
        let station = version.copied("sqlite");
        // Today's tables first: an earlier version's would be brought forward.
        json_in(&station, &["rates", "show"]);
        let newer = made_newer(&station.path("ledger.db"));
        let before = std::fs::read(station.path("ledger.db")).unwrap();
        let said = format!("it is a ledger of version {newer}");
        let names = [said.as_str(), "ledger.db", "use a newer jobmeter"];
        for arguments in [&["ledger", "verify"][..], &["status"], &["account", "grant", "1", "--why", "x"]] {
            assert_refused(&call_in(&station, arguments), &names);
        }
        let run = call_in(&station, &["run", "--", "touch", "ran"]);
        assert_eq!(run.status, 125, "{run:?}");
        assert!(run.err.contains(&said) && !station.path("ran").exists(), "{run:?}");
        let serve = call_in(&station, &["serve", "--listen", "127.0.0.1:0", "--db", "ledger.db"]);
        assert!(serve.status != 0 && serve.err.contains(&said), "{serve:?}");
        assert_eq!(std::fs::read(station.path("ledger.db")).unwrap(), before, "it was written");
        // A copy of it is none that could be put back.
        let copy = station.path("copy.db");
        std::fs::copy(station.path("ledger.db"), &copy).unwrap();
        // With its log, in which nothing is.
        std::fs::write(station.path("copy.db-wal"), "").unwrap();
        let other = Station::new();
        let restored = call_in(&other, &["ledger", "restore", copy.to_str().unwrap()]);
        assert!(restored.status != 0 && restored.err.contains(&said), "{restored:?}");
    }
}

/// The header of each spool file, with its first bytes changed and its length kept.
fn with_headers(station: &Station, change: impl Fn(&str) -> String) {
    for entry in std::fs::read_dir(station.path("spool")).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        let mut bytes = std::fs::read(entry.path()).unwrap();
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        let header = change(std::str::from_utf8(&bytes[..end]).unwrap());
        assert!(header.len() < 4_096, "{header}");
        bytes[..4_096].fill(b' ');
        bytes[..header.len()].copy_from_slice(header.as_bytes());
        bytes[header.len()] = b'\n';
        std::fs::write(entry.path(), bytes).unwrap();
    }
}

#[test]
fn a_newer_spool_is_kept_for_a_newer_jobmeter() {
    for version in versions() {
        let station = version.copied("spool");
        with_headers(&station, |header| {
            let newer = header.replace("jobmeter.spool/1", "jobmeter.spool/2");
            assert_ne!(newer, header);
            newer.replacen('{', "{\"unheard_of\":true,", 1)
        });
        let count = json_in(&station, &["spool", "list"]).as_array().unwrap().len();
        let flushed = call_in(&station, &["--json", "spool", "flush"]);
        assert_eq!(flushed.status, 1, "{flushed:?}");
        let told: serde_json::Value = serde_json::from_str(&flushed.out).unwrap();
        let kept = told["kept"].as_array().unwrap();
        assert!(count > 5 && kept.len() == count && told["settled"].as_array().unwrap().is_empty(), "{told}");
        for file in kept {
            let state = file["state"].as_str().unwrap();
            assert!(state.contains("has the schema jobmeter.spool/2"), "{state}");
            assert!(state.contains(".spool: ") && !state.contains(". "), "one sentence that names the file: {state}");
            assert!(Path::new(file["path"].as_str().unwrap()).exists(), "{file}");
        }
        // A job beside it runs all the same.
        let run = call_in(&station, &["run", "--job", "beside-1", "--", "true"]);
        assert_eq!(run.status, 0, "{run:?}");
        assert_eq!(json_in(&station, &["spool", "list"]).as_array().unwrap().len(), count);
    }
}

/// A relay does not go on with a session that it knows only half of.
#[test]
fn a_newer_relays_state_is_refused() {
    for version in versions() {
        let station = version.copied("relay");
        let path = station.path("state/session.json");
        let kept = std::fs::read_to_string(&path).unwrap().replacen('{', "{\"unheard_of\":1,", 1);
        std::fs::write(&path, &kept).unwrap();
        let (state, socket) = (station.path("state"), station.path("relay.sock"));
        let line =
            ["--spool-dir", state.to_str().unwrap(), "relay", "--job", "pod-1", "--socket", socket.to_str().unwrap()];
        let called = call_in(&station, &line);
        assert!(called.status != 0 && called.err.contains("unheard_of"), "{called:?}");
        assert!(called.err.contains("the relay's state"), "{called:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
    }
}
