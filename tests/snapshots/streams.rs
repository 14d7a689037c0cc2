//! What the service says by itself: events, alerts, figures, its log; and to the platform's own client.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};

use serde_json::Value;

use crate::books::{full, served, served_with};
use crate::bystanders::takes_one;
use crate::kept::keep;
use crate::outputs::within_a_day;
use crate::service::{Ask, Service};

/// How a stream begins: its lines, a comment and an event, up to the second that is empty.
fn first_event(service: &Service, by: &str, what: &str) -> String {
    let response = service.send(&Ask::new(by, what, ""));
    let kind = response.headers()["content-type"].to_str().expect("a text").to_owned();
    let mut ends = 0;
    let lines = BufReader::new(response).lines().map_while(Result::ok).take_while(|line| {
        ends += usize::from(line.is_empty());
        ends < 2
    });
    let shown = |line: String| match line.strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok()) {
        Some(data) => format!("data: {}\n", service.machine.known.in_json(&data, service.machine.keys)),
        None => line + "\n",
    };
    format!("> {what}\n{kind}\n{}", lines.map(shown).collect::<String>())
}

#[test]
fn the_first_event_of_an_account() {
    let text = within_a_day(|| {
        let service = full();
        let of_key = first_event(&service, "ann", "GET /api/v1/events");
        format!("{of_key}\n{}", first_event(&service, "operator", "GET /api/v1/events?user=bob"))
    });
    keep("events", &text);
}

#[test]
fn the_alerts_of_an_account() {
    let (address, taken) = takes_one();
    let machine = crate::machine::Machine::new();
    machine.write("secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
    let secret = machine.path("secret");
    let service = served_with(&format!("--webhook http://{address}/hook --webhook-secret-file {secret}"));
    crate::attempts::opening(&service, 1, "chat-1", "ann", serde_json::json!({}));
    // A running attempt would hold a part of what is left.
    let last = crate::attempts::last_word(1, "0", serde_json::json!({}), "completed", &Value::Null);
    crate::attempts::finished(&service, 1, &last);
    let mut text = String::new();
    for (key, count) in [("t1", 850_000), ("t2", 150_000)] {
        let body = serde_json::json!({ "count": count }).to_string();
        let headers = [("idempotency-key", key)];
        service.send(&Ask { by: "node", what: "POST /api/v1/jobs/chat-1/tokens", body, headers: &headers });
        let (head, body) = taken.recv_timeout(crate::station::SOON).expect("an alert");
        text.push_str(&alert(&service, &head, &body));
    }
    keep("webhook", &text);
}

fn alert(service: &Service, head: &[String], body: &str) -> String {
    let names = ["post ", "content-type:", "user-agent:", "webhook-"];
    let is_kept = |line: &&String| names.iter().any(|name| line.to_ascii_lowercase().starts_with(name));
    // The signature and the id hold the time; an HTTP client puts headers in any order.
    let mut head: Vec<String> = head.iter().filter(is_kept).map(|line| signed(line)).collect();
    head.sort();
    let mut body: Value = serde_json::from_str(body).expect("JSON");
    body["id"] = "<id>".into();
    let version = concat!("jobmeter/", env!("CARGO_PKG_VERSION"));
    let head = head.join("\n").replace(version, "jobmeter/<version>");
    format!("{head}\n\n{}\n", service.machine.known.in_json(&body, service.machine.keys))
}

/// A header, without what is of this moment.
fn signed(line: &str) -> String {
    match line.split_once(": ") {
        Some((name, value)) if name.starts_with("webhook-") => {
            let kept = if value.starts_with("v1,") { "v1," } else { "" };
            format!("{name}: {kept}<{name}>")
        }
        _ => line.to_owned(),
    }
}

/// Their names and what they are for; and values that are not the moment's.
#[test]
fn figures_for_prometheus() {
    let service = full();
    let shown = |by: &str| {
        let response = service.send(&Ask::new(by, "GET /metrics", ""));
        let kind = response.headers()["content-type"].to_str().expect("a text").to_owned();
        let text = response.text().expect("a text");
        // Within a family they come in any order.
        let mut families: Vec<BTreeSet<String>> = Vec::new();
        for line in text.lines() {
            if line.starts_with("# HELP") || line == "# EOF" || families.is_empty() {
                families.push(BTreeSet::new());
            }
            families.last_mut().expect("a family").insert(without_value(line));
        }
        let lines: Vec<String> = families.into_iter().flatten().collect();
        format!("> GET /metrics, by {by}\n{kind}\n{}\n", lines.join("\n"))
    };
    let text = format!("{}\n{}", shown("operator"), shown("ann"));
    keep("metrics", &text.replace(env!("CARGO_PKG_VERSION"), "<version>"));
}

/// Those of accounts are known; others depend on how long something took, and on what was asked before.
fn without_value(line: &str) -> String {
    match line.rsplit_once(' ') {
        Some((name, _)) if !line.starts_with('#') && !name.contains("{user=") => {
            let name =
                name.split_once("le=\"").map_or(name.to_owned(), |(before, _)| format!("{before}le=\"<bound>\"}}"));
            format!("{name} <value>")
        }
        _ => line.to_owned(),
    }
}

#[test]
fn whether_it_is_well_and_who_asks() {
    let text = within_a_day(|| {
        let mut service = full();
        service.machine.known.learn(env!("CARGO_PKG_VERSION"), "<version>");
        service.exchanges(&[
            Ask::new("", "GET /healthz", ""),
            Ask::new("", "GET /readyz", ""),
            Ask::new("", "GET /api/v2/about", ""),
            Ask::new("ann", "GET /api/v2/users/me", ""),
        ])
    });
    keep("health", &text);
}

#[test]
fn the_log_of_a_service() {
    let service = served();
    service.exchange(&Ask::new("", "GET /healthz", ""));
    let known = service.machine.known.clone();
    let lines = service.stop().into_iter().map(|line| {
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        known.in_json(&line, &[])
    });
    keep("log", &lines.collect::<Vec<_>>().join("\n"));
}
