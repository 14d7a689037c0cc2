//! GPU time: what the devices of a job really did.
//!
//! ```text
//! jobmeter-nvml ─socket─▶ child ─▶ watch (a thread) ─▶ gpus ─▶ device ─▶ integral
//!   the library           asked     each second         whose?   how?     samples → µs
//! ```
//!
//! `allocated` is the wall time during which a device was the job's; `busy` the integral of what the device did for it,
//! never more. Where busy time cannot be known, allocated time stands in for it, and the receipt says so. Nothing that
//! happens to library, driver or device stops a job.

pub mod chart;
pub mod child;
pub mod claims;
pub mod declared;
pub mod device;
pub mod figures;
pub mod gpus;
pub mod identity;
pub mod integral;
pub mod need;
mod node;
pub mod openings;
pub mod options;
mod orders;
pub mod others;
mod pbs;
pub mod pids;
pub mod place;
pub mod program;
pub mod prospect;
mod tenants;
pub mod watch;
mod watcher;
pub mod wire;

#[cfg(test)]
mod tests;
