//! By libFuzzer; `tests/seeds.rs` holds the seeds against the same check.
#![no_main]

#[path = "../checks/messages.rs"]
mod messages;

libfuzzer_sys::fuzz_target!(|data: &[u8]| messages::check(data));
