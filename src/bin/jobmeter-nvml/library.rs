//! Which library it is, and whether its figures may be charged by.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jobmeter::meter::gpu::place;
use jobmeter::meter::gpu::wire::{Fault, FaultKind};
use jobmeter::sys::trust;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::fault;

/// As the driver installs it.
const NAME: &str = "libnvidia-ml.so.1";
/// Where runtimes put it that the loader does not know of: NVIDIA's for Kubernetes, Apptainer's, NixOS', and Linux under Windows.
const FOLDERS: [&str; 4] =
    ["/usr/local/nvidia/lib64", "/.singularity.d/libs", "/run/opengl-driver/lib", "/usr/lib/wsl/lib"];
/// Where distributions have it.
const USUAL_FOLDERS: [&str; 4] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];

/// The library that the operator has named, or the host's.
pub(super) fn load(named: Option<&OsStr>) -> Result<Nvml, Fault> {
    if let Some(path) = named {
        return load_from(path);
    }
    if place::has_own_root() { load_mounted() } else { load_installed() }
}

fn load_from(path: &OsStr) -> Result<Nvml, Fault> {
    Nvml::builder().lib_path(path).init().map_err(|error| fault::of(&error))
}

/// What the system's loader finds, or what a runtime has put elsewhere.
fn load_installed() -> Result<Nvml, Fault> {
    let loaded = match Nvml::builder().lib_path(OsStr::new(NAME)).init() {
        Err(NvmlError::LibloadingError(missing)) => {
            let elsewhere = FOLDERS.iter().map(|folder| Path::new(folder).join(NAME)).find(|path| path.exists());
            elsewhere.map_or(Err(fault::of(&NvmlError::LibloadingError(missing))), |path| load_from(path.as_os_str()))
        }
        found => found.map_err(|error| fault::of(&error)),
    }?;
    let lies = path().ok_or_else(|| distrust("it cannot be told where the library lies"))?;
    let file = File::open(&lies).map_err(|error| distrust(&format!("{}: {error}", lies.display())))?;
    judge(&file, &lies)?;
    Ok(loaded)
}

/// What the container's runtime has mounted of the host. What lies in the image itself is its user's, who could have this process do what he
/// likes by it: it is judged before it is loaded.
fn load_mounted() -> Result<Nvml, Fault> {
    let mounted = place::mount_points().into_iter().filter(|point| is_library(point));
    let folders = FOLDERS.iter().chain(&USUAL_FOLDERS).map(|folder| Path::new(folder).join(NAME));
    let mut why = None;
    for path in mounted.chain(folders) {
        let Ok(file) = trust::open_at_once(&path) else { continue };
        // Whatever stands at that path by now.
        let load = || load_from(OsStr::new(&format!("/proc/self/fd/{}", file.as_raw_fd())));
        match judge(&file, &path).and_then(|()| judge_mount(&file, &path)).and_then(|()| load()) {
            Ok(loaded) => return Ok(loaded),
            Err(fault) => drop(why.get_or_insert(fault)),
        }
    }
    Err(why.unwrap_or_else(|| Fault::failed(format!("the runtime has mounted no {NAME} of the host's"))))
}

/// What a runtime mounts of the host it mounts read-only. The image's own volumes can be written, as can its root file system where the
/// pod does not say otherwise.
fn judge_mount(file: &File, path: &Path) -> Result<(), Fault> {
    let wrong = |error: &dyn std::fmt::Display| distrust(&format!("{}: {error}", path.display()));
    let is_of_image = place::is_on_root_mount(file).map_err(|error| wrong(&error))?;
    let is_read_only = trust::is_mounted_read_only(file).map_err(|error| wrong(&error))?;
    if is_read_only && !is_of_image {
        return Ok(());
    }
    Err(distrust(&format!("{} is part of the container's own image, or lies where it can be written", path.display())))
}

/// Where the library was loaded from.
pub(super) fn path() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mut paths = maps.lines().filter_map(|line| line.find('/').and_then(|at| line.get(at..))).map(PathBuf::from);
    paths.find(|path| is_library(path))
}

fn is_library(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.contains(".so") && (name.contains("nvml") || name.contains("nvidia-ml"))
}

/// A library that nobody named is the host's root's: the job's user could have put another one there.
fn judge(file: &File, path: &Path) -> Result<(), Fault> {
    let meta = file.metadata().map_err(|error| distrust(&format!("{}: {error}", path.display())))?;
    // Root of another user namespace is anybody; the host's root is nobody there.
    let is_hosts = if trust::is_in_first_user_namespace() {
        meta.uid() == 0
    } else {
        meta.uid() == trust::overflow_uid() && trust::is_on_read_only_mount(path)
    };
    if is_hosts && meta.is_file() && meta.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(distrust(&format!("{} belongs to others than the machine's root, or others may write it", path.display())))
}

fn distrust(why: &str) -> Fault {
    Fault { kind: FaultKind::Unsupported, why: format!("the library is not trusted: {why}") }
}
