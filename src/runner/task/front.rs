//! The front of a task: the process that the scheduler knows. It has the job's user, and nothing depends on it: it hands signals on, ends
//! as the command did, and dies without harm to a figure.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use nix::unistd::Pid;

use crate::runner::front::{EARLY_MAX, TAKEN_AT_ONCE_MAX, leave, say};
use crate::runner::wire::{Channel, Exit, ExitKind, ToFront, ToKeeper};
use crate::sys::clock::pause;
use crate::sys::containment::{Containment, ContainmentSpec, Reopened};
use crate::sys::poll::readable;
use crate::sys::process::{PidFd, child_changed, forbid_tracing};
use crate::sys::shared::SharedPage;
use crate::sys::signals::{Arrived, SIGCHLD, SIGKILL, SignalSet, Signals, send};
use crate::sys::witness::{Stand, Testimony, Witness};

/// Who signals each process of a job by itself may come to this one first.
const ONE_BY_ONE_MAX: Duration = Duration::from_millis(10);
/// Between the end of the keeper's channel and that of the job.
const KILL_WAIT_MAX: Duration = Duration::from_secs(5);

/// Two witnesses, and what they say.
#[derive(Debug)]
struct Witnesses {
    with_job: Witness,
    apart: Witness,
    of_job: Testimony,
    of_task: Testimony,
}

/// Whom a signal has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// The job as well: by its process group, or each of its processes.
    Job,
    /// All that the scheduler sees, which the job is not part of.
    Task,
    /// The front, which hands it on.
    FrontAlone,
}

#[derive(Debug)]
struct Front {
    channel: Channel,
    signals: Signals,
    command: Pid,
    runs: bool,
    job: Option<ContainmentSpec>,
    witnesses: Option<Witnesses>,
    early: Vec<Arrived>,
}

/// Stands for `command`, which waits to be let go on, until the keeper at the other end of `channel` says how to end.
#[must_use]
pub fn front(channel: OwnedFd, command: Pid) -> ExitCode {
    let channel = Channel::of(channel);
    let begun = forbid_tracing().and_then(|()| Signals::take(SignalSet::ALL));
    match begun {
        Ok(signals) => {
            // Where there are none, each signal is handed on.
            let witnesses = Witnesses::start(&channel).ok();
            if witnesses.is_none() {
                channel.send_bytes(&[super::arrival::FRONT_BYTE]);
            }
            Front { channel, signals, command, runs: true, job: None, witnesses, early: Vec::new() }.run()
        }
        Err(error) => leave(&[format!("jobmeter: error: the task cannot be started: {error}")], Exit::Status(125)),
    }
}

impl Witnesses {
    fn start(channel: &Channel) -> std::io::Result<Self> {
        let (job, task) = (SharedPage::map()?, SharedPage::map()?);
        Ok(Self {
            with_job: Witness::start(job, Stand::WithJob(channel.as_fd()))?,
            apart: Witness::start(task, Stand::Apart)?,
            of_job: Testimony::new(job, None),
            of_task: Testimony::new(task, None),
        })
    }

    /// Both are asked each time: else a later signal to the front alone would be taken for this one.
    fn reached(&mut self, number: i32) -> Reached {
        let mut asked = || (self.of_job.came_to_group(number), self.of_task.came_to_group(number));
        let (mut job, mut task) = asked();
        if !job {
            pause(ONE_BY_ONE_MAX);
            let later = asked();
            (job, task) = (later.0, task || later.1);
        }
        match (job, task) {
            (true, _) => Reached::Job,
            (false, true) => Reached::Task,
            (false, false) => Reached::FrontAlone,
        }
    }

    fn end(self) {
        self.with_job.end();
        self.apart.end();
    }
}

impl Front {
    fn run(mut self) -> ExitCode {
        loop {
            let [signalled, spoken] = readable([self.signals.as_fd(), self.channel.as_fd()], None);
            if spoken {
                match self.channel.receive().ok().flatten() {
                    Some(ToFront::Say(line)) => say(&line),
                    Some(ToFront::Released(job)) => self.begin(job),
                    Some(ToFront::Done { lines, exit, .. }) => return self.end(&lines, exit),
                    Some(ToFront::Start | ToFront::OpenGate) => {}
                    None => return self.end_without_keeper(),
                }
            }
            if signalled {
                self.take_signals();
            }
        }
    }

    fn begin(&mut self, job: ContainmentSpec) {
        self.job = Some(job);
        for arrived in std::mem::take(&mut self.early) {
            self.pass(arrived);
        }
    }

    fn take_signals(&mut self) {
        for _ in 0..TAKEN_AT_ONCE_MAX {
            let Some(arrived) = self.signals.arrived() else { break };
            // First of all, so that no signal goes to a command that has ended.
            self.reap();
            if arrived.number != SIGCHLD {
                self.deal_with(arrived);
            }
        }
    }

    fn deal_with(&mut self, arrived: Arrived) {
        let reached = self.witnesses.as_mut().map_or(Reached::FrontAlone, |all| all.reached(arrived.number));
        if let Some(passing) = ToKeeper::passing(arrived.number) {
            self.channel.send(&passing);
        }
        if !self.runs {
            return;
        }
        match (&self.job, reached) {
            (None, _) if self.early.len() < EARLY_MAX => self.early.push(arrived),
            (None, _) | (_, Reached::Job) => {}
            (Some(job), Reached::Task) => {
                // As the scheduler would, if it saw them. What the witness is given would be taken for the next one that comes.
                let witness = self.witnesses.as_ref().map(|all| all.with_job.pid().as_raw());
                if let Some(job) = Containment::reopen(job).ok().and_then(Reopened::found) {
                    job.send_to_all(arrived.number, witness);
                }
            }
            (Some(_), Reached::FrontAlone) => self.pass(arrived),
        }
    }

    /// What may not be signalled (a set-uid program) could not be without jobmeter either.
    fn pass(&self, arrived: Arrived) {
        let _is_sent = arrived.send_to(self.command);
    }

    fn reap(&mut self) {
        while let Some(changed) = child_changed(None) {
            if let Some(ended) = ExitKind::of(changed.change)
                && changed.pid == self.command
                && self.runs
            {
                self.runs = false;
                // Nothing that is not the job's is in its groups any more.
                if let Some(witnesses) = self.witnesses.take() {
                    witnesses.end();
                }
                self.channel.send(&ToKeeper::Ended(ended));
            }
        }
    }

    /// A command that was never let go on waits still.
    fn end(mut self, lines: &[String], exit: Exit) -> ExitCode {
        if self.runs {
            // It is this process's child, not waited for yet: its number is its own.
            let _is_sent = send(self.command, SIGKILL);
            if let Ok(held) = PidFd::open(self.command) {
                let _has_ended = held.wait_for_end(KILL_WAIT_MAX);
            }
            self.reap();
        }
        leave(lines, exit)
    }

    /// Keeper and guardian have both gone, or never came.
    fn end_without_keeper(self) -> ExitCode {
        let job = self.job.as_ref().and_then(|job| Containment::reopen(job).ok()?.found());
        let is_over = job.is_none_or(|job| job.kill(KILL_WAIT_MAX));
        let mut lines = vec!["jobmeter: error: the meter of this task was lost, or could not be started".to_owned()];
        if !is_over {
            lines.push("jobmeter: warning: not all of its processes die of SIGKILL".to_owned());
        }
        self.end(&lines, Exit::Status(125))
    }
}
