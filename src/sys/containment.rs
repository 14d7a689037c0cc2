//! How everything of a job is found, frozen and killed: by a group of its own, or as the front's descendants.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::cgroup::{Group, name_of};
use super::cgroup1::{V1Group, group_of};
use super::clock::{after, is_before, pause};
use super::family::Family;
use super::group_kill::kill_group;
use super::proc;
use super::process::{self, PidFd, reaped_cpu_us};
use super::tree::{self, Member};

/// Between two looks of a kill that has no event to wait for.
const LOOK: Duration = Duration::from_millis(1);

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
        /// The PID namespace in which these numbers name something; an older version did not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid_namespace: Option<u64>,
    },
}

/// What became of a job's containment since it was written down.
#[derive(Debug)]
pub enum Reopened {
    /// It is there, the very one that was written down.
    Found(Containment),
    /// It has gone, with everything in it.
    Gone,
    /// It is named by numbers of a PID namespace that is not this one, or not known: here they mean other processes.
    OutOfSight,
}

impl Reopened {
    /// The containment, if it is there.
    #[must_use]
    pub fn found(self) -> Option<Containment> {
        match self {
            Self::Found(containment) => Some(containment),
            Self::Gone | Self::OutOfSight => None,
        }
    }
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
    /// Everything below the front, which is a subreaper, so that orphans stay below it. After the front's death the keeper ends what
    /// it had seen there, and PDEATHSIG the command; where both die, what the command has left behind cannot be found any more.
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
    ///
    /// # Errors
    /// Where processes cannot be looked at here, or some are below this process that it did not start itself.
    pub fn tree_of_self() -> io::Result<Self> {
        let front = nix::unistd::getpid().as_raw();
        if process::has_children() {
            let why = "processes of the script that became jobmeter (by `exec`) could not be told from the job's: start jobmeter without `exec`";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        proc::prove().map_err(|blind| io::Error::new(io::ErrorKind::Unsupported, blind.to_string()))?;
        let unseen = || io::Error::new(io::ErrorKind::Unsupported, "/proc does not show this process's own stat");
        let start = tree::Stat::read(front).ok_or_else(unseen)?.start;
        Ok(Self::Tree { front, start, before_us: reaped_cpu_us() })
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
            Self::Tree { front, start, before_us } => ContainmentSpec::Tree {
                front: *front,
                start: *start,
                before_us: *before_us,
                pid_namespace: proc::namespace(),
            },
        }
    }

    /// Finds it again.
    ///
    /// # Errors
    /// Where the group cannot be opened for another reason than that it has gone.
    pub fn reopen(spec: &ContainmentSpec) -> io::Result<Reopened> {
        let or_gone = |found: Option<Self>| found.map_or(Reopened::Gone, Reopened::Found);
        match spec {
            ContainmentSpec::Cgroup2 { path, inode } => Ok(or_gone(group_of_inode(path, *inode)?.map(Self::Cgroup2))),
            ContainmentSpec::Attached { path, inode, before_us } => {
                let found = group_of_inode(path, *inode)?;
                Ok(or_gone(found.map(|group| Self::Attached { group, before_us: *before_us })))
            }
            ContainmentSpec::Cgroup1 { freezer, others } => {
                let (freezer, others) = (V1Group::at(freezer), others.iter().map(|path| V1Group::at(path)).collect());
                Ok(or_gone(freezer.exists().then_some(Self::Cgroup1 { freezer, others })))
            }
            // The relay cannot reach its jobs, and names no process.
            ContainmentSpec::Tree { front: ..1, .. } => Ok(Reopened::Gone),
            ContainmentSpec::Tree { front, start, before_us, pid_namespace } => {
                if pid_namespace.is_none() || *pid_namespace != proc::namespace() || proc::prove().is_err() {
                    return Ok(Reopened::OutOfSight);
                }
                let same = tree::Stat::read(*front).is_some_and(|stat| stat.start == *start);
                Ok(or_gone(same.then_some(Self::Tree { front: *front, start: *start, before_us: *before_us })))
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

    /// SIGKILL to everything in it, again and again until nothing of it lives or the time is over: whether nothing does.
    #[must_use]
    pub fn kill(&self, wait_max: Duration) -> bool {
        let until_us = after(wait_max);
        if let Self::Cgroup2(group) | Self::Attached { group, .. } = self {
            return kill_group(group, until_us);
        }
        while self.kill_once() {
            if !is_before(until_us) || self.is_beyond_reach() {
                return false;
            }
            pause(LOOK);
        }
        true
    }

    /// Whether all that lives in it may not be killed from here, so that there is nothing to wait for.
    fn is_beyond_reach(&self) -> bool {
        let living = if nix::unistd::geteuid().is_root() { Vec::new() } else { self.processes() };
        !living.is_empty() && living.into_iter().all(process::is_beyond_reach)
    }

    /// Whether this process has what it takes to look at it: a descriptor, where it is not held open.
    #[must_use]
    pub fn can_be_seen(&self) -> bool {
        !matches!(self, Self::Tree { .. }) || proc::pids().is_ok()
    }

    /// One round of that; whether something lived, or may have.
    fn kill_once(&self) -> bool {
        match self {
            Self::Cgroup2(group) | Self::Attached { group, .. } => tree::kill_listed(&|| group.processes()),
            Self::Cgroup1 { freezer, .. } => {
                // Frozen, nothing can fork between the list and the signal; a v1-frozen task keeps SIGKILL pending until it is
                // thawed (measured).
                freezer.write("freezer.state", "FROZEN").ok();
                let lived = tree::kill_listed(&|| freezer.processes());
                freezer.thaw();
                lived || freezer.is_populated()
            }
            Self::Tree { front, start, .. } => {
                let own = nix::unistd::getpid().as_raw();
                if *front == own && !self.can_be_seen() {
                    return tree::kill_children_of_self();
                }
                let lived = tree::kill_below(*front, *start, own);
                // What forks faster than it can be listed dies of one call, where all that it can reach is this job and
                // jobmeter's own helper for GPUs, which is spared where that can be.
                if lived && *front == 1 && proc::was_opened_by(1) && process::in_own_pid_namespace() {
                    pause(LOOK);
                    if self.is_populated() {
                        kill_everybody();
                    }
                }
                lived
            }
        }
    }

    /// Whether a process is in its groups, as seen from the group that jobmeter is in; `None` where that cannot be told.
    fn holds(&self, pid: i32) -> Option<bool> {
        match self {
            Self::Cgroup2(group) => {
                Some(Path::new(name_of(&proc::read(pid, "cgroup").ok()?)?).starts_with(group.name()?))
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
            // Who has a PID namespace of its own and asks from within is seen by its number here, and who is hidden (hidepid) by the list.
            Self::Cgroup2(group) => {
                let named = if proc::prove().is_ok() { self.holds(pid) } else { None };
                pid > 0 && named.unwrap_or_else(|| group.processes().contains(&pid))
            }
            Self::Cgroup1 { .. } => pid > 0 && self.holds(pid) == Some(true),
            Self::Attached { group, .. } => group.processes().contains(&pid),
            Self::Tree { front, .. } => living(*front).contains(&pid),
        }
    }

    /// The processes of this family that have left it, which only root or the owner of an outer group can do.
    #[must_use]
    pub fn strays(&self, family: Family<'_>) -> Vec<i32> {
        if matches!(self, Self::Attached { .. } | Self::Tree { .. }) {
            return Vec::new();
        }
        let mut pids = family.pids();
        let lives = |pid: i32| tree::Stat::read(pid).is_some_and(|stat| !stat.is_dead());
        pids.retain(|pid| self.holds(*pid) == Some(false) && lives(*pid));
        pids
    }

    /// Moves a stray back, or ends it where that is not permitted. Whether it was one: its number is looked at once more while
    /// the process is held, since it may have come to mean somebody else's.
    #[must_use]
    pub fn recapture(&self, family: Family<'_>, pid: i32) -> bool {
        let Ok(held) = PidFd::open(Pid::from_raw(pid)) else { return false };
        if self.holds(pid) != Some(false) || !family.has(pid) || held.has_ended() {
            return false;
        }
        if !self.take_in(pid) {
            held.kill();
        }
        true
    }

    /// Moves a process into it. Whether that was permitted.
    #[must_use]
    pub fn take_in(&self, pid: i32) -> bool {
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

    /// Sends a signal to each of its processes but `spared`. Each is held before it is looked for again, so that its number is its own. What
    /// may not be signalled could not be without jobmeter either.
    pub fn send_to_all(&self, number: i32, spared: Option<i32>) {
        let hold = |pid: i32| Some((pid, PidFd::open(Pid::from_raw(pid)).ok()?));
        let pids = self.processes().into_iter().filter(|pid| *pid > 0 && Some(*pid) != spared);
        let held: Vec<(i32, PidFd)> = pids.filter_map(hold).collect();
        let still = self.processes();
        for (_, process) in held.iter().filter(|(pid, _)| still.contains(pid)) {
            let _is_sent = process.send(number);
        }
    }

    /// Whether something in it lives.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        match self {
            Self::Cgroup2(group) | Self::Attached { group, .. } => group.is_populated(),
            Self::Cgroup1 { freezer, .. } => freezer.is_populated(),
            Self::Tree { front, .. } => tree::is_populated(*front, nix::unistd::getpid().as_raw()),
        }
    }

    /// Those of it that nothing but their descent from a living front tells; none where a group does.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let own = nix::unistd::getpid().as_raw();
        if let Self::Tree { front, .. } = self { Member::below(*front, own) } else { Vec::new() }
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
    ///
    /// # Errors
    /// Where one is not empty, or may not be removed.
    pub fn remove(&self) -> io::Result<()> {
        match self {
            Self::Cgroup2(group) => group.remove(),
            Self::Cgroup1 { freezer, others } => others.iter().chain([freezer]).try_for_each(V1Group::remove),
            // What comes into it later is somebody else's, and must not stand still.
            Self::Attached { group, .. } => {
                group.thaw().ok();
                Ok(())
            }
            Self::Tree { .. } => Ok(()),
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
    nix::sys::signal::kill(Pid::from_raw(-1), nix::sys::signal::Signal::SIGKILL).ok();
}
