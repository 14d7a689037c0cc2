//! What is known of a device, in plain numbers.

use serde::{Deserialize, Serialize};

/// How the busy time of a device is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The integral of the whole device, which is the job's alone.
    Exclusive,
    /// The job's share of that integral, by samples of which process used it.
    Shared,
    /// How busy its GPU instance was, by the device's performance counters.
    Mig,
    /// It is not: the wall time is charged.
    Allocated,
}

impl Figures {
    /// Of a device of which nothing is known yet but what was declared.
    #[must_use]
    pub fn new(declared: bool, exclusive: bool) -> Self {
        Self {
            mode: if exclusive && declared { Mode::Exclusive } else { Mode::Shared },
            declared,
            exclusive,
            allocated_us: 0,
            busy_us: 0,
            unattributed_us: 0,
            estimated_us: 0,
            memory_peak_bytes: 0,
            energy_mj: 0,
        }
    }

    /// Of the busy time, what was read.
    #[must_use]
    pub fn read_us(&self) -> u64 {
        self.busy_us.saturating_sub(self.estimated_us)
    }
}

impl Mode {
    /// The word for it everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
            Self::Mig => "mig",
            Self::Allocated => "allocated",
        }
    }
}

/// What can be known about processes here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// The driver's lists of running processes have ids of this namespace.
    pub running: bool,
    /// Its records of use as well.
    pub used: bool,
    /// Every process of the machine is listed.
    pub everybody: bool,
}

/// What is known of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// How its busy time is known.
    pub mode: Mode,
    /// The job's from the start to the end, whether it uses it or not.
    pub declared: bool,
    /// Declared to be no other job's.
    pub exclusive: bool,
    /// Wall time during which it was the job's.
    pub allocated_us: u64,
    /// What it did for the job; never more.
    pub busy_us: u64,
    /// Busy while the job was on it, and nobody knows for whom.
    pub unattributed_us: u64,
    /// Of the busy time, what was taken as allocated.
    pub estimated_us: u64,
    /// At the looks.
    pub memory_peak_bytes: u64,
    /// Of the whole device.
    pub energy_mj: u64,
}
