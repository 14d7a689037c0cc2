//! One look at the devices that are asked for.

use std::collections::HashMap;

use jobmeter::meter::gpu::wire::{AskDevice, Got, Polled, PolledDevice, Stretch};
use jobmeter::sys::clock::{Clock, SystemClock};
use jobmeter::sys::nvml::{instance_ids, processes_utilization, utilization_samples};
use jobmeter::sys::process::own_cpu_us;
use nvml_wrapper::enum_wrappers::device::Sampling;
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::gpm::{GpmSample, gpm_metrics_get};
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};

use super::fault;

/// Looks, and keeps what the next look is compared with.
#[derive(Debug)]
pub(super) struct Poller<'nvml> {
    nvml: &'nvml Nvml,
    instances: HashMap<String, (GpmSample<'nvml>, u64)>,
}

impl<'nvml> Poller<'nvml> {
    pub(super) fn new(nvml: &'nvml Nvml) -> Self {
        Self { nvml, instances: HashMap::new() }
    }

    pub(super) fn poll(&mut self, devices: &[AskDevice]) -> Polled {
        let devices = devices.iter().map(|ask| self.look(ask)).collect();
        Polled { devices, cpu_us: own_cpu_us() }
    }

    fn look(&mut self, ask: &AskDevice) -> PolledDevice {
        let mut polled = PolledDevice::new(ask.uuid.clone(), SystemClock.boottime_us());
        let device = match self.nvml.device_by_uuid(ask.uuid.as_str()) {
            Ok(device) => device,
            Err(error) => {
                let why = fault(&error);
                (polled.samples, polled.running, polled.used) = (Err(why.clone()), Err(why.clone()), Err(why));
                return polled;
            }
        };
        if device.mig_is_mig_device_handle().unwrap_or(false) {
            polled.instance = Some(self.instance(&device, &ask.uuid).map_err(|error| fault(&error)));
        } else {
            polled.samples = self.samples(&device, if ask.whole_ring { 0 } else { ask.after });
            // Nobody used what did nothing.
            let worked = polled.samples.as_ref().is_ok_and(|samples| samples.iter().any(|(_, percent)| *percent > 0));
            if ask.by_process && worked {
                polled.used = self.used(&device, ask.after);
            }
            polled.mps = device.mps_running_compute_processes().is_ok_and(|clients| !clients.is_empty());
            polled.energy_mj = device.total_energy_consumption().ok();
        }
        polled.running = running(&device);
        polled.memory_bytes = device.memory_info().ok().map(|memory| memory.used);
        polled
    }

    fn samples(&self, device: &Device<'nvml>, after: u64) -> Got<Vec<(u64, u32)>> {
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
    fn used(&self, device: &Device<'nvml>, after: u64) -> Got<Vec<(u32, u32)>> {
        match processes_utilization(self.nvml, device, after) {
            Ok(used) if used.iter().any(|(_, percent)| *percent > 0) => return Ok(used),
            Ok(_) | Err(_) => {}
        }
        let used = some_or_none(device.process_utilization_stats(after))?;
        let newer = used.iter().filter(|record| record.timestamp > after);
        Ok(newer.map(|record| (record.pid, record.sm_util)).collect())
    }

    /// How busy the GPU instance of a MIG device was since the last look; nothing at the first one.
    fn instance(&mut self, device: &Device<'nvml>, uuid: &str) -> Result<Stretch, NvmlError> {
        let parent = device.mig_parent_device()?;
        let (gpu_instance, _) = instance_ids(self.nvml, device)?;
        let sample = parent.gpm_mig_sample(gpu_instance)?;
        let until_us = SystemClock.boottime_us();
        let before = self.instances.insert(uuid.to_owned(), (sample, until_us));
        let Some((before, from_us)) = before else {
            return Ok(Stretch { from_us: until_us, until_us, busy_ppm: 0 });
        };
        let Some((now, _)) = self.instances.get(uuid) else { return Err(NvmlError::NotFound) };
        let metrics = gpm_metrics_get(self.nvml, &before, now, &[GpmMetricId::GraphicsUtil])?;
        let metric = metrics.into_iter().next().ok_or(NvmlError::NotFound)??;
        Ok(Stretch { from_us, until_us, busy_ppm: ppm(metric.value)? })
    }
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
        Err(error) => Err(fault(&error)),
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
        Err(error) => return Err(fault(&error)),
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
