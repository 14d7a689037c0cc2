//! The front: stays where the user started it. It is the parent of the command, passes signals and the exit status,
//! stops and continues with it, and watches the keeper. It starts no thread and allocates little.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::ExitCode;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::{Pid, getpgid, getpgrp, pipe2};

use super::leftovers;
use super::stand_in::StandIn;
use super::wire::{Channel, Exit, ExitKind, SpawnFailure, ToFront, ToKeeper};
use crate::domain::printable::printable_lines;
use crate::meter::select::Plan;
use crate::sys::clock::{Alarm, Clock, SystemClock, outwaited_a_suspend, pause};
use crate::sys::poll::{has_hung_up, readable};
use crate::sys::process::{Change, ChildChange, PidFd, StatFile, child_changed, cpu_us_of, reaped_cpu_us};
use crate::sys::shared::SharedPage;
use crate::sys::signals::{
    Arrived, SIGCHLD, SIGCONT, SIGKILL, Signals, continue_at_word, die_of, send, send_to_group, stop_by,
};
use crate::sys::spawn::{Command, Placement, SpawnError, Stage};
use crate::sys::terminal::Terminal;
use crate::sys::witness::Testimony;

/// How long a keeper that is past its deadline has to renew it.
pub(super) const RENEWAL_WAIT: Duration = Duration::from_millis(50);
/// A shell continues a group in one call, in which it may be kept waiting for a processor: so often is looked, and at this distance.
const GROUP_CONTINUE_LOOKS: u32 = 50;
const GROUP_CONTINUE_LOOK: Duration = Duration::from_millis(2);

/// More signals are not taken before the keeper and its deadline are looked at again.
pub(super) const TAKEN_AT_ONCE_MAX: usize = 64;
/// How long a keeper that was killed is waited for: the job is to be ended all the same.
const KEEPER_END_WAIT_MAX: Duration = Duration::from_secs(1);

/// What the front holds.
#[derive(Debug)]
pub(super) struct Front<'a> {
    pub(super) channel: Channel,
    pub(super) shared: &'a SharedPage,
    pub(super) signals: Signals,
    pub(super) alarm: Alarm,
    pub(super) keeper: Pid,
    /// Of children that this process had before it became jobmeter.
    pub(super) reaped_before_us: u64,
    pub(super) plan: &'a Plan,
    /// None where something else has started it.
    pub(super) command: Option<Command>,
}

/// How the loop ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// As the keeper said.
    Done { lines: Vec<String>, exit: Exit },
    /// The front must end the job.
    KeeperLost(Lost),
}

/// How the keeper was lost, and what was there then.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) why: &'static str,
    pub(super) child: Option<Pid>,
    pub(super) keeper: LostKeeper,
}

/// What is left of the keeper.
#[derive(Clone, Copy, Debug)]
pub(super) enum LostKeeper {
    /// It died and was waited for: its number may mean another process.
    Reaped { cpu_us: u64 },
    /// It was stopped, or hangs.
    Unreaped(Pid),
}

impl LostKeeper {
    /// Ends it; returns what it burned, in µs.
    pub(super) fn end(self) -> u64 {
        let keeper = match self {
            Self::Reaped { cpu_us } => return cpu_us,
            Self::Unreaped(keeper) => keeper,
        };
        let before_us = reaped_cpu_us();
        send(keeper, SIGKILL).ok();
        let ended = PidFd::open(keeper).is_ok_and(|held| held.wait_for_end(KEEPER_END_WAIT_MAX));
        let burned_us = cpu_us_of(keeper);
        if ended && child_changed(Some(keeper)).is_some() {
            return reaped_cpu_us().saturating_sub(before_us);
        }
        burned_us
    }
}

#[derive(Debug)]
struct Watch {
    testimony: Testimony,
    child: Option<Pid>,
    child_running: bool,
    /// What came before there was a command that could take it.
    early: Vec<Arrived>,
    /// While the keeper stands still.
    stand_in: Option<StandIn>,
}

/// More is not kept for a command that has not begun.
pub(super) const EARLY_MAX: usize = 64;

impl Watch {
    /// The command, while it was not waited for: its number is its own.
    fn running(&self) -> Option<Pid> {
        self.child.filter(|_| self.child_running)
    }

    fn keeper_lost(&self, why: &'static str, keeper: LostKeeper) -> Outcome {
        Outcome::KeeperLost(Lost { why, child: self.child, keeper })
    }
}

impl Front<'_> {
    /// Runs until all is done.
    pub(super) fn run(&mut self) -> Outcome {
        let testimony = Testimony::new(*self.shared, Some(self.keeper));
        let mut watch = Watch { testimony, child: None, child_running: false, early: Vec::new(), stand_in: None };
        let terminal = Terminal::controlling();
        loop {
            self.alarm.set(watch.stand_in.as_ref().map(StandIn::look_at_us).or_else(|| self.trusted_until_us()));
            let [signalled, spoken, rung] =
                readable([self.signals.as_fd(), self.channel.as_fd(), self.alarm.as_fd()], None);
            if spoken {
                let said = self.channel.receive().ok().flatten();
                if let Some(outcome) = self.hear(said, &mut watch, terminal.as_ref()) {
                    return outcome;
                }
            }
            if signalled && let Some(outcome) = self.take_signals(&mut watch, terminal.as_ref()) {
                return outcome;
            }
            if rung && let Some(outcome) = self.look_in_its_place(&mut watch) {
                return outcome;
            }
        }
    }

    /// The keeper did not look in time, or was stopped.
    fn look_in_its_place(&self, watch: &mut Watch) -> Option<Outcome> {
        if !watch.stand_in.as_ref().is_some_and(|stand_in| stand_in.is_stopped) && !self.keeper_hangs() {
            watch.stand_in = None;
            return None;
        }
        let stand_in = watch.stand_in.get_or_insert(StandIn::new("hung past its deadline", false));
        if self.shared.settled() || stand_in.lets_go_on(*self.shared, self.plan) {
            return None;
        }
        let why = stand_in.why;
        Some(watch.keeper_lost(why, LostKeeper::Unreaped(self.keeper)))
    }

    /// Until when the keeper may be trusted; `None` while nothing runs.
    fn trusted_until_us(&self) -> Option<u64> {
        Some(self.shared.trusted_until_us()).filter(|until_us| *until_us > 0 && !self.shared.settled())
    }

    /// After a suspend of the machine the deadline is over for a keeper that was about to renew it.
    fn keeper_hangs(&self) -> bool {
        let is_over = || self.trusted_until_us().is_some_and(|until_us| until_us <= SystemClock.boottime_us());
        if is_over() {
            pause(RENEWAL_WAIT);
        }
        is_over()
    }

    /// `None` is the end of the channel.
    fn hear(&mut self, said: Option<ToFront>, watch: &mut Watch, terminal: Option<&Terminal>) -> Option<Outcome> {
        match said {
            Some(ToFront::Start) => return self.start(watch, terminal),
            Some(ToFront::OpenGate | ToFront::Released(_)) => {}
            Some(ToFront::Say(line)) => say(&line),
            Some(ToFront::Done { lines, exit, killed }) => {
                if let Some(terminal) = terminal {
                    terminal.restore(killed);
                }
                return Some(Outcome::Done { lines, exit });
            }
            None => return Some(watch.keeper_lost("closed its channel", LostKeeper::Unreaped(self.keeper))),
        }
        None
    }

    fn start(&mut self, watch: &mut Watch, terminal: Option<&Terminal>) -> Option<Outcome> {
        // What has come to the group by now has not come to the command.
        if let Some(outcome) = self.take_signals(watch, terminal) {
            return Some(outcome);
        }
        let Some(command) = &self.command else {
            // One of its processes stands for it; that none is left the keeper sees for itself.
            let first = self.plan.containment().processes().first().copied().unwrap_or_default();
            self.channel.send(&ToKeeper::Cloned { pid: first, at_us: SystemClock.boottime_us() });
            self.channel.send(&ToKeeper::Started);
            return None;
        };
        let mut refused = None;
        match self.spawn(command, &mut refused) {
            Ok(pid) => {
                watch.child = Some(pid);
                watch.child_running = true;
                self.channel.send(&ToKeeper::Started);
                for arrived in std::mem::take(&mut watch.early) {
                    self.pass(pid, arrived);
                }
                None
            }
            Err(error) => match refused {
                said @ Some(_) => self.hear(said, watch, terminal),
                None => {
                    self.channel.send(&ToKeeper::NotStarted(SpawnFailure::of(&command.program(), error)));
                    None
                }
            },
        }
    }

    /// Starts the command. Where a counter has to be open first, the keeper's word opens the gate: with any other, which is `refused`,
    /// or none, the child ends before it is the command.
    fn spawn(&self, command: &Command, refused: &mut Option<ToFront>) -> Result<Pid, SpawnError> {
        let no_gate = |errno| SpawnError { stage: Stage::Clone, errno };
        let gate = self.plan.needs_gate().then(|| pipe2(OFlag::O_CLOEXEC)).transpose().map_err(no_gate)?;
        let (gate, mut opener) = gate.unzip();
        let joins: Vec<BorrowedFd<'_>> = self.plan.joins();
        let placement = Placement {
            group: self.plan.spawn_group(),
            joins: &joins,
            gate: gate.as_ref().map(AsFd::as_fd),
            gate_opener: opener.as_ref().map(AsRawFd::as_raw_fd),
        };
        command.spawn(placement, &mut |pid| {
            self.channel.send(&ToKeeper::Cloned { pid: pid.as_raw(), at_us: SystemClock.boottime_us() });
            let Some(opener) = opener.take() else { return };
            match self.channel.receive().ok().flatten() {
                // A child that has ended meanwhile needs no gate.
                Some(ToFront::OpenGate) => drop(nix::unistd::write(&opener, b"g")),
                said => *refused = said,
            }
        })
    }

    fn take_signals(&mut self, watch: &mut Watch, terminal: Option<&Terminal>) -> Option<Outcome> {
        for _ in 0..TAKEN_AT_ONCE_MAX {
            let Some(arrived) = self.signals.arrived() else { break };
            // First of all, so that no signal goes to a command that has ended.
            if let Some(outcome) = self.reap(watch, terminal) {
                return Some(outcome);
            }
            if arrived.number != SIGCHLD {
                self.deal_with(watch, arrived);
            }
        }
        None
    }

    fn deal_with(&self, watch: &mut Watch, arrived: Arrived) {
        // Also where it does not matter: else a later one to the front alone would be taken for this one.
        let came_to_group = watch.testimony.came_to_group(arrived.number);
        self.tell_keeper(arrived);
        let Some(child) = watch.running() else {
            if self.command.is_none() {
                self.plan.containment().send_to_all(arrived.number, None);
            } else if watch.child.is_none() && watch.early.len() < EARLY_MAX {
                watch.early.push(arrived);
            }
            return;
        };
        if !came_to_group {
            self.pass(child, arrived);
        } else if self.has_own_session() {
            // It has a group of its own only since we gave it one.
            send_to_group(child, arrived.number).ok();
        } else if getpgid(Some(child)) != Ok(getpgrp()) {
            self.pass(child, arrived);
        }
    }

    /// A reading goes to the spool before a signal that may end everything is passed on.
    fn tell_keeper(&self, arrived: Arrived) {
        if let Some(passing) = ToKeeper::passing(arrived.number) {
            self.channel.send(&passing);
        }
    }

    /// What may not be signalled (a set-uid program) could not be without jobmeter either.
    fn pass(&self, child: Pid, arrived: Arrived) {
        arrived.send_to(child).ok();
    }

    fn has_own_session(&self) -> bool {
        self.command.as_ref().is_some_and(Command::has_own_session)
    }

    fn reap(&self, watch: &mut Watch, terminal: Option<&Terminal>) -> Option<Outcome> {
        loop {
            let before_us = reaped_cpu_us();
            let ChildChange { pid, change } = child_changed(None)?;
            if pid == self.keeper {
                if let Some(outcome) = self.keeper_changed(watch, change, before_us) {
                    return Some(outcome);
                }
                continue;
            }
            self.shared.set_reaped_us(reaped_cpu_us().saturating_sub(self.reaped_before_us));
            if watch.running() == Some(pid) {
                self.command_changed(watch, change, terminal);
            }
        }
    }

    fn keeper_changed(&self, watch: &mut Watch, change: Change, before_us: u64) -> Option<Outcome> {
        let change = match change {
            // What it burns can be read here as well.
            Change::Stopped(_)
                if self.shared.stop_at().is_some() && leftovers::read_group(self.plan.containment()).is_some() =>
            {
                watch.stand_in = Some(StandIn::new("was stopped", true));
                return self.look_in_its_place(watch);
            }
            Change::Stopped(_) => self.after_suspend(change),
            other => other,
        };
        match change {
            _ if self.shared.settled() => None,
            Change::Exited(_) | Change::Signalled(_) => {
                let cpu_us = reaped_cpu_us().saturating_sub(before_us);
                Some(watch.keeper_lost("was killed", LostKeeper::Reaped { cpu_us }))
            }
            Change::Stopped(_) => Some(watch.keeper_lost("was stopped", LostKeeper::Unreaped(self.keeper))),
            Change::Continued => {
                watch.stand_in.iter_mut().for_each(|stand_in| stand_in.is_stopped = false);
                None
            }
        }
    }

    /// What has become of a keeper that was stopped: whoever suspends all of a job and continues it (a scheduler) does so one after
    /// the other, this process among them.
    fn after_suspend(&self, stopped: Change) -> Change {
        loop {
            let is_over = outwaited_a_suspend();
            if let Some(ChildChange { change, .. }) = child_changed(Some(self.keeper)) {
                return change;
            }
            if is_over {
                return stopped;
            }
        }
    }

    fn command_changed(&self, watch: &mut Watch, change: Change, terminal: Option<&Terminal>) {
        if let Some(ended) = ExitKind::of(change) {
            watch.child_running = false;
            self.channel.send(&ToKeeper::Ended(ended));
        } else if let (Change::Stopped(number), Some(child)) = (change, watch.running()) {
            self.stop_with(child, number, terminal);
        }
    }

    /// The command was stopped: so is jobmeter, that its shell takes over, and with the shell's `fg` both continue. A
    /// freeze by cgroup does not come here. The keeper meters on meanwhile.
    fn stop_with(&self, child: Pid, number: i32, terminal: Option<&Terminal>) {
        let child_group = getpgid(Some(child)).ok();
        let had_terminal = terminal.and_then(Terminal::foreground).filter(|group| Some(*group) == child_group);
        // A command in a background group of a session without a shell would never be continued if we stopped too; and one with
        // a session of its own has no shell that could.
        if self.has_own_session() || nix::unistd::getsid(None).ok() == Some(nix::unistd::getpid()) {
            return;
        }
        self.shared.set_front_paused(true);
        // A keeper that dies meanwhile could not be missed otherwise: what runs beside the command would go on.
        continue_at_word(self.channel.as_fd(), true);
        if !has_hung_up(self.channel.as_fd()) {
            stop_by(number);
        }
        continue_at_word(self.channel.as_fd(), false);
        self.shared.set_front_paused(false);
        if has_hung_up(self.channel.as_fd()) {
            return;
        }
        if let (Some(terminal), Some(group)) = (terminal, had_terminal) {
            let own = getpgrp();
            if group != own && terminal.foreground() == Some(own) {
                terminal.set_foreground(group);
            }
        }
        let other_group = child_group.filter(|group| *group != getpgrp());
        if is_left_stopped(child, other_group.is_none()) {
            match other_group {
                Some(group) => send_to_group(group, SIGCONT).ok(),
                None => send(child, SIGCONT).ok(),
            };
        }
    }
}

/// Whether what continued the front has passed the command by. A shell's `fg` continues the whole group, one process after the other;
/// a second SIGCONT would interrupt what the command has begun meanwhile (vim then loses what it was writing to the terminal).
fn is_left_stopped(child: Pid, is_in_own_group: bool) -> bool {
    let Ok(state) = StatFile::open(child) else { return true };
    let looks = if is_in_own_group { GROUP_CONTINUE_LOOKS } else { 0 };
    for _ in 0..looks {
        if !state.is_stopped() {
            return false;
        }
        pause(GROUP_CONTINUE_LOOK);
    }
    state.is_stopped()
}

/// What came from outside, such as a path or what a service says, neither does anything to the terminal nor begins a line.
pub(super) fn say(text: &str) {
    let shown = printable_lines(text).replace('\n', "\n  ");
    // A closed standard error is no reason to lose the exit status.
    writeln!(std::io::stderr().lock(), "{shown}").ok();
}

/// Prints and ends as jobmeter should: with a status, or of the signal that the command died of.
pub(super) fn leave(lines: &[String], exit: Exit) -> ExitCode {
    for line in lines {
        say(line);
    }
    match exit {
        Exit::Status(status) => ExitCode::from(status),
        Exit::AsCommand(ExitKind::Exited(code)) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)),
        Exit::AsCommand(ExitKind::Signalled(number)) => {
            if std::process::id() != 1 {
                die_of(number);
            }
            ExitCode::from(u8::try_from(128 + (number & 0x7f)).unwrap_or(255))
        }
    }
}
