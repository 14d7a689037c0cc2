//! The relay, and whoever connects to it: a wrapper, or a workload that tries its luck.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use jobmeter::domain::usage::Usage;
use jobmeter::ledger::attempt_secret::AttemptSecret;
use jobmeter::ledger::location::Location;
use jobmeter::ledger::protocol::{
    AttemptIdentity, Finish, JobKind, Lease, OpenAnswer, OpenRequest, Reason, Report, Resources,
};
use jobmeter::ledger::relay::{Kept, RelayLedger, Session, begin};
use jobmeter::ledger::views::{Change, Query, View};
use jobmeter::ledger::{Ledger, LedgerError};
use uuid::Uuid;

use crate::station::{SOON, Station, awaited, ended, micros};

const RESOURCES: Resources = Resources { cpus_ppm: 1_000_000, gpus: 0, gpu_models: BTreeMap::new(), stop_us: 6_000 };

struct Relay {
    child: Child,
    socket: PathBuf,
}

impl Relay {
    fn start(station: &Station) -> Self {
        let socket = station.path("relay.sock");
        std::fs::remove_file(&socket).ok();
        let state = station.path("state");
        let line = ["--user", "ann", "--spool-dir", state.to_str().unwrap(), "relay", "--job", "pod", "--name", "x"];
        // In this a wrapper has to come back to a relay that was started anew, on a busy machine as well.
        let more = ["--socket", socket.to_str().unwrap(), "--lost-after", "3s", "--task", ""];
        let child = station.command(&[&line[..], &more].concat()).stderr(Stdio::null()).spawn().unwrap();
        let relay = Self { child, socket };
        awaited(|| UnixStream::connect(&relay.socket).map_err(|error| error.to_string()));
        relay
    }

    fn ends(mut self) -> i32 {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        ended(&mut self.child).code().unwrap()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn usage(s: &str) -> Usage {
    Usage { cpu_used_seconds: s.parse().unwrap(), ..Usage::default() }
}

/// As a wrapper opens its attempt; the relay says whose it is.
fn opened(ledger: &mut RelayLedger) -> (Uuid, Lease) {
    let identity = AttemptIdentity {
        attempt: Uuid::now_v7(),
        job: "another".into(),
        task: "7".into(),
        user: "mallory".into(),
        kind: JobKind::Generation,
        name: None,
        labels: BTreeMap::new(),
        command: vec!["x".into()],
        host: "h".into(),
    };
    let attempt = identity.attempt;
    match ledger.open(&OpenRequest { identity, resources: RESOURCES, limit: None, resume: None, secret: None }).unwrap()
    {
        OpenAnswer::Opened { lease, .. } => (attempt, lease),
        other => panic!("{other:?}"),
    }
}

fn finish(attempt: Uuid, lease: &Lease, burned: &str) -> Finish {
    let receipt = jobmeter::ledger::receipt_text::ReceiptText::of(&serde_json::json!({}));
    let (usage, period) = (usage(burned), lease.period);
    Finish { attempt, usage, period, closed: None, reason: Reason::Completed, receipt, secret: None }
}

/// As a relay and its wrapper may need a moment.
fn begun(socket: &Path) -> Session {
    awaited(|| begin(socket).map_err(|error| error.to_string())).0
}

#[test]
fn a_wrapper_speaks_for_its_own_attempt_alone() {
    let station = Station::new();
    let relay = Relay::start(&station);
    let session = begun(&relay.socket);
    let mut ledger = RelayLedger::resume(&relay.socket, &session).unwrap();
    let (attempt, lease) = opened(&mut ledger);
    let report = |attempt, burned| Report {
        attempt,
        seq: 1,
        usage: usage(burned),
        period: lease.period,
        closed: None,
        ceiling_version: lease.version,
        ceiling: lease.ceiling,
        resources: RESOURCES,
        waiting: false,
        secret: None,
    };
    ledger.report(&report(attempt, "0.1")).unwrap();
    let refused = |error: Option<LedgerError>| assert!(matches!(error, Some(LedgerError::Refused(_))), "{error:?}");
    refused(ledger.report(&report(Uuid::now_v7(), "0.1")).err());
    refused(ledger.finish(&finish(Uuid::now_v7(), &lease, "0.1")).err());
    refused(ledger.read(&Query::Account { user: "bob".into() }).err());
    refused(ledger.read(&Query::Verify).err());
    let by = || "w".to_owned();
    let foreign = Change::ChargeTokens { job: "another".into(), count: 1, by: by(), key: "k".into() };
    refused(ledger.change(&foreign).err());
    let grant = serde_json::json!({"grant": {"user": "ann", "amount": 1, "expires_at": null, "by": "w", "why": "w", "key": "g"}});
    refused(ledger.change(&serde_json::from_value(grant).unwrap()).err());
    ledger.read(&Query::Account { user: "ann".into() }).unwrap();
    ledger.change(&Change::ChargeTokens { job: "pod".into(), count: 10, by: by(), key: "k".into() }).unwrap();
    ledger.finish(&finish(attempt, &lease, "0.25")).unwrap();
    let job = station.json(&["jobs", "show", "pod"]);
    let identity = &job["attempts"][0]["identity"];
    assert_eq!(
        (job["user"].as_str(), job["kind"].as_str(), job["name"].as_str()),
        (Some("ann"), Some("training"), Some("x"))
    );
    assert_eq!((identity["task"].as_str(), micros(&job["virtual"]["cpu_seconds"])), (Some("0"), 250_000));
    // It has ended: the next container of the pod begins anew.
    let _next = begun(&relay.socket);
    drop(ledger);
    assert_eq!(relay.ends(), 0);
    station.verify();
}

#[test]
fn nobody_else_is_believed() {
    let station = Station::new();
    let relay = Relay::start(&station);
    let session = begun(&relay.socket);
    let mut ledger = RelayLedger::resume(&relay.socket, &session).unwrap();
    let (attempt, lease) = opened(&mut ledger);
    let second = begin(&relay.socket).unwrap_err();
    assert!(second.to_string().contains("a session already"), "{second}");
    for wrong in [
        Session { hash: "0".repeat(64), ..session.clone() },
        Session { id: Uuid::now_v7(), ..session.clone() },
        Session { id: Uuid::nil(), hash: String::new() },
    ] {
        assert!(RelayLedger::resume(&relay.socket, &wrong).is_err(), "{wrong:?}");
    }
    let long = vec![b'x'; 2 * 1024 * 1024];
    let deep = "[".repeat(100_000);
    let finishes =
        format!("{{\"ask\":{{\"finish\":{}}}}}\n", serde_json::to_string(&finish(attempt, &lease, "0")).unwrap());
    for garbage in [
        b"\n".as_slice(),
        b"{}\n",
        b"\xff\xff\n",
        b"{\"prove\":{\"proof\":\"\"}}\n",
        deep.as_bytes(),
        &long,
        finishes.as_bytes(),
    ] {
        let mut line = UnixStream::connect(&relay.socket).unwrap();
        line.set_read_timeout(Some(SOON)).unwrap();
        line.write_all(garbage).ok();
        let mut told = String::new();
        line.read_to_string(&mut told).ok();
        assert!(!told.contains("welcome") && !told.contains("told"), "{told}");
    }
    // Those that say nothing are sent away, and keep nobody out for longer.
    let _idle: Vec<_> = (0..40).map(|_| UnixStream::connect(&relay.socket)).collect();
    awaited(|| RelayLedger::resume(&relay.socket, &session).map_err(|error| error.to_string()));
    // The real one was not disturbed.
    ledger.finish(&finish(attempt, &lease, "0.5")).unwrap();
    assert_eq!(micros(&station.json(&["jobs", "show", "pod"])["virtual"]["cpu_seconds"]), 500_000);
    station.verify();
}

/// Whoever reaches the ledger ends nothing; the relay does, also one that goes on for it, and one that settles.
#[test]
fn the_attempt_of_a_session_is_its_relays() {
    let station = Station::new();
    let relay = Relay::start(&station);
    let session = begun(&relay.socket);
    let mut ledger = RelayLedger::resume(&relay.socket, &session).unwrap();
    let (attempt, lease) = opened(&mut ledger);
    let ends_nothing = |secret| {
        let mut books = station.path("ledger.db").to_str().unwrap().parse::<Location>().unwrap().connect().unwrap();
        let told = books.finish(&Finish { secret, ..finish(attempt, &lease, "0") });
        assert!(matches!(told, Err(LedgerError::Foreign)), "{told:?}");
    };
    // What a wrapper makes up for itself does not reach the ledger.
    let own = Some(AttemptSecret::new());
    ends_nothing(own);
    ends_nothing(None);
    ledger.keep(&Kept { attempt, usage: usage("0.2"), period: lease.period, closed: None }).unwrap();
    drop(relay);
    let relay = Relay::start(&station);
    let mut ledger = RelayLedger::resume(&relay.socket, &session).unwrap();
    ends_nothing(None);
    ledger.finish(&Finish { secret: own, ..finish(attempt, &lease, "0.3") }).unwrap();
    assert_eq!(micros(&station.json(&["jobs", "show", "pod"])["virtual"]["cpu_seconds"]), 300_000);
    drop(ledger);
    assert_eq!(relay.ends(), 0);
    station.verify();
}

#[test]
fn what_a_lost_wrapper_had_burned_is_charged() {
    let station = Station::new();
    let relay = Relay::start(&station);
    let session = begun(&relay.socket);
    let mut ledger = RelayLedger::resume(&relay.socket, &session).unwrap();
    let (attempt, lease) = opened(&mut ledger);
    let kept = |burned: &str| Kept { attempt, usage: usage(burned), period: lease.period, closed: None };
    ledger.keep(&kept("0.2")).unwrap();
    // The relay is killed; the next one knows the session.
    drop(relay);
    let relay = Relay::start(&station);
    assert!(ledger.keep(&kept("0.3")).is_err());
    let mut ledger = RelayLedger::resume(&relay.socket, &session).unwrap();
    ledger.keep(&kept("0.4")).unwrap();
    // Now the wrapper is.
    drop(ledger);
    let job = awaited(|| match station.json(&["jobs", "show", "pod"]) {
        job if job["state"] == "ended" => Ok(job),
        job => Err(job.to_string()),
    });
    assert_eq!(job["attempts"][0]["reason"], "meter_lost");
    assert_eq!(micros(&job["virtual"]["cpu_seconds"]), 400_000);
    // Its session is over, and the next one begins.
    let next = begun(&relay.socket);
    let mut ledger = RelayLedger::resume(&relay.socket, &next).unwrap();
    let (attempt, lease) = opened(&mut ledger);
    ledger.keep(&Kept { attempt, usage: usage("0.1"), period: lease.period, closed: None }).unwrap();
    drop(ledger);
    // At its own end the relay waits for nobody who is gone.
    assert_eq!(relay.ends(), 0);
    let job = station.json(&["jobs", "show", "pod"]);
    assert_eq!((job["state"].as_str(), micros(&job["virtual"]["cpu_seconds"])), (Some("ended"), 500_000));
    station.verify();
}

/// The relay keeps the question at the ledger, and the wrapper is answered at once.
#[test]
fn a_wrapper_is_told_of_a_stop_by_its_relay() {
    let station = Station::new();
    let relay = Relay::start(&station);
    let session = begun(&relay.socket);
    let mut ledger = RelayLedger::resume(&relay.socket, &session).unwrap();
    opened(&mut ledger);
    let of_job = |id: &str| Query::Stopped { job: id.into(), first: None };
    let asked = of_job("pod");
    assert_eq!(ledger.read(&asked).unwrap(), View::Stopped(false));
    let others = ledger.read(&of_job("another"));
    assert!(matches!(others, Err(LedgerError::Refused(_))), "{others:?}");
    station.ok(&["jobs", "stop", "pod", "--why", "test"]);
    awaited(|| match ledger.read(&asked).unwrap() {
        View::Stopped(true) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
