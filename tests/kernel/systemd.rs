//! A real systemd, booted in namespaces of its own: what an ordinary user gets in a login session.

use std::process::{Child, Command, Stdio};

use jobmeter::sys::cgroup::Group;

use crate::station::{Called, SOON, awaited, skip};
use crate::{Around, alone, v2};

/// A booted systemd; it ends with the test.
struct Machine {
    init: String,
    boot: Child,
    group: Around,
}

/// The last process of the chain that boots it: systemd, once it is PID 1 of its namespace.
fn init_below(pid: u32) -> Option<String> {
    let children = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok();
    let mut pid = pid.to_string();
    loop {
        if std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "systemd\n") {
            return Some(pid);
        }
        pid = children(&pid)?.split_whitespace().next()?.to_owned();
    }
}

impl Machine {
    fn boot(parent: &std::path::Path) -> Self {
        let group = Around::new(parent, "systemd");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/systemd.sh");
        let boot = Command::new("bash")
            .args([script, &group.0.to_string_lossy(), env!("CARGO_BIN_EXE_jobmeter")])
            .stdin(Stdio::null())
            .spawn()
            .expect("bash starts");
        let mut machine = Self { init: String::new(), boot, group };
        awaited(|| {
            machine.init = init_below(machine.boot.id()).ok_or("systemd is not there yet")?;
            let state = machine.call(&["systemctl", "is-system-running", "--wait"]);
            let is_up = matches!(state.out.trim(), "running" | "degraded");
            if is_up { Ok(()) } else { Err(format!("systemd has not booted: {state:?}")) }
        });
        machine
    }

    fn call(&self, command: &[&str]) -> Called {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["-t", &self.init, "-m", "-p", "-i", "-n", "-u", "-C", "-r", "-w", "--"]).args(command);
        nsenter.stdin(Stdio::null()).output().expect("nsenter starts").into()
    }

    /// In a login session of an ordinary user.
    fn logged_in(&self, line: &str) -> Called {
        let user = ["-p", "User=jobmeter-tester", "-p", "PAMName=login", "bash", "-c"];
        let mut all = vec!["systemd-run", "--quiet", "--wait", "--pipe"];
        all.extend(user);
        all.push(line);
        self.call(&all)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(group) = Group::open(&self.group.0) {
            group.kill().ok();
            group.wait_empty(SOON).ok();
            group.remove().ok();
        }
        self.boot.wait().ok();
    }
}

#[test]
fn an_ordinary_user_gets_a_delegated_scope_of_the_user_manager() {
    let Some(parent) = v2() else { return };
    let installed = ["/lib/systemd/systemd", "/lib/systemd/system/user@.service", "/usr/bin/busctl"];
    if let Some(missing) = installed.iter().find(|path| !std::path::Path::new(path).exists()) {
        return skip(&format!("{missing} is missing: install systemd, dbus-user-session"));
    }
    let _one = alone();
    let machine = Machine::boot(&parent);

    let called = machine.logged_in("jobmeter run -q --job g -- grep ^0:: /proc/self/cgroup");
    assert_eq!(called.status, 0, "{called:?}");
    assert!(called.out.contains("/user@4217.service/app.slice/jobmeter-"), "{called:?}");
    assert!(called.out.ends_with("/job\n"), "{called:?}");

    // It is frozen and stopped there as with a group of root's, daemons included.
    let line =
        "jobmeter run --job l --limit 0.0001 -- bash -c '(setsid bash -c \"while :; do :; done\" &); wait; sleep 60'";
    let called = machine.logged_in(line);
    assert_eq!(called.status, 75, "{called:?}");
    let shown = machine.logged_in("jobmeter --json jobs show l");
    let job: serde_json::Value = serde_json::from_str(&shown.out).expect("JSON");
    let receipt = &job["attempts"][0]["receipt"];
    assert_eq!((&receipt["cpu"]["source"], &receipt["outcome"]["reason"]), (&"cgroup2".into(), &"job_limit".into()));
    assert_eq!(machine.logged_in("jobmeter ledger verify").status, 0);

    // From a service, whose limits must go on to hold, it does not move away.
    let user = ["-p", "User=jobmeter-tester", "-p", "Environment=HOME=/home/jobmeter-tester"];
    let service = ["systemd-run", "--quiet", "--wait", "--pipe", user[0], user[1], user[2], user[3]];
    let mut all = service.to_vec();
    all.extend(["jobmeter", "run", "-q", "--", "grep", "^0::", "/proc/self/cgroup"]);
    let called = machine.call(&all);
    assert!(called.out.starts_with("0::/system.slice/run-"), "{called:?}");
    let left = machine.logged_in("systemctl --user list-units --type=scope --no-legend --plain");
    assert!(!left.out.contains("jobmeter-"), "{left:?}");
}
