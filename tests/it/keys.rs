//! Keys of a service: for whom they work, that one follows another, and that they come to an end.

use serde_json::{Value, json};

use crate::service::Service;
use crate::sessions::{client, id_of, sign_in};
use crate::station::awaited;

/// An attempt that this key opens: its lease.
fn opened_by(service: &Service, key: &str, attempt: uuid::Uuid, user: &str) -> Value {
    let (job, kind) = (attempt.to_string(), "training");
    let identity =
        json!({ "attempt": attempt, "job": job, "task": "0", "user": user, "kind": kind, "command": [], "host": "h" });
    let body = json!({ "identity": identity, "resources": { "cpus_ppm": 2_000_000, "gpus": 0, "stop_us": 6000 } });
    let (status, answer) = service.ask(key, "PUT", &format!("/api/v1/attempts/{attempt}"), &body.to_string());
    assert_eq!(status, 201, "{answer}");
    answer["opened"]["lease"].clone()
}

fn listed(service: &Service, key: &str) -> Value {
    let keys = service.json(&["key", "list"]);
    let of = |listed: &&Value| listed["id"] == id_of(key);
    keys.as_array().unwrap().iter().find(of).cloned().unwrap()
}

#[test]
fn a_key_works_for_a_principal_and_tells_when_it_was_used() {
    let service = Service::start();
    let (node, other) =
        (service.key(&["node-7"]), service.key(&["backup of 7", "--principal", "node-7", "--expires-in", "90d"]));
    let new = listed(&service, &node);
    assert_eq!((&new["principal"], &new["usedAt"], &new["expiresAt"]), (&json!("node-7"), &Value::Null, &Value::Null));
    assert_eq!(service.ask(&node, "GET", "/api/v1/rates", "").0, 200);
    let used =
        awaited(|| listed(&service, &node)["usedAt"].as_str().map(str::to_owned).ok_or("it is not written".to_owned()));
    // Once in an hour.
    assert_eq!(service.ask(&node, "GET", "/api/v1/rates", "").0, 200);
    assert_eq!(listed(&service, &node)["usedAt"], used.as_str());
    let other = listed(&service, &other);
    assert_eq!((&other["principal"], &other["usedAt"]), (&json!("node-7"), &Value::Null));
    let ends: jiff::Timestamp = other["expiresAt"].as_str().unwrap().parse().unwrap();
    let days = (ends.as_second() - jiff::Timestamp::now().as_second()) / 86_400;
    assert!((89..=90).contains(&days), "{ends}");
    let shown = service.call(&service.admin, &["key", "list"]).out;
    assert!(shown.contains("PRINCIPAL") && shown.contains("LAST USED") && shown.contains("node-7"), "{shown}");
    let admin = listed(&service, &service.admin);
    assert_eq!(admin["principal"], "first admin key");
}

/// The new key goes on with what the old one has opened, while both are good and after that.
#[test]
fn a_key_follows_another_while_jobs_run() {
    let service = Service::start();
    let (old, stranger) = (service.key(&["node-7"]), service.key(&["node-8"]));
    let attempt = uuid::Uuid::from_u128(7);
    let lease = opened_by(&service, &old, attempt, "u");
    let report = |seq: u64| {
        json!({ "attempt": attempt, "seq": seq, "usage": { "cpu_used_seconds": 0.001, "cpu_allocated_seconds": 1 },
            "period": lease["period"], "ceiling_version": lease["version"],
            "resources": { "cpus_ppm": 2_000_000, "gpus": 0, "stop_us": 6000 } })
    };
    let path = format!("/api/v1/attempts/{attempt}/usage");
    let ask = |key: &str, seq: u64| service.ask(key, "PUT", &path, &report(seq).to_string()).0;
    let new = service.key(&["node-7"]);
    assert_eq!([ask(&old, 1), ask(&new, 2), ask(&stranger, 3), ask(&old, 4)], [200, 200, 404, 200]);
    service.json(&["key", "revoke", id_of(&old)]);
    awaited(|| if ask(&old, 5) == 401 { Ok(()) } else { Err("the old key is good".to_owned()) });
    assert_eq!([ask(&new, 6), ask(&stranger, 7)], [200, 404]);
    service.verify();
}

/// A key ends by itself, and with it the sessions that were made with it.
#[test]
fn a_key_comes_to_its_end() {
    let service = Service::start();
    let key = service.key(&["w", "--scope", "read", "--expires-in", "3s"]);
    let session = sign_in(&service.url, &key);
    let page = || {
        let request = client().get(format!("{}/jobs", service.url)).header("cookie", &session);
        request.send().unwrap().status().as_u16()
    };
    assert_eq!((service.ask(&key, "GET", "/api/v1/rates", "").0, page()), (200, 200));
    awaited(|| match service.ask(&key, "GET", "/api/v1/rates", "").0 {
        401 => Ok(()),
        status => Err(status.to_string()),
    });
    assert_eq!(page(), 303, "the session goes on");
    let refused = service.call(&service.admin, &["key", "create", "x", "--expires-in", "0s"]);
    assert!(refused.status != 0, "{refused:?}");
    let (status, told) =
        service.ask(&service.admin, "POST", "/api/v1/keys", r#"{"name":"x","scope":"read","expiresAt":7}"#);
    assert!(status == 409 && told["detail"].as_str().unwrap().contains("invalid end"), "{status} {told}");
}

/// Jobs of one id: of ann by two nodes, and of bob by one of them. The keys are the nodes', and ann's own.
fn with_three_jobs() -> (Service, [String; 3]) {
    let service = Service::start();
    let (one, two) = (service.key(&["node-1"]), service.key(&["node-2"]));
    let ann = service.key(&["a", "--only-user", "--user", "ann"]);
    for (key, user) in [(&one, "ann"), (&two, "ann"), (&two, "bob")] {
        assert_eq!(service.call(key, &["--user", user, "run", "-q", "--job", "train-1", "--", "true"]).status, 0);
    }
    (service, [one, two, ann])
}

/// Where several jobs have an id, whoever names it is told whose they are, and says which.
#[test]
fn an_id_of_several_jobs_is_told_with_whose_they_are() {
    let (service, [_, _, ann]) = with_three_jobs();
    let call = |key: &str, arguments: &[&str]| service.call(key, arguments);
    for verb in [
        &["jobs", "show", "train-1"][..],
        &["jobs", "show", "trai"],
        &["jobs", "stop", "train-1"],
        &["tokens", "train-1", "5"],
    ] {
        let told = call(&service.admin, verb);
        assert!(
            told.status == 1 && told.err.contains("\"bob\" by \"node-2\"") && told.err.contains("--principal"),
            "{told:?}"
        );
        let told = call(&ann, verb);
        assert!(
            told.status == 1 && told.err.contains("\"ann\" by \"node-1\"") && !told.err.contains("bob"),
            "{told:?}"
        );
    }
    let (status, told) = service.ask(&service.admin, "GET", "/api/v1/jobs/train-1", "");
    assert!(status == 409 && told["detail"].as_str().unwrap().contains("\"ann\" by \"node-1\""), "{told}");
    service.verify();
}

#[test]
fn whoever_says_whose_a_job_is_gets_that_one() {
    let (service, [one, two, ann]) = with_three_jobs();
    let call = |key: &str, arguments: &[&str]| service.call(key, arguments);
    let shown = |key: &str, more: &[&str]| {
        let called = call(key, &[&["--json", "jobs", "show", "train-1"], more].concat());
        assert_eq!(called.status, 0, "{more:?}: {called:?}");
        let job: Value = serde_json::from_str(&called.out).unwrap();
        (job["user"].as_str().unwrap().to_owned(), job["principal"].as_str().unwrap().to_owned())
    };
    let pair = |user: &str, principal: &str| (user.to_owned(), principal.to_owned());
    assert_eq!(shown(&service.admin, &["--user", "bob"]), pair("bob", "node-2"));
    assert_eq!(shown(&service.admin, &["--principal", "node-1"]), pair("ann", "node-1"));
    assert_eq!(shown(&ann, &["--principal", "node-2"]), pair("ann", "node-2"));
    // A node's key changes what its node has alone, and so means that.
    for (key, arguments, status) in [
        (&one, &["tokens", "train-1", "5"][..], 0),
        (&one, &["--user", "bob", "tokens", "train-1", "5"], 1),
        (&one, &["tokens", "train-1", "5", "--principal", "node-2"], 1),
        (&two, &["--user", "bob", "jobs", "stop", "train-1"], 0),
        (&ann, &["jobs", "stop", "train-1", "--principal", "node-1"], 0),
    ] {
        let called = call(key, arguments);
        assert_eq!(called.status, status, "{arguments:?}: {called:?}");
    }
    assert_eq!(service.ask(&service.admin, "GET", "/api/v1/jobs/train-1?user=ann&principal=node-2", "").0, 200);
    service.verify();
}
