//! Devices of which the driver keeps no samples (vGPU, Linux under Windows): how busy they are now is asked several times a second.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jobmeter::sys::clock::{Clock, SystemClock};
use nvml_wrapper::{Device, Nvml};

/// As often as drivers make samples, so that nothing between two of them counts as a gap.
const PERIOD_US: u64 = 200_000;
/// As long as a driver keeps them.
const KEPT: usize = 60;
/// What nobody has asked for in this time is left alone.
const ASKED_US: u64 = 5_000_000;

/// What one device did when it was asked.
#[derive(Debug, Default)]
struct Rate {
    /// End (`CLOCK_BOOTTIME`, µs) and percent.
    samples: VecDeque<(u64, u32)>,
    asked_us: u64,
}

/// Those that meters have asked for lately.
#[derive(Debug)]
pub(super) struct Rates {
    nvml: &'static Nvml,
    devices: BTreeMap<String, Rate>,
}

impl Rates {
    pub(super) fn new(nvml: &'static Nvml) -> Self {
        Self { nvml, devices: BTreeMap::new() }
    }

    /// Those that were taken so far, one of now included; `None` where it does not tell that either.
    pub(super) fn of(&mut self, device: &Device<'static>, uuid: &str) -> Option<Vec<(u64, u32)>> {
        let rate = self.devices.entry(uuid.to_owned()).or_default();
        rate.asked_us = SystemClock.boottime_us();
        if !rate.take(device) {
            self.devices.remove(uuid);
            return None;
        }
        Some(rate.samples.iter().copied().collect())
    }

    /// Until the next sample; `None` where there is none to take.
    pub(super) fn pause(&self) -> Option<Duration> {
        let now_us = SystemClock.boottime_us();
        let asked = self.devices.values().filter(|rate| rate.asked_us + ASKED_US > now_us);
        let next_us = asked.map(|rate| rate.samples.back().map_or(0, |(at_us, _)| at_us + PERIOD_US)).min()?;
        Some(Duration::from_micros(next_us.saturating_sub(now_us)))
    }

    pub(super) fn sample(&mut self) {
        let now_us = SystemClock.boottime_us();
        let nvml = self.nvml;
        self.devices.retain(|uuid, rate| {
            rate.asked_us + ASKED_US > now_us
                && nvml.device_by_uuid(uuid.as_str()).is_ok_and(|device| rate.take(&device))
        });
    }
}

impl Rate {
    /// Takes one that is due; whether the device tells.
    fn take(&mut self, device: &Device<'static>) -> bool {
        let now_us = SystemClock.boottime_us();
        if self.samples.back().is_some_and(|(at_us, _)| at_us + PERIOD_US > now_us) {
            return true;
        }
        let Ok(rates) = device.utilization_rates() else { return false };
        self.samples.push_back((now_us, rates.gpu));
        if self.samples.len() > KEPT {
            self.samples.pop_front();
        }
        true
    }
}
