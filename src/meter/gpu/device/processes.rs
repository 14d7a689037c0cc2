//! Which of the job's processes used a device, and how much of its memory. For people alone: nothing is charged by it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::units::Microseconds;

/// A job may start processes without end, and each that used a device takes some room.
const KNOWN_MAX: usize = 256;
/// A receipt names no more.
const TOLD_MAX: usize = 8;

/// One process of the job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuProcess {
    /// In the PID namespace of the meter.
    pub pid: u32,
    /// As the kernel calls it, 15 bytes at most; empty where it had gone before it was looked at.
    pub command: String,
    /// Its part of the job's; `null` where nobody can tell it from that of others of the job.
    pub busy_seconds: Option<Microseconds>,
    /// The most of the device's memory that it had at any look.
    pub memory_peak_bytes: u64,
}

/// Those that were seen on a device, by their ids.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes(BTreeMap<u32, GpuProcess>);

impl Processes {
    /// These of the job have it open now, with so much of its memory.
    pub(super) fn see(&mut self, mine: &[(u32, u64)], command_of: impl Fn(u32) -> String) {
        for (pid, bytes) in mine {
            let Some(process) = self.entry(*pid, &command_of) else { continue };
            process.memory_peak_bytes = process.memory_peak_bytes.max(*bytes);
        }
    }

    /// The job's time of a window, by the percents of the processes that had it.
    pub(super) fn use_up(&mut self, us: u64, records: &[(u32, u64)], command_of: impl Fn(u32) -> String) {
        let whole: u64 = records.iter().map(|(_, percent)| percent).sum();
        for (pid, percent) in records.iter().filter(|(_, percent)| *percent > 0) {
            let Some(process) = self.entry(*pid, &command_of) else { continue };
            let part = u128::from(us) * u128::from(*percent) / u128::from(whole.max(1));
            let busy = process.busy_seconds.unwrap_or_default();
            process.busy_seconds = Some(Microseconds(busy.0 + u64::try_from(part).unwrap_or(0)));
        }
    }

    /// Where there is no room, who did least makes some.
    fn entry(&mut self, pid: u32, command_of: &impl Fn(u32) -> String) -> Option<&mut GpuProcess> {
        if self.0.len() >= KNOWN_MAX && !self.0.contains_key(&pid) {
            let least = self.0.values().min_by_key(|process| rank(process)).map(|process| process.pid)?;
            self.0.remove(&least);
        }
        let new = || GpuProcess { pid, command: command_of(pid), ..GpuProcess::default() };
        Some(self.0.entry(pid).or_insert_with(new))
    }

    /// Those that used most of it.
    pub(super) fn told(&self) -> Vec<GpuProcess> {
        let mut told: Vec<_> = self.0.values().cloned().collect();
        told.sort_by_key(|process| Reverse(rank(process)));
        told.truncate(TOLD_MAX);
        told
    }
}

fn rank(process: &GpuProcess) -> (u64, u64) {
    (process.busy_seconds.unwrap_or_default().0, process.memory_peak_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(pid: u32) -> String {
        format!("p{pid}")
    }

    #[test]
    fn each_has_its_part_of_the_jobs_time_and_its_own_memory() {
        let mut processes = Processes::default();
        processes.see(&[(7, 100), (8, 300)], name);
        processes.use_up(900_000, &[(7, 60), (8, 30)], name);
        processes.see(&[(7, 50)], name);
        // One that came and went between two looks is known by its record alone.
        processes.use_up(100_000, &[(9, 10), (8, 0)], name);
        let told: Vec<_> =
            processes.told().into_iter().map(|one| (one.pid, one.busy_seconds, one.memory_peak_bytes)).collect();
        let us = |us| Some(Microseconds(us));
        assert_eq!(told, [(7, us(600_000), 100), (8, us(300_000), 300), (9, us(100_000), 0)]);
        assert_eq!(processes.told()[2].command, "p9");
    }

    #[test]
    fn a_job_that_starts_processes_without_end_takes_no_memory_without_end() {
        let mut processes = Processes::default();
        processes.use_up(1_000_000, &[(1, 99)], name);
        for pid in 2..100_000 {
            processes.see(&[(pid, 1)], name);
        }
        assert_eq!(processes.0.len(), KNOWN_MAX);
        let told = processes.told();
        assert_eq!((told.len(), told[0].pid, told[0].busy_seconds), (TOLD_MAX, 1, Some(Microseconds(1_000_000))));
    }

    #[test]
    fn time_that_cannot_be_told_apart_is_nobodys() {
        let mut processes = Processes::default();
        processes.see(&[(7, 100), (8, 300)], name);
        processes.use_up(900_000, &[], name);
        assert!(processes.told().iter().all(|one| one.busy_seconds.is_none()));
    }
}
