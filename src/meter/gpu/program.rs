//! Where the helper's program is, and what runs it.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::options::{Giver, GpuOptions};
use super::wire::{Fault, FaultKind};

/// The helper's, wherever it is installed.
pub const NAME: &str = "jobmeter-nvml";
/// From where jobmeter lies, where packages put what is not for users.
const LIBEXEC: &str = "../libexec/jobmeter";
/// What could make the loader take another library than the system's.
const LOADER_VARIABLES: [&str; 4] = ["LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT", "JOBMETER_KEY"];
/// Beside the helper, where `jobmeter install` has put them: a loader and the libraries that helper and driver need.
pub const LIBRARIES: &str = "lib";
/// Set where the meter waits to hear that its helper cannot be traced any more.
pub const READY_VARIABLE: &str = "JOBMETER_NVML_READY";
/// How names of loaders begin (ld.so(8)).
pub const LOADER: &str = "ld-linux";

/// Where the helper is.
///
/// # Errors
/// Where it is not, for people.
pub fn path() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("it cannot be told where jobmeter lies: {error}"))?;
    let beside = own.with_file_name(NAME);
    let folder = own.parent();
    let elsewhere = folder.map(|folder| folder.join(LIBEXEC).join(NAME));
    // Test binaries of cargo lie one directory below.
    let above = folder.and_then(Path::parent).map(|directory| directory.join(NAME));
    let found = [Some(beside.clone()), above, elsewhere].into_iter().flatten().find(|path| path.is_file());
    found.ok_or_else(|| format!("{} is not there", beside.display()))
}

/// What starts it, with its end of the socket as input.
///
/// # Errors
/// Where it or what it needs is not there.
pub(super) fn command(options: &GpuOptions, input: OwnedFd) -> Result<Command, Fault> {
    let helper = path().map_err(Fault::failed)?;
    let mut command = if options.giver == Giver::Container { loaded_by_own(&helper)? } else { Command::new(&helper) };
    for variable in LOADER_VARIABLES {
        command.env_remove(variable);
    }
    command.args(absolute(options.library.as_deref()));
    command.stdin(Stdio::from(input)).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// The loader, the libraries and the environment of an image are its user's.
fn loaded_by_own(helper: &Path) -> Result<Command, Fault> {
    let libraries = helper.with_file_name(LIBRARIES);
    let entries = std::fs::read_dir(&libraries).into_iter().flatten().flatten();
    let is_loader =
        |name: &OsString| name.to_string_lossy().starts_with(LOADER) && !name.to_string_lossy().ends_with(".part");
    let loader = entries.map(|entry| entry.file_name()).find(is_loader).ok_or_else(|| Fault {
        kind: FaultKind::Unsupported,
        why: format!("{} has no loader: `jobmeter install` puts one there", libraries.display()),
    })?;
    let mut command = Command::new(libraries.join(loader));
    command
        .env_clear()
        .env(READY_VARIABLE, "1")
        .arg("--inhibit-cache")
        .arg("--library-path")
        .arg(&libraries)
        .arg(helper);
    Ok(command)
}

/// The library is found from everywhere.
pub(super) fn absolute(library: Option<&Path>) -> Option<PathBuf> {
    library.map(|library| std::path::absolute(library).unwrap_or_else(|_| library.to_owned()))
}
