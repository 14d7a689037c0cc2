//! Nobody takes up more of a service than may be: connections, bodies, and what the books keep of one principal.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::service::Service;
use crate::station::awaited;

/// More than a service keeps from one address of those who say nothing.
const STRANGERS: usize = 1_100;

fn connected(service: &Service) -> TcpStream {
    let stream = TcpStream::connect(service.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Asks on a connection that stays open.
fn asked(stream: &mut TcpStream, key: &str) -> String {
    let request = format!("GET /api/v1/rates HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {key}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let (mut answer, mut buffer) = (String::new(), [0; 4_096]);
    while !answer.ends_with(']') && !answer.ends_with('}') {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "it was hung up: {answer}");
        answer.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    answer
}

fn is_hung_up(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read(&mut [0; 16]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// Strangers take each other's places: whoever has shown a key stays, and whoever comes to show one is let in.
#[test]
fn connections_that_say_nothing_give_way() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let service = Service::start();
    let mut known = connected(&service);
    assert!(asked(&mut known, &service.admin).starts_with("HTTP/1.1 200"));
    let mut strangers: Vec<TcpStream> = (0..STRANGERS).map(|_| connected(&service)).collect();
    // They are accepted in the order in which they came.
    let mut next = connected(&service);
    assert!(asked(&mut next, &service.admin).starts_with("HTTP/1.1 200"));
    awaited(|| if is_hung_up(&mut strangers[0]) { Ok(()) } else { Err("the oldest is still there".to_owned()) });
    assert!(!is_hung_up(&mut strangers[STRANGERS - 1]), "the newest has its place");
    for stream in [&mut known, &mut next] {
        assert!(asked(stream, &service.admin).starts_with("HTTP/1.1 200"));
    }
    let called = service.call(&service.admin, &["run", "--job", "j", "--", "true"]);
    assert_eq!(called.status, 0, "{called:?}");
}

/// Each route says how much it takes, and nobody's body is read who may not send one.
#[test]
fn a_body_is_bounded_by_its_route() {
    let service = Service::start();
    let node = service.key(&["node", "--scope", "report"]);
    let attempt = format!("/api/v1/attempts/{}", Uuid::now_v7());
    let detail = |answer: &Value| answer["detail"].as_str().unwrap_or_default().to_owned();
    let long = |bytes: usize| "x".repeat(bytes);
    for (key, method, path, bytes, status, told) in [
        (&node, "PUT", attempt.as_str(), (256 << 10) + 1, 413, "262144 bytes"),
        (&node, "PUT", &format!("{attempt}/usage"), (512 << 10) + 1, 413, "524288 bytes"),
        (&node, "POST", "/api/v1/jobs/j/tokens", (16 << 10) + 1, 413, "16384 bytes"),
        (&node, "POST", "/api/v1/jobs/j/tokens", 16 << 10, 422, "the body: expected value"),
        (&String::new(), "PUT", &attempt, (256 << 10) + 1, 401, "send a valid key"),
        (&String::new(), "POST", "/sign-in", (4 << 10) + 1, 413, "4096 bytes"),
    ] {
        let (answered, answer) = service.ask(key, method, path, &long(bytes));
        assert!(answered == status && detail(&answer).contains(told), "{path} {bytes}: {answered} {answer}");
    }
}

fn opening(attempt: Uuid, user: &str) -> String {
    let identity = json!({ "attempt": attempt, "job": attempt, "task": "0", "user": user, "kind": "training", "command": ["x"],
        "host": "h" });
    let resources = json!({ "cpus_ppm": 1_000, "gpus": 0, "stop_us": 6_000 });
    json!({ "identity": identity, "resources": resources }).to_string()
}

/// One principal's quota is nobody else's, and harms nothing that runs.
#[test]
fn a_principal_has_a_quota() {
    let service = Service::with(&["--quota-attempts", "2", "--quota-reservations", "1", "--quota-kept-mib", "1"]);
    let keys = ["one", "two"].map(|name| service.key(&[name, "--scope", "report"]));
    let attempts = [(); 4].map(|()| Uuid::now_v7());
    let open = |key: &str, attempt: Uuid| {
        service.ask(key, "PUT", &format!("/api/v1/attempts/{attempt}"), &opening(attempt, "ann"))
    };
    let (_, opened) = open(&keys[0], attempts[0]);
    assert_eq!(open(&keys[0], attempts[1]).0, 201);
    let (status, answer) = open(&keys[0], attempts[2]);
    let told = "the principal \"one\" has 2 attempts that have not ended, and its quota is 2: end some of them, or have who runs the \
                service raise --quota-attempts";
    assert_eq!((status, answer["detail"].as_str()), (429, Some(told)), "{answer}");
    assert_eq!(answer["type"], "urn:jobmeter:problem:quota");
    assert_eq!(open(&keys[0], attempts[0]).0, 200, "it runs");
    assert_eq!(open(&keys[1], attempts[3]).0, 201, "that is another principal");
    let reserve = |key: &str| {
        let path = format!("/api/v1/jobs/{}/tokens", attempts[1]);
        service.ask_with(&[], key, "POST", &path, &json!({ "reserve": 1 }).to_string()).0
    };
    assert_eq!(reserve(&keys[0]), 200);
    let usage = json!({ "cpu_used_seconds": 0, "cpu_allocated_seconds": 0 });
    let last = json!({ "attempt": attempts[0], "usage": usage, "period": opened["opened"]["lease"]["period"], "reason": "completed",
        "receipt": { "text": "x".repeat(250_000) } });
    let (status, answer) =
        service.ask(&keys[0], "POST", &format!("/api/v1/attempts/{}/finish", attempts[0]), &last.to_string());
    assert_eq!(status, 200, "{answer}");
    awaited(|| match open(&keys[0], attempts[2]) {
        (201, _) => Ok(()),
        (_, answer) => Err(answer.to_string()),
    });
    let job = service.json(&["jobs", "show", &attempts[0].to_string()]);
    let told = job["attempts"][0]["receipt"]["outcome"]["degraded"][0].as_str().unwrap_or_default();
    assert!(told.contains("longer than the 16384 bytes"), "{job}");
    service.verify();
}

/// What each account used is told in one answer or page by page, and both are the same.
#[test]
fn what_each_account_used_goes_page_by_page() {
    let service = Service::start();
    let users = ["ann", "bob", "o'brien & sons"];
    for user in users {
        let attempt = Uuid::now_v7();
        let path = format!("/api/v1/attempts/{attempt}");
        let (_, opened) = service.ask(&service.admin, "PUT", &path, &opening(attempt, user));
        let usage = json!({ "cpu_used_seconds": 0.001, "cpu_allocated_seconds": 1 });
        let last = json!({ "attempt": attempt, "usage": usage, "period": opened["opened"]["lease"]["period"], "reason": "completed",
            "receipt": {} });
        assert_eq!(service.ask(&service.admin, "POST", &format!("{path}/finish"), &last.to_string()).0, 200);
    }
    let client = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let get = |url: &str| {
        let answer = client.get(url).bearer_auth(&service.admin).send().unwrap().error_for_status().unwrap();
        let link = answer.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        let rows: Vec<Value> = answer.json().unwrap();
        (rows, link)
    };
    let base = format!("{}/api/v1/usage", service.url);
    let (all, link) = get(&format!("{base}?each=true&by=day"));
    let named: Vec<_> = all.iter().map(|row| row["user"].as_str().unwrap()).collect();
    assert_eq!((named, link), (users.to_vec(), None));
    let (mut paged, mut next) = (Vec::new(), Some("<?each=true&by=day&count=1>; rel=\"next\"".to_owned()));
    while let Some(link) = next {
        let (rows, after) = get(&format!("{base}{}", link.split(['<', '>']).nth(1).unwrap()));
        assert!(rows.len() <= 1, "{rows:?}");
        paged.extend(rows);
        next = after;
    }
    assert_eq!(paged, all);
}
