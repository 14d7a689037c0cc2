//! A task that a scheduler starts by itself, and that a meter of the platform's own watches: it has another user than the job, and none
//! of the scheduler's groups, and so is out of the job's reach.
//!
//! ```text
//!  scheduler's step ── front (the job's user) ──────── command and all that it starts (the job's group)
//!                        │ channel                        ▲ reads, freezes, kills
//!  guardian (root) ── keeper (the meter's user, CAP_KILL) ┘──▶ spool ──▶ ledger
//! ```
//!
//! The scheduler's plugin makes the channel, starts the guardian as root, and forks the task: its parent becomes the front, and the child
//! says so over the channel, hands over a socket of its own, its gate, and waits there. The guardian forks the keeper, and puts the child
//! into the job's group while the keeper asks the ledger, which then opens the gate or does not. The guardian ends a job whose keeper was
//! lost, and removes what root alone can.

pub mod front;
pub(super) mod gate;
pub mod register;
mod release;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, pipe2};

use self::gate::Gate;
use self::register::Entry;
use super::attempt::Attempt;
use super::ending::{FREEZE_WAIT_MAX, KILL_WAIT_MAX};
use super::front::RENEWAL_WAIT;
use super::keeper::Keeper;
use super::options::{RunAs, RunOptions};
use super::socket::JobSocket;
use super::stand_in::StandIn;
use super::wire::{Channel, Exit, ToFront};
use super::{found, header, leftovers, spool};
use crate::meter::select::Plan;
use crate::meter::task_groups::{OuterGroups, Task};
use crate::sys::clock::{Alarm, Clock, SystemClock, after, is_before, pause};
use crate::sys::credentials::{Credentials, keep_the_right_to_kill};
use crate::sys::handshake::{self, FirstWord};
use crate::sys::outside::{leave_groups, meters};
use crate::sys::poll::readable;
use crate::sys::proc;
use crate::sys::process::{
    Change, PidFd, child_changed, exit_now, forbid_tracing, fork, lower_oom_score, schedule_first,
};
use crate::sys::shared::SharedPage;
use crate::sys::signals::{OF_GLIBC, SignalSet, Signals, set_mask};
use crate::sys::tree::Stat;
use crate::sys::witness::WITNESS_BYTE;

/// What the command says first.
const COMMAND_BYTE: u8 = b'c';
/// What a front without a witness says first.
const FRONT_BYTE: u8 = b'f';
/// How long task and witness have to say their first word.
const FIRST_WORD_WAIT_MAX: Duration = Duration::from_mins(1);
/// Whether the job has begun is looked for so often.
const BEGIN_LOOK_US: u64 = 1_000_000;
/// What has ended leaves its groups soon.
const REMOVAL_WAIT_MAX: Duration = Duration::from_secs(5);
const REMOVAL_LOOK: Duration = Duration::from_millis(1);

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
}

impl Handed {
    /// The elements of an array are tasks of one job, and where one has several tasks, `ELEMENT.RANK`.
    fn task_name(&self, rank: u32) -> String {
        match self.element {
            Some(element) if self.tasks > 1 => format!("{element}.{rank}"),
            Some(element) => element.to_string(),
            None => rank.to_string(),
        }
    }
}

/// Why no meter watches a task: it does not run.
#[derive(Debug)]
struct NoMeter(String);

impl fmt::Display for NoMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn told<E: fmt::Display>(what: &'static str) -> impl Fn(E) -> NoMeter {
    move |error| NoMeter(format!("{what}: {error}"))
}

/// As everywhere: jobmeter itself failed.
const FAILED: u8 = 125;

/// Says on a task's standard error why it does not run, and ends it.
#[must_use]
pub fn refuse(channel: OwnedFd, why: &str) -> ExitCode {
    say_and_end(channel, why);
    ExitCode::from(FAILED)
}

fn say_and_end(channel: OwnedFd, why: &str) {
    let lines = vec![format!("jobmeter: error: {why}")];
    Channel::of(channel).send(&ToFront::Done { lines, exit: Exit::Status(FAILED), killed: false });
}

/// Watches one task to its end, as root.
#[must_use]
pub fn watch(options: RunOptions, handed: Handed) -> ExitCode {
    let channel = match handed.channel.try_clone() {
        Ok(channel) => channel,
        Err(_) => return ExitCode::from(FAILED),
    };
    match begin(options, handed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => refuse(channel, &why.to_string()),
    }
}

fn begin(mut options: RunOptions, handed: Handed) -> Result<(), NoMeter> {
    let meters = meters().map_err(told("there is no group for the meter"))?;
    leave_groups(meters.as_ref()).map_err(told("the meter cannot leave the scheduler's groups"))?;
    umask(Mode::from_bits_truncate(0o022));
    // The job's own is what Slurm has set.
    let _before = lower_oom_score();
    forbid_tracing().map_err(told("prctl(PR_SET_DUMPABLE)"))?;
    let job_user =
        options.run_as.as_ref().map(RunAs::credentials).ok_or_else(|| NoMeter("the job has no user".to_owned()))?;
    let Spoken { command: waiting, witness } = await_words(&handed, job_user.uid)?;
    let hold = |word: &FirstWord| Ok((word.pid, PidFd::open(Pid::from_raw(word.pid))?));
    let joins: std::io::Result<Vec<(i32, PidFd)>> = witness.iter().chain([&waiting]).map(hold).collect();
    let joins = joins.map_err(told("the task ended before it began"))?;
    let rank = waiting.number.ok_or_else(|| NoMeter("the command does not say which task it is".to_owned()))?;
    options.task = handed.task_name(rank);
    let attempt = Attempt::new(&options);
    let task = Task { pid: handed.task.as_raw(), owner: &handed.meter };
    let (plan, outer) = Plan::of_task(attempt.identity.attempt, &task, meters.as_ref(), job_user.uid)
        .map_err(|error| NoMeter(format!("the task cannot be metered: {error}")))?;
    let socket = JobSocket::bind(attempt.identity.attempt, Some(&job_user));
    let entry = Entry::make(attempt.identity.attempt, outer.paths(), socket.as_ref().map(JobSocket::path))
        .map_err(told("no place to note what is to be removed"))?;
    Guardian { options: &options, attempt, handed, plan, outer, socket, entry, joins }.guard(waiting)
}

/// Who has spoken first.
struct Spoken {
    command: FirstWord,
    /// `None` where the front has none: each signal is handed on then.
    witness: Option<FirstWord>,
}

/// Which process waits to become the command, and which is the front's witness, as the kernel says.
fn await_words(handed: &Handed, uid: u32) -> Result<Spoken, NoMeter> {
    let (mut command, mut front) = (None, None);
    let until_us = after(FIRST_WORD_WAIT_MAX);
    while (command.is_none() || front.is_none()) && is_before(until_us) {
        let left = Duration::from_micros(until_us.saturating_sub(SystemClock.boottime_us()));
        let [spoken] = readable([handed.channel.as_fd()], Some(left));
        if !spoken {
            continue;
        }
        let received = handshake::receive(handed.channel.as_fd()).map_err(told("the task's first word"))?;
        let word = received.ok_or_else(|| NoMeter("the task ended before it began".to_owned()))?;
        match word.byte {
            COMMAND_BYTE => command = Some(word),
            WITNESS_BYTE => front = Some(word),
            FRONT_BYTE if word.pid == handed.task.as_raw() => front = Some(word),
            // What else the front says by now is for a keeper.
            _ => {}
        }
    }
    let (Some(command), Some(front)) = (command, front) else {
        return Err(NoMeter("the task did not say that it was there".to_owned()));
    };
    let is_child = |word: &FirstWord| {
        word.uid == uid && Stat::read(word.pid).is_some_and(|stat| stat.parent == handed.task.as_raw())
    };
    if !is_child(&command) || command.handed.is_none() {
        return Err(NoMeter(format!("process {} is not the command of task {}", command.pid, handed.task)));
    }
    is_out_of_reach(handed.task)?;
    let is_witness = front.byte == WITNESS_BYTE && is_child(&front);
    Ok(Spoken { command, witness: is_witness.then_some(front) })
}

/// A program that its user can read can be traced by him until it says otherwise, and what a traced front starts is in no job's group
/// (ptrace(2), `would_dump` in fs/exec.c).
fn is_out_of_reach(front: Pid) -> Result<(), NoMeter> {
    let link = proc::path(front.as_raw(), "exe").map_err(told("the front's program"))?;
    let mode = std::fs::metadata(&link).map_err(told("the front's program"))?.permissions().mode();
    if mode & 0o044 == 0 {
        return Ok(());
    }
    Err(NoMeter("the front's program can be read by the job's user, who could take it over: chmod 711".to_owned()))
}

/// Root's part, from the first words to the end.
struct Guardian<'a> {
    options: &'a RunOptions,
    attempt: Attempt,
    handed: Handed,
    plan: Plan,
    outer: OuterGroups,
    socket: Option<JobSocket>,
    entry: Entry,
    /// What is put into the job's group: the witness first, if there is one, and the command last.
    joins: Vec<(i32, PidFd)>,
}

impl Guardian<'_> {
    fn guard(mut self, waiting: FirstWord) -> Result<(), NoMeter> {
        let shared = SharedPage::map().map_err(told("no shared memory"))?;
        let alarm = Alarm::new().map_err(told("no timer"))?;
        let socket_path = self.socket.as_ref().map(|socket| socket.path().to_owned());
        let (is_in, says_in) = pipe2(OFlag::O_CLOEXEC).map_err(told("no pipe"))?;
        let Some(keeper) = fork().map_err(told("cannot fork the keeper"))? else {
            drop(says_in);
            self.keep(waiting, is_in, shared);
            exit_now(0);
        };
        // The keeper's from now on.
        drop((waiting, is_in, self.socket.take()));
        self.put_in_place(says_in);
        let mut signals = Signals::take(SignalSet::ALL).map_err(told("cannot take signals"))?;
        if let KeepersEnd::Lost(why) = self.await_end(keeper, &mut signals, &alarm, shared) {
            // It burns nothing while it is settled, which can take long where the ledger is away.
            self.plan.containment().freeze(FREEZE_WAIT_MAX);
            settle(self.options, &self.handed, why);
            // However that went.
            let _is_over = self.plan.containment().kill(KILL_WAIT_MAX);
        }
        if let Some(path) = socket_path {
            super::socket::remove(&path);
        }
        let until_us = after(REMOVAL_WAIT_MAX);
        while !(self.plan.discard() && self.outer.remove().is_ok()) {
            if !is_before(until_us) {
                // The next sweep removes them.
                return Ok(());
            }
            pause(REMOVAL_LOOK);
        }
        self.entry.remove().map_err(told("the note of what is to be removed"))
    }

    /// Beside the keeper, which asks the ledger meanwhile: a move between groups can take the kernel some milliseconds. The keeper
    /// opens the gate once it is told so; where it is not, nothing runs.
    fn put_in_place(&self, says_in: OwnedFd) {
        // A number is a process's own while that lives.
        let is_taken_in = |(pid, held): &&(i32, PidFd)| {
            !held.has_ended() && self.plan.containment().take_in(*pid) && !held.has_ended()
        };
        if self.joins.iter().filter(is_taken_in).count() == self.joins.len() {
            // A keeper that has ended meanwhile needs no word.
            let _is_told = nix::unistd::write(&says_in, b"i");
        }
    }

    /// Until the keeper has ended, or stands still while the job comes to its ceiling.
    fn await_end(&self, keeper: Pid, signals: &mut Signals, alarm: &Alarm, shared: SharedPage) -> KeepersEnd {
        let deadline = || Some(shared.trusted_until_us()).filter(|until_us| *until_us > 0 && !shared.settled());
        let is_over = || deadline().is_some_and(|until_us| until_us <= SystemClock.boottime_us());
        let mut stand_in: Option<StandIn> = None;
        // It may have ended before its signals were taken.
        if let Some(end) = end_of(keeper, shared) {
            return end;
        }
        loop {
            // There is no deadline until the job begins.
            let begins_us = SystemClock.boottime_us().saturating_add(BEGIN_LOOK_US);
            alarm.set(Some(stand_in.as_ref().map(StandIn::look_at_us).or_else(deadline).unwrap_or(begins_us)));
            let [signalled, rung] = readable([signals.as_fd(), alarm.as_fd()], None);
            if signalled {
                while signals.arrived().is_some() {}
                if let Some(end) = end_of(keeper, shared) {
                    return end;
                }
            }
            if rung && stand_in.is_none() && is_over() {
                pause(RENEWAL_WAIT);
            }
            if !is_over() {
                stand_in = None;
            } else if rung && !stand_in.get_or_insert(StandIn::new("", false)).lets_go_on(shared, &self.plan) {
                end(keeper);
                return KeepersEnd::Lost("stood still past its deadline");
            }
        }
    }

    /// The keeper's part, as the meter's user.
    fn keep(self, waiting: FirstWord, is_in: OwnedFd, shared: SharedPage) {
        let channel = self.handed.channel.try_clone();
        if let Err(why) = self.keep_or_say(waiting, is_in, shared)
            && let Ok(channel) = channel
        {
            say_and_end(channel, &why.to_string());
        }
    }

    fn keep_or_say(self, waiting: FirstWord, is_in: OwnedFd, shared: SharedPage) -> Result<(), NoMeter> {
        let Self { options, attempt, handed, plan, outer, socket, entry, .. } = self;
        // They are the guardian's to remove, and nobody else's while either lives.
        std::mem::forget((outer, entry));
        // What is sent to the keeper ends no job.
        block_signals();
        // Not inherited by its threads.
        schedule_first();
        keep_the_right_to_kill(&handed.meter).map_err(told("the meter cannot become its user"))?;
        let header = header(options, &attempt, &plan, socket.as_ref());
        let spool = spool(options, &header).map_err(NoMeter)?;
        let gate_socket = waiting.handed.ok_or_else(|| NoMeter("the command has no gate".to_owned()))?;
        let variables = super::variables_of_job(options, &attempt, socket.as_ref().map(JobSocket::path));
        let front_fd = PidFd::open(handed.task).map_err(told("pidfd_open"))?;
        Keeper {
            options,
            attempt: &attempt,
            shared: &shared,
            channel: Channel::of(handed.channel),
            front: handed.task,
            front_fd,
            gate: Some(Gate::new(Pid::from_raw(waiting.pid), gate_socket, is_in, &variables)),
            // What the front starts beside the command is not the job's.
            front_has_others: true,
            alarm: Alarm::new().map_err(told("no timer"))?,
            plan,
            spool,
            socket,
            receipt: None,
            witness: None,
            leftovers: None,
        }
        .run();
        Ok(())
    }
}

/// How the keeper ended.
enum KeepersEnd {
    /// Having settled the job, or said why nothing was started.
    Done,
    Lost(&'static str),
}

/// `None` while it lives.
fn end_of(keeper: Pid, shared: SharedPage) -> Option<KeepersEnd> {
    while let Some(changed) = child_changed(Some(keeper)) {
        match changed.change {
            Change::Stopped(_) | Change::Continued => {}
            Change::Exited(_) | Change::Signalled(_) if shared.settled() => return Some(KeepersEnd::Done),
            Change::Exited(0) if shared.trusted_until_us() == 0 => return Some(KeepersEnd::Done),
            Change::Exited(_) | Change::Signalled(_) => return Some(KeepersEnd::Lost("was killed")),
        }
    }
    None
}

fn end(keeper: Pid) {
    let Ok(held) = PidFd::open(keeper) else { return };
    held.kill();
    let _has_ended = held.wait_for_end(REMOVAL_WAIT_MAX);
    while child_changed(Some(keeper)).is_some() {}
}

/// What a lost keeper has left over is ended and settled as any other, by another process of the meter's user.
fn settle(options: &RunOptions, handed: &Handed, why: &str) {
    let lines = |lines: Vec<String>| {
        let Ok(channel) = handed.channel.try_clone() else { return };
        Channel::of(channel).send(&ToFront::Done { lines, exit: Exit::Status(FAILED), killed: true });
    };
    match fork() {
        Ok(Some(child)) => {
            let _ended = nix::sys::wait::waitpid(child, None);
        }
        Ok(None) => {
            let said = match settle_as_meter(options, handed) {
                Ok(said) => said,
                Err(error) => vec![format!("jobmeter: warning: it is not settled yet: {error}")],
            };
            let mut all = vec![format!("jobmeter: stopped: the meter was lost: the keeper {why}")];
            all.extend(said);
            lines(all);
            exit_now(0);
        }
        Err(error) => lines(vec![format!("jobmeter: error: the meter was lost, and cannot be replaced: {error}")]),
    }
}

/// But for glibc's own, which its threads need.
fn block_signals() {
    set_mask(OF_GLIBC.into_iter().fold(SignalSet::ALL, SignalSet::without));
}

fn settle_as_meter(options: &RunOptions, handed: &Handed) -> io::Result<Vec<String>> {
    block_signals();
    keep_the_right_to_kill(&handed.meter)?;
    let Some(directory) = &options.spool_dir else { return Ok(Vec::new()) };
    let flushed = leftovers::flush(directory, &options.ledger, options.connect)?;
    Ok(found::lines(directory, &flushed))
}
