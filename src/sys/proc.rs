//! `/proc`, for what is asked of processes other than this one; `/proc/self` is read where it is needed.
//!
//! A number names a process within one PID namespace only, and what is mounted on `/proc` may show another one
//! (`unshare --fork --pid`). It is believed only where it shows this process under the one number that it has itself; else a
//! procfs of this namespace's own is used, which is mounted nowhere.
//!
//! With `hidepid` a process that cannot be traced, as front and keeper are, is hidden from other users and from its own. An
//! open file is not: the front opens its own at the start, and the keeper, forked from it, reads them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::OnceLock;

use nix::dir::Dir;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::mount::procfs_of_this_namespace;
use super::signals::SignalSet;

/// A line of `/proc/PID/stat` is shorter, however the process is called.
const CHUNK_BYTES: usize = 1_024;
/// With this capability every process may be looked at (capabilities(7)).
const CAP_SYS_PTRACE: u32 = 19;

/// Why no process can be looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Blind {
    /// Nothing is there, not even this process.
    #[error("/proc does not show this process: mount it (`mount -t proc proc /proc`)")]
    Missing,
    /// The mounted one is another namespace's.
    #[error(
        "/proc is another PID namespace's, and one of its own cannot be had ({0}): start it with `unshare --mount-proc`"
    )]
    Elsewhere(String),
    /// Some processes are hidden, and nothing else tells of them.
    #[error(
        "/proc is mounted with hidepid, and this kernel does not list children: remount it with hidepid=0, or give \
         the user its gid"
    )]
    Hidden,
}

/// A view of the processes of this PID namespace.
#[derive(Debug)]
struct View {
    root: OwnedFd,
    is_private: bool,
    /// Who opened the files that follow: its own.
    opener: i32,
    stat: File,
    /// Absent where the kernel does not list them (CONFIG_PROC_CHILDREN).
    children: Option<File>,
    hides: bool,
}

/// A process by its directory, which never comes to mean another one.
#[derive(Debug)]
pub struct Process(OwnedFd);

fn view() -> Result<&'static View, &'static Blind> {
    static VIEW: OnceLock<Result<View, Blind>> = OnceLock::new();
    VIEW.get_or_init(look).as_ref()
}

/// Looks whether processes can be seen here, once. The front does it before it forks.
///
/// # Errors
/// With what prevents it.
pub fn prove() -> Result<(), &'static Blind> {
    let seen = view().map(|_| ());
    if seen.is_err() {
        // Its keeper has to see whether it was stopped all the same.
        own_stat();
    }
    seen
}

/// Of the process that looked first, by whichever numbers.
fn own_stat() -> Option<&'static (i32, File)> {
    static OWN: OnceLock<Option<(i32, File)>> = OnceLock::new();
    OWN.get_or_init(|| Some((nix::unistd::getpid().as_raw(), File::open("/proc/self/stat").ok()?))).as_ref()
}

/// The state of a process stands there.
///
/// # Errors
/// Where it has gone, or may not be looked at.
pub fn open_stat(pid: i32) -> io::Result<File> {
    match view() {
        Ok(view) if view.opener == pid => view.stat.try_clone(),
        Ok(view) => open_at(&view.root, &format!("{pid}/stat")),
        Err(_) => match own_stat() {
            Some((own, stat)) if *own == pid => stat.try_clone(),
            _ => Err(io::ErrorKind::Unsupported.into()),
        },
    }
}

/// Whether the view is not the one that is mounted.
#[must_use]
pub fn is_private() -> bool {
    view().is_ok_and(|view| view.is_private)
}

/// Whether a process of this user may be hidden from it.
#[must_use]
pub fn hides() -> bool {
    view().is_ok_and(|view| view.hides)
}

/// Whether the view was opened by this process or by one that it was forked from.
#[must_use]
pub fn was_opened_by(pid: i32) -> bool {
    view().is_ok_and(|view| view.opener == pid)
}

/// The PID namespace that this process is in, by its inode; `None` where nobody tells.
#[must_use]
pub fn namespace() -> Option<u64> {
    std::fs::metadata("/proc/self/ns/pid").ok().map(|meta| meta.ino())
}

fn look() -> Result<View, Blind> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mounted = nix::fcntl::open("/proc", flags, Mode::empty()).map_err(|_| Blind::Missing)?;
    if !fstatfs(&mounted).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC) {
        return Err(Blind::Missing);
    }
    let opener = nix::unistd::getpid().as_raw();
    let status = text_at(&mounted, "self/status").map_err(|_| Blind::Missing)?;
    let is_private = !is_own(&status, opener);
    let elsewhere = |error: io::Error| Blind::Elsewhere(error.to_string());
    let root = if is_private { procfs_of_this_namespace().map_err(elsewhere)? } else { mounted };
    if is_private && !text_at(&root, "self/status").is_ok_and(|status| is_own(&status, opener)) {
        return Err(Blind::Elsewhere("it does not show this process".to_owned()));
    }
    let stat = open_at(&root, &format!("{opener}/stat")).map_err(elsewhere)?;
    let children = open_at(&root, &format!("{opener}/task/{opener}/children")).ok();
    let hides = !is_private && !may_trace(&status) && hidden_from(&mounts(), &status);
    if hides && children.is_none() {
        return Err(Blind::Hidden);
    }
    Ok(View { root, is_private, opener, stat, children, hides })
}

/// Whether `/proc/self/status` shows a process under one number, which is its own. A kernel without namespaces names none.
fn is_own(status: &str, pid: i32) -> bool {
    let numbers = if status.contains("\nNSpid:") { words(status, "NSpid:") } else { words(status, "Pid:") };
    numbers.split_whitespace().map(str::parse).collect::<Vec<_>>() == [Ok(pid)]
}

fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()
}

fn words<'a>(status: &'a str, key: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim()
}

fn may_trace(status: &str) -> bool {
    u64::from_str_radix(words(status, "CapEff:"), 16).unwrap_or(0) >> CAP_SYS_PTRACE & 1 == 1
}

/// Whether the procfs at `/proc` has `hidepid` for a process with this status. Its group may lift that (`gid=`).
fn hidden_from(mounts: &str, status: &str) -> bool {
    let options = mounts.lines().rev().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let at_proc = mount.split(' ').nth(4) == Some("/proc");
        (at_proc && kind.starts_with("proc ")).then(|| kind.rsplit(' ').next()).flatten()
    });
    let option = |key: &str| options.and_then(|all| all.split(',').find_map(|option| option.strip_prefix(key)));
    let Some(hidden) = option("hidepid=").filter(|value| !["0", "off"].contains(value)) else { return false };
    let own_groups = words(status, "Groups:");
    let by_group = option("gid=").is_some_and(|gid| own_groups.split_whitespace().any(|own| own == gid));
    !by_group || ["4", "ptraceable"].contains(&hidden)
}

fn open_at(root: impl AsFd, path: &str) -> io::Result<File> {
    Ok(File::from(openat(root, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?))
}

fn text_at(root: impl AsFd, path: &str) -> io::Result<String> {
    whole(&open_at(root, path)?)
}

/// From its beginning, wherever it was read to before.
fn whole(file: &File) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        let length = file.read_at(&mut chunk, u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
        bytes.extend_from_slice(chunk.get(..length).unwrap_or_default());
        if length == 0 {
            // A process names itself.
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

fn seen() -> io::Result<&'static View> {
    view().map_err(|blind| io::Error::new(io::ErrorKind::Unsupported, blind.to_string()))
}

/// The text of one of the files of a process.
///
/// # Errors
/// Where it has gone, or may not be looked at.
pub fn read(pid: i32, name: &str) -> io::Result<String> {
    let view = seen()?;
    if pid == view.opener && name == "stat" {
        return whole(&view.stat);
    }
    text_at(&view.root, &format!("{pid}/{name}"))
}

/// One of the sets of signals in `/proc/PID/status`, such as `SigIgn:`; none where the process has gone, or may not be looked at.
#[must_use]
pub fn signals(pid: i32, key: &str) -> SignalSet {
    let status = read(pid, "status").unwrap_or_default();
    SignalSet::of_bits(u64::from_str_radix(words(&status, key), 16).unwrap_or(0))
}

/// Where the files of a process are, for what follows a link or lists a folder.
///
/// # Errors
/// Where processes cannot be looked at.
pub fn path(pid: i32, name: &str) -> io::Result<PathBuf> {
    Ok(top()?.join(format!("{pid}/{name}")))
}

fn top() -> io::Result<PathBuf> {
    Ok(PathBuf::from(format!("/proc/self/fd/{}", seen()?.root.as_raw_fd())))
}

/// All processes that are not hidden.
///
/// # Errors
/// Where processes cannot be looked at.
pub fn pids() -> io::Result<Vec<i32>> {
    let entries = std::fs::read_dir(top()?)?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// `/proc/locks`, whose holders are numbers of this namespace.
///
/// # Errors
/// Where it cannot be read.
pub fn locks() -> io::Result<String> {
    text_at(&seen()?.root, "locks")
}

/// The children of all threads of a process, hidden ones included.
///
/// # Errors
/// Where it has gone, is hidden itself, or the kernel does not tell (CONFIG_PROC_CHILDREN).
pub fn children(pid: i32) -> io::Result<Vec<i32>> {
    let numbers = |text: String| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<i32>>();
    let view = seen()?;
    if let Some(own) = view.children.as_ref().filter(|_| pid == view.opener) {
        return whole(own).map(numbers);
    }
    let mut pids = Vec::new();
    for thread in std::fs::read_dir(path(pid, "task")?)?.flatten() {
        pids.extend(numbers(std::fs::read_to_string(thread.path().join("children"))?));
    }
    Ok(pids)
}

impl Process {
    /// Holds the directory of a process.
    ///
    /// # Errors
    /// Where there is none, or it is hidden.
    pub fn hold(pid: i32) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(openat(&seen()?.root, pid.to_string().as_str(), flags, Mode::empty())?))
    }

    /// The text of one of its files.
    ///
    /// # Errors
    /// Where it has gone, however its number is used now.
    pub fn read(&self, name: &str) -> io::Result<String> {
        text_at(&self.0, name)
    }

    /// The numbers of its threads; none once it has gone.
    #[must_use]
    pub fn threads(&self) -> Vec<i32> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(mut tasks) = Dir::openat(&self.0, "task", flags, Mode::empty()) else { return Vec::new() };
        tasks.iter().flatten().filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_own_number_is_believed() {
        assert!(is_own("Name:\tx\nPid:\t7\nNSpid:\t7\n", 7));
        assert!(is_own("Name:\tx\nPid:\t7\n", 7));
        for status in ["Pid:\t7\nNSpid:\t7\t1\n", "Pid:\t7\nNSpid:\t8\n", "Pid:\t1\nNSpid:\n", ""] {
            assert!(!is_own(status, 7), "{status:?}");
        }
    }

    #[test]
    fn hidepid_hides_unless_a_capability_or_group_lifts_it() {
        let mounts = |options: &str| {
            format!("22 1 0:21 / /proc rw - proc proc rw\n63 22 0:39 / /proc rw,relatime - proc proc rw{options}\n")
        };
        let user = "Groups:\t5 6 \nCapEff:\t0000000000000000\n";
        assert!(!may_trace(user) && may_trace("CapEff:\t000001ffffffffff\n") && !may_trace(""));
        for options in
            [",hidepid=1", ",hidepid=invisible", ",gid=7,hidepid=2", ",gid=6,hidepid=4", ",hidepid=ptraceable"]
        {
            assert!(hidden_from(&mounts(options), user), "{options}");
        }
        for options in ["", ",hidepid=0", ",hidepid=off", ",gid=6,hidepid=2"] {
            assert!(!hidden_from(&mounts(options), user), "{options}");
        }
    }
}
