//! Streams and questions that are kept end with the key or the session they were asked with, within a second.

use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::service::{Service, opened};
use crate::sessions::{Replica, client, form, id_of, sign_in};
use crate::station::{awaited, ended, line_of, nano};

/// So soon whoever watches is cut off.
const CUT_OFF_MAX: Duration = Duration::from_secs(1);

/// A stream of `curl` that has told something.
struct Stream {
    curl: Child,
    told: ChildStdout,
}

impl Stream {
    fn watched(service: &Service, with: &str) -> Self {
        let mut stream = Self::opened(service, with, "alice");
        stream.account();
        stream
    }

    fn opened(service: &Service, with: &str, user: &str) -> Self {
        let mut curl = service.station.program("curl");
        curl.args(["-sN", "-H", with, &format!("{}/api/v1/events?user={user}", service.url)]);
        let mut curl = curl.stdout(Stdio::piped()).spawn().expect("curl is installed");
        let told = curl.stdout.take().unwrap();
        Self { curl, told }
    }

    /// Name and data of the next event.
    fn event(&mut self) -> (String, Value) {
        let mut name = String::new();
        loop {
            let line = line_of(&mut self.told);
            if let Some(told) = line.strip_prefix("event: ") {
                name = told.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return (name, serde_json::from_str(data).unwrap());
            }
        }
    }

    /// The data of the next event `account`.
    fn account(&mut self) -> Value {
        loop {
            let (name, data) = self.event();
            if name == "account" {
                return data;
            }
        }
    }

    fn assert_cut_off(&mut self, since: Instant, what: &str) {
        assert!(ended(&mut self.curl).success(), "{what}: it ended as it should");
        let after = since.elapsed();
        assert!(after < CUT_OFF_MAX, "{what}: after {after:?}");
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.curl.kill().ok();
        self.curl.wait().ok();
    }
}

fn bearer(key: &str) -> String {
    format!("authorization: Bearer {key}")
}

/// A job burns the account to zero. When that will be is reckoned anew in each look, and is no reason for an event.
#[test]
fn a_watcher_is_told_once_a_second_and_of_the_end() {
    let service = Service::start();
    service.json(&["account", "limit", "0.001", "--user", "tester"]);
    let mut stream = Stream::opened(&service, &bearer(&service.admin), "tester");
    assert_eq!(stream.account()["account"]["running"], 0);
    let begun = Instant::now();
    let worker = service.key(&["w"]);
    let line = ["run", "-q", "--job", "burner", "--", "sh", "-c", "while :; do :; done"];
    let mut job = service.command(&worker, &line).spawn().unwrap();
    let (mut count, mut has_run) = (0, false);
    let last = loop {
        let event = stream.account();
        count += 1;
        has_run |= event["account"]["running"] == 1;
        if has_run && event["account"]["running"] == 0 {
            break event;
        }
    };
    let seconds = begun.elapsed().as_secs();
    assert!(count <= seconds + 2, "{count} events in {seconds} s");
    assert_eq!(ended(&mut job).code(), Some(75));
    // All that was charged is in the last one, which says what has changed.
    let status = service.json(&["status", "--user", "tester"]);
    assert_eq!(last["account"]["charged"], status["charged"]);
    assert_eq!(last["changed"], json!({ "account": true, "jobs": ["burner"] }));
    service.verify();
}

#[test]
fn streams_end_with_the_key_or_the_session() {
    let service = Service::start();
    let (alice, other) = (service.key(&["a", "--scope", "read"]), service.key(&["b", "--scope", "read"]));
    let session = sign_in(&service.url, &alice);
    let signed_out = sign_in(&service.url, &alice);
    let mut of_key = Stream::watched(&service, &bearer(&alice));
    let mut of_session = Stream::watched(&service, &format!("cookie: {session}"));
    let mut of_signed_out = Stream::watched(&service, &format!("cookie: {signed_out}"));
    let mut of_other = Stream::watched(&service, &bearer(&other));
    form(&format!("{}/sign-out", service.url), &signed_out, String::new());
    of_signed_out.assert_cut_off(Instant::now(), "signed out");
    // By the API, since the command line takes its time.
    let path = format!("/api/v1/keys/{}", id_of(&alice));
    assert_eq!(service.ask(&service.admin, "DELETE", &path, "").0, 200);
    let revoked = Instant::now();
    of_key.assert_cut_off(revoked, "the key is revoked");
    of_session.assert_cut_off(revoked, "the session's key is revoked");
    assert!(of_other.curl.try_wait().unwrap().is_none(), "the stream of another key goes on");
}

/// A proxy that fills its buffers first is told not to, and neither it nor the watcher waits for the first bytes. Where nothing
/// changes, the stream says that it is alive.
#[test]
fn a_stream_gets_through_a_proxy() {
    let service = Service::start();
    let mut curl = service.station.program("curl");
    curl.args(["-sNi", "-H", &bearer(&service.admin), &format!("{}/api/v1/events?user=alice", service.url)]);
    let mut curl = curl.stdout(Stdio::piped()).spawn().expect("curl is installed");
    let told = curl.stdout.take().unwrap();
    let mut stream = Stream { curl, told };
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "data: {}") {
        lines.push(line_of(&mut stream.told).trim_end().to_owned());
    }
    assert!(lines.contains(&"x-accel-buffering: no".to_owned()), "{lines:?}");
    let body = lines.iter().skip_while(|line| !line.is_empty()).skip(1);
    // HTTP/1.1 tells how long each chunk is; what is left of them are the events.
    let body: Vec<&str> = body.map(|line| line.split("{\"").next().unwrap()).collect();
    assert_eq!(body, [":", "", "event: account", "data: ", "", "event: alive", "data: {}"]);
}

/// Nobody can use up the service's connections: neither with one session or key, nor by signing in again and again.
#[test]
fn nobody_has_more_streams_than_are_good() {
    let service = Service::start();
    let alice = service.key(&["a", "--scope", "read"]);
    let by_key = bearer(&alice);
    let mut streams: Vec<Stream> = (0..16).map(|_| Stream::watched(&service, &by_key)).collect();
    let refused = |with: &str| {
        let (name, value) = with.split_once(": ").unwrap();
        let request = client().get(format!("{}/api/v1/events?user=alice", service.url)).header(name, value);
        let answer = request.send().unwrap();
        let status = answer.status().as_u16();
        if status == 200 { Ok(()) } else { Err((status, answer.json::<Value>().unwrap())) }
    };
    let (status, problem) = refused(&by_key).unwrap_err();
    assert_eq!((status, problem["type"].as_str().unwrap()), (429, "urn:jobmeter:problem:too-many"));
    assert!(problem["detail"].as_str().unwrap().contains("16 streams"), "{problem}");
    // Another key has its own, and a place that was given up is free.
    refused(&bearer(&service.admin)).unwrap();
    streams.pop();
    awaited(|| refused(&by_key).map_err(|told| format!("{told:?}")));
    // Sessions have their own, 64 together with the key.
    for _ in 0..3 {
        let session = format!("cookie: {}", sign_in(&service.url, &alice));
        streams.extend((0..16).map(|_| Stream::watched(&service, &session)));
        assert_eq!(refused(&session).unwrap_err().0, 429);
    }
    let session = format!("cookie: {}", sign_in(&service.url, &alice));
    streams.push(Stream::watched(&service, &session));
    assert_eq!(refused(&session).unwrap_err().0, 429);
}

/// The same where the revocation came by another replica.
#[test]
fn streams_end_on_every_replica() {
    let service = Service::start();
    let other = Replica::of(&service);
    let alice = service.key(&["a", "--scope", "read"]);
    let mut stream = Stream::watched(&service, &bearer(&alice));
    let request = client().delete(format!("{}/api/v1/keys/{}", other.url, id_of(&alice))).bearer_auth(&service.admin);
    assert_eq!(request.send().unwrap().status().as_u16(), 200);
    stream.assert_cut_off(Instant::now(), "revoked elsewhere");
}

/// A report that waits for credits is answered before its time, by a refusal.
#[test]
fn a_report_that_waits_ends_with_the_key() {
    let service = Service::start();
    service.json(&["account", "limit", "0.0006", "--user", "u"]);
    // Of the principal whose key opens the attempts.
    let key = service.key(&["w", "--principal", "first admin key"]);
    let [first, second] = [1_u128, 2].map(uuid::Uuid::from_u128);
    let (lease, _) = (opened(&service, first, "u"), opened(&service, second, "u"));
    let burned = jobmeter::domain::units::Microseconds(u64::try_from(nano(&lease["ceiling"]) * 4).unwrap());
    let report = json!({
        "attempt": first, "usage": { "cpu_used_seconds": burned, "cpu_allocated_seconds": 0 }, "seq": 1, "waiting": true,
        "period": lease["period"], "ceiling_version": lease["version"], "ceiling": lease["ceiling"],
        "resources": { "cpus_ppm": 2_000_000, "gpus": 0, "stop_us": 6000 },
    });
    let path = format!("/api/v1/attempts/{first}/usage");
    std::thread::scope(|scope| {
        let asked = Instant::now();
        let waiting = scope.spawn(|| service.ask(&key, "PUT", &path, &report.to_string()));
        // It waits once the report is in the books.
        awaited(|| match nano(&service.json(&["status", "--user", "u"])["current"]) {
            0 => Err("nothing is charged".to_owned()),
            _ => Ok(()),
        });
        assert_eq!(service.ask(&service.admin, "DELETE", &format!("/api/v1/keys/{}", id_of(&key)), "").0, 200);
        let revoked = Instant::now();
        let (status, answer) = waiting.join().unwrap();
        // A busy machine may have taken so long that the wait was over by itself.
        let was_over = asked.elapsed() >= Duration::from_secs(2) && status == 200;
        assert!(status == 401 || was_over, "{status} {answer}");
        assert!(revoked.elapsed() < CUT_OFF_MAX, "{:?}", revoked.elapsed());
    });
    service.verify();
}
