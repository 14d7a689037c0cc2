//! Where jobmeter may be started: without groups to write, under quotas and affinities, in groups that were killed, on
//! disks that are full or read-only, as another user, and with signals under way.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use serde_json::Value;

use crate::station::{Called, Station, awaited, ended, line_of, mark, micros, processes_with, skip};
use crate::{Around, alone, v1, v2};

/// Burns 0.2 s, and says what it has burned.
const BURN: &str = "import time
while time.process_time() < 0.2: pass
print(int(time.process_time() * 1e6))";

#[test]
fn without_a_group_to_write_the_next_source_is_taken_and_said() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    let station = Station::new();
    let with_read_only = |job: &str, mounts: &str| -> (Called, Value, u64) {
        let line = format!(
            "unshare -m sh -c 'for d in {mounts}; do mount -o remount,ro,bind $d; done; \
             exec $JOBMETER run --job {job} -- python3 -c \"$BURN\"'"
        );
        let called: Called = station.shell(&line).env("BURN", BURN).output().unwrap().into();
        assert_eq!(called.status, 0, "{called:?}");
        let burned_us = called.out.trim().parse().unwrap();
        (called, station.receipt(job), burned_us)
    };
    if v1("cpuacct").is_some() {
        let (_, receipt, _) = with_read_only("a", &parent.display().to_string());
        assert_eq!(receipt["cpu"]["source"], "cgroup1");
    }
    let (called, receipt, burned_us) = with_read_only("b", "$(awk \"/^cgroup/{print \\$2}\" /proc/mounts)");
    assert_eq!(receipt["cpu"]["source"], "perf");
    assert!(micros(&receipt["cpu"]["total_seconds"]) >= burned_us, "{burned_us} µs: {receipt}");
    assert!(called.err.contains("jobmeter: note: "), "{}", called.err);
}

#[test]
fn alone_in_its_group_the_enclosing_counter_is_used() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    let station = Station::new();
    let group = Around::new(&parent, "enclosing");
    // So much that what jobmeter itself burns, which is in the group's counter alone, stays far below the bound.
    let burn = "import time; any(iter(lambda: time.process_time() > 1, True))";
    let line = format!("{} run --cpu-source enclosing --job e -- python3 -c '{burn}'", group.enter());
    let called = station.sh(&line);
    assert_eq!(called.status, 0, "{called:?}");
    let (metered, truth) = (micros(&station.receipt("e")["cpu"]["total_seconds"]), group.cpu_us());
    assert!(metered <= truth && metered * 100 > truth * 85, "{metered} of {truth}");
}

/// The highest rate that a dry run says, in millionths of a CPU.
fn rate(station: &Station, line: &str) -> u64 {
    let called = station.sh(line);
    assert_eq!(called.status, 0, "{called:?}");
    let found: Value = serde_json::from_str(&called.out).unwrap();
    found["highestCpusPpm"].as_u64().unwrap()
}

#[test]
fn an_affinity_does_not_lower_the_highest_rate() {
    let station = Station::new();
    let free = rate(&station, "$JOBMETER --json run --dry-run -- true");
    assert_eq!(rate(&station, "taskset -c 0 $JOBMETER --json run --dry-run -- true"), free);
}

#[test]
fn a_quota_lowers_the_highest_rate() {
    if v2().is_none() {
        return;
    }
    let Some(cpu) = v1("cpu") else { return };
    let _one = alone();
    let station = Station::new();
    let group = Around::new(cpu.path(), "quota");
    std::fs::write(group.0.join("cpu.cfs_quota_us"), "50000").unwrap();
    std::fs::write(group.0.join("cpu.cfs_period_us"), "100000").unwrap();
    assert_eq!(rate(&station, &format!("{} --json run --dry-run -- true", group.enter())), 500_000);
    // At its limit it ends at once. Were it kept frozen as if more could come, it would be for the 30 s of --hold.
    let line = format!("{} run --job q --limit 0.0001 -- sh -c 'while :; do :; done'", group.enter());
    assert_eq!(station.sh(&line).status, 75);
    let receipt = station.receipt("q");
    assert_eq!(receipt["outcome"]["reason"], "job_limit", "{receipt}");
    assert!(micros(&receipt["time"]["held_seconds"]) < 15_000_000, "{receipt}");
    station.verify();
}

#[test]
fn in_a_group_that_was_killed_before() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    let station = Station::new();
    let group = Around::new(&parent, "killed");
    std::fs::write(group.0.join("cgroup.kill"), "1").unwrap();
    let called = station.sh(&format!("{} run --job k -- sh -c 'exit 6'", group.enter()));
    assert_eq!(called.status, 6, "{called:?}");
    station.verify();
}

#[test]
fn a_full_or_read_only_disk_starts_nothing() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    // What is started would leave its mark where a disk is neither.
    let (station, elsewhere) = (Station::new(), Station::new());
    let started = elsewhere.path("started");
    let mount = station.path("small");
    std::fs::create_dir(&mount).unwrap();
    let line = format!(
        "unshare -m sh -c 'mount -t tmpfs -o size=64k none {m}; dd if=/dev/zero of={m}/fill bs=1k 2>/dev/null; \
         exec $JOBMETER --ledger {m}/l.db run -- touch {started}'",
        m = mount.display(),
        started = started.display()
    );
    let called = station.sh(&line);
    assert_eq!(called.status, 125, "{called:?}");
    assert!(called.err.contains("l.db"), "{}", called.err);
    station.ok(&["account", "limit", "5"]);
    let called = station.sh(&format!(
        "unshare -m sh -c 'mount --bind $DIR $DIR; mount -o remount,ro,bind $DIR; exec $JOBMETER run -- touch {}'",
        started.display()
    ));
    assert_eq!(called.status, 125, "{called:?}");
    assert!(!started.exists());
}

/// SFTP without a network: the server on the other end of two pipes.
#[test]
fn a_network_file_system_keeps_no_ledger() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    if station.sh("command -v sshfs && [ -x /usr/lib/openssh/sftp-server ]").status != 0 {
        return skip("sshfs is missing: install sshfs, openssh-sftp-server");
    }
    let called = station.sh("mkdir $DIR/far $DIR/near; mkfifo $DIR/to $DIR/from; exec 2>&1; \
         /usr/lib/openssh/sftp-server < $DIR/to > $DIR/from & sshfs -o passive :$DIR/far $DIR/near > $DIR/to < $DIR/from & \
         for i in $(seq 3000); do mountpoint -q $DIR/near && break; sleep 0.02; done; \
         mountpoint $DIR/near || exit 1; \
         timeout 60 $JOBMETER --ledger $DIR/near/l.db run -- touch $DIR/started; status=$?; \
         umount $DIR/near; exit $status");
    assert_eq!(called.status, 125, "{called:?}");
    assert!(called.out.contains("network file system (fuse.sshfs)"), "{}", called.out);
    assert!(!station.path("started").exists());
}

#[test]
fn as_another_user_with_nothing_of_ours() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let called = station.ok(&[
        "run",
        "-q",
        "--job",
        "n",
        "--as",
        "nobody",
        "--",
        "sh",
        "-c",
        "id -un; echo $HOME; ls -l /proc/self/fd | grep -c -v -E '/dev/null|pipe|/proc' || true",
    ]);
    assert!(called.out.starts_with("nobody\n/nonexistent\n"), "{}", called.out);
    assert_eq!(station.receipt("n")["outcome"]["tamper"], "none");
    let unnamed = station
        .command(&["run", "-q", "--job", "own", "--as", "nobody", "--", "true"])
        .env_remove("JOBMETER_USER")
        .status();
    assert!(unnamed.unwrap().success());
    let users = ["n", "own"].map(|job| station.json(&["jobs", "show", job])["user"].clone());
    assert_eq!(users, ["tester", "nobody"], "who is named pays, else whose command it is");
}

#[test]
fn signals_are_passed_on() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    for (signal, expected) in [(Signal::SIGTERM, 15), (Signal::SIGHUP, 1), (Signal::SIGINT, 2), (Signal::SIGUSR1, 10)] {
        let station = Station::new();
        let line =
            format!("trap 'exit {expected}' {}; echo ready; while :; do sleep 0.01; done", &signal.as_str()[3..]);
        let mut child = station
            .command(&["run", "--job", "s", "--", "bash", "-c", &line])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        assert_eq!(line_of(child.stdout.as_mut().unwrap()), "ready");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        assert_eq!(ended(&mut child).code(), Some(expected), "{signal}");
        station.verify();
    }
}

#[test]
fn a_second_interrupt_ends_what_survived_the_first() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let mark = mark();
    let line =
        format!(": {mark}; trap 'n=$((n+1)); [ $n -ge 2 ] && exit 9' INT; echo ready; while :; do sleep 0.01; done");
    let mut child = station
        .command(&["run", "--job", "i", "--", "bash", "-c", &line])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(line_of(child.stdout.as_mut().unwrap()), "ready");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let status = awaited(|| {
        // As a person who sees that nothing ends presses it once more.
        kill(pid, Signal::SIGINT).ok();
        jobmeter::sys::clock::pause(Duration::from_millis(50));
        child.try_wait().unwrap().ok_or_else(|| "it runs on".to_owned())
    });
    assert_eq!(status.code(), Some(9));
    assert!(processes_with(&mark).is_empty());
    station.verify();
}
