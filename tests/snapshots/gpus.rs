//! Jobs on GPUs, with the scripted NVML of `tests/fake-nvml`: whether this machine has one plays no part.

use std::path::PathBuf;
use std::process::Command;

use jobmeter::sys::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::kept::keep;
use crate::machine::Machine;
use crate::placeholders::{Keys, OF_METER};

/// Of a device, and of the machine around it.
const OF_DEVICE: Keys = &[
    ("busy_seconds", "<seconds>"),
    ("allocated_seconds", "<seconds>"),
    ("unattributed_seconds", "<seconds>"),
    ("estimated_seconds", "<seconds>"),
    ("error_bound_seconds", "<seconds>"),
    ("energy_millijoules", "<mJ>"),
    ("idle_seconds", "<seconds>"),
    ("memory_peak_bytes", "<bytes>"),
    ("memory_total_bytes", "<bytes>"),
    ("power_mean_milliwatts", "<mW>"),
    ("power_peak_milliwatts", "<mW>"),
    ("column_seconds", "<seconds>"),
    ("percent", "<percent>"),
    ("readings", "<count>"),
    ("highestCpusPpm", "<parts per million>"),
    ("highestRatePerSecond", "<credits>"),
    ("guard", "<credits>"),
    ("lastsSeconds", "<seconds>"),
];

/// Tests of one binary do not build examples by themselves.
fn library() -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    let built = build.args(["build", "--quiet", "--locked", "--example", "fake_nvml"]).status();
    assert!(built.expect("cargo").success());
    PathBuf::from(env!("CARGO_BIN_EXE_jobmeter")).with_file_name("examples").join("libfake_nvml.so")
}

/// With a GPU, a part of another one, and one that may not be opened.
fn machine() -> Machine {
    let mut machine = Machine::new();
    std::fs::copy(library(), machine.station.path("libfake_nvml.so")).expect("a copy");
    let started_us = u64::try_from(SystemClock.realtime_us()).expect("a time") - 30_000_000;
    let busy = json!([{ "percent": 50, "pids": [77] }]);
    let part = json!({ "uuid": "MIG-1", "profile": "1g.18gb", "shares_instance": false, "busy": busy });
    let devices = json!([
        { "uuid": "GPU-a", "busy": busy },
        { "uuid": "GPU-b", "parts": [part] },
        { "uuid": "GPU-c", "denied": true },
    ]);
    let script = json!({ "devices": devices, "start_us": started_us, "clock_us": 987_654_321_u64 });
    machine.write("script.json", &script.to_string());
    machine.set("FAKE_NVML", &machine.path("script.json"));
    machine.keys = OF_DEVICE;
    machine
}

#[test]
fn of_what_would_be_metered() {
    let mut machine = machine();
    // Where this runs says the machine.
    machine.known.learn(", in a container", ", <place>");
    machine.known.learn(", on the host", ", <place>");
    let text = machine.ok("jobmeter doctor --nvml-library $DIR/libfake_nvml.so").out;
    let lines = text.lines().filter(|line| line.contains("NVML") || line.contains("GPU"));
    let doctor = machine.known.in_text(&lines.collect::<Vec<_>>().join("\n"));
    machine.figures = Some(&["5", "0.00025", "0.0025", "1.000000", "0", "1", "2", "7", "18"]);
    let run = "jobmeter run --dry-run --cpu-source procfs --nvml-library $DIR/libfake_nvml.so";
    let exclusive = format!("{run} --gpus 0 --gpu-exclusive -- true");
    let shared = format!("{run} --gpus GPU-a -- true");
    let none = format!("{run} --gpus none -- true");
    let unknown = format!("{run} --gpus 7 -- true");
    keep("gpus-before", &format!("{doctor}\n\n{}", machine.both(&[&exclusive, &shared, &none, &unknown])));
}

#[test]
fn of_what_was_metered() {
    let mut machine = machine();
    let run = "jobmeter run --cpu-source procfs --nvml-library $DIR/libfake_nvml.so --receipt $DIR/receipt.json";
    machine.figures = Some(&["5"]);
    let mut text = String::new();
    for (job, options) in [("exclusive", "--gpus 0,1 --gpu-exclusive"), ("shared", "--gpus 0")] {
        let line = format!("{run} --job {job} {options} -- sleep 0.5");
        text.push_str(&machine.transcript(&line));
        let receipt = std::fs::read(machine.station.path("receipt.json")).expect("a receipt");
        let mut receipt: Value = serde_json::from_slice(&receipt).expect("JSON");
        // Whether a look came late is the machine's.
        receipt["gpu"]["devices"].as_array_mut().expect("devices").iter_mut().for_each(without_notes);
        text.push_str(&format!("--- GPUs\n{}\n\n", machine.known.in_json(&receipt["gpu"], OF_DEVICE)));
    }
    keep("gpus-receipt", &text);
    machine.keys = OF_METER;
    machine.figures = Some(&["0", "1", "7"]);
    let line = format!("{run} --job unknown --gpus 7 -- true");
    keep("gpus-unknown", &machine.transcript(&line));
}

fn without_notes(device: &mut Value) {
    device.as_object_mut().expect("a device").remove("notes");
}
