//! `jobmeter install`: what the wrapper's container needs, where that finds it.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use uuid::Uuid;

use super::output::{Failure, Output};
use crate::meter::gpu::program::{LIBRARIES, LOADER, NAME as HELPER};
use crate::sys::identity::FileIdentity;

const WRAPPER: &str = "jobmeter-wrapper";
const LIBEXEC: &str = "/usr/libexec/jobmeter";
/// Of glibc and gcc: the helper's, and those that the driver's library names (`readelf -d libnvidia-ml.so.1`).
const NEEDED: [&str; 6] = ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libgcc_s.so.1"];
/// Loaded into every program, first of all (ld.so(8)).
const PRELOADED: &[u8] = b"/etc/ld.so.preload\0";
/// As long, and where nobody can put a file.
const NOWHERE: &[u8] = b"/proc/no.preloaded\0";

/// Copies the wrapper and, where it is there, the helper for GPUs with a loader and libraries of its own: those of the image that it will find
/// itself in are its user's.
pub(super) fn install(directory: &Path, out: &Output) -> Result<ExitCode, Failure> {
    let own = std::env::current_exe()
        .map_err(|error| Failure::new("where this program is cannot be found").because(error))?;
    let find =
        |name: &str| [own.with_file_name(name), Path::new(LIBEXEC).join(name)].into_iter().find(|path| path.exists());
    let wrapper = find(WRAPPER).ok_or_else(|| {
        Failure::new(format!("there is no {}", own.with_file_name(WRAPPER).display()))
            .hint("it is built with crt-static")
    })?;
    let mut installed = vec![WRAPPER];
    copy(&wrapper, &directory.join(WRAPPER))?;
    if let Some(helper) = find(HELPER) {
        copy(&helper, &directory.join(HELPER))?;
        install_libraries(&directory.join(LIBRARIES))?;
        installed.extend([HELPER, LIBRARIES]);
    }
    let installed: Vec<String> = installed.into_iter().map(|name| directory.join(name).display().to_string()).collect();
    out.print(&installed, |_| format!("installed {}\n", installed.join(", ")))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let to = path.display().to_string();
    move |error| Failure::new(format!("cannot install {to}")).because(error)
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::read(from).and_then(|bytes| put(&bytes, to)).map_err(failed(to))
}

/// Those that this process runs by: the image's, which is jobmeter's own.
fn install_libraries(directory: &Path) -> Result<(), Failure> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(failed(directory))?;
    let mapped: Vec<PathBuf> = maps.lines().filter_map(|line| Some(line.get(line.find('/')?..)?.into())).collect();
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let loader = mapped.iter().find(|path| name(path).starts_with(LOADER));
    let Some(loader) = loader else { return Ok(()) };
    {
        let _as_owner = FileIdentity::of_folder_of(directory).map_err(failed(directory))?;
        let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
        made.and_then(|()| std::fs::set_permissions(directory, Permissions::from_mode(0o755)))
            .map_err(failed(directory))?;
    }
    let folders: Vec<&Path> =
        mapped.iter().filter(|path| name(path).contains(".so")).filter_map(|path| path.parent()).collect();
    for library in NEEDED {
        let found = folders.iter().map(|folder| folder.join(library)).find(|path| path.exists());
        if let Some(from) = found {
            copy(&from, &directory.join(library))?;
        }
    }
    let to = directory.join(name(loader));
    let bytes = without_preload(std::fs::read(loader).map_err(failed(&to))?);
    let bytes =
        bytes.ok_or_else(|| Failure::new(format!("invalid loader {}: expected one of glibc", loader.display())))?;
    put(&bytes, &to).map_err(failed(&to))
}

/// A loader that preloads nothing of the image's. It has no option for that.
fn without_preload(mut loader: Vec<u8>) -> Option<Vec<u8>> {
    let mut windows = loader.windows(PRELOADED.len());
    let at = windows.position(|window| window == PRELOADED)?;
    // Were there a second one, nobody would know which of them counts.
    if windows.any(|window| window == PRELOADED) {
        return None;
    }
    loader.get_mut(at..at + NOWHERE.len())?.copy_from_slice(NOWHERE);
    Some(loader)
}

/// In the place of an older one at once, whatever stands there; nobody's link is followed.
fn put(bytes: &[u8], to: &Path) -> io::Result<()> {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", Uuid::new_v4().simple()));
    let part = to.with_file_name(name);
    let _as_owner = FileIdentity::of_folder_of(to)?;
    let written = File::create_new(&part)
        .and_then(|mut new| new.write_all(bytes))
        // Whatever the image's umask: whoever the container runs as must be able to execute it.
        .and_then(|()| std::fs::set_permissions(&part, Permissions::from_mode(0o755)))
        .and_then(|()| std::fs::rename(&part, to));
    written.inspect_err(|_| drop(std::fs::remove_file(&part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loader_without_preload_differs_in_that_alone() {
        assert_eq!(PRELOADED.len(), NOWHERE.len());
        let loader = [b"a\0", PRELOADED, b"b\0"].concat();
        assert_eq!(without_preload(loader.clone()), Some([b"a\0", NOWHERE, b"b\0"].concat()));
        assert_eq!(
            (without_preload(b"no loader".to_vec()), without_preload([loader.clone(), loader].concat())),
            (None, None)
        );
    }
}
