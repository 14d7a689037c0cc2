//! jobmeter on the real kernel: groups of both versions and none, kills, freezes, faults and terminals. Serial, since
//! the figures are those of the whole machine. Needs root and cgroups: without them each test says what it skipped, and
//! with `REQUIRE_KERNEL=1` it fails instead.

#![allow(
    clippy::pedantic,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a test, not an interface"
)]

mod attach;
mod clocks;
mod exact;
mod hostile;
mod lost;
mod places;
#[path = "../station.rs"]
mod station;
mod systemd;
mod terminal;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the v2 hierarchy is, if this machine lets its groups be made.
#[must_use]
pub fn v2() -> Option<PathBuf> {
    let path = jobmeter::sys::cgroup::own_group_path().ok()?;
    let usable = nix::unistd::geteuid().is_root() && path.join("cgroup.procs").exists();
    if !usable {
        let required = std::env::var_os("REQUIRE_KERNEL").is_some();
        assert!(!required, "REQUIRE_KERNEL is set, but no group can be made below {}", path.display());
        println!("skipped: no group can be made below {} (root and cgroup v2 are needed)", path.display());
        return None;
    }
    Some(path)
}

/// One at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A group that the test makes around jobmeter, and which goes with the test.
pub struct Around(pub PathBuf);

impl Around {
    #[must_use]
    pub fn new(parent: &std::path::Path, name: &str) -> Self {
        let path = parent.join(format!("test-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    /// A shell line that moves itself into the group and becomes jobmeter.
    #[must_use]
    pub fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs; exec $JOBMETER", self.0.display())
    }
}

impl Drop for Around {
    fn drop(&mut self) {
        let below = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        for entry in below.filter(|entry| entry.path().is_dir()) {
            std::fs::remove_dir(entry.path()).ok();
        }
        std::fs::remove_dir(&self.0).ok();
    }
}
