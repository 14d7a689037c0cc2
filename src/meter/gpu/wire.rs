//! What jobmeter and its helper `jobmeter-nvml` say to each other: one JSON document a line, over a socket. The helper decides nothing;
//! what it reads is judged where it is taken.

use serde::{Deserialize, Serialize};

/// A question or an answer as it is sent.
///
/// # Errors
/// Never for those of this module.
pub fn line(message: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// To the helper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Which devices are there.
    List,
    /// What they did since.
    Poll {
        /// Which.
        devices: Vec<AskDevice>,
        /// A look at them that others have asked for will do, if it is not older than this (`CLOCK_BOOTTIME`, µs).
        #[serde(default)]
        since_us: u64,
    },
}

/// One device of a poll.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskDevice {
    /// Which.
    pub uuid: String,
    /// What is after this time of the driver's clock.
    pub after: u64,
    /// All samples that the ring has, whatever `after` is.
    pub whole_ring: bool,
    /// Whether processes are wanted one by one.
    pub by_process: bool,
    /// What is wanted of its counters.
    #[serde(default)]
    pub counters: AskCounters,
}

/// What is wanted of a device's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskCounters {
    /// Nothing. Those of MIG devices are read all the same.
    #[default]
    No,
    /// What they have counted since the last look.
    Since,
    /// Nothing that they counted before this look.
    Anew,
}

/// From the helper. What could not be had says why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// The answer to [`Ask::List`].
    Listed(Box<Listed>),
    /// The answer to [`Ask::Poll`].
    Polled(Box<Polled>),
    /// Nothing can be had.
    Failed(Fault),
    /// Unasked, once, of a helper of one meter: nobody can trace it from now on.
    Ready,
    /// Unasked, of the machine's helper: somebody has opened a file of the driver.
    Opened,
}

/// Why something could not be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What follows from it.
    pub kind: FaultKind,
    /// For people.
    pub why: String,
}

/// What follows from a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It may work the next time.
    Failed,
    /// This driver or device never tells that.
    Unsupported,
    /// Not to this user.
    Denied,
    /// The device has fallen off the bus, or needs a reset.
    Lost,
}

/// What was read, or why not.
pub type Got<T> = Result<T, Fault>;

/// The library, the driver and all devices that can be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Where the library was found.
    pub library: String,
    /// Such as `570.86.15`.
    pub driver: String,
    /// The devices, MIG devices in the place of their parents.
    pub devices: Vec<ListedDevice>,
    /// Those that could not be opened, for people.
    pub refused: Vec<String>,
}

/// One device that can be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedDevice {
    /// For ever.
    pub uuid: String,
    /// As the driver names it.
    pub model: String,
    /// By the order of the PCI bus, of the parent where it is a MIG device.
    pub index: u32,
    /// N of `/dev/nvidiaN`.
    pub minor: Option<u32>,
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// What a MIG device is part of.
    pub mig: Option<Mig>,
}

/// What a MIG device is part of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mig {
    /// The whole device.
    pub parent: String,
    /// Among the MIG devices of its parent.
    pub index: u32,
    /// GPU instance.
    pub gpu_instance: u32,
    /// Compute instance.
    pub compute_instance: u32,
    /// It is only a part of its GPU instance, whose figures are those of several MIG devices.
    pub shares_instance: bool,
    /// Why its GPU instance tells nothing; `None` where it does.
    pub untold: Option<String>,
}

/// One look at all devices that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Polled {
    /// In the order in which they were asked for.
    pub devices: Vec<PolledDevice>,
    /// CPU time of the helper so far, the library's included: all of it, or what it has done for this meter.
    pub cpu_us: u64,
}

/// One look at one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolledDevice {
    /// Which.
    pub uuid: String,
    /// `CLOCK_BOOTTIME` when its samples had been told.
    pub at_us: u64,
    /// Of the whole device: end of the sample by the driver's clock, in µs, and percent.
    pub samples: Got<Vec<(u64, u32)>>,
    /// The driver keeps none: they are what it did when the helper asked, some five times a second.
    #[serde(default)]
    pub by_rate: bool,
    /// The same by its counters; `None` where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<Got<Stretch>>,
    /// Of a MIG device, instead.
    pub instance: Option<Got<Stretch>>,
    /// Which processes have it open, and how much of its memory.
    pub running: Got<Vec<(u32, u64)>>,
    /// Which processes used it since: process id and percent of the time. Where it was not asked for, none.
    pub used: Got<Vec<(u32, u32)>>,
    /// Several processes use it through one (MPS).
    pub mps: bool,
    /// Memory in use by anybody.
    pub memory_bytes: Option<u64>,
    /// Since the driver was loaded.
    pub energy_mj: Option<u64>,
    /// Why its clocks are lower than they could be: bits of `nvmlClocksEventReasons`.
    #[serde(default)]
    pub slowdown: u64,
    /// Errors of its memory that could not be corrected, since the driver was loaded.
    #[serde(default)]
    pub ecc_uncorrected: Option<u64>,
    /// Rows of its memory that were ever replaced by spare ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remapped_rows: Option<u64>,
    /// The driver's last errors of it (XID): `CLOCK_BOOTTIME` when each was seen, in µs, and its number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<(u64, u64)>,
}

/// How busy a GPU instance was in one stretch of `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// From.
    pub from_us: u64,
    /// To.
    pub until_us: u64,
    /// Parts per million of it.
    pub busy_ppm: u32,
    /// What its parts did.
    #[serde(default)]
    pub activity: Activity,
}

/// What the parts of a device did in a stretch of time, each in parts per million (GPM, nvml.h); `None` where it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// Of the time: the multiprocessors (`SM_UTIL`).
    pub sm_ppm: Option<u32>,
    /// Of the time: the tensor cores (`ANY_TENSOR_UTIL`).
    pub tensor_ppm: Option<u32>,
    /// Of the memory's bandwidth (`DRAM_BW_UTIL`).
    pub dram_ppm: Option<u32>,
}

impl Stretch {
    /// The part of it between two times, and how busy it was in that: from, to, busy time.
    #[must_use]
    pub fn between(&self, from_us: u64, until_us: u64) -> (u64, u64, u64) {
        let (from_us, until_us) = (self.from_us.max(from_us), self.until_us.min(until_us));
        let busy = u128::from(until_us.saturating_sub(from_us)) * u128::from(self.busy_ppm) / 1_000_000;
        (from_us, until_us, u64::try_from(busy).unwrap_or(0))
    }
}

impl PolledDevice {
    /// With nothing read yet.
    #[must_use]
    pub fn new(uuid: String, at_us: u64) -> Self {
        let (samples, running, used) = (Ok(Vec::new()), Ok(Vec::new()), Ok(Vec::new()));
        let (counted, instance) = (None, None);
        let (memory_bytes, energy_mj, ecc_uncorrected, errors) = (None, None, None, Vec::new());
        Self {
            uuid,
            at_us,
            samples,
            by_rate: false,
            counted,
            instance,
            running,
            used,
            mps: false,
            memory_bytes,
            energy_mj,
            slowdown: 0,
            ecc_uncorrected,
            remapped_rows: None,
            errors,
        }
    }
}

impl Fault {
    /// It may work the next time.
    #[must_use]
    pub fn failed(why: impl Into<String>) -> Self {
        Self { kind: FaultKind::Failed, why: why.into() }
    }
}
