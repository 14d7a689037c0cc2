//! Accounts, rates, tokens, the spool, copies of the ledger, and what is generated.

use std::process::Stdio;

use crate::station::{Station, ended, line_of, nano};

#[test]
fn a_prompt_gets_a_few_characters() {
    let station = Station::new();
    station.ok(&["account", "limit", "2"]);
    assert_eq!(station.ok(&["status", "--short"]).out, "2/2\n");
    station.ok(&["account", "limit", "none"]);
    assert!(station.ok(&["status", "--short"]).out.len() < 12);
}

#[test]
fn credits_are_limited_granted_corrected_and_listed() {
    let station = Station::new();
    assert_eq!(nano(&station.credits()["available"]), 5_000_000_000);
    station.ok(&["account", "limit", "2", "--why", "student"]);
    station.ok(&["account", "grant", "1", "--why", "prize", "--key", "k1"]);
    station.ok(&["account", "grant", "1", "--why", "prize", "--key", "k1"]);
    // Not repeated: --expires-in counts from the second of the call, so that the same key is refused a second later.
    station.ok(&["account", "grant", "0.5", "--why", "prize", "--key", "k2", "--expires-in", "30 days"]);
    station.ok(&["account", "adjust", "-0.25", "--why", "mistake"]);
    let shown = station.json(&["account", "show"]);
    assert_eq!(nano(&shown["account"]["left"]), 3_250_000_000);
    let kinds: Vec<_> =
        shown["entries"].as_array().unwrap().iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["adjust", "grant", "grant", "limit"]);
    let text = station.ok(&["account", "show"]).out;
    assert!(text.contains("prize") && text.contains("mistake"), "{text}");
    station.ok(&["account", "limit", "none"]);
    assert!(station.ok(&["status"]).out.contains("no limit"));
    station.verify();
}

#[test]
fn status_waits_for_a_grant() {
    let station = Station::new();
    station.ok(&["account", "limit", "0"]);
    let timed_out = station.call(&["status", "--wait-for", "1", "--timeout", "50ms"]);
    assert_eq!(timed_out.status, 75);
    let mut waiting = station.command(&["status", "--wait-for", "1"]).stdout(Stdio::null()).spawn().unwrap();
    assert!(waiting.try_wait().unwrap().is_none());
    station.ok(&["account", "grant", "1", "--why", "w"]);
    assert!(ended(&mut waiting).success());
}

#[test]
fn rates_have_versions() {
    let station = Station::new();
    assert_eq!(station.json(&["rates", "show"])[0]["rates"]["version"], 1);
    let versions = station.json(&["rates", "set", "--cpu-per-second", "0.001", "--cpu-weight", "2"]);
    assert_eq!(versions[0]["rates"]["version"], 2);
    assert_eq!(nano(&versions[0]["rates"]["gpu_per_second"]), 2_500_000);
    station.ok(&["run", "--job", "r", "--", "python3", "-c", "sum(range(3000000))"]);
    let receipt = station.receipt("r");
    let cpu = crate::station::micros(&receipt["cpu"]["total_seconds"]) as i64;
    assert_eq!(nano(&receipt["credits"]["total"]), cpu * 2);
    assert!(station.ok(&["rates", "show"]).out.contains("VERSION"));
}

#[test]
fn tokens_are_charged_to_their_job() {
    let station = Station::new();
    station.ok(&["run", "--job", "chat", "--kind", "python-session", "--", "true"]);
    for _ in 0..2 {
        station.ok(&["tokens", "chat", "2000", "--key", "turn-1"]);
    }
    let shown = station.json(&["jobs", "show", "chat"]);
    assert_eq!((nano(&shown["charged"]["tokens"]), shown["tokens"].as_u64()), (10_000_000, Some(2_000)));
    let other = station.call(&["tokens", "chat", "1", "--key", "turn-1"]);
    assert!(other.status == 1 && other.err.contains("turn-1"), "{other:?}");
    station.verify();
}

#[test]
fn usage_is_by_month_and_by_day() {
    let station = Station::new();
    station.ok(&["run", "--", "python3", "-c", "sum(range(3000000))"]);
    let months = station.json(&["usage"]);
    let month = months[0]["periodStart"].as_str().unwrap().get(..7).unwrap().to_owned();
    let days = station.json(&["usage", "--month", &month]);
    let sum: i64 = days.as_array().unwrap().iter().map(|day| nano(&day["totalCredits"])).sum();
    assert_eq!(sum, nano(&months[0]["totalCredits"]));
    assert!(station.ok(&["usage", "--month", &month]).out.contains("total"));
    assert!(station.ok(&["usage", "--month", "2001-01"]).out.contains("nothing was used"));
    let first = format!("{month}-01");
    assert_eq!(station.json(&["usage", "--from", &first]), days);
    assert_eq!(station.json(&["usage", "--from", &first, "--by", "month"]), months);
    assert!(station.ok(&["usage", "--to", &first]).out.contains("nothing was used"));
    for wrong in [&["usage", "--month", "2026-13"][..], &["usage", "--from", "today"]] {
        assert_eq!(station.call(wrong).status, 2, "{wrong:?}");
    }
}

#[test]
fn a_ledger_is_copied_and_put_back() {
    let station = Station::new();
    station.ok(&["run", "--job", "one", "--", "true"]);
    let copy = station.path("copy.db");
    station.ok(&["ledger", "backup", copy.to_str().unwrap()]);
    assert_eq!(station.call(&["ledger", "backup", copy.to_str().unwrap()]).status, 1);
    station.ok(&["run", "--job", "two", "--", "python3", "-c", "sum(range(3000000))"]);
    let charged = nano(&station.json(&["jobs", "show", "two"])["charged"]["total"]);
    station.ok(&["account", "limit", "2"]);
    // A job runs on over the restore, and one that ended after the copy comes back from the spool.
    let mut running = station
        .command(&[
            "run",
            "--job",
            "three",
            "--",
            "sh",
            "-c",
            "echo ready; read word; exec python3 -c 'sum(range(9000000))'",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(line_of(running.stdout.as_mut().unwrap()), "ready");
    let restored = station.ok(&["ledger", "restore", copy.to_str().unwrap()]);
    assert!(restored.out.contains("2 ended attempts sent again"), "{restored:?}");
    assert_eq!(nano(&station.json(&["jobs", "show", "two"])["charged"]["total"]), charged);
    assert_eq!(nano(&station.credits()["limit"]), 5_000_000_000);
    drop(running.stdin.take());
    assert!(ended(&mut running).success());
    let receipt = station.receipt("three");
    let cpu_us = i64::try_from(crate::station::micros(&receipt["cpu"]["total_seconds"])).unwrap();
    assert_eq!(
        (nano(&receipt["credits"]["total"]), receipt["outcome"]["reason"].as_str()),
        (cpu_us / 4, Some("completed"))
    );
    assert_eq!(station.call(&["spool", "flush", "--acknowledged"]).status, 0);
    station.verify();
}

#[test]
fn after_a_restore_a_new_job_waits_and_can_be_interrupted() {
    let station = Station::new();
    station.ok(&["run", "--", "true"]);
    let copy = station.path("copy.db");
    station.ok(&["ledger", "backup", copy.to_str().unwrap()]);
    station.ok(&["ledger", "restore", copy.to_str().unwrap()]);
    let started = station.path("started");
    let mut command = station.command(&["run", "--", "touch", started.to_str().unwrap()]);
    let mut waiting = command.stderr(Stdio::piped()).spawn().unwrap();
    let told = line_of(waiting.stderr.as_mut().unwrap());
    assert!(told.starts_with("jobmeter: waiting: the ledger was restored"), "{told}");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(waiting.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended(&mut waiting)), Some(2));
    assert!(!started.exists());
    assert_eq!(station.ok(&["spool", "list"]).out, "nothing is in the spool\n");
}

#[test]
fn doctor_says_what_works_here() {
    let station = Station::new();
    let found = station.json(&["doctor"]);
    assert_eq!(found["canRun"], true);
    let text = station.ok(&["doctor"]).out;
    assert!(text.contains("kill path") && text.contains("jobs run here"), "{text}");
}

#[test]
fn settings_come_from_flags_environment_and_file() {
    let station = Station::new();
    let file = station.path("own.toml");
    std::fs::write(&file, "user = \"filed\"\n[run]\nkind = \"generation\"\nquiet = true\n").unwrap();
    let file = file.to_str().unwrap();
    let called = station.sh(&format!("unset JOBMETER_USER; $JOBMETER --config {file} run --job f -- true"));
    assert_eq!((called.status, called.err.as_str()), (0, ""), "{called:?}");
    let shown = station.json(&["jobs", "show", "f"]);
    assert_eq!((shown["user"].as_str(), shown["kind"].as_str()), (Some("filed"), Some("generation")));
    let called = station.sh(&format!("$JOBMETER --config {file} --user flagged run --job g -- true"));
    assert_eq!(called.status, 0);
    assert_eq!(station.json(&["jobs", "show", "g"])["user"], "flagged");
}

#[test]
fn completions_and_manual_are_written() {
    let station = Station::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(station.ok(&["completions", shell]).out.contains("jobmeter"));
    }
    assert!(station.ok(&["man"]).out.contains(".TH"));
    let directory = station.path("man");
    std::fs::create_dir(&directory).unwrap();
    station.ok(&["man", "--dir", directory.to_str().unwrap()]);
    assert!(directory.join("jobmeter-run.1").exists());
    for verb in ["run", "status", "jobs", "usage", "tokens", "account", "rates", "ledger", "spool", "doctor"] {
        assert!(station.ok(&[verb, "--help"]).out.contains("Usage"), "{verb}");
    }
}
