//! The scripted NVML of `tests/fake-nvml`, for jobs of a station.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use jobmeter::sys::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::station::Station;

/// The one that whoever builds the tests has named, or one that is built now: `cargo test --test it` builds no examples. The station
/// has a copy, since root loads none out of a checkout that belongs to somebody else.
pub fn library(station: &Station) -> String {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let named = || std::env::var_os("JOBMETER_FAKE_NVML").map(PathBuf::from);
    let (made, copy) = (LIBRARY.get_or_init(|| named().unwrap_or_else(built)), station.path("libfake_nvml.so"));
    if !copy.exists() {
        std::fs::copy(made, &copy).unwrap();
    }
    copy.to_str().unwrap().to_owned()
}

/// Beside the binary: of its profile, whose directory is `debug` for `dev`.
fn built() -> PathBuf {
    let directory = Path::new(env!("CARGO_BIN_EXE_jobmeter")).parent().unwrap();
    let (target, profile) = (directory.parent().unwrap(), directory.file_name().unwrap().to_str().unwrap());
    let profile = if profile == "debug" { "dev" } else { profile };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--example", "fake_nvml", "--profile", profile, "--target-dir"]);
    let status = cargo.arg(target).current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(status.unwrap().success(), "the library is not built");
    directory.join("examples/libfake_nvml.so")
}

pub fn now_us() -> u64 {
    u64::try_from(SystemClock.realtime_us()).unwrap()
}

/// The script begins `ago_ms` before now: when, in µs since 1970.
pub fn script(station: &Station, ago_ms: u64, mut script: Value) -> u64 {
    // A build of it would take as long as what the script says.
    library(station);
    let start_us = now_us() - ago_ms * 1_000;
    script["start_us"] = json!(start_us);
    script["clock_us"] = json!(987_654_321_u64);
    std::fs::write(station.path("script.json"), script.to_string()).unwrap();
    start_us
}
