//! Spool files that a jobmeter left which was killed: listed, and settled to the figures that are in them.

use serde_json::{Value, json};

use crate::fixture::{Version, assert_same, assert_verified, call_in, json_in, versions};
use crate::station::{Station, nano};

/// What is of the time and the place at which it was settled.
const OF_NOW: [&str; 3] = ["endedAt", "afterMs", "balance"];

fn spool_in(station: &Station, verb: &str) -> Value {
    json_in(station, &["spool", verb])
}

/// Each job as the version itself settled it.
fn assert_settled(station: &Station, version: &Version, answers: &str) {
    for asked in version.answers(answers) {
        let arguments: Vec<&str> = asked.arguments.iter().map(String::as_str).collect();
        let what = format!("{} {arguments:?}", version.name);
        assert_same(&asked.answer, &json_in(station, &arguments), &OF_NOW, &what);
    }
}

#[test]
fn what_was_left_over_is_listed() {
    for version in versions() {
        let station = version.copied("spool");
        let listed = spool_in(&station, "list");
        // Paths are those of the copy.
        assert_same(&version.answers("spool/listed.jsonl")[0].answer, &listed, &["path"], &version.name);
    }
}

#[test]
fn what_was_left_over_is_settled_as_it_was_recorded() {
    for version in versions() {
        let station = version.copied("spool");
        let flushed = spool_in(&station, "flush");
        let settled = flushed["settled"].as_array().unwrap().len();
        let listed = version.answers("spool/listed.jsonl")[0].answer.as_array().unwrap().len();
        assert_eq!((settled, &flushed["kept"], &flushed["inUse"]), (listed, &json!([]), &json!(0)), "{flushed}");
        assert_settled(&station, &version, "spool/answers.jsonl");
        assert_eq!(spool_in(&station, "list"), json!([]), "{}", version.name);
    }
}

/// The next job finds them too, without a word of anybody.
#[test]
fn what_was_left_over_is_settled_by_the_next_job() {
    for version in versions() {
        let station = version.copied("spool");
        let called = call_in(&station, &["run", "--job", "next-1", "--", "true"]);
        assert_eq!(called.status, 0, "{} {called:?}", version.name);
        let verified = ["ledger", "verify"].map(str::to_owned);
        let others: Vec<_> = version.answers("spool/answers.jsonl");
        for asked in others.iter().filter(|asked| asked.arguments != verified) {
            let job = json_in(&station, &["jobs", "show", &asked.arguments[2]]);
            let total = |job: &Value| nano(&job["charged"]["total"]);
            assert_eq!((job["state"].as_str(), total(&job)), (Some("ended"), total(&asked.answer)), "{job}");
        }
        assert_verified(&station, &version.name);
    }
}

/// After a restore, what the ledger had acknowledged is sent again: to a ledger that knows it nothing changes, and one that
/// has forgotten it charges it.
#[test]
fn what_was_acknowledged_is_sent_again() {
    for version in versions() {
        let station = version.copied("spool");
        let before = json_in(&station, &["jobs", "show", "acknowledged-1"]);
        let again = call_in(&station, &["spool", "flush", "--acknowledged"]);
        assert_eq!(again.status, 0, "{} {again:?}", version.name);
        let after = json_in(&station, &["jobs", "show", "acknowledged-1"]);
        assert_same(&before, &after, &["balance"], &version.name);

        // Its copy is older than all of it.
        let empty = station.path("empty.db");
        assert_eq!(call_in(&station, &["--ledger", empty.to_str().unwrap(), "account", "limit", "5"]).status, 0);
        let restored = json_in(&station, &["ledger", "restore", empty.to_str().unwrap()]);
        assert_eq!(restored["sentAgain"]["kept"], json!([]), "{} {restored}", version.name);
        let known = json_in(&station, &["jobs", "show", "acknowledged-1"]);
        assert_eq!(nano(&known["charged"]["total"]), nano(&before["charged"]["total"]), "{} {known}", version.name);
        assert_verified(&station, &version.name);
    }
}
