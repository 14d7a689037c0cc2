//! An inherited task clock: `perf_event_open(2)`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

/// The first version of `perf_event_attr`, which every kernel takes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    extra: u64,
}

const KIND_SOFTWARE: u32 = 1;
const TASK_CLOCK: u64 = 1;
const FLAG_INHERIT: u64 = 1 << 1;
const OPEN_CLOEXEC: libc::c_ulong = 1 << 3;

/// A counter of a process and of all that it and its children start from now on, dead ones included.
#[derive(Debug)]
pub struct TaskClock(File);

impl TaskClock {
    /// Opens it on a process.
    ///
    /// # Errors
    /// Where `kernel.perf_event_paranoid` does not permit it, or the process has gone.
    pub fn open(pid: Pid) -> io::Result<Self> {
        let attributes = Attributes {
            kind: KIND_SOFTWARE,
            size: u32::try_from(size_of::<Attributes>()).unwrap_or(64),
            config: TASK_CLOCK,
            flags: FLAG_INHERIT,
            ..Attributes::default()
        };
        // SAFETY: the attributes outlive the call and name their own size; the kernel returns a new descriptor.
        let fd = unsafe {
            libc::syscall(libc::SYS_perf_event_open, &raw const attributes, pid.as_raw(), -1, -1, OPEN_CLOEXEC)
        };
        let fd = i32::try_from(Errno::result(fd)?).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        // SAFETY: the kernel has just returned this descriptor; nothing else owns it.
        Ok(Self(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// ns of CPU time so far.
    ///
    /// # Errors
    /// Where the kernel gives no number.
    pub fn read_ns(&self) -> io::Result<u64> {
        let mut bytes = [0_u8; 8];
        (&self.0).read_exact(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}
