//! `jobmeter run` and what can be seen of a job afterwards.

use std::io::Write;
use std::process::Stdio;

use crate::service::Service;
use crate::station::{Called, Station, awaited, ended, mark, micros, nano, processes_with, skip};

#[test]
fn everything_of_the_command_passes_through() {
    let station = Station::new();
    let mut child = station
        .command(&["run", "--quiet", "--", "sh", "-c", "pwd; cat; echo to-err >&2; echo $JOBMETER_JOB; exit 7"])
        .current_dir("/usr")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.starts_with("/usr\nthrough\n") && out.lines().count() == 3, "{out}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "to-err\n");
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn the_exit_status_is_the_commands() {
    let station = Station::new();
    assert_eq!(station.call(&["run", "--", "true"]).status, 0);
    assert_eq!(station.call(&["run", "--", "false"]).status, 1);
    assert_eq!(station.call(&["run", "--", "sh", "-c", "kill -TERM $$"]).status, 128 + 15);
    assert_eq!(station.call(&["run", "--", "/nonexistent/x"]).status, 127);
    assert_eq!(station.call(&["run", "--", "no-such-command-here"]).status, 127);
    assert_eq!(station.call(&["run", "--", "/etc/passwd"]).status, 126);
    assert_eq!(station.call(&["run", "--", "/etc"]).status, 126);
    station.verify();
}

/// A script of a scheduler that prepares something and ends with `exec`: what its children burned is not the job's.
#[test]
fn what_ran_before_jobmeter_is_not_charged() {
    let station = Station::new();
    for source in ["perf", "procfs"] {
        let before = "python3 -c 'import time\nwhile time.process_time() < 1: pass'";
        let line = format!("{before}; exec \"$JOBMETER\" run --job {source} --cpu-source {source} -- sleep 0.1");
        let called = station.sh(&line);
        if called.status == 125 && called.err.contains("not usable") {
            skip(&format!("{source}: {}", called.err));
            continue;
        }
        assert_eq!(called.status, 0, "{called:?}");
        let burned = micros(&station.receipt(source)["cpu"]["total_seconds"]);
        assert!(burned < 500_000, "{source}: {burned} µs, of a second before and next to nothing after");
    }
}

#[test]
fn the_key_never_reaches_the_command() {
    let service = Service::start();
    let key = service.key(&["keyed", "--only-user"]);
    let called = service.call(&key, &["run", "-q", "--", "env"]);
    assert!(!called.out.contains(&key) && !called.out.contains("JOBMETER_KEY"), "{}", called.out);
    assert!(called.out.contains("JOBMETER_ATTEMPT="), "{called:?}");
}

/// Whichever way the outer one was told of them.
#[test]
fn a_jobmeter_within_a_job_asks_the_same_ledger_for_the_same_user() {
    let station = Station::new();
    let ledger = station.path("other.db");
    let inner = "\"$JOBMETER\" run -q --job inner -- true";
    let outer = ["--ledger", ledger.to_str().unwrap(), "--user", "ann", "run", "-q", "--job", "outer", "--"];
    station.ok(&[&outer[..], &["sh", "-c", inner]].concat());
    let listed = station.json(&["--ledger", ledger.to_str().unwrap(), "--user", "ann", "jobs", "list"]);
    let mut names: Vec<_> = listed["jobs"].as_array().unwrap().iter().map(|job| job["job"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["inner", "outer"]);
}

#[test]
fn a_refused_job_is_an_entry_and_no_job() {
    let station = Station::new();
    station.ok(&["account", "limit", "0"]);
    assert_eq!(station.call(&["run", "--job", "poor", "--", "true"]).status, 75);
    assert_eq!(station.json(&["jobs", "list"])["jobs"], serde_json::json!([]));
    let entry = station.json(&["account", "show"])["entries"][0].clone();
    assert_eq!((&entry["kind"], &entry["job"]), (&"refuse".into(), &"poor".into()), "{entry}");
}

#[test]
fn a_job_is_listed_shown_and_summed() {
    let station = Station::new();
    let burn = "sum(range(10000000))";
    let called = station.ok(&["run", "--job", "j1", "--name", "first", "--label", "a=b", "--", "python3", "-c", burn]);
    assert!(called.err.contains("credits charged"), "{}", called.err);
    station.ok(&["run", "--job", "j1", "--", "python3", "-c", burn]);
    station.ok(&["run", "--job", "j2", "--kind", "generation", "--", "true"]);
    let listed = station.json(&["jobs", "list"]);
    let names: Vec<_> = listed["jobs"].as_array().unwrap().iter().map(|job| job["job"].as_str().unwrap()).collect();
    assert_eq!(names, ["j2", "j1"]);
    let shown = station.json(&["jobs", "show", "j1"]);
    let attempts = shown["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2);
    // Receipt = entries = job = period, to the last nanocredit.
    let charged: i64 = attempts.iter().map(|attempt| nano(&attempt["receipt"]["credits"]["total"])).sum();
    assert_eq!(nano(&shown["charged"]["total"]), charged);
    let all = charged + nano(&station.receipt("j2")["credits"]["total"]);
    assert_eq!(nano(&station.credits()["current"]), all);
    let months = station.json(&["usage"]);
    assert_eq!(nano(&months[0]["totalCredits"]), all);
    for attempt in attempts {
        let receipt = &attempt["receipt"];
        assert_eq!(micros(&receipt["cpu"]["total_seconds"]) as i64 / 4, nano(&receipt["credits"]["total"]));
    }
    let text = station.ok(&["jobs", "show", "j1"]).out;
    for part in ["“first”", "labels    a=b", "The command ended by itself with status 0.", "teardown", "burn"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    station.verify();
}

#[test]
fn a_limit_stops_the_job_and_is_never_exceeded() {
    let station = Station::new();
    let limit = "0.0002";
    let receipt = station.path("r.json");
    let called = station.call(&[
        "run",
        "--job",
        "lim",
        "--limit",
        limit,
        "--receipt",
        receipt.to_str().unwrap(),
        "--",
        "sh",
        "-c",
        "while :; do :; done & while :; do :; done",
    ]);
    assert_eq!(called.status, 75, "{called:?}");
    assert!(called.err.contains("jobmeter: stopped: the job's own limit is reached"), "{}", called.err);
    let receipt: serde_json::Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
    assert_eq!(receipt["outcome"]["reason"], "job_limit");
    let charged = nano(&receipt["credits"]["total"]);
    assert!(charged <= 200_000 && charged > 150_000, "{charged}");
    assert_eq!(receipt, station.receipt("lim"));
    station.verify();
}

#[test]
fn an_exhausted_account_stops_its_jobs_and_refuses_new_ones() {
    let station = Station::new();
    station.ok(&["account", "limit", "0.0005"]);
    let called =
        station.call(&["run", "--job", "a", "--exhausted-status", "42", "--", "sh", "-c", "while :; do :; done"]);
    assert_eq!(called.status, 42, "{called:?}");
    assert!(called.err.contains("jobmeter: stopped: credits exhausted"), "{}", called.err);
    let account = station.credits();
    assert!(nano(&account["current"]) <= 500_000 && nano(&account["left"]) >= 0, "{account}");
    let (receipt, started) = (station.path("r"), station.path("started"));
    let (written, touched) = (receipt.to_str().unwrap(), started.to_str().unwrap());
    let refused = station.call(&["run", "--job", "b", "--receipt", written, "--", "touch", touched]);
    assert_eq!(refused.status, 75);
    assert!(refused.err.contains("jobmeter: refused: credits exhausted"), "{}", refused.err);
    assert!(!started.exists());
    let receipt: serde_json::Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
    assert_eq!(receipt["outcome"]["reason"], "refused");
    station.verify();
}

#[test]
fn an_operator_stops_a_running_job() {
    let station = Station::new();
    let mut child =
        station.command(&["run", "--job", "long", "--", "sleep", "100"]).stderr(Stdio::piped()).spawn().unwrap();
    awaited(|| match station.call(&["jobs", "show", "long"]) {
        shown if shown.status == 0 => Ok(()),
        shown => Err(format!("{shown:?}")),
    });
    station.ok(&["jobs", "stop", "long", "--why", "test"]);
    assert_eq!(ended(&mut child).code(), Some(137));
    assert_eq!(station.receipt("long")["outcome"]["reason"], "operator_stop");
    assert_eq!(station.call(&["run", "--job", "long", "--", "true"]).status, 75);
}

#[test]
fn a_notice_comes_ahead_of_the_end() {
    let station = Station::new();
    station.ok(&["account", "limit", "0.0006"]);
    let line = "trap 'echo noticed' USR1; while :; do :; done";
    let called = station.call(&["run", "--job", "n", "--notice", "USR1@1s", "--", "bash", "-c", line]);
    assert_eq!((called.status, called.out.as_str()), (75, "noticed\n"), "{called:?}");
    assert!(station.receipt("n")["time"]["notice_sent_at"].is_string());
}

/// What is said of a run counts before what its settings say, and older settings and calls mean what they meant.
#[test]
fn a_grace_is_set_by_the_call_or_the_settings() {
    let late = "(until [ ! -d /proc/$$ ]; do sleep 0.01; done; echo late) & exit 0";
    for (settings, options, ends) in [
        ("", "", true),
        ("", "--wait-descendants", true),
        ("", "--linger", true),
        ("grace = \"10min\"", "", true),
        ("wait_descendants = true", "", true),
        ("linger = true", "", true),
        ("grace = \"0\"", "", false),
        ("grace = \"0\"", "--linger", true),
        ("grace = \"0\"\nwait_descendants = true", "", true),
        ("grace = \"0\"", "--grace 10min", true),
        ("wait_descendants = true", "--grace 0", false),
        ("linger = true", "--grace 0.01", false),
    ] {
        let (station, mark) = (Station::new(), mark());
        let mut call = station.shell(&format!("exec $JOBMETER run --job j {options} -- bash -c \"$COMMAND\""));
        std::fs::write(station.path("config.toml"), format!("[run]\n{settings}\n")).unwrap();
        let left = if ends { late.to_owned() } else { format!("(setsid sleep {mark} > /dev/null 2>&1 &); exit 0") };
        let called: Called = call.env("COMMAND", left).output().unwrap().into();
        assert_eq!((called.status, called.out.as_str()), (0, if ends { "late\n" } else { "" }), "{settings} {options}");
        assert!(processes_with(&mark).is_empty(), "{settings} {options}");
    }
    let station = Station::new();
    let called = station.call(&["run", "--wait-descendants", "--grace", "1", "--", "true"]);
    assert!(called.status == 125 && called.err.contains("cannot be used with"), "{called:?}");
    for wrong in ["25h", "-1", "soon"] {
        let called = station.call(&["run", &format!("--grace={wrong}"), "--", "true"]);
        assert!(called.status == 125 && called.err.contains("--grace"), "{called:?}");
    }
}

#[test]
fn a_dry_run_starts_nothing_and_says_what_it_would_cost() {
    let station = Station::new();
    let started = station.path("started");
    let found = station.json(&["run", "--dry-run", "--", "touch", started.to_str().unwrap()]);
    assert!(nano(&found["highestRatePerSecond"]) > 0 && found["source"].is_string(), "{found}");
    assert!(!started.exists());
    assert!(station.ok(&["run", "--dry-run", "--", "true"]).out.ends_with("nothing was started\n"));
}

#[test]
fn two_attempts_of_one_task_at_once_are_both_charged() {
    let station = Station::new();
    let line = "$JOBMETER run --job t --task 0 -- python3 -c 'import time\nwhile time.process_time() < 0.1: pass'";
    let called = station.sh(&format!("{line} & {line}; wait"));
    assert_eq!(called.status, 0, "{called:?}");
    let shown = station.json(&["jobs", "show", "t"]);
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 2);
    assert!(shown["attempts"].as_array().unwrap().iter().all(|attempt| nano(&attempt["charged"]["total"]) >= 25_000));
    station.verify();
}

#[test]
fn jobmeter_without_standard_error_keeps_the_exit_status() {
    let station = Station::new();
    assert_eq!(station.sh("$JOBMETER run -- sh -c 'exit 5' 2>&-").status, 5);
    assert_eq!(station.sh("$JOBMETER run -- sh -c 'exit 5' 2>/dev/full").status, 5);
    assert_eq!(station.sh("$JOBMETER jobs list | true").status, 0);
    station.verify();
}

#[test]
fn schedulers_name_the_job_and_the_task() {
    let station = Station::new();
    let called = station.sh("SLURM_JOB_ID=123 SLURM_PROCID=4 $JOBMETER run -- true");
    assert_eq!(called.status, 0, "{called:?}");
    let shown = station.json(&["jobs", "show", "123"]);
    assert_eq!(shown["attempts"][0]["identity"]["task"], "4");
}
