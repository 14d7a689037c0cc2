//! jobmeter on the real kernel: groups of both versions and none, kills, freezes, faults and terminals. One after the
//! other, since some of them are the machine's. What is measured is compared with what the kernel or the job itself counted in
//! the same run, so that it may be busy with something else. Needs root and cgroups: without them each test says what it skipped, and
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
mod endings;
mod exact;
mod gpus;
mod grace;
mod hostile;
mod lost;
mod namespaces;
#[path = "../nvml.rs"]
mod nvml;
mod places;
mod signals;
mod sources;
#[path = "../station.rs"]
mod station;
mod systemd;
mod terminal;
mod trust;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jobmeter::sys::cgroup1::V1Group;

/// Where the v2 hierarchy is, if this machine lets its groups be made.
#[must_use]
pub fn v2() -> Option<PathBuf> {
    let path = jobmeter::sys::cgroup::own_group_path();
    let usable = |path: &PathBuf| nix::unistd::geteuid().is_root() && path.join("cgroup.procs").exists();
    let found = path.as_ref().ok().filter(|path| usable(path)).cloned();
    if found.is_none() {
        let place = path.map_or_else(|error| error.to_string(), |path| path.display().to_string());
        station::skip(&format!("no group can be made below {place} (root and cgroup v2 are needed)"));
    }
    found
}

/// The group of version 1 that the tests are in; new machines have none.
#[must_use]
pub fn v1(controller: &str) -> Option<V1Group> {
    let group = jobmeter::sys::cgroup1::own_group(controller).ok();
    if group.is_none() {
        station::skip_optional(&format!("there is no cgroup v1 with the controller {controller}"));
    }
    group
}

/// Those of these sources that are here.
#[must_use]
pub fn present<const N: usize>(sources: [&'static str; N]) -> Vec<&'static str> {
    let is_here = |source: &&str| *source != "cgroup1" || v1("cpuacct").is_some();
    sources.into_iter().filter(is_here).collect()
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
    pub fn new(parent: &Path, name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("test-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        station::janitor::takes(&path);
        Self(path)
    }

    /// A shell line that moves itself into the group and becomes jobmeter.
    #[must_use]
    pub fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs; exec $JOBMETER", self.0.display())
    }

    /// What the kernel has counted in it.
    #[must_use]
    pub fn cpu_us(&self) -> u64 {
        let text = std::fs::read_to_string(self.0.join("cpu.stat")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse().unwrap()
    }

    /// Waits until so much has been burned in it, however long that takes.
    pub fn await_cpu_us(&self, us: u64) {
        station::awaited(|| {
            let burned_us = self.cpu_us();
            if burned_us >= us { Ok(()) } else { Err(format!("{burned_us} of {us} µs were burned")) }
        });
    }

    /// Of itself, not of groups below it.
    #[must_use]
    pub fn processes(&self) -> String {
        std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap()
    }
}

impl Drop for Around {
    fn drop(&mut self) {
        // Where that does not take it away, somebody is in it still.
        std::fs::remove_dir(&self.0).ok();
        if self.0.exists() {
            station::janitor::clean(&self.0);
        }
    }
}
