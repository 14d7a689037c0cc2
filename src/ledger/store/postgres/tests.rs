//! The suite on PostgreSQL: a cluster of our own, and a database for each test.

#![allow(clippy::pedantic, clippy::print_stdout, reason = "a test, not an interface")]

#[path = "../../../../tests/cluster.rs"]
mod cluster;
#[path = "../suite/mod.rs"]
mod suite;

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// The name of a database. It goes with its cluster.
#[derive(Debug)]
struct Place(#[expect(dead_code, reason = "for who looks at a failed test")] String);

fn store_for_tests(clock: Box<dyn Clock>) -> (Place, Box<dyn Store>) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let directory = cluster::start(|url| Postgres::open(url, None).is_ok());
    let name = format!("world_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let mut first = Postgres::open(&cluster::url(directory, "postgres"), None).unwrap();
    first.batch(&format!("CREATE DATABASE {name}")).unwrap();
    let place = Place(name.clone());
    (place, Box::new(Postgres::open(&cluster::url(directory, &name), Some(clock)).unwrap()))
}
