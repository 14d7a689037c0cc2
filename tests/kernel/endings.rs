//! Nothing of a job is left after its end, whatever its processes have come to and whatever the meter lacks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::station::{Called, Station, awaited, ended, mark, micros, nano, processes_with, skip_optional, within};
use crate::{Around, alone, present, v1, v2};

/// After the end of jobmeter, where the machine has nothing else to do.
const GONE_MAX: Duration = Duration::from_secs(1);

/// Its first thread ends, and is a zombie for as long as the other burns.
const FIRST_THREAD_ENDS: &str = "import ctypes, os, threading
def burn():
    while True: pass
threading.Thread(target=burn).start()
ctypes.CDLL(None).syscall(93 if os.uname().machine == 'aarch64' else 60, 0)";

const SOURCES: [&str; 5] = ["cgroup2", "cgroup1", "enclosing", "perf", "procfs"];

fn populated(group: &Around) -> bool {
    std::fs::read_to_string(group.0.join("cgroup.events")).unwrap().contains("populated 1")
}

fn python(station: &Station, group: &Around, arguments: &str, code: &str) -> Called {
    let line = format!("{} run --job e {arguments} -- python3 -c \"$CODE\"", group.enter());
    station.shell(&line).env("CODE", code).output().unwrap().into()
}

#[test]
fn a_process_whose_first_thread_has_ended_is_stopped() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    for source in present(SOURCES) {
        let (station, group) = (Station::new(), Around::new(&parent, "first-thread"));
        let called = python(&station, &group, &format!("--limit 0.0001 --cpu-source {source}"), FIRST_THREAD_ENDS);
        assert_eq!(called.status, 75, "{source}: {called:?}");
        assert!(within(GONE_MAX, || !populated(&group)), "{source}: something lives on");
        let receipt = station.receipt("e");
        assert_eq!(receipt["outcome"]["reason"], "job_limit", "{source}: {receipt}");
        assert!(nano(&receipt["credits"]["total"]) <= 100_000, "{source}: {receipt}");
        let (told, whole) = (micros(&receipt["cpu"]["total_seconds"]), group.cpu_us());
        // The clock of perf counts what the hypervisor took away.
        let stolen = if source == "perf" { micros(&receipt["cpu"]["steal_seconds"]) } else { 0 };
        assert!((300_000..=whole + stolen).contains(&told), "{source}: {told} of {whole} and {stolen} µs");
        station.verify();
    }
}

/// The job takes from its meter, which has the same user, every descriptor that it has not opened yet.
#[test]
fn a_meter_without_descriptors_ends_its_job() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    for source in ["cgroup2", "enclosing", "perf", "procfs"] {
        let (station, group, mark) = (Station::new(), Around::new(&parent, "descriptors"), mark());
        let line = format!(
            "(setsid sleep {mark} &); for pid in $PPID $(pgrep -P $PPID); do [ $pid = $$ ] || prlimit --pid $pid --nofile=0:0; \
             done; while :; do :; done"
        );
        let mut child = station
            .shell(&format!("{} run --job e --cpu-source {source} -- bash -c \"$LINE\"", group.enter()))
            .env("LINE", line)
            .spawn()
            .unwrap();
        assert_eq!(ended(&mut child).code(), Some(125), "{source}");
        assert!(within(GONE_MAX, || !populated(&group)), "{source}: {:?} live on", processes_with(&mark));
        assert_eq!(groups_below(&group), Vec::<PathBuf>::new(), "{source}");
        station.call(&["spool", "flush"]);
        assert_eq!(station.receipt("e")["outcome"]["reason"], "meter_lost", "{source}");
        station.verify();
    }
}

fn groups_below(group: &Around) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&group.0).unwrap().flatten();
    entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()).collect()
}

/// A file system on which everything that writes waits, and no signal ends that.
struct Stuck(PathBuf);

impl Stuck {
    fn new(station: &Station) -> Option<Self> {
        let made = station.sh(
            "mkdir $DIR/stuck; truncate -s 8M $DIR/disk; mkfs.ext4 -q $DIR/disk && mount -o loop $DIR/disk $DIR/stuck && \
             fsfreeze -f $DIR/stuck",
        );
        if made.status != 0 {
            skip_optional(&format!("no file system can be mounted and frozen: {}", made.err));
            station.sh("umount $DIR/stuck");
            return None;
        }
        Some(Self(station.path("stuck")))
    }

    fn let_go(&self) {
        std::process::Command::new("fsfreeze").arg("-u").arg(&self.0).stderr(std::process::Stdio::null()).status().ok();
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.let_go();
        let umounted =
            || std::process::Command::new("umount").arg(&self.0).status().is_ok_and(|status| status.success());
        within(Duration::from_secs(10), umounted);
    }
}

fn state_of(pid: i32) -> char {
    jobmeter::sys::tree::Stat::read(pid).map_or('-', |stat| stat.state)
}

#[test]
fn what_does_not_die_is_told_and_taken_away_by_the_next_jobmeter() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    // Each waits until what does not die is given up, and neither burns.
    std::thread::scope(|scope| {
        for source in present(["cgroup2", "cgroup1"]) {
            scope.spawn(|| what_does_not_die(&parent, source));
        }
    });
}

fn what_does_not_die(parent: &Path, source: &str) {
    let station = Station::new();
    let Some(stuck) = Stuck::new(&station) else { return };
    let (group, mark) = (Around::new(parent, "stuck"), mark());
    let line = format!("exec -a {mark} tee $DIR/stuck/file <<< word");
    let mut child = station
        .shell(&format!("{} run --job e --cpu-source {source} -- bash -c \"$LINE\"", group.enter()))
        .env("LINE", line)
        .spawn()
        .unwrap();
    let writer = awaited(|| match processes_with(&mark).as_slice() {
        [pid] if state_of(*pid) == 'D' => Ok(*pid),
        found => Err(format!("{found:?} do not wait for the disk")),
    });
    station.ok(&["jobs", "stop", "e"]);
    assert_eq!(ended(&mut child).code(), Some(125), "{source}");
    let receipt = station.receipt("e");
    assert_eq!(receipt["outcome"]["reason"], "unkillable", "{source}: {receipt}");
    assert_eq!(receipt["outcome"]["unkillable"], serde_json::json!([writer]), "{source}: {receipt}");
    let flushed = station.call(&["spool", "flush"]);
    assert!(flushed.out.contains("do not die of SIGKILL"), "{source}: {flushed:?}");
    stuck.let_go();
    let flushed = station.ok(&["spool", "flush"]);
    assert!(flushed.out.contains("settled"), "{source}: {flushed:?}");
    assert_eq!(groups_below(&group), Vec::<PathBuf>::new(), "{source}");
    let name = format!("jobmeter-{}", receipt["job"]["attempt"].as_str().unwrap());
    assert!(!v1("freezer").is_some_and(|freezer| freezer.path().join(&name).exists()), "{source}: {name}");
    station.verify();
}
