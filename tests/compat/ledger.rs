//! Ledgers: what an earlier version printed of its own, today's prints too, and goes on with it.

use jobmeter::ledger::Ledger;
use jobmeter::ledger::store::sqlite::SqliteLedger;
use jobmeter::ledger::views::{Query, View};
use jobmeter::sys::clock::Clock;
use serde_json::{Value, json};

use crate::fixture::{Answer, Version, assert_answered, assert_same, assert_verified, call_in, json_in, versions};
use crate::service::Service;
use crate::station::{Station, nano};

/// A wall clock that stands still, in µs since 1970.
struct At(i64);

impl Clock for At {
    fn boottime_us(&self) -> u64 {
        0
    }

    fn realtime_us(&self) -> i64 {
        self.0
    }
}

/// What an account shows depends on the time: it is asked for as of then.
fn is_of_its_time(asked: &Answer) -> bool {
    asked.arguments.iter().any(|argument| argument == "status" || argument == "account")
}

/// All answers that are the same at every later time.
pub(crate) fn assert_says_the_same(ask: &dyn Fn(&[&str]) -> Value, asked: &[Answer]) {
    let lasting: Vec<&Answer> = asked.iter().filter(|asked| !is_of_its_time(asked)).collect();
    assert!(lasting.len() > 20, "{lasting:?}");
    for asked in lasting {
        // A receipt that is shown says what is left in the account when it is shown.
        assert_answered(ask, asked, &["balance"]);
    }
}

/// The instant at which an account was shown: its period's end, less what was left of it.
fn instant_of(account: &Value) -> i64 {
    let ends: jiff::Timestamp = account["periodEnd"].as_str().unwrap().parse().unwrap();
    ends.as_microsecond() - account["resetsInMs"].as_i64().unwrap() * 1_000
}

/// The same as an account was shown before there was one rule for a balance: what was held for silent attempts was not `held`, and the
/// limit was what each period gives.
fn by_the_one_rule(account: &Value) -> Value {
    let mut account = account.clone();
    account["allowance"] = account["limit"].clone();
    account["held"] = json!(credits(nano(&account["held"]) + nano(&account["provisional"])));
    account.as_object_mut().unwrap().remove("limit");
    account
}

fn credits(nanocredits: i64) -> serde_json::Number {
    format!("{}.{:09}", nanocredits / 1_000_000_000, nanocredits % 1_000_000_000).parse().unwrap()
}

/// Balances and entries, as of the time at which the earlier version was asked for them. `open` opens the ledger with a
/// clock.
pub(crate) fn assert_shows_the_same_accounts(asked: &[Answer], open: impl Fn(Box<dyn Clock>) -> Box<dyn Ledger>) {
    let mut count = 0;
    for asked in asked.iter().filter(|asked| is_of_its_time(asked)) {
        let user = asked.arguments[1].clone();
        let account = if asked.arguments[2] == "status" { &asked.answer } else { &asked.answer["account"] };
        let mut ledger = open(Box::new(At(instant_of(account))));
        let what = format!("{:?}", asked.arguments);
        let View::Account(view) = ledger.read(&Query::Account { user: user.clone() }).unwrap() else {
            panic!("{what}")
        };
        assert_same(&by_the_one_rule(account), &serde_json::to_value(view).unwrap(), &[], &what);
        if let Value::Array(_) = asked.answer["entries"] {
            let View::Entries(entries) =
                ledger.read(&Query::Entries { user, count_max: 10_000, before: None }).unwrap()
            else {
                panic!("{what}")
            };
            assert_same(&asked.answer["entries"], &serde_json::to_value(entries).unwrap(), &[], &what);
        }
        count += 1;
    }
    assert!(count > 10, "{count} accounts were compared");
}

#[test]
fn a_file_says_what_it_said() {
    for version in versions() {
        let asked = version.answers("sqlite/answers.jsonl");
        let station = version.copied("sqlite");
        assert_says_the_same(&|arguments| json_in(&station, arguments), &asked);
        let other = version.copied("sqlite");
        let path = other.path("ledger.db");
        assert_shows_the_same_accounts(&asked, |clock| Box::new(SqliteLedger::open_file(&path, clock).unwrap()));
        // It was asked as of then, and the clock is years ahead of that.
        json_in(&other, &["ledger", "trust-clock", "--why", "the present"]);
        assert_verified(&other, &version.name);
    }
}

fn attempt_of(station: &Station, job: &str) -> Value {
    json_in(station, &["jobs", "show", job])["attempts"][0].clone()
}

/// Keys that were used are known, what was held is settled, and new jobs are charged.
pub(crate) fn assert_goes_on(station: &Station, version: &Version) {
    let again = json_in(station, &["tokens", "train-1", "1200", "--key", "turn-1"]);
    assert_eq!((&again["again"], nano(&again["charged"])), (&json!(true), 6_000_000), "{} {again}", version.name);
    let other = call_in(station, &["tokens", "train-1", "1300", "--key", "turn-1"]);
    assert!(other.status == 1 && other.err.contains("was used before"), "{} {other:?}", version.name);
    let grant = json_in(station, &["--user", "ann", "account", "grant", "1.5", "--why", "short", "--key", "g-2"]);
    assert_eq!(grant["again"], false, "{} {grant}", version.name);

    // An operator says what the silent attempt used: at the price that it was opened with.
    let silent = attempt_of(station, "silent-1");
    let (id, before) = (silent["identity"]["attempt"].as_str().unwrap().to_owned(), nano(&silent["charged"]["total"]));
    assert_eq!((silent["state"].as_str(), before), (Some("provisional"), 600_000), "{} {silent}", version.name);
    let settled = json_in(station, &["ledger", "settle", &id, "--cpu-seconds", "2.5", "--why", "known by now"]);
    assert_eq!(nano(&settled["charged"]), 150_000, "{} {settled}", version.name);

    // Nobody says so of the other one: a day after its period all that it holds is charged.
    let open = attempt_of(station, "open-1");
    let held = nano(&open["charged"]["total"]) + nano(&open["held"]);
    json_in(station, &["--user", "ann", "status"]);
    let posted = attempt_of(station, "open-1");
    assert_eq!((posted["reason"].as_str(), nano(&posted["charged"]["total"])), (Some("meter_lost"), held), "{posted}");
    assert_verified(station, &version.name);
}

#[test]
fn a_file_goes_on() {
    for version in versions() {
        let station = version.copied("sqlite");
        assert_goes_on(&station, &version);
        let called = call_in(&station, &["run", "--job", "new-1", "--", "python3", "-c", "sum(range(3000000))"]);
        assert_eq!(called.status, 0, "{} {called:?}", version.name);
        let new = json_in(&station, &["jobs", "show", "new-1"]);
        let receipt = &new["attempts"][0]["receipt"];
        assert_eq!(nano(&new["charged"]["total"]), nano(&receipt["credits"]["total"]), "{} {new}", version.name);
        assert!(nano(&new["charged"]["total"]) > 0, "{} {new}", version.name);
        assert_verified(&station, &version.name);
        // What a copy of it would bring back.
        let copy = station.path("copy.db");
        for line in [["ledger", "backup", copy.to_str().unwrap()], ["ledger", "restore", copy.to_str().unwrap()]] {
            let called = call_in(&station, &line);
            assert_eq!(called.status, 0, "{} {line:?} {called:?}", version.name);
        }
        assert_verified(&station, &version.name);
    }
}

#[test]
fn a_service_takes_the_keys_that_it_knew() {
    for version in versions() {
        let station = version.copied("sqlite");
        let keys = version.json("sqlite/keys.json");
        let service = Service::start(&station);
        assert!(!station.path("admin-key").exists(), "{}: a first key was made anew", version.name);
        for (name, method, path, body, status) in [
            ("admin", "GET", "/api/v1/keys", "", 200),
            ("admin", "POST", "/api/v1/users/bob/grants", r#"{"amount":1,"why":"x"}"#, 200),
            ("node-7", "GET", "/api/v1/jobs/train-1/stopped", "", 200),
            ("node-7", "POST", "/api/v1/users/bob/grants", r#"{"amount":1,"why":"x"}"#, 403),
            ("reader", "GET", "/api/v1/users/bob/credits", "", 200),
            ("reader", "POST", "/api/v1/jobs/train-1/tokens", r#"{"count":1}"#, 403),
            ("ann only", "GET", "/api/v1/users/ann/credits", "", 200),
            ("ann only", "GET", "/api/v1/users/bob/credits", "", 404),
            ("revoked", "GET", "/api/v1/rates", "", 401),
        ] {
            let answer = service.ask(keys[name].as_str().unwrap(), method, path, body);
            assert_eq!(answer.status, status, "{} {name} {method} {path}: {answer:?}", version.name);
        }
    }
}
