//! jobmeter itself is killed or stopped: the job dies, and its last usage still reaches the ledger.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::station::{Station, all_processes, awaited, ended, line_of, mark, micros, nano, processes_with, within};
use crate::{Around, alone, present, v2};

/// Whoever is stopped is missed within half a second where the machine has nothing else to do. This is more, since it may have,
/// and fails for a loss that nobody notices.
const ALIVE_MAX: Duration = Duration::from_secs(10);

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

/// Burns, and says how much that is by now: at least 0.2 s.
const BURN: &str = "import time
while time.process_time() < 0.2: pass
print(int(time.process_time() * 1e6), flush=True)
while True: pass";

/// Two seconds of CPU time.
const LIMIT: &str = "0.0005";

fn lose(who: &str, signal: Signal, source: &str) {
    let station = Station::new();
    let mark = mark();
    let line = format!("for i in $(seq 20); do (setsid sleep {mark} &) ; done; exec python3 -c '{BURN}'");
    // A keeper that stands still is missed at the ceiling.
    let limit = if (who, signal) == ("keeper", Signal::SIGSTOP) { LIMIT } else { "5" };
    // Another user's job, so that the job cannot reach the meter.
    let run = ["run", "--job", "lost", "--as", "nobody", "--cpu-source", source, "--limit", limit, "--", "bash", "-c"];
    let mut child = station.command(&run).arg(&line).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let burned_us: u64 = line_of(child.stdout.as_mut().unwrap()).parse().unwrap();
    awaited(|| match processes_with(&mark).len() {
        20.. => Ok(()),
        count => Err(format!("{count} of 20 processes have started")),
    });
    let (front, keeper) = front_and_keeper(&station).expect("front and keeper");
    let target = if who == "front" { front } else { keeper };
    kill(Pid::from_raw(target), signal).unwrap();
    let gone = within(ALIVE_MAX, || processes_with(&mark).is_empty());
    assert!(gone, "{who} {signal}: {} processes live on", processes_with(&mark).len());
    if signal == Signal::SIGSTOP {
        kill(Pid::from_raw(target), Signal::SIGCONT).ok();
    }
    ended(&mut child);
    let job = awaited(|| match station.json(&["jobs", "show", "lost"]) {
        job if job["state"] == "ended" => Ok(job),
        job => Err(format!("{who} {signal}: the ledger does not know the end: {job}")),
    });
    let receipt = &job["attempts"][0]["receipt"];
    assert_eq!(receipt["outcome"]["reason"], "meter_lost", "{receipt}");
    // What it had burned by its own word; 20 shells and their sleeps burned some more.
    assert!(micros(&receipt["cpu"]["total_seconds"]) >= burned_us, "{burned_us} µs: {receipt}");
    assert!(
        nano(&job["charged"]["total"]) <= limit.parse::<jobmeter::domain::units::Nanocredits>().unwrap().0,
        "{job}"
    );
    assert_eq!(nano(&station.credits()["held"]), 0);
    assert_eq!(station.ok(&["spool", "list"]).out, "nothing is in the spool\n");
    station.verify();
}

fn lose_each(who: &str, signal: Signal, sources: &[&str]) {
    if v2().is_some() {
        let _one = alone();
        sources.iter().for_each(|source| lose(who, signal, source));
    }
}

#[test]
fn a_killed_keeper() {
    lose_each("keeper", Signal::SIGKILL, &present(["cgroup2", "cgroup1"]));
}

#[test]
fn a_killed_front() {
    lose_each("front", Signal::SIGKILL, &present(["cgroup2", "cgroup1"]));
}

#[test]
fn a_stopped_keeper() {
    lose_each("keeper", Signal::SIGSTOP, &["cgroup2"]);
}

#[test]
fn a_stopped_front() {
    lose_each("front", Signal::SIGSTOP, &["cgroup2"]);
}

/// Without a group nothing but its descent from the front tells what is of the job.
#[test]
fn a_killed_front_without_a_group() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    for source in ["enclosing", "perf", "procfs"] {
        let (station, group, mark) = (Station::new(), Around::new(&parent, "orphans"), mark());
        let line = format!("{} run --job o --interval 50ms --cpu-source {source} -- bash -c \"$LINE\"", group.enter());
        let job = format!("(setsid bash -c 'sleep {mark} & wait' &); sleep {mark}");
        let mut child = station.shell(&line).env("LINE", job).stderr(Stdio::null()).spawn().unwrap();
        let front = Pid::from_raw(i32::try_from(child.id()).unwrap());
        // Two sleeps, and what waits for one of them.
        awaited(|| if processes_with(&mark).len() >= 3 { Ok(()) } else { Err(format!("{:?}", processes_with(&mark))) });
        let (_, keeper) = front_and_keeper(&station).expect("front and keeper");
        let enough = waits_of(Pid::from_raw(keeper)) + 30;
        awaited(|| {
            if waits_of(Pid::from_raw(keeper)) >= enough { Ok(()) } else { Err("the keeper does not look".to_owned()) }
        });
        kill(front, Signal::SIGKILL).unwrap();
        ended(&mut child);
        assert!(within(ALIVE_MAX, || processes_with(&mark).is_empty()), "{source}: {:?}", processes_with(&mark));
        awaited(|| match station.json(&["jobs", "show", "o"]) {
            job if job["attempts"][0]["receipt"]["outcome"]["reason"] == "meter_lost" => Ok(()),
            job => Err(job.to_string()),
        });
    }
}

/// Its command stops the front as its first act, often before the front could say that there is a command.
#[test]
fn a_front_that_its_command_stops_at_once_meters_on_or_is_missed() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    for _ in 0..20 {
        let station = Station::new();
        let mark = mark();
        let line = format!("kill -STOP $PPID; echo; exec sleep {mark}");
        let mut child = station
            .command(&["run", "--job", "s", "--", "bash", "-c", &line])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        line_of(child.stdout.as_mut().unwrap());
        assert_eq!(ended(&mut child).code(), Some(125));
        assert!(processes_with(&mark).is_empty());
    }
}

/// Both at once: the next start finds what is left over.
#[test]
fn both_killed() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let mark = mark();
    let line = format!("sleep {mark} & while :; do :; done");
    let mut child =
        station.command(&["run", "--job", "both", "--", "bash", "-c", &line]).stderr(Stdio::null()).spawn().unwrap();
    awaited(|| if processes_with(&mark).is_empty() { Err("the job did not start".to_owned()) } else { Ok(()) });
    let (front, keeper) = front_and_keeper(&station).unwrap();
    // Stopped first, so that neither sees the other's death.
    for pid in [front, keeper] {
        kill(Pid::from_raw(pid), Signal::SIGSTOP).ok();
    }
    for pid in [front, keeper] {
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
    ended(&mut child);
    let flushed = station.call(&["spool", "flush"]);
    assert!(flushed.out.contains("settled") && flushed.status == 0, "{flushed:?}");
    assert!(within(ALIVE_MAX, || processes_with(&mark).is_empty()));
    assert_eq!(station.json(&["jobs", "show", "both"])["state"], "ended");
    station.verify();
}

/// The command has stopped, and jobmeter with it, so that the shell takes over; what runs beside it is not to outlive its meter.
#[test]
fn a_keeper_that_is_killed_while_the_front_stands_still_is_missed() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let mark = mark();
    let line = format!("setsid sleep {mark} & kill -STOP $$; wait");
    let mut child =
        station.command(&["run", "--job", "z", "--", "bash", "-c", &line]).stderr(Stdio::null()).spawn().unwrap();
    await_stopped(&[Pid::from_raw(i32::try_from(child.id()).unwrap())]);
    let (_, keeper) = front_and_keeper(&station).expect("front and keeper");
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
    assert_eq!(ended(&mut child).code(), Some(125));
    assert!(processes_with(&mark).is_empty());
    assert_eq!(station.receipt("z")["outcome"]["reason"], "meter_lost");
}

/// All that stops and continues, as a scheduler does it: one process after the other, in any order. The job goes on as if nothing
/// had been.
#[test]
fn what_is_suspended_with_its_job_goes_on_with_it() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let station = Station::new();
        let mut job = Waiting::start(&station);
        let all = job.processes(&station);
        suspend(&order.map(|at| all[at]));
        for at in order {
            kill(all[at], Signal::SIGCONT).unwrap();
        }
        job.ends_well(&station, &format!("{order:?}"));
    }
}

/// The front reads in its place, and the job has not come to its ceiling.
#[test]
fn a_keeper_that_stood_still_while_its_job_burned_goes_on() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    // Less than the first lease, of one second, in all.
    let burn = "import time
for step in range(1, 9):
    while time.process_time() < 0.1 + 0.05 * step: pass
    print(int(time.process_time() * 1e6), flush=True)";
    let mut child = station
        .command(&["run", "--job", "w", "--", "python3", "-c", burn])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said =
        BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap().parse::<u64>().unwrap());
    said.next().unwrap();
    let (_, keeper) = front_and_keeper(&station).expect("front and keeper");
    suspend(&[Pid::from_raw(keeper)]);
    said.nth(3).expect("the job goes on");
    kill(Pid::from_raw(keeper), Signal::SIGCONT).unwrap();
    let burned_us = said.last().unwrap();
    assert!(ended(&mut child).success(), "{}", station.receipt("w"));
    let receipt = station.receipt("w");
    assert_eq!(receipt["outcome"]["reason"], "completed", "{receipt}");
    assert!(micros(&receipt["cpu"]["total_seconds"]) >= burned_us, "{burned_us} µs: {receipt}");
    station.verify();
}

/// The keeper has a session of its own, and goes on.
#[test]
fn a_group_that_is_suspended_goes_on() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let mut job = Waiting::start(&station);
    let group = Pid::from_raw(-i32::try_from(job.meter.id()).unwrap());
    kill(group, Signal::SIGSTOP).unwrap();
    let [front, keeper, command] = job.processes(&station);
    await_stopped(&[front, command]);
    // The keeper looks at the front several times meanwhile, and waits in between.
    let enough = waits_of(keeper) + 6;
    awaited(|| match waits_of(keeper) {
        waits if waits >= enough => Ok(()),
        waits => Err(format!("the keeper has waited {waits} of {enough} times")),
    });
    kill(group, Signal::SIGCONT).unwrap();
    job.ends_well(&station, "group");
}

/// A command that says when it runs, and ends once its input does.
struct Waiting {
    meter: Child,
    command: Pid,
}

impl Waiting {
    fn start(station: &Station) -> Self {
        let mut meter = station
            .command(&["run", "--job", "w", "--", "bash", "-c", "echo $$; read; echo done"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let command = Pid::from_raw(line_of(meter.stdout.as_mut().unwrap()).parse().unwrap());
        Self { meter, command }
    }

    fn processes(&self, station: &Station) -> [Pid; 3] {
        let (front, keeper) = front_and_keeper(station).expect("front and keeper");
        [Pid::from_raw(front), Pid::from_raw(keeper), self.command]
    }

    fn ends_well(&mut self, station: &Station, what: &str) {
        drop(self.meter.stdin.take());
        let status = ended(&mut self.meter);
        assert!(status.success(), "{what}: {status}: {}", station.receipt("w"));
        assert_eq!(line_of(self.meter.stdout.as_mut().unwrap()), "done");
        assert_eq!(station.receipt("w")["outcome"]["reason"], "completed", "{what}");
    }
}

fn waits_of(process: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap().trim().parse().unwrap()
}

fn suspend(all: &[Pid]) {
    for pid in all {
        kill(*pid, Signal::SIGSTOP).unwrap();
    }
    await_stopped(all);
}

fn await_stopped(all: &[Pid]) {
    let state = |pid: &Pid| jobmeter::sys::tree::Stat::read(pid.as_raw()).map(|stat| stat.state);
    awaited(|| match all.iter().map(state).collect::<Vec<_>>() {
        states if states.iter().all(|state| *state == Some('T')) => Ok(()),
        states => Err(format!("{states:?}")),
    });
}
