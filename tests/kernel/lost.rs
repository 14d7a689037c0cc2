//! jobmeter itself is killed or stopped: the job dies, and its last usage still reaches the ledger.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::station::{Station, micros, nano, processes_with, within};
use crate::{alone, v2};

const ALIVE_MAX: Duration = Duration::from_secs(3);

fn all_processes() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The front is the parent of the keeper.
fn front_and_keeper(station: &Station) -> Option<(i32, i32)> {
    let mark = station.directory.path().to_string_lossy().into_owned();
    let meters: Vec<i32> = all_processes()
        .into_iter()
        .filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&mark)
                && line.split(|byte| *byte == 0).next().is_some_and(|name| name.ends_with(b"jobmeter"))
        })
        .collect();
    let parent = |pid: i32| jobmeter::sys::tree::Stat::read(pid).map_or(0, |stat| stat.parent);
    let keeper = meters.iter().copied().find(|pid| meters.contains(&parent(*pid)))?;
    Some((parent(keeper), keeper))
}

fn lose(who: &str, signal: Signal, source: &str) {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let mark = format!("3600.{}", std::process::id());
    let line = format!("for i in $(seq 20); do (setsid sleep {mark} &) ; done; while :; do :; done");
    // Another user's job, so that the job cannot reach the meter.
    let mut child = station
        .command(&["run", "--job", "lost", "--as", "nobody", "--cpu-source", source, "--", "bash", "-c", &line])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert!(within(Duration::from_secs(10), || processes_with(&mark).len() >= 20), "the job did not start");
    let (front, keeper) = front_and_keeper(&station).expect("front and keeper");
    assert!(within(Duration::from_secs(3), || station.call(&["jobs", "show", "lost"]).status == 0));
    let target = if who == "front" { front } else { keeper };
    kill(Pid::from_raw(target), signal).unwrap();
    let gone = within(ALIVE_MAX, || processes_with(&mark).is_empty());
    assert!(gone, "{who} {signal}: {} processes live on", processes_with(&mark).len());
    if signal == Signal::SIGSTOP {
        kill(Pid::from_raw(target), Signal::SIGCONT).ok();
    }
    assert!(within(ALIVE_MAX, || child.try_wait().unwrap().is_some()), "the front does not end");
    let settled = within(ALIVE_MAX, || station.json(&["jobs", "show", "lost"])["state"] == "ended");
    assert!(settled, "{who} {signal}: the ledger does not know the end");
    let receipt = station.receipt("lost");
    assert_eq!(receipt["outcome"]["reason"], "meter_lost", "{receipt}");
    assert!(micros(&receipt["cpu"]["total_seconds"]) > 20_000, "{receipt}");
    assert_eq!(nano(&station.credits()["held"]), 0);
    assert_eq!(station.ok(&["spool", "list"]).out, "nothing is in the spool\n");
    station.verify();
}

#[test]
fn a_killed_keeper() {
    lose("keeper", Signal::SIGKILL, "cgroup2");
    lose("keeper", Signal::SIGKILL, "cgroup1");
}

#[test]
fn a_killed_front() {
    lose("front", Signal::SIGKILL, "cgroup2");
    lose("front", Signal::SIGKILL, "cgroup1");
}

#[test]
fn a_stopped_keeper() {
    lose("keeper", Signal::SIGSTOP, "cgroup2");
}

#[test]
fn a_stopped_front() {
    lose("front", Signal::SIGSTOP, "cgroup2");
}

/// Both at once: the next start finds what is left over.
#[test]
fn both_killed() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let mark = format!("3601.{}", std::process::id());
    let line = format!("sleep {mark} & while :; do :; done");
    let mut child =
        station.command(&["run", "--job", "both", "--", "bash", "-c", &line]).stderr(Stdio::null()).spawn().unwrap();
    assert!(within(Duration::from_secs(10), || !processes_with(&mark).is_empty()));
    let (front, keeper) = front_and_keeper(&station).unwrap();
    // Stopped first, so that neither sees the other's death.
    for pid in [front, keeper] {
        kill(Pid::from_raw(pid), Signal::SIGSTOP).ok();
    }
    for pid in [front, keeper] {
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
    child.wait().unwrap();
    let flushed = station.call(&["spool", "flush"]);
    assert!(flushed.out.contains("settled") && flushed.status == 0, "{flushed:?}");
    assert!(within(ALIVE_MAX, || processes_with(&mark).is_empty()));
    assert_eq!(station.json(&["jobs", "show", "both"])["state"], "ended");
    station.verify();
}
