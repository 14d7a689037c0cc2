//! Where this process stands: on the host or in a container.

use std::path::{Path, PathBuf};

/// The inode of the first PID namespace (PROC_PID_INIT_INO in the kernel's proc_ns.h).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Whether process ids here are those of the host, so that every process can be seen.
#[must_use]
pub fn has_host_pids() -> bool {
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace == Path::new(FIRST_PID_NAMESPACE))
}

/// Whether the root file system is an image, or process ids are not those of the host.
#[must_use]
pub fn in_container() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    !has_host_pids() || root_is_image(&mounts)
}

/// `ID PARENT MAJOR:MINOR ROOT MOUNT_POINT OPTIONS … - TYPE SOURCE OPTIONS` (proc_pid_mountinfo(5)).
fn root_is_image(mountinfo: &str) -> bool {
    let root = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/"));
    let kind = root.and_then(|line| line.split_once(" - ")).and_then(|(_, rest)| rest.split(' ').next());
    matches!(kind, Some("overlay" | "fuse.fuse-overlayfs" | "9p" | "virtiofs"))
}

/// On which mount a file lies.
#[must_use]
pub fn mount_point_of(path: &Path) -> PathBuf {
    deepest_mount(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(), path)
}

fn deepest_mount(mountinfo: &str, path: &Path) -> PathBuf {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped);
    let on = points.filter(|point| path.starts_with(point));
    on.max_by_key(|point| point.as_os_str().len()).unwrap_or_else(|| PathBuf::from("/"))
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
        assert!(root_is_image(text) && !root_is_image("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"));
        let point = |path: &str| deepest_mount(text, Path::new(path));
        assert_eq!(point("/usr/lib/libnvidia-ml.so.1"), Path::new("/usr/lib/libnvidia-ml.so.1"));
        assert_eq!((point("/usr/lib/x"), point("/a b/c")), (PathBuf::from("/"), PathBuf::from("/a b")));
    }
}
