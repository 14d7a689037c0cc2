//! Groups of cgroup v1 (`cpuacct`, `freezer`), for hosts without a v2 hierarchy that may be written.
//!
//! Kernel documentation: `Documentation/admin-guide/cgroup-v1/`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::proc::Process;

/// One v1 group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V1Group {
    path: PathBuf,
}

/// The directory of the group of `controller` that this process is in.
///
/// # Errors
/// Where the controller is not mounted as v1 or its mount does not show the group.
pub fn own_group(controller: &str) -> io::Result<V1Group> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    let cgroup = std::fs::read_to_string("/proc/self/cgroup")?;
    locate(&mountinfo, &cgroup, controller).map(|path| V1Group { path }).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("no cgroup v1 mount shows this process's {controller} group"))
    })
}

/// The tops of the v1 hierarchies in which this process is elsewhere.
///
/// # Errors
/// Where they cannot be read, or one of them is not mounted.
pub(super) fn hierarchies() -> io::Result<Vec<PathBuf>> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    let cgroup = std::fs::read_to_string("/proc/self/cgroup")?;
    let of_line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?.to_owned(), fields.next()?);
        (!controllers.is_empty() && path != "/").then_some(controllers)
    };
    let top = |controllers: String| {
        let first = controllers.split(',').next().unwrap_or_default();
        locate(&mountinfo, &format!("1:{controllers}:/"), first).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("the cgroup v1 hierarchy {controllers} is not mounted"))
        })
    };
    cgroup.lines().filter_map(of_line).map(top).collect()
}

/// The directory of the group of `controller` that another process is in.
///
/// # Errors
/// Where the controller is not mounted as v1, its mount does not show the group, or the process is ending.
pub fn group_of_task(pid: i32, controller: &str) -> io::Result<V1Group> {
    group_of(pid, controller).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("no cgroup v1 mount shows the {controller} group of process {pid}"),
        )
    })
}

/// PF_EXITING of `flags` in `/proc/PID/stat` (linux/sched.h).
const ENDING: u64 = 0x4;

/// Where the group of a process is, by its `/proc/PID/cgroup`; `None` where it has none of that controller, or is ending.
#[must_use]
pub fn group_of(pid: i32, controller: &str) -> Option<V1Group> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    group_in(&mountinfo, &Process::hold(pid).ok()?, controller)
}

/// The same of a process that is held.
#[must_use]
pub fn group_of_held(process: &Process, controller: &str) -> Option<V1Group> {
    group_in(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, process, controller)
}

fn group_in(mountinfo: &str, process: &Process, controller: &str) -> Option<V1Group> {
    locate(mountinfo, &lines_of_living(process)?, controller).map(|path| V1Group { path })
}

/// From the moment a task ends, zombies included, every v1 hierarchy shows it in its root, where it has never been (`flags` of
/// proc(5); Linux 6.18). So it is asked where it is first, and whether it ends afterwards. A process whose first thread has ended
/// is where its other threads are.
fn lines_of_living(process: &Process) -> Option<String> {
    let of_task = |task: &str| {
        let lines = process.read(&format!("{task}cgroup")).ok()?;
        (!is_ending(&process.read(&format!("{task}stat")).ok()?)?).then_some(lines)
    };
    of_task("").or_else(|| process.threads().into_iter().find_map(|thread| of_task(&format!("task/{thread}/"))))
}

fn is_ending(stat: &str) -> Option<bool> {
    let flags: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(6)?.parse().ok()?;
    Some(flags & ENDING != 0)
}

fn locate(mountinfo: &str, cgroup: &str, controller: &str) -> Option<PathBuf> {
    let own = cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        controllers.split(',').any(|name| name == controller).then(|| fields.next()).flatten()
    })?;
    mountinfo.lines().rev().find_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        let mut rest = rest.split(' ');
        let is_v1 = rest.next()? == "cgroup";
        let has = rest.nth(1)?.split(',').any(|option| option == controller);
        if !is_v1 || !has {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, target) = (fields.next()?, fields.next()?);
        let below = if root == "/" { own } else { own.strip_prefix(root)? };
        (!below.split('/').any(|part| part == "..")).then(|| Path::new(target).join(below.trim_start_matches('/')))
    })
}

impl V1Group {
    /// The group at a path, which need not exist.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Makes a group below this one.
    ///
    /// # Errors
    /// Where it exists or may not be made.
    pub fn create_below(&self, name: &str) -> io::Result<Self> {
        let path = self.path.join(name);
        std::fs::create_dir(&path)?;
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Opens the file into which a process writes `0` to join.
    ///
    /// # Errors
    /// Where it may not be written.
    pub fn open_procs(&self) -> io::Result<File> {
        File::options().write(true).open(self.path.join("cgroup.procs"))
    }

    /// The text of one of its files.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(&self, name: &str) -> io::Result<String> {
        io::read_to_string(self.open(name, OpenOptions::new().read(true))?)
    }

    /// Writes one of its files.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn write(&self, name: &str, value: &str) -> io::Result<()> {
        self.open(name, OpenOptions::new().write(true))?.write_all(value.as_bytes())
    }

    /// Where a path came from a spool, what is there may be no group's file: a pipe keeps nobody waiting.
    fn open(&self, name: &str, options: &mut OpenOptions) -> io::Result<File> {
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(self.path.join(name))
    }

    fn below(&self) -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return Vec::new() };
        let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.map(|entry| Self { path: entry.path() }).collect()
    }

    /// Its processes and those of the groups below it.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        let mut pids: Vec<i32> =
            self.read("cgroup.procs").unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect();
        pids.extend(self.below().iter().flat_map(Self::processes));
        pids
    }

    /// Whether something in it or below it lives; one that is there and cannot be read may have something.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        let listed = self.read("cgroup.procs").map_or_else(|_| self.exists(), |text| !text.trim().is_empty());
        listed || self.below().iter().any(Self::is_populated)
    }

    /// Lets everything in it and below run again: a job may have frozen a group of its own.
    pub fn thaw(&self) {
        self.write("freezer.state", "THAWED").ok();
        self.below().iter().for_each(Self::thaw);
    }

    /// Removes the groups below it and then itself. Where there is none below, that takes no descriptor.
    ///
    /// # Errors
    /// Where one is not empty.
    pub fn remove(&self) -> io::Result<()> {
        if std::fs::remove_dir(&self.path).is_ok() || !self.exists() {
            return Ok(());
        }
        self.below().iter().try_for_each(Self::remove)?;
        std::fs::remove_dir(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_joint_controllers_and_bound_mounts() {
        let mountinfo = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                         31 25 0:27 /docker/x /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n";
        let cgroup = "3:cpu,cpuacct:/user/a\n2:freezer:/docker/x/y\n0::/\n";
        assert_eq!(locate(mountinfo, cgroup, "cpuacct").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/user/a"));
        assert_eq!(locate(mountinfo, cgroup, "freezer").unwrap(), Path::new("/sys/fs/cgroup/freezer/y"));
        assert_eq!(locate(mountinfo, cgroup, "memory"), None);
    }

    #[test]
    fn a_task_that_ends_is_known_by_its_flags() {
        let stat = |flags: u64| format!("4 (a) b) R 1 4 4 0 -1 {flags} 0 0 0 0 1");
        assert_eq!(is_ending(&stat(0x40_0004)), Some(true));
        assert_eq!(is_ending(&stat(0x40_0100)), Some(false));
        assert_eq!(is_ending("4 (a"), None);
    }
}
