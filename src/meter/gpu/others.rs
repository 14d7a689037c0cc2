//! GPUs whose busy time is not read: those of other makers, and of boards whose driver has no NVML. They are charged by the time for which a
//! job has them, from its start where a scheduler or its container has given them, else from when a process of it has one open; and if its
//! rate card has a weight for them, which else is said.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::claims::{Claim, Claims};
use super::declared::Selection;
use super::identity::DriverFiles;
use super::options::{Giver, GpuOptions};
use crate::domain::units::Microseconds;
use crate::domain::usage::GpuUsage;
use crate::domain::weight::{AMD, INTEL, JETSON};
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::proc;

const DEV: &str = "/dev";
const DRM: &str = "/sys/class/drm";
/// By the vendor's number on the PCI bus (pci.ids).
const VENDORS: [(&str, &str); 2] = [("0x1002", AMD), ("0x8086", INTEL)];
/// By the driver, where there is no such number: a partition of a device is none of the bus.
const DRIVERS: [(&str, &str); 4] = [("amdgpu", AMD), ("amdgpu_xcp", AMD), ("i915", INTEL), ("xe", INTEL)];
/// What schedulers and runtimes set for a job that has such devices.
const VARIABLES: [(&str, &str); 4] = [
    ("ROCR_VISIBLE_DEVICES", AMD),
    ("HIP_VISIBLE_DEVICES", AMD),
    ("GPU_DEVICE_ORDINAL", AMD),
    ("ZE_AFFINITY_MASK", INTEL),
];
/// Slurm's, for devices of any maker.
const OF_SLURM: [&str; 2] = ["SLURM_STEP_GPUS", "SLURM_JOB_GPUS"];
/// Open files are looked at no more often.
const SCAN_US: u64 = 1_000_000;

/// A device of which nothing but its file is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherDevice {
    /// By its device file, such as `AMD GPU renderD128`.
    pub name: String,
    /// By which its weight is found.
    pub model: &'static str,
    /// Of its device file; `None` where the whole board is the device.
    rdev: Option<u64>,
}

/// Those that are here, by model, and how many of each.
#[must_use]
pub fn count() -> BTreeMap<&'static str, usize> {
    let mut count = BTreeMap::new();
    for device in here(Path::new(DRM), Path::new(DEV)) {
        *count.entry(device.model).or_default() += 1;
    }
    count
}

fn here(drm: &Path, dev: &Path) -> Vec<OtherDevice> {
    let entries = std::fs::read_dir(drm).into_iter().flatten().flatten();
    // Each device that can compute has one.
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("renderD")).collect();
    names.sort_unstable();
    let device = |name: &String| {
        let found = std::fs::metadata(dev.join("dri").join(name)).ok()?;
        let model = model_of(&drm.join(name).join("device"))?;
        let rdev = found.file_type().is_char_device().then(|| found.rdev());
        Some(OtherDevice { name: format!("{model} {name}"), model, rdev })
    };
    let mut devices: Vec<OtherDevice> = names.iter().filter_map(device).collect();
    if dev.join("nvmap").exists() || dev.join("nvhost-gpu").exists() {
        devices.push(OtherDevice { name: JETSON.to_owned(), model: JETSON, rdev: None });
    }
    devices
}

fn model_of(device: &Path) -> Option<&'static str> {
    let vendor = std::fs::read_to_string(device.join("vendor")).unwrap_or_default();
    let by_vendor = VENDORS.iter().find(|(number, _)| *number == vendor.trim());
    let driver = || std::fs::read_link(device.join("driver")).ok()?.file_name()?.to_str().map(str::to_owned);
    let by_driver = || driver().and_then(|driver| DRIVERS.iter().find(|(name, _)| *name == driver));
    by_vendor.or_else(by_driver).map(|(_, model)| *model)
}

/// What a meter has to see of its environment.
pub fn variables() -> impl Iterator<Item = &'static str> {
    VARIABLES.into_iter().map(|(name, _)| name)
}

/// Which of these are the job's from its start, by their places.
fn given(here: &[OtherDevice], giver: &Giver, has_nvidia: bool) -> BTreeSet<usize> {
    let of_model = |model: &str| -> Vec<usize> {
        here.iter().enumerate().filter(|(_, device)| device.model == model).map(|(at, _)| at).collect()
    };
    if giver.gives_all() {
        return (0..here.len()).collect();
    }
    // Each job on such a board has it.
    let mut given: BTreeSet<usize> = of_model(JETSON).into_iter().collect();
    let of_slurm = OF_SLURM.into_iter().find_map(|name| giver.variable(name)).filter(|_| !has_nvidia);
    let by_slurm = of_slurm.iter().flat_map(|list| [AMD, INTEL].map(|model| (list.clone(), model)));
    let by_variable = VARIABLES.iter().filter_map(|(name, model)| Some((giver.variable(name)?, *model)));
    for (list, model) in by_slurm.chain(by_variable) {
        given.extend(chosen(&list, &of_model(model)));
    }
    given
}

/// Of these, those that a list names by numbers; what cannot be understood may be any of them.
fn chosen(list: &str, of_model: &[usize]) -> Vec<usize> {
    if matches!(list.trim(), "" | "-1") {
        return Vec::new();
    }
    let number = |name: &str| name.trim().split('.').next().and_then(|number| number.parse::<usize>().ok());
    let numbers: Option<BTreeSet<usize>> = list.split(',').map(number).collect();
    match numbers {
        Some(numbers) => numbers.iter().filter_map(|number| of_model.get(*number).copied()).collect(),
        // Names of another form, each of one.
        None if list.split(',').all(|name| name.trim().starts_with("GPU-")) => {
            let names: BTreeSet<&str> = list.split(',').map(str::trim).collect();
            of_model.iter().copied().take(names.len()).collect()
        }
        None => of_model.to_vec(),
    }
}

/// Those of one machine, and for how long a job has had which of them.
#[derive(Debug, Default)]
pub struct OtherGpus {
    devices: Vec<Held>,
    claims: Option<Claims>,
    scanned_us: u64,
}

#[derive(Debug)]
struct Held {
    device: OtherDevice,
    is_given: bool,
    is_open: bool,
    had_us: u64,
    /// Of a device, one task of a job is charged.
    claim: Option<Claim>,
}

impl Held {
    fn is_the_jobs(&self) -> bool {
        self.is_given || self.is_open
    }
}

impl OtherGpus {
    /// As a job begins. `has_nvml` is whether NVML tells devices, of which a board's own is then one.
    #[must_use]
    pub fn new(options: &GpuOptions, has_nvml: bool) -> Self {
        let mut here = here(Path::new(DRM), Path::new(DEV));
        here.retain(|device| device.model != JETSON || !has_nvml);
        let given = match options.selection {
            Some(Selection::None) => BTreeSet::new(),
            // Those that are named are NVIDIA's.
            _ => given(&here, &options.giver, DriverFiles::default().show_a_gpu()),
        };
        let held = |(at, device)| {
            let is_given = given.contains(&at);
            Held { device, is_given, is_open: false, had_us: 0, claim: None }
        };
        Self {
            devices: here.into_iter().enumerate().map(held).collect(),
            claims: options.claims.clone(),
            scanned_us: 0,
        }
    }

    /// So much time has passed; `living` are the job's processes, which may have opened some.
    pub fn advance(&mut self, passed_us: u64, living: impl FnOnce() -> Vec<i32>) {
        if self.devices.is_empty() {
            return;
        }
        let now_us = SystemClock.boottime_us();
        let is_due = now_us >= self.scanned_us.saturating_add(SCAN_US);
        let open = is_due.then(|| open_by(&living()));
        self.scanned_us = if is_due { now_us } else { self.scanned_us };
        for held in &mut self.devices {
            let was_the_jobs = held.is_the_jobs();
            if let Some(open) = &open {
                held.is_open = held.device.rdev.is_some_and(|rdev| open.contains(&rdev));
            }
            if held.is_the_jobs()
                && held.claim.is_none()
                && let Some(claims) = &self.claims
            {
                // Charged twice rather than never.
                held.claim = match claims.claim(&held.device.name) {
                    Ok(Some((claim, _))) => Some(claim),
                    Ok(None) => continue,
                    Err(_) => None,
                };
            }
            // What has ended since the last look had it open until then.
            if was_the_jobs || held.is_the_jobs() {
                held.had_us = held.had_us.saturating_add(passed_us);
            }
        }
    }

    /// How many of each model are the job's now.
    #[must_use]
    pub fn models(&self) -> BTreeMap<String, u64> {
        let mut models = BTreeMap::new();
        for held in self.devices.iter().filter(|held| held.is_the_jobs()) {
            *models.entry(held.device.model.to_owned()).or_default() += 1;
        }
        models
    }

    /// What of them it has used so far.
    #[must_use]
    pub fn usage(&self) -> BTreeMap<String, GpuUsage> {
        let had = self.devices.iter().filter(|held| held.is_given || held.had_us > 0);
        let usage = |held: &Held| {
            let time = Microseconds(held.had_us);
            GpuUsage { model: held.device.model.to_owned(), busy_seconds: time, allocated_seconds: time }
        };
        had.map(|held| (held.device.name.clone(), usage(held))).collect()
    }

    /// What is to be said of those that are the job's.
    #[must_use]
    pub fn notes(&self, weight_ppm_of: impl Fn(&str) -> u64) -> Vec<String> {
        let models: BTreeSet<&str> = self
            .devices
            .iter()
            .filter(|held| held.is_the_jobs() || held.had_us > 0)
            .map(|held| held.device.model)
            .collect();
        let said = |model: &str| match weight_ppm_of(model) {
            0 => format!("{model}: not metered here, and not charged, since the rate card has no weight for it"),
            _ => format!("{model}: not metered here, and charged by the time for which the job has it"),
        };
        models.into_iter().map(said).collect()
    }

    /// The job has ended: another task of it goes on.
    pub fn release(&mut self) {
        for claim in self.devices.iter_mut().filter_map(|held| held.claim.take()) {
            let _is_told = claim.release(SystemClock.boottime_us());
        }
    }
}

/// Which device files these processes have open.
fn open_by(pids: &[i32]) -> BTreeSet<u64> {
    let files = |pid: &i32| proc::path(*pid, "fd").and_then(std::fs::read_dir).into_iter().flatten().flatten();
    let open = pids.iter().flat_map(files).filter_map(|entry| std::fs::metadata(entry.path()).ok());
    open.filter(|found| found.file_type().is_char_device()).map(|found| found.rdev()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_devices_of_other_makers() {
        let root = tempfile::tempdir().unwrap();
        let (drm, dev) = (root.path().join("drm"), root.path().join("dev"));
        for (name, vendor) in [
            ("renderD128", "0x1002"),
            ("renderD129", ""),
            ("renderD130", "0x8086"),
            ("renderD131", "0x10de"),
            ("card0", "0x1002"),
        ] {
            std::fs::create_dir_all(drm.join(name).join("device")).unwrap();
            std::fs::write(drm.join(name).join("device/vendor"), format!("{vendor}\n")).unwrap();
        }
        // As a partition has it.
        std::os::unix::fs::symlink("../../bus/platform/drivers/amdgpu_xcp", drm.join("renderD129/device/driver"))
            .unwrap();
        std::fs::create_dir_all(dev.join("dri")).unwrap();
        assert!(here(&drm, &dev).is_empty(), "none can be opened here");
        for name in ["renderD128", "renderD129", "renderD130", "renderD131"] {
            std::fs::write(dev.join("dri").join(name), "").unwrap();
        }
        let found = here(&drm, &dev);
        let names: Vec<&str> = found.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(names, ["AMD GPU renderD128", "AMD GPU renderD129", "Intel GPU renderD130"]);
    }

    #[test]
    fn a_variable_adds_and_takes_nothing_away() {
        let device = |name: &str, model| OtherDevice { name: name.to_owned(), model, rdev: None };
        let here = [device("a", AMD), device("b", AMD), device("c", INTEL)];
        let of = |set: &[(&str, &str)]| {
            let set = set.iter().map(|(name, list)| ((*name).to_owned(), (*list).to_owned())).collect();
            given(&here, &Giver::Scheduler(set), false).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(of(&[("ROCR_VISIBLE_DEVICES", "1")]), [1]);
        assert_eq!(of(&[("ROCR_VISIBLE_DEVICES", "-1"), ("HIP_VISIBLE_DEVICES", "0,1")]), [0, 1]);
        assert_eq!(of(&[("ROCR_VISIBLE_DEVICES", "0,0,0")]), [0]);
        assert_eq!(of(&[("ROCR_VISIBLE_DEVICES", "GPU-1a")]), [0]);
        assert_eq!(of(&[("ROCR_VISIBLE_DEVICES", "what?")]), [0, 1]);
        assert_eq!(of(&[("ZE_AFFINITY_MASK", "0.1")]), [2]);
        assert_eq!(of(&[("SLURM_STEP_GPUS", "1")]), [1]);
        assert!(of(&[("CUDA_VISIBLE_DEVICES", "0")]).is_empty() && of(&[("GPU_DEVICE_ORDINAL", "")]).is_empty());
        assert_eq!(given(&here, &Giver::Container, false).len(), 3);
    }

    #[test]
    fn sees_what_is_open() {
        let open = std::fs::File::open("/dev/zero").unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(open_by(&[own]).contains(&open.metadata().unwrap().rdev()));
    }
}
