//! Streams and questions that are kept end with the key or the session they were asked with, within a second.

use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::service::{Service, opened};
use crate::sessions::{Replica, client, form, id_of, sign_in};
use crate::station::{awaited, ended, line_of, nano};

/// So soon whoever watches is cut off.
const CUT_OFF_MAX: Duration = Duration::from_secs(1);

/// A stream of `curl` that has told something.
struct Stream {
    curl: Child,
    _told: ChildStdout,
}

impl Stream {
    fn watched(service: &Service, with: &str) -> Self {
        let mut curl = service.station.program("curl");
        curl.args(["-sN", "-H", with, &format!("{}/api/v1/events?user=alice", service.url)]);
        let mut curl = curl.stdout(Stdio::piped()).spawn().expect("curl is installed");
        let mut told = curl.stdout.take().unwrap();
        while !line_of(&mut told).starts_with("data: ") {}
        Self { curl, _told: told }
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

#[test]
fn streams_end_with_the_key_or_the_session() {
    let service = Service::start();
    let bearer = |key: &str| format!("authorization: Bearer {key}");
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

/// The same where the revocation came by another replica.
#[test]
fn streams_end_on_every_replica() {
    let service = Service::start();
    let other = Replica::of(&service);
    let alice = service.key(&["a", "--scope", "read"]);
    let mut stream = Stream::watched(&service, &format!("authorization: Bearer {alice}"));
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
