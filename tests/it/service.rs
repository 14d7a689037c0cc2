//! The ledger service: the real binary on a socket, sidecars that use it, and its end in the middle of everything.

use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::station::{Called, Station, ended, line_of, micros, nano};

/// A running service and the machine of a user beside it.
pub(crate) struct Service {
    pub(crate) station: Station,
    child: Child,
    pub(crate) url: String,
    pub(crate) admin: String,
}

pub(crate) fn serve(station: &Station, listen: &str, more: &[&str]) -> (Child, String) {
    let (db, key) = (station.path("service.db"), station.path("service.db.admin-key"));
    let mut arguments = vec!["serve", "--listen", listen, "--admin-key-file", key.to_str().unwrap()];
    if !more.contains(&"--db") {
        arguments.extend(["--db", db.to_str().unwrap()]);
    }
    arguments.extend(more);
    // The shell of whoever follows the README names a key file that the first start has yet to write.
    let mut command = station.command(&arguments);
    command.env("JOBMETER_LEDGER", "http://127.0.0.1:1").env("JOBMETER_KEY", &key).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut log = child.stderr.take().unwrap();
    let told = line_of(&mut log);
    let line: Value = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{told}"));
    let url = line["url"].as_str().unwrap_or_else(|| panic!("{told}")).to_owned();
    // What it says later must not fill the pipe.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    (child, url)
}

/// An address of this machine for one service alone, which is started there again: at 127.0.0.1 the port may meanwhile be that of
/// somebody's connection.
pub(crate) fn own_address() -> String {
    let [.., a, b, c] = uuid::Uuid::new_v4().into_bytes();
    format!("127.{}.{b}.{}:0", a.max(1), c.clamp(1, 254))
}

impl Service {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(more: &[&str]) -> Self {
        let station = Station::new();
        let (child, url) = serve(&station, &own_address(), more);
        Self::at(station, child, url)
    }

    /// One that was started by [`serve`].
    pub(crate) fn at(station: Station, child: Child, url: String) -> Self {
        let admin = std::fs::read_to_string(station.path("service.db.admin-key")).unwrap().trim().to_owned();
        Self { station, child, url, admin }
    }

    pub(crate) fn address(&self) -> String {
        self.url.split("://").nth(1).unwrap().to_owned()
    }

    /// The same place, after it has ended.
    pub(crate) fn again(&mut self) {
        ended(&mut self.child);
        let (child, url) = serve(&self.station, &self.address(), &[]);
        assert_eq!(url, self.url);
        self.child = child;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub(crate) fn command(&self, key: &str, arguments: &[&str]) -> Command {
        let mut command = self.station.command(arguments);
        command.env("JOBMETER_LEDGER", &self.url).env("JOBMETER_KEY", key);
        command
    }

    pub(crate) fn call(&self, key: &str, arguments: &[&str]) -> Called {
        self.command(key, arguments).output().unwrap().into()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let called = self.call(&self.admin, &all);
        assert_eq!(called.status, 0, "{arguments:?}: {called:?}");
        serde_json::from_str(&called.out).unwrap()
    }

    pub(crate) fn key(&self, arguments: &[&str]) -> String {
        let mut all = vec!["key", "create"];
        all.extend(arguments);
        self.json(&all)["key"].as_str().unwrap().to_owned()
    }

    pub(crate) fn verify(&self) {
        assert_eq!(self.call(&self.admin, &["ledger", "verify"]).status, 0);
    }

    /// Status and body of a request.
    pub(crate) fn ask(&self, key: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.ask_with(&[], key, method, path, body)
    }

    /// The same with these secrets of an attempt, which is one at most by right.
    pub(crate) fn ask_with(&self, secrets: &[&str], key: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
        let method = method.parse().unwrap();
        let mut request = client.request(method, format!("{}{path}", self.url)).body(body.to_owned());
        request = request.header("idempotency-key", "k");
        if !key.is_empty() {
            request = request.bearer_auth(key);
        }
        for secret in secrets {
            request = request.header("jobmeter-attempt-secret", *secret);
        }
        let response = request.send().unwrap();
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let body: Value = serde_json::from_slice(&response.bytes().unwrap()).unwrap_or(Value::Null);
        if status >= 400 {
            assert_eq!(kind.as_deref(), Some("application/problem+json"), "{path}: {body}");
            assert!(body["type"].as_str().unwrap().starts_with("urn:jobmeter:problem:"), "{body}");
        }
        (status, body)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn receipt(job: &Value) -> &Value {
    &job["attempts"].as_array().unwrap().last().unwrap()["receipt"]
}

#[test]
fn a_job_is_metered_and_charged_over_http() {
    let service = Service::start();
    let key = service.key(&["worker"]);
    let called = service.call(&key, &["run", "--job", "j", "--", "python3", "-c", "sum(range(9000000))"]);
    assert_eq!(called.status, 0, "{called:?}");
    let job = service.json(&["jobs", "show", "j"]);
    let cpu_us = micros(&receipt(&job)["cpu"]["total_seconds"]);
    assert_eq!(nano(&job["charged"]["total"]), i64::try_from(cpu_us).unwrap() / 4);
    let called =
        service.call(&key, &["run", "--job", "l", "--limit", "0.0002", "--", "sh", "-c", "while :; do :; done"]);
    assert_eq!(called.status, 75, "{called:?}");
    assert_eq!(receipt(&service.json(&["jobs", "show", "l"]))["outcome"]["reason"], "job_limit");
    service.json(&["account", "limit", "0", "--user", "poor"]);
    let started = service.station.path("started");
    let called = service.call(&key, &["run", "--user", "poor", "--", "touch", started.to_str().unwrap()]);
    assert!(called.status == 75 && called.err.contains("refused: credits exhausted"), "{called:?}");
    assert!(!started.exists());
    // All other verbs work on it as well.
    for verb in [
        &["status"][..],
        &["jobs", "list"],
        &["usage"],
        &["usage", "--from", "2026-01-01"],
        &["account", "show"],
        &["rates", "show"],
        &["key", "list"],
    ] {
        assert_eq!(service.call(&service.admin, verb).status, 0, "{verb:?}");
    }
    assert_eq!(service.call(&key, &["tokens", "j", "100", "--key", "t"]).status, 0);
    service.verify();
}

/// As the backend of an assistant does it: reserve a turn, settle it, and be told no when too little is left.
#[test]
fn tokens_are_reserved_and_settled_over_http() {
    let service = Service::start();
    let key = service.key(&["backend"]);
    assert_eq!(service.call(&key, &["run", "-q", "--job", "chat", "--", "true"]).status, 0);
    let left = nano(&service.json(&["status"])["available"]);
    let reserved =
        service.call(&key, &["--json", "tokens", "chat", "10000", "--reserve", "--for", "1m", "--key", "r1"]);
    let answer: Value = serde_json::from_str(&reserved.out).unwrap();
    let reservation = answer["reserved"]["reservation"].as_str().unwrap().to_owned();
    assert_eq!(nano(&service.json(&["status"])["available"]), left - 50_000_000);
    let settled = service.call(&key, &["tokens", "chat", "1200", "--settle", &reservation, "--key", "s1"]);
    assert!(settled.status == 0 && settled.out.contains("0.006 credits"), "{settled:?}");
    assert_eq!(nano(&service.json(&["status"])["available"]), left - 6_000_000);
    let refused = service.call(&key, &["tokens", "chat", "10000000", "--reserve"]);
    assert!(refused.status == 75 && refused.err.contains("refused"), "{refused:?}");
    let (status, problem) =
        service.ask(&key, "POST", "/api/v1/jobs/chat/tokens", r#"{"reserve": 10000000, "lastsMs": 1000}"#);
    assert_eq!((status, problem["type"].as_str()), (402, Some("urn:jobmeter:problem:credits-exhausted")));
    assert_eq!(problem["answer"]["refused"], "credits_exhausted");
    service.verify();
}

/// Killed in the middle, and gone for a while: the job runs on within its lease, and everything is charged once.
#[test]
fn a_service_that_is_killed_under_way_loses_and_doubles_nothing() {
    let mut service = Service::start();
    let key = service.key(&["worker"]);
    let line = "echo ready; while [ ! -e $DIR/go ]; do :; done";
    let mut child = service
        .command(&key, &["run", "--job", "k", "--", "bash", "-c", line])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(line_of(child.stdout.as_mut().unwrap()), "ready");
    // Now and for so long it is gone: time is what is tested.
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        jobmeter::sys::clock::pause(Duration::from_millis(300));
        service.signal(signal);
        jobmeter::sys::clock::pause(Duration::from_millis(700));
        assert!(child.try_wait().unwrap().is_none(), "it was stopped");
        service.again();
    }
    std::fs::write(service.station.path("go"), "").unwrap();
    assert!(ended(&mut child).success());
    let job = service.json(&["jobs", "show", "k"]);
    let cpu_us = micros(&receipt(&job)["cpu"]["total_seconds"]);
    assert_eq!(nano(&job["charged"]["total"]), i64::try_from(cpu_us).unwrap() / 4, "{job}");
    service.verify();
}

/// Gone at the end: the burn stays in the spool, and `spool flush` brings it.
#[test]
fn the_last_word_to_a_service_that_is_gone_is_kept_and_sent_later() {
    let mut service = Service::start();
    let key = service.key(&["worker"]);
    let line = "echo ready; while [ ! -e $DIR/go ]; do sleep 0.01; done; exit 3";
    let mut child = service
        .command(&key, &["run", "--job", "g", "--", "bash", "-c", line])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(line_of(child.stdout.as_mut().unwrap()), "ready");
    service.signal(Signal::SIGKILL);
    service.child.wait().unwrap();
    std::fs::write(service.station.path("go"), "").unwrap();
    let called: Called = child.wait_with_output().unwrap().into();
    assert!(called.status == 3 && called.err.contains("jobmeter spool flush"), "{called:?}");
    service.again();
    let flushed = service.call(&key, &["spool", "flush"]);
    assert!(flushed.status == 0 && flushed.out.contains("1 settled"), "{flushed:?}");
    assert_eq!(service.json(&["jobs", "show", "g"])["attempts"][0]["reason"], "failed");
    service.verify();
}

#[test]
fn a_service_that_cannot_be_reached_starts_nothing() {
    let station = Station::new();
    let started = station.path("started");
    let run = ["run", "--", "touch", started.to_str().unwrap()];
    let called: Called = station.command(&run).env("JOBMETER_LEDGER", "http://127.0.0.1:1").output().unwrap().into();
    assert!(called.status == 125 && called.err.contains("does not answer"), "{called:?}");
    let service = Service::start();
    for key in ["", "jm_00_11", "nonsense"] {
        let mut command = service.command(key, &run);
        if key.is_empty() {
            command.env_remove("JOBMETER_KEY");
        }
        let called: Called = command.output().unwrap().into();
        assert_eq!(called.status, 125, "{called:?}");
        assert!(called.err.contains("key"), "{called:?}");
    }
    assert!(!started.exists());
}

/// The next event of a stream for which this is so.
fn told_of(stream: &mut ChildStdout, is_it: impl Fn(&Value) -> bool) -> Value {
    loop {
        let line = line_of(stream);
        let event = line.strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok());
        if let Some(event) = event.filter(&is_it) {
            return event;
        }
    }
}

/// A stream tells of a job that comes, burns and goes, and ends with the service.
#[test]
fn whoever_watches_an_account_is_told() {
    let service = Service::start();
    let alice = service.key(&["a", "--scope", "read", "--only-user", "--user", "tester"]);
    let worker = service.key(&["w"]);
    assert_eq!(service.ask(&alice, "GET", "/api/v1/events?user=bob", "").0, 404);
    let mut curl = service.station.program("curl");
    curl.args(["-sN", "-H", &format!("authorization: Bearer {alice}"), &format!("{}/api/v1/events", service.url)]);
    let mut curl = curl.stdout(Stdio::piped()).spawn().expect("curl is installed");
    let mut stream = curl.stdout.take().unwrap();
    assert_eq!(told_of(&mut stream, |_| true)["account"]["running"], 0);
    let line = "while [ ! -e $DIR/go ]; do :; done";
    let mut job = service.command(&worker, &["run", "-q", "--job", "seen", "--", "sh", "-c", line]).spawn().unwrap();
    let running = told_of(&mut stream, |seen| seen["running"][0]["job"] == "seen");
    assert_eq!(running["account"]["running"], 1);
    // Of whoever is watched each second is told; of others, each tenth.
    for (user, ms) in [("tester", 1_000), ("bob", 10_000)] {
        let attempt = uuid::Uuid::now_v7();
        let lease = opened(&service, attempt, user);
        let asked = Instant::now();
        let decision = reported(&service, attempt, &lease, json!({ "seq": 1 }), json!(0));
        // And as long as the answer took, and what other reports have to be apart from it.
        let took_ms = u64::try_from(asked.elapsed().as_millis()).unwrap() + 50;
        let report_in_ms = decision["lease"]["report_in_ms"].as_u64().unwrap();
        assert!((ms..=ms + took_ms).contains(&report_in_ms), "{user}: {took_ms} ms for {decision}");
        finished(&service, attempt, &lease);
    }
    std::fs::write(service.station.path("go"), "").unwrap();
    assert!(ended(&mut job).success());
    let after = told_of(&mut stream, |seen| seen["account"]["running"] == 0);
    assert!(nano(&after["account"]["current"]) > 0, "{after}");
    service.signal(Signal::SIGTERM);
    // The stream ends with it.
    ended(&mut curl);
}

fn put(service: &Service, path: &str, body: &Value) -> Value {
    let (status, answer) = service.ask(&service.admin, "PUT", &format!("/api/v1/attempts/{path}"), &body.to_string());
    assert!(status < 300, "{answer}");
    answer
}

/// The lease of an attempt that only says what it is told to say.
pub(crate) fn opened(service: &Service, attempt: uuid::Uuid, user: &str) -> Value {
    let identity = json!({
        "attempt": attempt, "job": attempt.to_string(), "task": "0", "user": user, "kind": "training", "command": [], "host": "h",
    });
    let body = json!({ "identity": identity, "resources": { "cpus_ppm": 2_000_000, "gpus": 0, "stop_us": 6000 } });
    put(service, &attempt.to_string(), &body)["opened"]["lease"].clone()
}

/// What is decided about its report.
fn reported(service: &Service, attempt: uuid::Uuid, lease: &Value, more: Value, cpu_seconds: Value) -> Value {
    let mut report = json!({
        "attempt": attempt, "usage": { "cpu_used_seconds": cpu_seconds, "cpu_allocated_seconds": 0 },
        "period": lease["period"], "ceiling_version": lease["version"], "ceiling": lease["ceiling"],
        "resources": { "cpus_ppm": 2_000_000, "gpus": 0, "stop_us": 6000 },
    });
    report.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    put(service, &format!("{attempt}/usage"), &report)["decision"].clone()
}

/// The end of an attempt that burned nothing.
fn finished(service: &Service, attempt: uuid::Uuid, lease: &Value) {
    let finish = json!({
        "attempt": attempt, "usage": { "cpu_used_seconds": 0, "cpu_allocated_seconds": 0 }, "period": lease["period"],
        "reason": "completed", "receipt": {},
    });
    let path = format!("/api/v1/attempts/{attempt}/finish");
    assert_eq!(service.ask(&service.admin, "POST", &path, &finish.to_string()).0, 200);
}

/// Others hold what is left: the question is kept, and answered once something is free; or when the service stops.
#[test]
fn who_waits_for_credits_is_answered_as_soon_as_there_are_some() {
    let service = Service::start();
    service.json(&["account", "limit", "0.0006", "--user", "u"]);
    let [first, second] = [1_u128, 2].map(uuid::Uuid::from_u128);
    let (lease, _) = (opened(&service, first, "u"), opened(&service, second, "u"));
    // A CPU second costs 0.00025 credits: all of the ceiling is burned.
    let burned = jobmeter::domain::units::Microseconds(u64::try_from(nano(&lease["ceiling"]) * 4).unwrap());
    let waits = |seq: u64| reported(&service, first, &lease, json!({ "seq": seq, "waiting": true }), json!(burned));
    // Nothing becomes free while the question is kept.
    let asked = Instant::now();
    assert_eq!(waits(1)["wait"]["retry_in_ms"], 0);
    assert!(asked.elapsed() >= Duration::from_millis(1_900), "{:?}", asked.elapsed());
    std::thread::scope(|scope| {
        // A busy machine may take longer than a question is kept; then it is asked again, as a sidecar does.
        let waiting = scope.spawn(|| (2..).map(&waits).find(|decision| decision["wait"].is_null()).unwrap());
        // Nothing is free yet: time is what is tested.
        jobmeter::sys::clock::pause(Duration::from_millis(300));
        assert!(!waiting.is_finished());
        finished(&service, second, &lease);
        let decision = waiting.join().unwrap();
        assert!(nano(&decision["lease"]["ceiling"]) > nano(&lease["ceiling"]), "{decision}");
    });
    service.verify();
}

/// Two replicas on one PostgreSQL, jobs on both, and one of them killed again and again: nothing is spent twice.
#[test]
fn replicas_on_postgresql_share_the_books() {
    let directory = crate::cluster::start(|url| {
        let location = url.parse::<jobmeter::ledger::location::Location>().unwrap();
        location.connect().is_ok()
    });
    let db = crate::cluster::url(directory, "postgres");
    let mut service = Service::with(&["--db", &db]);
    let (mut second, other) = serve(&service.station, &own_address(), &["--db", &db]);
    service.json(&["account", "limit", "0.002"]);
    // They burn from when all of them have started: a job whose ledger is gone does not start.
    let line = "echo ready; until [ -e $DIR/go ]; do sleep 0.05; done; while :; do :; done";
    let start = |url: &str| {
        let mut command = service.command(&service.admin, &["run", "-q", "--hold", "20s", "--", "sh", "-c", line]);
        command.env("JOBMETER_LEDGER", url).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut jobs: Vec<Child> = [&service.url, &other].iter().cycle().take(6).map(|url| start(url)).collect();
    jobs.iter_mut().for_each(|job| assert_eq!(line_of(job.stdout.as_mut().unwrap()), "ready"));
    std::fs::write(service.station.path("go"), "").unwrap();
    let address = other.split("://").nth(1).unwrap().to_owned();
    for _ in 0..3 {
        jobmeter::sys::clock::pause(Duration::from_millis(400));
        second.kill().unwrap();
        second.wait().unwrap();
        (second, _) = serve(&service.station, &address, &["--db", &db]);
    }
    let statuses: Vec<_> = jobs.iter_mut().map(|job| ended(job).code()).collect();
    second.kill().ok();
    second.wait().ok();
    assert!(statuses.iter().all(|status| *status == Some(75)), "{statuses:?}");
    let account = service.json(&["status"]);
    let current = nano(&account["current"]);
    assert!(current <= 2_000_000 && current > 1_900_000, "{account}");
    assert_eq!((nano(&account["held"]), nano(&account["provisional"])), (0, 0), "{account}");
    service.verify();
    // With connections to PostgreSQL that have read.
    service.signal(Signal::SIGTERM);
    assert_eq!(ended(&mut service.child).code(), Some(0));
}
