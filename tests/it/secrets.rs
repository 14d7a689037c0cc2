//! The secrets of attempts: whoever holds the sidecar's own key, as its job may, neither ends an attempt nor reports it.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::service::Service;
use crate::station::{Station, awaited, ended, line_of, micros, nano};

/// A job that runs until it is let go.
struct Running {
    child: Child,
    attempt: String,
}

impl Running {
    fn start(service: &Service, key: &str) -> Self {
        let line = "env > $DIR/environment; echo ready; while [ ! -e $DIR/go ]; do :; done";
        let receipt = service.station.path("receipt.json");
        let run = ["run", "-q", "--job", "j", "--receipt", receipt.to_str().unwrap(), "--", "bash", "-c", line];
        let mut command = service.command(key, &run);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        assert_eq!(line_of(child.stdout.as_mut().unwrap()), "ready");
        let attempt = &service.json(&["jobs", "show", "j"])["attempts"][0];
        Self { child, attempt: attempt["identity"]["attempt"].as_str().unwrap().to_owned() }
    }

    /// Ends well, and has paid for what it burned.
    fn ends(mut self, service: &Service) {
        std::fs::write(service.station.path("go"), "").unwrap();
        assert!(ended(&mut self.child).success());
        let job = service.json(&["jobs", "show", "j"]);
        let cpu_us = micros(&job["attempts"][0]["receipt"]["cpu"]["total_seconds"]);
        assert_eq!(nano(&job["charged"]["total"]), i64::try_from(cpu_us).unwrap() / 4, "{job}");
    }

    /// What somebody else would say of it: its path, its method, and a body that is well formed.
    fn asked(&self) -> [(&'static str, String, Value); 3] {
        let (attempt, period) = (&self.attempt, 0);
        let usage = json!({ "cpu_used_seconds": 0, "cpu_allocated_seconds": 0 });
        let resources = json!({ "cpus_ppm": 1_000_000, "gpus": 0, "stop_us": 7_000 });
        let identity = json!({ "attempt": attempt, "job": "j", "task": "0", "user": "tester", "kind": "training", "command": [], "host": "h" });
        let report = json!({ "attempt": attempt, "seq": 1, "usage": usage, "period": period, "ceiling_version": 1, "resources": resources });
        let finish =
            json!({ "attempt": attempt, "usage": usage, "period": period, "reason": "completed", "receipt": {} });
        let path = format!("/api/v1/attempts/{attempt}");
        [
            ("POST", format!("{path}/finish"), finish),
            ("PUT", format!("{path}/usage"), report),
            ("PUT", path, json!({ "identity": identity, "resources": resources })),
        ]
    }
}

/// The one spool file of a station.
fn spool_file(station: &Station) -> PathBuf {
    let files = std::fs::read_dir(station.path("spool")).unwrap().flatten().map(|entry| entry.path());
    let mut files = files.filter(|path| path.extension().is_some_and(|extension| extension == "spool"));
    files.next().expect("a spool file")
}

fn header_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes.split(|byte| *byte == b'\n').next().unwrap()).unwrap()
}

fn secret_in(path: &PathBuf) -> String {
    header_of(&std::fs::read(path).unwrap())["secret"].as_str().unwrap().to_owned()
}

#[test]
fn a_key_alone_neither_reports_nor_ends_an_attempt() {
    let service = Service::start();
    let key = service.key(&["worker"]);
    let running = Running::start(&service, &key);
    let other = "0".repeat(64);
    for (method, path, body) in running.asked() {
        for (key, secrets) in [(&key, &[][..]), (&key, &[other.as_str()]), (&service.admin, &[])] {
            let (status, problem) = service.ask_with(secrets, key, method, &path, &body.to_string());
            assert_eq!((status, problem["type"].as_str()), (403, Some("urn:jobmeter:problem:attempt-secret")));
            assert!(problem["detail"].as_str().unwrap().contains("sidecar that opened it"), "{problem}");
        }
        for wrong in [&["x"][..], &["é"], &[other.as_str(), other.as_str()], &[&other.to_uppercase()[1..]]] {
            let (status, problem) = service.ask_with(wrong, &key, method, &path, &body.to_string());
            assert_eq!((status, problem["type"].as_str()), (422, Some("urn:jobmeter:problem:malformed")));
            assert!(!problem.to_string().contains(wrong[0]) || wrong[0].len() < 2, "{problem}");
        }
    }
    let job = service.json(&["jobs", "show", "j"]);
    assert_eq!((job["state"].as_str(), &job["attempts"][0]["reason"]), (Some("running"), &Value::Null), "{job}");
    running.ends(&service);
    service.verify();
}

/// Who has it is who opened it; and nothing that anybody is shown has it.
#[test]
fn the_secret_opens_the_attempt_and_is_shown_nowhere() {
    let service = Service::start();
    let key = service.key(&["worker"]);
    let running = Running::start(&service, &key);
    let secret = secret_in(&spool_file(&service.station));
    let [_, (method, path, report), (_, open, _)] = running.asked();
    let mut shown = String::new();
    let (status, answer) = service.ask_with(&[&secret], &key, method, &path, &report.to_string());
    assert_eq!(status, 200, "{answer}");
    shown.push_str(&answer.to_string());
    assert_eq!(service.ask_with(&[&secret], &key, "PUT", &open, "{}").0, 422);
    shown.push_str(&std::fs::read_to_string(service.station.path("environment")).unwrap());
    shown.push_str(&service.json(&["spool", "list"]).to_string());
    running.ends(&service);
    for path in ["jobs/j", "jobs", "users/tester/entries", "users/tester/credits", "openapi.json"] {
        shown.push_str(&service.ask(&service.admin, "GET", &format!("/api/v1/{path}"), "").1.to_string());
    }
    shown.push_str(&std::fs::read_to_string(service.station.path("receipt.json")).unwrap());
    assert!(shown.contains("running") && shown.contains("jobmeter.receipt/1"), "{shown}");
    assert!(!shown.contains(&secret[..8]), "the secret is shown");
    // Nor do the books have it.
    let books =
        ["service.db", "service.db-wal"].map(|name| std::fs::read(service.station.path(name)).unwrap_or_default());
    let is_in = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
    assert!(!books.iter().any(|bytes| is_in(bytes)));
    service.verify();
}

/// A file as the sidecar's, put where root flushes with a key for all accounts.
#[test]
fn a_forged_spool_ends_nothing() {
    let service = Service::start();
    let key = service.key(&["worker"]);
    let running = Running::start(&service, &key);
    let path = spool_file(&service.station);
    let bytes = std::fs::read(&path).unwrap();
    let header = header_of(&bytes);
    let forged = service.station.path("forged");
    std::fs::create_dir(&forged).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    // Of an earlier boot: the job that runs is not looked for.
    let text = text.replace(header["boot_id"].as_str().unwrap(), "00000000-0000-0000-0000-000000000000");
    let text = text.replace(header["secret"].as_str().unwrap(), &"0".repeat(64));
    let text = text.replace(".sock\"", ".none\"");
    std::fs::write(forged.join(path.file_name().unwrap()), text).unwrap();
    let mut flush = service.command(&service.admin, &["--json", "spool", "flush"]);
    let flushed: Value =
        serde_json::from_slice(&flush.env("JOBMETER_SPOOL", &forged).output().unwrap().stdout).unwrap();
    let state = flushed["kept"][0]["state"].as_str().unwrap_or_else(|| panic!("{flushed}"));
    assert!(state.contains("the attempt belongs to the sidecar that opened it"), "{flushed}");
    running.ends(&service);
    service.verify();
}

/// Front and keeper at once: whoever flushes later shows what the file says.
#[test]
fn a_spool_that_is_left_over_is_settled_with_its_secret() {
    let service = Service::start();
    let key = service.key(&["worker"]);
    let mut running = Running::start(&service, &key);
    let front = i32::try_from(running.child.id()).unwrap();
    let children = std::fs::read_to_string(format!("/proc/{front}/task/{front}/children")).unwrap();
    let pids: Vec<i32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    let is_meter = |pid: &&i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).next().is_some_and(|name| name.ends_with(b"jobmeter"))
    };
    let keeper = *pids.iter().find(is_meter).expect("a keeper");
    for pid in [keeper, front] {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    ended(&mut running.child);
    assert_eq!(secret_in(&spool_file(&service.station)).len(), 64);
    let flushed = awaited(|| {
        let called = service.call(&key, &["--json", "spool", "flush"]);
        let flushed: Value = serde_json::from_str(&called.out).map_err(|error| error.to_string())?;
        if flushed["settled"].as_array().is_some_and(|settled| settled.len() == 1) {
            Ok(flushed)
        } else {
            Err(flushed.to_string())
        }
    });
    assert!(flushed["kept"].as_array().unwrap().is_empty(), "{flushed}");
    let job = service.json(&["jobs", "show", "j"]);
    assert_eq!(job["attempts"][0]["reason"], "meter_lost", "{job}");
    let cpu_us = micros(&job["attempts"][0]["receipt"]["cpu"]["total_seconds"]);
    assert_eq!(nano(&job["charged"]["total"]), i64::try_from(cpu_us).unwrap() / 4, "{job}");
    // And sent again, as after a restore.
    assert_eq!(service.call(&key, &["spool", "flush", "--acknowledged"]).status, 0);
    service.verify();
}
