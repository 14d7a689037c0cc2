//! A ledger whose every figure is known, since sidecars that measure nothing have told it what to charge.
//!
//! ann trains and chats, bob has no limit, carl burned more than he had, poor has nothing, and silent has a sidecar
//! that went away.

use serde_json::{Value, json};

use crate::attempts::{attempt, finished, last_word, opening, receipt, report};
use crate::service::Service;

/// The service, with these keys: `operator` may do everything, `node` reports, `reader` reads, and `ann` reads of ann.
pub(crate) fn served() -> Service {
    served_with("")
}

pub(crate) fn served_with(options: &str) -> Service {
    let mut service = Service::start(options);
    service.make_key("operator", "--scope admin");
    service.act_as("operator");
    service.make_key("node", "");
    service.make_key("reader", "--scope read");
    service.make_key("ann", "--scope read --only-user --user ann");
    service
}

/// With accounts and jobs in it.
pub(crate) fn full() -> Service {
    let service = served();
    accounts(&service);
    training(&service);
    generation(&service);
    chat(&service);
    refusal(&service);
    silence(&service);
    service
}

fn accounts(service: &Service) {
    let set = |what: &str, body: &Value| service.does("operator", what, body);
    set("PUT /api/v1/users/ann/limit", &json!({ "limit": 10, "why": "student" }));
    // In the year 2100.
    let grant = json!({ "amount": 1.5, "why": "prize", "expiresAt": 4_102_444_800_i64 });
    set("POST /api/v1/users/ann/grants", &grant);
    set("POST /api/v1/users/ann/adjustments", &json!({ "amount": -0.25, "why": "mistake" }));
    set("PUT /api/v1/users/bob/limit", &json!({ "limit": null, "period": "day", "why": "staff" }));
    set("PUT /api/v1/users/poor/limit", &json!({ "limit": 0, "why": "not paid" }));
    let mut card = set("GET /api/v1/rates", &Value::Null)[0]["rates"].clone();
    card["gpu_weights"] = json!([{ "pattern": "*H200*", "weight_ppm": 2_000_000 }]);
    set("PUT /api/v1/rates", &card);
}

/// On a GPU, to its end.
fn training(service: &Service) {
    opening(service, 1, "train-1", "ann", json!({ "name": "iris", "labels": { "team": "a" } }));
    report(service, 1, "12.5", json!({ "GPU-1": gpu() }));
    finished(service, 1, &last_word(1, "12.5", json!({ "GPU-1": gpu() }), "completed", &receipt(1)));
    opening(service, 2, "train-1", "ann", json!({ "task": "1" }));
    let mut failed = receipt(2);
    failed["outcome"] = json!({ "reason": "failed", "exit_code": 3, "signal": null, "tamper": "none", "degraded": [] });
    failed["gpu"] = json!({ "source": "none", "busy_seconds": 0, "allocated_seconds": 0, "unattributed_seconds": 0,
        "error_bound_seconds": null, "devices": [] });
    finished(service, 2, &last_word(2, "0.5", json!({}), "failed", &failed));
}

fn gpu() -> Value {
    json!({ "model": "NVIDIA H200", "busy_seconds": 1.2, "allocated_seconds": 2 })
}

/// Without a limit, and stopped; and more than an account had, so that a part of it is not charged.
fn generation(service: &Service) {
    opening(service, 3, "gen-1", "bob", json!({ "kind": "generation" }));
    began_long_ago(service, 3);
    let mut stopped = receipt(3);
    stopped["outcome"]["reason"] = json!("operator_stop");
    stopped["outcome"]["exit_code"] = Value::Null;
    finished(service, 3, &last_word(3, "1000", json!({}), "operator_stop", &stopped));
    service.does("operator", "POST /api/v1/jobs/gen-1/stop", &json!({ "why": "wrong data" }));
    opening(service, 8, "gen-2", "carl", json!({ "kind": "generation" }));
    began_long_ago(service, 8);
    finished(service, 8, &last_word(8, "30000", json!({}), "completed", &receipt(8)));
}

/// Tokens alone.
fn chat(service: &Service) {
    opening(service, 4, "chat-1", "ann", json!({ "kind": "python-session" }));
    service.does("node", "POST /api/v1/jobs/chat-1/tokens", &json!({ "count": 1200 }));
    finished(service, 4, &last_word(4, "0", json!({}), "completed", &Value::Null));
}

fn refusal(service: &Service) {
    let body = attempt(5, "poor-1", "poor", json!({}));
    let response = service.send(&crate::service::Ask::new(
        "node",
        &format!("PUT /api/v1/attempts/{}", crate::attempts::id(5)),
        body.to_string(),
    ));
    assert_eq!(response.status().as_u16(), 402);
}

/// Its lease was over long ago.
fn silence(service: &Service) {
    opening(service, 6, "quiet-1", "silent", json!({}));
    forget_lease(service, 6);
}

/// Or nobody would believe what it used.
fn began_long_ago(service: &Service, number: u32) {
    let db = rusqlite::Connection::open(service.machine.path("service.db")).expect("the ledger");
    db.busy_timeout(std::time::Duration::from_secs(60)).expect("a timeout");
    let sql = "UPDATE attempt SET alive_us = 36000000000, could_cpu_us = 36000000000 WHERE id = ?1";
    assert_eq!(db.execute(sql, [&crate::attempts::id(number)]).expect("a change"), 1);
}

/// As if the sidecar had said nothing for longer than its lease.
pub(crate) fn forget_lease(service: &Service, number: u32) {
    let db = rusqlite::Connection::open(service.machine.path("service.db")).expect("the ledger");
    db.busy_timeout(std::time::Duration::from_secs(60)).expect("a timeout");
    let id = crate::attempts::id(number);
    let attempts = db.execute("UPDATE attempt SET lease_until_us = 1 WHERE id = ?1", [&id]).expect("a change");
    let accounts = db.execute("UPDATE account SET silent_from_us = 1 WHERE owner = 'silent'", []).expect("a change");
    assert_eq!((attempts, accounts), (1, 1));
}
