//! What is said over unix sockets and pipes: to a job about its account, to a wrapper by a relay, and by the helper for GPUs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};

use jobmeter::domain::usage::Usage;
use jobmeter::ledger::protocol::{AttemptIdentity, Finish, JobKind, OpenAnswer, OpenRequest, Reason, Resources};
use jobmeter::ledger::relay::{RelayLedger, Session, begin};
use jobmeter::ledger::views::{Change, Query};
use jobmeter::ledger::{Ledger, LedgerError};
use uuid::Uuid;

use crate::kept::keep;
use crate::machine::Machine;
use crate::placeholders::{OF_CLOCK, Placeholders};
use crate::station::{ended, line_of, within};

/// Asks what stands on each line of standard input; `RESERVATION` is the last one that was made.
const ASKING: &str = r#"
import json, os, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect(os.environ["JOBMETER_SOCKET"])
answers, reserved = line.makefile(), ""
for ask in sys.stdin:
    line.sendall(ask.replace("RESERVATION", reserved).encode())
    answer = answers.readline()
    reserved = json.loads(answer).get("reservation", reserved)
    print("> " + ask + answer, end="")
"#;

/// Each question, and its answer.
fn asked(machine: &Machine, questions: &[&str]) -> String {
    machine.write("ask.py", ASKING);
    let mut command = machine.command("jobmeter run -q --cpu-source procfs --job chat -- python3 $DIR/ask.py");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = child.stdin.take().expect("piped");
    questions.iter().for_each(|question| writeln!(lines, "{question}").expect("a line"));
    drop(lines);
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// JSON of one line, its keys in order.
fn plain_answers(known: &Placeholders, text: &str) -> String {
    let line = |line: &str| match serde_json::from_str::<serde_json::Value>(line) {
        Ok(answer) => known.in_json(&answer, OF_CLOCK),
        Err(_) => line.to_owned(),
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn a_job_asks_about_its_account() {
    let machine = Machine::new();
    // What it burns would differ from run to run.
    machine.ok("jobmeter rates set --cpu-per-second 0");
    let long = format!("charge 1 {}", "k".repeat(257));
    let told = asked(
        &machine,
        &[
            "left",
            "charge 1000 t1",
            "charge 1000 t1",
            "charge 2000 t1",
            "charge many",
            "charge",
            "charge -1",
            &long,
            "reserve 10000 60 r1",
            "settle RESERVATION 400 s1",
            "settle RESERVATION 500 s2",
            "reserve 1000000000",
            "reserve 10 0",
            "reserve 10 soon",
            "settle x 5",
            "settle 00000000-0000-7000-8000-000000000001 5",
            "nonsense",
            "",
        ],
    );
    let told = told.replace(&"k".repeat(257), "k*257");
    keep("job-socket", &machine.known.in_text(&plain_answers(&machine.known, &told)));
}

/// Who is not of the job, and who says too much at once.
#[test]
fn a_stranger_is_not_answered() {
    let machine = Machine::new();
    let line = "jobmeter run -q --cpu-source procfs --job chat -- sh -c 'echo $JOBMETER_SOCKET; read word'";
    let mut child = machine.command(line).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let path = line_of(child.stdout.as_mut().expect("piped"));
    let mut stranger = UnixStream::connect(path).expect("a connection");
    stranger.write_all(b"left\n").ok();
    let mut answer = String::new();
    stranger.read_to_string(&mut answer).ok();
    drop(child.stdin.take());
    ended(&mut child);
    keep("job-socket-stranger", &answer);
}

/// A relay that runs until this is dropped.
struct Relay(Child);

impl Relay {
    fn start(machine: &Machine) -> Self {
        let line = "jobmeter relay --job pod --name x --socket $DIR/relay.sock";
        let child = machine.command(line).stderr(Stdio::null()).spawn().expect("it starts");
        let socket = machine.station.path("relay.sock");
        assert!(within(crate::station::SOON, || UnixStream::connect(&socket).is_ok()), "it does not listen");
        Self(child)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What comes back for a line: an answer, or the end of the connection.
fn said(socket: &Path, line: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("a connection");
    writeln!(stream, "{line}").expect("a line");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).ok();
    let answer = if answer.is_empty() { "(it closes the connection)\n" } else { &answer };
    format!("> {line}\n{answer}")
}

#[test]
fn a_relay_tells_who_it_does_not_believe() {
    let machine = Machine::new();
    let _relay = Relay::start(&machine);
    let socket = machine.station.path("relay.sock");
    let mut text: String = [
        "these are some words",
        "{}",
        r#"{"prove":{"proof":""}}"#,
        r#"{"begin":{"version":99,"nonce":"n","secret":"jm_00_11"}}"#,
        r#"{"begin":{"version":1,"nonce":"n","secret":"words"}}"#,
        r#"{"resume":{"version":1,"nonce":"n","session":"00000000-0000-7000-8000-000000000001"}}"#,
        r#"{"begin":{"version":1,"nonce":"n","secret":"jm_00_11"}}"#,
    ]
    .map(|line| said(&socket, line))
    .concat();
    let wrong = Session { id: Uuid::nil(), hash: String::new() };
    let told = |error: LedgerError| format!("{error}\n");
    text.push_str("as a wrapper that does not know the session:\n");
    text.extend(RelayLedger::resume(&socket, &wrong).err().map(told));
    text.push_str("where no relay is:\n");
    text.extend(begin(&machine.station.path("none.sock")).err().map(told));
    keep("relay-strangers", &machine.known.in_text(&text));
}

/// What a wrapper may not ask for.
#[test]
fn a_relay_tells_a_wrapper_what_it_may_not() {
    let machine = Machine::new();
    let _relay = Relay::start(&machine);
    let socket = machine.station.path("relay.sock");
    let (session, _) = begin(&socket).expect("a session");
    let mut ledger = RelayLedger::resume(&socket, &session).expect("a ledger");
    let mut text = String::new();
    let mut tell = |what: &str, error: Option<LedgerError>| {
        text.push_str(&format!("{what}: {}\n", error.map_or("(no error)".to_owned(), |error| error.to_string())));
    };
    tell("the end of what never began", ledger.finish(&finish(Uuid::nil(), 0)).err());
    let (attempt, period) = opened(&mut ledger);
    tell("a second wrapper", begin(&socket).err());
    tell("another attempt", ledger.finish(&finish(Uuid::nil(), period)).err());
    tell("another account", ledger.read(&Query::Account { user: "bob".to_owned() }).err());
    tell("an audit", ledger.read(&Query::Verify).err());
    let foreign = Change::ChargeTokens { job: "another".into(), count: 1, by: "w".to_owned(), key: "k".to_owned() };
    tell("tokens of another job", ledger.change(&foreign).err());
    tell("a change of the rates", ledger.change(&Change::RevokeKey { id: "x".to_owned(), by: "w".to_owned() }).err());
    tell("its own end", ledger.finish(&finish(attempt, period)).err());
    tell("the end again", ledger.finish(&finish(attempt, period)).err());
    drop(ledger);
    keep("relay-wrapper", &machine.known.in_text(&text));
}

fn opened(ledger: &mut RelayLedger) -> (Uuid, i64) {
    let identity = AttemptIdentity {
        attempt: Uuid::now_v7(),
        job: "pod".to_owned(),
        task: "0".to_owned(),
        user: "ann".to_owned(),
        kind: JobKind::Training,
        name: None,
        labels: BTreeMap::new(),
        command: Vec::new(),
        host: "h".to_owned(),
    };
    let attempt = identity.attempt;
    let resources = Resources { cpus_ppm: 1_000_000, gpus: 0, gpu_models: BTreeMap::new(), stop_us: 6_000 };
    match ledger.open(&OpenRequest { identity, resources, limit: None, resume: None, secret: None }).expect("an answer")
    {
        OpenAnswer::Opened { lease, .. } => (attempt, lease.period),
        other => panic!("{other:?}"),
    }
}

fn finish(attempt: Uuid, period: i64) -> Finish {
    let receipt = jobmeter::ledger::receipt_text::ReceiptText::of(&serde_json::json!({}));
    Finish { attempt, usage: Usage::default(), period, closed: None, reason: Reason::Completed, receipt, secret: None }
}

/// One JSON document a line.
#[test]
fn a_relay_logs_what_it_does() {
    let machine = Machine::new();
    let line = "jobmeter relay --job pod --socket $DIR/relay.sock";
    let child = machine.command(line).stderr(Stdio::piped()).spawn().expect("it starts");
    let socket = machine.station.path("relay.sock");
    assert!(within(crate::station::SOON, || UnixStream::connect(&socket).is_ok()), "it does not listen");
    said(&socket, r#"{"begin":{"version":1,"nonce":"n","secret":"words"}}"#);
    said(&socket, r#"{"begin":{"version":1,"nonce":"n","secret":"jm_00_11"}}"#);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal");
    let output = child.wait_with_output().expect("an end");
    let log = String::from_utf8(output.stderr).expect("UTF-8");
    keep("log-relay", &plain_answers(&machine.known, &log));
}

/// Its library is not there; and it is asked what it does not understand.
#[test]
fn the_helper_for_gpus_says_what_it_cannot() {
    let machine = Machine::new();
    let mut command = machine.command("jobmeter-nvml $DIR/libnvidia-ml.so.1");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = child.stdin.take().expect("piped");
    lines.write_all(b"these are some words\n{}\n\"list\"\n").expect("lines");
    drop(lines);
    let output = child.wait_with_output().expect("an end");
    keep("nvml-helper", &machine.known.in_text(&String::from_utf8_lossy(&output.stdout)));
}
