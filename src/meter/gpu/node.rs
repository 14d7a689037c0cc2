//! One helper for all meters of root on a machine: sixty-four jobs look at a device no more often than one does, and at the same time, so
//! that what they are charged for it adds up. Where it does not answer, a meter has a helper of its own.
//!
//! A meter of another user has its own from the beginning: its job is of the same user, and could be what answers.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::place;
use crate::sys::device_filter::may_be_filtered;
use crate::sys::sockets::{self, connect_to};
use crate::sys::trust::is_in_first_user_namespace;

/// What decides which devices a process sees, by which numbers it knows processes, and what its clock says.
const NAMESPACES: [&str; 4] = ["mnt", "pid", "time", "user"];
const FOLDER: &str = "/run/jobmeter/meters";
/// Device, inode and time of change.
type File = (u64, u64, i64);

fn file(path: &Path) -> io::Result<File> {
    std::fs::metadata(path).map(|found| (found.dev(), found.ino(), found.ctime()))
}

/// What helpers have to have in common, to be one.
#[derive(Debug, Hash)]
struct Common {
    /// Another version is another helper.
    program: File,
    library: Option<(PathBuf, Option<File>)>,
    environment: BTreeMap<OsString, OsString>,
    namespaces: Vec<Option<PathBuf>>,
}

/// What a driver's library, or what stands in for one, may be told by.
pub(super) fn environment() -> BTreeMap<OsString, OsString> {
    std::env::vars_os().filter(|(name, _)| name.to_string_lossy().contains("NVML")).collect()
}

fn namespaces() -> Vec<Option<PathBuf>> {
    NAMESPACES.iter().map(|name| std::fs::read_link(format!("/proc/self/ns/{name}")).ok()).collect()
}

impl Common {
    fn of(program: &Path, library: Option<&Path>) -> io::Result<Self> {
        Ok(Self {
            program: file(program)?,
            library: library.map(|path| (path.to_owned(), file(path).ok())),
            environment: environment(),
            namespaces: namespaces(),
        })
    }

    fn name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        format!("gpus-{:016x}.sock", hasher.finish())
    }
}

/// Whether this is root of the machine, with all of its devices: what another such meter's helper sees is the same.
fn may_share() -> bool {
    nix::unistd::geteuid().is_root() && is_in_first_user_namespace() && !place::has_own_root() && !may_be_filtered()
}

/// Where the helper listens: in a folder of root's that nobody else can enter. `None` where this process needs its own.
fn socket(program: &Path, library: Option<&Path>) -> io::Result<Option<PathBuf>> {
    if !may_share() {
        return Ok(None);
    }
    DirBuilder::new().recursive(true).mode(0o755).create(Path::new(FOLDER).parent().unwrap_or(Path::new(FOLDER)))?;
    match DirBuilder::new().mode(0o700).create(FOLDER) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = std::fs::symlink_metadata(FOLDER)?;
    let is_roots = found.is_dir() && found.uid() == 0 && found.mode() & 0o777 == 0o700;
    Ok(if is_roots { Some(Path::new(FOLDER).join(Common::of(program, library)?.name())) } else { None })
}

/// The machine's helper; `None` where there is none, or this process needs its own.
pub(super) fn connect(program: &Path, library: Option<&Path>) -> io::Result<Option<UnixStream>> {
    socket(program, library)?.map_or(Ok(None), |path| connect_to(&path))
}

/// What others are to connect to, where the machine has no helper that this process could use.
pub(super) fn listen(program: &Path, library: Option<&Path>) -> io::Result<Option<UnixListener>> {
    socket(program, library)?.map_or(Ok(None), |path| sockets::listen(&path))
}
