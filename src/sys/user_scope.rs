//! A scope of the systemd user manager, with its group delegated to the user.
//!
//! An ordinary user may make no group in a login session, which belongs to root; the user manager lends a group in which
//! they may. The call is systemd's own client's, so that no bus library is carried along for one call.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::cgroup::own_group_path;
use super::clock::{Clock, SystemClock, pause};

/// How long the manager may take to answer, and then to move this process.
const WAIT_MAX_S: u64 = 2;
const LOOK: Duration = Duration::from_millis(1);

/// Whether `group` is a login session's (pam_systemd(8)). From any other group jobmeter does not move away: limits that
/// were set on a service or a scheduler's step would no longer hold.
fn is_login_session(group: &Path) -> bool {
    let is = |path: Option<&Path>, start: &str, end: &str| {
        let name = path.and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(start) && name.ends_with(end)
    };
    is(Some(group), "session-", ".scope") && is(group.parent(), "user-", ".slice")
}

/// Moves this process from a login session into a new delegated scope, below the same user's slice.
///
/// # Errors
/// Where it is in no login session, there is no user manager, or that refuses; for people.
pub fn enter() -> io::Result<()> {
    let before = own_group_path()?;
    if !is_login_session(&before) {
        return Err(io::Error::other(format!("{} is no login session of systemd", before.display())));
    }
    let pid = std::process::id();
    let name = format!("jobmeter-{pid}-{}.scope", SystemClock.boottime_us());
    ask_manager(&name, pid)?;
    // The answer comes when the scope's start is queued.
    let until_us = SystemClock.boottime_us() + WAIT_MAX_S * 1_000_000;
    while !own_group_path().is_ok_and(|group| group.ends_with(&name)) {
        if SystemClock.boottime_us() > until_us {
            return Err(io::Error::other(format!("the user manager did not move this process into {name}")));
        }
        pause(LOOK);
    }
    Ok(())
}

/// `StartTransientUnit` of org.freedesktop.systemd1(5), for a scope that holds this process.
fn ask_manager(name: &str, pid: u32) -> io::Result<()> {
    let called = Command::new("busctl")
        .args(["--user", "--quiet", &format!("--timeout={WAIT_MAX_S}"), "call", "org.freedesktop.systemd1"])
        .args(["/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "StartTransientUnit"])
        .args(["ssa(sv)a(sa(sv))", name, "fail", "4"])
        .args(["Description", "s", "A job under jobmeter", "Delegate", "b", "true"])
        .args(["PIDs", "au", "1", &pid.to_string(), "CollectMode", "s", "inactive-or-failed", "0"])
        .stdin(Stdio::null())
        .output();
    let called = called.map_err(|error| io::Error::other(format!("busctl cannot be run: {error}")))?;
    if called.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&called.stderr);
    Err(io::Error::other(format!("the user manager lends no group: {}", told.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_login_sessions_only() {
        for (group, expected) in [
            ("/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope", true),
            ("/sys/fs/cgroup/user.slice/user-1000.slice/session-c1.scope", true),
            ("/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope", false),
            ("/sys/fs/cgroup/system.slice/slurmstepd.scope/job_1/step_0", false),
            ("/sys/fs/cgroup/system.slice/session-1.scope", false),
            ("/", false),
        ] {
            assert_eq!(is_login_session(Path::new(group)), expected, "{group}");
        }
    }
}
