//! Meters: the operating system's cumulative counters → readings.
//!
//! A meter is synchronous and holds its counter open. What it reads is cumulative since the attempt began.

use serde::{Deserialize, Serialize};

use crate::domain::units::Microseconds;

pub mod attached;
pub mod breakdown;
pub mod cgroup1;
pub mod cgroup2;
pub mod enclosing;
pub mod gpu;
pub mod perf;
pub mod procfs;
pub mod proof;
pub mod resources;
pub mod select;
mod steal;
pub mod task_groups;
mod tree_clock;

/// Where CPU time is read, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum CpuSource {
    /// A cgroup v2 made for this job.
    Cgroup2,
    /// A cgroup v1 `cpuacct` group made for this job.
    Cgroup1,
    /// The counter of the group that jobmeter was started in, less jobmeter's own time.
    Enclosing,
    /// A task clock that all descendants inherit.
    Perf,
    /// Samples of `/proc`, which declare no bound.
    Procfs,
}

impl CpuSource {
    /// All of them.
    pub const BEST_FIRST: [Self; 5] = [Self::Cgroup2, Self::Cgroup1, Self::Enclosing, Self::Perf, Self::Procfs];

    /// The word for it everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup2 => "cgroup2",
            Self::Cgroup1 => "cgroup1",
            Self::Enclosing => "enclosing",
            Self::Perf => "perf",
            Self::Procfs => "procfs",
        }
    }
}

/// What the counters say now, since the attempt began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The figure that is billed.
    pub cpu_seconds: Microseconds,
    /// An estimated split, for display.
    pub user_seconds: Microseconds,
    /// An estimated split, for display.
    pub system_seconds: Microseconds,
}

/// Why a counter could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    /// The file or call failed.
    #[error("cannot read {what}: {source}")]
    Io {
        /// Path or call.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel wrote something else than what its documentation says.
    #[error("{what} has an unexpected line {line:?}")]
    Format {
        /// Path.
        what: String,
        /// The line.
        line: String,
    },
    /// This source cannot work here.
    #[error("{source_name} is not usable here: {why}")]
    Unusable {
        /// Which.
        source_name: &'static str,
        /// Why, and what would help.
        why: String,
    },
}

/// A cumulative CPU counter of one attempt.
pub trait Meter: std::fmt::Debug {
    /// Reads now.
    ///
    /// # Errors
    /// Where the counter cannot be read any more; the caller ends the job rather than run it unmetered.
    fn read(&mut self) -> Result<Reading, MeterError>;

    /// CPU time that is the meter's own, beside that of front and keeper, where it stands in the same counter.
    fn set_helpers_us(&mut self, _us: u64) {}

    /// Which source it is.
    fn source(&self) -> CpuSource;

    /// How far a final reading, taken when no process of the job is left or all are frozen, can be from the truth.
    /// `None` where no bound can be declared.
    fn error_bound(&self) -> Option<Microseconds>;

    /// What this job has done that its source cannot count, and why: for the receipt.
    fn degraded(&self) -> Option<&'static str> {
        None
    }
}
