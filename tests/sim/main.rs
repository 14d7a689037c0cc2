//! A seeded world: many attempts of three accounts on several hosts, chats that reserve tokens, operators, replicas of the ledger on one
//! real file, and between them a network that loses, repeats, delays, reorders and is cut; attempts crash, replicas crash
//! between any two statements, the ledger falls silent, is put back from a copy, and its clock is set forward and back, by
//! years as well. What an account has spent, or owes, an operator changes meanwhile.
//! After every step the invariants of the design hold.
//!
//! `SEEDS=10000 cargo test --release --test sim` runs more worlds, `SEED=7` one of them, which is the same each time.

#![allow(
    clippy::pedantic,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a test, not an interface"
)]

mod backend;
mod disturbances;
mod enough;
#[path = "../janitor.rs"]
mod janitor;
mod network;
mod operators;
mod replica;
mod sidecar;
mod sums;
mod world;

use jobmeter::domain::units::Nanocredits;
use world::World;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("SEEDS").unwrap_or(1_000)).collect(),
    }
}

#[test]
fn no_world_overspends_loses_or_kills_without_reason() {
    let (seeds, at) = (seeds(), std::sync::atomic::AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(at.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let mut world = World::new(*seed);
                    world.run();
                    println!("seed {seed}: {}", world.end());
                }
            });
        }
    });
}

/// A user's jobs on several hosts burn five credits: never more, and next to nothing stays when all of them have stopped.
#[test]
fn many_jobs_burn_what_there_is_and_no_more() {
    let limit = Nanocredits(5_000_000_000);
    for (seed, count) in [(1, 4), (2, 16), (3, 64), (4, 64), (5, 64)] {
        let mut world = World::crowd(seed, count, limit);
        world.run();
        let charged = world.charged();
        let told = world.end();
        let unburned = limit.saturating_sub(charged);
        println!("{count} jobs: {charged} charged, {unburned} of {limit} unburned; {told}");
        assert!((0..=limit.0 / 200).contains(&unburned.0), "{count} jobs: {unburned} of {limit} stayed unburned");
    }
}
