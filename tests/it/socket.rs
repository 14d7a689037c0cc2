//! The job's socket: what is left, and tokens, for the processes of the job alone.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use serde_json::Value;

use crate::station::{SOON, Station, ended, line_of, nano, within};

/// Asks line by line, as the README shows it.
const PYTHON: &str = r#"
import json, os, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect(os.environ["JOBMETER_SOCKET"])
answers = line.makefile()
def ask(*words):
    line.sendall((" ".join(map(str, words)) + "\n").encode())
    return json.loads(answers.readline())
"#;

fn asked(station: &Station, options: &[&str], script: &str) -> Vec<Value> {
    let script = format!("{PYTHON}{script}");
    let mut all = vec!["run", "-q", "--job", "chat"];
    all.extend(options);
    all.extend(["--", "python3", "-c", &script]);
    let called = station.call(&all);
    assert_eq!(called.status, 0, "{called:?}");
    called.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

#[test]
fn a_job_asks_what_is_left_and_charges_tokens() {
    for source in [&[][..], &["--cpu-source", "procfs"]] {
        let station = Station::new();
        let script = r#"
for words in [("left",), ("charge", 1000, "t1"), ("charge", 1000, "t1"), ("reserve", 10000, 60)]:
    answer = ask(*words)
    print(json.dumps(answer))
print(json.dumps(ask("settle", answer["reservation"], 400)))
for words in [("reserve", 10**9), ("charge", "x"), ("settle", answer["reservation"], 400), ("nonsense",)]:
    print(json.dumps(ask(*words)))
"#;
        let told = asked(&station, source, script);
        let (left, charged, again, reserved, settled) = (&told[0], &told[1], &told[2], &told[3], &told[4]);
        assert!(nano(&left["left"]) > 4_999_000_000 && nano(&left["limit"]) == 5_000_000_000, "{left}");
        assert_eq!((nano(&charged["charged"]), &charged["again"]), (5_000_000, &Value::Bool(false)));
        assert_eq!((nano(&again["charged"]), &again["again"]), (5_000_000, &Value::Bool(true)));
        assert_eq!(nano(&reserved["held"]), 50_000_000);
        assert_eq!(nano(&settled["charged"]), 2_000_000);
        assert_eq!(told[5]["refused"], "credits_exhausted");
        for wrong in &told[6..9] {
            assert!(wrong["error"].is_string(), "{wrong}");
        }
        let job = station.json(&["jobs", "show", "chat"]);
        assert_eq!((&job["tokens"], nano(&job["charged"]["tokens"])), (&Value::from(1_400), 7_000_000));
        station.verify();
    }
}

/// A line of several questions, one that never ends, and one that is no text: the job is metered to its end.
#[test]
fn whatever_a_job_says_the_meter_goes_on() {
    let station = Station::new();
    let script = r#"
line.sendall(b"left\nleft\ncha")
print(answers.readline().strip()); print(answers.readline().strip())
line.sendall(b"rge 1 k\n\xff\xfe\x00\n")
print(answers.readline().strip()); print(answers.readline().strip())
other = socket.socket(socket.AF_UNIX)
other.connect(os.environ["JOBMETER_SOCKET"])
other.sendall(b"x" * 5000)
print(other.makefile().readline().strip())
many = [socket.socket(socket.AF_UNIX) for _ in range(100)]
for one in many:
    one.setblocking(False)
    try: one.connect(os.environ["JOBMETER_SOCKET"])
    except OSError: pass
print(json.dumps(ask("left")))
"#;
    let told = asked(&station, &[], script);
    assert_eq!(told.len(), 6);
    assert!(told[0]["left"].is_number() && told[2]["charged"].is_number() && told[5]["left"].is_number());
    assert!(told[3]["error"].is_string() && told[4]["error"].is_string());
}

#[test]
fn nobody_else_is_answered_and_the_socket_goes_with_the_job() {
    let station = Station::new();
    let line = "echo $JOBMETER_SOCKET; while [ ! -e $DIR/go ]; do sleep 0.01; done; exec $JOBMETER run -q -- sh -c \
                'echo $JOBMETER_SOCKET'";
    let mut child = station.command(&["run", "-q", "--", "bash", "-c", line]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let path = line_of(&mut out);
    let mut stranger = UnixStream::connect(&path).unwrap();
    stranger.set_read_timeout(Some(SOON)).unwrap();
    stranger.write_all(b"left\n").ok();
    let mut answer = String::new();
    stranger.read_to_string(&mut answer).ok();
    assert!(answer.contains("only processes of the job"), "{answer}");
    std::fs::write(station.path("go"), "").unwrap();
    let inner = line_of(&mut out);
    assert!(inner.ends_with(".sock") && inner != path, "an inner job has its own: {inner}");
    assert!(ended(&mut child).success());
    assert!(within(SOON, || !std::path::Path::new(&path).exists()), "{path} is left");
    assert!(!std::path::Path::new(&inner).exists());
}
