//! Who is on a device: the job's processes, other tasks of the job, and strangers.

use super::Device;
use crate::meter::gpu::figures::{Mode, Sight};
use crate::meter::gpu::pids::{JobPids, command_of, owner_of};
use crate::meter::gpu::wire::{FaultKind, PolledDevice};

impl Device {
    /// By which tasks of a job agree who charges it, also where NVML has told it to one of them alone so far.
    #[must_use]
    pub fn claimed_name(&self) -> String {
        match (self.info.minor, &self.info.mig) {
            (Some(minor), None) => format!("nvidia{minor}"),
            _ => self.nvml_uuid().to_owned(),
        }
    }

    /// Whether one task of the job alone is to charge it.
    #[must_use]
    pub fn is_the_jobs_alone(&self) -> bool {
        self.figures.declared && self.figures.exclusive
    }

    /// Another task of the job charges it now.
    pub fn is_others(&mut self, now_us: u64) {
        self.others_at_us = Some(now_us);
        self.notes.insert("the job's other task on this machine was charged for it for a while".to_owned());
    }

    /// No other task of the job charges it any more, since `from_us` if that is known.
    pub fn take_over(&mut self, from_us: Option<u64>, now_us: u64) {
        let Some(seen_us) = self.others_at_us.take() else { return };
        let from_us = from_us.unwrap_or(seen_us).clamp(seen_us, now_us);
        (self.counted_until_us, self.read_at_us) = (from_us, from_us);
        self.integral.take_over(from_us);
        self.counters.begin(from_us);
    }

    /// On a device that was said to be the job's alone. Who has the job's own user is one of its tasks, or his own affair.
    pub fn look_for_strangers(&mut self, polled: &PolledDevice, pids: &JobPids, owner: Option<u32>, everybody: bool) {
        let (Ok(running), Some(owner), true) =
            (&polled.running, owner, everybody && self.figures.mode == Mode::Exclusive)
        else {
            return;
        };
        let is_strange =
            |pid: u32| !pids.has(pid) && i32::try_from(pid).ok().and_then(owner_of).is_some_and(|uid| uid != owner);
        let before = std::mem::replace(&mut self.has_strangers, running.iter().any(|(pid, _)| is_strange(*pid)));
        if self.has_strangers && !before {
            self.notes.insert("processes of others were on it, which its job is not charged for".to_owned());
        }
    }

    /// Whether the driver does not list its processes.
    #[must_use]
    pub fn hides_processes(&self) -> bool {
        self.hides_processes
    }

    pub(super) fn take_presence(&mut self, polled: &PolledDevice, pids: &JobPids, sight: Sight) {
        self.hides_processes = polled.running.as_ref().is_err_and(|fault| fault.kind == FaultKind::Unsupported);
        if let (true, Ok(running)) = (sight.running, &polled.running) {
            // A sample is told only a period or two after its time.
            let since_us = self.read_at_us.saturating_sub(2 * self.integral.period_us());
            self.tenants.see(running.iter().map(|(pid, _)| (*pid, pids.has(*pid))), polled.at_us, since_us);
            let mine = running.iter().filter(|(pid, _)| pids.has(*pid));
            let mine: Vec<_> = mine.copied().collect();
            self.seen.retain(|pid| pids.has(*pid));
            self.seen.extend(mine.iter().map(|(pid, _)| *pid));
            self.present = !mine.is_empty();
            self.processes.see(&mine, command_of);
            let bytes = mine.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
            self.figures.memory_peak_bytes = self.figures.memory_peak_bytes.max(bytes);
        }
        // A process that came and went between two looks is only in the records of use.
        if let Ok(used) = &polled.used {
            self.present |= used.iter().any(|(pid, percent)| *percent > 0 && self.is_mine(*pid, pids, sight));
        }
    }

    /// The job's time of a look, among its processes.
    pub(super) fn share_out(&mut self, us: u64, polled: &PolledDevice, pids: &JobPids, sight: Sight) {
        let used = polled.used.as_deref().unwrap_or_default().iter().filter(|(_, percent)| *percent <= 100);
        let mine =
            used.filter(|(pid, _)| self.is_mine(*pid, pids, sight)).map(|(pid, percent)| (*pid, u64::from(*percent)));
        let mut records: Vec<(u32, u64)> = mine.collect();
        if let ([], true, Ok(running)) = (records.as_slice(), sight.running, &polled.running) {
            records.extend(running.iter().filter(|(pid, _)| pids.has(*pid)).map(|(pid, _)| (*pid, 1)));
            // Of several it is not told which of them worked.
            records.truncate(if records.len() == 1 { 1 } else { 0 });
        }
        self.processes.use_up(us, &records, command_of);
    }

    /// Whether a record of use is the job's. Outside the first PID namespace a record may have the host's number of
    /// another's process, so that only those count that the lists of running processes have named.
    pub(super) fn is_mine(&self, pid: u32, pids: &JobPids, sight: Sight) -> bool {
        sight.used && pids.has(pid) && (sight.everybody || self.seen.contains(&pid))
    }
}
