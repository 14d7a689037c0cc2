//! GPUs that are not metered: those of other makers, and of boards whose driver has no NVML. They are named, so that nobody takes a job on
//! them for free.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const DEV: &str = "/dev";
const JETSON: &str = "NVIDIA Jetson";
/// By the vendor's number on the PCI bus (pci.ids).
const VENDORS: [(&str, &str); 2] = [("0x1002", "AMD"), ("0x8086", "Intel")];
/// What schedulers and runtimes set for a job that has such devices.
const VARIABLES: [(&str, &str); 4] = [
    ("ROCR_VISIBLE_DEVICES", "AMD"),
    ("HIP_VISIBLE_DEVICES", "AMD"),
    ("GPU_DEVICE_ORDINAL", "AMD"),
    ("ZE_AFFINITY_MASK", "Intel"),
];

/// Which are here, by maker, and how many of each.
#[must_use]
pub fn others() -> BTreeMap<&'static str, usize> {
    others_in(Path::new("/sys/class/drm"), Path::new(DEV))
}

fn is_jetson(dev: &Path) -> bool {
    dev.join("nvmap").exists() || dev.join("nvhost-gpu").exists()
}

fn others_in(drm: &Path, dev: &Path) -> BTreeMap<&'static str, usize> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(drm).into_iter().flatten().flatten() {
        // Each device that can compute has one.
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("renderD") || !dev.join("dri").join(&name).exists() {
            continue;
        }
        let vendor = std::fs::read_to_string(entry.path().join("device/vendor")).unwrap_or_default();
        if let Some((_, maker)) = VENDORS.iter().find(|(number, _)| *number == vendor.trim()) {
            *found.entry(*maker).or_default() += 1;
        }
    }
    if is_jetson(dev) {
        found.insert(JETSON, 1);
    }
    found
}

/// What is to be said of a job to which such devices were given, by its variables.
#[must_use]
pub fn notes(environment: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let is_given = |name: &str| environment(name).is_some_and(|value| !matches!(value.trim(), "" | "-1"));
    let mut given: BTreeSet<&str> = VARIABLES.iter().filter(|(name, _)| is_given(name)).map(|(_, of)| *of).collect();
    // Each of its jobs has it.
    if is_jetson(Path::new(DEV)) {
        given.insert(JETSON);
    }
    if given.is_empty() {
        return Vec::new();
    }
    let here = others();
    let said = given.into_iter().filter(|maker| here.contains_key(maker));
    said.map(|maker| format!("{maker} GPUs are not metered here: what the job does on them is not charged")).collect()
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
        assert_eq!(others_in(&drm, &dev), BTreeMap::from([("AMD", 2), ("Intel", 1)]));
        std::fs::write(dev.join("nvmap"), "").unwrap();
        assert_eq!(others_in(&drm, &dev).len(), 3);
    }
}
