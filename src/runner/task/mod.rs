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
//! says so over the channel, hands over a socket of its own, its gate, and waits there. The guardian has made the job's groups by then. It
//! has the child put into them, and forks the keeper, which asks the ledger meanwhile, and opens the gate or does not. The guardian ends a
//! job whose keeper was lost, and removes what root alone can.

mod arrival;
pub mod front;
pub(super) mod gate;
mod handed;
pub mod register;
mod release;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, pipe2};

use self::arrival::{Arrivals, Mover, take_in};
use self::gate::Gate;
use self::handed::told;
pub use self::handed::{Handed, NoMeter};
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
use crate::meter::gpu::declared::SHARED_GPUS;
use crate::meter::gpu::options::Giver;
use crate::meter::select::Plan;
use crate::meter::task_groups::{self, Task};
use crate::sys::cgroup::Group;
use crate::sys::clock::{Alarm, Clock, SystemClock, after, is_before, pause};
use crate::sys::credentials::keep_the_right_to_kill;
use crate::sys::handshake::FirstWord;
use crate::sys::outside::{leave_groups, meters};
use crate::sys::poll::readable;
use crate::sys::process::{
    Change, PidFd, child_changed, exit_now, forbid_tracing, fork, lower_oom_score, schedule_first,
};
use crate::sys::shared::SharedPage;
use crate::sys::signals::{OF_GLIBC, SignalSet, Signals, set_mask};

/// Whether the job has begun is looked for so often.
const BEGIN_LOOK_US: u64 = 1_000_000;
/// What has ended leaves its groups soon.
const REMOVAL_WAIT_MAX: Duration = Duration::from_secs(5);
const REMOVAL_LOOK: Duration = Duration::from_millis(1);

/// Where a guardian lives: out of the scheduler's reach, and of any user's.
#[derive(Debug)]
pub struct Place {
    /// Of all meters, where there is the v2 hierarchy.
    meters: Option<Group>,
}

impl Place {
    /// Moves this process there, which has one thread, and goes on as its own child.
    ///
    /// # Errors
    /// Where it cannot be.
    pub fn make() -> Result<Self, NoMeter> {
        let meters = meters().map_err(told("there is no group for the meter"))?;
        leave_groups(meters.as_ref()).map_err(told("the meter cannot leave the scheduler's groups"))?;
        umask(Mode::from_bits_truncate(0o022));
        // The job's own is what Slurm has set.
        let _before = lower_oom_score();
        forbid_tracing().map_err(told("prctl(PR_SET_DUMPABLE)"))?;
        Ok(Self { meters })
    }
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
pub fn watch(place: Place, options: RunOptions, handed: Handed) -> ExitCode {
    let channel = match handed.channel.try_clone() {
        Ok(channel) => channel,
        Err(_) => return ExitCode::from(FAILED),
    };
    match begin(&place, options, handed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => refuse(channel, &why.to_string()),
    }
}

fn begin(place: &Place, mut options: RunOptions, handed: Handed) -> Result<(), NoMeter> {
    let job_user =
        options.run_as.as_ref().map(RunAs::credentials).ok_or_else(|| NoMeter("the job has no user".to_owned()))?;
    let mut attempt = Attempt::new(&options);
    let id = attempt.identity.attempt;
    let task = Task { pid: handed.task.as_raw(), owner: &handed.meter };
    let entry = Entry::make(id, task_groups::places(id, &task), JobSocket::place_for_another(id))
        .map_err(told("no place to note what is to be removed"))?;
    let plan = Plan::of_task(id, &task, place.meters.as_ref(), job_user.uid)
        .map_err(|error| NoMeter(format!("the task cannot be metered: {error}")));
    let begun = plan.and_then(|plan| Begun::of(plan, &handed, job_user.uid));
    // Whoever comes later removes what keeps them.
    let begun = begun.inspect_err(|_| {
        let _is_clear = entry.clear();
    })?;
    options.task = handed.task_name(begun.rank);
    let mut variables = begun.joining.command.variables.clone();
    if handed.shares_gpus {
        variables.insert(SHARED_GPUS.to_owned(), String::new());
    }
    options.gpus.giver = Giver::Scheduler(variables);
    attempt.identity.task.clone_from(&options.task);
    let socket = JobSocket::bind(id, Some(&job_user));
    Guardian { options: &options, attempt, handed, plan: begun.plan, socket, entry }.guard(begun.joining)
}

/// A task of which command and front are there.
struct Begun {
    plan: Plan,
    joining: Joining,
    rank: u32,
}

/// What is put into the job's group.
struct Joining {
    command: FirstWord,
    mover: Mover,
    /// `None` where there is none.
    witness: Option<FirstWord>,
}

impl Begun {
    fn of(plan: Plan, handed: &Handed, uid: u32) -> Result<Self, NoMeter> {
        let mut arrivals = Arrivals::new(handed, uid);
        let command = arrivals.await_command()?;
        let rank = command.number.ok_or_else(|| NoMeter("the command does not say which task it is".to_owned()))?;
        let mover = Mover::start(&plan, &command).map_err(told("the command cannot be put into its group"))?;
        match arrivals.await_front() {
            Ok(witness) => Ok(Self { plan, joining: Joining { command, mover, witness }, rank }),
            Err(why) => {
                mover.has_moved();
                // It waits at its gate, and ends with its front in any case.
                let _is_over = plan.containment().kill(KILL_WAIT_MAX);
                Err(why)
            }
        }
    }
}

/// Root's part, from the first words to the end.
struct Guardian<'a> {
    options: &'a RunOptions,
    attempt: Attempt,
    handed: Handed,
    plan: Plan,
    socket: Option<JobSocket>,
    entry: Entry,
}

impl Guardian<'_> {
    fn guard(mut self, joining: Joining) -> Result<(), NoMeter> {
        let Joining { command, mover, witness } = joining;
        let shared = SharedPage::map().map_err(told("no shared memory"))?;
        let alarm = Alarm::new().map_err(told("no timer"))?;
        let (is_in, says_in) = pipe2(OFlag::O_CLOEXEC).map_err(told("no pipe"))?;
        let Some(keeper) = fork().map_err(told("cannot fork the keeper"))? else {
            drop(says_in);
            self.keep(command, is_in, shared);
            exit_now(0);
        };
        // The keeper's from now on.
        drop((command, is_in, self.socket.take()));
        let is_witness_in = witness.is_none_or(|word| take_in(&self.plan, &word));
        // The keeper, which asks the ledger meanwhile, opens the gate once it is told so; where it is not, nothing runs.
        if mover.has_moved() && is_witness_in {
            // One that has ended meanwhile needs no word.
            let _is_told = nix::unistd::write(&says_in, b"i");
        }
        drop(says_in);
        let mut signals = Signals::take(SignalSet::ALL).map_err(told("cannot take signals"))?;
        if let KeepersEnd::Lost(why) = self.await_end(keeper, &mut signals, &alarm, shared) {
            // It burns nothing while it is settled, which can take long where the ledger is away.
            self.plan.containment().freeze(FREEZE_WAIT_MAX);
            settle(self.options, &self.handed, why);
            // However that went.
            let _is_over = self.plan.containment().kill(KILL_WAIT_MAX);
        }
        let until_us = after(REMOVAL_WAIT_MAX);
        // What stays then is removed by the next sweep.
        while !(self.plan.discard() && self.entry.clear()) && is_before(until_us) {
            pause(REMOVAL_LOOK);
        }
        Ok(())
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
        let Self { options, attempt, handed, plan, socket, entry } = self;
        // It is the guardian's to clear, and nobody else's while either lives.
        std::mem::forget(entry);
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
