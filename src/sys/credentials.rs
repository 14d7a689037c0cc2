//! As whom the command runs, where it is not who started jobmeter; and as whom a meter of root's goes on.

use std::io;

use nix::errno::Errno;

use super::process::forbid_tracing;
use super::process::keep_files_from_programs;

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
        keep_files_from_programs();
        true
    }
}

/// Gives up root for good, but for the right to signal everybody: a meter has to end what runs as another user. Nothing that it
/// starts can get more than it has.
///
/// # Errors
/// Where the kernel refuses; this process is to end then. The caller has one thread.
pub fn keep_the_right_to_kill(credentials: &Credentials) -> io::Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    // Effective, permitted, inheritable of the first 32, and then of the others.
    let kept = [CAP_KILL, CAP_KILL, 0, 0, 0, 0];
    // SAFETY: raw system calls on memory that outlives them, in a process with one thread.
    let became = unsafe {
        libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0
            && set_ids(credentials)
            && libc::syscall(libc::SYS_capset, &raw const header, kept.as_ptr()) == 0
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    };
    if !became {
        return Err(Errno::last().into());
    }
    // The change of user has reset it to what the machine says (fs.suid_dumpable).
    forbid_tracing()
}

/// CAP_KILL is number 5 (linux/capability.h).
const CAP_KILL: u32 = 1 << 5;

/// The only one in use: `_LINUX_CAPABILITY_VERSION_3` (linux/capability.h).
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Whose capabilities are set: `struct __user_cap_header_struct` (linux/capability.h).
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}
