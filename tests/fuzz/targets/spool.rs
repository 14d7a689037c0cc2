//! By libFuzzer; `tests/seeds.rs` holds the seeds against the same check.
#![no_main]

#[path = "../checks/spool.rs"]
mod spool;

libfuzzer_sys::fuzz_target!(|data: &[u8]| spool::check(data));
