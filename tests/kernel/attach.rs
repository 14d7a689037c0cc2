//! `jobmeter attach`: a group that something else made and filled.

use std::process::{Child, Command};
use std::time::Duration;

use crate::station::{Called, Station, micros, within};
use crate::{Around, alone, v2};

/// Something of somebody else's in the group.
struct Guest(Child);

impl Guest {
    fn new(group: &Around, command: &str) -> Self {
        let line = format!("echo $$ > {}/cgroup.procs; exec {command}", group.0.display());
        let guest = Self(Command::new("bash").args(["-c", &line]).spawn().unwrap());
        let procs = group.0.join("cgroup.procs");
        assert!(within(Duration::from_secs(5), || std::fs::read_to_string(&procs).unwrap() != ""));
        guest
    }

    fn ended(&mut self) -> std::process::ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

const SPIN: &str = "sh -c 'while :; do :; done'";

fn burned(station: &Station, job: &str) -> u64 {
    micros(&station.json(&["jobs", "show", job])["attempts"][0]["usage"]["cpu_used_seconds"])
}

#[test]
fn what_something_else_started_is_metered_to_its_end() {
    let Some(parent) = v2() else { return };
    let (_one, station, group) = (alone(), Station::new(), Around::new(&parent, "attach"));
    let path = group.0.to_str().unwrap();
    let mut guest = Guest::new(&group, "python3 -c 'import time\nwhile time.process_time() < 2: pass'");
    let called = station.call(&["attach", "--pid", &guest.0.id().to_string(), "--from-start", "--job", "one"]);
    assert_eq!(called.status, 0, "{called:?}");
    assert!(guest.ended().success());
    let text = std::fs::read_to_string(group.0.join("cpu.stat")).unwrap();
    let truth: u64 = text.lines().next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    assert!(burned(&station, "one") * 100 >= truth * 95 && burned(&station, "one") <= truth, "{text}");
    // What was burned before is not charged unless that is wanted.
    let _guest = Guest::new(&group, SPIN);
    let called = station.call(&["attach", "--cgroup", path, "--limit", "0.0001", "--job", "two"]);
    assert_eq!(called.status, 75, "{called:?}");
    assert!(burned(&station, "two") <= 400_000, "{}", burned(&station, "two"));
    assert_eq!(std::fs::read_to_string(group.0.join("cgroup.procs")).unwrap(), "");
    // The group was not jobmeter's: it is there, and what comes into it runs.
    let _guest = Guest::new(&group, SPIN);
    let called = station.call(&["attach", "--cgroup", path, "--limit", "0.0001", "--job", "three"]);
    assert_eq!((called.status, burned(&station, "three") > 200_000), (75, true), "{called:?}");
    station.verify();
}

#[test]
fn what_it_cannot_hold_is_refused() {
    let Some(parent) = v2() else { return };
    let (_one, station, group) = (alone(), Station::new(), Around::new(&parent, "attach"));
    let path = group.0.to_str().unwrap();
    for (arguments, why) in [
        (&["attach", "--cgroup", path][..], "nothing runs in"),
        (&["attach", "--cgroup", parent.to_str().unwrap()], ""),
        (&["attach", "--cgroup", "/tmp"], "not a cgroup v2 directory"),
        (&["attach", "--cgroup", "/nowhere"], "No such file"),
        (&["attach", "--pid", "0"], "0"),
        (&["attach", "--pid", "1", "--cgroup", path], "cannot be used with"),
    ] {
        let called = station.call(arguments);
        assert!(called.status == 125 && called.err.contains(why), "{arguments:?}: {called:?}");
    }
    let own = station.sh(&format!("{} attach --cgroup {path}", group.enter()));
    assert!(own.status == 125 && own.err.contains("jobmeter itself"), "{own:?}");
    let jobs = station.json(&["jobs", "list"]);
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 0);
}

#[test]
fn signals_are_passed_on_and_a_lost_meter_ends_it() {
    let Some(parent) = v2() else { return };
    let (_one, station, group) = (alone(), Station::new(), Around::new(&parent, "attach"));
    let path = group.0.to_str().unwrap();
    let mut guest = Guest::new(&group, "sh -c 'trap \"exit 3\" TERM; while :; do sleep 0.05; done'");
    let attached = |job: &str| {
        let child = station.command(&["attach", "--cgroup", path, "--job", job]).spawn().unwrap();
        let runs = || station.call(&["--json", "jobs", "show", job]).out.contains("\"running\"");
        assert!(within(Duration::from_secs(10), runs), "{job}");
        child
    };
    let child = attached("term");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    let called: Called = child.wait_with_output().unwrap().into();
    assert_eq!((called.status, guest.ended().code()), (0, Some(3)), "{called:?}");
    let mut guest = Guest::new(&group, SPIN);
    let mut child = attached("lost");
    std::thread::sleep(Duration::from_millis(1_200));
    child.kill().unwrap();
    child.wait().unwrap();
    guest.ended();
    let ended = || station.json(&["jobs", "show", "lost"])["state"] == "ended";
    assert!(within(Duration::from_secs(10), ended));
    let job = station.json(&["jobs", "show", "lost"]);
    assert_eq!(job["attempts"][0]["reason"], "meter_lost");
    assert!(burned(&station, "lost") > 700_000, "{job}");
    station.verify();
}
