//! One look at the devices that are asked for.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use jobmeter::meter::gpu::wire::{
    Activity, AskCounters, AskDevice, Fault, FaultKind, Got, Polled, PolledDevice, Stretch,
};
use jobmeter::sys::clock::{Clock, SystemClock};
use jobmeter::sys::nvml::{instance_ids, processes_utilization, remapped_rows, utilization_samples};
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, Sampling};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::gpm::{GpmSample, gpm_metrics_get};
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};

use super::errors::Errors;
use super::fault;
use super::rates::Rates;

/// What is charged by, and what else is told.
const METRICS: [GpmMetricId; 4] =
    [GpmMetricId::GraphicsUtil, GpmMetricId::SmUtil, GpmMetricId::AnyTensorUtil, GpmMetricId::DramBwUtil];
/// Two samples of counters have to be so far apart (nvml.h: "at least 100 ms").
const COUNTERS_LEAST_US: u64 = 100_000;

/// A sample of counters, and when it was taken.
type Sample = (Rc<GpmSample<'static>>, u64);

/// By UUID: with which sample of counters a meter's next one is compared.
pub(super) type Baselines = HashMap<String, Sample>;

/// One look at one device, for all who ask at about the same time.
#[derive(Debug)]
struct Look {
    /// What is the same for all of them, and the samples after `after`.
    polled: PolledDevice,
    after: u64,
    began_us: u64,
    counters: Option<Got<Sample>>,
    /// They were asked for.
    counted: bool,
    /// They are those of a MIG device's GPU instance.
    is_instance: bool,
    /// Who used it, by what was asked for.
    used: HashMap<u64, Got<Vec<(u32, u32)>>>,
}

/// Looks, and keeps the last look at each device.
#[derive(Debug)]
pub(super) struct Poller {
    nvml: &'static Nvml,
    looks: HashMap<String, Look>,
    /// Whether a device has some.
    has_counters: HashMap<String, bool>,
    errors: Errors,
    rates: Rates,
}

impl Poller {
    pub(super) fn new(nvml: &'static Nvml) -> Self {
        Self {
            nvml,
            looks: HashMap::new(),
            has_counters: HashMap::new(),
            errors: Errors::new(nvml),
            rates: Rates::new(nvml),
        }
    }

    /// When what the driver keeps no samples of is to be looked at again.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.rates.pause()
    }

    /// Takes the samples that are due of what the driver keeps none of.
    pub(super) fn sample(&mut self) {
        self.rates.sample();
    }

    pub(super) fn poll(&mut self, devices: &[AskDevice], since_us: u64, baselines: &mut Baselines) -> Polled {
        let devices = devices.iter().map(|ask| self.answer(ask, since_us, baselines)).collect();
        Polled { devices, cpu_us: 0 }
    }

    fn answer(&mut self, ask: &AskDevice, since_us: u64, baselines: &mut Baselines) -> PolledDevice {
        let after = if ask.whole_ring { 0 } else { ask.after };
        let counts = ask.counters != AskCounters::No;
        let serves = |look: &Look| look.began_us >= since_us && look.after <= after && (look.counted || !counts);
        let device = || self.nvml.device_by_uuid(ask.uuid.as_str());
        let mut look = match self.looks.remove(&ask.uuid).filter(serves) {
            Some(look) => look,
            None => match device() {
                Ok(device) => self.look(&device, ask, after),
                Err(error) => return nothing_of(ask, &fault::of(&error)),
            },
        };
        let mut polled = look.polled.clone();
        if let Ok(samples) = &mut polled.samples {
            samples.retain(|(at, _)| *at > after);
        }
        // Nobody used what did nothing.
        if ask.by_process
            && polled.samples.as_ref().is_ok_and(|samples| samples.iter().any(|(_, percent)| *percent > 0))
        {
            let used =
                look.used.entry(ask.after).or_insert_with(|| match self.nvml.device_by_uuid(ask.uuid.as_str()) {
                    Ok(device) => self.used(&device, ask.after),
                    Err(error) => Err(fault::of(&error)),
                });
            polled.used.clone_from(used);
        }
        let counted = look.counters.as_ref().map(|sample| match sample {
            Ok(sample) => self.counted(sample, ask, baselines).map_err(|error| fault::of(&error)),
            Err(why) => Err(why.clone()),
        });
        if look.is_instance {
            polled.instance = counted;
        } else if counts {
            polled.counted = counted;
        }
        self.looks.insert(ask.uuid.clone(), look);
        polled
    }

    fn look(&mut self, device: &Device<'static>, ask: &AskDevice, after: u64) -> Look {
        let began_us = SystemClock.boottime_us();
        let mut polled = PolledDevice::new(ask.uuid.clone(), began_us);
        let mut counters = None;
        let is_instance = device.mig_is_mig_device_handle().unwrap_or(false);
        if is_instance {
            counters = Some(self.instance_sample(device).map_err(|error| fault::of(&error)));
        } else {
            polled.samples = self.samples(device, after);
            if polled.samples.as_ref().is_err_and(|fault| fault.kind == FaultKind::Unsupported)
                && let Some(samples) = self.rates.of(device, &ask.uuid)
            {
                (polled.samples, polled.by_rate) = (Ok(samples), true);
            }
            // Were it taken before a call that hangs, the driver's clock would seem to be ahead for ever.
            polled.at_us = SystemClock.boottime_us();
            if ask.counters != AskCounters::No && self.has_counters(device, &ask.uuid) {
                counters = Some(device.gpm_sample().map(taken_now).map_err(|error| fault::of(&error)));
            }
            polled.mps = device.mps_running_compute_processes().is_ok_and(|clients| !clients.is_empty());
            polled.energy_mj = device.total_energy_consumption().ok();
            polled.slowdown = device.current_throttle_reasons().map_or(0, |reasons| reasons.bits());
            polled.ecc_uncorrected = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).ok();
            polled.remapped_rows = remapped_rows(self.nvml, device).ok();
            polled.errors = self.errors.of(device, &ask.uuid);
        }
        polled.running = running(device);
        polled.memory_bytes = device.memory_info().ok().map(|memory| memory.used);
        let counted = is_instance || ask.counters != AskCounters::No;
        Look { polled, after, began_us, counters, counted, is_instance, used: HashMap::new() }
    }

    fn samples(&self, device: &Device<'static>, after: u64) -> Got<Vec<(u64, u32)>> {
        let told = match utilization_samples(self.nvml, device, after) {
            // More than there is room for, or a driver that wants to be asked for their number first.
            Err(NvmlError::InvalidArg | NvmlError::InsufficientSize(_) | NvmlError::Unknown) => {
                device.samples(Sampling::GpuUtilization, after)
            }
            told => told,
        };
        // Nothing newer: it was idle.
        let samples = some_or_none(told)?;
        Ok(samples.into_iter().map(|sample| (sample.timestamp, whole(&sample.value))).collect())
    }

    /// The newer call first: on some Blackwell drivers the older one says 0 for all (HAMi issue 2015).
    fn used(&self, device: &Device<'static>, after: u64) -> Got<Vec<(u32, u32)>> {
        match processes_utilization(self.nvml, device, after) {
            Ok(used) if used.iter().any(|(_, percent)| *percent > 0) => return Ok(used),
            Ok(_) | Err(_) => {}
        }
        let used = some_or_none(device.process_utilization_stats(after))?;
        let newer = used.iter().filter(|record| record.timestamp > after);
        Ok(newer.map(|record| (record.pid, record.sm_util)).collect())
    }

    /// Of the GPU instance of a MIG device.
    fn instance_sample(&self, device: &Device<'static>) -> Result<Sample, NvmlError> {
        let parent = device.mig_parent_device()?;
        let (gpu_instance, _) = instance_ids(self.nvml, device)?;
        Ok(taken_now(parent.gpm_mig_sample(gpu_instance)?))
    }

    fn has_counters(&mut self, device: &Device<'static>, uuid: &str) -> bool {
        if let Some(has_some) = self.has_counters.get(uuid) {
            return *has_some;
        }
        // What fails once may be told later.
        let told = device.gpm_support();
        told.is_ok_and(|has_some| *self.has_counters.entry(uuid.to_owned()).or_insert(has_some))
    }

    /// How busy it was since the meter's sample before this one; nothing at the first one, and where that was too short a time ago,
    /// which then stays.
    fn counted(&self, sample: &Sample, ask: &AskDevice, baselines: &mut Baselines) -> Result<Stretch, NvmlError> {
        let until_us = sample.1;
        let nothing_at = |at_us: u64| Stretch { from_us: at_us, until_us: at_us, ..Stretch::default() };
        let before = baselines.get(&ask.uuid).filter(|_| ask.counters != AskCounters::Anew);
        let Some((before, from_us)) = before.cloned() else {
            baselines.insert(ask.uuid.clone(), sample.clone());
            return Ok(nothing_at(until_us));
        };
        if until_us.saturating_sub(from_us) < COUNTERS_LEAST_US {
            return Ok(nothing_at(from_us));
        }
        let metrics = gpm_metrics_get(self.nvml, &before, &sample.0, &METRICS);
        // Else a sample that is no good would spoil each look.
        baselines.insert(ask.uuid.clone(), sample.clone());
        let mut told = metrics?.into_iter().map(|metric| ppm(metric?.value));
        let busy_ppm = told.next().ok_or(NvmlError::NotFound)??;
        let mut part = || told.next().and_then(Result::ok);
        let activity = Activity { sm_ppm: part(), tensor_ppm: part(), dram_ppm: part() };
        Ok(Stretch { from_us, until_us, busy_ppm, activity })
    }
}

fn taken_now(sample: GpmSample<'static>) -> Sample {
    (Rc::new(sample), SystemClock.boottime_us())
}

fn nothing_of(ask: &AskDevice, why: &Fault) -> PolledDevice {
    let mut polled = PolledDevice::new(ask.uuid.clone(), SystemClock.boottime_us());
    (polled.samples, polled.running, polled.used) = (Err(why.clone()), Err(why.clone()), Err(why.clone()));
    polled
}

/// NVML's percent, a float, as an integer; what is outside its range is no figure at all.
fn ppm(percent: f64) -> Result<u32, NvmlError> {
    if !(0.0..=100.0).contains(&percent) {
        return Err(NvmlError::NotFound);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within 0 to a million")]
    Ok((percent * 10_000.0).round() as u32)
}

/// Where nothing is found there is nothing new.
fn some_or_none<T>(told: Result<Vec<T>, NvmlError>) -> Got<Vec<T>> {
    match told {
        Ok(found) => Ok(found),
        Err(NvmlError::NotFound) => Ok(Vec::new()),
        Err(error) => Err(fault::of(&error)),
    }
}

fn whole(value: &SampleValue) -> u32 {
    match value {
        SampleValue::U32(value) => *value,
        SampleValue::U64(value) => u32::try_from(*value).unwrap_or(u32::MAX),
        SampleValue::I64(value) => u32::try_from(*value).unwrap_or(u32::MAX),
        // Utilisation is no float (nvml.h); what claims to be one is dropped as out of range.
        SampleValue::F64(_) => u32::MAX,
    }
}

/// Those that compute and those that draw, each once: a driver may list one several times.
fn running(device: &Device<'_>) -> Got<Vec<(u32, u64)>> {
    let mut all = match device.running_compute_processes() {
        Ok(processes) => processes,
        Err(error) => return Err(fault::of(&error)),
    };
    all.extend(device.running_graphics_processes().unwrap_or_default());
    let mut found: Vec<(u32, u64)> = all.iter().map(|process| (process.pid, memory(process))).collect();
    found.sort_unstable();
    found.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 = kept.1.max(next.1);
        }
        same
    });
    Ok(found)
}

fn memory(process: &ProcessInfo) -> u64 {
    match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => bytes,
        UsedGpuMemory::Unavailable => 0,
    }
}
