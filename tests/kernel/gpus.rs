//! GPUs by each source of CPU time: nothing that a device or its driver does ends a job, or keeps it waiting.

use std::process::{Child, Stdio};

use jobmeter::meter::gpu::place;
use jobmeter::sys::clock::{Clock, SystemClock};
use jobmeter::sys::device_filter::may_be_filtered;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::nvml::{library, script};
use crate::station::{Called, Station, all_processes, awaited, micros, nano};
use crate::{Around, alone, v1, v2};

/// An answer of a ledger, on a busy machine.
const ANSWER_MAX_US: u64 = 1_000_000;
/// What NVML may cost a start or an end.
const DELAY_MAX_US: u64 = 400_000;

/// One job of a source, which has one device to itself.
struct Started {
    job: String,
    child: Child,
    _group: Option<Around>,
}

/// The sources that work here.
fn sources() -> Vec<&'static str> {
    let mut sources = vec!["perf", "procfs"];
    sources.extend(v1("cpuacct").map(|_| "cgroup1"));
    sources.extend(v2().map(|_| ["cgroup2", "enclosing"]).into_iter().flatten());
    sources
}

/// With a name of its own, so that each is alone with its ledger's answers.
fn start(station: &Station, source: &str, options: &str, line: &str) -> Started {
    let group = (source == "enclosing").then(|| Around::new(&v2().unwrap(), "gpus"));
    let enter = group.as_ref().map_or("exec $JOBMETER".to_owned(), Around::enter);
    let job = format!("{source}-{}", station_number());
    let library = library(station);
    let line = format!("{enter} run --job {job} --cpu-source {source} --nvml-library {library} {options} -- {line}");
    let mut command = station.shell(&line);
    command.env("FAKE_NVML", station.path("script.json")).stdout(Stdio::null()).stderr(Stdio::piped());
    Started { job, child: command.spawn().unwrap(), _group: group }
}

fn station_number() -> u32 {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// All of them at once; the receipt of each.
fn run_all(station: &Station, options: &str, line: &str) -> Vec<Value> {
    let all: Vec<Started> = sources().into_iter().map(|source| start(station, source, options, line)).collect();
    let ended = all.into_iter().map(|started| {
        let called: Called = started.child.wait_with_output().unwrap().into();
        assert_eq!(called.status, 0, "{}: {called:?}", started.job);
        let receipt = station.receipt(&started.job);
        assert_eq!(receipt["outcome"]["reason"], "completed", "{receipt}");
        let held_us = micros(&receipt["time"]["held_seconds"]);
        assert!(held_us <= ANSWER_MAX_US, "{}: frozen for {held_us} µs", started.job);
        receipt
    });
    ended.collect()
}

fn devices(percent: u64) -> Value {
    let device = |at: u64| json!({ "uuid": format!("GPU-{at}"), "busy": [{ "percent": percent, "pids": [77] }] });
    json!((0..4).map(device).collect::<Vec<_>>())
}

/// Slices that are small beside what a reading of a device adds at once.
#[test]
fn a_busy_device_ends_no_job() {
    let _one = alone();
    for limit in ["", "--limit 0.06"] {
        let station = Station::new();
        script(&station, 30_000, json!({ "devices": devices(100) }));
        for receipt in run_all(&station, &format!("--gpus 0,1 --gpu-exclusive {limit}"), "sleep 7") {
            let busy_us = micros(&receipt["gpu"]["busy_seconds"]);
            assert!((12_000_000..=18_000_000).contains(&busy_us), "{receipt}");
        }
        station.verify();
    }
}

/// `nvidia-smi` that many start at once makes such stalls.
#[test]
fn a_stall_of_the_driver_ends_no_job() {
    let _one = alone();
    for (options, percent) in [("--gpus 0,1 --gpu-exclusive", 100), ("--gpus none", 0), ("", 0)] {
        let station = Station::new();
        script(&station, 30_000, json!({ "devices": devices(percent), "hangs_ms": [32_000, 36_500] }));
        for receipt in run_all(&station, options, "sh -c 'timeout 8 yes >/dev/null || true'") {
            let estimated = micros(&receipt["gpu"]["busy_seconds"]);
            assert!(percent > 0 || estimated == 0, "{receipt}");
        }
        station.verify();
    }
}

/// How long it took, in µs.
fn took_us(station: &Station, options: &str) -> u64 {
    let before_us = SystemClock.boottime_us();
    let called: Called = start(station, "procfs", options, "true").child.wait_with_output().unwrap().into();
    assert_eq!(called.status, 0, "{called:?}");
    SystemClock.boottime_us() - before_us
}

#[test]
fn a_driver_that_does_not_answer_delays_no_start_and_no_end() {
    let _one = alone();
    let station = Station::new();
    // The least of some, since the machine may be busy.
    let least_us = |options: &str| (0..5).map(|_| took_us(&station, options)).min().unwrap();
    script(&station, 30_000, json!({ "devices": devices(100) }));
    let answers_us = ["--gpus 0 --gpu-exclusive", "--gpus none"].map(least_us);
    script(&station, 30_000, json!({ "devices": devices(100), "hangs_ms": [0, 9_000_000] }));
    let hangs_us = ["--gpus 0 --gpu-exclusive", "--gpus none"].map(least_us);
    for (answers_us, hangs_us) in answers_us.into_iter().zip(hangs_us) {
        let late_us = hangs_us.saturating_sub(answers_us);
        assert!(late_us <= 2 * DELAY_MAX_US, "{hangs_us} µs, and {answers_us} µs where the driver answers");
    }
}

fn parent(pid: i32) -> i32 {
    jobmeter::sys::tree::Stat::read(pid).map_or(0, |stat| stat.parent)
}

/// Those that read this station's devices.
fn helpers(station: &Station) -> Vec<i32> {
    let script = format!("FAKE_NVML={}", station.path("script.json").display());
    let is_one = |pid: &i32| {
        let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let is_its = read("environ").split(|byte| *byte == 0).any(|variable| variable == script.as_bytes());
        read("comm") == b"jobmeter-nvml\n" && is_its
    };
    all_processes().into_iter().filter(is_one).collect()
}

fn keeper_of(front: u32) -> Option<i32> {
    let front = i32::try_from(front).unwrap();
    let is_keeper = |pid: &i32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("jobmeter") && parent(*pid) == front
    };
    all_processes().into_iter().find(is_keeper)
}

fn await_helpers(station: &Station, count: usize) {
    awaited(|| match helpers(station) {
        found if found.len() == count => Ok(()),
        found => Err(format!("{found:?} instead of {count}")),
    });
}

/// Also one that hangs: it ends with its job, and with a keeper that is killed.
#[test]
fn a_helper_does_not_outlive_its_job() {
    let _one = alone();
    for (hangs, kills) in [(false, true), (true, false), (true, true)] {
        let station = Station::new();
        let hangs_ms = if hangs { json!([0, 9_000_000]) } else { Value::Null };
        script(&station, 30_000, json!({ "devices": devices(100), "hangs_ms": hangs_ms }));
        let mut started = start(&station, "procfs", "--gpus 0 --gpu-exclusive", "sleep 1");
        awaited(|| if helpers(&station).is_empty() { Err("no helper".to_owned()) } else { Ok(()) });
        if kills {
            let keeper = awaited(|| keeper_of(started.child.id()).ok_or_else(|| "no keeper".to_owned()));
            kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
        }
        started.child.wait().unwrap();
        await_helpers(&station, 0);
    }
}

/// One is enough for all jobs of root on a machine, whoever of them comes first or ends first.
#[test]
fn jobs_of_one_machine_share_a_helper() {
    let _one = alone();
    if place::has_own_root() || may_be_filtered() {
        println!("skipped: only on a machine that gives root all devices");
        return;
    }
    let station = Station::new();
    script(&station, 30_000, json!({ "devices": devices(100) }));
    let busy = |at: u64, source: &str| {
        let options = format!("--gpus {} --gpu-exclusive", at % 4);
        start(&station, source, &options, &format!("sleep {}", 3 + at % 3))
    };
    let all: Vec<Started> = (0..6).zip(sources().into_iter().cycle()).map(|(at, source)| busy(at, source)).collect();
    for started in &all {
        awaited(|| keeper_of(started.child.id()).map(|_| ()).ok_or_else(|| "no keeper".to_owned()));
    }
    await_helpers(&station, 1);
    for started in all {
        assert!(started.child.wait_with_output().unwrap().status.success(), "{}", started.job);
        let gpu = &station.receipt(&started.job)["gpu"];
        let [busy_us, estimated_us] =
            ["busy_seconds", "estimated_seconds"].map(|name| micros(&gpu["devices"][0][name]));
        assert!(estimated_us == 0 && busy_us > 2_500_000, "{}: {gpu}", started.job);
    }
    await_helpers(&station, 0);
    station.verify();
}

/// A helper that hangs for one job keeps none of the others from being read.
#[test]
fn a_shared_helper_that_hangs_or_dies_is_left() {
    let _one = alone();
    let scene = |what: &str| {
        let station = Station::new();
        let mut devices = json!({ "devices": devices(100) });
        // The next helper has nothing to compare the counters with.
        devices["devices"][0]["counters"] = json!(true);
        // Longer than its answer is waited for.
        devices[what] = json!([32_000, if what == "hangs_ms" { 40_000 } else { 32_500 }]);
        script(&station, 30_000, devices);
        for receipt in run_all(&station, "--gpus 0 --gpu-exclusive", "sleep 12") {
            let busy_us = micros(&receipt["gpu"]["busy_seconds"]);
            assert!((11_000_000..14_000_000).contains(&busy_us), "{receipt}");
        }
        await_helpers(&station, 0);
        station.verify();
    };
    std::thread::scope(|scope| ["hangs_ms", "crashes_ms"].map(|what| scope.spawn(move || scene(what))).map(|_| ()));
}

#[test]
fn what_a_library_prints_is_no_answer() {
    let _one = alone();
    let station = Station::new();
    script(&station, 30_000, json!({ "devices": devices(100), "prints": true }));
    let started = start(&station, "procfs", "--gpus 0 --gpu-exclusive", "sleep 2");
    assert!(started.child.wait_with_output().unwrap().status.success());
    let gpu = &station.receipt(&started.job)["gpu"];
    assert_eq!((&gpu["source"], micros(&gpu["devices"][0]["estimated_seconds"])), (&json!("nvml"), 0), "{gpu}");
}

/// A job on a machine with a device; the receipt.
fn run_beside_a_device(station: &Station, options: &str, line: &str, beside: &str) -> Value {
    let (here, library) = (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel"), library(station));
    let run =
        format!("({beside}) & $JOBMETER run --job j {options} -- bash -c '{line}'; status=$?; kill $!; exit $status");
    let mut command =
        station.shell("exec unshare -m bash $HERE/device.sh $LIBRARY 'nvidia0:7 nvidiactl:5' bash -c \"$RUN\"");
    command.env("HERE", here).env("LIBRARY", library).env("RUN", run).env("FAKE_NVML", station.path("script.json"));
    let called: Called = command.output().unwrap().into();
    let receipt = station.receipt("j");
    assert!(receipt["outcome"]["reason"].is_string(), "{called:?}");
    receipt
}

/// It has no NVML, and each job on it has its GPU.
#[test]
fn a_jetson_is_charged_by_time_if_the_rate_card_says_so_and_else_refused_or_told() {
    let _one = alone();
    let (station, here) = (Station::new(), concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel"));
    let run = |job: &str, config: &str| -> Called {
        std::fs::write(station.path("own.toml"), config).unwrap();
        let line = format!(
            "exec unshare -m bash $HERE/device.sh $LIBRARY nvhost-gpu:7 $JOBMETER --config $DIR/own.toml run --job {job} -- sleep 1"
        );
        station.shell(&line).env("HERE", here).env("LIBRARY", library(&station)).output().unwrap().into()
    };
    let charged = |job: &str| nano(&station.json(&["jobs", "show", job])["charged"]["gpu"]);

    let told = run("told", "");
    assert!(told.status == 0 && told.err.contains("NVIDIA Jetson: not metered here, and not charged"), "{told:?}");
    let gpu = station.receipt("told")["gpu"].clone();
    assert_eq!(
        (&gpu["source"], &gpu["devices"][0]["mode"], charged("told")),
        (&json!("files"), &json!("allocated"), 0),
        "{gpu}"
    );

    let refused = run("refused", "[run]\nrefuse_uncharged_gpus = true\n");
    assert!(refused.status == 125 && refused.err.contains("NVIDIA Jetson"), "{refused:?}");

    station.ok(&["rates", "set", "--gpu-model", "NVIDIA Jetson=0.5"]);
    let billed = run("billed", "[run]\nrefuse_uncharged_gpus = true\n");
    assert_eq!(billed.status, 0, "{billed:?}");
    let allocated_us = micros(&station.receipt("billed")["gpu"]["allocated_seconds"]);
    assert!((1_000_000..2_000_000).contains(&allocated_us), "{allocated_us}");
    // B is 2.5 nanocredits for a microsecond of weight 1.
    let expected = i64::try_from(allocated_us * 5 / 4).unwrap();
    assert!(charged("billed").abs_diff(expected) <= 1, "{} nanocredits, {expected} expected", charged("billed"));
    station.verify();
}

/// Whatever its variables say, who has one open has it; and tasks of one job have it once.
#[test]
fn one_of_amds_is_charged_while_it_is_open() {
    let _one = alone();
    let (station, here) = (Station::new(), concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel"));
    station.ok(&["rates", "set", "--gpu-model", "AMD*=1", "--gpu-model", "*=1"]);
    let run = "$JOBMETER run --quiet --job j --task";
    let opened = "sh -c 'sleep 1; exec 3</dev/dri/renderD128; sleep 2; exec 3<&-; exec sleep 1'";
    let script = format!("{run} a -- {opened} & {run} b -- {opened} & {run} c -- sleep 2 & wait");
    let line = "exec unshare -m bash $HERE/device.sh $LIBRARY '' bash -c \"$SCRIPT\"";
    let mut command = station.shell(line);
    command.env("HERE", here).env("LIBRARY", library(&station)).env("SCRIPT", script).env("AMD", "1");
    let called: Called = command.env("ROCR_VISIBLE_DEVICES", "-1").output().unwrap().into();
    assert_eq!(called.status, 0, "{called:?}");
    let shown = station.json(&["jobs", "show", "j"]);
    let attempts = shown["attempts"].as_array().unwrap();
    let used = |attempt: &Value| attempt["usage"]["gpus"]["AMD GPU renderD128"]["allocated_seconds"].clone();
    let used: Vec<u64> = attempts.iter().map(used).filter(|time| !time.is_null()).map(|time| micros(&time)).collect();
    // Looks are a second apart, and after the first task the second one may charge its last.
    let sum: u64 = used.iter().sum();
    assert!((1_500_000..4_200_000).contains(&sum), "{shown}");
    station.verify();
}

/// What nobody declared has no part in what is set aside, so that it must not burn for long before it has.
#[test]
fn a_device_counts_from_when_the_job_opens_it() {
    let _one = alone();
    let allocated_us = (0..5).map(|_| {
        let station = Station::new();
        let pid = station.path("pid");
        let busy = json!([{ "percent": 100, "pids": [pid] }]);
        script(&station, 30_000, json!({ "devices": [{ "uuid": "GPU-a", "busy": busy }] }));
        // Just after a look: those are at each second since the machine was started.
        std::fs::write(
            station.path("job.sh"),
            "sleep $(awk '{ print 2.05 - $1 + int($1) }' /proc/uptime); exec 3</dev/nvidia0; echo $$ > $DIR/pid; exec sleep 60",
        )
        .unwrap();
        let receipt = run_beside_a_device(&station, "--limit 0.001", "exec bash $DIR/job.sh", "exec sleep 100");
        assert_eq!(receipt["outcome"]["reason"], "job_limit", "{receipt}");
        station.verify();
        micros(&receipt["gpu"]["allocated_seconds"])
    });
    // Seen by that look alone it would be 0.95 s.
    let seen: Vec<u64> = allocated_us.collect();
    assert!(seen.iter().any(|us| *us < 800_000), "so many µs until a device that was opened counts: {seen:?}");
}

/// As `nvidia-smi` does at the start of many scripts: what was before a job has a device is not its own.
#[test]
fn a_device_that_was_open_for_a_moment_is_not_held_until_it_is_used() {
    let _one = alone();
    let station = Station::new();
    let busy = json!([{ "percent": 100, "pids": [station.path("pid")] }]);
    script(&station, 30_000, json!({ "devices": [{ "uuid": "GPU-a", "busy": busy }] }));
    let line = "sleep 0.3 < /dev/nvidia0; sleep 5; exec 3</dev/nvidia0; echo $$ > $DIR/pid; exec sleep 2";
    std::fs::write(station.path("job.sh"), line).unwrap();
    let receipt = run_beside_a_device(&station, "", "exec bash $DIR/job.sh", "exec sleep 100");
    let allocated_us = micros(&receipt["gpu"]["allocated_seconds"]);
    assert!((1_500_000..4_500_000).contains(&allocated_us), "{receipt}");
    station.verify();
}

/// A job within a job: its helper is neither the outer job's nor the machine's.
#[test]
fn a_job_within_a_job_starts_no_helper_for_others() {
    let _one = alone();
    let station = Station::new();
    script(&station, 30_000, json!({ "devices": devices(100) }));
    let library = library(&station);
    let line = format!("$JOBMETER run --job inner --nvml-library {library} --gpus 0 --gpu-exclusive -- sleep 3");
    let mut command = station.shell(&format!("exec $JOBMETER run --job outer --gpus none -- {line}"));
    let outer = command.env("FAKE_NVML", station.path("script.json")).stderr(Stdio::piped()).spawn().unwrap();
    await_helpers(&station, 1);
    let name = std::fs::read_to_string(format!("/proc/{}/comm", parent(helpers(&station)[0]))).unwrap();
    assert!(name.starts_with("jobmeter"), "{name}");
    let called: Called = outer.wait_with_output().unwrap().into();
    assert_eq!(called.status, 0, "{called:?}");
    await_helpers(&station, 0);
    station.verify();
}

#[test]
fn what_others_open_costs_no_job_a_helper() {
    let _one = alone();
    let station = Station::new();
    script(&station, 30_000, json!({ "devices": devices(100) }));
    let beside = "while :; do : < /dev/nvidia0; sleep 0.1; done";
    let gpu = &run_beside_a_device(&station, "", "sleep 3", beside)["gpu"];
    assert_eq!((&gpu["driver"], &gpu["readings"]), (&Value::Null, &json!(0)), "{gpu}");
}
