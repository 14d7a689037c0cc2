//! Clocks that are set, and ledgers that vanish, while a real job runs.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::station::{Station, ended, line_of, micros, nano, skip, within};
use crate::{alone, v2};

const DAY_S: i64 = 86_400;

/// Where libfaketime is, which sets the wall clock of single processes by an offset in a file.
fn faketime() -> Option<String> {
    let found = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let libraries = found.map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    let library = libraries.into_iter().find(|path| path.exists()).map(|path| path.display().to_string());
    if library.is_none() {
        skip("libfaketime is missing: install faketime");
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

    /// Without a shell, which would leave behind what the library shares between processes.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.station.command(arguments);
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.station.path("offset"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[&["--json"], arguments].concat()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {output:?}"))
    }

    /// What the books, which have to be right, say of the one job: its receipt, and what each day paid, in order.
    fn booked(&self, job: &str) -> (Value, Vec<i64>) {
        let verified = self.command(&["ledger", "verify"]).output().unwrap();
        assert!(verified.status.success(), "{verified:?}");
        let receipt = self.json(&["jobs", "show", job])["attempts"][0]["receipt"].clone();
        let cpu_us = micros(&receipt["cpu"]["total_seconds"]);
        assert_eq!(i64::try_from(cpu_us).unwrap() / 4, nano(&receipt["credits"]["total"]), "{receipt}");
        let mut days = Vec::new();
        for month in self.json(&["usage"]).as_array().unwrap() {
            let found = self.json(&["usage", "--month", &month["periodStart"].as_str().unwrap()[..7]]);
            days.extend(found.as_array().unwrap().iter().map(|day| nano(&day["totalCredits"])));
        }
        (receipt, days)
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

/// Burns, and says how much CPU time it has used: at the midnight of its argument, by the true clock, and then three times once
/// it has used another second, each time until it gets a word.
const BURN: &str = r#"
import os, resource, sys, time
# A shell may have been before Python in this process.
before = resource.getrusage(resource.RUSAGE_CHILDREN)
def burned_s(): return time.process_time() + before.ru_utime + before.ru_stime
def tell(name, is_over):
    while not is_over(): pass
    print(name, int(burned_s() * 1e6), flush=True)
os.set_blocking(0, False)
def told():
    try: return os.read(0, 1)
    except BlockingIOError: return b""
midnight = float(sys.argv[1])
tell("midnight", lambda: time.time() >= midnight)
for name in ("day", "back", "forward"):
    from_s = burned_s()
    tell(name, lambda: burned_s() >= from_s + 1)
    while told() == b"": pass
tell("end", lambda: True)
"#;

/// What it says next: the CPU time until then.
fn told_us(child: &mut Child, name: &str) -> u64 {
    let line = line_of(child.stdout.as_mut().unwrap());
    let us = line.strip_prefix(name).unwrap_or_else(|| panic!("{line} is not {name}"));
    us.trim().parse().unwrap()
}

#[test]
fn a_clock_that_is_set_over_midnight_and_back_loses_and_doubles_nothing() {
    if v2().is_none() {
        return;
    }
    let Some(library) = faketime() else { return };
    let _one = alone();
    let faked = Faked { station: Station::new(), library };
    let start = until_midnight() - 5;
    faked.set(start);
    // The true time at which its own clock strikes.
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let midnight = ((i64::try_from(now.as_secs()).unwrap() + start) / DAY_S + 1) * DAY_S - start;
    let burn = ["env", "-u", "LD_PRELOAD", "python3", "-c", BURN, &midnight.to_string()];
    let mut command = faked.command(&[&["run", "--job", "m", "--"], &burn[..]].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let at_midnight_us = told_us(&mut child, "midnight");
    let mut words = child.stdin.take().unwrap();
    for (name, offset) in [("day", start), ("back", start - DAY_S / 2), ("forward", start + DAY_S / 2)] {
        faked.set(offset);
        told_us(&mut child, name);
        // It runs on for a while by the clock as it is now: time is what is tested.
        assert!(!ends_within(&mut child, Duration::from_millis(1_500)), "it ended early");
        words.write_all(b"x").unwrap();
    }
    let burned_us = told_us(&mut child, "end");
    assert!(ended(&mut child).success());
    let (receipt, days) = faked.booked("m");
    let cpu_us = micros(&receipt["cpu"]["total_seconds"]);
    // It has burned a little more than it could say: its start before it was Python, and its end.
    assert!(cpu_us >= burned_us && cpu_us <= burned_us + burned_us / 20, "{cpu_us} of {burned_us} µs");
    assert!(days.len() == 2, "{days:?}");
    assert_eq!(days.iter().sum::<i64>(), i64::try_from(cpu_us).unwrap() / 4);
    // Each day paid for what was burned in it. The meter counts to midnight from when it asked, which the ledger took up to
    // this long to answer.
    let (first_us, answer_us) =
        (days[0].unsigned_abs() * 4, micros(&receipt["meter"]["ledger_answers"]["max_seconds"]));
    let off_us = first_us.abs_diff(at_midnight_us);
    assert!(off_us <= 50_000 + answer_us, "{days:?}: {at_midnight_us} µs until midnight, {answer_us} µs for an answer");
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
    assert_eq!(line_of(child.stdout.as_mut().unwrap()), "ready");
    let (ledger, aside) = (station.path("ledger.db"), station.path("aside.db"));
    std::fs::rename(&ledger, &aside).unwrap();
    std::fs::write(&ledger, "not a ledger, but what somebody else has put there\n".repeat(100)).unwrap();
    // Longer than a report takes to come due, with most of the lease left: time is what is tested.
    assert!(!ends_within(&mut child, Duration::from_secs(3)), "it was stopped");
    std::fs::rename(&aside, &ledger).unwrap();
    std::fs::write(station.path("go"), "").unwrap();
    assert!(ended(&mut child).success());
    let receipt = station.receipt("v");
    assert_eq!(receipt["outcome"]["reason"], "completed");
    let cpu_us = micros(&receipt["cpu"]["total_seconds"]);
    assert_eq!(nano(&receipt["credits"]["total"]), i64::try_from(cpu_us).unwrap() / 4);
    assert_eq!(station.ok(&["spool", "list"]).out, "nothing is in the spool\n");
    station.verify();
}
