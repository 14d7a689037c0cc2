//! Requests of an earlier version's sidecars, verbs and programs, sent again as they were to today's service: each answer has
//! every field that it had, and the same values where they do not depend on the time.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::fixture::{Version, assert_same, versions};
use crate::service::{Response, Service, answered};
use crate::station::{Station, nano};

/// Times, and what is leased by how fast it went. Sentences are for people, and may be written better.
const OF_NOW: [&str; 29] = [
    "at",
    "since",
    "startedAt",
    "endedAt",
    "createdAt",
    "revokedAt",
    "expiresAt",
    "periodStart",
    "periodEnd",
    "resetsInMs",
    "resets_in_ms",
    "period",
    "afterMs",
    "exhaustedAt",
    "burnPerSecond",
    "burn_per_second",
    "available",
    "held",
    // A correction does not change the limit any more, and a month that is set for a new account counts at once.
    "balance.limit",
    "balance.left",
    "lease.version",
    "lease.ceiling",
    "lease.lasts_ms",
    "lease.report_in_ms",
    "lease.next",
    "lease.last",
    "title",
    "detail",
    "key",
];
const DAY_S: i64 = 86_400;

fn today() -> i64 {
    jiff::Timestamp::now().as_second().div_euclid(DAY_S) * DAY_S
}

/// One run through all that was recorded.
struct Replay<'a> {
    service: &'a Service,
    keys: BTreeMap<String, String>,
    /// Ids that the service makes: those of the record, and those of now.
    ids: BTreeMap<String, String>,
    /// How much later than the record it is, in whole days.
    later_s: i64,
}

impl Replay<'_> {
    /// The same text, with the ids of now.
    fn with_ids(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
    }

    /// Days are those of now: a ledger is told of no other.
    fn on_day(&self, body: &mut Value) {
        match body {
            Value::Object(fields) => fields.iter_mut().for_each(|(name, field)| match field.as_i64() {
                Some(time_s) if ["period", "expiresAt"].contains(&name.as_str()) => {
                    *field = json!(time_s + self.later_s)
                }
                _ => self.on_day(field),
            }),
            Value::Array(items) => items.iter_mut().for_each(|item| self.on_day(item)),
            _ => {}
        }
    }

    fn send(&self, record: &Value) -> Response {
        let path = self.with_ids(record["path"].as_str().unwrap());
        let mut request = self.service.request(record["method"].as_str().unwrap(), &path);
        for (name, value) in record["headers"].as_object().unwrap() {
            request = request.header(name, value.as_str().unwrap());
        }
        let key = record["as"].as_str().map_or("jm_0_0", |name| &self.keys[name]);
        request = match record["by"].as_str().unwrap() {
            "authorization" => request.bearer_auth(key),
            header => request.header(header, key),
        };
        let mut body = record["body"].clone();
        self.on_day(&mut body);
        answered(if body.is_null() { request } else { request.body(self.with_ids(&body.to_string())) })
    }

    /// What the service named anew.
    fn learn(&mut self, record: &Value, answer: &Value) {
        if let (Some(name), Some(key)) = (record["body"]["name"].as_str(), answer["key"].as_str()) {
            self.keys.insert(name.to_owned(), key.to_owned());
        }
        let mut pairs = vec![(record["answer"].clone(), answer.clone())];
        if let (Value::Array(olds), Value::Array(news)) = (&record["answer"], answer) {
            pairs.extend(olds.iter().cloned().zip(news.iter().cloned()));
        }
        for (old, new) in pairs {
            for at in ["/id", "/reserved/reservation"] {
                let id = |document: &Value| document.pointer(at).and_then(Value::as_str).map(str::to_owned);
                self.ids.extend(id(&old).zip(id(&new)));
            }
        }
    }

    fn again(&mut self, record: &Value) {
        let answer = self.send(record);
        let what = format!("{} {} as {}", record["method"], record["path"], record["as"]);
        assert_eq!(record["status"], answer.status, "{what}: {answer:?}");
        let kind = record["answer_headers"]["content-type"].as_str().unwrap_or_default();
        assert_eq!(kind, answer.kind, "{what}: {answer:?}");
        self.learn(record, &answer.body);
        if let Some(text) = record["answer"].as_str().filter(|text| text.starts_with("# HELP")) {
            return assert_has_metrics(text, answer.body.as_str().unwrap());
        }
        let mut old: Value = serde_json::from_str(&self.with_ids(&record["answer"].to_string())).unwrap();
        if let Some(jobs) = old.get_mut("jobs").and_then(Value::as_array_mut) {
            // A refusal left a job then, and leaves an entry alone now.
            jobs.retain(|job| job["state"] != "refused");
        }
        if old.get("periodEnd").is_some() && old.get("limit").is_some() {
            // What each period gives was called the limit, grants or not; what was charged was current, corrected or not.
            for (name, before) in [("allowance", "limit"), ("charged", "current")] {
                old[name] = old.as_object_mut().and_then(|fields| fields.remove(before)).unwrap();
            }
        }
        let mut of_now = OF_NOW.to_vec();
        if what.contains("/users/cat/") {
            // A limit of another length that is set for a new account counts from its first moment on, and not from the next day.
            of_now.extend(["left", "allowance"]);
        }
        assert_same(&old, &answer.body, &of_now, &what);
    }
}

/// Each metric is there under its name and type.
fn assert_has_metrics(old: &str, new: &str) {
    let types = |text: &str| -> BTreeSet<String> {
        text.lines().filter(|line| line.starts_with("# TYPE")).map(str::to_owned).collect()
    };
    let (old, new) = (types(old), types(new));
    let missing: Vec<&String> = old.difference(&new).collect();
    assert!(old.len() > 5 && missing.is_empty(), "{missing:?} of {old:?}");
}

fn replay(version: &Version, records: &[Value]) {
    let station = Station::new();
    let service = Service::start(&station);
    let admin = std::fs::read_to_string(station.path("admin-key")).unwrap().trim().to_owned();
    let recorded_s = records.iter().find_map(|record| record["body"]["period"].as_i64()).expect("a report of a period");
    let later_s = today() - recorded_s.div_euclid(DAY_S) * DAY_S;
    let keys = [("admin".to_owned(), admin.clone())].into();
    let id = |key: &str| key.split('_').nth(1).unwrap().to_owned();
    let ids = [(version.json("wire/key-ids.json")["admin"].as_str().unwrap().to_owned(), id(&admin))].into();
    let mut replay = Replay { service: &service, keys, ids, later_s };
    for record in records {
        replay.again(record);
    }
    let told: Vec<&str> = records.iter().filter_map(|record| record["path"].as_str()).collect();
    for part in ["/usage", "/finish", "/tokens", "/stop", "/grants", "/adjustments", "/limit", "/metrics"] {
        assert!(told.iter().any(|path| path.ends_with(part)), "{}: {part} is not in the record", version.name);
    }
    let verified = service.ask(&admin, "GET", "/api/v1/ledger/verify", "");
    assert_eq!(verified.body["problems"], json!([]), "{}", version.name);
    // Nothing that the old sidecars said was lost.
    let finished = |record: &Value| record["path"].as_str().is_some_and(|path| path.ends_with("/finish"));
    let charged: i64 = records
        .iter()
        .filter(|record| finished(record))
        .map(|record| nano(&record["answer"]["charged"]["total"]))
        .sum();
    let usage = service.ask(&admin, "GET", "/api/v1/usage?by=month", "");
    let (total, tokens) = (nano(&usage.body[0]["totalCredits"]), nano(&usage.body[0]["tokenCredits"]));
    assert_eq!(total - tokens, charged, "{} {usage:?}", version.name);
}

#[test]
fn an_old_client_is_answered_as_before() {
    for version in versions() {
        let records = version.lines("wire/http.jsonl");
        // In the middle of a day: what is charged in two of them is summed apart.
        loop {
            let day = today();
            let done = std::panic::catch_unwind(|| replay(&version, &records));
            match done {
                Ok(()) => break,
                Err(panic) if day == today() => std::panic::resume_unwind(panic),
                Err(_) => {}
            }
        }
    }
}
