//! A jobmeter of its own: binary, ledger, spool and user, away from everything else on the machine.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use jobmeter::sys::clock::{Clock, SystemClock, pause};
use serde_json::Value;

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
        Self { directory: tempfile::tempdir().expect("a directory") }
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

    fn dressed(&self, mut command: Command) -> Command {
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            let others = ["JOBMETER", "SLURM", "CUDA", "NVIDIA"];
            if others.iter().any(|prefix| name.starts_with(prefix)) {
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

/// Processes whose command line holds this text, but for jobmeter itself, which was given it.
pub(crate) fn processes_with(text: &str) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let is_meter = line.split(|byte| *byte == 0).next().is_some_and(|name| name.ends_with(b"jobmeter"));
            String::from_utf8_lossy(&line).contains(text) && !is_meter
        })
        .collect()
}
