//! How everything of a job is found, frozen and killed: by a group of its own, or as the front's descendants.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cgroup::{Group, Waited};
use super::cgroup1::{V1Group, group_of};
use super::clock::{Clock, SystemClock, pause};
use super::process::{self, reaped_cpu_us};
use super::tree;

/// Between two looks of a kill that has no event to wait for.
const LOOK: Duration = Duration::from_millis(1);
/// A kill without `cgroup.kill` goes on for at most this; what forks faster than that is reported.
const KILL_MAX_US: u64 = 5_000_000;
/// One look for strays reads the groups of no more processes.
const STRAYS_LOOKED_AT_MAX: usize = 1_024;

/// What must be known to find a job again after jobmeter was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainmentSpec {
    /// A cgroup v2; with the boot id, path and inode name it for ever.
    Cgroup2 {
        /// Its directory.
        path: PathBuf,
        /// Of that directory.
        inode: u64,
    },
    /// A cgroup v2 that something else made.
    Attached {
        /// Its directory.
        path: PathBuf,
        /// Of that directory.
        inode: u64,
        /// What had been burned in it before, in µs.
        before_us: u64,
    },
    /// Groups of cgroup v1.
    Cgroup1 {
        /// Freezer.
        freezer: PathBuf,
        /// All others.
        others: Vec<PathBuf>,
    },
    /// The descendants of the front.
    Tree {
        /// Its process id.
        front: i32,
        /// Its start, in ticks since boot.
        start: u64,
        /// CPU time of children that its process had before it became jobmeter (a script that ends with `exec`), in µs.
        #[serde(default)]
        before_us: u64,
    },
}

/// What holds a job.
#[derive(Debug)]
pub enum Containment {
    /// A group of its own, or the subtree's top where the job may move itself within the subtree.
    Cgroup2(Group),
    /// A group that something else made, and that is left where it is.
    Attached {
        /// Which.
        group: Group,
        /// What had been burned in it before, in µs.
        before_us: u64,
    },
    /// A v1 freezer, and the groups that go with it.
    Cgroup1 {
        /// Freezes and finds.
        freezer: V1Group,
        /// Go at the end.
        others: Vec<V1Group>,
    },
    /// Everything below the front, which is a subreaper, so that orphans stay below it. After the front's death they
    /// cannot be found any more; PDEATHSIG then ends at least the command itself.
    Tree {
        /// Its process id.
        front: i32,
        /// Its start, in ticks since boot.
        start: u64,
        /// CPU time of children that its process had before it became jobmeter (a script that ends with `exec`), in µs.
        before_us: u64,
    },
}

impl Containment {
    /// All descendants of this process, which must be the front.
    #[must_use]
    pub fn tree_of_self() -> Self {
        let front = nix::unistd::getpid().as_raw();
        let start = tree::Stat::read(front).map_or(0, |stat| stat.start);
        Self::Tree { front, start, before_us: reaped_cpu_us() }
    }

    /// For the spool.
    #[must_use]
    pub fn spec(&self) -> ContainmentSpec {
        match self {
            Self::Cgroup2(group) => {
                ContainmentSpec::Cgroup2 { path: group.path().to_owned(), inode: group.inode().unwrap_or(0) }
            }
            Self::Attached { group, before_us } => ContainmentSpec::Attached {
                path: group.path().to_owned(),
                inode: group.inode().unwrap_or(0),
                before_us: *before_us,
            },
            Self::Cgroup1 { freezer, others } => ContainmentSpec::Cgroup1 {
                freezer: freezer.path().to_owned(),
                others: others.iter().map(|group| group.path().to_owned()).collect(),
            },
            Self::Tree { front, start, before_us } => {
                ContainmentSpec::Tree { front: *front, start: *start, before_us: *before_us }
            }
        }
    }

    /// Finds it again; `None` where it has gone.
    ///
    /// # Errors
    /// Where the group cannot be opened for another reason.
    pub fn reopen(spec: &ContainmentSpec) -> io::Result<Option<Self>> {
        match spec {
            ContainmentSpec::Cgroup2 { path, inode } => Ok(group_of_inode(path, *inode)?.map(Self::Cgroup2)),
            ContainmentSpec::Attached { path, inode, before_us } => {
                let found = group_of_inode(path, *inode)?;
                Ok(found.map(|group| Self::Attached { group, before_us: *before_us }))
            }
            ContainmentSpec::Cgroup1 { freezer, others } => {
                let (freezer, others) = (V1Group::at(freezer), others.iter().map(|path| V1Group::at(path)).collect());
                Ok(freezer.exists().then_some(Self::Cgroup1 { freezer, others }))
            }
            ContainmentSpec::Tree { front, start, before_us } => {
                let same = tree::Stat::read(*front).is_some_and(|stat| stat.start == *start);
                Ok(same.then_some(Self::Tree { front: *front, start: *start, before_us: *before_us }))
            }
        }
    }

    /// Whether the job can be frozen at its ceiling.
    #[must_use]
    pub fn can_hold(&self) -> bool {
        match self {
            Self::Cgroup2(_) | Self::Cgroup1 { .. } => true,
            Self::Attached { group, .. } => group.may_be_frozen(),
            Self::Tree { .. } => false,
        }
    }

    /// Freezes, and waits for it at most that long. A process inside one long system call cannot be frozen in time
    /// (measured: 1.6 s in one population of 3 GiB), and the caller reads and kills all the same.
    pub fn freeze(&self, wait_max: Duration) {
        match self {
            Self::Cgroup2(group) | Self::Attached { group, .. } => {
                group.freeze(wait_max).ok();
            }
            Self::Cgroup1 { freezer, .. } => {
                freezer.write("freezer.state", "FROZEN").ok();
                let until_us = after(wait_max);
                while !freezer.read("freezer.state").is_ok_and(|state| state.trim() == "FROZEN") && is_before(until_us)
                {
                    pause(LOOK);
                }
            }
            // SIGSTOP is no freeze: parents see it, and the job's own processes can undo it.
            Self::Tree { .. } => {}
        }
    }

    /// Lets it run on.
    pub fn thaw(&self) {
        match self {
            Self::Cgroup2(group) | Self::Attached { group, .. } => {
                group.thaw().ok();
            }
            Self::Cgroup1 { freezer, .. } => freezer.thaw(),
            Self::Tree { .. } => {}
        }
    }

    /// SIGKILL to everything in it.
    pub fn kill(&self) {
        match self {
            Self::Cgroup2(group) | Self::Attached { group, .. } => {
                thaw_foreign_freezers(&group.processes());
                if group.kill().is_err() {
                    // Before Linux 5.14 there is no cgroup.kill, and in a container it cannot be written; frozen tasks of v2 die of SIGKILL all the same.
                    kill_all(&|| group.processes());
                }
            }
            Self::Cgroup1 { freezer, .. } => {
                let until_us = SystemClock.boottime_us().saturating_add(KILL_MAX_US);
                while !freezer.processes().is_empty() && is_before(until_us) {
                    // Frozen, nothing can fork between the list and the signal; a v1-frozen task keeps SIGKILL pending
                    // until it is thawed (measured).
                    freezer.write("freezer.state", "FROZEN").ok();
                    freezer.processes().into_iter().for_each(tree::kill_process);
                    freezer.thaw();
                    pause(LOOK);
                }
            }
            Self::Tree { front, .. } => {
                let living = || living(*front);
                if *front == 1 && process::in_own_pid_namespace() {
                    living().into_iter().for_each(tree::kill_process);
                    pause(LOOK);
                    // What forks faster than it can be listed dies of one call, where all that it can reach is this job
                    // and jobmeter's own helper for GPUs, which is spared where that can be.
                    if !living().is_empty() {
                        kill_everybody();
                    }
                }
                kill_all(&living);
            }
        }
    }

    /// Whether a process is in its groups, as seen from the group that jobmeter is in; `None` where that cannot be told.
    fn holds(&self, pid: i32) -> Option<bool> {
        match self {
            Self::Cgroup2(group) => {
                let top = PathBuf::from(group2_of("self")?).join(group.path().file_name()?);
                Some(Path::new(&group2_of(&pid.to_string())?).starts_with(top))
            }
            // Either can be left without the other: one meters, one ends.
            Self::Cgroup1 { freezer, others } => {
                let is_in =
                    |group: &V1Group, controller| Some(group_of(pid, controller)?.path().starts_with(group.path()));
                let metered = others.iter().try_fold(true, |all, group| Some(is_in(group, "cpuacct")? && all))?;
                Some(is_in(freezer, "freezer")? && metered)
            }
            Self::Attached { .. } | Self::Tree { .. } => None,
        }
    }

    /// Whether a process is of the job, for certain.
    #[must_use]
    pub fn contains(&self, pid: i32) -> bool {
        match self {
            Self::Cgroup2(_) | Self::Cgroup1 { .. } => pid > 0 && self.holds(pid) == Some(true),
            Self::Attached { group, .. } => group.processes().contains(&pid),
            Self::Tree { front, .. } => living(*front).contains(&pid),
        }
    }

    /// The front's descendants that have left it, which only root or the owner of an outer group can do.
    #[must_use]
    pub fn strays(&self, front: i32) -> Vec<i32> {
        if matches!(self, Self::Attached { .. } | Self::Tree { .. }) {
            return Vec::new();
        }
        let own = nix::unistd::getpid().as_raw();
        let mut pids = tree::descendant_pids(front, own, STRAYS_LOOKED_AT_MAX);
        let lives = |pid: i32| tree::Stat::read(pid).is_some_and(|stat| !stat.is_dead());
        pids.retain(|pid| self.holds(*pid) == Some(false) && lives(*pid));
        pids
    }

    /// Moves a stray back; whether that worked.
    #[must_use]
    pub fn recapture(&self, pid: i32) -> bool {
        match self {
            Self::Cgroup2(group) => {
                // The inner group takes processes even where the job has enabled controllers for the outer one.
                let inner = Group::open(&group.path().join("job"));
                inner.is_ok_and(|inner| inner.join(pid).is_ok()) || group.join(pid).is_ok()
            }
            Self::Cgroup1 { freezer, others } => {
                others.iter().chain([freezer]).all(|group| group.write("cgroup.procs", &pid.to_string()).is_ok())
            }
            Self::Attached { .. } | Self::Tree { .. } => false,
        }
    }

    /// Whether something in it lives.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        match self {
            Self::Cgroup2(group) | Self::Attached { group, .. } => group.is_populated(),
            Self::Cgroup1 { .. } | Self::Tree { .. } => !self.processes().is_empty(),
        }
    }

    /// Waits until nothing in it lives: whether that came in time.
    #[must_use]
    pub fn wait_empty(&self, wait_max: Duration) -> bool {
        if let Self::Cgroup2(group) | Self::Attached { group, .. } = self {
            // A group that has gone has nothing in it.
            return group.wait_empty(wait_max).map_or(true, |waited| waited == Waited::Reached);
        }
        let until_us = after(wait_max);
        while self.is_populated() {
            if !is_before(until_us) || self.is_beyond_reach() {
                return false;
            }
            pause(LOOK);
        }
        true
    }

    /// Whether all that lives in it may not be killed from here, so that there is nothing to wait for.
    fn is_beyond_reach(&self) -> bool {
        let living = self.processes();
        !living.is_empty() && living.into_iter().all(process::is_beyond_reach)
    }

    /// What lives in it.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        match self {
            Self::Cgroup2(group) | Self::Attached { group, .. } => group.processes(),
            Self::Cgroup1 { freezer, .. } => freezer.processes(),
            Self::Tree { front, .. } => living(*front),
        }
    }

    /// Removes its groups, which must be empty; another's is left as it was.
    pub fn remove(&self) {
        match self {
            Self::Cgroup2(group) => {
                group.remove().ok();
            }
            Self::Cgroup1 { freezer, others } => {
                for group in others.iter().chain([freezer]) {
                    group.remove().ok();
                }
            }
            // What comes into it later is somebody else's, and must not stand still.
            Self::Attached { group, .. } => {
                group.thaw().ok();
            }
            Self::Tree { .. } => {}
        }
    }
}

/// The group at this place, if it is this one.
fn group_of_inode(path: &Path, inode: u64) -> io::Result<Option<Group>> {
    match Group::open(path) {
        Ok(group) => Ok((group.inode()? == inode).then_some(group)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The keeper is a child of the front as well, and is no part of the job.
fn living(front: i32) -> Vec<i32> {
    let own = nix::unistd::getpid().as_raw();
    tree::living(front, own).into_iter().filter(|pid| *pid != own).collect()
}

/// Everything in this PID namespace but its first process and the caller (kill(2)).
fn kill_everybody() {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(-1), nix::sys::signal::Signal::SIGKILL).ok();
}

fn kill_all(processes: &dyn Fn() -> Vec<i32>) {
    let until_us = SystemClock.boottime_us().saturating_add(KILL_MAX_US);
    loop {
        let left = processes();
        if left.iter().all(|pid| process::is_beyond_reach(*pid)) || !is_before(until_us) {
            return;
        }
        left.into_iter().for_each(tree::kill_process);
        pause(LOOK);
    }
}

/// A job may have put its processes into a v1 freezer of its own and frozen that: SIGKILL would stay pending.
fn thaw_foreign_freezers(processes: &[i32]) {
    let own = super::cgroup1::own_group("freezer").ok();
    let Some(own) = own else { return };
    for group in processes.iter().filter_map(|pid| group_of(*pid, "freezer")) {
        if group != own {
            group.thaw();
        }
    }
}

/// The v2 group of a process, as `/proc/PID/cgroup` names it.
fn group2_of(pid: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

fn after(wait: Duration) -> u64 {
    SystemClock.boottime_us().saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX))
}

fn is_before(until_us: u64) -> bool {
    SystemClock.boottime_us() < until_us
}
