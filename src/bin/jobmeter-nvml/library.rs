//! Which library it is, and whether its figures may be charged by.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jobmeter::meter::gpu::place;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

/// As the driver installs it.
const NAME: &str = "libnvidia-ml.so.1";

/// Loads `path`, or what the system's loader finds.
pub(super) fn load(path: Option<&OsStr>) -> Result<Nvml, NvmlError> {
    Nvml::builder().lib_path(path.unwrap_or(OsStr::new(NAME))).init()
}

/// Where the library was loaded from.
pub(super) fn path() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let paths = maps.lines().filter_map(|line| line.find('/').and_then(|at| line.get(at..)));
    paths
        .filter(|path| path.contains("nvml") || path.contains("nvidia-ml"))
        .map(PathBuf::from)
        .find(|path| is_library(path))
}

fn is_library(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"))
}

/// Why a library that nobody named is not believed: the job's user could have put it there.
pub(super) fn distrusted(path: &Path) -> Option<String> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) => return Some(format!("{}: {error}", path.display())),
    };
    if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
        return Some(format!("{} belongs to others than root, or others may write it", path.display()));
    }
    // The container runtime mounts the host's library into the container; what lies in the image itself is the user's.
    (place::in_container() && place::mount_point_of(path) == Path::new("/"))
        .then(|| format!("{} is part of the container's own image", path.display()))
}
