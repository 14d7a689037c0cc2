//! Each call of NVML fails in each of its ways: no job is ended or frozen by it, and none is free.

use std::process::Child;

use serde_json::{Value, json};

use crate::nvml::{library, script};
use crate::station::{Called, Station, micros};

const FUNCTIONS: [&str; 29] = [
    "nvmlInit_v2",
    "nvmlSystemGetDriverVersion",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceIsMigDeviceHandle",
    "nvmlDeviceGetSamples",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetProcessUtilization",
    "nvmlDeviceGetProcessesUtilizationInfo",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceRegisterEvents",
    "nvmlEventSetCreate",
    "nvmlEventSetWait_v2",
    "nvmlGpmQueryDeviceSupport",
    "nvmlGpmSampleAlloc",
    "nvmlGpmSampleGet",
    "nvmlGpmMetricsGet",
];
/// Of `nvmlReturn_t`: uninitialized, invalid argument, not supported, no permission, not found, insufficient size, driver not loaded, timeout,
/// lost, reset required, in use, no memory, unknown.
const CODES: [u32; 13] = [1, 2, 3, 4, 6, 7, 9, 10, 15, 16, 19, 20, 999];
/// Without these no device can be opened.
const UNOPENED: [&str; 2] = ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID"];
/// Beside each other.
const AT_ONCE: usize = 8;

/// One job on a device of its own, under one fault.
fn start(station: &Station, at: usize, function: &str, code: u32) -> Child {
    let path = format!("script-{at}.json");
    let device = json!({ "uuid": "GPU-a", "counters": true, "busy": [{ "percent": 50 }] });
    script(station, 30_000, json!({ "devices": [device], "faults": { function: code } }));
    std::fs::rename(station.path("script.json"), station.path(&path)).unwrap();
    let (job, library) = (format!("{function}-{code}"), library(station));
    let mut command = station.command(&["run", "--job", &job, "--nvml-library", &library]);
    command
        .args(["--gpus", "0", "--gpu-exclusive", "--quiet", "--", "sleep", "1"])
        .env("FAKE_NVML", station.path(&path));
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap()
}

/// All pairs with `NVML_FAULTS=all`, which takes some minutes; else each call once, in turn with another code.
#[test]
fn no_fault_of_a_call_ends_a_job_or_makes_it_free() {
    let one_each = FUNCTIONS.iter().zip(CODES.iter().cycle()).map(|(function, code)| (*function, *code));
    let all = FUNCTIONS.iter().flat_map(|function| CODES.map(|code| (*function, code)));
    let pairs: Vec<_> = if std::env::var("NVML_FAULTS").is_ok() { all.collect() } else { one_each.collect() };
    let station = Station::new();
    for pairs in pairs.chunks(AT_ONCE) {
        let numbered = pairs.iter().enumerate();
        let jobs: Vec<Child> = numbered.map(|(at, (function, code))| start(&station, at, function, *code)).collect();
        for (job, (function, code)) in jobs.into_iter().zip(pairs) {
            let called: Called = job.wait_with_output().unwrap().into();
            // A device that cannot be opened is not there, and nothing starts that names it.
            if UNOPENED.contains(function) && called.status == 125 && called.err.contains("there is no GPU") {
                continue;
            }
            let receipt = station.receipt(&format!("{function}-{code}"));
            let told = format!("{function} returns {code}: {called:?} {receipt}");
            assert!(called.status == 0 && receipt["outcome"]["reason"] == "completed", "{told}");
            let gpu = &receipt["gpu"];
            let [busy_us, allocated_us] = ["busy_seconds", "allocated_seconds"].map(|name| micros(&gpu[name]));
            // What is lost from its first look on is nobody's; what cannot be read is taken as allocated.
            let is_lost = gpu["devices"][0]["notes"].to_string().contains("lost, and not charged");
            assert!(is_lost || (allocated_us >= 900_000 && busy_us * 100 >= allocated_us * 40), "{told}");
        }
    }
    station.verify();
}

#[test]
fn as_many_devices_as_a_machine_has_are_each_metered() {
    let station = Station::new();
    let device = |at: usize| json!({ "uuid": format!("GPU-{at}"), "counters": true, "busy": [{ "percent": 50 }] });
    script(&station, 30_000, json!({ "devices": (0..64).map(device).collect::<Vec<_>>() }));
    let mut command = station.command(&["run", "--job", "j", "--nvml-library", &library(&station)]);
    command
        .args(["--gpus", "all", "--gpu-exclusive", "--receipt", "receipt.json", "--", "sleep", "3"])
        .current_dir(station.path(""))
        .env("FAKE_NVML", station.path("script.json"));
    let called: Called = command.output().unwrap().into();
    let receipt: Value = serde_json::from_slice(&std::fs::read(station.path("receipt.json")).unwrap()).unwrap();
    assert_eq!((called.status, &receipt["outcome"]["reason"]), (0, &json!("completed")), "{called:?}");
    let devices = receipt["gpu"]["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 64);
    for device in devices {
        let [busy_us, allocated_us] = ["busy_seconds", "allocated_seconds"].map(|name| micros(&device[name]));
        assert!(busy_us.abs_diff(allocated_us / 2) < 150_000, "{device}");
        assert_eq!(
            (&device["sm_percent"], &device["tensor_percent"], &device["dram_percent"]),
            (&json!(40), &json!(15), &json!(25)),
            "{device}"
        );
    }
    // The ledger keeps no receipt of that length: the sums are on it, and that more is in the file.
    let kept = station.receipt("j");
    assert_eq!(kept["gpu"]["busy_seconds"], receipt["gpu"]["busy_seconds"], "{kept}");
    assert!(station.ok(&["jobs", "show", "j"]).out.contains("longer than the 16384 bytes"), "{kept}");
    station.verify();
}
