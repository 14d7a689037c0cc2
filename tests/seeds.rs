//! The checks of the fuzz targets hold for their seeds, whole and cut off anywhere: so each run of the tests builds them.

#![allow(clippy::pedantic, missing_docs, unreachable_pub, reason = "a test, not an interface")]

use std::path::Path;

#[path = "fuzz/checks/messages.rs"]
mod messages;
#[path = "fuzz/checks/spool.rs"]
mod spool;
#[path = "fuzz/checks/texts.rs"]
mod texts;

/// How many seeds there are.
fn each_seed(of: &str, check: fn(&[u8])) -> usize {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(of);
    let seeds: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    for seed in &seeds {
        let seed = std::fs::read(seed).unwrap();
        (0..=seed.len()).filter_map(|length| seed.get(..length)).for_each(check);
    }
    seeds.len()
}

#[test]
fn messages_are_read_or_refused() {
    assert!(each_seed("messages", messages::check) >= 7);
}

#[test]
fn texts_are_read_or_refused() {
    let check = |seed: &[u8]| {
        if let Ok(text) = std::str::from_utf8(seed) {
            texts::check(text);
        }
    };
    assert!(each_seed("texts", check) >= 6);
}

#[test]
fn a_spoiled_spool_is_read_or_refused() {
    // It has no seeds of its own: whatever is no spool is one that was spoiled.
    assert!(each_seed("messages", spool::check) >= 7);
}
