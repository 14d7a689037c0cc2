//! jobmeter: runs a job, meters what it really uses, charges credits while it runs, and stops it at zero.
//!
//! The data flows in one straight line; the modules stand in its order:
//!
//! ```text
//! meter ─▶ domain::usage ─▶ domain::rating ─▶ runner::spool ─▶ ledger::book ─▶ domain::lease ─▶ decision ─▶ kill
//! reading   cumulative       credits           durable first     idempotent       granted        pure
//! ```

pub mod cli;
pub mod domain;
pub mod ledger;
pub mod meter;
#[cfg(test)]
mod properties;
pub mod runner;
pub mod server;
pub mod sys;
