//! GPUs, with the scripted NVML of `tests/fake-nvml`: what the script says is the truth.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use jobmeter::sys::clock::{Clock, SystemClock, pause};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::station::{Called, Station, micros, nano};

/// `cargo test --test it` does not build examples by itself.
fn library() -> &'static str {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let path = LIBRARY.get_or_init(|| {
        let built =
            Command::new(env!("CARGO")).args(["build", "--quiet", "--locked", "--example", "fake_nvml"]).status();
        assert!(built.unwrap().success());
        PathBuf::from(env!("CARGO_BIN_EXE_jobmeter")).with_file_name("examples").join("libfake_nvml.so")
    });
    path.to_str().unwrap()
}

/// The script begins `ago_ms` before now.
fn script(station: &Station, ago_ms: u64, mut script: Value) {
    let start_us = u64::try_from(SystemClock.realtime_us()).unwrap() - ago_ms * 1_000;
    script["start_us"] = json!(start_us);
    script["clock_us"] = json!(987_654_321_u64);
    std::fs::write(station.path("script.json"), script.to_string()).unwrap();
}

fn command(station: &Station, job: &str, options: &[&str], line: &str) -> Command {
    let mut arguments = vec!["run", "--job", job, "--nvml-library", library()];
    arguments.extend(options);
    arguments.extend(["--", "sh", "-c", line]);
    let mut command = station.command(&arguments);
    command.env("FAKE_NVML", station.path("script.json"));
    command
}

fn run(station: &Station, job: &str, options: &[&str], line: &str) -> Called {
    command(station, job, options, line).output().unwrap().into()
}

/// The GPU part of its receipt, and that of one device.
fn gpu(station: &Station, job: &str) -> Value {
    station.receipt(job)["gpu"].clone()
}

/// For how long it was frozen. Its first slice lasts half a second, in which the ledger of a busy machine may not answer;
/// what it does not have meanwhile is not allocated to it, while the script goes on.
fn held_us(station: &Station, job: &str) -> u64 {
    micros(&station.receipt(job)["time"]["held_seconds"])
}

fn device<'a>(gpu: &'a Value, uuid: &str) -> &'a Value {
    let devices = gpu["devices"].as_array().unwrap();
    devices.iter().find(|device| device["uuid"] == uuid).unwrap_or_else(|| panic!("{uuid} of {gpu}"))
}

/// Within 1 % or 0.34 s, whichever is more.
fn assert_close(measured_us: u64, truth_us: u64) {
    let allowed = (truth_us / 100).max(340_000);
    assert!(measured_us.abs_diff(truth_us) <= allowed, "{measured_us} µs for {truth_us} µs");
}

#[test]
fn an_exclusive_device_counts_what_it_did() {
    let station = Station::new();
    let of = |percent: u64| json!({ "uuid": format!("GPU-{percent}"), "garbage_each": 13, "counts_first": percent == 90, "busy": [{ "percent": percent, "pids": [77] }] });
    script(&station, 30_000, json!({ "devices": [of(0), of(10), of(50), of(90), of(100)] }));
    let called = run(&station, "j", &["--gpus", "0,1,2,3", "--gpu-exclusive"], "sleep 3");
    assert_eq!(called.status, 0, "{called:?}");
    assert!(called.err.contains("s GPU in"), "{}", called.err);
    let gpu = gpu(&station, "j");
    assert_eq!(gpu["devices"].as_array().unwrap().len(), 4, "{gpu}");
    let held_us = held_us(&station, "j");
    for percent in [0, 10, 50, 90] {
        let device = device(&gpu, &format!("GPU-{percent}"));
        let allocated = micros(&device["allocated_seconds"]);
        assert!((3_000_000..3_500_000).contains(&(allocated + held_us)), "{device}");
        assert_close(micros(&device["busy_seconds"]), allocated.min((allocated + held_us) * percent / 100));
        assert_eq!((&device["mode"], micros(&device["estimated_seconds"])), (&json!("exclusive"), 0));
    }
    let receipt = station.receipt("j");
    let charged = nano(&receipt["credits"]["gpu"]);
    assert!((charged - i64::try_from(micros(&gpu["busy_seconds"])).unwrap() * 5 / 2).abs() < 10, "{receipt}");
    assert_eq!(receipt["virtual"]["gpu_seconds"], gpu["busy_seconds"]);
    let shown = station.ok(&["jobs", "show", "j"]).out;
    assert!(shown.contains("GPU-50") && shown.contains("exclusive") && shown.contains('▄'), "{shown}");
    station.verify();
}

#[test]
fn a_short_job_and_one_after_a_long_idle_time_are_counted() {
    let station = Station::new();
    // Idle, so that the ring is dry when the job begins.
    let busy = json!([{ "from_ms": 20_000, "percent": 100, "pids": [77] }]);
    script(&station, 19_500, json!({ "devices": [{ "uuid": "GPU-a", "busy": busy }] }));
    let called = run(&station, "j", &["--gpus", "all", "--gpu-exclusive"], "sleep 1.2");
    assert_eq!(called.status, 0, "{called:?}");
    let gpu = gpu(&station, "j");
    let allocated = micros(&gpu["allocated_seconds"]);
    assert!(micros(&gpu["busy_seconds"]) <= allocated);
    assert!(micros(&gpu["busy_seconds"]) > 300_000, "{gpu}");
}

#[test]
fn two_jobs_on_one_device_share_what_it_did() {
    let station = Station::new();
    let pids = [station.path("a.pid"), station.path("b.pid")];
    let busy = json!([{ "percent": 80, "pids": pids }]);
    script(&station, 30_000, json!({ "devices": [{ "uuid": "GPU-a", "busy": busy }] }));
    let line = |name: &str| format!("echo $$ > $DIR/{name}.pid; sleep 4");
    let start = |name: &str| command(&station, name, &["--gpus", "all"], &line(name)).spawn().unwrap();
    let (mut a, mut b) = (start("a"), start("b"));
    assert!(a.wait().unwrap().success() && b.wait().unwrap().success());
    let both: Vec<Value> = ["a", "b"].iter().map(|job| gpu(&station, job)).collect();
    let sum: u64 = both.iter().map(|gpu| micros(&gpu["busy_seconds"])).sum();
    assert_close(sum, 4_000_000 * 80 / 100);
    for gpu in &both {
        assert_eq!(gpu["devices"][0]["mode"], "shared", "{gpu}");
        assert!(micros(&gpu["busy_seconds"]) > 600_000, "{gpu}");
        assert_eq!(gpu["devices"][0]["memory_peak_bytes"], json!(3_u64 << 30));
    }
}

#[test]
fn nobody_gets_a_device_for_nothing() {
    let station = Station::new();
    let of = |uuid: &str| json!({ "uuid": uuid, "busy": [{ "percent": 50, "pids": [station.path("j.pid")] }] });
    let idle = json!({ "uuid": "GPU-idle", "busy": [] });
    script(&station, 30_000, json!({ "devices": [of("GPU-declared"), of("GPU-taken"), idle] }));
    let called = run(&station, "j", &["--gpus", "0"], "unset CUDA_VISIBLE_DEVICES; echo $$ > $DIR/j.pid; sleep 3");
    assert_eq!(called.status, 0, "{called:?}");
    let gpu = gpu(&station, "j");
    assert_eq!(gpu["devices"].as_array().unwrap().len(), 2, "{gpu}");
    let taken = device(&gpu, "GPU-taken");
    assert_eq!(taken["declared"], false);
    assert_close(micros(&taken["busy_seconds"]), 1_500_000);
    assert_close(micros(&taken["allocated_seconds"]) + held_us(&station, "j"), 3_000_000);
    // Every device that can be opened counts in the highest rate.
    let dry = run(&station, "k", &["--gpus", "none", "--dry-run"], "true");
    assert!(dry.out.contains("3 GPUs"), "{}", dry.out);
}

#[test]
fn a_job_is_stopped_at_zero_by_what_its_gpu_does() {
    let station = Station::new();
    script(&station, 30_000, json!({ "devices": [{ "uuid": "GPU-a", "busy": [{ "percent": 100, "pids": [77] }] }] }));
    station.ok(&["account", "limit", "0.06"]);
    station.ok(&["rates", "set", "--gpu-model", "*h200*=4"]);
    let called = run(&station, "j", &["--gpus", "all", "--gpu-exclusive"], "sleep 60");
    assert_eq!(called.status, 75, "{called:?}");
    let receipt = station.receipt("j");
    let (charged, overshoot) = (nano(&receipt["credits"]["total"]), nano(&receipt["credits"]["overshoot"]));
    // 0.01 credits a second: what the guard band keeps is 0.6 s and the error of the edges 0.34 s.
    assert!(overshoot == 0 && (45_000_000..=60_000_000).contains(&charged), "{receipt}");
    let burned_us = micros(&receipt["gpu"]["allocated_seconds"]);
    assert!(burned_us <= 6_000_000, "the device was busy all the time: {burned_us}");
    assert_eq!(micros(&receipt["gpu"]["devices"][0]["weight"]), 4_000_000);
    station.verify();
}

#[test]
fn nothing_that_happens_to_the_driver_stops_a_job() {
    let station = Station::new();
    let busy = json!([{ "percent": 50, "pids": [77] }]);
    let devices = json!([{ "uuid": "GPU-a", "busy": busy }]);
    let options = ["--gpus", "0", "--gpu-exclusive"];
    // The driver is not loaded: 9. Another version than the library: 18.
    for code in [9, 18] {
        script(&station, 30_000, json!({ "devices": devices, "init": code }));
        let job = format!("init-{code}");
        let called = run(&station, &job, &options, "sleep 1");
        assert!(called.status == 0 && called.err.contains("note: GPU"), "{called:?}");
        let gpu = gpu(&station, &job);
        assert_eq!((&gpu["source"], &gpu["busy_seconds"]), (&json!("files"), &gpu["allocated_seconds"]));
        assert!(micros(&gpu["busy_seconds"]) + held_us(&station, &job) >= 1_000_000, "{gpu}");
    }
    // It crashes in the middle and hangs for a while: what its ring has kept is exact.
    for what in ["crashes_ms", "hangs_ms"] {
        let mut faulty = json!({ "devices": devices });
        faulty[what] = json!([31_000, 33_500]);
        script(&station, 30_000, faulty);
        let called = run(&station, what, &options, "sleep 6");
        assert_eq!(called.status, 0, "{called:?}");
        let gpu = gpu(&station, what);
        assert_close(micros(&gpu["busy_seconds"]), 3_000_000);
        assert_eq!(micros(&gpu["devices"][0]["estimated_seconds"]), 0, "{gpu}");
    }
    // It falls off the bus: from then on its wall time is charged, and the receipt says so.
    script(&station, 30_000, json!({ "devices": [{ "uuid": "GPU-a", "busy": busy, "lost_ms": [32_000, 90_000] }] }));
    let called = run(&station, "lost", &options, "sleep 4");
    assert_eq!(called.status, 0, "{called:?}");
    let gpu = gpu(&station, "lost");
    // What was not read yet when it was lost, at most a second, is charged so as well.
    let charged_us = micros(&gpu["busy_seconds"]);
    assert!(charged_us + held_us(&station, "lost") >= 2_660_000 && charged_us <= 3_900_000, "{gpu}");
    assert!(gpu["devices"][0]["notes"].to_string().contains("fell off the bus"), "{gpu}");
    // No such library, and none of the helper's business.
    let called: Called = station
        .command(&["run", "--nvml-library", "/nowhere/libnvidia-ml.so.1", "--gpus", "0", "--", "true"])
        .output()
        .unwrap()
        .into();
    assert_eq!(called.status, 0, "{called:?}");
    station.verify();
}

#[test]
fn a_mig_device_is_read_by_its_instance() {
    let station = Station::new();
    let part = |uuid: &str, shares: bool| json!({ "uuid": uuid, "profile": "1g.18gb", "shares_instance": shares, "busy": [{ "percent": 30, "pids": [77] }] });
    let parts = json!([part("MIG-1", false), part("MIG-2", true)]);
    script(&station, 30_000, json!({ "devices": [{ "uuid": "GPU-a", "parts": parts }] }));
    station.ok(&["rates", "set", "--gpu-model", "*MIG 1g.*=0.25"]);
    let called = run(&station, "j", &["--gpus", "0", "--gpu-exclusive"], "sleep 3");
    assert_eq!(called.status, 0, "{called:?}");
    let gpu = gpu(&station, "j");
    let (whole, shares) = (device(&gpu, "MIG-1"), device(&gpu, "MIG-2"));
    assert_eq!((&whole["mode"], &shares["mode"]), (&json!("mig"), &json!("allocated")));
    assert_close(micros(&whole["busy_seconds"]), 900_000);
    assert_eq!(shares["busy_seconds"], shares["allocated_seconds"]);
    assert_eq!(micros(&whole["weight"]), 250_000);
}

#[test]
fn what_a_dead_keeper_has_not_read_is_charged_as_allocated() {
    let station = Station::new();
    script(&station, 30_000, json!({ "devices": [{ "uuid": "GPU-a", "busy": [{ "percent": 100, "pids": [77] }] }] }));
    let line =
        "ps -o pid=,ppid= --ppid $(ps -o ppid= $$) | grep -v \"^ *$$ \" | awk '{print $1}' > $DIR/keeper; sleep 30";
    let mut child = command(&station, "j", &["--gpus", "0", "--gpu-exclusive"], line).spawn().unwrap();
    pause(Duration::from_millis(3_000));
    // The front's other child.
    let keeper: i32 =
        std::fs::read_to_string(station.path("keeper")).unwrap().trim().lines().next().unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(125));
    let gpu = gpu(&station, "j");
    let busy = micros(&gpu["busy_seconds"]);
    assert!((2_600_000..3_400_000).contains(&busy), "{gpu}");
    assert!(!gpu["notes"].as_array().unwrap().is_empty(), "{gpu}");
    station.verify();
}

#[test]
fn what_is_not_there_is_said() {
    let station = Station::new();
    script(
        &station,
        1_000,
        json!({ "devices": [{ "uuid": "GPU-a", "busy": [] }, { "uuid": "GPU-b", "denied": true }] }),
    );
    let called = run(&station, "j", &["--gpus", "1"], "true");
    assert!(called.status == 125 && called.err.contains("0 = GPU-a"), "{called:?}");
    let called = run(&station, "j", &["--gpus", "first"], "true");
    assert!(called.status == 125 && called.err.contains("use all, none"), "{called:?}");
    let mut doctor = station.command(&["doctor", "--nvml-library", library()]);
    let told: Called = doctor.env("FAKE_NVML", station.path("script.json")).output().unwrap().into();
    assert!(told.out.contains("driver 570.124.06") && told.out.contains("GPU-a"), "{}", told.out);
    station.verify();
}
