//! Clocks that are set, and ledgers that vanish, while a real job runs.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::station::{Station, micros, nano, within};
use crate::{alone, v2};

const DAY_S: i64 = 86_400;

/// Where libfaketime is, which sets the wall clock of single processes by an offset in a file.
fn faketime() -> Option<String> {
    let found = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let libraries = found.map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    let library = libraries.into_iter().find(|path| path.exists()).map(|path| path.display().to_string());
    if library.is_none() {
        assert!(std::env::var_os("REQUIRE_KERNEL").is_none(), "libfaketime is missing: install faketime");
        println!("skipped: libfaketime is missing");
    }
    library
}

/// A station whose wall clock is wrong by what stands in the file `offset`.
struct Faked {
    station: Station,
    library: String,
}

impl Faked {
    fn set(&self, offset_s: i64) {
        let (new, path) = (self.station.path("offset.new"), self.station.path("offset"));
        std::fs::write(&new, format!("{offset_s:+}\n")).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.station.shell(line);
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.station.path("offset"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    }
}

fn ends_within(child: &mut Child, time: Duration) -> bool {
    within(time, || child.try_wait().unwrap().is_some())
}

/// So many seconds until the next midnight, UTC.
fn until_midnight() -> i64 {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    DAY_S - i64::try_from(now).unwrap() % DAY_S
}

#[test]
fn a_clock_that_is_set_over_midnight_and_back_loses_and_doubles_nothing() {
    if v2().is_none() {
        return;
    }
    let Some(library) = faketime() else { return };
    let _one = alone();
    let faked = Faked { station: Station::new(), library };
    // Two to three seconds before midnight the job starts: midnight is known to the second only.
    let start = until_midnight() - 3;
    faked.set(start);
    let burn = "import time; end = time.monotonic() + 8\nwhile time.monotonic() < end: pass";
    let line = format!("exec $JOBMETER run --job m -- env -u LD_PRELOAD python3 -c '{burn}'");
    let mut child = faked.command(&line).stderr(Stdio::null()).spawn().unwrap();
    for (after_s, offset) in [(5, start - DAY_S / 2), (2, start + DAY_S / 2)] {
        assert!(!ends_within(&mut child, Duration::from_secs(after_s)), "it ended early");
        faked.set(offset);
    }
    assert!(ends_within(&mut child, Duration::from_secs(15)));
    assert!(child.wait().unwrap().success());

    let verified = faked.command("$JOBMETER ledger verify").output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let shown = faked.command("$JOBMETER --json jobs show m").output().unwrap();
    let job: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let receipt = &job["attempts"][0]["receipt"];
    let (cpu_us, charged) = (micros(&receipt["cpu"]["total_seconds"]), nano(&receipt["credits"]["total"]));
    assert_eq!(i64::try_from(cpu_us).unwrap() / 4, charged);
    assert!(cpu_us > 5_000_000, "{receipt}");
    // Both days were charged, together all of it.
    let usage = faked.command("$JOBMETER --json usage").output().unwrap();
    let months: serde_json::Value = serde_json::from_slice(&usage.stdout).unwrap();
    let mut days = Vec::new();
    for month in months.as_array().unwrap() {
        let month = month["periodStart"].as_str().unwrap().get(..7).unwrap();
        let output = faked.command(&format!("$JOBMETER --json usage --month {month}")).output().unwrap();
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        days.extend(found.as_array().unwrap().iter().map(|day| nano(&day["totalCredits"])));
    }
    assert!(days.len() == 2 && days.iter().all(|credits| *credits > 250_000), "{days:?}");
    assert_eq!(days.iter().sum::<i64>(), charged);
}

#[test]
fn a_ledger_that_vanishes_under_way_stops_no_job_within_its_lease() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let line = "echo ready; while [ ! -e $DIR/go ]; do :; done";
    let mut child =
        station.command(&["run", "--job", "v", "--", "bash", "-c", line]).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0_u8; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let (ledger, aside) = (station.path("ledger.db"), station.path("aside.db"));
    std::fs::rename(&ledger, &aside).unwrap();
    std::fs::write(&ledger, "not a ledger, but what somebody else has put there\n".repeat(100)).unwrap();
    // Longer than a report takes to come due, with most of the lease left.
    assert!(!ends_within(&mut child, Duration::from_secs(3)), "it was stopped");
    std::fs::rename(&aside, &ledger).unwrap();
    std::fs::write(station.path("go"), "").unwrap();
    assert!(ends_within(&mut child, Duration::from_secs(10)));
    assert!(child.wait().unwrap().success());
    let receipt = station.receipt("v");
    assert_eq!(receipt["outcome"]["reason"], "completed");
    let cpu_us = micros(&receipt["cpu"]["total_seconds"]);
    assert_eq!(nano(&receipt["credits"]["total"]), i64::try_from(cpu_us).unwrap() / 4);
    assert_eq!(station.ok(&["spool", "list"]).out, "nothing is in the spool\n");
    station.verify();
}
