//! One helper for all meters of root on a machine: sixty-four jobs look at a device no more often than one does, and at the same time, so
//! that what they are charged for it adds up. Where it does not answer, a meter has a helper of its own.
//!
//! A meter of another user has its own from the beginning: its job is of the same user, and could be what answers.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::place;
use crate::sys::device_filter::may_be_filtered;
use crate::sys::proc;
use crate::sys::sockets::{Peer, bind, connect_to, peer};
use crate::sys::trust::is_in_first_user_namespace;

/// What decides which devices a process sees, and by which numbers it knows processes.
const NAMESPACES: [&str; 3] = ["mnt", "pid", "user"];
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

fn namespaces(pid: i32) -> Vec<Option<PathBuf>> {
    let link = |name: &&str| proc::path(pid, &format!("ns/{name}")).and_then(std::fs::read_link).ok();
    NAMESPACES.iter().map(link).collect()
}

fn own_pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

impl Common {
    fn of(program: &Path, library: Option<&Path>) -> io::Result<Self> {
        Ok(Self {
            program: file(program)?,
            library: library.map(|path| (path.to_owned(), file(path).ok())),
            environment: environment(),
            namespaces: namespaces(own_pid()),
        })
    }

    fn name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        format!("jobmeter-gpus-{:016x}", hasher.finish())
    }
}

/// Whether another meter's helper sees the same as one of this process would, and nobody but root of this machine can stand in for it.
fn may_share() -> bool {
    nix::unistd::geteuid().is_root() && is_in_first_user_namespace() && !place::has_own_root() && !may_be_filtered()
}

/// A name may be taken by anybody.
fn is_believed(stream: &UnixStream) -> bool {
    let is_of_root_here = |peer: Peer| peer.uid == 0 && namespaces(peer.pid.as_raw()) == namespaces(own_pid());
    peer(stream).is_ok_and(is_of_root_here)
}

fn name(program: &Path, library: Option<&Path>) -> io::Result<Option<String>> {
    if may_share() { Ok(Some(Common::of(program, library)?.name())) } else { Ok(None) }
}

/// The machine's helper; `None` where there is none, or this process needs its own.
pub(super) fn connect(program: &Path, library: Option<&Path>) -> io::Result<Option<UnixStream>> {
    let Some(name) = name(program, library)? else { return Ok(None) };
    Ok(connect_to(&name)?.filter(is_believed))
}

/// What others are to connect to, where the machine has no helper that this process could use.
pub(super) fn listen(program: &Path, library: Option<&Path>) -> io::Result<Option<UnixListener>> {
    let Some(name) = name(program, library)? else { return Ok(None) };
    bind(&name)
}
