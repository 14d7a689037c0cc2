//! CPU time by an inherited task clock, which counts every task that the command starts, also those that it leaves; and by
//! the clocks of the tree, where that one does not count.
//!
//! Measured on Linux 6.18, of the inherited clock: it is taken from a task whose exec makes it undumpable (set-uid, or
//! a program that may not be read), with all that this task starts. It stops before a task's memory is torn down: 2 % of
//! children of 5 ms, 9 % of Python processes that end at once. And it counts the time that the hypervisor has taken meanwhile,
//! which no group and no other clock counts: 0.3 to 1.4 % on a busy machine.
//!
//! The tree's sum is exact but for children that nobody waits for (their parent ignores SIGCHLD). Neither is ever more than what
//! was burned, once the hypervisor's part is taken off, so the larger is the figure. Left is a job that does both: what its children
//! burned behind a set-uid program and nobody waited for is lost, and the receipt says that it may be.

use nix::unistd::Pid;

use super::steal::Stolen;
use super::tree_clock::TreeClock;
use super::{CpuSource, Meter, MeterError, Reading};
use crate::domain::units::Microseconds;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::perf::TaskClock;
use crate::sys::process::own_cpu_us;
use crate::sys::shared::SharedPage;

/// Looking at the tree costs at most the 64th part of a CPU, and the 8th where the tree alone knows what is burned.
const TREE_COSTS: (u64, u64) = (64, 8);
/// But the tree is not left alone for longer.
const TREE_LOOK_MAX_US: u64 = 100_000;
/// By so much the tree is ahead of the clock for other reasons: the command before its exec, and the ends of processes.
const AHEAD_US: u64 = 20_000;

/// The counter of one command.
#[derive(Debug)]
pub struct PerfMeter {
    clock: TaskClock,
    tree: TreeClock,
    tree_us: u64,
    tree_at_us: u64,
    stolen: Stolen,
    shared: SharedPage,
    highest_us: u64,
}

impl PerfMeter {
    /// Opens it on the command's process, before its exec; `front` had waited for `before_us` before.
    ///
    /// # Errors
    /// Where the kernel does not permit it.
    pub fn new(child: Pid, front: i32, before_us: u64, shared: SharedPage) -> Result<Self, MeterError> {
        let clock = open(child)?;
        let tree = TreeClock::new(front, before_us, Some(shared));
        Ok(Self { clock, tree, tree_us: 0, tree_at_us: 0, stolen: Stolen::from_now(), shared, highest_us: 0 })
    }

    fn look_at_tree(&mut self, clock_us: u64) {
        let now_us = SystemClock.boottime_us();
        if now_us < self.tree_at_us {
            return;
        }
        let before_us = own_cpu_us();
        // Without it the inherited clock is what there is.
        if let Ok(reading) = self.tree.read() {
            self.tree_us = reading.cpu_seconds.0;
        }
        let is_ahead = self.tree_us > clock_us.saturating_add(clock_us / 64).saturating_add(AHEAD_US);
        let share = if is_ahead { TREE_COSTS.1 } else { TREE_COSTS.0 };
        let pause_us = own_cpu_us().saturating_sub(before_us).saturating_mul(share).min(TREE_LOOK_MAX_US);
        self.tree_at_us = now_us.saturating_add(pause_us);
    }
}

/// Whether it is permitted at all, seen on this process itself.
///
/// # Errors
/// Where it is not.
pub fn permitted() -> Result<(), MeterError> {
    open(nix::unistd::getpid()).map(drop)
}

fn open(pid: Pid) -> Result<TaskClock, MeterError> {
    TaskClock::open(pid).map_err(|error| MeterError::Unusable {
        source_name: "perf",
        why: format!("perf_event_open: {error}; sysctl kernel.perf_event_paranoid=1 would permit it"),
    })
}

impl Meter for PerfMeter {
    fn read(&mut self) -> Result<Reading, MeterError> {
        let ns =
            self.clock.read_ns().map_err(|source| MeterError::Io { what: "the perf task clock".to_owned(), source })?;
        let clock_us = ns.div_ceil(1_000);
        self.look_at_tree(clock_us);
        let tree_us = self.tree_us.max(self.shared.reaped_us());
        let clock_us = if clock_us > tree_us { self.stolen.taken_off(clock_us) } else { clock_us };
        self.highest_us = self.highest_us.max(clock_us).max(tree_us);
        Ok(Reading { cpu_seconds: Microseconds(self.highest_us), ..Reading::default() })
    }

    fn source(&self) -> CpuSource {
        CpuSource::Perf
    }

    fn error_bound(&self) -> Option<Microseconds> {
        // No document of the kernel states one.
        None
    }

    fn degraded(&self) -> Option<&'static str> {
        self.tree.is_lossy().then_some(
            "perf: a process of the job ignores SIGCHLD or waits for no child: what the kernel does at the end of its children is missing, and \
             what they burned in programs that perf does not see (set-uid or unreadable ones)",
        )
    }
}
