//! The front: stays where the user started it. It is the parent of the command, passes signals and the exit status,
//! stops and continues with it, and watches the keeper. It starts no thread and allocates little.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgid, getpgrp};

use super::wire::{Channel, Exit, ExitKind, SpawnFailure, ToFront, ToKeeper};
use crate::domain::printable::{printable, printable_lines};
use crate::meter::select::Plan;
use crate::sys::clock::{Alarm, Clock, SystemClock, pause};
use crate::sys::poll::readable;
use crate::sys::process::reaped_cpu_us;
use crate::sys::shared::SharedPage;
use crate::sys::signals::{Signals, die_of, stop_by};
use crate::sys::spawn::{Command, Placement, SpawnError, Stage};
use crate::sys::terminal::Terminal;

/// How long a keeper that is past its deadline has to renew it.
const RENEWAL_WAIT: Duration = Duration::from_millis(50);

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
    pub(super) program: String,
}

/// How the loop ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// As the keeper said.
    Done { lines: Vec<String>, exit: Exit },
    /// The keeper died, was stopped, or hung past its deadline: the front must end the job.
    KeeperLost { why: &'static str, child: Option<Pid>, keeper_us: u64 },
}

#[derive(Debug, Default)]
struct Watch {
    child: Option<Pid>,
    child_running: bool,
}

impl Watch {
    /// It is not reaped yet.
    fn keeper_lost(&self, why: &'static str) -> Outcome {
        Outcome::KeeperLost { why, child: self.child, keeper_us: 0 }
    }
}

impl Front<'_> {
    /// Runs until all is done.
    pub(super) fn run(&mut self) -> Outcome {
        let mut watch = Watch::default();
        let terminal = Terminal::controlling();
        loop {
            self.alarm.set(self.trusted_until_us());
            let [signalled, spoken, rung] =
                readable([self.signals.as_fd(), self.channel.as_fd(), self.alarm.as_fd()], None);
            if spoken && let Some(outcome) = self.hear(&mut watch, terminal.as_ref()) {
                return outcome;
            }
            if signalled && let Some(outcome) = self.take_signals(&mut watch, terminal.as_ref()) {
                return outcome;
            }
            if rung && self.keeper_hangs() {
                return watch.keeper_lost("hung past its deadline");
            }
        }
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

    fn hear(&mut self, watch: &mut Watch, terminal: Option<&Terminal>) -> Option<Outcome> {
        match self.channel.receive::<ToFront>() {
            Ok(Some(ToFront::Start)) => self.start(watch),
            Ok(Some(ToFront::OpenGate)) => {}
            Ok(Some(ToFront::Say(line))) => say(&line),
            Ok(Some(ToFront::Done { lines, exit, killed })) => {
                if let Some(terminal) = terminal {
                    terminal.restore(killed);
                }
                return Some(Outcome::Done { lines, exit });
            }
            Ok(None) | Err(_) => {
                return Some(watch.keeper_lost("closed its channel"));
            }
        }
        None
    }

    fn start(&self, watch: &mut Watch) {
        let Some(command) = &self.command else {
            // One of its processes stands for it; that none is left the keeper sees for itself.
            let first = self.plan.containment().processes().first().copied().unwrap_or_default();
            self.channel.send(&ToKeeper::Cloned { pid: first, at_us: SystemClock.boottime_us() });
            self.channel.send(&ToKeeper::Started);
            return;
        };
        let gate = self.plan.needs_gate().then(nix::unistd::pipe).transpose().ok().flatten();
        let joins: Vec<BorrowedFd<'_>> = self.plan.joins();
        let placement = Placement {
            group: self.plan.spawn_group(),
            joins: &joins,
            gate: gate.as_ref().map(|(read, _)| read.as_fd()),
            gate_opener: gate.as_ref().map(|(_, write)| write.as_fd()),
        };
        let spawned = command.spawn(placement, &mut |pid| {
            self.channel.send(&ToKeeper::Cloned { pid: pid.as_raw(), at_us: SystemClock.boottime_us() });
            if let Some((_, opener)) = &gate {
                // The keeper opens its counter on the child before the child can do anything.
                self.channel.receive::<ToFront>().ok();
                nix::unistd::write(opener, b"g").ok();
            }
        });
        match spawned {
            Ok(pid) => {
                watch.child = Some(pid);
                watch.child_running = true;
                self.channel.send(&ToKeeper::Started);
            }
            Err(error) => self.channel.send(&ToKeeper::NotStarted(self.describe(error))),
        }
    }

    fn describe(&self, error: SpawnError) -> SpawnFailure {
        let program = printable(&self.program);
        let (message, status) = match (error.stage, error.errno) {
            (Stage::Exec, Errno::ENOENT | Errno::ENOTDIR) => {
                (format!("{program}: command not found: check the spelling, or give its path"), 127)
            }
            (Stage::Exec, Errno::EACCES) => {
                (format!("{program}: permission denied: it is not executable (chmod +x), or is a directory"), 126)
            }
            (Stage::Exec, errno) => (format!("{program}: cannot execute: {}", errno.desc()), 126),
            (Stage::Credentials, errno) => {
                (format!("cannot become the user of --as: {}: start jobmeter as root", errno.desc()), 125)
            }
            (Stage::Directory, errno) => {
                (format!("cannot start {program} in the folder of --chdir: {}", errno.desc()), 125)
            }
            (stage, errno) => (format!("cannot start {program} ({stage:?}): {}", errno.desc()), 125),
        };
        SpawnFailure { message, status }
    }

    fn take_signals(&mut self, watch: &mut Watch, terminal: Option<&Terminal>) -> Option<Outcome> {
        while let Some(arrived) = self.signals.arrived() {
            match arrived.signal {
                Signal::SIGCHLD => {
                    if let Some(outcome) = self.reap(watch, terminal) {
                        return Some(outcome);
                    }
                }
                signal if !arrived.by_kernel || signal == Signal::SIGALRM || watch.child.is_none() => {
                    self.pass(watch, signal);
                }
                // The terminal's own reach the command by themselves, unless it has a session of its own.
                signal if self.has_own_session() => self.pass_to_group(watch, signal),
                _ => {}
            }
        }
        None
    }

    fn pass(&self, watch: &Watch, signal: Signal) {
        self.channel.send(&ToKeeper::Passing { signal: signal as i32 });
        if let Some(child) = watch.child.filter(|_| watch.child_running) {
            kill(child, signal).ok();
        }
        if self.command.is_none() {
            for pid in self.plan.containment().processes() {
                kill(Pid::from_raw(pid), signal).ok();
            }
        }
    }

    fn has_own_session(&self) -> bool {
        self.command.as_ref().is_some_and(Command::has_own_session)
    }

    /// As the terminal does: to the command's whole group.
    fn pass_to_group(&self, watch: &Watch, signal: Signal) {
        self.channel.send(&ToKeeper::Passing { signal: signal as i32 });
        if let Some(child) = watch.child.filter(|_| watch.child_running) {
            killpg(child, signal).ok();
        }
    }

    fn reap(&self, watch: &mut Watch, terminal: Option<&Terminal>) -> Option<Outcome> {
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED | WaitPidFlag::WCONTINUED;
        loop {
            let before_us = reaped_cpu_us();
            let status = match waitpid(None, Some(flags)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
                Ok(status) => status,
                Err(Errno::EINTR) => continue,
                Err(_) => return None,
            };
            let pid = status.pid();
            if pid != Some(self.keeper) {
                self.shared.set_reaped_us(reaped_cpu_us().saturating_sub(self.reaped_before_us));
            }
            if pid == Some(self.keeper) {
                match status {
                    WaitStatus::Exited(..) | WaitStatus::Signaled(..) if !self.shared.settled() => {
                        let keeper_us = reaped_cpu_us().saturating_sub(before_us);
                        return Some(Outcome::KeeperLost { why: "was killed", child: watch.child, keeper_us });
                    }
                    WaitStatus::Stopped(..) if !self.shared.settled() => {
                        return Some(watch.keeper_lost("was stopped"));
                    }
                    _ => {}
                }
            } else if pid == watch.child && watch.child_running {
                self.child_changed(watch, status, terminal);
            }
        }
    }

    fn child_changed(&self, watch: &mut Watch, status: WaitStatus, terminal: Option<&Terminal>) {
        match status {
            WaitStatus::Exited(_, code) => {
                watch.child_running = false;
                self.channel.send(&ToKeeper::Ended(ExitKind::Exited(code)));
            }
            WaitStatus::Signaled(_, signal, _) => {
                watch.child_running = false;
                self.channel.send(&ToKeeper::Ended(ExitKind::Signalled(signal as i32)));
            }
            WaitStatus::Stopped(child, signal) => self.stop_with(child, signal, terminal),
            _ => {}
        }
    }

    /// The command was stopped: so is jobmeter, that its shell takes over, and with the shell's `fg` both continue. A
    /// freeze by cgroup does not come here. The keeper meters on meanwhile.
    fn stop_with(&self, child: Pid, signal: Signal, terminal: Option<&Terminal>) {
        let child_group = getpgid(Some(child)).ok();
        let had_terminal = terminal.and_then(Terminal::foreground).filter(|group| Some(*group) == child_group);
        // A command in a background group of a session without a shell would never be continued if we stopped too; and one with
        // a session of its own has no shell that could.
        if self.has_own_session() || nix::unistd::getsid(None).ok() == Some(nix::unistd::getpid()) {
            return;
        }
        self.shared.set_front_paused(true);
        stop_by(signal);
        self.shared.set_front_paused(false);
        if let (Some(terminal), Some(group)) = (terminal, had_terminal) {
            let own = getpgrp();
            if group != own && terminal.foreground() == Some(own) {
                terminal.set_foreground(group);
            }
        }
        match child_group.filter(|group| *group != getpgrp()) {
            Some(group) => killpg(group, Signal::SIGCONT).ok(),
            None => kill(child, Signal::SIGCONT).ok(),
        };
    }
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
            if let (Ok(signal), false) = (Signal::try_from(number), std::process::id() == 1) {
                die_of(signal);
            }
            ExitCode::from(u8::try_from(128 + (number & 0x7f)).unwrap_or(255))
        }
    }
}
