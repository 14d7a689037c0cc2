//! What a thief of each kind of key tries: every attempt fails and changes nothing, and whoever may do it does the same thing after it.
//!
//! The table in `deploy/OPERATING.md` says the same in words.

use serde_json::json;

use super::*;

/// Whatever is tried against a sidecar's attempt, the thief knows its secret.
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What there is to be attacked: an attempt of bob's that node-1 runs.
struct Scene {
    attempt: String,
    job: String,
    reservation: String,
    lease: Value,
}

/// Method, path and body.
type Request = (&'static str, String, Value);

/// What is tried with whose key, the status that it is refused with, and whose key does it.
struct Attack(&'static str, u16, &'static str, fn(&Scene) -> Request);

fn identity(attempt: &str, job: &str, user: &str) -> Value {
    let (kind, host) = ("training", "h");
    json!({ "attempt": attempt, "job": job, "task": "0", "user": user, "kind": kind, "command": ["x"], "host": host })
}

fn resources() -> Value {
    json!({ "cpus_ppm": 1_000_000, "gpus": 0, "stop_us": 6_000 })
}

fn opening(attempt: &str, job: &str, user: &str) -> Request {
    let body = json!({ "identity": identity(attempt, job, user), "resources": resources() });
    ("PUT", format!("/attempts/{attempt}"), body)
}

fn new_opening(scene: &Scene) -> Request {
    opening(&Uuid::now_v7().to_string(), &format!("{}-new", scene.job), "bob")
}

fn opening_again(scene: &Scene) -> Request {
    opening(&scene.attempt, &scene.job, "bob")
}

fn report(scene: &Scene) -> Request {
    let usage = json!({ "cpu_used_seconds": 0.01, "cpu_allocated_seconds": 1 });
    let body = json!({ "attempt": scene.attempt, "seq": 7, "usage": usage, "period": scene.lease["period"],
        "ceiling_version": scene.lease["version"], "resources": resources() });
    ("PUT", format!("/attempts/{}/usage", scene.attempt), body)
}

fn finish(scene: &Scene) -> Request {
    let usage = json!({ "cpu_used_seconds": 0, "cpu_allocated_seconds": 0 });
    let body = json!({ "attempt": scene.attempt, "usage": usage, "period": scene.lease["period"], "reason": "completed",
        "receipt": {} });
    ("POST", format!("/attempts/{}/finish", scene.attempt), body)
}

fn of_job(scene: &Scene, what: &str) -> String {
    format!("/jobs/{}/{what}", scene.job)
}

fn charge(scene: &Scene) -> Request {
    ("POST", of_job(scene, "tokens"), json!({ "count": 5 }))
}

fn charge_by_its_whole_name(scene: &Scene) -> Request {
    ("POST", of_job(scene, "tokens?user=bob&principal=node-1"), json!({ "count": 5 }))
}

fn reserve(scene: &Scene) -> Request {
    ("POST", of_job(scene, "tokens?user=bob"), json!({ "reserve": 5 }))
}

fn settle_tokens(scene: &Scene) -> Request {
    ("POST", of_job(scene, "tokens"), json!({ "reservation": scene.reservation, "count": 5 }))
}

fn stop(scene: &Scene) -> Request {
    ("POST", of_job(scene, "stop"), json!({ "why": "w" }))
}

fn stop_by_its_whole_name(scene: &Scene) -> Request {
    ("POST", of_job(scene, "stop?user=bob&principal=node-1"), json!({ "why": "w" }))
}

fn raise_the_limit(_: &Scene) -> Request {
    ("PUT", "/users/ann/limit".to_owned(), json!({ "limit": 100 }))
}

fn grant(_: &Scene) -> Request {
    ("POST", "/users/ann/grants".to_owned(), json!({ "amount": 1, "why": "w" }))
}

fn adjust(_: &Scene) -> Request {
    ("POST", "/users/bob/adjustments".to_owned(), json!({ "amount": -1, "why": "w" }))
}

fn resume(_: &Scene) -> Request {
    ("POST", "/users/bob/resume".to_owned(), json!({ "why": "w" }))
}

fn new_key(_: &Scene) -> Request {
    ("POST", "/keys".to_owned(), json!({ "name": "mine", "scope": "admin" }))
}

/// One that is not there: the answer says whether it was looked for.
fn revoke_a_key(_: &Scene) -> Request {
    ("DELETE", "/keys/node-1".to_owned(), Value::Null)
}

fn get(path: String) -> Request {
    ("GET", path, Value::Null)
}

const OPERATORS: [fn(&Scene) -> Request; 7] = [
    raise_the_limit,
    grant,
    adjust,
    resume,
    new_key,
    |_| get("/keys".to_owned()),
    |_| get("/ledger/verify".to_owned()),
];

const OF_ATTEMPTS: [fn(&Scene) -> Request; 11] = [
    report,
    opening_again,
    charge,
    charge_by_its_whole_name,
    reserve,
    settle_tokens,
    stop,
    stop_by_its_whole_name,
    finish,
    new_opening,
    |scene| get(of_job(scene, "stopped")),
];

const READS: [fn(&Scene) -> Request; 7] = [
    |scene| get(format!("/jobs/{}", scene.job)),
    |scene| get(format!("/jobs/{}", &scene.job[..7])),
    |scene| get(format!("/jobs?before={}", scene.job)),
    |_| get("/jobs?user=bob".to_owned()),
    |_| get("/users/bob/credits".to_owned()),
    |_| get("/users/bob/usage".to_owned()),
    |_| get("/users/bob/entries".to_owned()),
];

/// A node's key against another node, and against the operators.
fn by_a_node() -> Vec<Attack> {
    // Whoever has its spool, and so its secret, says its last word: the ninth.
    let of_attempts = OF_ATTEMPTS.into_iter().take(8).map(|ask| Attack("node-2", 404, "node-1", ask));
    let mut attacks: Vec<Attack> = of_attempts.chain(of_operators("node-2")).collect();
    // Its id is a random one of 128 bits, and names nobody.
    attacks[1].1 = 409;
    attacks.push(Attack("node-2", 403, "admin", revoke_a_key));
    attacks
}

fn of_operators(thief: &'static str) -> impl Iterator<Item = Attack> {
    OPERATORS.into_iter().map(move |ask| Attack(thief, 403, "admin", ask))
}

/// A user's own key against another user, and against the operators.
fn by_a_user() -> Vec<Attack> {
    let mut attacks: Vec<Attack> =
        OF_ATTEMPTS.into_iter().map(|ask| Attack("ann", 404, "node-1", ask)).chain(of_operators("ann")).collect();
    attacks.extend(READS.into_iter().map(|ask| Attack("ann", 404, "reader", ask)));
    // What is no cursor of one's own pages is a mistake, whoever has it.
    let cursor = attacks.len() - READS.len() + 2;
    attacks[cursor].1 = 400;
    attacks.push(Attack("ann", 403, "reader", |_| get("/usage".to_owned())));
    attacks
}

/// A key that reads, against everything that changes something.
fn by_a_reader() -> Vec<Attack> {
    let of_attempts = OF_ATTEMPTS.into_iter().map(|ask| Attack("reader", 403, "node-1", ask));
    of_attempts.chain(of_operators("reader")).collect()
}

/// A user's key that reads, against what others have.
fn by_a_users_reader() -> Vec<Attack> {
    let reads = READS.into_iter().map(|ask| Attack("ann reads", 404, "reader", ask));
    let mut attacks: Vec<Attack> = reads.chain(of_operators("ann reads")).collect();
    attacks[2].1 = 400;
    attacks.push(Attack("ann reads", 403, "node-1", charge));
    attacks
}

/// Keys that are over, and what is none.
fn by_keys_of_the_past() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for thief in ["ended", "revoked", "nobody's"] {
        attacks.extend(OF_ATTEMPTS.into_iter().map(|ask| Attack(thief, 401, "node-1", ask)));
        attacks.extend(OPERATORS.into_iter().map(|ask| Attack(thief, 401, "admin", ask)));
        attacks.extend(READS.into_iter().map(|ask| Attack(thief, 401, "reader", ask)));
    }
    attacks
}

/// The service, and keys by the names of their holders.
struct Stage {
    service: Service,
    keys: std::collections::BTreeMap<&'static str, String>,
    count: usize,
}

impl Stage {
    async fn new(db: Location, directory: &Path) -> Self {
        let service = Service::start(db.clone(), directory).await;
        let admin = service.keys[0].clone();
        let mut stage =
            Self { service, keys: [("admin", admin), ("nobody's", "jm_00_00".to_owned())].into(), count: 0 };
        for (name, scope, user) in [
            ("node-1", "report", Value::Null),
            ("node-2", "report", Value::Null),
            ("ann", "report", json!("ann")),
            ("reader", "read", Value::Null),
            ("ann reads", "read", json!("ann")),
            ("revoked", "admin", Value::Null),
            ("ended", "admin", Value::Null),
        ] {
            let body = json!({ "name": name, "scope": scope, "user": user, "expiresAt": 9_000_000_000_i64 });
            let (status, answer) = stage.ask("admin", ("POST", "/keys".to_owned(), body)).await;
            assert_eq!(status, 201, "{answer}");
            stage.keys.insert(name, answer["key"].as_str().unwrap().to_owned());
        }
        let id = |name: &str| stage.keys[name].split('_').nth(1).unwrap().to_owned();
        let (revoked, ended) = (id("revoked"), id("ended"));
        let (status, _) = stage.ask("admin", ("DELETE", format!("/keys/{revoked}"), Value::Null)).await;
        assert_eq!(status, 200);
        // As if its end had come: no test waits for that.
        let over = tokio::task::spawn_blocking(move || {
            let mut store = db.store().unwrap();
            store.begin().unwrap();
            store.query("UPDATE api_key SET ends_us = 1 WHERE id = $1", &[ended.as_str().into()]).unwrap();
            store.commit().unwrap();
        });
        over.await.unwrap();
        stage
    }

    async fn ask(&self, who: &str, (method, path, body): Request) -> (u16, Value) {
        let header = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let headers = vec![header("idempotency-key", "k"), header("jobmeter-attempt-secret", SECRET)];
        let (path, body) = (format!("/api/v1{path}"), Some(body).filter(|body| !body.is_null()));
        let asked = Asked { method: method.to_owned(), template: path.clone(), path, headers, body };
        let (status, answer) = self.service.ask(&self.keys[who], &asked).await;
        (status, serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// Another attempt of bob's by node-1, with tokens set aside for its job.
    async fn scene(&mut self) -> Scene {
        self.count += 1;
        let (attempt, job) = (Uuid::now_v7().to_string(), format!("bob{:04}-job", self.count));
        let (status, answer) = self.ask("node-1", opening(&attempt, &job, "bob")).await;
        assert_eq!(status, 201, "{answer}");
        let lease = answer["opened"]["lease"].clone();
        let mut scene = Scene { attempt, job, reservation: String::new(), lease };
        let (method, path, body) = reserve(&scene);
        // Under another key than what is tried.
        let (status, answer) = self.ask_once("node-1", (method, path, body)).await;
        assert_eq!(status, 200, "{answer}");
        answer["reserved"]["reservation"].as_str().unwrap().clone_into(&mut scene.reservation);
        scene
    }

    async fn ask_once(&self, who: &str, (method, path, body): Request) -> (u16, Value) {
        let headers = vec![("idempotency-key".to_owned(), Uuid::now_v7().to_string())];
        let path = format!("/api/v1{path}");
        let asked = Asked { method: method.to_owned(), template: path.clone(), path, headers, body: Some(body) };
        let (status, answer) = self.service.ask(&self.keys[who], &asked).await;
        (status, serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// All that the attacked accounts and the job have come to.
    async fn books(&self, scene: &Scene) -> String {
        let mut text = String::new();
        for path in ["/users/ann/entries?count=1000", "/users/bob/entries?count=1000", "/rates"] {
            text.push_str(&self.ask("admin", get(path.to_owned())).await.1.to_string());
        }
        let job = format!("/jobs/{}?user=bob&principal=node-1", scene.job);
        text + &self.ask("admin", get(job)).await.1.to_string()
    }

    async fn try_all(&mut self, attacks: Vec<Attack>) {
        for (at, Attack(thief, refused, rightful, ask)) in attacks.into_iter().enumerate() {
            let scene = self.scene().await;
            let asked = ask(&scene);
            let what = format!("{at}: {} {} with the key of {thief}", asked.0, asked.1);
            let before = self.books(&scene).await;
            let (status, answer) = self.ask(thief, asked.clone()).await;
            assert_eq!(status, refused, "{what}: {answer}");
            assert!(!answer.to_string().contains("node-1"), "{what} tells whose it is: {answer}");
            assert_eq!(self.books(&scene).await, before, "{what} changed something");
            // The same by whoever may do it: what was tried was not refused for another reason.
            let (status, answer) = self.ask(rightful, asked).await;
            assert!(
                (200..300).contains(&status) || (status == 404 && what.contains("/keys/")),
                "{what}: {rightful} {status} {answer}"
            );
        }
        let found: Verification = self.service.read("/api/v1/ledger/verify").await;
        assert_eq!(found.problems, Vec::<String>::new());
    }
}

/// On both databases.
fn tried(attacks: fn() -> Vec<Attack>) {
    let directory = tempfile::tempdir().unwrap();
    let sqlite: Location = directory.path().join("l.db").to_str().unwrap().parse().unwrap();
    let postgresql: Location = postgres::tests::new_database().1.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for db in [sqlite, postgresql] {
        let keys = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let mut stage = Stage::new(db, keys.path()).await;
            stage.try_all(attacks()).await;
            stage.service.stop().await;
        });
    }
}

#[test]
fn a_thief_of_a_nodes_key_gets_nowhere() {
    assert!(by_a_node().len() > 15);
    tried(by_a_node);
}

#[test]
fn a_thief_of_a_users_key_gets_nowhere() {
    assert!(by_a_user().len() > 25);
    tried(by_a_user);
}

#[test]
fn a_thief_of_a_key_that_reads_gets_nowhere() {
    assert!(by_a_reader().len() > 17);
    tried(by_a_reader);
}

#[test]
fn a_thief_of_a_users_key_that_reads_gets_nowhere() {
    tried(by_a_users_reader);
}

#[test]
fn keys_that_are_over_open_nothing() {
    tried(by_keys_of_the_past);
}
