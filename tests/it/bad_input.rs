//! What is wrong is said with the value and what to do, and loses nothing.

use crate::station::{Called, Station};

fn refused(arguments: &[&str], status: i32, told: &str) {
    let station = Station::new();
    let called = station.call(arguments);
    assert_eq!(called.status, status, "{arguments:?}: {called:?}");
    assert!(called.err.contains(told), "{arguments:?}: {told} is not in {}", called.err);
    assert!(!called.err.contains("panicked"), "{}", called.err);
}

#[test]
fn a_run_needs_a_command() {
    refused(&["run"], 125, "COMMAND");
    refused(&["run", "--"], 125, "COMMAND");
    refused(&["run", "--", ""], 127, "not found");
}

#[test]
fn amounts_must_be_amounts() {
    for value in ["-1", "NaN", "inf", "1e9", "0", "999999999999999999999", "0.0000000001", ""] {
        let limit = format!("--limit={value}");
        refused(&["run", &limit, "--", "true"], 125, "--limit");
    }
    for value in ["-1", "NaN", "99999999999"] {
        refused(&["account", "limit", "--", value], 2, value);
        refused(&["rates", "set", &format!("--cpu-per-second={value}")], 2, value);
    }
    refused(&["rates", "set"], 2, "--cpu-per-second");
    refused(&["tokens", "j", "-5"], 2, "-5");
    refused(&["tokens", "no-such-job", "5"], 1, "no-such-job");
    refused(&["account", "adjust", "0", "--why", "w"], 1, "zero");
}

#[test]
fn names_hold_no_control_characters() {
    refused(&["--user", "a\u{1b}[2J", "run", "--", "true"], 125, "control character");
    refused(&["run", "--job", "a\nb", "--", "true"], 125, "control character");
    refused(&["run", "--label", "novalue", "--", "true"], 125, "KEY=VALUE");
    let station = Station::new();
    for user in ["a.b+c@example.org", "Łukasz_1", "o'brien", "machine$"] {
        station.ok(&["--user", user, "run", "--", "true"]);
    }
}

#[test]
fn times_and_signals_are_checked() {
    refused(&["run", "--interval", "0s", "--", "true"], 125, "10ms");
    refused(&["run", "--hold", "5", "--", "true"], 125, "30s");
    refused(&["run", "--notice", "SIGNOPE@3s", "--", "true"], 125, "SIGTERM");
    refused(&["run", "--as", "no-such-user-here", "--", "true"], 125, "no-such-user-here");
    refused(&["run", "--cpu-source", "magic", "--", "true"], 125, "cgroup2");
    refused(&["usage", "--month", "2026-13"], 2, "YYYY-MM");
}

#[test]
fn ledgers_that_cannot_be_used_say_why() {
    let station = Station::new();
    std::fs::write(station.path("text.db"), "not a database, but some words in a file\n".repeat(200)).unwrap();
    let started = station.path("started");
    for (ledger, told) in [("text.db", "text.db"), (".", "")] {
        let path = station.path(ledger);
        let run = ["--ledger", path.to_str().unwrap(), "run", "--", "touch", started.to_str().unwrap()];
        let called = station.call(&run);
        assert_eq!(called.status, 125, "{ledger}: {called:?}");
        assert!(called.err.contains(told) && called.err.contains("jobmeter: error:"), "{}", called.err);
    }
    assert!(!started.exists());
    refused(&["--ledger", "postgres://u:secret@127.0.0.1:1/db", "status"], 75, "PostgreSQL does not answer");
    refused(&["--ledger", "http://127.0.0.1:1/", "run", "--", "true"], 125, "does not answer");
}

#[test]
fn a_receipt_that_cannot_be_written_is_said_and_nothing_is_lost() {
    let station = Station::new();
    let called = station.call(&["run", "--job", "x", "--receipt", "/nonexistent/dir/r.json", "--", "true"]);
    assert!(called.err.contains("/nonexistent/dir/r.json"), "{called:?}");
    assert_eq!(station.receipt("x")["outcome"]["reason"], "completed");
}

/// A typing error makes no new file, in which every job would run free.
#[test]
fn a_ledger_is_never_guessed() {
    let station = Station::new();
    let folder = station.path("empty");
    std::fs::create_dir(&folder).unwrap();
    let run = |ledger: &str, key: Option<&str>| -> Called {
        let mut command = station.command(&["run", "--", "true"]);
        command.env("JOBMETER_LEDGER", ledger).env("JOBMETER_SPOOL", station.path("spool")).current_dir(&folder);
        key.map(|key| command.env("JOBMETER_KEY", key));
        command.output().unwrap().into()
    };
    for wrong in ["ledger.example.com:7770", "ledger.example.com", "HTTPS://ledger.example.com", "sqlite://x.db"] {
        let called = run(wrong, None);
        assert!(called.status == 125 && called.err.contains("invalid ledger"), "{wrong}: {called:?}");
    }
    let called = run("./ledger.db", Some("/etc/jobmeter/key"));
    assert!(called.status == 125 && called.err.contains("a key is for a service"), "{called:?}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    assert_eq!(run("./ledger.db", None).status, 0);
}
