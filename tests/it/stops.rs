//! How a sidecar learns from a service that its job was stopped.

use std::process::Stdio;

use serde_json::json;

use crate::service::{Service, receipt};
use crate::station::{awaited, ended, line_of};

#[test]
fn an_operators_stop_reaches_a_job_on_another_machine() {
    let service = Service::start();
    let key = service.key(&["worker"]);
    let mut child =
        service.command(&key, &["run", "--job", "long", "--", "sleep", "100"]).stderr(Stdio::null()).spawn().unwrap();
    awaited(|| match service.call(&service.admin, &["jobs", "show", "long"]) {
        shown if shown.status == 0 => Ok(()),
        shown => Err(format!("{shown:?}")),
    });
    service.json(&["jobs", "stop", "long", "--why", "test"]);
    assert_eq!(ended(&mut child).code(), Some(137));
}

/// A sidecar asks once whether its job was stopped, and the question is kept: what it asks does not grow with time. A suspension answers
/// it.
#[test]
fn a_sidecars_question_about_stops_is_kept() {
    let service = Service::start();
    let key = service.key(&["worker"]);
    let line = "for i in 1 2 3 4; do sleep 1; done; echo ready; sleep 100";
    let mut child = service
        .command(&key, &["--user", "ann", "run", "--job", "long", "--", "sh", "-c", line])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(line_of(child.stdout.as_mut().unwrap()), "ready");
    let metrics = reqwest::blocking::get(format!("{}/metrics", service.url)).unwrap().text().unwrap();
    let asked = metrics.lines().filter(|line| line.starts_with("jobmeter_http_requests_total{method=\"GET\""));
    let asked: u64 = asked.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert!(asked < 2, "{metrics}");
    service.json(&["--user", "ann", "account", "suspend", "--why", "test"]);
    assert_eq!(ended(&mut child).code(), Some(137));
    assert_eq!(receipt(&service.json(&["jobs", "show", "long"]))["outcome"]["reason"], "operator_stop");
}

/// Asked for an attempt, whoever else's it is: as unknown as one that there is not, and nothing is told of it.
#[test]
fn a_question_about_stops_tells_of_ones_own_attempts() {
    let service = Service::start();
    let alice = service.key(&["a", "--only-user", "--user", "alice"]);
    let (worker, reader) = (service.key(&["w"]), service.key(&["r", "--scope", "read"]));
    let other = service.key(&["v"]);
    for user in ["alice", "bob"] {
        let called = service.call(&worker, &["--user", user, "run", "-q", "--job", user, "--", "true"]);
        assert_eq!(called.status, 0, "{called:?}");
    }
    let asked = |key: &str, job: &str, wait: &str| {
        let shown = service.json(&["jobs", "show", job]);
        let attempt = shown["attempts"][0]["identity"]["attempt"].as_str().unwrap().to_owned();
        service.ask(key, "GET", &format!("/api/v1/attempts/{attempt}/stopped{wait}"), "")
    };
    // What has ended has nothing to wait for.
    assert_eq!(asked(&alice, "alice", "?waitMs=50000"), (200, json!(true)));
    assert_eq!(asked(&worker, "bob", ""), (200, json!(true)));
    assert_eq!(asked(&alice, "bob", "?waitMs=1"), (200, json!(false)));
    assert_eq!(asked(&other, "bob", "?waitMs=1"), (200, json!(false)));
    assert_eq!(asked(&reader, "bob", "").0, 403);
    for wait in ["?waitMs=55001", "?waitMs=-1", "?wait=1"] {
        assert_eq!(asked(&worker, "bob", wait).0, 422, "{wait}");
    }
}
