//! Limits that were set for the command (setrlimit(2)) and would otherwise end or starve the meter: the size of a file, of which a
//! write beyond it is SIGXFSZ, and CPU time.

use std::io;

use nix::errno::Errno;

const RAISED: [libc::__rlimit_resource_t; 2] = [libc::RLIMIT_FSIZE, libc::RLIMIT_CPU];

/// What was set, for the command.
#[derive(Clone, Copy, Debug)]
pub struct CommandLimits([Option<libc::rlimit>; 2]);

/// Raises this process's own as far as it may.
#[must_use]
pub fn raise_own() -> CommandLimits {
    CommandLimits(RAISED.map(|resource| {
        let before = of_self(resource).ok()?;
        let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        let hard = libc::rlimit { rlim_cur: before.rlim_max, ..before };
        if before.rlim_cur == libc::RLIM_INFINITY || !(set(resource, &all) || set(resource, &hard)) {
            return None;
        }
        Some(before)
    }))
}

impl CommandLimits {
    /// Sets them in the process of the command: whether that worked. Safe between fork and exec.
    #[must_use]
    pub(super) fn set(&self) -> bool {
        RAISED.iter().zip(&self.0).all(|(resource, limit)| limit.as_ref().is_none_or(|limit| set(*resource, limit)))
    }
}

fn of_self(resource: libc::__rlimit_resource_t) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit outlives the call.
    Errno::result(unsafe { libc::getrlimit(resource, &raw mut limit) })?;
    Ok(limit)
}

fn set(resource: libc::__rlimit_resource_t, limit: &libc::rlimit) -> bool {
    // SAFETY: the limit outlives the call.
    unsafe { libc::setrlimit(resource, std::ptr::from_ref(limit)) == 0 }
}
