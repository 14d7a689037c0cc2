//! Whether anything lives in a group, and word of it when that changes, so that its end is seen without looking for it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use super::cgroup::is_populated;
use super::containment::Containment;

/// `cgroup.events` of a job's group, held open. It polls as POLLPRI from each change until it is read again (cgroup v2).
#[derive(Debug)]
pub struct Population(File);

impl Population {
    /// `None` where no group tells.
    #[must_use]
    pub fn of(containment: &Containment) -> Option<Self> {
        match containment {
            Containment::Cgroup2(group) | Containment::Attached { group, .. } => {
                group.open_file("cgroup.events").ok().map(Self)
            }
            Containment::Cgroup1 { .. } | Containment::Tree { .. } => None,
        }
    }

    /// Whether something lives now, or may.
    #[must_use]
    pub fn lives(&self) -> bool {
        let mut buffer = [0_u8; 256];
        let read = self.0.read_at(&mut buffer, 0);
        is_populated(read.map(|read| String::from_utf8_lossy(buffer.get(..read).unwrap_or_default()).into_owned()))
    }
}

impl AsFd for Population {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
