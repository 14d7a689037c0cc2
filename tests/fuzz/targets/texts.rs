//! By libFuzzer; `tests/seeds.rs` holds the seeds against the same check.
#![no_main]

#[path = "../checks/texts.rs"]
mod texts;

libfuzzer_sys::fuzz_target!(|text: &str| texts::check(text));
