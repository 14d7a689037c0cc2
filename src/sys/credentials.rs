//! As whom the command runs, where it is not who started jobmeter.

use std::os::fd::RawFd;

/// As whom the command runs; groups were resolved before.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

/// By raw system calls, since glibc's wrappers signal all threads through locks. The order matters: groups, gid, uid. Where it
/// fails, errno says why.
///
/// # Safety
/// Only in a child of a single-threaded process.
pub(super) unsafe fn set_ids(credentials: &Credentials) -> bool {
    let (gid, uid) = (credentials.gid, credentials.uid);
    // SAFETY: raw system calls on memory that outlives them.
    unsafe {
        libc::syscall(libc::SYS_setgroups, credentials.groups.len(), credentials.groups.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
            && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0
    }
}

/// With the last of root's ids the kernel takes the capabilities away (capabilities(7)), all but the inheritable ones, unless a
/// parent has said otherwise; here they go in any case.
///
/// # Safety
/// Only in a child of a single-threaded process, between clone and exec.
pub(super) unsafe fn become_user(credentials: &Credentials, may_gain_privileges: bool) -> bool {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let none = [0_u32; 6];
    // SAFETY: raw system calls on memory that the parent made, or that is on this stack.
    unsafe {
        // A child of a fork leads no group, so that it can leave the session.
        if libc::setsid() < 0 || !set_ids(credentials) {
            return false;
        }
        let stays_root = credentials.uid == 0;
        if !stays_root
            && (libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0
                || libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) != 0
                || (!may_gain_privileges && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0))
        {
            return false;
        }
        // Until the exec its memory is root's, whatever the machine says of changes of users (fs.suid_dumpable).
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        // What the meter's parent has left open is none of this user's business.
        if libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) != 0 {
            // Before Linux 5.11.
            for number in 3..OPEN_FILES_MAX {
                libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        true
    }
}

/// Where they cannot be closed all at once: no machine lets more be open (fs.nr_open is 1 048 576 at first).
const OPEN_FILES_MAX: RawFd = 1 << 20;

/// The only one in use: `_LINUX_CAPABILITY_VERSION_3` (linux/capability.h).
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Whose capabilities are set: `struct __user_cap_header_struct` (linux/capability.h).
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}
