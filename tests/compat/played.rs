//! Today's sidecar and verbs before a service that answers what an earlier version's did: they work, or are refused in one
//! sentence.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::http::{Method, Response, Uri};
use serde_json::{Value, json};

use crate::fixture::{Version, assert_same, versions};
use crate::station::{Called, Station, nano};

/// What it says to a question: the recorded answers of that kind, one after the other, and the last one for ever.
#[derive(Clone, Debug, Default)]
struct Script {
    answers: BTreeMap<String, Vec<Value>>,
    /// What was asked.
    asked: Vec<String>,
}

/// A question without the ids in it, which are others than those of the record. Whose a job is, the services of then did not ask.
fn kind_of(method: &str, path: &str) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query = if path.contains("/jobs/") { "" } else { query };
    let mut parts: Vec<&str> = path.split('/').collect();
    let named = parts.iter().position(|part| *part == "attempts" || *part == "keys");
    if let Some(id) = named.and_then(|at| parts.get_mut(at + 1)) {
        *id = "ID";
    }
    format!("{method} {}?{query}", parts.join("/"))
}

impl Script {
    fn of(records: &[Value]) -> Self {
        let mut script = Self::default();
        for record in records {
            let kind = kind_of(record["method"].as_str().unwrap(), record["path"].as_str().unwrap());
            script.answers.entry(kind).or_default().push(record.clone());
        }
        script
    }

    /// Only what was said of one attempt, and of its job.
    fn of_job(records: &[Value], job: &str) -> Self {
        let is_of_job = |record: &&Value| record["body"]["identity"]["job"] == job;
        let opened = records.iter().find(is_of_job).unwrap_or_else(|| panic!("{job} is not in the record"));
        let attempt = opened["body"]["identity"]["attempt"].as_str().unwrap();
        let stopped = format!("/api/v1/jobs/{job}/stopped");
        let is_said = |record: &&Value| {
            let path = record["path"].as_str().unwrap();
            path.contains(attempt) || path == stopped
        };
        Self::of(&records.iter().filter(is_said).cloned().collect::<Vec<_>>())
    }

    fn answer(&mut self, method: &Method, uri: &Uri, body: &[u8]) -> Response<Body> {
        let path = uri.path_and_query().unwrap().as_str();
        let kind = kind_of(method.as_str(), path);
        self.asked.push(kind.clone());
        let Some(answers) = self.answers.get_mut(&kind) else {
            return Response::builder().status(404).body(Body::from("no such page")).unwrap();
        };
        let record = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        let mut answer = record["answer"].clone();
        // An answer says which report it is to, as the service of its time did.
        if let (Some(seq), Ok(asked)) = (answer.get_mut("seq"), serde_json::from_slice::<Value>(body)) {
            *seq = asked["seq"].clone();
        }
        let status = u16::try_from(record["status"].as_u64().unwrap()).unwrap();
        let mut response = Response::builder().status(status);
        for (name, value) in record["answer_headers"].as_object().unwrap() {
            response = response.header(name, value.as_str().unwrap());
        }
        response.body(Body::from(answer.to_string())).unwrap()
    }
}

/// A service that plays a script.
struct Played {
    url: String,
    script: Arc<Mutex<Script>>,
}

impl Played {
    /// It lives as long as the test's process.
    fn start(script: Script) -> Self {
        let script = Arc::new(Mutex::new(script));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let playing = Arc::clone(&script);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let answer = move |method: Method, uri: Uri, body: Bytes| {
                    let playing = Arc::clone(&playing);
                    async move { playing.lock().unwrap().answer(&method, &uri, &body) }
                };
                let router = axum::Router::new().fallback(answer);
                axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
            });
        });
        Self { url, script }
    }

    fn call(&self, station: &Station, arguments: &[&str]) -> Called {
        let mut command = station.command(arguments);
        command.env("JOBMETER_LEDGER", &self.url).env("JOBMETER_KEY", "jm_0a_0b").current_dir(station.directory.path());
        command.output().unwrap().into()
    }

    fn asked(&self) -> Vec<String> {
        self.script.lock().unwrap().asked.clone()
    }
}

/// A run before the answers that a job of the record was given, and its receipt.
fn run(records: &[Value], job: &str, command: &[&str]) -> (Called, Value) {
    let played = Played::start(Script::of_job(records, job));
    let station = Station::new();
    let line = ["run", "--job", job, "--interval", "100ms", "--receipt", "receipt.json", "--"];
    let called = played.call(&station, &[&line[..], command].concat());
    let text =
        std::fs::read_to_string(station.path("receipt.json")).unwrap_or_else(|error| panic!("{called:?}: {error}"));
    let left = station.ok(&["spool", "list"]).out;
    assert!(left.contains("nothing is in the spool"), "{job}: {left} {:?}", played.asked());
    (called, serde_json::from_str(&text).unwrap())
}

const SPIN: [&str; 3] = ["python3", "-c", "import time\nwhile time.process_time() < 60: pass"];

#[test]
fn a_job_runs_before_an_old_service() {
    for version in versions() {
        let records = version.lines("wire/http.jsonl");
        for (job, command, status, reason) in [
            ("train-1", &["true"][..], 0, "completed"),
            ("train-2", &["sh", "-c", "exit 3"], 3, "failed"),
            ("gen-1", &SPIN, 75, "job_limit"),
            ("poor-1", &SPIN, 75, "credits_exhausted"),
            ("never-1", &["true"], 75, "refused"),
            ("stop-1", &SPIN, 137, "operator_stop"),
        ] {
            let (called, receipt) = run(&records, job, command);
            assert_eq!(called.status, status, "{} {job}: {called:?}", version.name);
            assert_eq!(receipt["outcome"]["reason"], reason, "{} {job}: {receipt}", version.name);
            // What it cost is what the service says, by its prices.
            let finish = records.iter().find(|record| {
                let of_job = record["body"]["receipt"]["job"]["id"] == job;
                of_job && record["path"].as_str().unwrap().ends_with("/finish")
            });
            let told = finish.map(|finish| nano(&finish["answer"]["charged"]["total"]));
            assert_eq!(told, receipt["credits"].get("total").map(nano), "{} {job}: {receipt}", version.name);
        }
    }
}

/// What a verb prints for programs, and what the service answered to it.
fn assert_reads(version: &Version, played: &Played, station: &Station, arguments: &[&str], path: &str) {
    let records = version.lines("wire/http.jsonl");
    let asked =
        records.iter().rfind(|record| record["path"] == path && record["method"] == "GET" && record["as"] == "admin");
    let told = asked.unwrap_or_else(|| panic!("{path} is not in the record"));
    let called = played.call(station, &[&["--json"], arguments].concat());
    assert_eq!(called.status, 0, "{} {arguments:?} {called:?} {:?}", version.name, played.asked());
    let mut printed: Value = serde_json::from_str(&called.out).unwrap();
    if let Some(account) = printed.get_mut("account") {
        printed = account.take();
    }
    assert_same(&told["answer"], &printed, &[], &format!("{} {arguments:?}", version.name));
}

#[test]
fn verbs_read_from_an_old_service() {
    for version in versions() {
        let records = version.lines("wire/http.jsonl");
        let station = Station::new();
        for (arguments, path) in [
            (&["--user", "ann", "status"][..], "/api/v1/users/ann/credits"),
            (&["--user", "ann", "account", "show", "--entries", "100"], "/api/v1/users/ann/credits"),
            (&["--user", "ann", "usage"], "/api/v1/users/ann/usage?by=month"),
            (&["usage", "--all"], "/api/v1/usage?by=month"),
            (&["jobs", "list", "--all"], "/api/v1/jobs?count=20&running=false"),
            (&["jobs", "show", "train-1"], "/api/v1/jobs/train-1"),
            (&["rates", "show"], "/api/v1/rates"),
            (&["key", "list"], "/api/v1/keys"),
            (&["ledger", "verify"], "/api/v1/ledger/verify"),
        ] {
            // The newest answer to each question of the administrator alone.
            let asked: Vec<Value> = records.iter().filter(|record| record["as"] == "admin").cloned().collect();
            let mut script = Script::of(&asked);
            script.answers.values_mut().for_each(|answers| drop(answers.drain(..answers.len() - 1)));
            assert_reads(&version, &Played::start(script), &station, arguments, path);
        }
    }
}

#[test]
fn verbs_change_an_old_service() {
    for version in versions() {
        let played = Played::start(Script::of(&version.lines("wire/http.jsonl")));
        let station = Station::new();
        for (arguments, status) in [
            (&["key", "create", "node-7"][..], 0),
            (&["--user", "ann", "account", "limit", "5"], 0),
            (&["--user", "ann", "account", "grant", "1", "--why", "prize"], 0),
            (&["--user", "ann", "account", "adjust", "-0.25", "--why", "mistake"], 0),
            (&["rates", "set", "--cpu-per-second", "0.0003"], 0),
            (&["tokens", "train-1", "1200", "--key", "turn-1"], 0),
            (&["tokens", "train-1", "1200", "--key", "turn-1"], 0),
            // The key was used for something else.
            (&["tokens", "train-1", "1300", "--key", "turn-1"], 1),
            (&["tokens", "train-1", "8000", "--reserve"], 0),
            (&["tokens", "train-1", "3000", "--settle", "01a227ad-4215-724d-afe7-be7d9871900f"], 0),
            (&["tokens", "train-1", "900000000", "--reserve"], 75),
            (&["key", "revoke", "7d9cbbde17b9"], 0),
        ] {
            let called = played.call(&station, arguments);
            assert_eq!(called.status, status, "{} {arguments:?}: {called:?}", version.name);
            let is_refusal = called.err.starts_with("jobmeter: error: ") && called.err.lines().count() <= 3;
            assert!(status == 0 || is_refusal, "{arguments:?}: {called:?}");
        }
    }
}

/// Another field in each object of an answer, but for the prices.
fn with_more(answer: &mut Value) {
    match answer {
        Value::Object(fields) => {
            fields.iter_mut().filter(|(name, _)| *name != "rates").for_each(|(_, field)| with_more(field));
            // An enum's object has one field, which says which of its answers it is.
            let is_word =
                fields.keys().any(|name| ["opened", "lease", "stop"].contains(&name.as_str())) && fields.len() == 1;
            if !is_word {
                fields.insert("unheard_of".to_owned(), json!({ "later": 1 }));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(with_more),
        _ => {}
    }
}

/// Fields are only added to: a sidecar of today beside a service of tomorrow.
#[test]
fn an_answer_may_say_more() {
    for version in versions() {
        let mut records = version.lines("wire/http.jsonl");
        for record in records.iter_mut().filter(|record| record["status"].as_u64().unwrap() < 300) {
            with_more(&mut record["answer"]);
        }
        for (job, command, status) in [("train-1", &["true"][..], 0), ("poor-1", &SPIN, 75)] {
            let (called, receipt) = run(&records, job, command);
            assert_eq!(called.status, status, "{} {job}: {called:?} {receipt}", version.name);
        }
    }
}

/// What cannot be understood starts nothing, and says why in one sentence.
fn assert_starts_nothing(mut script: Script, answer: Value, status: u16, kind: &str, names: &[&str]) {
    for answers in script.answers.iter_mut().filter(|(asked, _)| asked.starts_with("PUT ")).map(|(_, answers)| answers)
    {
        let headers = json!({ "content-type": kind });
        *answers = vec![json!({ "status": status, "answer": answer, "answer_headers": headers })];
    }
    let (played, station) = (Played::start(script), Station::new());
    let called = played.call(&station, &["run", "--job", "train-1", "--", "touch", "ran"]);
    assert!(called.status == 125 && !station.path("ran").exists(), "{called:?}");
    // What a machine cannot do is said first.
    let mut lines = called.err.lines().filter(|line| !line.starts_with("jobmeter: note: "));
    let first = lines.next().unwrap_or_default();
    assert!(first.starts_with("jobmeter: error: ") && lines.next().is_none(), "one sentence: {called:?}");
    for name in names {
        assert!(first.contains(name), "{name:?} is not in {called:?}");
    }
}

#[test]
fn what_is_not_understood_is_refused_in_one_sentence() {
    for version in versions() {
        let records = version.lines("wire/http.jsonl");
        let script = Script::of_job(&records, "train-1");
        // A price that this version does not know must not be left out.
        let mut priced =
            records.iter().find(|record| record["body"]["identity"]["job"] == "train-1").unwrap()["answer"].clone();
        priced["opened"]["rates"]["per_gigabyte"] = json!(1);
        assert_starts_nothing(script.clone(), priced, 201, "application/json", &["per_gigabyte"]);
        // A service that is older than the sidecar refuses what it has not heard of.
        let refused = records.iter().find(|record| record["body"]["unheard_of"] == 1).unwrap()["answer"].clone();
        assert_starts_nothing(script.clone(), refused, 422, "application/problem+json", &["unheard_of"]);
        // What listens there is no ledger.
        assert_starts_nothing(script, json!("hello"), 404, "text/html", &["is it a jobmeter ledger?"]);
    }
}
