//! GPUs whose busy time is not read: those of other makers, and of boards whose driver has no NVML. They are charged by the time for which a
//! job has them, if its rate card has a weight for them; else that is said, so that nobody takes a job on them for free.

use std::collections::BTreeMap;
use std::path::Path;

use super::options::Giver;
use crate::domain::units::Microseconds;
use crate::domain::usage::GpuUsage;
use crate::domain::weight::{AMD, INTEL, JETSON};

const DEV: &str = "/dev";
const DRM: &str = "/sys/class/drm";
/// By the vendor's number on the PCI bus (pci.ids).
const VENDORS: [(&str, &str); 2] = [("0x1002", AMD), ("0x8086", INTEL)];
/// What schedulers and runtimes set for a job that has such devices.
const VARIABLES: [(&str, &str); 4] = [
    ("ROCR_VISIBLE_DEVICES", AMD),
    ("HIP_VISIBLE_DEVICES", AMD),
    ("GPU_DEVICE_ORDINAL", AMD),
    ("ZE_AFFINITY_MASK", INTEL),
];

/// How many of each model.
pub type Models = BTreeMap<String, u64>;

/// Which of them can be opened here.
#[must_use]
pub fn others() -> Models {
    others_in(Path::new(DRM), Path::new(DEV))
}

fn others_in(drm: &Path, dev: &Path) -> Models {
    let mut found = Models::new();
    for entry in std::fs::read_dir(drm).into_iter().flatten().flatten() {
        // Each device that can compute has one.
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("renderD") || !dev.join("dri").join(&name).exists() {
            continue;
        }
        let vendor = std::fs::read_to_string(entry.path().join("device/vendor")).unwrap_or_default();
        if let Some((_, model)) = VENDORS.iter().find(|(number, _)| *number == vendor.trim()) {
            *found.entry((*model).to_owned()).or_default() += 1;
        }
    }
    if dev.join("nvmap").exists() || dev.join("nvhost-gpu").exists() {
        found.insert(JETSON.to_owned(), 1);
    }
    found
}

/// What a meter has to see of its environment.
pub fn variables() -> impl Iterator<Item = &'static str> {
    VARIABLES.into_iter().map(|(name, _)| name)
}

/// Those that a job was given: by its variables, or all that its container can see.
#[must_use]
pub fn given(giver: &Giver) -> Models {
    // Most machines have none, and each start would ask.
    let here = others();
    if giver.gives_all() { here } else { given_of(here, &|name| giver.variable(name)) }
}

fn given_of(mut here: Models, variable: &dyn Fn(&str) -> Option<String>) -> Models {
    let count_of = |model: &str| {
        let set = VARIABLES.iter().filter(|(_, of)| *of == model).find_map(|(name, _)| variable(name));
        set.map_or(0, |list| match list.trim() {
            "-1" => 0,
            list => list.split(',').filter(|name| !name.trim().is_empty()).map(|_| 1).sum(),
        })
    };
    for (model, count) in &mut here {
        // Each job on such a board has it.
        if model != JETSON {
            *count = count_of(model).min(*count);
        }
    }
    here.retain(|_, count| *count > 0);
    here
}

/// What a job has used that has had them for so long: each by a name of our own.
#[must_use]
pub fn usage_of(given: &Models, held: Microseconds) -> BTreeMap<String, GpuUsage> {
    let of = |(model, count): (&String, &u64)| {
        let usage = GpuUsage { model: model.clone(), busy_seconds: held, allocated_seconds: held };
        (0..*count).map(|index| (format!("{model} {index}"), usage.clone())).collect::<Vec<_>>()
    };
    given.iter().flat_map(of).collect()
}

/// What is to be said of them.
#[must_use]
pub fn notes(given: &Models, weight_ppm_of: impl Fn(&str) -> u64) -> Vec<String> {
    let said = |model: &String| match weight_ppm_of(model) {
        0 => format!("{model}: not metered here, and not charged, since the rate card has no weight for it"),
        _ => format!("{model}: not metered here, and charged by the time for which the job has it"),
    };
    given.keys().map(said).collect()
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
            ("renderD129", "0x1002"),
            ("renderD130", "0x8086"),
            ("renderD131", "0x10de"),
            ("card0", "0x1002"),
        ] {
            std::fs::create_dir_all(drm.join(name).join("device")).unwrap();
            std::fs::write(drm.join(name).join("device/vendor"), format!("{vendor}\n")).unwrap();
        }
        std::fs::create_dir_all(dev.join("dri")).unwrap();
        assert!(others_in(&drm, &dev).is_empty(), "none can be opened here");
        for name in ["renderD128", "renderD129", "renderD130", "renderD131"] {
            std::fs::write(dev.join("dri").join(name), "").unwrap();
        }
        let here = others_in(&drm, &dev);
        assert_eq!(here, Models::from([(AMD.to_owned(), 2), (INTEL.to_owned(), 1)]));
        for (name, list, count) in [
            ("ROCR_VISIBLE_DEVICES", "0", 1),
            ("HIP_VISIBLE_DEVICES", "0,1,2", 2),
            ("ROCR_VISIBLE_DEVICES", "GPU-1a,GPU-2b", 2),
            ("ROCR_VISIBLE_DEVICES", "-1", 0),
            ("GPU_DEVICE_ORDINAL", "", 0),
            ("CUDA_VISIBLE_DEVICES", "0", 0),
        ] {
            let set = |asked: &str| (asked == name).then(|| list.to_owned());
            assert_eq!(given_of(here.clone(), &set).get(AMD).copied().unwrap_or(0), count, "{name}={list}");
        }
        let used = usage_of(&here, Microseconds(5));
        assert_eq!(used.keys().collect::<Vec<_>>(), ["AMD GPU 0", "AMD GPU 1", "Intel GPU 0"]);
        assert!(
            used.values()
                .all(|usage| (usage.busy_seconds, usage.allocated_seconds) == (Microseconds(5), Microseconds(5)))
        );
        std::fs::write(dev.join("nvmap"), "").unwrap();
        assert_eq!(others_in(&drm, &dev).len(), 3);
    }
}
