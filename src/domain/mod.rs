//! The pure part: units, usage, prices, leases, the book's posting rules and the job's state machine.
//!
//! Architecture Invariant: nothing in here reads a file, a clock or the environment, and nothing imports another
//! module of this crate. Time comes in as a value. Arithmetic is checked; no float ever holds credits or time.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::float_arithmetic,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod balance;
pub mod book;
pub mod calendar;
pub mod capacity;
pub mod deadline;
pub mod job;
pub mod lease;
pub mod printable;
pub mod rating;
pub mod redaction;
pub mod units;
pub mod usage;
pub mod user_name;
pub mod weight;
