//! Receipts: programs that read those of an earlier version read today's, and today's jobmeter reads the earlier ones.

use std::collections::BTreeMap;

use jobmeter::runner::receipt::Receipt;
use serde_json::Value;

use crate::fixture::{Version, assert_same, versions};
use crate::station::Station;

/// What DESIGN, section 7, and the README promise to whoever reads a receipt.
const DOCUMENTED: [(&str, &[&str]); 12] = [
    ("job", &["id", "task", "attempt", "name", "kind", "user", "command", "host", "labels"]),
    ("outcome", &["reason", "exit_code", "signal", "tamper", "degraded"]),
    ("time", &["started_at", "ended_at", "wall_seconds", "held_seconds", "frozen_seconds", "notice_sent_at"]),
    (
        "cpu",
        &[
            "source",
            "error_bound_seconds",
            "total_seconds",
            "user_seconds",
            "system_seconds",
            "allocated_seconds",
            "throttled_seconds",
            "pressure_seconds",
            "steal_seconds",
            "teardown_seconds",
            "busiest",
        ],
    ),
    ("memory", &["peak_bytes", "oom_kills"]),
    ("io", &["read_bytes", "written_bytes"]),
    ("gpu", &["source", "busy_seconds", "allocated_seconds", "unattributed_seconds", "error_bound_seconds", "devices"]),
    ("virtual", &["cpu_seconds", "gpu_seconds", "total_seconds"]),
    ("credits", &["cpu", "gpu", "tokens", "total", "overshoot", "balance", "rate_card"]),
    ("meter", &["cpu_seconds", "readings", "reports", "wake_lateness_max_seconds"]),
    ("schema", &[]),
    ("tokens", &[]),
];

fn receipts(version: &Version) -> BTreeMap<String, Value> {
    let files = std::fs::read_dir(version.path("receipts")).unwrap().flatten();
    let of = |name: String| (name.trim_end_matches(".json").to_owned(), version.json(&format!("receipts/{name}")));
    files.map(|file| of(file.file_name().to_string_lossy().into_owned())).collect()
}

fn assert_is_documented(receipt: &Value, what: &str) {
    for (part, fields) in DOCUMENTED {
        let found = receipt.get(part).unwrap_or_else(|| panic!("{what} has no {part}: {receipt}"));
        // What never ran, and what no ledger has acknowledged, cost nothing.
        for field in fields.iter().filter(|_| !found.is_null()) {
            assert!(found.get(field).is_some(), "{what} has no {part}.{field}: {receipt}");
        }
    }
    assert_eq!(receipt["schema"], "jobmeter.receipt/1", "{what}: {receipt}");
}

#[test]
fn an_old_receipt_is_read_whole() {
    for version in versions() {
        let receipts = receipts(&version);
        let names: Vec<&str> = receipts.keys().map(String::as_str).collect();
        for needed in
            ["completed", "failed", "signalled", "job_limit", "credits_exhausted", "refused", "not_found", "gpu"]
        {
            assert!(names.contains(&needed), "{}: {needed} is not among {names:?}", version.name);
        }
        for (name, receipt) in receipts {
            let what = format!("{} {name}", version.name);
            assert_is_documented(&receipt, &what);
            let read: Receipt =
                serde_json::from_value(receipt.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
            // Nothing of it is lost.
            assert_same(&receipt, &serde_json::to_value(read).unwrap(), &[], &what);
        }
    }
}

/// The breakdown for people is made of the receipt that an attempt sent, by whichever version it was.
#[test]
fn an_old_receipt_is_shown() {
    for version in versions() {
        let station = version.copied("sqlite");
        for (job, texts) in [
            ("train-1", &["status 0", "by cgroup2", "team=search", "allocated"][..]),
            ("chat-1", &["signal 9"]),
            ("gen-1", &["the job's own limit was reached"]),
            ("gpu-0", &["GPU-8932f937", "busy"]),
            ("silent-2", &["jobmeter itself was killed"]),
        ] {
            let shown = station.ok(&["jobs", "show", job]).out;
            for text in texts {
                assert!(shown.contains(text), "{} {job} does not say {text:?}: {shown}", version.name);
            }
        }
    }
}

/// Today's receipt of a run that ends in the same way.
fn today(station: &Station, reason: &str) -> Option<Value> {
    let path = station.path(&format!("{reason}.json"));
    let file = path.to_str().unwrap();
    let spin = ["python3", "-c", "while True: pass"];
    let (options, command): (&[&str], &[&str]) = match reason {
        "completed" => (&[], &["true"]),
        "failed" => (&[], &["sh", "-c", "exit 3"]),
        "signalled" => (&[], &["sh", "-c", "kill -9 $$"]),
        "job_limit" => (&["--limit", "0.0001"], &spin),
        "credits_exhausted" => (&["--user", "poor"], &spin),
        "refused" => (&["--user", "broke"], &["true"]),
        "not_found" => (&[], &["/nowhere/train"]),
        _ => return None,
    };
    station.call(&[&["run", "--quiet", "--job", reason, "--receipt", file], options, &["--"], command].concat());
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{reason}: {error}"));
    Some(serde_json::from_str(&text).unwrap())
}

#[test]
fn todays_receipts_have_what_the_old_ones_had() {
    for version in versions() {
        let station = Station::new();
        station.ok(&["--user", "broke", "account", "limit", "0"]);
        station.ok(&["--user", "poor", "account", "limit", "0.001"]);
        for (name, old) in receipts(&version) {
            let Some(new) = today(&station, &name) else { continue };
            let what = format!("{} {name}", version.name);
            assert_is_documented(&new, &what);
            assert_eq!(new["outcome"]["reason"], old["outcome"]["reason"], "{what}: {new}");
            assert_eq!(new["outcome"]["exit_code"], old["outcome"]["exit_code"], "{what}: {new}");
            assert_eq!(new["outcome"]["signal"], old["outcome"]["signal"], "{what}: {new}");
            let (old, new) = (paths(&old), paths(&new));
            for path in old {
                assert!(new.contains(&path), "{what} has no {path} any more");
            }
        }
    }
}

/// The fields of a document with their paths, but for those of maps and lists, whose names are data.
fn paths(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(document, "", &mut found);
    found
}

fn collect(document: &Value, path: &str, found: &mut Vec<String>) {
    for (name, field) in document.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if !["labels", "below_ms"].contains(&name.as_str()) {
            collect(field, &path, found);
        }
        found.push(path);
    }
}
