//! What a keeper does otherwise whose command a scheduler has started.

use super::gate::Gate;
use crate::domain::job::Event;
use crate::runner::keeper::{Keeper, Running};
use crate::runner::wire::{ExitKind, SpawnFailure, ToFront};
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::process::StatFile;
use crate::sys::signals::SIGKILL;

impl Keeper<'_> {
    /// Lets the command go on to its exec, metered from now on.
    pub(in crate::runner) fn release(&mut self, running: &mut Running) -> Result<(), SpawnFailure> {
        let Some(gate) = &self.gate else { return Ok(()) };
        let command = gate.command;
        if !gate.is_command_in_group() {
            let message = "the job cannot be put into its group".to_owned();
            return Err(SpawnFailure { message, status: 125 });
        }
        self.meter_from(running, command, SystemClock.boottime_us())?;
        running.child_state = running.child.as_ref().and_then(|(child, _)| StatFile::open(*child).ok());
        self.channel.send(&ToFront::Released(self.plan.specification()));
        // One that has ended at its gate needs no word: the front says how it ended.
        self.gate.iter().for_each(Gate::open);
        // What an earlier one has left over is the epilog's: the end of a task does not wait for it.
        Ok(())
    }

    /// A scheduler ends a task by SIGKILL to the process that it knows of: that is no loss of the meter.
    pub(in crate::runner) fn event_of_lost_front(&self, running: &mut Running) -> Event {
        if self.gate.is_none() {
            return Event::MeterLost;
        }
        running.ended.get_or_insert(ExitKind::Signalled(SIGKILL));
        Event::Exited
    }
}
