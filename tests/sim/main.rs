//! A seeded world: many attempts of one account, a ledger on a real file, and between them a network that loses,
//! repeats, delays and reorders; attempts crash, the ledger falls silent, and its clock is set forward and back. After
//! every step the invariants of the design hold.
//!
//! `SIM_SEEDS=1000 cargo test --test sim` runs more worlds, `SIM_SEED=7` one of them.

#![allow(
    clippy::pedantic,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a test, not an interface"
)]

mod network;
mod sidecar;
mod world;

use world::World;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("SIM_SEEDS").unwrap_or(24)).collect(),
    }
}

#[test]
fn no_world_overspends_loses_or_kills_without_reason() {
    for seed in seeds() {
        let mut world = World::new(seed);
        world.run();
        let told = world.end();
        println!("seed {seed}: {told}");
    }
}
