//! Jobs that do not want to be metered or stopped.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::station::{Called, Station, awaited, ended, mark, micros, nano, processes_with};
use crate::{Around, alone, present, v1, v2};

fn run(station: &Station, arguments: &[&str], line: &str) -> Called {
    let mut all = vec!["run", "--job", "h", "--limit", "0.0001"];
    all.extend(arguments);
    all.extend(["--", "bash", "-c", line]);
    station.call(&all)
}

/// It has been killed, and is gone as soon as the machine comes to it.
fn none_is_left(mark: &str) {
    awaited(|| match processes_with(mark) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?} live on")),
    });
}

/// Stopped at its limit, charged no more than that, nothing of it left, and the books are right.
fn is_stopped(arguments: &[&str], line: &str) -> Option<serde_json::Value> {
    v2()?;
    let _one = alone();
    let station = Station::new();
    let mark = mark();
    let called = run(&station, arguments, &format!(": {mark}; {line}"));
    assert_eq!(called.status, 75, "{called:?}");
    none_is_left(&mark);
    let receipt = station.receipt("h");
    assert!(nano(&receipt["credits"]["total"]) <= 100_000, "{receipt}");
    station.verify();
    Some(receipt)
}

#[test]
fn ignores_every_signal() {
    is_stopped(&[], "trap '' HUP INT QUIT TERM USR1 USR2 TSTP; while :; do :; done");
}

#[test]
fn closes_all_descriptors() {
    is_stopped(&[], "for fd in 0 1 2 3 4 5 6 7 8 9; do eval \"exec $fd>&-\"; done; while :; do :; done");
}

#[test]
fn is_stopped_with_sigstop_and_burns_elsewhere() {
    is_stopped(&[], "(while :; do :; done) & kill -STOP $$; wait");
}

#[test]
fn makes_nested_groups() {
    let line = "g=$(grep -o 'cgroup2.*' /proc/mounts >/dev/null; awk '$3==\"cgroup2\"{print $2; exit}' /proc/mounts)$(grep '^0::' /proc/self/cgroup | cut -c4-); \
                mkdir -p $g/a/b/c && echo $$ > $g/a/b/c/cgroup.procs; echo threaded > $g/a/b/c/cgroup.type; while :; do :; done";
    is_stopped(&[], line);
}

#[test]
fn freezes_its_own_group() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let mark = mark();
    let line = format!(
        "g=$(awk '$3==\"cgroup2\"{{print $2; exit}}' /proc/mounts)$(grep '^0::' /proc/self/cgroup | cut -c4-); \
         sleep {mark} & echo 1 > $g/cgroup.freeze; exit 0"
    );
    let mut child = station.command(&["run", "--job", "f", "--", "bash", "-c", &line]).spawn().unwrap();
    awaited(|| match station.call(&["jobs", "show", "f"]) {
        shown if shown.status == 0 => Ok(()),
        shown => Err(format!("{shown:?}")),
    });
    station.ok(&["jobs", "stop", "f"]);
    ended(&mut child);
    assert!(processes_with(&mark).is_empty());
    station.verify();
}

#[test]
fn leaves_its_group_and_is_brought_back() {
    let line = "echo $$ > $(awk '$3==\"cgroup2\"{print $2; exit}' /proc/mounts)/cgroup.procs; while :; do :; done";
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let called = run(&station, &["--interval", "50ms"], line);
    assert_eq!(called.status, 75, "{called:?}");
    let receipt = station.receipt("h");
    assert_eq!(receipt["outcome"]["tamper"], "detected");
    assert!(micros(&receipt["cpu"]["total_seconds"]) > 300_000, "{receipt}");
}

#[test]
fn leaves_its_group_and_its_command_behind() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let mark = mark();
    let line = format!(
        "(echo $BASHPID > $(awk '$3==\"cgroup2\"{{print $2; exit}}' /proc/mounts)/cgroup.procs; touch $DIR/left; \
         exec setsid sleep {mark}) & until [ -e $DIR/left ]; do sleep 0.01; done; exit 0"
    );
    station.ok(&["run", "--job", "g", "--", "bash", "-c", &line]);
    none_is_left(&mark);
    assert_eq!(station.receipt("g")["outcome"]["tamper"], "detected");
}

/// A script that starts helpers and then becomes jobmeter by `exec`: they are its children, and none of the job's.
fn beside(station: &Station, helper: &str, options: &str, line: &str) -> Called {
    let script = format!(
        "sleep {helper} >/dev/null 2>&1 & echo $! > $DIR/helper; exec $JOBMETER run --job b {options} -- bash -c \"$LINE\""
    );
    station.shell(&script).env("LINE", line).output().unwrap().into()
}

/// Whether the helper lives, which is ended then.
fn helper_lived(station: &Station, helper: &str) -> bool {
    let pid = std::fs::read_to_string(station.path("helper")).unwrap().trim().parse().unwrap();
    let lives = processes_with(helper) == [pid];
    if lives {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    lives
}

#[test]
fn what_the_script_started_that_became_jobmeter_is_left_alone() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    for source in present(["cgroup2", "cgroup1", "perf", "procfs"]) {
        let (station, helper) = (Station::new(), mark());
        let called = beside(&station, &helper, &format!("--cpu-source {source} --interval 10ms"), "sleep 0.1");
        assert!(helper_lived(&station, &helper), "{source}: {called:?}");
        if source.starts_with("cgroup") {
            assert_eq!(called.status, 0, "{source}: {called:?}");
            assert_ne!(station.receipt("b")["outcome"]["tamper"], "detected", "{source}");
        } else {
            assert!(called.status == 125 && called.err.contains("without `exec`"), "{source}: {called:?}");
        }
    }
}

#[test]
fn beside_helpers_of_its_script_a_job_that_leaves_its_group_is_brought_back() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let top = "$(awk '$3==\"cgroup2\"{print $2; exit}' /proc/mounts)/cgroup.procs";
    for line in
        [format!("echo $$ > {top}; while :; do :; done"), format!("(echo $BASHPID > {top}; while :; do :; done)")]
    {
        let (station, helper) = (Station::new(), mark());
        let called = beside(&station, &helper, "--cpu-source cgroup2 --limit 0.0001 --interval 50ms", &line);
        assert!(helper_lived(&station, &helper) && called.status == 75, "{called:?}");
        let receipt = station.receipt("b");
        assert_eq!(receipt["outcome"]["tamper"], "detected");
        assert!(micros(&receipt["cpu"]["total_seconds"]) > 300_000, "{receipt}");
    }
}

#[test]
fn forks_without_end() {
    let Some(_) = v2() else { return };
    // By which the storm is bounded.
    let Some(pids) = v1("pids") else { return };
    let _one = alone();
    let station = Station::new();
    let group = Around::new(pids.path(), "pids");
    std::fs::write(group.0.join("pids.max"), "300").unwrap();
    let code = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass\n";
    let line = format!("{} run --job storm --limit 0.0001 -- python3 -c \"$CODE\" 2>/dev/null", group.enter());
    let called: Called = station.shell(&line).env("CODE", code).output().unwrap().into();
    assert_eq!(called.status, 75, "{called:?}");
    awaited(|| match group.processes() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("these live on: {left}")),
    });
    assert!(nano(&station.receipt("storm")["credits"]["total"]) <= 100_000);
    station.verify();
}

#[test]
fn populates_gigabytes_in_one_call() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let code = "import mmap\nwhile True:\n  m = mmap.mmap(-1, 3 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x8000)\n  m.close()";
    let called = station.call(&["run", "--job", "m", "--limit", "0.0001", "--", "python3", "-c", code]);
    assert_eq!(called.status, 75, "{called:?}");
    let receipt = station.receipt("m");
    assert!(nano(&receipt["credits"]["total"]) <= 100_000, "{receipt}");
    station.verify();
}

#[test]
fn kills_jobmeter_with_the_same_user() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let mark = mark();
    let line = format!("sleep {mark} & kill -9 $PPID; while :; do :; done");
    let called = station.call(&["run", "--job", "k", "--", "bash", "-c", &line]);
    assert_eq!(called.status, 128 + 9);
    none_is_left(&mark);
    awaited(|| match station.json(&["jobs", "show", "k"]) {
        job if job["state"] == "ended" => Ok(()),
        job => Err(job.to_string()),
    });
    station.verify();
}
