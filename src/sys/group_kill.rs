//! The end of everything in a cgroup v2.

use std::time::Duration;

use super::cgroup::{Group, Waited};
use super::cgroup1::{group_of_held, own_group};
use super::clock::is_before;
use super::proc::Process;
use super::tree;

/// Between two rounds of a kill whose end is an event.
const KILL_STEP_MIN: Duration = Duration::from_millis(5);
/// Later rounds are as far apart: what has not died yet gives back its memory, or never dies.
const KILL_STEP_MAX: Duration = Duration::from_millis(80);

/// `cgroup.kill` reaches forks under way, and frozen ones. What it leaves is killed one by one: a process whose first thread has
/// ended (Linux 6.18), and everything where the file is missing (before Linux 5.14) or cannot be written (in a container).
pub(super) fn kill_group(group: &Group, until_us: u64) -> bool {
    let mut step = KILL_STEP_MIN;
    loop {
        thaw_foreign_freezers(group);
        let is_empty = |wait: Duration| group.wait_empty(wait).is_ok_and(|waited| waited == Waited::Reached);
        let written = group.kill().is_ok();
        if written && is_empty(step) {
            return true;
        }
        let _is_named = tree::kill_listed(&|| group.processes());
        if is_empty(step) {
            return true;
        }
        if !is_before(until_us) {
            return false;
        }
        step = (step * 2).min(KILL_STEP_MAX);
    }
}

/// A job may have put its processes into a v1 freezer of its own and frozen that: SIGKILL would stay pending.
fn thaw_foreign_freezers(group: &Group) {
    let Ok(own) = own_group("freezer") else { return };
    for pid in group.processes() {
        let Ok(process) = Process::hold(pid) else { continue };
        let Some(freezer) = group_of_held(&process, "freezer").filter(|freezer| *freezer != own) else { continue };
        // Named again while it is held, and still there: it is of the job.
        if group.processes().contains(&pid) && process.read("stat").is_ok() {
            freezer.thaw();
        }
    }
}
