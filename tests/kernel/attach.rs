//! `jobmeter attach`: a group that something else made and filled.

use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::station::{Called, Station, awaited, ended, micros, nano};
use crate::{Around, alone, v2};

/// Something of somebody else's in the group.
struct Guest(Child);

impl Guest {
    fn new(group: &Around, command: &str) -> Self {
        let line = format!("echo $$ > {}/cgroup.procs; exec {command}", group.0.display());
        let guest = Self(Command::new("bash").args(["-c", &line]).spawn().unwrap());
        awaited(|| if group.processes().is_empty() { Err("nobody is in the group".to_owned()) } else { Ok(()) });
        guest
    }

    fn ended(&mut self) -> std::process::ExitStatus {
        ended(&mut self.0)
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
    let (metered, truth) = (burned(&station, "one"), group.cpu_us());
    assert!(metered * 100 >= truth * 95 && metered <= truth, "{metered} of {truth} µs");
    // What was burned before is not charged unless that is wanted, but what is burned until the limit is.
    for job in ["two", "three"] {
        let _guest = Guest::new(&group, SPIN);
        let before = group.cpu_us();
        let called = station.call(&["attach", "--cgroup", path, "--limit", "0.0001", "--job", job]);
        assert_eq!(called.status, 75, "{called:?}");
        // The group was not jobmeter's: it is there, and what comes into it runs.
        assert_eq!(group.processes(), "");
        let (metered, truth) = (burned(&station, job), group.cpu_us() - before);
        // Of the 0.4 s that the limit pays for, what two CPUs can burn while it is being stopped is left.
        assert!(metered <= truth && (300_001..=400_000).contains(&metered), "{job}: {metered} of {truth} µs");
        assert!(nano(&station.receipt(job)["credits"]["total"]) <= 100_000, "{job}: {metered} µs");
    }
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
    let trapped = station.path("trapped");
    let line = format!("trap \"exit 3\" TERM; : > {}; while :; do sleep 0.05; done", trapped.display());
    let mut guest = Guest::new(&group, &format!("sh -c '{line}'"));
    awaited(|| if trapped.exists() { Ok(()) } else { Err("the trap is not set".to_owned()) });
    let attached = |job: &str| {
        let child = station.command(&["attach", "--cgroup", path, "--job", job]).spawn().unwrap();
        awaited(|| {
            let called = station.call(&["--json", "jobs", "show", job]);
            if called.out.contains("\"running\"") { Ok(()) } else { Err(format!("{called:?}")) }
        });
        child
    };
    let child = attached("term");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let called: Called = child.wait_with_output().unwrap().into();
    assert_eq!((called.status, guest.ended().code()), (0, Some(3)), "{called:?}");
    let mut guest = Guest::new(&group, SPIN);
    let mut child = attached("lost");
    // From here on it is metered for certain.
    let attached_us = group.cpu_us();
    group.await_cpu_us(attached_us + 1_000_000);
    let lost_us = group.cpu_us();
    child.kill().unwrap();
    child.wait().unwrap();
    guest.ended();
    let job = awaited(|| {
        let job = station.json(&["jobs", "show", "lost"]);
        if job["state"] == "ended" { Ok(job) } else { Err(job.to_string()) }
    });
    assert_eq!(job["attempts"][0]["reason"], "meter_lost");
    // The group's own counter outlived the meter: nothing up to the kill is lost.
    assert!(burned(&station, "lost") >= lost_us - attached_us, "{} µs at the kill: {job}", lost_us - attached_us);
    station.verify();
}

/// Which container is the job's is clear in a pod alone: a machine has any number of them, and they are not the caller's.
#[test]
fn without_a_name_it_takes_no_container_of_the_machine() {
    let Some(parent) = v2() else { return };
    let (_one, station, group) = (alone(), Station::new(), Around::new(&parent, "others"));
    let line = "unshare --cgroup sh -c 'while :; do sleep 0.1; done'";
    let mut guest = Guest::new(&group, line);
    let called = station.call(&["attach", "--wait", "0s"]);
    if !jobmeter::sys::process::in_own_pid_namespace() {
        assert!(called.status == 125 && called.err.contains("outside of a pod"), "{called:?}");
    }
    let called = station.sh("unshare --pid --fork --mount-proc $JOBMETER attach --wait 0s");
    assert!(called.status == 125 && called.err.contains("no other container shares this PID namespace"), "{called:?}");
    assert_eq!(station.json(&["jobs", "list"])["jobs"].as_array().unwrap().len(), 0);
    std::fs::write(group.0.join("cgroup.kill"), "1").unwrap();
    guest.ended();
}
