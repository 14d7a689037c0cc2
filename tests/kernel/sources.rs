//! Each source of CPU time against the counter of a group around the job alone, with jobs that sources lose: short and
//! daemonised children, children that nobody waits for, a first thread that ends, programs that nobody may look into.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use jobmeter::sys::clock::{Clock, SystemClock};
use serde_json::Value;

use crate::station::{Called, Station, awaited, ended, janitor, micros, nano, skip_optional};
use crate::{Around, alone, present, v1, v2};

const NOBODY: u32 = 65_534;
/// What stays at the ends of a run, whatever its length: the system call by which the job enters the group.
const ENDS_US: u64 = 300;
/// Said where a parent has not waited for its children.
const NOT_WAITED_FOR: &str = "ignores SIGCHLD";

/// A station that everybody can enter, with the burner in it: as it is, set-uid, and unreadable.
struct Bench {
    station: Station,
    burner: String,
    set_uid: String,
    unreadable: String,
}

impl Bench {
    fn new() -> Option<Self> {
        let station = Station::new();
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(station.directory.path(), everybody).unwrap();
        let path = |name: &str| station.path(name).to_str().unwrap().to_owned();
        let (burner, set_uid, unreadable) = (path("burner"), path("set-uid"), path("unreadable"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/burner.c");
        let built = Command::new("gcc").args(["-O1", "-pthread", "-o", &burner, source]).output();
        match built {
            Ok(built) => assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr)),
            Err(error) => {
                skip_optional(&format!("gcc: {error}"));
                return None;
            }
        }
        for (copy, mode) in [(&set_uid, 0o4755), (&unreadable, 0o711)] {
            std::fs::copy(&burner, copy).unwrap();
            std::fs::set_permissions(copy, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        Some(Self { station, burner, set_uid, unreadable })
    }

    /// The burner's arguments for a job by this name that burns `ms`, and whose job it is.
    fn workload<'a>(&'a self, name: &'a str, ms: &'a str) -> (Vec<&'a str>, Option<u32>) {
        match name {
            "set-uid" => (vec!["exec", ms, &self.set_uid], Some(NOBODY)),
            "unreadable" => (vec!["exec", ms, &self.unreadable], Some(NOBODY)),
            mode => (vec![mode, ms], None),
        }
    }
}

/// A counter around the job alone: of the hierarchy that the source does not use.
enum Truth {
    V2(Around),
    V1(Around),
}

impl Truth {
    fn path(&self) -> &Path {
        match self {
            Self::V2(group) | Self::V1(group) => &group.0,
        }
    }

    fn cpu_us(&self) -> u64 {
        match self {
            Self::V2(group) => group.cpu_us(),
            Self::V1(group) => {
                let ns = std::fs::read_to_string(group.0.join("cpuacct.usage")).unwrap();
                ns.trim().parse::<u64>().unwrap() / 1_000
            }
        }
    }
}

struct Measured {
    source: &'static str,
    workload: String,
    metered_us: u64,
    truth_us: u64,
    degraded: String,
}

impl Measured {
    fn is_within(&self, share: u64) -> bool {
        self.metered_us.abs_diff(self.truth_us) <= self.truth_us / share + ENDS_US
    }

    fn check(&self) {
        let Self { source, workload, metered_us, truth_us, degraded } = self;
        println!("{source}, {workload}: {metered_us} µs metered of {truth_us} µs");
        let (share, may_be_said) = match *source {
            "perf" | "procfs" => (100, true),
            _ => (1_000, false),
        };
        let is_said = may_be_said && degraded.contains(NOT_WAITED_FOR);
        assert!(self.is_within(share) || is_said, "{source}, {workload}: {metered_us} of {truth_us} µs: {degraded}");
        // Nothing is charged that was not burned.
        assert!(*metered_us <= truth_us + truth_us / share + ENDS_US, "{source}, {workload}");
        assert_eq!(is_said, may_be_said && workload == "ignored", "{source}, {workload}: {degraded}");
    }
}

/// What the receipt says beside what every receipt of the source says.
fn degraded_by_the_job(receipt: &Value) -> String {
    let all = receipt["outcome"]["degraded"].as_array().cloned().unwrap_or_default();
    let of_job = all.iter().filter_map(Value::as_str).filter(|text| text.contains("of the job"));
    of_job.collect::<Vec<_>>().join("; ")
}

fn measure(bench: &Bench, parent: &Path, source: &'static str, workload: &str, ms: &str) -> Option<Measured> {
    let group = Around::new(parent, "sources");
    let truth = match source {
        "cgroup2" => Truth::V1(Around::new(v1("cpuacct")?.path(), "truth")),
        _ => Truth::V2(Around::new(&group.0, "truth")),
    };
    let before = bench.station.path("before");
    let (arguments, user) = bench.workload(workload, ms);
    let job = uuid::Uuid::new_v4().to_string();
    let line = format!(
        "{} run --wait-descendants --job {job} --cpu-source {source} -- {} {}",
        group.enter(),
        bench.burner,
        arguments.join(" ")
    );
    let mut command = bench.station.shell(&line);
    command.env("TRUTH", truth.path().join("cgroup.procs")).env("BEFORE", &before);
    user.map(|user| command.env("BECOME", user.to_string()));
    let called: Called = command.output().unwrap().into();
    assert_eq!(called.status, 0, "{source}, {workload}: {called:?}");
    let before_us: u64 = std::fs::read_to_string(before).unwrap().parse().unwrap();
    let receipt = bench.station.receipt(&job);
    assert_eq!(receipt["cpu"]["source"], source);
    assert_ne!(receipt["outcome"]["tamper"], "detected");
    Some(Measured {
        source,
        workload: workload.to_owned(),
        metered_us: micros(&receipt["cpu"]["total_seconds"]),
        truth_us: truth.cpu_us() + before_us,
        degraded: degraded_by_the_job(&receipt),
    })
}

const SOURCES: [&str; 5] = ["cgroup2", "cgroup1", "enclosing", "perf", "procfs"];

fn each_source_is_exact(workloads: &[&str], ms: &str) {
    let Some(parent) = v2() else { return };
    let _one = alone();
    let Some(bench) = Bench::new() else { return };
    for source in present(SOURCES) {
        for workload in workloads {
            if let Some(measured) = measure(&bench, &parent, source, workload, ms) {
                measured.check();
            }
        }
    }
}

#[test]
fn each_source_counts_what_a_group_around_the_job_counts() {
    each_source_is_exact(&["plain", "children", "ignored", "thread", "set-uid", "unreadable", "daemons"], "1500");
}

/// Burns beside the job until it is dropped.
struct Busy(Vec<Child>);

impl Busy {
    fn new(bench: &Bench) -> Self {
        let burner = || bench.station.program(&bench.burner).args(["plain", "3600000"]).spawn().unwrap();
        let cpus = std::thread::available_parallelism().unwrap().get();
        Self((0..cpus).map(|_| burner()).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for burner in &mut self.0 {
            burner.kill().ok();
            burner.wait().ok();
        }
    }
}

#[test]
fn so_it_does_where_every_cpu_is_busy() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    let Some(bench) = Bench::new() else { return };
    let _busy = Busy::new(&bench);
    for source in present(SOURCES) {
        // To a group it is a program like any other.
        let set_uid = ["perf", "procfs"].contains(&source).then_some("set-uid");
        for workload in ["plain", "children"].into_iter().chain(set_uid) {
            if let Some(measured) = measure(&bench, &parent, source, workload, "1500") {
                measured.check();
            }
        }
    }
}

/// The command has the open files of jobmeter's caller, and none of jobmeter's own.
#[test]
fn no_source_leaves_the_command_a_file() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    let station = Station::new();
    let listed = "ls /proc/self/fd";
    let alone = station.sh(&format!("exec {listed}"));
    for source in present(SOURCES) {
        let group = Around::new(&parent, "files");
        let called = station.sh(&format!("{} run --cpu-source {source} -- {listed}", group.enter()));
        assert_eq!((called.status, &called.out), (0, &alone.out), "{source}: {called:?}");
    }
}

/// 0.4 s may be burned, and the job would burn ten times that.
#[test]
fn a_program_that_perf_cannot_see_is_stopped_at_its_limit() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    let Some(bench) = Bench::new() else { return };
    for source in ["perf", "procfs"] {
        for workload in ["set-uid", "unreadable"] {
            let group = Around::new(&parent, "limit");
            let (arguments, _) = bench.workload(workload, "4000");
            let job = format!("{source}-{workload}");
            let line = format!(
                "{} run --job {job} --limit 0.0001 --cpu-source {source} -- {} {}",
                group.enter(),
                bench.burner,
                arguments.join(" ")
            );
            let called: Called = bench.station.shell(&line).env("BECOME", NOBODY.to_string()).output().unwrap().into();
            assert_eq!(called.status, 75, "{source}, {workload}: {called:?}");
            let receipt = bench.station.receipt(&job);
            let (charged, burned) = (nano(&receipt["credits"]["total"]), micros(&receipt["cpu"]["total_seconds"]));
            println!("{source}, {workload}: {burned} µs burned of 400000");
            assert!(charged <= 100_000, "{source}, {workload}: {charged}");
            assert!((340_000..440_000).contains(&burned), "{source}, {workload}: {burned}");
            bench.station.verify();
        }
    }
}

#[test]
fn a_process_that_exits_while_it_is_looked_at_has_not_left_its_group() {
    let Some(_) = v2() else { return };
    let _one = alone();
    let Some(bench) = Bench::new() else { return };
    for source in present(["cgroup1", "cgroup2"]) {
        let arguments = ["run", "--job", source, "--interval", "50ms", "--cpu-source", source, "--"];
        bench.station.ok(&[&arguments[..], &[&bench.burner, "storm", "60"]].concat());
        let receipt = bench.station.receipt(source);
        assert_ne!(receipt["outcome"]["tamper"], "detected", "{receipt}");
    }
}

/// Each of the two groups can be left without the other.
#[test]
fn a_job_that_leaves_one_of_its_v1_groups_is_brought_back() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    for controller in ["cpuacct", "freezer"] {
        let Some(group) = v1(controller) else { return };
        let station = Station::new();
        let line = format!("echo $$ > {}/cgroup.procs; while :; do :; done", group.path().display());
        let options = ["run", "--job", "l", "--limit", "0.0001", "--interval", "50ms", "--cpu-source", "cgroup1"];
        let mut child = station.command(&[&options[..], &["--", "bash", "-c", &line]].concat()).spawn().unwrap();
        assert_eq!(ended(&mut child).code(), Some(75), "{controller}");
        let receipt = station.receipt("l");
        assert_eq!(receipt["outcome"]["tamper"], "detected", "{controller}: {receipt}");
        assert!(micros(&receipt["cpu"]["total_seconds"]) > 300_000, "{controller}: {receipt}");
    }
}

/// Burns in the group until it is dropped: jobmeter may not kill it.
struct Left(PathBuf);

impl Drop for Left {
    fn drop(&mut self) {
        std::fs::write(self.0.join("cgroup.kill"), "1").ok();
        janitor::clean(&self.0);
    }
}

#[test]
fn what_has_become_another_user_and_cannot_be_killed_is_said_at_once() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    let Some(bench) = Bench::new() else { return };
    chown(bench.station.directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let group = Around::new(&parent, "root");
    let left = Left(group.0.clone());
    let line = format!(
        "echo $$ > {}/cgroup.procs; exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups \
         $JOBMETER run --job r --receipt $DIR/r.json --limit 0.0001 --cpu-source procfs -- {} becomes-root 3600000",
        group.0.display(),
        bench.set_uid,
    );
    let mut command = bench.station.shell(&line);
    // What lives on holds them open.
    let (out, err) = (bench.station.path("out"), bench.station.path("err"));
    let file = |path: &PathBuf| std::fs::File::create(path).unwrap();
    command.env("HOME", bench.station.directory.path()).stdout(file(&out)).stderr(file(&err));
    let before_us = SystemClock.boottime_us();
    let status = ended(&mut command.spawn().unwrap()).code();
    let took_us = SystemClock.boottime_us() - before_us;
    // The keeper may still be on its way out.
    let pids = awaited(|| match group.processes() {
        pids if pids.trim().lines().count() == 1 => Ok(pids),
        pids => Err(pids),
    });
    drop(left);
    let text = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
    assert_eq!((status, text(&out).as_str()), (Some(125), "root\n"), "{}", text(&err));
    let receipt: Value = serde_json::from_str(&text(&bench.station.path("r.json"))).unwrap();
    assert_eq!(receipt["outcome"]["reason"], "unkillable", "{receipt}");
    assert_eq!(receipt["outcome"]["unkillable"].to_string(), format!("[{}]", pids.trim()), "{receipt}");
    for said in [receipt["outcome"]["degraded"].to_string(), text(&err)] {
        assert!(said.contains("another user") && said.contains(pids.trim()), "{said}");
    }
    assert!(took_us < 9_000_000, "{took_us} µs");
}
