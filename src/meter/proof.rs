//! The self-test of the kill path: on a throw-away group, and once per boot and parent group. Enforcement that is
//! silently inert is the worst failure of this field.

use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};

use crate::sys::cgroup::{Group, Waited};
use crate::sys::process::{boot_id, exit_now, fork};

const WAIT_MAX: Duration = Duration::from_secs(1);

/// Proves that a process in a new group below `parent` is counted, freezes and dies; from the cache where it was proved
/// before on this boot.
///
/// # Errors
/// With what did not work, for people.
pub fn prove_kill_cached(parent: &Group) -> Result<(), String> {
    let proved = format!("{} {}", boot_id(), parent.inode().unwrap_or(0));
    let cache = cache_path();
    let is_ours = std::fs::symlink_metadata(&cache)
        .is_ok_and(|meta| meta.is_file() && meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o022 == 0);
    if is_ours && std::fs::read_to_string(&cache).is_ok_and(|text| text.lines().any(|line| line == proved)) {
        return Ok(());
    }
    prove_kill(parent)?;
    // A cache that cannot be written costs the next start some milliseconds, and nothing else.
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
    if let Ok(mut file) = options.open(&cache) {
        io::Write::write_all(&mut file, format!("{proved}\n").as_bytes()).ok();
    }
    Ok(())
}

fn cache_path() -> PathBuf {
    let root = nix::unistd::geteuid().is_root();
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !root).map(PathBuf::from);
    let uid = nix::unistd::geteuid();
    match own {
        Some(directory) => directory.join("jobmeter-proved"),
        None if root => PathBuf::from("/run/jobmeter-proved"),
        None => std::env::temp_dir().join(format!("jobmeter-proved-{uid}")),
    }
}

/// Proves it now.
///
/// # Errors
/// With what did not work, for people.
pub fn prove_kill(parent: &Group) -> Result<(), String> {
    let below = |what: &str, error: io::Error| format!("{what} below {}: {error}", parent.path().display());
    let group = parent
        .create_below(&format!("jobmeter-proof-{}", std::process::id()))
        .map_err(|error| below("no group can be made", error))?;
    let proved = prove_on(&group);
    group.remove().ok();
    proved
}

fn prove_on(group: &Group) -> Result<(), String> {
    let told = |what: &'static str| move |error: io::Error| format!("{what} {}: {error}", group.path().display());
    let parent = nix::unistd::getpid();
    let child = fork().map_err(|error| format!("no process can be made: {error}"))?;
    let Some(child) = child else {
        // Nothing is left of it where who makes this proof dies.
        if set_pdeathsig(Signal::SIGKILL).is_err() || nix::unistd::getppid() != parent {
            exit_now(1);
        }
        loop {
            nix::unistd::pause();
        }
    };
    let result = (|| {
        group.join(child.as_raw()).map_err(told("no process can be put into"))?;
        let frozen = group.freeze(WAIT_MAX).map_err(told("cannot freeze"))?;
        if frozen != Waited::Reached {
            return Err(format!("{} does not freeze", group.path().display()));
        }
        group.kill().map_err(told("cannot kill (cgroup.kill needs Linux 5.14)"))?;
        Ok(())
    })();
    if result.is_err() {
        kill(child, Signal::SIGKILL).ok();
        group.thaw().ok();
    }
    let status = waitpid(child, None);
    result?;
    match status {
        Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) => Ok(()),
        other => Err(format!("a killed process of {} ended with {other:?}", group.path().display())),
    }
}
