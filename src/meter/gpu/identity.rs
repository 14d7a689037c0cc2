//! Which devices are here, asked without NVML: by the files of the kernel's driver. Enough to count what is allocated.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::wire::ListedDevice;
use crate::sys::proc;

/// A device that has a number and no name yet.
pub(super) const UNKNOWN: &str = "GPU-unknown-";
/// What each process opens that uses a device.
const CONTROL: &str = "nvidiactl";
/// One look for open files looks at no more processes.
const LOOKED_AT_MAX: usize = 256;

/// Which device files processes have open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenFiles {
    /// N of `/dev/nvidiaN`.
    pub minors: BTreeSet<u32>,
    /// Processes that have one open.
    pub pids: BTreeSet<i32>,
    /// One has the driver's own file open, by which it may use a device whose file it has closed.
    pub driver: bool,
    /// All of the processes were looked at.
    pub complete: bool,
}

/// The files of the driver.
#[derive(Clone, Debug)]
pub struct DriverFiles {
    proc: PathBuf,
    dev: PathBuf,
}

impl Default for DriverFiles {
    fn default() -> Self {
        Self { proc: PathBuf::from("/proc/driver/nvidia/gpus"), dev: PathBuf::from("/dev") }
    }
}

/// A device, or another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum File {
    Device(u64),
    Other(u64, u64),
}

/// What is there, or is open there: the kernel follows `/proc/PID/fd/N` to the file itself (proc_pid_fd(5)).
fn file_of(path: &Path) -> Option<File> {
    let found = std::fs::metadata(path).ok()?;
    let is_device = found.file_type().is_char_device();
    Some(if is_device { File::Device(found.rdev()) } else { File::Other(found.dev(), found.ino()) })
}

impl DriverFiles {
    #[cfg(test)]
    pub(super) fn at(proc: &Path, dev: &Path) -> Self {
        Self { proc: proc.to_owned(), dev: dev.to_owned() }
    }

    /// Whether anything says that a GPU of NVIDIA's could be used here. It costs a few microseconds and loads nothing.
    #[must_use]
    pub fn show_a_gpu(&self) -> bool {
        // /dev/dxg is the GPU of the host of a Linux under Windows. The driver alone is no device: containers see it as well.
        let is_there = |name: &str| self.dev.join(name).exists();
        is_there("dxg") || (is_there(CONTROL) && !self.minors().is_empty())
    }

    /// Whether some device here is cut into MIG devices.
    fn show_mig(&self) -> bool {
        let below = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten();
        let capabilities = self.proc.with_file_name("capabilities");
        below(capabilities).any(|gpu| below(gpu.path().join("mig")).any(|entry| entry.path().is_dir()))
    }

    /// Whether who has such files open does not tell which device he uses: of MIG devices, and of Linux under Windows.
    #[must_use]
    pub fn tell_too_little(&self) -> bool {
        self.show_mig() || self.dev.join("dxg").exists()
    }

    /// The devices, by `/proc/driver/nvidia/gpus/*/information`, and what only has a device file, under a name of our own.
    #[must_use]
    pub fn devices(&self) -> Vec<ListedDevice> {
        let directories = std::fs::read_dir(&self.proc).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = directories.map(|entry| entry.path()).collect();
        // They are named after their place on the PCI bus, which is the order of the indexes.
        paths.sort();
        let mut devices: Vec<ListedDevice> = paths.iter().filter_map(|path| self.device(path)).collect();
        for minor in self.minors() {
            if !devices.iter().any(|device| device.minor == Some(minor)) {
                let uuid = format!("{UNKNOWN}{minor}");
                devices.push(ListedDevice { uuid, index: minor, minor: Some(minor), ..ListedDevice::default() });
            }
        }
        // In a container the kernel may tell of devices that it does not have.
        let openable = |device: &ListedDevice| device.minor.is_none_or(|minor| self.dev_file(minor).exists());
        devices.retain(openable);
        for (index, device) in (0_u32..).zip(&mut devices) {
            device.index = index;
        }
        devices
    }

    /// Those that a process opens which uses a device.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let names = std::iter::once(CONTROL.to_owned());
        let names = names.chain(self.minors().into_iter().map(|minor| format!("nvidia{minor}")));
        names.map(|name| self.dev.join(name)).filter(|path| path.exists())
    }

    /// Which devices these processes have open, whatever path they took to their files. CUDA opens every device that it may use, so
    /// that this says more than is used, and never less where all of them may be looked at.
    #[must_use]
    pub fn open_by(&self, pids: &[i32]) -> OpenFiles {
        let files = self.minors().into_iter().filter_map(|minor| Some((file_of(&self.dev_file(minor))?, minor)));
        let files: BTreeMap<File, u32> = files.collect();
        let driver = file_of(&self.dev.join(CONTROL));
        let mut found = OpenFiles { complete: pids.len() <= LOOKED_AT_MAX, ..OpenFiles::default() };
        for pid in pids.iter().take(LOOKED_AT_MAX) {
            match proc::path(*pid, "fd").and_then(std::fs::read_dir) {
                Ok(entries) => {
                    let open = entries.flatten().filter_map(|entry| file_of(&entry.path()));
                    let open: Vec<File> = open.collect();
                    found.driver |= driver.is_some_and(|driver| open.contains(&driver));
                    let minors: Vec<u32> = open.iter().filter_map(|file| files.get(file).copied()).collect();
                    found.pids.extend((!minors.is_empty()).then_some(*pid));
                    found.minors.extend(minors);
                }
                // One that has gone has nothing open; a hidden one looks as if it had.
                Err(error) => found.complete &= error.kind() == std::io::ErrorKind::NotFound && !proc::hides(),
            }
        }
        found
    }

    fn dev_file(&self, minor: u32) -> PathBuf {
        self.dev.join(format!("nvidia{minor}"))
    }

    /// N of each `/dev/nvidiaN`, the least first.
    #[must_use]
    pub fn minors(&self) -> Vec<u32> {
        let names = std::fs::read_dir(&self.dev).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let minor = |name: std::ffi::OsString| name.to_str()?.strip_prefix("nvidia")?.parse().ok();
        let mut minors: Vec<u32> = names.filter_map(minor).collect();
        minors.sort_unstable();
        minors
    }

    fn device(&self, directory: &Path) -> Option<ListedDevice> {
        let text = std::fs::read_to_string(directory.join("information")).ok()?;
        let field = |name: &str| {
            let of = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
            text.lines().find_map(of)
        };
        let uuid = field("GPU UUID").filter(|uuid| uuid.starts_with("GPU-") && !uuid.contains('?'))?;
        let minor = field("Device Minor").and_then(|minor| minor.parse().ok());
        Some(ListedDevice { uuid, model: field("Model").unwrap_or_default(), minor, ..ListedDevice::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_drivers_files() {
        let root = tempfile::tempdir().unwrap();
        let files = DriverFiles::at(&root.path().join("gpus"), &root.path().join("dev"));
        assert!(!files.show_a_gpu() && files.devices().is_empty());
        let gpu = root.path().join("gpus/0000:3b:00.0");
        std::fs::create_dir_all(&gpu).unwrap();
        std::fs::create_dir_all(root.path().join("dev")).unwrap();
        let text = "Model: \t\t NVIDIA H200\nIRQ:   \t\t 16\nGPU UUID: \t GPU-1b2c3d4e-0000-1111-2222-333344445555\n\
                    Device Minor: \t 1\nGPU Excluded:\t No\n";
        std::fs::write(gpu.join("information"), text).unwrap();
        assert!(files.devices().is_empty(), "its device file is not there");
        for name in ["nvidia1", "nvidia4", "nvidiactl"] {
            std::fs::write(root.path().join("dev").join(name), "").unwrap();
        }
        let found = files.devices();
        let names: Vec<_> =
            found.iter().map(|device| (device.index, device.uuid.as_str(), device.model.as_str())).collect();
        let expected = [(0, "GPU-1b2c3d4e-0000-1111-2222-333344445555", "NVIDIA H200"), (1, "GPU-unknown-4", "")];
        assert_eq!(names, expected);
        assert!(files.show_a_gpu());
        assert!(!files.show_mig() && !files.tell_too_little());
        std::fs::create_dir_all(root.path().join("capabilities/gpu0/mig/gi1")).unwrap();
        assert!(files.show_mig() && files.tell_too_little());
        let of_container = DriverFiles::at(&root.path().join("gpus"), root.path());
        assert!(!of_container.show_a_gpu(), "the driver has no device here");
        let held = std::fs::File::open(root.path().join("dev/nvidia4")).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(
            files.open_by(&[own]),
            OpenFiles { minors: [4].into(), pids: [own].into(), complete: true, ..OpenFiles::default() }
        );
        drop(held);
        // As what is mounted elsewhere in a namespace of the job's own.
        std::fs::hard_link(root.path().join("dev/nvidia4"), root.path().join("other")).unwrap();
        let held = std::fs::File::open(root.path().join("other")).unwrap();
        assert_eq!(files.open_by(&[own]).minors, BTreeSet::from([4]));
        drop(held);
        assert_eq!(files.open_by(&[own, i32::MAX]), OpenFiles { complete: true, ..OpenFiles::default() });
    }
}
