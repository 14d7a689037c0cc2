//! The command line as its users see it.

#![allow(
    clippy::pedantic,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a test, not an interface"
)]

mod access;
mod accounts;
mod bad_input;
mod bounds;
mod certificates;
#[path = "../cluster.rs"]
mod cluster;
mod faults;
mod files;
mod gpu;
mod keys;
mod listening;
#[path = "../nvml.rs"]
mod nvml;
mod nvml_faults;
mod outages;
mod proxy;
mod rates;
mod ready;
mod relay;
mod run;
mod secrets;
mod service;
mod sessions;
mod settings;
mod socket;
#[path = "../station.rs"]
mod station;
mod stops;
mod streams;
mod text;
mod webhook;
