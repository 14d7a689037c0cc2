//! What the keeper waits for: the front's word or end, an answer of the ledger, or the time of the next look.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::ending::KILL_WAIT_MAX;
use super::grace::Remainder;
use super::keeper::{Keeper, Running};
use super::uplink::{Answered, Uplink};
use super::wire::{ExitKind, ToKeeper};
use crate::domain::job::Event;
use crate::sys::bell::Bell;
use crate::sys::clock::{Clock, SystemClock, after, is_before, outwaited_a_suspend, pause};
use crate::sys::family::Family;
use crate::sys::poll::{readable, readable_or_told};
use crate::sys::process::{Limits, StatFile};
use crate::sys::signals::{ENDING, SIGCONT};
use crate::sys::tree::Member;

/// How long the end waits for the front to say how the command ended.
const COMMAND_END_WAIT_MAX_US: u64 = 1_000_000;

/// Between two rounds of a kill.
const KILL_LOOK: Duration = Duration::from_millis(1);

/// What ended the wait.
pub(super) enum Woken {
    Front(ToKeeper),
    FrontGone,
    Ledger(Box<Answered>),
    /// What lives in the job's group has changed.
    Population,
    /// A device has become the job's.
    Devices,
    Time,
}

/// What ends most commands.
pub(super) fn ends_a_wait(signal: i32) -> bool {
    ENDING.contains(signal)
}

impl Keeper<'_> {
    /// Waits until `due_us` at most.
    pub(super) fn wait(&self, uplink: &Uplink, due_us: Option<u64>) -> Woken {
        self.wait_or_be_told(uplink, due_us, None, None)
    }

    /// The same, but for word of `population` and of the devices as well.
    pub(super) fn wait_or_be_told(
        &self,
        uplink: &Uplink,
        due_us: Option<u64>,
        population: Option<BorrowedFd<'_>>,
        devices: Option<&Bell>,
    ) -> Woken {
        // An alarm, since after a suspend of the machine a plain timeout would go on for as long as it had left.
        self.alarm.set(due_us);
        loop {
            if let Some(answered) = uplink.next() {
                return Woken::Ledger(Box::new(answered));
            }
            let alarm = self.alarm.as_fd();
            let told = devices.map_or(alarm, Bell::as_fd);
            let fds = [self.channel.as_fd(), self.front_fd.as_fd(), uplink.bell(), alarm, told];
            let ([spoken, gone, _, rung, joined], changed) = readable_or_told(fds, population, None);
            if spoken && let Ok(Some(message)) = self.channel.receive() {
                return Woken::Front(message);
            }
            if gone || spoken {
                return Woken::FrontGone;
            }
            if changed {
                return Woken::Population;
            }
            if joined && devices.is_some_and(Bell::silence) {
                return Woken::Devices;
            }
            if rung {
                return Woken::Time;
            }
        }
    }

    /// What it has left behind may go on for a while.
    pub(super) fn command_ended(&self, running: &mut Running) -> Event {
        running.remainder = Remainder::of(self.plan.containment(), self.options.grace, SystemClock.boottime_us());
        if running.remainder.is_some() { Event::Looked } else { Event::Exited }
    }

    /// What only looking tells: that everything has ended.
    pub(super) fn looked(&self, running: &mut Running) -> Event {
        let containment = self.plan.containment();
        let is_over = match &mut running.remainder {
            Some(remainder) => remainder.is_over(containment, SystemClock.boottime_us()),
            None => self.options.attach.is_some() && !containment.is_populated(),
        };
        if !is_over {
            return Event::Looked;
        }
        // How what something else has started ended knows who started it.
        running.ended.get_or_insert(ExitKind::Exited(0));
        Event::Exited
    }

    /// Waits, but not for a front that has gone.
    pub(super) fn pause(&self, pause: Duration) {
        let _has_gone = readable([self.front_fd.as_fd()], Some(pause));
    }

    /// The front reaps the command and says how it ended, soon after the kill.
    pub(super) fn await_command_end(&self, running: &Running) -> Option<ExitKind> {
        let until_us = SystemClock.boottime_us().saturating_add(COMMAND_END_WAIT_MAX_US);
        loop {
            match self.wait(&running.uplink, Some(until_us)) {
                Woken::Front(ToKeeper::Ended(ended)) => return Some(ended),
                Woken::Front(_) | Woken::Ledger(_) | Woken::Population | Woken::Devices => {}
                Woken::FrontGone | Woken::Time => return None,
            }
        }
    }

    /// A front that is stopped and did not say so cannot end the job if the keeper dies. One that stopped with the
    /// command, and would not notice that the command runs again, is continued.
    pub(super) fn front_was_stopped(&self, running: &Running) -> bool {
        // One that a scheduler has started is the job's user's: the guardian ends the job in its place.
        if self.gate.is_some() {
            return false;
        }
        let is_front_stopped = || running.front_state.as_ref().is_some_and(StatFile::is_stopped);
        let is_command_stopped = || running.child_state.as_ref().is_some_and(StatFile::is_stopped);
        if !is_front_stopped() {
            return false;
        }
        if self.shared.front_paused() {
            if running.child_state.is_some() && !is_command_stopped() {
                self.wake_front();
            }
            return false;
        }
        // Whoever suspends both (a scheduler, a signal to their group) stops and continues one after the other, this process among them.
        let is_suspended = || !is_front_stopped() || is_command_stopped();
        while !is_suspended() {
            if outwaited_a_suspend() {
                return !is_suspended();
            }
        }
        false
    }

    /// What comes now takes so long at most, and a second more where the machine is busy.
    pub(super) fn trust_for(&self, time: Duration) {
        let us = super::keeper::micros(time).saturating_add(1_000_000);
        self.shared.trust_until_us(SystemClock.boottime_us().saturating_add(us));
    }

    /// A front that stands still, with the command or by somebody's will, has to be there for the end.
    pub(super) fn continue_front(&self, running: &Running) {
        if self.shared.front_paused() || running.front_state.as_ref().is_some_and(StatFile::is_stopped) {
            self.wake_front();
        }
    }

    /// One that has gone needs none.
    fn wake_front(&self) {
        self.front_fd.send(SIGCONT).ok();
    }

    /// What has left the job's group is metered again from now on, and the receipt says so.
    pub(super) fn recapture_strays(&self, running: &mut Running) {
        let family = match &running.child {
            _ if !self.front_has_others => Family::OfFront(self.front.as_raw()),
            Some((command, held)) => Family::OfCommand(command.as_raw(), held),
            None => return,
        };
        for pid in self.plan.containment().strays(family) {
            running.strayed |= self.plan.containment().recapture(family, pid);
        }
    }

    /// Whether the front stands still, by whomever, while something of the job lives already.
    pub(super) fn runs_unsaid(&self, running: &Running) -> bool {
        running.front_state.as_ref().is_some_and(StatFile::is_stopped) && self.plan.containment().is_populated()
    }

    /// Without a front nothing is below it: what was there is ended as it was last seen. Which of it does not die, if any.
    pub(super) fn end_orphans(&self, members: &[Member]) -> Option<Vec<i32>> {
        if !self.front_fd.has_ended() {
            return None;
        }
        let (own, until_us) = (nix::unistd::getpid().as_raw(), after(KILL_WAIT_MAX));
        loop {
            let living: Vec<Member> = members.iter().copied().filter(|member| member.lives()).collect();
            if living.is_empty() {
                return None;
            }
            if !is_before(until_us) {
                return Some(living.into_iter().map(Member::pid).collect());
            }
            for member in living {
                member.kill(own);
            }
            pause(KILL_LOOK);
        }
    }

    pub(super) fn limits(&self) -> [Option<Limits>; 2] {
        let own = nix::unistd::getpid();
        // Those of a front that is the job's user's are his to lower.
        [if self.gate.is_some() { own } else { self.front }, own].map(Limits::of)
    }

    /// Somebody has taken from the meter what it needs to go on.
    pub(super) fn is_starved(&self, running: &Running) -> bool {
        let pairs = self.limits().into_iter().zip(running.limits);
        pairs.into_iter().any(|(now, before)| now.zip(before).is_some_and(|(now, before)| now.are_below(&before)))
    }
}
