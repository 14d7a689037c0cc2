//! How each device of a job that begins now would be measured, and how far that can be from the truth: asked of the devices themselves.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::child::Helper;
use super::device::Device;
use super::figures::Mode;
use super::gpus::sight;
use super::options::GpuOptions;
use super::place;
use super::wire::{Ask, AskCounters, AskDevice, Fault, Listed, ListedDevice, PolledDevice, Told};
use crate::sys::clock::pause;

/// The driver may have to wake the devices.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Two samples of counters are at least 0.1 s apart.
const BETWEEN_LOOKS: Duration = Duration::from_millis(150);

/// One device, and how it would be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prospect {
    /// As the driver tells of it.
    pub info: ListedDevice,
    /// By what, within what, and why not better; for people.
    pub how: String,
    /// Its busy time is read, and not only the time for which it is held.
    pub is_read: bool,
}

/// Of each device, by UUID, in words; nothing where NVML cannot be asked.
#[must_use]
pub fn by_uuid(library: Option<&Path>) -> BTreeMap<String, String> {
    let (_, found) = ask(library).unwrap_or_default();
    found.into_iter().map(|prospect| (prospect.info.uuid, prospect.how)).collect()
}

/// What NVML lists, and how each of its devices would be measured.
///
/// # Errors
/// Where it cannot be asked.
pub fn ask(library: Option<&Path>) -> Result<(Listed, Vec<Prospect>), Fault> {
    let options = GpuOptions { library: library.map(Path::to_owned), ..GpuOptions::default() };
    let mut helper = Helper::start(&options)?;
    let listed = helper.list(ANSWER_WAIT_MAX)?;
    let found = prospects(&mut helper, &listed)?;
    Ok((listed, found))
}

/// Of all that the helper has listed.
fn prospects(helper: &mut Helper, listed: &Listed) -> Result<Vec<Prospect>, Fault> {
    // Counters tell what they have counted since the look before.
    look(helper, listed, AskCounters::Anew)?;
    let looks = look(helper, listed, AskCounters::Since)?;
    let of = |info: &ListedDevice| {
        let polled = looks.iter().find(|polled| polled.uuid == info.uuid);
        let (how, is_read) = match polled {
            None => ("as allocated: the helper does not tell of it".to_owned(), false),
            Some(polled) => how(info, polled, &listed.driver),
        };
        Prospect { info: info.clone(), how, is_read }
    };
    Ok(listed.devices.iter().map(of).collect())
}

fn look(helper: &mut Helper, listed: &Listed, counters: AskCounters) -> Result<Vec<PolledDevice>, Fault> {
    pause(BETWEEN_LOOKS);
    let ask = |info: &ListedDevice| AskDevice {
        uuid: info.uuid.clone(),
        after: 0,
        whole_ring: true,
        by_process: true,
        counters,
    };
    helper.send(&Ask::Poll { devices: listed.devices.iter().map(ask).collect(), since_us: u64::MAX })?;
    match helper.receive(ANSWER_WAIT_MAX)? {
        Some(Told::Polled(polled)) => Ok(polled.devices),
        Some(Told::Failed(fault)) => Err(fault),
        Some(Told::Listed(_) | Told::Opened | Told::Ready) => Err(super::child::wrong_answer()),
        None => Err(Fault::failed("NVML lists its devices, but does not tell what they do")),
    }
}

fn how(info: &ListedDevice, polled: &PolledDevice, driver: &str) -> (String, bool) {
    let device = Device::new(info.clone(), false, false, 0);
    if device.figures().mode == Mode::Allocated {
        return (format!("as allocated: {}", device.notes().join("; ")), false);
    }
    if let Some(instance) = &polled.instance {
        return match instance {
            Ok(_) => ("by its GPU instance's counters, with no declared bound".to_owned(), true),
            Err(fault) => (format!("as allocated: {}", fault.why), false),
        };
    }
    if let Err(fault) = &polled.samples {
        return (format!("as allocated: it does not tell its samples: {}", fault.why), false);
    }
    let samples = if polled.by_rate {
        "what it does when it is asked, five times a second, with no declared bound"
    } else {
        "its samples (± 4 samples, 0.8 s at most, and 1 % of the wall time)"
    };
    let alone = match &polled.counted {
        Some(Ok(_)) => "its counters (± 0.1 s and 0.3 % of the wall time)".to_owned(),
        Some(Err(fault)) => format!("{samples}, since its counters are refused: {}", fault.why),
        None => samples.to_owned(),
    };
    let shared = match (&polled.running, &polled.used) {
        _ if polled.mps => "as allocated: several processes use it through one (MPS)".to_owned(),
        (Err(fault), _) | (_, Err(fault)) => format!("as allocated: it does not tell who uses it: {}", fault.why),
        _ if sight(driver, place::has_host_pids()).used => {
            "by samples of which process used it, with no declared bound".to_owned()
        }
        _ => "as allocated: this driver names processes by the host's ids".to_owned(),
    };
    (format!("alone by {alone}; shared {shared}"), true)
}
