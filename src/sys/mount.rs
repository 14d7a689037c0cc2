//! A procfs of this process's own PID namespace, mounted nowhere: fsopen(2), fsmount(2), Linux 5.2.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
/// Read-only, no set-uid, no devices, no exec: at least what a container's own `/proc` is held to.
const ATTRIBUTES: libc::c_uint = 0xf;

/// Mounts it on a thread of its own: an ordinary user may do so only in a mount namespace that belongs to the same user
/// namespace, and what this process sees must not change.
///
/// # Errors
/// Where the kernel refuses, as where parts of the mounted `/proc` are covered.
pub(super) fn procfs_of_this_namespace() -> io::Result<OwnedFd> {
    let thread = std::thread::Builder::new().name("mount".to_owned()).spawn(mounted)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread ended early")))
}

fn mounted() -> io::Result<OwnedFd> {
    let context = match opened() {
        Err(Errno::EPERM) => {
            unshare(CloneFlags::CLONE_NEWNS)?;
            opened()?
        }
        opened => opened?,
    };
    let nothing = std::ptr::null::<libc::c_char>();
    // SAFETY: the descriptor is a file system context, and this command takes neither key nor value.
    let created =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, nothing, nothing, 0) };
    Errno::result(created)?;
    // SAFETY: the descriptor is a file system context that has been created; a new descriptor is returned.
    let mount = unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, ATTRIBUTES) };
    Ok(owned(mount)?)
}

fn opened() -> Result<OwnedFd, Errno> {
    // SAFETY: the name is a string of C; a new descriptor is returned.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, c"proc".as_ptr(), FSOPEN_CLOEXEC) })
}

fn owned(returned: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = i32::try_from(Errno::result(returned)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just returned this descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
