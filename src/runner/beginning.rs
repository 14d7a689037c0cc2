//! From the word to start to the command's exec.

use nix::unistd::Pid;

use super::keeper::{FRONT_LOOK_US, Keeper, Running, Started};
use super::waiting::Woken;
use super::wire::{SpawnFailure, ToFront, ToKeeper};
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::process::PidFd;

impl Keeper<'_> {
    /// Until the front says what has become of the command.
    pub(super) fn await_start(&mut self, running: &mut Running) -> Started {
        loop {
            let front_look_us = SystemClock.boottime_us().saturating_add(FRONT_LOOK_US);
            match self.wait(&running.uplink, Some(front_look_us)) {
                Woken::Front(ToKeeper::Cloned { pid, at_us }) => {
                    if let Err(failure) = self.meter_from(running, Pid::from_raw(pid), at_us) {
                        return Started::Not(failure);
                    }
                }
                Woken::Front(ToKeeper::Started) => return Started::Runs,
                // A front that was stopped meanwhile, by its command too, says neither.
                Woken::Time if self.runs_unsaid(running) && running.child.is_some() => return Started::Runs,
                Woken::Time if self.runs_unsaid(running) => return Started::Lost,
                Woken::Front(ToKeeper::NotStarted(failure)) => return Started::Not(failure),
                Woken::Front(ToKeeper::Ended(ended)) => {
                    running.ended = Some(ended);
                    return Started::Runs;
                }
                Woken::Front(ToKeeper::Passing { .. })
                | Woken::Ledger(_)
                | Woken::Population
                | Woken::Devices
                | Woken::Time => {}
                Woken::FrontGone => return Started::Lost,
            }
        }
    }

    /// Opens the counter on the command's process, and then lets that go on.
    pub(super) fn meter_from(&mut self, running: &mut Running, child: Pid, at_us: u64) -> Result<(), SpawnFailure> {
        if let Err(error) = running.figures.begin(&mut self.plan, child, at_us, *self.shared) {
            return Err(SpawnFailure { message: format!("the job cannot be metered: {error}"), status: 125 });
        }
        running.child = PidFd::open(child).ok().map(|held| (child, held));
        if self.plan.needs_gate() {
            self.channel.send(&ToFront::OpenGate);
        }
        Ok(())
    }
}
