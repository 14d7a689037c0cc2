//! The ledger service: who may do what, what it does not understand, and TLS.

use serde_json::{Value, json};

use crate::service::{Service, serve};
use crate::station::{Called, Station, nano};

/// Every route, by everybody who may not.
#[test]
fn keys_open_what_they_are_for_and_nothing_else() {
    let service = Service::start();
    let (worker, reader) = (service.key(&["w"]), service.key(&["r", "--scope", "read"]));
    let alice = service.key(&["a", "--only-user", "--user", "alice"]);
    let revoked = service.key(&["x", "--scope", "admin"]);
    let id = revoked.split('_').nth(1).unwrap();
    service.json(&["key", "revoke", id]);
    assert_eq!(service.call(&worker, &["run", "-q", "--user", "bob", "--job", "bobs-job", "--", "true"]).status, 0);
    let attempt = service.json(&["jobs", "show", "bobs-job"])["attempts"][0]["identity"]["attempt"].clone();
    let attempt = attempt.as_str().unwrap();
    let usage = format!("/api/v1/attempts/{attempt}/usage");
    let finish = format!("/api/v1/attempts/{attempt}/finish");
    let settle = format!("/api/v1/attempts/{attempt}/settle");
    let report = json!({
        "attempt": attempt, "seq": 1, "usage": { "cpu_used_seconds": 1, "cpu_allocated_seconds": 1 }, "period": 0,
        "ceiling_version": 1, "resources": { "cpus_ppm": 1, "gpus": 0, "stop_us": 1 },
    });
    let last = json!({
        "attempt": attempt, "usage": { "cpu_used_seconds": 1, "cpu_allocated_seconds": 1 }, "period": 0,
        "reason": "completed", "receipt": {},
    });
    let why = json!({ "why": "w" });
    let amount = json!({ "amount": 1, "why": "w" });
    let new_key = json!({ "name": "n", "scope": "admin" });
    let of_admin: [(&str, &str, &Value); 8] = [
        ("PUT", "/api/v1/users/bob/limit", &json!({ "limit": 1 })),
        ("POST", "/api/v1/users/bob/grants", &amount),
        ("POST", "/api/v1/users/bob/adjustments", &amount),
        ("POST", &settle, &why),
        ("PUT", "/api/v1/rates", &json!({})),
        ("POST", "/api/v1/keys", &new_key),
        ("GET", "/api/v1/keys", &Value::Null),
        ("GET", "/api/v1/ledger/verify", &Value::Null),
    ];
    let of_workers: [(&str, &str, &Value); 6] = [
        ("POST", "/api/v1/jobs/bobs-job/stop", &why),
        ("PUT", &usage, &report),
        ("POST", &finish, &last),
        ("POST", "/api/v1/jobs/bobs-job/tokens", &json!({ "count": 1 })),
        ("POST", "/api/v1/jobs/bobs-job/tokens", &json!({ "reserve": 1 })),
        ("POST", "/api/v1/jobs/bobs-job/tokens", &json!({ "reservation": attempt, "count": 1 })),
    ];
    let of_readers = [
        "/api/v1/jobs",
        "/api/v1/jobs/bobs-job",
        "/api/v1/users/bob/credits",
        "/api/v1/users/bob/usage",
        "/api/v1/users/bob/entries",
        "/api/v1/rates",
    ];
    let before = service.json(&["account", "show", "--user", "bob"])["entries"].clone();
    for (method, path, body) in of_admin {
        for key in [&worker, &reader, &alice] {
            assert_eq!(service.ask(key, method, path, &body.to_string()).0, 403, "{method} {path}");
        }
    }
    for (method, path, body) in of_workers {
        assert_eq!(service.ask(&reader, method, path, &body.to_string()).0, 403, "{method} {path}");
        assert_eq!(service.ask(&alice, method, path, &body.to_string()).0, 404, "{method} {path}");
    }
    for path in of_readers {
        assert_eq!(service.ask(&reader, "GET", path, "").0, 200, "{path}");
    }
    for path in &of_readers[1..5] {
        assert_eq!(service.ask(&alice, "GET", path, "").0, 404, "{path}");
    }
    assert_eq!(service.ask(&alice, "GET", "/api/v1/jobs", "").1["jobs"], json!([]));
    assert_eq!(service.ask(&alice, "GET", "/api/v1/jobs?user=bob", "").0, 404);
    let all = of_admin.iter().chain(&of_workers).map(|(method, path, body)| (*method, *path, body.to_string()));
    let all = all.chain(of_readers.iter().map(|path| ("GET", *path, String::new())));
    for (method, path, body) in all {
        for key in ["", "nonsense", "jm_0123456789ab_00", &revoked] {
            assert_eq!(service.ask(key, method, path, &body).0, 401, "{method} {path} {key}");
        }
    }
    let after = service.json(&["account", "show", "--user", "bob"])["entries"].clone();
    assert_eq!(after, before, "something was changed");
    // A user's own key does for the user's own jobs.
    assert_eq!(service.call(&alice, &["run", "-q", "--user", "alice", "--", "true"]).status, 0);
    assert_eq!(service.call(&alice, &["run", "-q", "--user", "bob", "--", "true"]).status, 125);
    service.verify();
}

/// What a user's key reads names neither others' jobs nor the keys of administrators.
#[test]
fn a_users_key_reads_nothing_about_others() {
    let service = Service::start();
    let alice = service.key(&["a", "--only-user", "--user", "alice"]);
    let node = service.key(&["w"]);
    assert_eq!(service.call(&node, &["run", "-q", "--user", "bob", "--job", "bobs-job", "--", "true"]).status, 0);
    for before in ["bobs-job", "nobodys-job"] {
        let (status, told) = service.ask(&alice, "GET", &format!("/api/v1/jobs?before={before}"), "");
        assert!(status == 400 && told["detail"].as_str().unwrap().contains("no cursor"), "{before}: {told}");
    }
    assert_eq!(service.ask(&node, "GET", "/api/v1/jobs?before=nobodys-job", "").0, 400);
    assert_eq!(service.ask(&node, "GET", "/api/v1/jobs?before=bobs-job", "").0, 200);
    service.json(&["rates", "set", "--cpu-per-second", "0.001"]);
    let by = |key: &str| service.ask(key, "GET", "/api/v1/rates", "").1[0]["by"].as_str().unwrap().to_owned();
    assert!(by(&node).starts_with("key "), "{}", by(&node));
    assert_eq!(by(&alice), "an administrator");
    for path in ["users/a%00b/credits", "jobs/a%00b", "jobs?before=%00", "jobs?user=%00", "users/a%00/entries"] {
        assert_eq!(service.ask(&node, "GET", &format!("/api/v1/{path}"), "").0, 422, "{path}");
    }
    service.verify();
}

#[test]
fn what_cannot_be_understood_is_said_and_changes_nothing() {
    let service = Service::start();
    let key = service.key(&["w"]);
    let attempt = "0192f0c1-2345-7abc-8def-0123456789ab";
    let good = json!({
        "identity": { "attempt": attempt, "job": "j", "task": "0", "user": "u", "kind": "training", "command": [], "host": "h" },
        "resources": { "cpus_ppm": 1_000_000, "gpus": 0, "stop_us": 7000 },
    });
    let path = format!("/api/v1/attempts/{attempt}");
    let with = |pointer: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        body.to_string()
    };
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let bodies = [
        String::new(),
        "{".to_owned(),
        "null".to_owned(),
        deep,
        with("/identity/user", json!("")),
        with("/identity/user", json!("a\u{1b}b")),
        with("/identity/job", json!("j".repeat(5_000))),
        with("/identity/kind", json!("mining")),
        with("/identity/attempt", json!("0192f0c1-2345-7abc-8def-0123456789ac")),
        with("/resources/cpus_ppm", json!(-1)),
        with("/resources/cpus_ppm", json!(u64::MAX)),
        with("/resources/cpus_ppm", json!(1.5)),
        with("/resources", json!({ "cpus_ppm": 1, "gpus": 0, "stop_us": 1, "wishes": 3 })),
        good.to_string().replacen('{', "{\"limit\": -1, ", 1),
        good.to_string().replacen('{', "{\"limit\": 1e30, ", 1),
    ];
    for body in bodies {
        assert_eq!(service.ask(&key, "PUT", &path, &body).0, 422, "{}", body.get(..200).unwrap_or(&body));
    }
    let huge = "x".repeat(3 << 20);
    assert!(matches!(service.ask(&key, "PUT", &path, &huge).0, 413 | 422));
    assert_eq!(service.ask(&key, "PUT", "/api/v1/attempts/none", &good.to_string()).0, 422);
    assert_eq!(service.ask(&key, "DELETE", &path, "").0, 422);
    let document = service.ask("", "GET", "/api/v1/openapi.json", "").1;
    assert!(document["paths"].as_object().unwrap().len() > 15, "{document}");
    assert_eq!(service.ask(&key, "GET", "/nothing", "").0, 404);
    assert_eq!(service.ask(&key, "GET", "/api/v1/jobs?count=many", "").0, 422);
    for wrong in ["month=2026-13", "from=x", "by=year", "month=2026-11&to=2026-11-01"] {
        assert_eq!(service.ask(&key, "GET", &format!("/api/v1/users/u/usage?{wrong}"), "").0, 422, "{wrong}");
    }
    let range = "from=2026-11-01&to=2026-12-01&by=month";
    assert_eq!(service.ask(&key, "GET", &format!("/api/v1/users/u/usage?{range}"), "").0, 200);
    assert_eq!(service.ask(&key, "GET", "/api/v1/jobs/none-such", "").0, 404);
    let unknown = json!({
        "attempt": attempt, "seq": 1, "usage": { "cpu_used_seconds": 1, "cpu_allocated_seconds": 1 }, "period": 0,
        "ceiling_version": 1, "resources": { "cpus_ppm": 1, "gpus": 0, "stop_us": 1 },
    });
    let (status, problem) = service.ask(&key, "PUT", &format!("{path}/usage"), &unknown.to_string());
    assert_eq!((status, problem["type"].as_str()), (404, Some("urn:jobmeter:problem:attempt-unknown")));
    assert_eq!(service.ask(&key, "PUT", &path, &good.to_string()).0, 201);
    assert_eq!(service.ask(&key, "PUT", &path, &good.to_string()).0, 200);
    // Usage that goes backwards changes nothing.
    let lease = service.ask(&key, "PUT", &path, &good.to_string()).1["opened"]["lease"].clone();
    for seconds in [0.02, 0.01] {
        let mut report = unknown.clone();
        report["usage"]["cpu_used_seconds"] = json!(seconds);
        report["period"] = lease["period"].clone();
        assert_eq!(service.ask(&key, "PUT", &format!("{path}/usage"), &report.to_string()).0, 200);
    }
    assert_eq!(nano(&service.json(&["status", "--user", "u"])["current"]), 5_000);
    for body in [
        json!({}),
        json!({ "count": -1 }),
        json!({ "count": u64::MAX }),
        json!({ "count": 1, "reserve": 1 }),
        json!({ "reserve": 1, "lastsMs": 0 }),
        json!({ "reserve": 1, "lastsMs": 86_400_001 }),
        json!({ "reservation": "x", "count": 1 }),
        json!({ "reservation": attempt }),
        json!({ "count": 1, "wishes": 3 }),
    ] {
        assert_eq!(service.ask(&key, "POST", "/api/v1/jobs/j/tokens", &body.to_string()).0, 422, "{body}");
    }
    let unknown = json!({ "reservation": attempt, "count": 1 });
    assert_eq!(service.ask(&key, "POST", "/api/v1/jobs/j/tokens", &unknown.to_string()).0, 404);
    service.verify();
}

#[test]
fn with_tls_and_a_certificate_of_our_own() {
    let station = Station::new();
    let made = station.sh(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
         -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
         -keyout $DIR/key.pem -out $DIR/cert.pem 2>&1",
    );
    assert_eq!(made.status, 0, "{made:?}");
    let (certificate, private) = (station.path("cert.pem"), station.path("key.pem"));
    let (certificate, private) = (certificate.to_str().unwrap(), private.to_str().unwrap());
    let (mut child, url) = serve(&station, "127.0.0.1:0", &["--tls-certificate", certificate, "--tls-key", private]);
    assert!(url.starts_with("https://"), "{url}");
    let status = |trusted: bool| -> Called {
        let mut command = station.command(&["status"]);
        command.env("JOBMETER_LEDGER", &url).env("JOBMETER_KEY", station.path("service.db.admin-key"));
        if trusted {
            command.env("SSL_CERT_FILE", certificate);
        }
        command.output().unwrap().into()
    };
    let (trusted, untrusted) = (status(true), status(false));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(trusted.status, 0, "{trusted:?}");
    assert!(untrusted.status != 0 && untrusted.err.contains("certificate"), "{untrusted:?}");
}

#[test]
fn a_proxys_word_is_taken_only_where_that_was_said() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::blocking::Client::builder();
    let client = client.no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let status = |url: &str, method: &str, users: &[&str]| {
        let mut request = client.request(method.parse().unwrap(), url).body("{\"limit\":9}");
        for user in users {
            request = request.header("x-forwarded-user", *user);
        }
        request.send().unwrap().status().as_u16()
    };
    let plain = Service::start();
    assert_eq!(status(&format!("{}/api/v1/users/ann/credits", plain.url), "GET", &["ann"]), 401);
    assert_eq!(status(&format!("{}/jobs", plain.url), "GET", &["ann"]), 303);
    let service = Service::with(&["--trust-header", "X-Forwarded-User"]);
    let of = |path: &str, method: &str, users: &[&str]| status(&format!("{}{path}", service.url), method, users);
    assert_eq!(of("/jobs", "GET", &["ann"]), 200);
    assert_eq!(of("/jobs", "GET", &[]), 303);
    assert_eq!(of("/api/v1/users/ann/credits", "GET", &["ann"]), 200);
    assert_eq!(of("/api/v1/users/bob/credits", "GET", &["ann"]), 404);
    // Two names: one of them is not the proxy's.
    assert_eq!(of("/api/v1/users/ann/credits", "GET", &["ann", "bob"]), 401);
    assert_eq!(of("/api/v1/users/ann/limit", "PUT", &["ann"]), 403);
    assert_eq!(of("/admin", "GET", &["ann"]), 403);
}

#[test]
fn the_beginning_of_an_id_tells_nothing_of_anothers_jobs() {
    let service = Service::start();
    let alice = service.key(&["a", "--only-user", "--user", "alice"]);
    for job in ["plan-1", "plan-2"] {
        let called = service.call(&service.admin, &["--user", "bob", "run", "-q", "--job", job, "--", "true"]);
        assert_eq!(called.status, 0, "{called:?}");
    }
    for path in ["plan", "plan-", "plan-1"] {
        let (status, told) = service.ask(&alice, "GET", &format!("/api/v1/jobs/{path}"), "");
        assert!(status == 404 && !told.to_string().contains("plan-2"), "{path}: {status} {told}");
    }
    let (status, told) = service.ask(&service.admin, "GET", "/api/v1/jobs/plan", "");
    assert!(status == 409 && told.to_string().contains("plan-2"), "{status} {told}");
}

/// A sidecar asks between two reports whether its job was stopped. Of whose jobs that is not, it is told nothing, not even that
/// they are there.
#[test]
fn whether_a_job_was_stopped_is_told_of_ones_own() {
    let service = Service::start();
    let alice = service.key(&["a", "--only-user", "--user", "alice"]);
    let (worker, reader) = (service.key(&["w"]), service.key(&["r", "--scope", "read"]));
    for (user, job) in [("alice", "own"), ("alice", "own-stopped"), ("bob", "others"), ("bob", "others-stopped")] {
        let called = service.call(&service.admin, &["--user", user, "run", "-q", "--job", job, "--", "true"]);
        assert_eq!(called.status, 0, "{called:?}");
        if job.ends_with("-stopped") {
            service.json(&["jobs", "stop", job, "--why", "test"]);
        }
    }
    let asked = |key: &str, job: &str| service.ask(key, "GET", &format!("/api/v1/jobs/{job}/stopped"), "");
    for (job, stopped) in [("own", false), ("own-stopped", true)] {
        assert_eq!(asked(&alice, job), (200, json!(stopped)), "{job}");
    }
    let (status, unknown) = asked(&alice, "none-such");
    assert_eq!(status, 404, "{unknown}");
    for job in ["others", "others-stopped", "oth"] {
        let (status, told) = asked(&alice, job);
        let told_of_unknown = unknown.to_string().replace("none-such", job);
        assert_eq!((status, told.to_string()), (404, told_of_unknown), "{job}");
    }
    // A key of no user serves all of them, and a job that a restored ledger does not know yet.
    for (job, stopped) in [("own-stopped", true), ("others-stopped", true), ("others", false), ("none-such", false)] {
        assert_eq!(asked(&worker, job), (200, json!(stopped)), "{job}");
    }
    assert_eq!(asked(&reader, "others").0, 403);
}
