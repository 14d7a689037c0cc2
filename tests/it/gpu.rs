//! GPUs, with the scripted NVML of `tests/fake-nvml`: what the script says is the truth.

use std::ops::Range;
use std::process::Command;
use std::time::Duration;

use jobmeter::sys::clock::pause;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::nvml::{library, now_us, script};
use crate::station::{Called, Station, awaited, ended, micros, nano, skip};

/// A job that writes down when it begins and ends.
fn command(station: &Station, job: &str, options: &[&str], line: &str) -> Command {
    let library = library(station);
    let mut arguments = vec!["run", "--job", job, "--nvml-library", &library];
    arguments.extend(options);
    let line = format!("date +%s%6N > $DIR/{job}.from; {line}; date +%s%6N > $DIR/{job}.until");
    arguments.extend(["--", "sh", "-c", &line]);
    let mut command = station.command(&arguments);
    command.env("FAKE_NVML", station.path("script.json"));
    command
}

fn run(station: &Station, job: &str, options: &[&str], line: &str) -> Called {
    command(station, job, options, line).output().unwrap().into()
}

/// A time that a job has written down, in µs since 1970.
fn written_us(station: &Station, name: &str) -> u64 {
    let text = std::fs::read_to_string(station.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    text.trim().parse().unwrap()
}

/// From when until when it ran, by its own word: the truth, whatever the machine did besides.
fn ran(station: &Station, job: &str) -> Range<u64> {
    written_us(station, &format!("{job}.from"))..written_us(station, &format!("{job}.until"))
}

fn us(range: &Range<u64>) -> u64 {
    range.end - range.start
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

/// Allocated for as long as it ran, and for no longer than jobmeter did: its starts and ends are the job's as well.
fn assert_allocated(station: &Station, job: &str, device: &Value) {
    let allocated_us = micros(&device["allocated_seconds"]) + held_us(station, job);
    let (ran_us, wall_us) = (us(&ran(station, job)), micros(&station.receipt(job)["time"]["wall_seconds"]));
    assert!((ran_us..=wall_us).contains(&allocated_us), "ran {ran_us} of {wall_us} µs: {device}");
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
        assert_allocated(&station, "j", device);
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
    let start_us = script(&station, 19_500, json!({ "devices": [{ "uuid": "GPU-a", "busy": busy }] }));
    let called = run(&station, "j", &["--gpus", "all", "--gpu-exclusive"], "sleep 1.2");
    assert_eq!(called.status, 0, "{called:?}");
    let gpu = gpu(&station, "j");
    assert!(micros(&gpu["busy_seconds"]) <= micros(&gpu["allocated_seconds"]));
    let ran = ran(&station, "j");
    assert_close(micros(&gpu["busy_seconds"]), ran.end - ran.start.max(start_us + 20_000_000));
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
    // While but one of them runs, some of what the device does is nobody's.
    let (a, b) = (ran(&station, "a"), ran(&station, "b"));
    let all_us = a.end.max(b.end) - a.start.min(b.start);
    let shared_us = a.end.min(b.end) - a.start.max(b.start);
    assert_close(sum, sum.clamp(shared_us * 80 / 100, all_us * 80 / 100));
    for gpu in &both {
        assert_eq!(gpu["devices"][0]["mode"], "shared", "{gpu}");
        assert!(micros(&gpu["busy_seconds"]) > 600_000, "{gpu}");
        assert_eq!(gpu["devices"][0]["memory_peak_bytes"], json!(3_u64 << 30));
        // The shell of each alone had it open.
        let process = &gpu["devices"][0]["processes"][0];
        assert_eq!((&process["command"], &process["memory_peak_bytes"]), (&json!("sh"), &json!(3_u64 << 30)), "{gpu}");
        assert_close(micros(&process["busy_seconds"]), micros(&gpu["busy_seconds"]));
    }
    assert!(station.ok(&["jobs", "show", "a"]).out.contains(" s  sh ("), "its processes are told");
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
    let ran_us = us(&ran(&station, "j"));
    assert_close(micros(&taken["busy_seconds"]), ran_us / 2);
    assert_close(micros(&taken["allocated_seconds"]) + held_us(&station, "j"), ran_us);
    // What the job was given counts in the highest rate, and not what it could open.
    for (gpus, rate) in [("none", " CPUs = "), ("0", " CPUs and 1 GPU = "), ("all", " CPUs and 3 GPUs = ")] {
        let dry = run(&station, "k", &["--gpus", gpus, "--dry-run"], "true");
        assert!(dry.out.contains(rate), "{}", dry.out);
        assert!(dry.out.contains("3 × NVIDIA H200 can be opened"), "{}", dry.out);
    }
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

const HALF_BUSY: &str = r#"[{ "uuid": "GPU-a", "busy": [{ "percent": 50, "pids": [77] }] }]"#;

/// A script of a device that is half busy, in which something happens from then until then; it has begun 30 s before. When the
/// first of it comes, in µs since 1970.
fn mishap(station: &Station, mut devices: Value, what: &str, ms: [u64; 2]) -> u64 {
    let of_device = what == "lost_ms";
    if of_device {
        devices[0][what] = json!(ms);
    }
    let mut all = json!({ "devices": devices });
    if !of_device {
        all[what] = json!(ms);
    }
    script(station, 30_000, all) + ms[0] * 1_000
}

/// A job that has begun before what happens to the driver.
fn run_into(station: &Station, job: &str, at_us: u64, line: &str) -> Range<u64> {
    let called = run(station, job, &["--gpus", "0", "--gpu-exclusive"], line);
    assert_eq!(called.status, 0, "{called:?}");
    let ran = ran(station, job);
    assert!(ran.start < at_us, "it took {} µs too long to start: nothing was tested", ran.start - at_us);
    ran
}

#[test]
fn nothing_that_happens_to_the_driver_stops_a_job() {
    let station = Station::new();
    let devices: Value = serde_json::from_str(HALF_BUSY).unwrap();
    // The driver is not loaded: 9. Another version than the library: 18.
    for code in [9, 18] {
        script(&station, 30_000, json!({ "devices": devices, "init": code }));
        let job = format!("init-{code}");
        let called = run(&station, &job, &["--gpus", "0", "--gpu-exclusive"], "sleep 1");
        assert!(called.status == 0 && called.err.contains("note: GPU"), "{called:?}");
        let gpu = gpu(&station, &job);
        assert_eq!((&gpu["source"], &gpu["busy_seconds"]), (&json!("files"), &gpu["allocated_seconds"]));
        assert_allocated(&station, &job, &gpu);
    }
    // It crashes in the middle and hangs for a while: what its ring has kept is exact.
    for what in ["crashes_ms", "hangs_ms"] {
        let at_us = mishap(&station, devices.clone(), what, [33_000, 35_500]);
        let ran = run_into(&station, what, at_us, "sleep 7");
        let gpu = gpu(&station, what);
        assert_close(micros(&gpu["busy_seconds"]), us(&ran) / 2);
        assert_eq!(micros(&gpu["devices"][0]["estimated_seconds"]), 0, "{gpu}");
    }
    // It falls off the bus: from then on it is not charged, and the receipt says so.
    let lost_at_us = mishap(&station, devices, "lost_ms", [33_000, 90_000]);
    let ran = run_into(&station, "lost", lost_at_us, "sleep 5");
    let gpu = gpu(&station, "lost");
    let charged_us = micros(&gpu["busy_seconds"]);
    let truth_us = (lost_at_us - ran.start) / 2;
    // What was not read yet when it was lost, at most a second and an answer, is charged as allocated.
    assert!(charged_us + held_us(&station, "lost") + 340_000 >= truth_us, "{truth_us} µs: {gpu}");
    assert!(charged_us <= truth_us + 1_500_000, "{truth_us} µs: {gpu}");
    assert!(gpu["devices"][0]["notes"].to_string().contains("fell off the bus"), "{gpu}");
    assert!(micros(&gpu["allocated_seconds"]) < us(&ran), "{gpu}");
    // No such library, and none of the helper's business.
    let called = station.call(&["run", "--nvml-library", "/nowhere/libnvidia-ml.so.1", "--gpus", "0", "--", "true"]);
    assert_eq!(called.status, 0, "{called:?}");
    station.verify();
}

/// As `srun -n3 --gpus=2` gives both devices to each task.
#[test]
fn tasks_of_one_job_are_charged_for_its_devices_once() {
    let station = Station::new();
    let busy = json!([{ "percent": 100, "pids": [77] }]);
    let devices = json!([{ "uuid": "GPU-a", "busy": busy, "counters": true }, { "uuid": "GPU-b", "busy": busy }]);
    script(&station, 30_000, json!({ "devices": devices }));
    let library = library(&station);
    let start = |task: &str, line: &str| {
        let arguments = ["run", "--job", "j", "--task", task, "--nvml-library", &library, "--", "sh", "-c", line];
        let mut command = station.command(&arguments);
        command.env("FAKE_NVML", station.path("script.json"));
        command.env("SLURM_JOB_GPUS", "0,1").env("CUDA_VISIBLE_DEVICES", "0,1");
        command.spawn().unwrap()
    };
    let from_us = now_us();
    let first = start("0", "sleep 3");
    awaited(|| match station.sh("ls $JOBMETER_SPOOL/gpus/j").out.lines().count() {
        2 => Ok(()),
        count => Err(format!("{count} devices are claimed")),
    });
    let others = [start("1", "sleep 5"), start("2", "sleep 2")];
    for mut child in [first].into_iter().chain(others) {
        assert!(ended(&mut child).success());
    }
    let wall_us = now_us() - from_us;
    let job = station.json(&["jobs", "show", "j"]);
    let attempts = job["attempts"].as_array().unwrap();
    let of = |attempt: &Value, uuid: &str, what: &str| -> u64 {
        let devices = attempt["receipt"]["gpu"]["devices"].as_array().unwrap().iter();
        devices.filter(|device| device["uuid"] == uuid).map(|device| micros(&device[what])).sum()
    };
    for (uuid, what) in
        ["GPU-a", "GPU-b"].into_iter().flat_map(|uuid| [(uuid, "busy_seconds"), (uuid, "allocated_seconds")])
    {
        let sum: u64 = attempts.iter().map(|attempt| of(attempt, uuid, what)).sum();
        // From the first one's start to the last one's end.
        assert!(sum <= wall_us && sum + 700_000 >= wall_us, "{uuid} {what}: {sum} of {wall_us} µs: {job}");
    }
    station.verify();
}

/// On a device that was said to be the job's alone.
#[test]
fn what_a_stranger_does_on_an_exclusive_device_is_not_charged() {
    if !nix::unistd::geteuid().is_root() {
        return skip("processes of two users are needed");
    }
    let station = Station::new();
    let [mine, other] = ["mine", "other"].map(|name| station.path(name).to_str().unwrap().to_owned());
    let mut stranger =
        Command::new("setpriv").args(["--reuid", "65534", "--clear-groups", "sleep", "60"]).spawn().unwrap();
    std::fs::write(&other, stranger.id().to_string()).unwrap();
    script(
        &station,
        30_000,
        json!({ "devices": [{ "uuid": "GPU-a", "busy": [{ "percent": 100, "pids": [mine, other] }] }] }),
    );
    let called = run(&station, "j", &["--gpus", "0", "--gpu-exclusive"], "echo $$ > $DIR/mine; sleep 8");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_eq!(called.status, 0, "{called:?}");
    let gpu = gpu(&station, "j");
    let (busy_us, allocated_us) = (micros(&gpu["busy_seconds"]), micros(&gpu["allocated_seconds"]));
    assert!(busy_us * 100 < allocated_us * 75 && busy_us * 100 > allocated_us * 35, "{gpu}");
    assert!(gpu["devices"][0]["notes"].to_string().contains("others"), "{gpu}");
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
    assert_close(micros(&whole["busy_seconds"]), us(&ran(&station, "j")) * 30 / 100);
    assert_eq!(shares["busy_seconds"], shares["allocated_seconds"]);
    assert_eq!(micros(&whole["weight"]), 250_000);
}

#[test]
fn what_a_dead_keeper_has_not_read_is_charged_as_allocated() {
    let station = Station::new();
    script(&station, 30_000, json!({ "devices": [{ "uuid": "GPU-a", "busy": [{ "percent": 100, "pids": [77] }] }] }));
    // The front's other child.
    let line = "ps -o pid=,ppid= --ppid $(ps -o ppid= $$) | grep -v \"^ *$$ \" | awk '{print $1}' > $DIR/found; \
                mv $DIR/found $DIR/keeper; sleep 600";
    let mut child = command(&station, "j", &["--gpus", "0", "--gpu-exclusive"], line).spawn().unwrap();
    let keeper = awaited(|| std::fs::read_to_string(station.path("keeper")).map_err(|error| error.to_string()));
    let from_us = written_us(&station, "j.from");
    // So that there is something to read and to charge: time is what is tested.
    pause(Duration::from_millis(3_000));
    let killed_us = now_us();
    kill(Pid::from_raw(keeper.lines().next().unwrap().trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(ended(&mut child).code(), Some(125));
    let over_us = now_us();
    let gpu = gpu(&station, "j");
    let busy_us = micros(&gpu["busy_seconds"]);
    let truth_us = killed_us - from_us..=over_us - from_us;
    assert_close(busy_us, busy_us.clamp(*truth_us.start(), *truth_us.end()));
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
    let mut doctor = station.command(&["doctor", "--nvml-library", &library(&station)]);
    let told: Called = doctor.env("FAKE_NVML", station.path("script.json")).output().unwrap().into();
    assert!(told.out.contains("driver 570.124.06") && told.out.contains("GPU-a"), "{}", told.out);
    assert!(!station.path("ledger.db").exists(), "nothing was begun");
}

/// Why a device was slow or failed is told to who asks why a job took so long.
#[test]
fn what_a_device_tells_besides_is_on_the_receipt() {
    let station = Station::new();
    // One works for the first seconds of the job, and the other is only held.
    script(
        &station,
        30_000,
        json!({ "devices": [{
            "uuid": "GPU-a", "busy": [{ "from_ms": 0, "until_ms": 33_000, "percent": 50, "pids": [77] }],
            "slowdown": 0x45, "ecc_ms": [1_000, 33_000], "remapped_ms": [500, 32_500, 33_000], "xids": [[2_000, 13], [33_500, 79]],
        }, { "uuid": "GPU-b" }] }),
    );
    assert_eq!(run(&station, "j", &["--gpus", "all", "--gpu-exclusive"], "sleep 6").status, 0);
    let receipt = station.receipt("j");
    let [used, unused] = [0, 1].map(|at| &receipt["gpu"]["devices"][at]);
    let number = |device: &Value, name: &str| device[name].as_f64().unwrap();
    assert!((1.5..5.5).contains(&number(used, "idle_seconds")), "{used}");
    assert!(number(unused, "idle_seconds") > 4.5 && number(unused, "busy_seconds") == 0.0, "{unused}");
    assert_eq!((&used["xids"], &used["ecc_uncorrected_errors"]), (&json!([79]), &json!(1)), "{used}");
    assert_eq!(used["remapped_rows"], json!(2), "{used}");
    let slow: Vec<&String> = used["slowdown_seconds"].as_object().unwrap().keys().collect();
    assert_eq!(slow, ["hardware thermal slowdown", "power cap"]);
    // 100 W idle, and half of 600 W more.
    let [mean, most] = ["power_mean_milliwatts", "power_peak_milliwatts"].map(|name| number(used, name));
    assert!((100_000.0..390_000.0).contains(&mean) && (300_000.0..450_000.0).contains(&most), "{used}");
    assert_eq!(used["memory_total_bytes"], json!(141_u64 << 30));
    let shown = station.ok(&["jobs", "show", "j"]).out;
    for text in [
        "never used",
        "XID 79",
        "power cap",
        "could not be corrected: 1",
        "spare ones: 2",
        "W at most",
        "memory at most",
    ] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    station.verify();
}

/// As a vGPU, and Linux under Windows.
#[test]
fn a_driver_without_samples_is_asked_for_the_rate() {
    let station = Station::new();
    let busy = json!([{ "percent": 60, "pids": [77] }]);
    let of = |uuid: &str, tells_rates| json!({ "uuid": uuid, "busy": busy, "tells_rates": tells_rates });
    let devices = json!([of("GPU-a", true), of("GPU-b", false)]);
    script(&station, 30_000, json!({ "devices": devices, "faults": { "nvmlDeviceGetSamples": 3 } }));
    assert_eq!(run(&station, "j", &["--gpus", "all", "--gpu-exclusive"], "sleep 6").status, 0);
    let gpu = gpu(&station, "j");
    let [told, untold] = ["GPU-a", "GPU-b"].map(|uuid| device(&gpu, uuid));
    let [busy_us, allocated_us] = ["busy_seconds", "allocated_seconds"].map(|name| micros(&told[name]));
    assert!(busy_us.abs_diff(allocated_us * 60 / 100) < 900_000, "{told}");
    assert_eq!((&told["mode"], &told["error_bound_seconds"]), (&json!("exclusive"), &Value::Null), "{told}");
    assert!(micros(&told["estimated_seconds"]) == 0 && told["notes"].to_string().contains("no samples"), "{told}");
    assert_eq!(untold["mode"], "allocated", "{untold}");
}
