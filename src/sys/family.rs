//! Who is of the job by descent, where its group alone does not tell: what has left that group is looked for among these.

use super::process::PidFd;
use super::tree;

/// One look for strays reads the groups of no more processes.
const STRAYS_LOOKED_AT_MAX: usize = 1_024;

/// What descends from the job's command, whatever group it is in.
#[derive(Clone, Copy, Debug)]
pub enum Family<'a> {
    /// All below the front, which had no child before: orphans, which come to it, are the job's.
    OfFront(i32),
    /// All from the command on: the front has children that are not the job's, and their orphans come to it as well.
    OfCommand(i32, &'a PidFd),
}

impl Family<'_> {
    /// At most as many as one look for strays reads.
    pub(super) fn pids(self) -> Vec<i32> {
        let own = nix::unistd::getpid().as_raw();
        match self {
            Self::OfFront(front) => tree::descendant_pids(front, own, STRAYS_LOOKED_AT_MAX),
            Self::OfCommand(command, _) => {
                let mut pids = tree::descendant_pids(command, own, STRAYS_LOOKED_AT_MAX);
                pids.push(command);
                pids
            }
        }
    }

    /// Whether a process is of it. The caller holds the process.
    pub(super) fn has(self, pid: i32) -> bool {
        let own = nix::unistd::getpid().as_raw();
        match self {
            Self::OfFront(front) => tree::is_below(front, own, pid),
            // Asked last: a command that lives has had its number all the while.
            Self::OfCommand(command, held) => {
                (pid == command || tree::is_below(command, own, pid)) && !held.has_ended()
            }
        }
    }
}
