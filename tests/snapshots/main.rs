//! Every word that people and programs can meet, in one place: whoever changes one sees it here.
//!
//! A test writes down what it got, puts placeholders where a value differs from run to run, and compares that with a file
//! in `snapshots/`. `INSTA_UPDATE=always cargo test --test snapshots` accepts what is new; read the diff before it goes in.

#![allow(
    clippy::pedantic,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a test, not an interface"
)]

mod attempts;
mod books;
mod bystanders;
mod catalogue;
mod files;
mod gpus;
mod help;
mod kept;
mod machine;
mod outputs;
mod pages;
mod placeholders;
mod problems;
mod receipts;
mod run_errors;
mod service;
mod sockets;
mod source;
#[path = "../station.rs"]
mod station;
mod streams;
mod verb_errors;
