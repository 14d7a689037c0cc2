//! A cgroup v2 made for one job: create, read, freeze, kill, remove.
//!
//! Files are opened relative to a directory descriptor, so that a group made anew under the same name is never read or
//! killed by mistake. Kernel documentation: `Documentation/admin-guide/cgroup-v2.rst`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::clock::{Clock, SystemClock, pause};
use super::proc;

/// Between two looks where no event can be waited for.
const LOOK: Duration = Duration::from_millis(1);

/// A cgroup v2 directory, held open.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    dir: OwnedFd,
    /// Of a group that was made here.
    parent: Option<OwnedFd>,
    kept: Vec<(&'static str, File)>,
    name: OnceLock<Option<PathBuf>>,
}

/// What ends a job, so that it can be ended where no descriptor is left. `cgroup.kill` needs Linux 5.14.
const KEPT: [(&str, OFlag); 4] = [
    ("cgroup.freeze", OFlag::O_RDWR),
    ("cgroup.kill", OFlag::O_WRONLY),
    ("cgroup.events", OFlag::O_RDONLY),
    ("cgroup.procs", OFlag::O_RDWR),
];

/// Whether waiting for a group reached what it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// It did.
    Reached,
    /// The time was over first.
    TimedOut,
}

/// Where the v2 hierarchy is mounted and which group this process is in, below that mount.
///
/// # Errors
/// Where `/proc/self/mountinfo` or `/proc/self/cgroup` cannot be read, or no v2 hierarchy is mounted.
pub fn own_group_path() -> io::Result<PathBuf> {
    locate_in(&std::fs::read_to_string("/proc/self/cgroup")?)
}

/// The same of another process; by the mounts of this one.
///
/// # Errors
/// Where it has gone, or its group is not shown here.
pub fn group_path_of(pid: i32) -> io::Result<PathBuf> {
    locate_in(&proc::read(pid, "cgroup")?)
}

/// The v2 group, as `/proc/PID/cgroup` names it.
pub(super) fn name_of(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

fn locate_in(cgroup: &str) -> io::Result<PathBuf> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    let own = name_of(cgroup)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "/proc/self/cgroup has no cgroup v2 line"))?;
    locate_group(&mountinfo, own)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no cgroup v2 mount shows the group {own}")))
}

/// The top of the v2 hierarchy, if it is mounted.
///
/// # Errors
/// Where `/proc/self/mountinfo` cannot be read.
pub(super) fn hierarchy() -> io::Result<Option<PathBuf>> {
    Ok(locate_group(&std::fs::read_to_string("/proc/self/mountinfo")?, "/"))
}

/// The directory of the v2 group `own` (as in `/proc/self/cgroup`), by the mounts of `mountinfo`. A mount shows the part
/// of the hierarchy below its root field; a group outside of it (`/../…`) cannot be reached.
fn locate_group(mountinfo: &str, own: &str) -> Option<PathBuf> {
    mounts(mountinfo).find_map(|(root, target)| {
        let below = if root == "/" { own } else { own.strip_prefix(root)? };
        if below.split('/').any(|part| part == "..") || !(below.is_empty() || below.starts_with('/')) {
            return None;
        }
        let below = below.trim_start_matches('/');
        Some(if below.is_empty() { target } else { target.join(below) })
    })
}

/// The other way around: by the mount through which the path leads.
fn name_at(mountinfo: &str, path: &Path) -> Option<PathBuf> {
    mounts(mountinfo).find_map(|(root, target)| {
        let (root, below) = (unescape(root), path.strip_prefix(target).ok()?);
        Some(if below.as_os_str().is_empty() { root } else { root.join(below) })
    })
}

/// Of the v2 hierarchy, the newest first: which part of it each shows, as it stands there, and where.
fn mounts(mountinfo: &str) -> impl Iterator<Item = (&str, PathBuf)> {
    mountinfo.lines().rev().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, target) = (fields.next()?, fields.next()?);
        (kind.split(' ').next()? == "cgroup2").then(|| (root, unescape(target)))
    })
}

/// `mountinfo` writes space, tab, newline and backslash as `\ooo` (proc(5)).
fn unescape(field: &str) -> PathBuf {
    let mut text = field.to_owned();
    for (escape, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(escape, plain);
    }
    PathBuf::from(text)
}

impl Group {
    /// Opens a group that exists.
    ///
    /// # Errors
    /// Where it does not, or is not a cgroup v2 directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let dir = nix::fcntl::open(path, OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let kind = nix::sys::statfs::fstatfs(&dir)?.filesystem_type();
        if kind != nix::sys::statfs::CGROUP2_SUPER_MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a cgroup v2 directory"));
        }
        Ok(Self::held(path.to_owned(), dir))
    }

    /// Makes a new group below this one. An existing one is never reused: once `cgroup.kill` was written to it, later
    /// children made into it die at birth (measured on Linux 6.18).
    ///
    /// # Errors
    /// Where it exists or may not be made.
    pub fn create_below(&self, name: &str) -> io::Result<Self> {
        mkdirat(&self.dir, name, Mode::from_bits_truncate(0o755))?;
        let hold = || {
            let dir = openat(&self.dir, name, OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
            Ok(Self { parent: Some(self.dir.try_clone()?), ..Self::held(self.path.join(name), dir) })
        };
        hold().inspect_err(|_| {
            // Nobody else knows of it.
            unlinkat(&self.dir, name, UnlinkatFlags::RemoveDir).ok();
        })
    }

    fn held(path: PathBuf, dir: OwnedFd) -> Self {
        Self { path, dir, parent: None, kept: Vec::new(), name: OnceLock::new() }
    }

    /// Opens what ends it, while there are descriptors. A kernel may lack some of it.
    pub fn keep_open(&mut self) {
        let open = |(name, access): &(&'static str, OFlag)| Some((*name, self.open_as(name, *access).ok()?));
        self.kept = KEPT.iter().filter_map(open).collect();
    }

    fn kept(&self, name: &str) -> Option<&File> {
        self.kept.iter().find_map(|(kept, file)| (*kept == name).then_some(file))
    }

    /// How `/proc/PID/cgroup` names it; `None` where no mount shows that.
    #[must_use]
    pub fn name(&self) -> Option<&Path> {
        let found = || name_at(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &self.path);
        self.name.get_or_init(found).as_deref()
    }

    /// Its path, for the spool and for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory, for `clone3`.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The inode, which with the boot id tells whether a path still is this group.
    ///
    /// # Errors
    /// Where the kernel refuses `fstat`.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(nix::sys::stat::fstat(&self.dir)?.st_ino)
    }

    /// Opens one of its files for reading.
    ///
    /// # Errors
    /// Where the file does not exist or may not be read.
    pub fn open_file(&self, name: &str) -> io::Result<File> {
        self.open_as(name, OFlag::O_RDONLY)
    }

    /// Where a process has mounts of its own, something else may be mounted over a file of its group.
    fn open_as(&self, name: &str, access: OFlag) -> io::Result<File> {
        let flags = access | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(&self.dir, name, how) {
            // Linux before 5.6, or a sandbox that does not know the call.
            Err(Errno::ENOSYS | Errno::EPERM) => Ok(File::from(openat(&self.dir, name, flags, Mode::empty())?)),
            opened => Ok(File::from(opened?)),
        }
    }

    /// The text of one of its files.
    ///
    /// # Errors
    /// Where the file does not exist or may not be read.
    pub fn read_file(&self, name: &str) -> io::Result<String> {
        let Some(file) = self.kept(name) else { return io::read_to_string(self.open_file(name)?) };
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let length = file.read_at(&mut chunk, u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
            bytes.extend_from_slice(chunk.get(..length).unwrap_or_default());
            if length == 0 {
                return String::from_utf8(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
            }
        }
    }

    /// Writes one of its files.
    ///
    /// # Errors
    /// Where the file does not exist, may not be written, or the kernel refuses the value.
    pub fn write_file(&self, name: &str, value: &str) -> io::Result<()> {
        let write = |file: &File| file.write_at(value.as_bytes(), 0).map(|_| ());
        self.kept(name).map_or_else(|| write(&self.open_as(name, OFlag::O_WRONLY)?), write)
    }

    /// Moves a process, or with 0 the caller, into the group.
    ///
    /// # Errors
    /// Where the kernel refuses: no permission, or the process has gone.
    pub fn join(&self, pid: i32) -> io::Result<()> {
        self.write_file("cgroup.procs", &pid.to_string())
    }

    /// Whether a process of the group or of one below it is alive. A group that has gone has none; one that cannot be read may.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        is_populated(self.read_file("cgroup.events"))
    }

    /// Whether it can be frozen from here.
    #[must_use]
    pub fn may_be_frozen(&self) -> bool {
        openat(&self.dir, "cgroup.freeze", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).is_ok()
    }

    /// Freezes everything in it, and waits for that at most `wait_max`.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn freeze(&self, wait_max: Duration) -> io::Result<Waited> {
        self.write_file("cgroup.freeze", "1")?;
        self.wait_for("frozen 1", wait_max)
    }

    /// Lets it run again.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn thaw(&self) -> io::Result<()> {
        self.write_file("cgroup.freeze", "0")
    }

    /// SIGKILL to every process in it and below, forks under way included; frozen ones die too.
    ///
    /// # Errors
    /// Where the file cannot be written, as before Linux 5.14.
    pub fn kill(&self) -> io::Result<()> {
        self.write_file("cgroup.kill", "1")
    }

    /// Waits until nothing in it is alive, or it has gone.
    ///
    /// # Errors
    /// Where `cgroup.events` cannot be read.
    pub fn wait_empty(&self, wait_max: Duration) -> io::Result<Waited> {
        self.wait_for("populated 0", wait_max)
            .or_else(|error| if has_gone(&error) { Ok(Waited::Reached) } else { Err(error) })
    }

    /// `cgroup.events` raises POLLPRI when it changes, so no time is lost in sleeping.
    fn wait_for(&self, wanted: &str, wait_max: Duration) -> io::Result<Waited> {
        let opened = self.kept("cgroup.events").is_none().then(|| self.open_file("cgroup.events")).transpose()?;
        let Some(events) = opened.as_ref().or_else(|| self.kept("cgroup.events")) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        let clock = SystemClock;
        let until_us = clock.boottime_us().saturating_add(u64::try_from(wait_max.as_micros()).unwrap_or(u64::MAX));
        loop {
            let mut buffer = [0_u8; 256];
            let length = events.read_at(&mut buffer, 0)?;
            let text = std::str::from_utf8(buffer.get(..length).unwrap_or_default()).unwrap_or_default();
            if text.lines().any(|line| line == wanted) {
                return Ok(Waited::Reached);
            }
            let left = Duration::from_micros(until_us.saturating_sub(clock.boottime_us()));
            if left.is_zero() {
                return Ok(Waited::TimedOut);
            }
            let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            match ppoll(&mut fds, Some(TimeSpec::from_duration(left)), None) {
                Ok(_) | Err(Errno::EINTR) => {}
                // No descriptor may be waited for any more (poll(2)).
                Err(Errno::EINVAL) => pause(LOOK),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The processes in it and in the groups below it, but for those of another PID namespace than this and those below it.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        let mut pids = self.listed();
        pids.retain(|pid| *pid > 0);
        pids
    }

    /// As the kernel names them: those of another PID namespace have the number 0.
    #[must_use]
    pub fn listed(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = Vec::new();
        if let Ok(text) = self.read_file("cgroup.procs").or_else(|_| self.read_file("cgroup.threads")) {
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        for below in self.groups_below() {
            pids.extend(below.listed());
        }
        pids
    }

    fn groups_below(&self) -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(self.anchored_path()) else { return Vec::new() };
        entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| {
                let name = entry.file_name();
                let flags = OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
                let dir = openat(&self.dir, name.as_os_str(), flags, Mode::empty()).ok()?;
                Some(Self::held(self.path.join(name), dir))
            })
            .collect()
    }

    /// The path by the open descriptor, so that it names this group and no later one of the same name.
    fn anchored_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.dir.as_raw_fd()))
    }

    /// Removes the groups below it and then itself, if the path still is this group. Where there is none below, and it was made
    /// here, that takes no descriptor.
    ///
    /// # Errors
    /// Where one is not empty, or may not be removed.
    pub fn remove(&self) -> io::Result<()> {
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root group cannot be removed"));
        };
        let open = || nix::fcntl::open(parent, OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
        let opened = self.parent.is_none().then(open).transpose()?;
        let Some(parent) = opened.as_ref().or(self.parent.as_ref()) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        let is_there = || -> io::Result<bool> {
            match nix::sys::stat::fstatat(parent, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) => Ok(false),
                found => Ok(found?.st_ino == self.inode()?),
            }
        };
        if !is_there()? || unlinkat(parent, name, UnlinkatFlags::RemoveDir).is_ok() {
            return Ok(());
        }
        for below in self.groups_below() {
            below.remove()?;
        }
        Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?)
    }
}

/// The group of a file, or the file, is no more there.
pub(super) fn has_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// What `cgroup.events` says. A group that has gone has nothing in it; one that cannot be read may have.
pub(super) fn is_populated(events: io::Result<String>) -> bool {
    events.map_or_else(|error| !has_gone(&error), |events| events.lines().any(|line| line == "populated 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_group_on_hybrid_hosts_and_in_containers() {
        let hybrid = "30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      35 25 0:31 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(locate_group(hybrid, "/").unwrap(), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(locate_group(hybrid, "/a/b").unwrap(), Path::new("/sys/fs/cgroup/unified/a/b"));
        let bound = "30 25 0:26 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(locate_group(bound, "/docker/x/y").unwrap(), Path::new("/sys/fs/cgroup/y"));
        assert_eq!(locate_group(bound, "/docker/xy"), None);
        assert_eq!(locate_group(bound, "/other"), None);
        assert_eq!(locate_group("30 25 0:26 / /cg rw - cgroup2 cgroup rw", "/../outside"), None);
        for (mountinfo, name) in
            [(hybrid, "/a/b"), ("30 25 0:26 / /cg rw - cgroup2 cgroup rw", "/"), (bound, "/docker/x/y")]
        {
            let path = locate_group(mountinfo, name).unwrap();
            assert_eq!(name_at(mountinfo, &path).unwrap(), Path::new(name));
        }
        assert_eq!(name_at(bound, Path::new("/elsewhere")), None);
        let spaced = "30 25 0:26 / /my\\040groups rw - cgroup2 cgroup rw\n";
        assert_eq!(locate_group(spaced, "/a").unwrap(), Path::new("/my groups/a"));
    }
}
