//! The GPUs of a job on its receipt.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::rating::RateCard;
use crate::domain::units::Microseconds;
use crate::domain::usage::GpuUsage;
use crate::meter::gpu::device::Device;
use crate::meter::gpu::device::processes::GpuProcess;
use crate::meter::gpu::figures::Mode;
use crate::meter::gpu::gpus::Gpus;

/// Where no sign of a GPU was seen.
const NO_SOURCE: &str = "none";

/// GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuPart {
    /// `nvml`, `files` (of the driver: NVML could never be asked), `spool` (the meter was killed), or `none`: nothing was metered, since no sign of a GPU
    /// was seen.
    pub source: String,
    /// Version of the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Who has said which devices are the job's: `--gpus`, a variable, `the container`, or nobody.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub declared_by: String,
    /// Sum over devices.
    pub busy_seconds: Microseconds,
    /// Sum over devices.
    pub allocated_seconds: Microseconds,
    /// Of shared devices while the job was on them, nobody's.
    pub unattributed_seconds: Microseconds,
    /// `null` where none can be declared.
    pub error_bound_seconds: Option<Microseconds>,
    /// Each device that was the job's at some time.
    pub devices: Vec<GpuDevice>,
    /// What could not be done exactly, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Devices of the machine that could not be opened, and why: they are nobody's here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// Looks.
    #[serde(default)]
    pub readings: u64,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuDevice {
    /// For ever.
    pub uuid: String,
    /// As the driver names it.
    pub name: String,
    /// How its busy time is known.
    pub mode: Mode,
    /// Virtual seconds per second, by the rate card.
    pub weight: Microseconds,
    /// The job's from the start to the end, whether it used it or not.
    pub declared: bool,
    /// Never more than it was allocated.
    pub busy_seconds: Microseconds,
    /// Wall time.
    pub allocated_seconds: Microseconds,
    /// Busy time, while the job was on it, of which nobody knows whose it was; not charged.
    pub unattributed_seconds: Microseconds,
    /// Of the busy time, what could not be read and was taken as allocated.
    pub estimated_seconds: Microseconds,
    /// `null` where none can be declared.
    pub error_bound_seconds: Option<Microseconds>,
    /// Wall time between looks in which it did nothing for the job.
    #[serde(default)]
    pub idle_seconds: Microseconds,
    /// At the looks; of the job's processes on a shared device, else of the device.
    pub memory_peak_bytes: u64,
    /// Of the whole device; `null` where it is not known.
    #[serde(default)]
    pub memory_total_bytes: Option<u64>,
    /// Of the whole device.
    pub energy_millijoules: u64,
    /// Of the whole device, while it was the job's; `null` where it does not tell.
    #[serde(default)]
    pub power_mean_milliwatts: Option<u64>,
    /// The same at most, on average between two looks.
    #[serde(default)]
    pub power_peak_milliwatts: Option<u64>,
    /// For how long its clocks were lowered, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slowdown_seconds: BTreeMap<String, Microseconds>,
    /// The driver's errors of it (XID), by their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xids: Vec<u64>,
    /// Errors of its memory that could not be corrected.
    #[serde(default)]
    pub ecc_uncorrected_errors: u64,
    /// Rows of its memory that were replaced by spare ones meanwhile.
    #[serde(default)]
    pub remapped_rows: u64,
    /// How busy its multiprocessors were, by its counters; absent where it does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm_percent: Option<u64>,
    /// The same of its tensor cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensor_percent: Option<u64>,
    /// How much of its memory's bandwidth was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dram_percent: Option<u64>,
    /// The job's processes that used most of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<GpuProcess>,
    /// How busy it was, in equal columns of time.
    pub utilization: Utilization,
    /// What could not be done exactly, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How busy a device was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Utilization {
    /// How long a column is.
    pub column_seconds: Microseconds,
    /// Of each.
    pub percent: Vec<u64>,
    /// Of that, what could not be read and was taken as allocated; absent where all could be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub estimated_percent: Vec<u64>,
}

impl GpuPart {
    /// No GPU was metered.
    #[must_use]
    pub fn none() -> Self {
        Self { source: NO_SOURCE.to_owned(), ..Self::default() }
    }

    /// As of the last look.
    #[must_use]
    pub fn of(gpus: &Gpus, rates: &RateCard) -> Self {
        let devices: Vec<GpuDevice> = gpus.of_job().map(|device| GpuDevice::of(device, rates)).collect();
        let sum = |of: fn(&GpuDevice) -> Microseconds| {
            devices.iter().map(of).fold(Microseconds::ZERO, Microseconds::saturating_add)
        };
        let bounds = devices.iter().map(|device| device.error_bound_seconds.map(|bound| bound.0));
        let said = gpus.said();
        Self {
            source: if said.driver.is_some() { "nvml" } else { "files" }.to_owned(),
            driver: said.driver,
            declared_by: said.declared_by,
            busy_seconds: sum(|device| device.busy_seconds),
            allocated_seconds: sum(|device| device.allocated_seconds),
            unattributed_seconds: sum(|device| device.unattributed_seconds),
            error_bound_seconds: bounds.sum::<Option<u64>>().map(Microseconds),
            devices,
            notes: said.notes,
            refused: said.refused,
            readings: said.readings,
        }
    }
}

impl GpuPart {
    /// And with devices of which the time alone is known.
    #[must_use]
    pub fn with_unread(mut self, others: &BTreeMap<String, GpuUsage>, notes: Vec<String>, rates: &RateCard) -> Self {
        let sum = |sum: &mut Microseconds, of: Microseconds| *sum = sum.saturating_add(of);
        for (uuid, usage) in others {
            self.devices.push(GpuDevice::unread(uuid, usage, rates));
            sum(&mut self.busy_seconds, usage.busy_seconds);
            sum(&mut self.allocated_seconds, usage.allocated_seconds);
        }
        if self.source == NO_SOURCE && !others.is_empty() {
            "files".clone_into(&mut self.source);
        }
        self.notes.extend(notes);
        self
    }
}

impl GpuDevice {
    fn unread(uuid: &str, usage: &GpuUsage, rates: &RateCard) -> Self {
        Self {
            uuid: uuid.to_owned(),
            name: usage.model.clone(),
            mode: Mode::Allocated,
            weight: Microseconds(rates.gpu_weight_ppm_of(&usage.model)),
            declared: true,
            busy_seconds: usage.busy_seconds,
            allocated_seconds: usage.allocated_seconds,
            unattributed_seconds: Microseconds::ZERO,
            estimated_seconds: usage.busy_seconds,
            error_bound_seconds: Some(Microseconds::ZERO),
            idle_seconds: Microseconds::ZERO,
            memory_peak_bytes: 0,
            memory_total_bytes: None,
            energy_millijoules: 0,
            power_mean_milliwatts: None,
            power_peak_milliwatts: None,
            slowdown_seconds: BTreeMap::new(),
            xids: Vec::new(),
            ecc_uncorrected_errors: 0,
            remapped_rows: 0,
            sm_percent: None,
            tensor_percent: None,
            dram_percent: None,
            processes: Vec::new(),
            utilization: Utilization::default(),
            notes: Vec::new(),
        }
    }

    fn of(device: &Device, rates: &RateCard) -> Self {
        let figures = device.figures();
        let condition = device.condition();
        let (columns, activity) = (device.utilization(), condition.activity());
        let slow = condition.slow_us().iter().map(|(why, us)| ((*why).to_owned(), Microseconds(*us)));
        Self {
            uuid: device.info().uuid.clone(),
            name: device.info().model.clone(),
            mode: figures.mode,
            weight: Microseconds(rates.gpu_weight_ppm_of(&device.info().model)),
            declared: figures.declared,
            busy_seconds: Microseconds(figures.busy_us),
            allocated_seconds: Microseconds(figures.allocated_us),
            unattributed_seconds: Microseconds(figures.unattributed_us),
            estimated_seconds: Microseconds(figures.estimated_us),
            error_bound_seconds: device.error_bound_us().map(Microseconds),
            idle_seconds: Microseconds(condition.idle_us()),
            memory_peak_bytes: figures.memory_peak_bytes,
            memory_total_bytes: device.info().memory_bytes,
            energy_millijoules: figures.energy_mj,
            power_mean_milliwatts: condition.power_mean_mw(),
            power_peak_milliwatts: condition.power_peak_mw(),
            slowdown_seconds: slow.collect(),
            xids: condition.errors().to_vec(),
            ecc_uncorrected_errors: condition.ecc_errors(),
            remapped_rows: condition.remapped_rows(),
            sm_percent: activity.sm_percent(),
            tensor_percent: activity.tensor_percent(),
            dram_percent: activity.dram_percent(),
            processes: device.processes(),
            utilization: Utilization {
                column_seconds: Microseconds(columns.column_us),
                percent: columns.percent,
                estimated_percent: columns.estimated_percent,
            },
            notes: device.notes(),
        }
    }
}
