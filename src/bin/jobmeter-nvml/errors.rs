//! The driver's errors of a device (XID), which it tells once to each who has asked for them.

use std::collections::{HashMap, VecDeque};

use jobmeter::sys::clock::{Clock, SystemClock};
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::event::EventSet;
use nvml_wrapper::{Device, Nvml};

/// As many as are kept of a device, for meters that have not asked since.
const KEPT: usize = 64;

/// Of all devices that were looked at.
#[derive(Debug)]
pub(super) struct Errors {
    nvml: &'static Nvml,
    /// By UUID; `None` where it does not tell.
    sets: HashMap<String, Option<EventSet<'static>>>,
    seen: HashMap<String, VecDeque<(u64, u64)>>,
}

impl Errors {
    pub(super) fn new(nvml: &'static Nvml) -> Self {
        Self { nvml, sets: HashMap::new(), seen: HashMap::new() }
    }

    /// The last ones, the oldest first: when each was seen, and its number.
    pub(super) fn of(&mut self, device: &Device<'static>, uuid: &str) -> Vec<(u64, u64)> {
        let nvml = self.nvml;
        let register = || {
            let set = nvml.create_event_set().ok()?;
            device.register_events(EventTypes::CRITICAL_XID_ERROR, set).ok()
        };
        let set = self.sets.entry(uuid.to_owned()).or_insert_with(register);
        let seen = self.seen.entry(uuid.to_owned()).or_default();
        // Nothing is waited for.
        for event in std::iter::from_fn(|| set.as_ref()?.wait(0).ok()).take(KEPT) {
            let Some(XidError::Value(number)) = event.event_data else { continue };
            seen.push_back((SystemClock.boottime_us(), number));
            if seen.len() > KEPT {
                seen.pop_front();
            }
        }
        seen.iter().copied().collect()
    }
}
