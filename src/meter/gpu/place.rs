//! Where this process stands: on the host or in a container.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use crate::sys::proc;
use crate::sys::process::Namespace;

const OWN_MOUNTS: &str = "/proc/self/mountinfo";

/// Also where there are no others.
fn is_in_first(namespace: Namespace) -> bool {
    namespace.is_the_first().unwrap_or_else(|error| error.kind() == ErrorKind::NotFound)
}

/// Whether process ids here are those of the host, so that every process can be seen.
#[must_use]
pub fn has_host_pids() -> bool {
    is_in_first(Namespace::Pid)
}

/// Whether this is a container, which has devices of its own. A host whose root file system is an image (an immutable or a diskless one)
/// is none, nor is what has another root or other process ids alone.
#[must_use]
pub fn in_container() -> bool {
    let has_others = !is_in_first(Namespace::Ipc) || !is_in_first(Namespace::Cgroup);
    has_others && !has_host_pids()
}

/// Whether the root file system is not the host's, so that its user may have made what lies there.
#[must_use]
pub fn has_own_root() -> bool {
    // In a PID namespace of its own the first process has the same root.
    let own = std::fs::read_to_string(OWN_MOUNTS).unwrap_or_default();
    !has_host_pids() || proc::read(1, "mountinfo").map_or(true, |first| root_in(&first) != root_in(&own))
}

/// What is mounted there: the device and the folder in it.
/// `ID PARENT MAJOR:MINOR ROOT MOUNT_POINT OPTIONS … - TYPE SOURCE OPTIONS` (proc_pid_mountinfo(5)).
fn root_in(mountinfo: &str) -> Option<(String, String)> {
    let line = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/"))?;
    let mut words = line.split(' ').skip(2).map(str::to_owned);
    Some((words.next()?, words.next()?))
}

/// Where something is mounted: folders, and single files.
#[must_use]
pub fn mount_points() -> Vec<PathBuf> {
    points_in(&std::fs::read_to_string(OWN_MOUNTS).unwrap_or_default())
}

fn points_in(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped).collect()
}

/// Whether a file is part of the root file system itself, and not of what is mounted into it.
///
/// # Errors
/// Where the kernel does not tell (`proc_pid_fdinfo(5)`: `mnt_id`).
pub fn is_on_root_mount(file: &File) -> io::Result<bool> {
    Ok(mount_id(file)? == mount_id(&File::open("/")?)?)
}

fn mount_id(file: &File) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| ErrorKind::InvalidData.into())
}

/// The kernel writes a space as `\040`.
fn unescaped(text: &str) -> PathBuf {
    PathBuf::from(text.replace("\\040", " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_an_image_from_what_is_mounted_into_it() {
        let text = "1 0 0:30 / / rw - overlay overlay rw\n2 1 8:1 /x /usr/lib/libnvidia-ml.so.1 ro - ext4 /dev/sda1 rw\n\
                    3 1 0:5 / /a\\040b rw - tmpfs tmpfs rw\n";
        assert_eq!(root_in(text), Some(("0:30".to_owned(), "/".to_owned())));
        assert_eq!(root_in("1 0 8:1 /x / rw - ext4 /dev/sda1 rw\n"), Some(("8:1".to_owned(), "/x".to_owned())));
        let points = ["/", "/usr/lib/libnvidia-ml.so.1", "/a b"].map(PathBuf::from);
        assert_eq!(points_in(text), points);
        let [own, kernels] = ["/proc/self/exe", "/proc/version"].map(|path| File::open(path).unwrap());
        assert_ne!(mount_id(&own).unwrap(), mount_id(&kernels).unwrap());
        assert!(!is_on_root_mount(&kernels).unwrap() && is_on_root_mount(&File::open("/").unwrap()).unwrap());
    }
}
