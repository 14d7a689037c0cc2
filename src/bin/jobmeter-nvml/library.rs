//! Which library it is, and whether its figures may be charged by.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jobmeter::meter::gpu::place;
use jobmeter::sys::trust;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

/// As the driver installs it.
const NAME: &str = "libnvidia-ml.so.1";
/// Where runtimes put it that the loader does not know of: NVIDIA's for Kubernetes, Apptainer's, NixOS', and Linux under Windows.
const FOLDERS: [&str; 4] =
    ["/usr/local/nvidia/lib64", "/.singularity.d/libs", "/run/opengl-driver/lib", "/usr/lib/wsl/lib"];

/// Loads `path`, or what the system's loader finds, or what a runtime has put elsewhere.
pub(super) fn load(path: Option<&OsStr>) -> Result<Nvml, NvmlError> {
    let load = |path: &OsStr| Nvml::builder().lib_path(path).init();
    if let Some(path) = path {
        return load(path);
    }
    let found = load(OsStr::new(NAME));
    let is_missing = matches!(found, Err(NvmlError::LibloadingError(_)));
    let elsewhere = FOLDERS.iter().map(|folder| Path::new(folder).join(NAME)).find(|path| path.exists());
    match elsewhere.filter(|_| is_missing) {
        Some(path) => load(path.as_os_str()),
        None => found,
    }
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
    // Root of another user namespace is anybody; the host's root is nobody there.
    let is_hosts = if trust::is_in_first_user_namespace() {
        meta.uid() == 0
    } else {
        meta.uid() == trust::overflow_uid() && trust::is_on_read_only_mount(path)
    };
    if !is_hosts || meta.mode() & 0o022 != 0 {
        return Some(format!("{} belongs to others than the machine's root, or others may write it", path.display()));
    }
    // The container runtime mounts the host's library into the container; what lies in the image itself is the user's.
    (place::has_own_root() && place::mount_point_of(path) == Path::new("/"))
        .then(|| format!("{} is part of the container's own image", path.display()))
}
