//! The descendants of a process, by `/proc`: what is left where no group can be made.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::proc::{self, Process};
use super::process::{PidFd, cpu_us_of};

/// What dies is held while it is looked at once more: so many at a time, since each takes a descriptor.
const HELD_MAX: usize = 64;
/// No process of a job has more ancestors in it than are followed.
const DEPTH_MAX: usize = 4_096;
/// The state letter of a process that lives and is hidden.
const HIDDEN: char = '?';

/// µs of one clock tick of `/proc` and `cpuacct.stat` (USER_HZ is 100 on every architecture that Linux runs on today).
pub const TICK_US: u64 = 10_000;

/// What `/proc/PID/stat` says of a process; times in clock ticks (100 a second, proc(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Process id.
    pub pid: i32,
    /// Parent.
    pub parent: i32,
    /// Name, at most 15 bytes.
    pub command: String,
    /// State letter.
    pub state: char,
    /// Start, in ticks since boot; with the pid it names a process for ever.
    pub start: u64,
    /// utime.
    pub user: u64,
    /// stime.
    pub system: u64,
    /// cutime: of children that were waited for.
    pub children_user: u64,
    /// cstime.
    pub children_system: u64,
    /// How many threads it has, its first one included even where that has ended.
    pub threads: u64,
}

impl Stat {
    /// Reads the line; `None` where it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.rsplit_once(") ")?;
        let (pid, command) = head.split_once(" (")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.trim().parse::<u64>().ok());
        Some(Self {
            pid: pid.parse().ok()?,
            parent: fields.get(1)?.parse().ok()?,
            command: command.to_owned(),
            state: fields.first()?.chars().next()?,
            start: number(19)?,
            user: number(11)?,
            system: number(12)?,
            children_user: number(13)?,
            children_system: number(14)?,
            threads: number(17)?,
        })
    }

    /// Of a process; `None` once it has gone.
    #[must_use]
    pub fn read(pid: i32) -> Option<Self> {
        Self::parse(&proc::read(pid, "stat").ok()?)
    }

    /// Of a child, also where `/proc` hides it; `None` once it has gone.
    #[must_use]
    pub fn of_child(pid: i32, parent: i32) -> Option<Self> {
        Self::read(pid).or_else(|| proc::hides().then(|| Self::of_hidden(pid, parent)).flatten())
    }

    /// Of one that `/proc` hides: whether it lives and what it burned itself is known all the same.
    fn of_hidden(pid: i32, parent: i32) -> Option<Self> {
        let has_ended = PidFd::open(Pid::from_raw(pid)).ok()?.has_ended();
        Some(Self {
            pid,
            parent,
            command: String::new(),
            state: if has_ended { 'Z' } else { HIDDEN },
            start: 0,
            user: cpu_us_of(Pid::from_raw(pid)) / TICK_US,
            system: 0,
            children_user: 0,
            children_system: 0,
            threads: 1,
        })
    }

    /// All of its threads have ended. One whose first thread has ended is shown as a zombie while the others run.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }
}

/// All processes below `root` but `except` and what is below that, dead ones that nobody waited for included.
#[must_use]
pub fn descendants(root: i32, except: i32) -> Vec<Stat> {
    seen_below(root, except).unwrap_or_default()
}

fn seen_below(root: i32, except: i32) -> io::Result<Vec<Stat>> {
    let mut by_parent: BTreeMap<i32, Vec<Stat>> = BTreeMap::new();
    for stat in proc::pids()?.into_iter().filter_map(Stat::read) {
        by_parent.entry(stat.parent).or_default().push(stat);
    }
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        let mut children = by_parent.remove(&parent).unwrap_or_default();
        if proc::hides() {
            let hidden = hidden_children(parent, &children);
            children.extend(hidden);
        }
        for stat in children {
            if stat.pid != except {
                parents.push(stat.pid);
                found.push(stat);
            }
        }
    }
    Ok(found)
}

/// Whether one of them lives, or none can be looked at.
#[must_use]
pub fn is_populated(root: i32, except: i32) -> bool {
    seen_below(root, except).map_or(true, |found| found.iter().any(|stat| !stat.is_dead()))
}

/// Those that the list of all processes lacks.
fn hidden_children(parent: i32, known: &[Stat]) -> Vec<Stat> {
    let all = proc::children(parent).unwrap_or_default().into_iter();
    let unknown = all.filter(|pid| known.iter().all(|stat| stat.pid != *pid));
    unknown.filter_map(|pid| Stat::of_child(pid, parent)).collect()
}

/// Those of them that live.
#[must_use]
pub fn living(root: i32, except: i32) -> Vec<i32> {
    descendants(root, except).iter().filter(|stat| !stat.is_dead()).map(|stat| stat.pid).collect()
}

/// The process ids of [`descendants`], at a cost that grows with them and not with the machine: at most `count_max`.
#[must_use]
pub fn descendant_pids(root: i32, except: i32, count_max: usize) -> Vec<i32> {
    children_below(root, except, count_max).into_iter().map(|(pid, _)| pid).collect()
}

/// The same, each with the parent that named it: parents come before their children.
#[must_use]
pub fn children_below(root: i32, except: i32, count_max: usize) -> Vec<(i32, i32)> {
    let Ok(first) = proc::children(root) else {
        return descendants(root, except).iter().map(|stat| (stat.pid, stat.parent)).take(count_max).collect();
    };
    let mut found: Vec<_> = first.into_iter().filter(|pid| *pid != except).map(|pid| (pid, root)).collect();
    let mut at = 0;
    while let Some((parent, _)) = found.get(at).copied().filter(|_| found.len() < count_max) {
        found.extend(proc::children(parent).unwrap_or_default().into_iter().map(|pid| (pid, parent)));
        at += 1;
    }
    found
}

/// Whether a process is below `root`, with `except` nowhere between. The caller holds the process, and `root` lives: each parent
/// is held as well and named twice, so that no number on the way has come to mean another process.
#[must_use]
pub fn is_below(root: i32, except: i32, pid: i32) -> bool {
    let parent_of = |process: &Process| Some(Stat::parse(&process.read("stat").ok()?)?.parent);
    let climb = || {
        let (mut at, mut process) = (pid, Process::hold(pid).ok()?);
        for _ in 0..DEPTH_MAX {
            let parent = parent_of(&process)?;
            if at == except || parent == root || parent < 1 {
                return Some(at != except && parent == root);
            }
            let above = Process::hold(parent).ok()?;
            if parent_of(&process)? != parent {
                return None;
            }
            (at, process) = (parent, above);
        }
        None
    };
    climb().unwrap_or(false)
}

/// The same of a process that may be hidden, which then its parent names.
fn belongs(root: i32, except: i32, stat: &Stat) -> bool {
    if stat.state != HIDDEN {
        return is_below(root, except, stat.pid);
    }
    let is_named = || proc::children(stat.parent).is_ok_and(|children| children.contains(&stat.pid));
    is_named() && stat.pid != except && (stat.parent == root || (is_below(root, except, stat.parent) && is_named()))
}

/// SIGKILL to everything that lives below `root`, once; whether there was something, or may have been. It began at `start`.
#[must_use]
pub fn kill_below(root: i32, start: u64, except: i32) -> bool {
    let Ok(mut living) = seen_below(root, except) else { return true };
    living.retain(|stat| !stat.is_dead());
    let is_root = || Stat::read(root).is_some_and(|stat| stat.start == start);
    for some in living.chunks(HELD_MAX) {
        let held: Vec<_> =
            some.iter().filter_map(|stat| Some((stat, PidFd::open(Pid::from_raw(stat.pid)).ok()?))).collect();
        let held: Vec<_> = held.into_iter().filter(|(stat, _)| belongs(root, except, stat)).collect();
        // What was below it while it lived was below this very process.
        if is_root() {
            for (_, process) in &held {
                process.kill();
            }
        }
    }
    !living.is_empty()
}

/// A process that was seen below a front, named for as long as this PID namespace and this boot last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pid: i32,
    start: u64,
}

impl Member {
    /// Those that live below `root` now, but for `except` and what is below that.
    #[must_use]
    pub fn below(root: i32, except: i32) -> Vec<Self> {
        let pids = descendant_pids(root, except, usize::MAX).into_iter();
        pids.filter_map(Stat::read).filter(|stat| !stat.is_dead()).map(|stat| Self::of(&stat)).collect()
    }

    const fn of(stat: &Stat) -> Self {
        Self { pid: stat.pid, start: stat.start }
    }

    /// Its number, which is somebody else's once it does not live.
    #[must_use]
    pub const fn pid(self) -> i32 {
        self.pid
    }

    /// Whether it lives, and not somebody else by its number.
    #[must_use]
    pub fn lives(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| Self::of(&stat) == self && !stat.is_dead())
    }

    /// SIGKILL to what lives below it, or else to itself: what is above dies last, so that nobody's children become those of a process
    /// outside.
    pub fn kill(self, except: i32) {
        if kill_below(self.pid, self.start, except) {
            return;
        }
        if let Ok(held) = PidFd::open(Pid::from_raw(self.pid))
            && self.lives()
        {
            held.kill();
        }
    }
}

/// SIGKILL to the children of this process, which takes no descriptor, and waits for those that have ended: whether there were any.
/// What a child leaves comes to this process, a subreaper, and is its child then. No number can be another's before it is waited for.
#[must_use]
pub fn kill_children_of_self() -> bool {
    let children = proc::children(nix::unistd::getpid().as_raw()).unwrap_or_default();
    for pid in children.into_iter().map(Pid::from_raw) {
        kill(pid, Signal::SIGKILL).ok();
        waitpid(pid, Some(WaitPidFlag::WNOHANG)).ok();
    }
    waitpid(None, Some(WaitPidFlag::WNOHANG)) != Err(Errno::ECHILD)
}

/// SIGKILL to everything that `list` names, once; whether it named something. What is not named again once it is held has gone, or
/// left, and its number may be another's.
#[must_use]
pub fn kill_listed(list: &dyn Fn() -> Vec<i32>) -> bool {
    let all = list();
    for some in all.chunks(HELD_MAX) {
        let held: Vec<_> = some.iter().filter_map(|pid| Some((*pid, PidFd::open(Pid::from_raw(*pid)).ok()?))).collect();
        let still: BTreeSet<i32> = list().into_iter().collect();
        held.iter().filter(|(pid, _)| still.contains(pid)).for_each(|(_, process)| process.kill());
    }
    !all.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_commands_with_odd_names() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194304 1 2 3 4 11 12 13 14 20 0 1 0 999 1 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.pid, stat.parent, stat.command.as_str(), stat.start), (42, 7, "a) b (c", 999));
        assert_eq!((stat.user, stat.system, stat.children_user, stat.children_system), (11, 12, 13, 14));
        assert_eq!(Stat::parse("nonsense"), None);
    }

    #[test]
    fn a_zombie_with_threads_lives() {
        let line =
            |state: char, threads: u8| format!("4 (x) {state} 1 4 4 0 -1 0 0 0 0 0 1 2 3 4 20 0 {threads} 0 9 0");
        let is_dead = |state, threads| Stat::parse(&line(state, threads)).unwrap().is_dead();
        assert!(is_dead('Z', 1) && is_dead('X', 1) && is_dead('Z', 0));
        assert!(!is_dead('Z', 2) && !is_dead('S', 1) && !is_dead('R', 9));
    }

    fn sleeper() -> (std::process::Child, i32) {
        let child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        (child, pid)
    }

    #[test]
    fn what_is_not_named_again_once_it_is_held_lives() {
        let (mut child, pid) = sleeper();
        let calls = std::cell::Cell::new(0);
        let named_once = || {
            calls.set(calls.get() + 1);
            if calls.get() == 1 { vec![pid] } else { Vec::new() }
        };
        assert!(kill_listed(&named_once) && child.try_wait().unwrap().is_none());
        assert!(!kill_listed(&Vec::new));
        assert!(kill_listed(&|| vec![pid]) && !child.wait().unwrap().success());
    }

    #[test]
    fn a_member_is_no_other_process_of_its_number() {
        let (mut child, pid) = sleeper();
        let member = Member::of(&Stat::read(pid).unwrap());
        let other = Member { start: member.start + 1, ..member };
        other.kill(0);
        assert!(member.lives() && !other.lives() && child.try_wait().unwrap().is_none());
        member.kill(0);
        assert!(!child.wait().unwrap().success() && !member.lives());
    }

    #[test]
    fn only_what_is_below_is_killed() {
        let own = i32::try_from(std::process::id()).unwrap();
        let (mut child, pid) = sleeper();
        assert!(is_below(own, 0, pid) && !is_below(own, pid, pid) && !is_below(pid, 0, pid) && !is_below(own, 0, own));
        let start = Stat::read(own).unwrap().start;
        // Somebody else had the number of the root before.
        assert!(kill_below(own, start + 1, 0) && child.try_wait().unwrap().is_none());
        assert!(is_populated(own, 0) && !is_populated(pid, 0));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
