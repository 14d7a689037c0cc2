//! A relay's state, and what a wrapper and its relay say to each other.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use jobmeter::ledger::keys::Secret;
use jobmeter::ledger::protocol::{Finish, OpenAnswer, OpenRequest, Report};
use jobmeter::ledger::relay::{End, Kept, RelayLedger, Session, begin};
use jobmeter::ledger::views::{Change, Query};
use jobmeter::ledger::{Ledger, LedgerError};
use serde_json::{Value, json};

use crate::fixture::{LEDGER, assert_same, assert_verified, json_in, versions};
use crate::station::{SOON, Station, micros, nano, within};

/// Today's relay, of the same pod.
struct Relay {
    child: Child,
    socket: PathBuf,
}

impl Relay {
    fn start(station: &Station, lost_after: &str) -> Self {
        let (socket, state) = (station.path("relay.sock"), station.path("state"));
        let place =
            ["--user", "ann", "--spool-dir", state.to_str().unwrap(), "relay", "--socket", socket.to_str().unwrap()];
        let pod =
            ["--job", "pod-1", "--task", "2", "--name", "a pod", "--kind", "generation", "--lost-after", lost_after];
        let mut command = station.command(&[&place[..], &pod].concat());
        command.current_dir(station.directory.path()).env("JOBMETER_LEDGER", LEDGER).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        assert!(within(SOON, || UnixStream::connect(&socket).is_ok()), "no relay listens");
        Self { child, socket }
    }

    fn ends(mut self) -> i32 {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn what_a_lost_wrapper_had_burned_is_settled_as_it_was_kept() {
    for version in versions() {
        let station = version.copied("relay");
        let relay = Relay::start(&station, "100ms");
        let is_ended = || json_in(&station, &["jobs", "show", "pod-1"])["state"] == "ended";
        assert!(within(SOON, is_ended), "{}: it is not settled", version.name);
        assert_eq!(relay.ends(), 0, "{}", version.name);
        for asked in version.answers("relay/answers.jsonl") {
            let arguments: Vec<&str> = asked.arguments.iter().map(String::as_str).collect();
            let told = json_in(&station, &arguments);
            assert_same(&asked.answer, &told, &["endedAt", "afterMs", "balance"], &version.name);
        }
    }
}

/// The wrapper outlives its relay: it proves that it knows the session's secret, and goes on.
#[test]
fn a_wrapper_goes_on_with_its_session() {
    for version in versions() {
        let kept = version.json("relay/state/session.json");
        let text = |name: &str| kept[name].as_str().unwrap().to_owned();
        let (id, attempt) = (text("session").parse().unwrap(), text("attempt").parse().unwrap());
        let station = version.copied("relay");
        let relay = Relay::start(&station, "1h");
        let mut ledger = RelayLedger::resume(&relay.socket, &Session { id, hash: text("hash") }).unwrap();
        let shown = json_in(&station, &["jobs", "show", "pod-1"]);
        let burned = micros(&version.answers("relay/answers.jsonl")[0].answer["virtual"]["cpu_seconds"]);
        let usage = serde_json::from_value(json!({ "cpu_used_seconds": 1.5, "cpu_allocated_seconds": 4 })).unwrap();
        assert!(burned < 1_500_000, "{} {shown}", version.name);
        // The period in which it was opened pays.
        let started: jiff::Timestamp = shown["startedAt"].as_str().unwrap().parse().unwrap();
        let period = started.as_second().div_euclid(86_400) * 86_400;
        let finish = Finish {
            attempt,
            usage,
            period,
            closed: None,
            reason: jobmeter::ledger::protocol::Reason::Completed,
            receipt: jobmeter::ledger::receipt_text::ReceiptText::of(&json!({})),
            secret: None,
        };
        ledger.finish(&finish).unwrap();
        let ended = json_in(&station, &["jobs", "show", "pod-1"]);
        assert_eq!(ended["attempts"][0]["reason"], "completed", "{} {ended}", version.name);
        assert_eq!(nano(&ended["charged"]["total"]), 375_000, "{} {ended}", version.name);
        assert_verified(&station, &version.name);
        drop(ledger);
        assert_eq!(relay.ends(), 0, "{}", version.name);
    }
}

/// What was said on each connection, in order.
fn conversations(lines: &[Value]) -> Vec<Vec<(String, Value)>> {
    let mut found: BTreeMap<u64, Vec<(String, Value)>> = BTreeMap::new();
    for line in lines {
        let who = line["from"].as_str().unwrap().to_owned();
        found.entry(line["connection"].as_u64().unwrap()).or_default().push((who, line["message"].clone()));
    }
    found.into_values().collect()
}

/// One end of a connection, which says and hears documents.
struct Line(BufReader<UnixStream>);

impl Line {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self(BufReader::new(stream))
    }

    fn say(&mut self, message: &Value) {
        self.0.get_mut().write_all(format!("{message}\n").as_bytes()).unwrap();
    }

    fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        (self.0.read_line(&mut line).ok()? > 0).then(|| serde_json::from_str(&line).unwrap())
    }
}

/// A session that was begun with the words of an earlier wrapper.
fn begun(socket: &Path, first: &Value) -> (Session, Value) {
    let mut line = Line::new(UnixStream::connect(socket).unwrap());
    line.say(first);
    let told = line.hear().unwrap();
    let id = told["welcome"]["session"].as_str().unwrap_or_else(|| panic!("{told}")).parse().unwrap();
    let secret: Secret = first["begin"]["secret"].as_str().unwrap().parse().unwrap();
    (Session { id, hash: secret.hash() }, told)
}

/// Goes on with it as an earlier wrapper did: but for the session's id and the proof, in the words of that one.
fn resumed(socket: &Path, session: &Session, first: &Value) -> Line {
    let mut line = Line::new(UnixStream::connect(socket).unwrap());
    let mut hello = first.clone();
    hello["resume"]["session"] = json!(session.id);
    line.say(&hello);
    let challenge = line.hear().unwrap();
    let own = hello["resume"]["nonce"].as_str().unwrap();
    let theirs = challenge["challenge"]["nonce"].as_str().unwrap_or_else(|| panic!("{challenge}"));
    assert!(
        session.believes(challenge["challenge"]["proof"].as_str().unwrap(), End::Relay, theirs, own),
        "{challenge}"
    );
    line.say(&json!({ "prove": { "proof": session.proof(End::Wrapper, theirs, own) } }));
    let welcome = line.hear().unwrap();
    assert!(welcome["welcome"].is_object(), "{welcome}");
    line
}

/// What depends on when it is asked, or on how busy the machine is.
const OF_NOW: [&str; 14] = [
    "session",
    "nonce",
    "proof",
    "period",
    "periodStart",
    "periodEnd",
    "resetsInMs",
    "ceiling",
    "lasts_ms",
    "report_in_ms",
    "burn_per_second",
    "burnPerSecond",
    "available",
    "held",
];

/// A day other than that of the record pays: its start takes the place of the recorded one.
fn on_day(message: &mut Value, period: &Value) {
    match message {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, field)| match name.as_str() {
            "period" if field.is_number() => *field = period.clone(),
            _ => on_day(field, period),
        }),
        Value::Array(items) => items.iter_mut().for_each(|item| on_day(item, period)),
        _ => {}
    }
}

#[test]
fn an_old_wrapper_is_served() {
    for version in versions() {
        let talks = conversations(&version.lines("wire/relay.jsonl"));
        let station = Station::new();
        let relay = Relay::start(&station, "1h");
        let (session, welcome) = begun(&relay.socket, &talks[0][0].1);
        assert_same(&talks[0][1].1, &welcome, &OF_NOW, &version.name);
        let mut lines: Vec<Line> = talks[1..].iter().map(|talk| resumed(&relay.socket, &session, &talk[0].1)).collect();
        let mut period = Value::Null;
        // In the order in which it was said, over all connections.
        let (mut asked, mut count) = (None, 0);
        for line in version.lines("wire/relay.jsonl") {
            let message = &line["message"];
            if message["ask"].is_object() {
                let mut ask = message.clone();
                on_day(&mut ask, &period);
                let at = usize::try_from(line["connection"].as_u64().unwrap()).unwrap() - 1;
                lines[at].say(&ask);
                asked = Some((lines[at].hear().unwrap_or_else(|| panic!("{}: no answer to {ask}", version.name)), ask));
            } else if let (Some(told), Some((answer, ask))) = (message.get("told"), asked.take()) {
                let opened = &answer["told"]["opened"]["opened"]["lease"]["period"];
                period = if opened.is_number() { opened.clone() } else { period };
                assert_same(told, &answer["told"], &OF_NOW, &format!("{} {ask}", version.name));
                count += 1;
            }
        }
        assert!(count >= 5, "{}: {count} questions", version.name);
        let job = json_in(&station, &["jobs", "show", "pod-1"]);
        assert_eq!((job["state"].as_str(), job["tokens"].as_u64()), (Some("ended"), Some(1_200)), "{job}");
        assert_verified(&station, &version.name);
        drop(lines);
        assert_eq!(relay.ends(), 0, "{}", version.name);
    }
}

/// A relay that plays the answers of an earlier one, whatever it is asked; the proofs alone are its own.
fn played(socket: &Path, talks: Vec<Vec<(String, Value)>>) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let mut secret = String::new();
        for talk in talks {
            let Ok((stream, _)) = listener.accept() else { return };
            let mut line = Line::new(stream);
            let mut answers = talk.into_iter().filter(|(who, _)| who == "relay").map(|(_, message)| message);
            while let Some(heard) = line.hear() {
                if let Some(text) = heard["begin"]["secret"].as_str() {
                    secret = text.to_owned();
                }
                let Some(mut answer) = answers.next() else { return };
                if answer["challenge"].is_object() {
                    let id = heard["resume"]["session"].as_str().unwrap().parse().unwrap();
                    let session = Session { id, hash: secret.parse::<Secret>().unwrap().hash() };
                    let own = answer["challenge"]["nonce"].as_str().unwrap().to_owned();
                    let proof = session.proof(End::Relay, &own, heard["resume"]["nonce"].as_str().unwrap());
                    answer["challenge"]["proof"] = json!(proof);
                }
                line.say(&answer);
            }
        }
    });
}

fn ask_again(ledger: &mut RelayLedger, ask: &Value) -> Result<Value, LedgerError> {
    let of = |name: &str| ask.get(name).cloned();
    Ok(if let Some(request) = of("open") {
        let answer = ledger.open(&serde_json::from_value::<OpenRequest>(request).unwrap())?;
        assert!(matches!(answer, OpenAnswer::Opened { .. }), "{answer:?}");
        json!({ "opened": answer })
    } else if let Some(report) = of("report") {
        json!({ "reported": ledger.report(&serde_json::from_value::<Report>(report).unwrap())? })
    } else if let Some(finish) = of("finish") {
        json!({ "finished": ledger.finish(&serde_json::from_value::<Finish>(finish).unwrap())? })
    } else if let Some(kept) = of("keep") {
        ledger.keep(&serde_json::from_value::<Kept>(kept).unwrap())?;
        json!("kept")
    } else if let Some(change) = of("change") {
        json!({ "changed": ledger.change(&serde_json::from_value::<Change>(change).unwrap())? })
    } else {
        json!({ "read": ledger.read(&serde_json::from_value::<Query>(ask["read"].clone()).unwrap())? })
    })
}

#[test]
fn an_old_relay_is_understood() {
    for version in versions() {
        let talks = conversations(&version.lines("wire/relay.jsonl"));
        let station = Station::new();
        let socket = station.path("relay.sock");
        played(&socket, talks.clone());
        let (session, welcome) = begin(&socket).unwrap();
        assert_same(&talks[0][1].1["welcome"], &json!(welcome), &[], &version.name);
        for talk in &talks[1..] {
            let mut ledger = RelayLedger::resume(&socket, &session).unwrap();
            let said = |who: &str| -> Vec<Value> {
                talk.iter().filter(|(speaker, _)| speaker == who).map(|(_, message)| message.clone()).collect()
            };
            let (asks, answers) = (said("wrapper"), said("relay"));
            for (ask, told) in asks.iter().zip(&answers).filter(|(ask, _)| ask["ask"].is_object()) {
                let read = ask_again(&mut ledger, &ask["ask"]).unwrap_or_else(|error| panic!("{ask}: {error}"));
                assert_same(&told["told"], &read, &[], &format!("{} {ask}", version.name));
            }
        }
    }
}

#[test]
fn a_wrapper_of_another_protocol_is_told_so() {
    let station = Station::new();
    let relay = Relay::start(&station, "1h");
    let mut line = Line::new(UnixStream::connect(&relay.socket).unwrap());
    let secret = Secret::new();
    line.say(&json!({ "begin": { "version": 2, "nonce": "n", "secret": secret.text() } }));
    let told = line.hear().unwrap();
    let why = told["refused"]["why"].as_str().unwrap_or_else(|| panic!("{told}"));
    assert!(why.contains("use a wrapper of the same jobmeter") && !why.contains(". "), "{why}");
    drop(line);
    assert_eq!(relay.ends(), 0);
}
