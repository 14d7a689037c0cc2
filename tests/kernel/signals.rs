//! Signals as without jobmeter: a command under it beside the same command alone.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::MutexGuard;

use jobmeter::sys::poll::readable;
use jobmeter::sys::signals::{send, send_to_group};
use nix::unistd::Pid;

use crate::station::{Called, SOON, Station, awaited, ended, line_of};
use crate::{alone, v2};

/// Sent last, so that everything before it has come.
const LAST: i32 = 64;

/// All that a process may get, but for what ends or stops it without asking, what tells of children, and the last one.
fn numbers() -> impl Iterator<Item = i32> {
    (1..LAST).filter(|number| ![libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD].contains(number))
}

struct Scene {
    station: Station,
    program: PathBuf,
    _one: MutexGuard<'static, ()>,
}

impl Scene {
    /// `None` where no group can be made.
    fn here() -> Option<Self> {
        v2()?;
        let one = alone();
        let station = Station::new();
        let program = station.path("signals");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/signals.c");
        let compiled = Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(source).status().expect("a C compiler");
        assert!(compiled.success());
        Some(Self { station, program, _one: one })
    }

    /// Alone, and under jobmeter.
    fn both(&self, arguments: &[&str]) -> [(&'static str, Command); 2] {
        self.both_by(&[], arguments)
    }

    /// Started by the helper with these words before it.
    fn both_by(&self, helper: &[&str], arguments: &[&str]) -> [(&'static str, Command); 2] {
        let program = self.program.to_str().expect("a path");
        let meter: &[&str] = &[env!("CARGO_BIN_EXE_jobmeter"), "run", "--quiet", "--"];
        let by: &[&str] = if helper.is_empty() { &[] } else { &[program] };
        [("alone", &[][..]), ("metered", meter)].map(|(kind, meter)| {
            let words = [by, helper, meter, &[program], arguments].concat();
            let mut command = self.station.program(words[0]);
            command.args(&words[1..]);
            (kind, command)
        })
    }
}

/// One that runs, a group of its own, and what it prints.
struct Counted {
    child: Child,
    pid: Pid,
    lines: BufReader<ChildStdout>,
}

impl Counted {
    fn start(mut command: Command) -> Self {
        let mut child = command.process_group(0).stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        Self { child, pid, lines }
    }

    fn ready(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        let mut counted = Self::start(command);
        assert_eq!(counted.line(), "ready");
        counted
    }

    /// The helper's child is who leads the session.
    fn on_terminal(mut command: Command) -> Self {
        command.stdin(Stdio::piped());
        let mut counted = Self::start(command);
        counted.pid = Pid::from_raw(counted.line().parse().expect("a pid"));
        assert_eq!(counted.line(), "ready");
        counted
    }

    fn type_in(&mut self, keys: &[u8]) {
        self.child.stdin.as_mut().expect("a pipe").write_all(keys).expect("keys");
    }

    fn line(&mut self) -> String {
        if self.lines.buffer().is_empty() {
            let came = readable([self.lines.get_ref().as_fd()], Some(SOON));
            assert!(came[0], "after {SOON:?} no line");
        }
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    fn send(&self, number: i32) {
        send(self.pid, number).expect("it lives");
    }

    fn send_to_group(&self, number: i32) {
        send_to_group(self.pid, number).expect("it lives");
    }

    /// What has come until the last one, in the order of the numbers.
    fn ended(mut self) -> Vec<String> {
        self.send(LAST);
        drop(self.child.stdin.take());
        let mut got: Vec<String> = std::iter::from_fn(|| Some(self.line()).filter(|line| !line.is_empty())).collect();
        assert!(self.child.wait().expect("an end").success());
        got.sort_by_key(|line| line.split('=').next().and_then(|number| number.parse::<i32>().ok()));
        got
    }
}

#[test]
fn each_signal_reaches_the_command_once() {
    let Some(scene) = Scene::here() else { return };
    for to_group in [false, true] {
        for (kind, command) in scene.both(&["count"]) {
            let mut counted = Counted::ready(command);
            let witness = (kind == "metered").then(|| child(child(counted.pid, "jobmeter"), "signal-witness"));
            // One after the other: a stop signal takes back a SIGCONT that was not seen yet.
            for number in numbers() {
                if to_group {
                    counted.send_to_group(number)
                } else {
                    counted.send(number)
                }
                assert_eq!(counted.line(), number.to_string(), "{kind}, to the group: {to_group}");
                if let Some(witness) = witness {
                    await_nothing_pending(witness);
                }
            }
            assert_eq!(counted.ended(), Vec::<String>::new(), "{kind}, to the group: {to_group}");
        }
    }
    scene.station.verify();
}

fn child(parent: Pid, name: &str) -> Pid {
    let is_it = |pid: &Pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    awaited(|| {
        let text = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let text = text.map_err(|error| error.to_string())?;
        let mut pids = text.split_whitespace().map(|pid| Pid::from_raw(pid.parse().expect("a pid")));
        pids.find(is_it).ok_or_else(|| format!("{name} among {text}"))
    })
}

fn status_of(pid: Pid, name: &str) -> Result<String, String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
    Ok(status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned())
}

fn await_nothing_pending(pid: Pid) {
    awaited(|| {
        let pending = status_of(pid, "ShdPnd:")?;
        if pending.bytes().all(|digit| digit == b'0') { Ok(()) } else { Err(pending) }
    });
}

/// What goes to jobmeter's processes by their name goes to none of the command's, and so is passed on; and no later signal is taken for
/// one that has come to the group because of it.
#[test]
fn what_comes_to_the_meters_processes_alone_is_passed_on() {
    let Some(scene) = Scene::here() else { return };
    let [_, (_, command)] = scene.both(&["count"]);
    let mut counted = Counted::ready(command);
    let keeper = child(counted.pid, "jobmeter");
    let witness = child(keeper, "signal-witness");
    for number in [libc::SIGTERM, libc::SIGUSR1, libc::SIGABRT, libc::SIGXFSZ, 40] {
        for pid in [keeper, witness, counted.pid] {
            send(pid, number).expect("it lives");
        }
        assert_eq!(counted.line(), number.to_string());
    }
    assert_eq!(counted.ended(), Vec::<String>::new());
    scene.station.verify();
}

/// Real-time signals are queued and never merged: each arrives, with its value.
#[test]
fn queued_signals_arrive_as_often_as_they_were_sent() {
    let Some(scene) = Scene::here() else { return };
    for (kind, command) in scene.both(&["count"]) {
        let counted = Counted::ready(command);
        for value in 0..20 {
            let line = format!("kill -q {value} -50 {}", counted.pid);
            assert!(scene.station.program("env").args(line.split(' ')).status().expect("util-linux").success());
        }
        (0..200).for_each(|_| counted.send_to_group(40));
        (0..100).for_each(|_| counted.send(41));
        let got = counted.ended();
        let often = |number: &str| got.iter().filter(|line| line.split('=').next() == Some(number)).count();
        assert_eq!((often("50"), often("40"), often("41")), (20, 200, 100), "{kind}");
        let values: Vec<&str> = got.iter().filter_map(|line| line.strip_prefix("50=")).collect();
        assert_eq!(values, (0..20).map(|value| value.to_string()).collect::<Vec<_>>(), "{kind}");
    }
    scene.station.verify();
}

#[test]
fn a_command_that_ends_of_a_signal_ends_jobmeter_the_same_way() {
    let Some(scene) = Scene::here() else { return };
    for number in numbers().chain([LAST]) {
        let ends = scene.both(&["die", &number.to_string()]).map(|(_, mut command)| {
            // What stops by default would stand still.
            if [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&number) {
                return None;
            }
            let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status().expect("it runs");
            Some((status.code(), status.signal()))
        });
        assert_eq!(ends[0], ends[1], "signal {number}");
    }
    scene.station.verify();
}

/// Rust's runtime ignores SIGPIPE, and jobmeter wants to hear of children: the command finds both as they were.
#[test]
fn dispositions_and_mask_are_those_that_jobmeter_found() {
    let Some(scene) = Scene::here() else { return };
    let some: [i32; 8] = [libc::SIGPIPE, libc::SIGCHLD, libc::SIGHUP, libc::SIGTTOU, libc::SIGTERM, 32, 33, 64];
    let sets: [&[i32]; 3] = [&[], &some, &[libc::SIGUSR1, 34]];
    let hexadecimal = |set: &[i32]| format!("{:x}", set.iter().fold(0_u64, |bits, number| bits | 1 << (number - 1)));
    for ignored in sets {
        for blocked in sets {
            let helper = ["with", &hexadecimal(blocked), &hexadecimal(ignored)];
            let found = scene.both_by(&helper, &["inherited"]).map(|(_, mut command)| {
                let output = command.stdin(Stdio::null()).output().expect("it runs");
                String::from_utf8(output.stdout).expect("a text")
            });
            assert!(found[0].starts_with("blocked "), "{found:?}");
            assert_eq!(found[0], found[1]);
        }
    }
    scene.station.verify();
}

/// The kernel tells the session's leader alone when its terminal goes (disassociate_ctty, drivers/tty).
#[test]
fn the_end_of_the_terminal_reaches_the_command() {
    let Some(scene) = Scene::here() else { return };
    for (kind, command) in scene.both_by(&["terminal"], &["count"]) {
        let mut counted = Counted::on_terminal(command);
        counted.type_in(b"X");
        let mut got = [counted.line(), counted.line()];
        got.sort();
        assert_eq!(got, ["1", "18"], "{kind}");
        assert_eq!(counted.ended(), Vec::<String>::new(), "{kind}");
    }
    scene.station.verify();
}

#[test]
fn keys_reach_the_command_once() {
    let Some(scene) = Scene::here() else { return };
    for (kind, command) in scene.both_by(&["terminal"], &["count"]) {
        let mut counted = Counted::on_terminal(command);
        // Ctrl-C, Ctrl-\ and Ctrl-Z, and another size.
        counted.type_in(b"\x03\x1c\x1aW");
        let mut got: Vec<String> = (0..4).map(|_| counted.line()).collect();
        got.sort();
        assert_eq!(got, ["2", "20", "28", "3"], "{kind}");
        assert_eq!(counted.ended(), Vec::<String>::new(), "{kind}");
    }
    scene.station.verify();
}

/// As the first process of a container is: the kernel drops for it what it does not wait for.
#[test]
fn the_first_process_of_a_pid_namespace_passes_all_on() {
    let Some(scene) = Scene::here() else { return };
    let mut command = scene.station.program("unshare");
    command.args([
        "--fork",
        "--pid",
        "--mount-proc",
        "--kill-child",
        env!("CARGO_BIN_EXE_jobmeter"),
        "run",
        "--quiet",
        "--",
    ]);
    command.arg(&scene.program).arg("count");
    let mut counted = Counted::ready(command);
    let outer = counted.child.id();
    let children = format!("/proc/{outer}/task/{outer}/children");
    let first = std::fs::read_to_string(children).expect("children").trim().parse().expect("one child");
    counted.pid = Pid::from_raw(first);
    for number in numbers() {
        counted.send(number);
        assert_eq!(counted.line(), number.to_string());
    }
    assert_eq!(counted.ended(), Vec::<String>::new());
    scene.station.verify();
}

/// A limit that was meant for the command is kept from the meter: its spool and its ledger grow beyond it.
#[test]
fn a_limit_of_the_size_of_files_ends_no_meter() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let line = "ulimit -S -f 1; exec $JOBMETER run --quiet --receipt $PWD/receipt -- bash -c 'ulimit -S -f; trap : XFSZ; head -c 9000 /dev/zero > big; \
                echo $?; wc -c < big'";
    let called: Called = station.shell(line).current_dir(station.directory.path()).output().expect("it runs").into();
    // The shell's unit is 1 KiB; head is ended by the signal, or told by the error.
    let lines: Vec<&str> = called.out.lines().collect();
    assert!(called.status == 0 && lines.first() == Some(&"1") && lines.last() == Some(&"1024"), "{called:?}");
    let receipt = std::fs::read_to_string(station.path("receipt")).expect("a receipt");
    assert!(receipt.len() > 1_024 && receipt.contains("\"completed\""), "{receipt}");
    station.verify();
}

/// What came to the group while the command was not there yet is passed on, and no later one to jobmeter alone is taken for it.
#[test]
fn a_signal_to_the_group_before_the_command_hides_no_later_one() {
    let Some(scene) = Scene::here() else { return };
    scene.station.ok(&["account", "limit", "5"]);
    // Nothing starts before the ledger can be written.
    let hold = "import os, sqlite3, sys
ledger = sqlite3.connect(os.environ['JOBMETER_LEDGER'], isolation_level=None)
ledger.execute('BEGIN IMMEDIATE')
print('held', flush=True)
sys.stdin.read()";
    let mut holder = scene.station.program("python3");
    holder.args(["-c", hold]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = holder.spawn().expect("it starts");
    assert_eq!(line_of(holder.stdout.as_mut().expect("a pipe")), "held");
    // The command blocks it from its start, so as not to end of it.
    let blocked = format!("{:x}", 1_u64 << (libc::SIGUSR2 - 1));
    let [_, (_, mut command)] = scene.both_by(&["with", &blocked, "0"], &["count"]);
    let mut counted = {
        command.stdin(Stdio::null());
        Counted::start(command)
    };
    child(child(counted.pid, "jobmeter"), "signal-witness");
    counted.send_to_group(libc::SIGUSR2);
    drop(holder.stdin.take());
    assert!(holder.wait().expect("an end").success());
    assert_eq!([counted.line(), counted.line()], ["ready", "12"]);
    counted.send(libc::SIGUSR2);
    assert_eq!(counted.line(), "12");
    assert_eq!(counted.ended(), Vec::<String>::new());
    scene.station.verify();
}

/// What is sent in the first moments is not lost.
#[test]
fn a_signal_before_the_command_reaches_it_or_ends_the_start() {
    let Some(scene) = Scene::here() else { return };
    let [_, (_, mut command)] = scene.both(&["count"]);
    command.stdin(Stdio::null());
    let mut counted = Counted::start(command);
    // From when it blocks all signals.
    awaited(|| {
        let blocked = status_of(counted.pid, "SigBlk:")?;
        if blocked.starts_with("ffff") { Ok(()) } else { Err(blocked) }
    });
    counted.send(libc::SIGUSR2);
    // The command may have got it before it blocked it, and then has died of it, as it would alone.
    if counted.line() == "ready" {
        assert_eq!(counted.line(), "12");
        assert_eq!(counted.ended(), Vec::<String>::new());
    } else {
        assert_eq!(counted.child.wait().expect("an end").signal(), Some(libc::SIGUSR2));
    }
    scene.station.verify();
}

/// It stops at any signal then, and so does jobmeter, which that signal would end.
#[test]
fn a_command_that_is_traced_by_its_parent_ends_no_meter() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let code = "import ctypes, os, sys
ctypes.CDLL(None).ptrace(0, 0, 0, 0)
print(os.getpid(), flush=True)
os.kill(os.getpid(), int(sys.argv[1]))";
    for number in [libc::SIGUSR1, libc::SIGTRAP, libc::SIGTERM, libc::SIGCHLD, libc::SIGRTMAX()] {
        let station = Station::new();
        let mut meter = station
            .command(&["run", "--job", "t", "--", "python3", "-c", code, &number.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let command: i32 = line_of(meter.stdout.as_mut().unwrap()).parse().unwrap();
        let front = Pid::from_raw(i32::try_from(meter.id()).unwrap());
        awaited(|| match status_of(front, "State:")? {
            state if state.starts_with('T') => Ok(()),
            state => Err(format!("signal {number}: the front is {state}")),
        });
        send(Pid::from_raw(command), libc::SIGKILL).unwrap();
        // Its end continues the front, and is the end of both.
        let status = ended(&mut meter);
        assert_eq!(status.signal(), Some(libc::SIGKILL), "signal {number}");
        assert_eq!(station.receipt("t")["outcome"]["reason"], "signalled", "signal {number}");
    }
}
