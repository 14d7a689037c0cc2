//! What the command leaves behind: it may end by itself, within its grace and its credits, and no longer.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::station::{Called, Station, awaited, ended, line_of, mark, micros, nano, processes_with};
use crate::{Around, alone, present, v2};

const SOURCES: [&str; 5] = ["cgroup2", "cgroup1", "enclosing", "perf", "procfs"];

/// Waits until the shell that started it has ended and was waited for.
const ALONE: &str = "until [ ! -d /proc/$$ ]; do sleep 0.01; done";

/// A shell line that runs the job `j` by this source, in a group in which it is alone.
fn line(group: &Around, source: &str, options: &str) -> String {
    format!("{} run --job j --cpu-source {source} {options} -- bash -c \"$COMMAND\"", group.enter())
}

fn run(station: &Station, parent: &Path, source: &str, options: &str, command: &str) -> Called {
    let group = Around::new(parent, source);
    station.shell(&line(&group, source, options)).env("COMMAND", command).output().unwrap().into()
}

fn left_behind(station: &Station) -> u64 {
    station.receipt("j")["outcome"]["left_behind"].as_u64().unwrap_or(0)
}

/// The shell that prints the last line ends before the `tee` through which it goes.
#[test]
fn the_last_line_through_a_helper_is_kept_each_time() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    for source in present(SOURCES) {
        let station = Station::new();
        for time in 0..30 {
            let command = "exec > >(tee $DIR/log > /dev/null); seq 3000; echo the last";
            let called = run(&station, &parent, source, "", command);
            let log = std::fs::read_to_string(station.path("log")).unwrap_or_default();
            let last = log.lines().last();
            assert!(called.status == 0 && last == Some("the last"), "{source}, {time}: {last:?} {called:?}");
        }
        station.verify();
    }
}

/// Whatever takes longer than the kill of today: nothing ends it but its own end, which is seen long before the grace is over.
#[test]
fn the_end_of_a_helper_ends_the_job() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    for source in present(SOURCES) {
        for options in ["--grace 10min", "--wait-descendants"] {
            let station = Station::new();
            let command = format!("({ALONE}; echo late) & exit 3");
            let called = run(&station, &parent, source, options, &command);
            assert_eq!((called.status, called.out.as_str()), (3, "late\n"), "{source} {options}: {called:?}");
            let receipt = station.receipt("j");
            assert!(receipt["outcome"].get("left_behind").is_none(), "{source}: {receipt}");
            assert!(micros(&receipt["time"]["wall_seconds"]) < 600_000_000, "{source}: {receipt}");
        }
    }
}

/// Python removes shared memory by a process of its own, once all that use it have ended.
#[test]
fn pythons_shared_memory_is_removed_by_its_tracker() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    let code = "from multiprocessing import shared_memory
block = shared_memory.SharedMemory(create=True, size=1 << 20)
print(block.name, flush=True)";
    for source in present(SOURCES) {
        let station = Station::new();
        std::fs::write(station.path("leaks.py"), code).unwrap();
        let called = run(&station, &parent, source, "", "exec python3 $DIR/leaks.py");
        assert_eq!(called.status, 0, "{source}: {called:?}");
        let block = Path::new("/dev/shm").join(called.out.trim());
        let is_left = block.exists();
        std::fs::remove_file(&block).ok();
        assert!(!is_left && called.out.starts_with("psm_"), "{source}: {called:?}");
    }
}

#[test]
fn what_outlives_its_grace_is_killed_and_said() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    for source in present(SOURCES) {
        for left in ["sleep $MARK &", "bash -c \"kill -STOP \\$\\$; : $MARK\" &"] {
            for (options, is_said) in [("--grace 0.3", true), ("--grace 300ms -q", false), ("--grace 0", false)] {
                let (station, mark) = (Station::new(), mark());
                let command = format!("{} exit 5", left.replace("$MARK", &mark));
                let called = run(&station, &parent, source, options, &command);
                assert_eq!(called.status, 5, "{source} {options}: {called:?}");
                assert_eq!(called.err.contains("jobmeter: killed 1 process that"), is_said, "{source}: {called:?}");
                assert!(processes_with(&mark).is_empty(), "{source} {options}");
                let wall_us = micros(&station.receipt("j")["time"]["wall_seconds"]);
                assert!(options == "--grace 0" || wall_us >= 300_000, "{source} {options}: {wall_us}");
                assert_eq!(left_behind(&station), 1, "{source} {options}");
            }
        }
    }
}

#[test]
fn what_is_left_is_metered_and_charged() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    let code = "import time
while time.process_time() < 1: pass
print(int(time.process_time() * 1e6))";
    // How much of it may be missing, in ten-thousandths.
    for (source, missing) in [("cgroup2", 10), ("cgroup1", 10), ("enclosing", 10), ("perf", 100), ("procfs", 300)] {
        if present([source]).is_empty() {
            continue;
        }
        let (station, group) = (Station::new(), Around::new(&parent, source));
        std::fs::write(station.path("burn.py"), code).unwrap();
        let command = format!("({ALONE}; exec python3 $DIR/burn.py) & exit 0");
        let command = station.shell(&line(&group, source, "--grace 10min")).env("COMMAND", command).output();
        let called: Called = command.unwrap().into();
        assert_eq!(called.status, 0, "{source}: {called:?}");
        let (receipt, burned) = (station.receipt("j"), called.out.trim().parse::<u64>().unwrap());
        let (metered, truth) = (micros(&receipt["cpu"]["total_seconds"]), group.cpu_us());
        println!("{source}: {metered} µs metered, {burned} µs burned after the end, {truth} µs with jobmeter's own");
        assert!(metered >= burned - burned * missing / 10_000, "{source}: {metered} of {burned}");
        assert!(metered <= truth + truth * missing / 10_000, "{source}: {metered} of {truth}");
        assert_eq!(nano(&receipt["credits"]["total"]), i64::try_from(metered).unwrap() / 4, "{source}: {receipt}");
        assert!(group.processes().is_empty(), "{source}");
        station.verify();
    }
}

/// No grace is longer than the credits. The command has done its work: only what is waited for makes that the job's end.
#[test]
fn the_jobs_limit_ends_what_is_left() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    for source in present(SOURCES) {
        for options in ["--grace 10min", "--wait-descendants"] {
            let (station, mark) = (Station::new(), mark());
            let command = format!("(while :; do :; done; : {mark}) & exit 0");
            let called = run(&station, &parent, source, &format!("--limit 0.0001 {options}"), &command);
            let (status, reason, said) = match options {
                "--wait-descendants" => (75, "job_limit", "stopped: the job's own limit is reached"),
                _ => (0, "completed", "had left behind, when the credits came to an end"),
            };
            assert_eq!(called.status, status, "{source} {options}: {called:?}");
            assert!(called.err.contains(said), "{source}: {called:?}");
            assert!(processes_with(&mark).is_empty(), "{source} {options}");
            let receipt = station.receipt("j");
            assert_eq!(receipt["outcome"]["reason"], reason, "{source}: {receipt}");
            assert!(nano(&receipt["credits"]["total"]) <= 100_000, "{source}: {receipt}");
            station.verify();
        }
    }
}

#[test]
fn an_operator_ends_what_is_left() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    let (station, group, mark) = (Station::new(), Around::new(&parent, "stop"), mark());
    let mut child = started(&station, &group, "cgroup2", "--wait-descendants", &mark);
    station.ok(&["jobs", "stop", "j", "--why", "test"]);
    assert_eq!(ended(&mut child).code(), Some(137));
    assert!(processes_with(&mark).is_empty());
}

/// Returns when the command has ended, and was waited for.
fn started(station: &Station, group: &Around, source: &str, options: &str, mark: &str) -> Child {
    let command = format!("trap \"\" TERM INT HUP; sleep {mark} > /dev/null 2>&1 & echo $$; exit 7");
    let mut call = station.shell(&line(group, source, options));
    let mut child = call.env("COMMAND", command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let command = PathBuf::from("/proc").join(line_of(child.stdout.as_mut().unwrap()));
    awaited(|| if command.exists() { Err(format!("{command:?} is there")) } else { Ok(()) });
    child
}

#[test]
fn a_signal_ends_what_is_left_at_once() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    for source in present(SOURCES) {
        for options in ["--grace 10min", "--wait-descendants"] {
            for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
                let (station, group, mark) = (Station::new(), Around::new(&parent, source), mark());
                let child = started(&station, &group, source, options, &mark);
                let front = Pid::from_raw(i32::try_from(child.id()).unwrap());
                // What ends no wait is nothing to the grace.
                kill(front, Signal::SIGUSR1).unwrap();
                kill(front, signal).unwrap();
                let called: Called = child.wait_with_output().unwrap().into();
                assert_eq!(called.status, 7, "{source} {options} {signal}: {called:?}");
                assert!(!called.err.contains("jobmeter: killed"), "{source} {options} {signal}: {called:?}");
                assert!(processes_with(&mark).is_empty(), "{source} {options} {signal}");
                assert_eq!(left_behind(&station), 1, "{source} {options} {signal}");
            }
        }
    }
}

/// A relay, and a container of the kernel's own making whose first process is the wrapper.
#[test]
fn the_wrapper_gives_the_same_grace() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let socket = station.path("relay.sock");
    let relay = ["--spool-dir", station.path("state").to_str().unwrap(), "relay", "--job", "j", "--socket"]
        .map(str::to_owned)
        .into_iter()
        .chain([socket.display().to_string()]);
    let mut relay = station.program(env!("CARGO_BIN_EXE_jobmeter")).args(relay).stderr(Stdio::null()).spawn().unwrap();
    awaited(|| UnixStream::connect(&socket).map_err(|error| error.to_string()));
    let late = format!("({ALONE}; echo late) & exit 4");
    let mark = mark();
    let long = format!("sleep {mark} > /dev/null 2>&1 & exit 4");
    for (options, command, out, is_said) in [
        ("--grace 600", &late, "late\n", false),
        ("--wait-descendants", &late, "late\n", false),
        ("--grace 0.2", &long, "", true),
        ("--grace 0", &long, "", false),
    ] {
        let line = format!(
            "exec unshare --mount --pid --fork --mount-proc --kill-child {} --relay {} --termination-log $DIR/log {options} -- \
             bash -c \"$COMMAND\"",
            env!("CARGO_BIN_EXE_jobmeter-wrapper"),
            socket.display()
        );
        let called: Called = station.shell(&line).env("COMMAND", command).output().unwrap().into();
        assert_eq!((called.status, called.out.as_str()), (4, out), "{options}: {called:?}");
        assert_eq!(called.err.contains("jobmeter: killed 1 process that"), is_said, "{options}: {called:?}");
        assert!(processes_with(&mark).is_empty(), "{options}");
        assert_eq!(left_behind(&station), u64::from(out.is_empty()), "{options}");
    }
    kill(Pid::from_raw(i32::try_from(relay.id()).unwrap()), Signal::SIGTERM).unwrap();
    ended(&mut relay);
    station.verify();
}
