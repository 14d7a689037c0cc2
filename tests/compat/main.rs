//! What earlier versions have written, and what they say on the wire: each directory beside this file holds the files of
//! one version, made by its own binary (`make.py`). Today's version opens them, or says in one sentence what to do.

#![allow(
    clippy::pedantic,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a test, not an interface"
)]

#[path = "../cluster.rs"]
mod cluster;
mod fixture;
mod ledger;
mod newer;
mod openapi;
mod played;
mod postgres;
mod receipts;
mod relay;
mod replayed;
mod service;
mod settings;
mod socket;
mod spool;
#[path = "../station.rs"]
mod station;
