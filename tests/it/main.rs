//! The command line as its users see it.

mod accounts;
mod bad_input;
mod run;
#[path = "../station.rs"]
mod station;
