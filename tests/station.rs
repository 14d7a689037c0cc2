//! A jobmeter of its own: binary, ledger, spool and user, away from everything else on the machine.

#![allow(dead_code, clippy::print_stdout, reason = "each test binary uses a part of it, and says what it skips")]

#[path = "janitor.rs"]
pub(crate) mod janitor;

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use jobmeter::sys::clock::{Clock, SystemClock, pause};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use serde_json::Value;

/// What has to come comes within this, on a machine that is busy with something else as well; what hangs does not. Only a
/// failure takes so long.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Station {
    pub directory: tempfile::TempDir,
}

/// What a call printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Called {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Called {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let signal = || output.status.signal().map_or(-1, |signal| 128 + signal);
        let status = output.status.code().unwrap_or_else(signal);
        Self { status, out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Station {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("jobmeter-test-").tempdir().expect("a directory");
        janitor::takes(directory.path());
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs through a shell line whose `$JOBMETER` is the binary.
    pub(crate) fn shell(&self, line: &str) -> Command {
        let mut command = self.dressed(Command::new("bash"));
        command.args(["-c", line]);
        command
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.dressed(Command::new(env!("CARGO_BIN_EXE_jobmeter")));
        command.args(arguments);
        command
    }

    /// Something else that belongs to the station, and goes with it.
    pub(crate) fn program(&self, name: &str) -> Command {
        self.dressed(Command::new(name))
    }

    fn dressed(&self, mut command: Command) -> Command {
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            let others = ["JOBMETER", "SLURM", "CUDA", "NVIDIA", "FAKE_NVML"];
            let is_proxy = name.to_ascii_lowercase().ends_with("_proxy");
            if is_proxy || others.iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(&variable);
            }
        }
        std::fs::write(self.path("config.toml"), "").ok();
        command
            .env("JOBMETER", env!("CARGO_BIN_EXE_jobmeter"))
            .env("JOBMETER_LEDGER", self.path("ledger.db"))
            .env("JOBMETER_SPOOL", self.path("spool"))
            .env("JOBMETER_CONFIG", self.path("config.toml"))
            .env("JOBMETER_USER", "tester")
            .env("DIR", self.directory.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Called {
        self.command(arguments).output().expect("jobmeter starts").into()
    }

    pub(crate) fn sh(&self, line: &str) -> Called {
        self.shell(line).output().expect("a shell starts").into()
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> Called {
        let called = self.call(arguments);
        assert_eq!(called.status, 0, "{arguments:?}: {called:?}");
        called
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        serde_json::from_str(&self.ok(&all).out).expect("JSON")
    }

    /// Of the job `job`, its last attempt's.
    pub(crate) fn receipt(&self, job: &str) -> Value {
        let shown = self.json(&["jobs", "show", job]);
        shown["attempts"].as_array().expect("attempts").last().expect("an attempt")["receipt"].clone()
    }

    pub(crate) fn credits(&self) -> Value {
        self.json(&["status"])
    }

    pub(crate) fn verify(&self) {
        self.ok(&["ledger", "verify"]);
    }
}

impl Drop for Station {
    /// A test that failed leaves jobs that burn for ever; one that passed leaves nothing, or fails by that.
    fn drop(&mut self) {
        let path = self.directory.path().to_owned();
        let failed = std::thread::panicking();
        if within(if failed { Duration::ZERO } else { SOON }, || started_from(&path).is_empty()) {
            return;
        }
        let left: Vec<String> = started_from(&path).into_iter().map(command_line).collect();
        janitor::clean(&path);
        assert!(failed, "the test has left behind: {left:?}");
    }
}

/// Processes that a station in this directory has started, as far as this user may know.
fn started_from(directory: &Path) -> Vec<i32> {
    let of_station = format!("DIR={}", directory.display());
    let is_of_station = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == of_station.as_bytes())
    };
    all_processes().into_iter().filter(is_of_station).collect()
}

/// Says on a line of its own what is missing here, so that whoever runs the tests can count it. Where nothing may be missing
/// (`REQUIRE_KERNEL=1`), the test fails.
pub(crate) fn skip(reason: &str) {
    let required = std::env::var_os("REQUIRE_KERNEL").is_some_and(|value| value == "1");
    assert!(!required, "REQUIRE_KERNEL is set, but {reason}");
    skip_optional(reason);
}

/// Says the same of what a machine may lack on which everything else runs.
pub(crate) fn skip_optional(reason: &str) {
    println!("skipped: {reason}");
}

/// Looks until there is something to see; fails with what was seen last.
pub(crate) fn awaited<T>(mut look: impl FnMut() -> Result<T, String>) -> T {
    let (mut found, mut seen) = (None, String::new());
    let came = within(SOON, || match look() {
        Ok(value) => found.replace(value).is_none(),
        Err(told) => {
            seen = told;
            false
        }
    });
    assert!(came, "after {SOON:?}: {seen}");
    found.expect("what was found")
}

/// The next line of a pipe, which may take so long as nothing hangs.
pub(crate) fn line_of(pipe: &mut (impl Read + AsFd)) -> String {
    let mut line = Vec::new();
    loop {
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        let waited = nix::poll::poll(&mut fds, PollTimeout::try_from(SOON).expect("a time")).expect("a pipe");
        assert!(waited > 0, "after {SOON:?} no line, but {:?}", String::from_utf8_lossy(&line));
        let mut byte = [0];
        assert!(pipe.read(&mut byte).expect("a pipe") == 1, "it ended with {:?}", String::from_utf8_lossy(&line));
        if byte == *b"\n" {
            return String::from_utf8_lossy(&line).into_owned();
        }
        line.extend(byte);
    }
}

/// The status with which it ends.
pub(crate) fn ended(child: &mut Child) -> ExitStatus {
    awaited(|| child.try_wait().expect("a child of ours").ok_or_else(|| format!("{} runs on", child.id())))
}

/// Looks each millisecond until it is so; whether that came within the time.
pub(crate) fn within(time: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let until_us = SystemClock.boottime_us() + u64::try_from(time.as_micros()).unwrap();
    while !is_so() {
        if SystemClock.boottime_us() > until_us {
            return false;
        }
        pause(Duration::from_millis(1));
    }
    true
}

/// A number of a JSON document in millionths.
pub(crate) fn micros(value: &Value) -> u64 {
    let text = value.to_string();
    text.parse::<jobmeter::domain::units::Microseconds>().unwrap_or_else(|error| panic!("{text}: {error}")).0
}

/// A number of a JSON document in thousand-millionths.
pub(crate) fn nano(value: &Value) -> i64 {
    let text = value.to_string();
    text.parse::<jobmeter::domain::units::Nanocredits>().unwrap_or_else(|error| panic!("{text}: {error}")).0
}

pub(crate) fn all_processes() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn command_line(pid: i32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("{pid}: {}", String::from_utf8_lossy(&line).replace('\0', " "))
}

/// So many seconds as nobody else lets a `sleep` last: a process that sleeps so long is found by them.
pub(crate) fn mark() -> String {
    format!("3600.{:012}", uuid::Uuid::new_v4().as_u128() % 1_000_000_000_000)
}

/// Processes whose command line holds this text, but for jobmeter itself, which was given it.
pub(crate) fn processes_with(text: &str) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap();
    let has_text = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_meter = line.split(|byte| *byte == 0).next().is_some_and(|name| name.ends_with(b"jobmeter"));
        String::from_utf8_lossy(&line).contains(text) && !is_meter
    };
    all_processes().into_iter().filter(|pid| *pid != own).filter(has_text).collect()
}
