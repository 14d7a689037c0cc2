//! The descendants of a process, by `/proc`: what is left where no group can be made.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::process::PidFd;

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
        })
    }

    /// Of a process; `None` once it has gone.
    #[must_use]
    pub fn read(pid: i32) -> Option<Self> {
        let bytes = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// A zombie, or gone.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// All processes below `root` but `except` and what is below that, dead ones that nobody waited for included.
#[must_use]
pub fn descendants(root: i32, except: i32) -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut by_parent: BTreeMap<i32, Vec<Stat>> = BTreeMap::new();
    for stat in pids.filter_map(Stat::read) {
        by_parent.entry(stat.parent).or_default().push(stat);
    }
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for stat in by_parent.remove(&parent).unwrap_or_default() {
            if stat.pid != except {
                parents.push(stat.pid);
                found.push(stat);
            }
        }
    }
    found
}

/// Those of them that live.
#[must_use]
pub fn living(root: i32, except: i32) -> Vec<i32> {
    descendants(root, except).iter().filter(|stat| !stat.is_dead()).map(|stat| stat.pid).collect()
}

/// The children of all threads of a process; `None` where the kernel does not tell (CONFIG_PROC_CHILDREN) or it has gone.
fn children(pid: i32) -> Option<Vec<i32>> {
    let mut pids = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let text = std::fs::read_to_string(thread.path().join("children")).ok()?;
        pids.extend(text.split_whitespace().filter_map(|word| word.parse::<i32>().ok()));
    }
    Some(pids)
}

/// The process ids of [`descendants`], at a cost that grows with them and not with the machine: at most `count_max`.
#[must_use]
pub fn descendant_pids(root: i32, except: i32, count_max: usize) -> Vec<i32> {
    let Some(first) = children(root) else {
        return descendants(root, except).iter().map(|stat| stat.pid).take(count_max).collect();
    };
    let mut found: Vec<i32> = first.into_iter().filter(|pid| *pid != except).collect();
    let mut at = 0;
    while let Some(pid) = found.get(at).copied().filter(|_| found.len() < count_max) {
        found.extend(children(pid).unwrap_or_default());
        at += 1;
    }
    found
}

/// SIGKILL to a process, unless its number has come to mean another one since `stat` was read.
pub fn kill_process(pid: i32) {
    let Some(before) = Stat::read(pid) else { return };
    let Ok(fd) = PidFd::open(Pid::from_raw(pid)) else { return };
    if Stat::read(pid).is_some_and(|now| now.start == before.start) {
        fd.send(Signal::SIGKILL).ok();
    }
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
}
