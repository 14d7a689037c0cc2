//! What a guardian is given, and why a task has none.

use std::fmt;
use std::os::fd::OwnedFd;

use nix::unistd::Pid;

use crate::sys::credentials::Credentials;

/// What the scheduler's plugin hands over.
#[derive(Debug)]
pub struct Handed {
    /// The process that the scheduler knows, which becomes the front.
    pub task: Pid,
    /// To it and to the command.
    pub channel: OwnedFd,
    /// Whose the meter is.
    pub meter: Credentials,
    /// Of an array of jobs, which element this is.
    pub element: Option<u32>,
    /// How many tasks its step has.
    pub tasks: u32,
    /// Others may have a part of the job's GPUs.
    pub shares_gpus: bool,
}

impl Handed {
    /// The elements of an array are tasks of one job, and where one has several tasks, `ELEMENT.RANK`.
    pub(super) fn task_name(&self, rank: u32) -> String {
        match self.element {
            Some(element) if self.tasks > 1 => format!("{element}.{rank}"),
            Some(element) => element.to_string(),
            None => rank.to_string(),
        }
    }
}

/// Why no meter watches a task: it does not run.
#[derive(Debug)]
pub struct NoMeter(pub(super) String);

impl fmt::Display for NoMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn told<E: fmt::Display>(what: &'static str) -> impl Fn(E) -> NoMeter {
    move |error| NoMeter(format!("{what}: {error}"))
}
