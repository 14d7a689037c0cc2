//! Problem documents of the HTTP API (RFC 9457): every endpoint, and what it says to who asks wrongly.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::attempts::{attempt, id};
use crate::books::served;
use crate::kept::keep;
use crate::service::{Ask, Service};

fn service() -> Service {
    let service = served();
    crate::attempts::opening(&service, 1, "job-1", "ann", json!({}));
    crate::attempts::opening(&service, 2, "job-2", "bob", json!({}));
    crate::attempts::opening(&service, 7, "both", "ann", json!({}));
    crate::attempts::opening(&service, 8, "both", "bob", json!({}));
    service
}

/// The body of a good request, with one value that is not.
fn with(body: &Value, pointer: &str, value: Value) -> String {
    let mut body = body.clone();
    *body.pointer_mut(pointer).expect("a value in its place") = value;
    body.to_string()
}

fn opening() -> Vec<Ask<'static>> {
    let path = "PUT /api/v1/attempts/00000000-0000-7000-8000-000000000003";
    let good = attempt(3, "job-3", "ann", json!({}));
    let long = "x".repeat(2_000);
    let ask = |what, body: String| Ask::new("node", what, body);
    vec![
        ask(path, String::new()),
        ask(path, "{".to_owned()),
        ask(path, "null".to_owned()),
        ask(path, "[".repeat(500)),
        // One byte too many, so that all of it is read before the answer.
        ask(path, "x".repeat((256 << 10) + 1)),
        ask("PUT /api/v1/attempts/none", good.to_string()),
        ask("PUT /api/v1/attempts/00000000-0000-7000-8000-000000000004", good.to_string()),
        ask(path, with(&good, "/identity/user", json!(""))),
        ask(path, with(&good, "/identity/user", json!("a\u{1b}b"))),
        ask(path, with(&good, "/identity/job", json!(long))),
        ask(path, with(&good, "/identity/kind", json!("mining"))),
        ask(path, with(&good, "/identity/attempt", json!("x"))),
        ask(path, with(&good, "/resources/cpus_ppm", json!(-1))),
        ask(path, with(&good, "/resources/cpus_ppm", json!(2_000_000_000_000_u64))),
        ask(path, with(&good, "/resources/gpus", json!(1.5))),
        ask(path, with(&good, "/resources/stop_us", json!(600_000_001))),
        ask(path, with(&good, "/resources", json!({ "cpus_ppm": 1, "gpus": 0, "stop_us": 1, "wishes": 3 }))),
        ask(path, good.to_string().replacen('{', "{\"limit\":-1,", 1)),
        ask(path, good.to_string().replacen('{', "{\"limit\":1e30,", 1)),
        ask(
            "PUT /api/v1/attempts/00000000-0000-7000-8000-000000000002",
            attempt(2, "job-1", "ann", json!({})).to_string(),
        ),
        Ask::new("reader", path, good.to_string()),
    ]
}

fn reporting() -> Vec<Ask<'static>> {
    let (usage, finish) = (
        "PUT /api/v1/attempts/00000000-0000-7000-8000-000000000003/usage",
        "POST /api/v1/attempts/00000000-0000-7000-8000-000000000003/finish",
    );
    let report = json!({
        "attempt": id(3), "seq": 1, "usage": { "cpu_used_seconds": 1, "cpu_allocated_seconds": 1 }, "period": 0,
        "ceiling_version": 1, "resources": { "cpus_ppm": 1, "gpus": 0, "stop_us": 1 },
    });
    let last = json!({
        "attempt": id(3), "usage": { "cpu_used_seconds": 1, "cpu_allocated_seconds": 1 }, "period": 0,
        "reason": "completed", "receipt": {},
    });
    let ask = |what, body: String| Ask::new("node", what, body);
    vec![
        ask(usage, String::new()),
        ask(usage, report.to_string()),
        ask(usage, with(&report, "/usage/cpu_used_seconds", json!(-1))),
        ask(usage, with(&report, "/seq", json!(u64::MAX))),
        ask(usage, with(&report, "/period", json!(-1))),
        Ask::new("reader", usage, report.to_string()),
        ask(finish, String::new()),
        ask(finish, last.to_string()),
        ask(finish, with(&last, "/reason", json!("bored"))),
        ask(finish, with(&last, "/receipt", json!({ "words": "x".repeat(300_000) }))),
        Ask::new("reader", finish, last.to_string()),
    ]
}

/// Of an attempt whose sidecar has shown its secret.
fn secrets() -> Vec<Ask<'static>> {
    let others = &[("jobmeter-attempt-secret", "0000000000000000000000000000000000000000000000000000000000000000")];
    let (what, body) = (
        "POST /api/v1/attempts/00000000-0000-7000-8000-000000000001/finish",
        json!({
            "attempt": id(1), "usage": { "cpu_used_seconds": 0, "cpu_allocated_seconds": 0 }, "period": 0,
            "reason": "completed", "receipt": {},
        }),
    );
    let ask = |headers| Ask { headers, ..Ask::new("node", what, body.to_string()) };
    vec![ask(&[]), ask(others), ask(&[("jobmeter-attempt-secret", "words")])]
}

fn tokens() -> Vec<Ask<'static>> {
    let path = "POST /api/v1/jobs/job-1/tokens";
    let ask = |body: Value| Ask::new("node", path, body.to_string());
    vec![
        ask(json!({})),
        ask(json!({ "count": -1 })),
        ask(json!({ "count": u64::MAX })),
        ask(json!({ "count": 1, "reserve": 1 })),
        ask(json!({ "reserve": 1, "lastsMs": 0 })),
        ask(json!({ "reservation": "x", "count": 1 })),
        ask(json!({ "reservation": id(9) })),
        ask(json!({ "reservation": id(9), "count": 1 })),
        ask(json!({ "count": 1, "wishes": 3 })),
        ask(json!({ "reserve": 9_000_000 })),
        Ask::new("node", "POST /api/v1/jobs/none-such/tokens", json!({ "count": 1 }).to_string()),
        Ask { headers: &[], ..ask(json!({ "count": 1 })) },
        Ask { headers: &[("idempotency-key", "")], ..ask(json!({ "count": 1 })) },
        Ask::new("reader", path, json!({ "count": 1 }).to_string()),
    ]
}

fn reading() -> Vec<Ask<'static>> {
    let asks = [
        ("reader", "GET /api/v1/jobs?count=many"),
        ("reader", "GET /api/v1/jobs?kind=mining"),
        ("reader", "GET /api/v1/jobs?before=x"),
        ("reader", "GET /api/v1/jobs?wishes=3"),
        ("reader", "GET /api/v1/jobs/none-such"),
        ("reader", "GET /api/v1/jobs/job-"),
        ("reader", "GET /api/v1/jobs/%ff"),
        ("reader", "GET /api/v1/jobs/job-1/stopped"),
        ("node", "GET /api/v1/attempts/none-such/stopped"),
        ("node", "GET /api/v1/attempts/0199f2a0-0000-7000-8000-000000000001/stopped?waitMs=60000"),
        ("node", "GET /api/v1/jobs/none-such/stopped"),
        ("reader", "GET /api/v1/users/a%1bb/credits"),
        ("reader", "GET /api/v1/users/ann/usage?month=2001-13"),
        ("reader", "GET /api/v1/users/ann/usage?from=x"),
        ("reader", "GET /api/v1/users/ann/usage?by=year"),
        ("reader", "GET /api/v1/users/ann/usage?month=2001-11&to=2001-11-01"),
        ("reader", "GET /api/v1/usage?each=maybe"),
        ("reader", "GET /api/v1/usage?each=true&after=x"),
        ("reader", "GET /api/v1/usage?count=1"),
        ("reader", "GET /api/v1/users/ann/entries?count=-1"),
        ("reader", "GET /api/v1/users/ann/entries?before=x"),
        ("reader", "GET /api/v1/events"),
        ("reader", "GET /api/v1/keys"),
        ("reader", "GET /api/v1/ledger/verify"),
        ("ann", "GET /api/v1/jobs?user=bob"),
        ("ann", "GET /api/v1/jobs/job-2"),
        ("ann", "GET /api/v1/jobs/job-2?user=bob"),
        ("reader", "GET /api/v1/jobs/both"),
        ("reader", "GET /api/v1/jobs/both?user=eve"),
        ("ann", "GET /api/v1/users/bob/credits"),
        ("ann", "GET /api/v1/users/bob/usage"),
        ("ann", "GET /api/v1/users/bob/entries"),
        ("ann", "GET /api/v1/usage"),
        ("ann", "GET /api/v1/events?user=bob"),
        ("", "GET /api/v1/rates"),
        ("words", "GET /api/v1/rates"),
        ("jm_0123456789ab_00", "GET /api/v1/rates"),
        ("reader", "GET /nothing"),
        ("reader", "GET /api/v1/nothing"),
        ("reader", "DELETE /api/v1/rates"),
        ("reader", "GET /api/v2/users/me"),
    ];
    asks.map(|(by, what)| Ask::new(by, what, "")).into()
}

fn changing() -> Vec<Ask<'static>> {
    let (why, amount) = (json!({ "why": "w" }), json!({ "amount": 1, "why": "w" }));
    let (limit, grants, adjustments) =
        ("PUT /api/v1/users/ann/limit", "POST /api/v1/users/ann/grants", "POST /api/v1/users/ann/adjustments");
    let settle = "POST /api/v1/attempts/00000000-0000-7000-8000-000000000009/settle";
    let ask = |what, body: Value| Ask::new("operator", what, body.to_string());
    vec![
        ask("POST /api/v1/jobs/none-such/stop", why.clone()),
        ask("POST /api/v1/jobs/job-1/stop", json!({})),
        ask("POST /api/v1/jobs/job-1/stop", json!(["a list of what belongs into an object"])),
        ask("POST /api/v1/jobs/job-1/stop", json!({ "why": "a\nb" })),
        ask(limit, json!({ "limit": -1 })),
        ask(limit, json!({ "limit": 1_000_000_001_u64 })),
        ask(limit, json!({ "limit": 1, "period": "year" })),
        ask(grants, json!({ "amount": 0, "why": "w" })),
        ask(grants, json!({ "amount": 1, "why": "w", "expiresAt": 1 })),
        ask(grants, json!({ "amount": 1 })),
        Ask { headers: &[], ..ask(grants, amount.clone()) },
        ask(grants, json!({ "amount": 2, "why": "first" })),
        ask(grants, json!({ "amount": 3, "why": "the same key" })),
        ask(adjustments, json!({ "amount": 0, "why": "w" })),
        ask(adjustments, json!({ "amount": "much", "why": "w" })),
        Ask { headers: &[], ..ask(adjustments, amount.clone()) },
        ask(adjustments, json!({ "amount": 1, "why": "w", "grant": 1 })),
        ask("POST /api/v1/users/ann/suspend", json!({})),
        ask("POST /api/v1/users/ann/resume", json!({ "why": "a\nb" })),
        ask("POST /api/v1/users/nobody-yet/repair", why.clone()),
        ask("POST /api/v1/users/ann/grants/9/revoke", why.clone()),
        ask("POST /api/v1/users/ann/grants/first/revoke", why.clone()),
        ask(settle, json!({ "usage": null, "why": "w" })),
        ask("POST /api/v1/attempts/none/settle", json!({ "usage": null, "why": "w" })),
        ask("POST /api/v1/attempts/00000000-0000-7000-8000-000000000001/settle", json!({ "usage": null, "why": "w" })),
        ask("PUT /api/v1/rates", json!({})),
        ask("PUT /api/v1/rates", card(json!({ "cpu_per_second": -1 }))),
        ask("PUT /api/v1/rates", card(json!({ "cpu_weight_ppm": 1_000_000_001 }))),
        ask("PUT /api/v1/rates", card(json!({ "gpu_weights": [{ "pattern": "", "weight_ppm": 1 }] }))),
        ask("POST /api/v1/keys", json!({ "name": "", "scope": "read" })),
        ask("POST /api/v1/keys", json!({ "name": "n", "scope": "all" })),
        ask("DELETE /api/v1/keys/0123456789ab", Value::Null),
        Ask::new("node", limit, json!({ "limit": 1 }).to_string()),
        Ask::new("node", "POST /api/v1/keys", json!({ "name": "n", "scope": "admin" }).to_string()),
        Ask::new("reader", "PUT /api/v1/rates", "{}"),
        Ask::new("reader", "POST /api/v1/jobs/job-1/stop", why.to_string()),
        Ask::new("reader", "POST /api/v1/users/ann/suspend", why.to_string()),
        Ask::new("reader", settle, "{}"),
        Ask::new("reader", "DELETE /api/v1/keys/0123456789ab", ""),
        Ask::new("ann", grants, amount.to_string()),
        Ask::new("ann", adjustments, amount.to_string()),
    ]
}

fn card(more: Value) -> Value {
    let mut card = json!({ "version": 1, "cpu_per_second": 1, "gpu_per_second": 1, "per_million_tokens": 1,
        "cpu_weight_ppm": 1, "gpu_weight_ppm": 1, "cpu_basis": "used", "gpu_basis": "busy" });
    card.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    card
}

fn setting() -> Vec<Ask<'static>> {
    let path = "PUT /api/v1/ledger/settings";
    let ask = |more: Value| Ask::new("operator", path, settings(more).to_string());
    vec![
        ask(json!({ "leaseMs": 4_999 })),
        ask(json!({ "dayLimit": -1 })),
        ask(json!({ "version": 7 })),
        Ask::new("reader", path, "{}"),
        Ask::new("reader", "GET /api/v1/ledger/settings", ""),
    ]
}

fn settings(more: Value) -> Value {
    let mut settings = json!({ "version": 1, "leaseMs": 30_000, "dayLimit": 5, "monthLimit": 150, "period": "day", "unknownUsers": true });
    settings.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    settings
}

#[test]
fn of_attempts() {
    // A long name stands in the answer as well.
    let asks: Vec<Ask> = [opening(), reporting(), secrets()].into_iter().flatten().collect();
    let service = service();
    let headers = &[("jobmeter-attempt-secret", "1111111111111111111111111111111111111111111111111111111111111111")];
    let path = "PUT /api/v1/attempts/00000000-0000-7000-8000-000000000001";
    let again = Ask { headers, ..Ask::new("node", path, attempt(1, "job-1", "ann", json!({})).to_string()) };
    assert!(service.send(&again).status().is_success());
    let text = service.exchanges(&asks).replace(&"x".repeat(2_000), "x*2000");
    keep("problems-attempts", &text);
}

#[test]
fn of_tokens() {
    keep("problems-tokens", &service().exchanges(&tokens()));
}

#[test]
fn of_reading() {
    keep("problems-reading", &service().exchanges(&reading()));
}

#[test]
fn of_changing() {
    let asks: Vec<Ask> = [changing(), setting()].into_iter().flatten().collect();
    keep("problems-changing", &service().exchanges(&asks));
}

/// What is broken is the operator's business, and stands in the log alone.
#[test]
fn of_a_broken_ledger() {
    let service = service();
    let db = rusqlite::Connection::open(service.machine.path("service.db")).expect("the ledger");
    db.busy_timeout(std::time::Duration::from_secs(60)).expect("a timeout");
    db.execute("UPDATE account SET entries = x'00' WHERE owner = 'ann'", []).expect("a change");
    keep("problems-broken", &service.exchange(&Ask::new("reader", "GET /api/v1/users/ann/credits", "")));
}

/// Whether a request is one of this endpoint.
fn is_of(what: &str, endpoint: &str) -> bool {
    let what = what.split('?').next().unwrap_or_default();
    let (mut asked, mut template) = (what.split('/'), endpoint.split('/'));
    loop {
        match (asked.next(), template.next()) {
            (None, None) => return true,
            (Some(word), Some(part)) if word == part || part.starts_with('{') => {}
            _ => return false,
        }
    }
}

#[test]
fn the_interface_is_described_and_each_of_its_endpoints_was_asked_wrongly() {
    let mut service = service();
    service.machine.known.learn(env!("CARGO_PKG_VERSION"), "<version>");
    let document = service.does("reader", "GET /api/v1/openapi.json", &Value::Null);
    keep("openapi", &service.machine.known.in_json(&document, &[]));
    let mut endpoints = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        endpoints.extend(
            methods.as_object().expect("methods").keys().map(|method| format!("{} {path}", method.to_uppercase())),
        );
    }
    assert!(endpoints.len() > 15, "{endpoints:?}");
    let asked: Vec<Ask> =
        [opening(), reporting(), tokens(), reading(), changing(), setting()].into_iter().flatten().collect();
    endpoints.retain(|endpoint| !asked.iter().any(|ask| is_of(ask.what, endpoint)));
    assert!(endpoints.is_empty(), "nobody sees what these say to a wrong request: {endpoints:?}");
}
