//! Requests that are drawn from the whole range of every field of the OpenAPI document, by two keys and a user's, against one
//! ledger: nothing fails by our fault, our own client reads each answer, and the books are right after it all.
//!
//! `REQUESTS=100000` draws more of them, `SEED=7` begins elsewhere.

#![allow(clippy::pedantic, clippy::print_stdout, reason = "a test, not an interface")]

mod attacks;
mod draw;

use std::path::Path;

use axum::body::Body;
use axum::http::Request;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::ServiceExt;

use self::draw::{Draw, Met, Mood};
use super::*;
use crate::ledger::Ledger;
use crate::ledger::keys::{KeyView, Scope};
use crate::ledger::protocol::{FinishAnswer, OpenAnswer, ReportAnswer};
use crate::ledger::store::postgres;
use crate::ledger::views::{AccountView, ChangeAnswer, EntryView, JobView, NewKey, RatesView, UsageRow, Verification};

/// So many share a ledger.
const SEQUENCE: usize = 60;
/// So many of them open attempts, as programs do.
const BEGINNING: usize = 3;
/// Whatever is drawn, so many operations succeed now and then.
const OPERATIONS: usize = 24;

/// A service in this process.
struct Service {
    router: Router,
    app: Arc<App>,
    thread: JoinHandle<()>,
    /// Of an administrator, a node, and a user.
    keys: [String; 3],
    document: Value,
}

/// What was asked, for whoever reads why it failed.
struct Asked {
    method: String,
    path: String,
    template: String,
    headers: Vec<(String, String)>,
    body: Option<Value>,
}

impl Service {
    async fn start(db: Location, directory: &Path) -> Self {
        let admin_key_file = directory.join("admin-key");
        let (listen, tls, trust_header, webhook) = (vec![Listen::Host("127.0.0.1".into(), 0)], None, None, None);
        let (db_of, admin_key_file_of, base_path) = (db.clone(), admin_key_file.clone(), BasePath::default());
        let options = Options {
            db: db_of,
            listen,
            base_path,
            admin_key_file: admin_key_file_of,
            tls,
            trust_header,
            connections_max: 1_000,
            webhook,
        };
        // As if it stopped: no question is kept waiting.
        let (app, thread) = App::start(&options, watch::channel(true).1).await.unwrap();
        let admin = std::fs::read_to_string(admin_key_file).unwrap().trim().to_owned();
        let made = tokio::task::spawn_blocking(move || {
            let mut ledger = StoreLedger::new(db.store().unwrap());
            let mut made = |user: Option<&str>| {
                let key = NewKey { user: user.map(str::to_owned), ..NewKey::new("k", Scope::Report, "test") };
                ledger.new_key(&key).unwrap().text().to_owned()
            };
            [made(None), made(Some("ann"))]
        });
        let [node, user] = made.await.unwrap();
        let router = router(Arc::clone(&app), &options.base_path);
        let mut service = Self { router, app, thread, keys: [admin, node, user], document: Value::Null };
        service.document = service.read("/api/v1/openapi.json").await;
        service
    }

    async fn ask(&self, key: &str, asked: &Asked) -> (u16, Vec<u8>) {
        let mut request = Request::builder().method(asked.method.as_str()).uri(&asked.path);
        request = request.header("authorization", format!("Bearer {key}"));
        for (name, value) in &asked.headers {
            request = request.header(name, value);
        }
        let body = asked.body.as_ref().map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let Ok(request) = request.body(body) else { return (0, Vec::new()) };
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        (status, axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec())
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> T {
        let (method, path) = ("GET".to_owned(), path.to_owned());
        let asked = Asked { method, template: path.clone(), path, headers: Vec::new(), body: None };
        let (status, body) = self.ask(&self.keys[0], &asked).await;
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, 200, "{}: {text}", asked.path);
        serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{}: {error}: {text}", asked.path))
    }

    async fn stop(self) {
        let Self { router, app, thread, .. } = self;
        app.pools.close().await;
        drop((router, app));
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    }
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |text, byte| {
        if byte.is_ascii_alphanumeric() { text + &char::from(byte).to_string() } else { text + &format!("%{byte:02X}") }
    })
}

/// What the document tells in words alone: the body names the attempt of the path, and tokens are asked for in one of three ways.
fn made_sensible(body: &mut Value, path: &str, attempt: Option<String>, (draw, met): (&mut Draw, &Met)) {
    for (attempt, place) in
        attempt.iter().flat_map(|attempt| ["/attempt", "/identity/attempt"].map(|place| (attempt, place)))
    {
        if let Some(named) = body.pointer_mut(place) {
            *named = Value::String(attempt.clone());
        }
    }
    if let Some(fields) = body.as_object_mut().filter(|_| path.ends_with("/tokens")) {
        let forms = [&["count"][..], &["reserve"], &["count", "reservation"]];
        let form = forms[draw.below(3)];
        fields.retain(|name, value| form.contains(&name.as_str()) && !value.is_null());
        for name in form {
            let plain =
                if *name == "reservation" { draw.named(name, Mood::Plausible, met).into() } else { 1_000.into() };
            fields.entry(*name).or_insert(plain);
        }
    }
}

/// Draws a request of one of the document's paths.
fn drawn(document: &Value, draw: &mut Draw, met: &Met, at: usize) -> Asked {
    let paths = document["paths"].as_object().unwrap();
    let all: Vec<(&String, &String, &Value)> = paths
        .iter()
        .flat_map(|(path, of)| of.as_object().unwrap().iter().map(move |(method, of)| (path, method, of)))
        .collect();
    // What burns is drawn more often: it is what the others look at.
    let opens = |path: &str| path.ends_with("/attempts/{attempt}");
    let (path, method, of) = loop {
        let drawn = all[draw.below(all.len())];
        if if at < BEGINNING { opens(drawn.0) } else { drawn.0.contains("/attempts/") || draw.one_in(3) } {
            break drawn;
        }
    };
    let mood = if at < BEGINNING { Mood::Plausible } else { draw.mood() };
    let (mut url, mut headers, mut attempt) = (path.clone(), Vec::new(), None);
    for parameter in of["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        let is_new = opens(path) && name == "attempt" && !draw.one_in(4);
        let text = if is_new { draw.uuid() } else { draw.named(name, mood, met) };
        match parameter["in"].as_str().unwrap() {
            "path" => {
                url = url.replace(&format!("{{{name}}}"), &encoded(&text));
                attempt = (name == "attempt").then_some(text).or(attempt);
            }
            "query" if draw.one_in(3) => {
                let mark = if url.contains('?') { '&' } else { '?' };
                url = format!("{url}{mark}{name}={}", encoded(&text));
            }
            "header" if name == "idempotency-key" || draw.one_in(5) => headers.push((name.to_owned(), text)),
            _ => {}
        }
    }
    let schema = of["requestBody"]["content"]["application/json"].get("schema");
    let mut body = schema.map(|schema| draw.value(document, schema, "", mood, met));
    if let Some(body) = body.as_mut().filter(|_| mood != Mood::Wild) {
        made_sensible(body, path, attempt, (draw, met));
    }
    Asked {
        method: method.to_uppercase(),
        path: url,
        template: format!("{method} {}", &path["/api/v1".len()..]),
        headers,
        body,
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<(), String> {
    serde_json::from_slice::<T>(body).map(|_| ()).map_err(|error| error.to_string())
}

#[derive(serde::Deserialize)]
struct Jobs {
    #[allow(dead_code, reason = "it has to be readable")]
    jobs: Vec<JobView>,
    #[allow(dead_code, reason = "it has to be readable")]
    cursor: Option<String>,
}

#[derive(serde::Deserialize)]
struct Told {
    status: u16,
    detail: String,
    answer: Option<Value>,
}

/// Whether our own client reads an answer.
fn is_readable(template: &str, status: u16, body: &[u8]) -> Result<(), String> {
    if status >= 400 {
        let told: Told = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if told.status != status || told.detail.is_empty() {
            return Err("the problem says something else".to_owned());
        }
        let Some(answer) = told.answer else { return Ok(()) };
        let answer = answer.to_string();
        return if template.ends_with("tokens") {
            read::<ChangeAnswer>(answer.as_bytes())
        } else {
            read::<OpenAnswer>(answer.as_bytes())
        };
    }
    match template {
        "put /attempts/{attempt}" => read::<OpenAnswer>(body),
        "put /attempts/{attempt}/usage" => read::<ReportAnswer>(body),
        "post /attempts/{attempt}/finish" => read::<FinishAnswer>(body),
        "get /events" => Ok(()),
        "get /jobs" => read::<Jobs>(body),
        "get /jobs/{job}" => read::<JobView>(body),
        "get /jobs/{job}/stopped" | "get /attempts/{attempt}/stopped" => read::<bool>(body),
        "get /keys" => read::<Vec<KeyView>>(body),
        "get /ledger/verify" => read::<Verification>(body),
        "get /rates" => read::<Vec<RatesView>>(body),
        "get /usage" | "get /users/{user}/usage" => read::<Vec<UsageRow>>(body),
        "get /users/{user}/credits" => read::<AccountView>(body),
        "get /users/{user}/entries" => read::<Vec<EntryView>>(body),
        "post /keys" => read::<Value>(body),
        // All that is left are changes.
        _ => read::<ChangeAnswer>(body),
    }
}

/// Remembers what an answer names.
fn remember(met: &mut Met, asked: &Asked, status: u16, body: &[u8]) {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let keep = |list: &mut Vec<String>, text: &Value| list.extend(text.as_str().map(str::to_owned));
    match asked.template.as_str() {
        "put /attempts/{attempt}" if status < 300 => {
            let identity = &asked.body.as_ref().unwrap()["identity"];
            keep(&mut met.attempts, &identity["attempt"]);
            keep(&mut met.jobs, &identity["job"]);
            met.periods.extend(answer["opened"]["lease"]["period"].as_i64());
        }
        "post /jobs/{job}/tokens" => keep(&mut met.reservations, &answer["reserved"]["reservation"]),
        "post /keys" => keep(&mut met.keys, &answer["id"]),
        "get /jobs" => keep(&mut met.cursors, &answer["cursor"]),
        "get /rates" => met.rates_version = answer[0]["rates"]["version"].as_u64().unwrap_or(1),
        "put /rates" if status == 200 && answer["again"] == false => met.rates_version = met.rates_version.max(1) + 1,
        _ => {}
    }
}

/// How often each operation was answered by which status.
type Statuses = std::collections::BTreeMap<(String, u16), usize>;

async fn sequence(service: &Service, seed: u64, statuses: &mut Statuses) {
    let (mut draw, mut met) = (Draw(seed), Met::default());
    for at in 0..SEQUENCE {
        let asked = drawn(&service.document, &mut draw, &met, at);
        let key = &service.keys[if at < BEGINNING { 0 } else { [0, 0, 0, 0, 1, 1, 2][draw.below(7)] }];
        let (status, body) = service.ask(key, &asked).await;
        *statuses.entry((asked.template.clone(), status)).or_default() += 1;
        let readable = if status == 0 { Ok(()) } else { is_readable(&asked.template, status, &body) };
        if status >= 500 || readable.is_err() {
            let Asked { method, path, headers, body: sent, .. } = &asked;
            let sent = sent.as_ref().map(Value::to_string).unwrap_or_default();
            let text = String::from_utf8_lossy(&body);
            panic!("SEED={seed} {method} {path} {headers:?}\n{sent}\nwas answered {status}, {readable:?}\n{text}");
        }
        remember(&mut met, &asked, status, &body);
    }
    let found: Verification = service.read("/api/v1/ledger/verify").await;
    assert_eq!(found.problems, Vec::<String>::new(), "SEED={seed}");
    for path in ["usage", "usage?each=true", "usage?from=2020-01-01"] {
        let _: Vec<UsageRow> = service.read(&format!("/api/v1/{path}")).await;
    }
    let _: Jobs = service.read("/api/v1/jobs?count=100").await;
    for user in ["ann", "bob", "o'brien"] {
        let _: Vec<UsageRow> = service.read(&format!("/api/v1/users/{}/usage", encoded(user))).await;
    }
    let metrics = Asked {
        method: "GET".to_owned(),
        path: "/metrics".to_owned(),
        template: String::new(),
        headers: Vec::new(),
        body: None,
    };
    let (status, text) = service.ask(&service.keys[0], &metrics).await;
    let text = String::from_utf8_lossy(&text);
    assert!(status == 200 && text.contains("jobmeter_attempts_running"), "SEED={seed} {text}");
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `place` makes a database that is gone with what it gives back.
fn draw_all<P>(count: usize, mut place: impl FnMut() -> (P, Location)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let first = from_environment("SEED").unwrap_or(1);
    let mut statuses = Statuses::new();
    for seed in first..first + count.div_ceil(SEQUENCE) as u64 {
        let (kept, db) = place();
        let keys = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let service = Service::start(db, keys.path()).await;
            sequence(&service, seed, &mut statuses).await;
            service.stop().await;
        });
        drop(kept);
    }
    for ((operation, status), count) in &statuses {
        println!("{operation} {status}: {count}");
    }
    let done = statuses.keys().filter(|(_, status)| (200..300).contains(status)).count();
    assert!(count < 1_000 || done >= OPERATIONS, "{done} operations were done");
}

#[test]
fn whatever_is_asked_of_sqlite_is_answered_and_can_be_read() {
    let count = from_environment("REQUESTS").unwrap_or(2_000);
    draw_all(usize::try_from(count).unwrap(), || {
        // In memory, where there is such a place: no power is cut here.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let db = directory.path().join("l.db").to_str().unwrap().parse().unwrap();
        (directory, db)
    });
}

#[test]
fn whatever_is_asked_of_postgresql_is_answered_and_can_be_read() {
    let count = from_environment("REQUESTS").map_or(300, |count| count / 10);
    draw_all(usize::try_from(count).unwrap(), || ((), postgres::tests::new_database().1.parse().unwrap()));
}
