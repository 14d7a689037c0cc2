//! Where jobmeter may be started: without groups to write, under quotas and affinities, in groups that were killed, on
//! disks that are full or read-only, as another user, and with signals under way.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::station::{Station, micros, processes_with, within};
use crate::{Around, alone, v2};

#[test]
fn without_a_group_to_write_the_next_source_is_taken_and_said() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    let station = Station::new();
    let v2 = parent.display();
    let called = station.sh(&format!("unshare -m sh -c 'mount -o remount,ro,bind {v2}; exec $JOBMETER run --job a -- python3 -c \"sum(range(9000000))\"'"));
    assert_eq!(called.status, 0, "{called:?}");
    assert_eq!(station.receipt("a")["cpu"]["source"], "cgroup1");
    let line = "unshare -m sh -c 'for d in $(awk \"/^cgroup/{print \\$2}\" /proc/mounts); do mount -o remount,ro,bind $d; done; \
                exec $JOBMETER run --job b -- python3 -c \"sum(range(9000000))\"'";
    let called = station.sh(line);
    assert_eq!(called.status, 0, "{called:?}");
    let receipt = station.receipt("b");
    assert_eq!(receipt["cpu"]["source"], "perf");
    assert!(micros(&receipt["cpu"]["total_seconds"]) > 30_000, "{receipt}");
    assert!(called.err.contains("jobmeter: note: "), "{}", called.err);
}

#[test]
fn alone_in_its_group_the_enclosing_counter_is_used() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    let station = Station::new();
    let group = Around::new(&parent, "enclosing");
    let called = station
        .sh(&format!("{} run --cpu-source enclosing --job e -- python3 -c 'sum(range(20000000))'", group.enter()));
    assert_eq!(called.status, 0, "{called:?}");
    let truth: u64 = std::fs::read_to_string(group.0.join("cpu.stat"))
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "))
        .unwrap()
        .parse()
        .unwrap();
    let metered = micros(&station.receipt("e")["cpu"]["total_seconds"]);
    assert!(metered <= truth && metered * 100 > truth * 85, "{metered} of {truth}");
}

#[test]
fn a_quota_lowers_the_highest_rate_and_an_affinity_does_not() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let rate = |line: &str| {
        let called = station.sh(line);
        assert_eq!(called.status, 0, "{called:?}");
        let found: serde_json::Value = serde_json::from_str(&called.out).unwrap();
        found["highestCpusPpm"].as_u64().unwrap()
    };
    let free = rate("$JOBMETER --json run --dry-run -- true");
    assert_eq!(rate("taskset -c 0 $JOBMETER --json run --dry-run -- true"), free);
    if let Ok(cpu) = jobmeter::sys::cgroup1::own_group("cpu") {
        let group = Around::new(cpu.path(), "quota");
        std::fs::write(group.0.join("cpu.cfs_quota_us"), "50000").unwrap();
        std::fs::write(group.0.join("cpu.cfs_period_us"), "100000").unwrap();
        assert_eq!(rate(&format!("{} --json run --dry-run -- true", group.enter())), 500_000);
        // At its limit it ends at once, and is not kept frozen as if more could come.
        let line = format!("{} run --job q --limit 0.0001 -- sh -c 'while :; do :; done'", group.enter());
        assert_eq!(station.sh(&line).status, 75);
        let receipt = station.receipt("q");
        assert_eq!(receipt["outcome"]["reason"], "job_limit", "{receipt}");
        assert!(micros(&receipt["time"]["held_seconds"]) < 2_000_000, "{receipt}");
        station.verify();
    }
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
    let station = Station::new();
    let mount = station.path("small");
    std::fs::create_dir(&mount).unwrap();
    let line = format!(
        "unshare -m sh -c 'mount -t tmpfs -o size=64k none {m}; dd if=/dev/zero of={m}/fill bs=1k 2>/dev/null; \
         exec $JOBMETER --ledger {m}/l.db run -- touch /tmp/jobmeter-never-4'",
        m = mount.display()
    );
    let called = station.sh(&line);
    assert_eq!(called.status, 125, "{called:?}");
    assert!(called.err.contains("l.db"), "{}", called.err);
    station.ok(&["status"]);
    let directory = station.directory.path().display();
    let called = station.sh(&format!(
        "unshare -m sh -c 'mount --bind {directory} {directory}; mount -o remount,ro,bind {directory}; exec $JOBMETER run -- touch /tmp/jobmeter-never-4'"
    ));
    assert_eq!(called.status, 125, "{called:?}");
    assert!(!std::path::Path::new("/tmp/jobmeter-never-4").exists());
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
        assert!(std::env::var_os("REQUIRE_KERNEL").is_none(), "sshfs is missing: install sshfs, openssh-sftp-server");
        println!("skipped: sshfs is missing");
        return;
    }
    let called = station.sh("mkdir $DIR/far $DIR/near; mkfifo $DIR/to $DIR/from; exec 2>&1; \
         /usr/lib/openssh/sftp-server < $DIR/to > $DIR/from & sshfs -o passive :$DIR/far $DIR/near > $DIR/to < $DIR/from & \
         for i in $(seq 200); do mountpoint -q $DIR/near && break; sleep 0.02; done; \
         timeout 20 $JOBMETER --ledger $DIR/near/l.db run -- touch /tmp/jobmeter-never-6; status=$?; \
         umount $DIR/near; exit $status");
    assert_eq!(called.status, 125, "{called:?}");
    assert!(called.out.contains("network file system (fuse.sshfs)"), "{}", called.out);
    assert!(!std::path::Path::new("/tmp/jobmeter-never-6").exists());
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

/// Until the command has said "ready".
fn await_ready(child: &mut std::process::Child) {
    let mut ready = [0_u8; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
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
        await_ready(&mut child);
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(expected), "{signal}");
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
    let line = "trap 'n=$((n+1)); [ $n -ge 2 ] && exit 9' INT; echo ready; while :; do sleep 0.01; done";
    let mut child = station
        .command(&["run", "--job", "i", "--", "bash", "-c", line])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    await_ready(&mut child);
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let ended = within(Duration::from_secs(5), || {
        kill(pid, Signal::SIGINT).ok();
        jobmeter::sys::clock::pause(Duration::from_millis(50));
        child.try_wait().unwrap().is_some()
    });
    assert!(ended);
    assert!(processes_with("n=$((n+1))").is_empty());
    station.verify();
}
