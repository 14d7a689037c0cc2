//! Who looks after the job while the keeper stands still, stopped by somebody or kept from the CPUs: a scheduler that suspends a job
//! stops its meter along with it. What matters is whether the job burns meanwhile, and the counter tells.

use super::leftovers;
use crate::domain::units::Microseconds;
use crate::meter::select::Plan;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::shared::SharedPage;

/// Between two looks at most.
const LOOK_MAX_US: u64 = 1_000_000;
/// And at least: what burns meanwhile is within the guard.
const LOOK_MIN_US: u64 = 1_000;

/// A look that comes so much later than it was due is none to compare with.
const LATE_US: u64 = 100_000;

/// In the keeper's place, for as long as it does not answer.
#[derive(Debug)]
pub(super) struct StandIn {
    /// What is said of the keeper where the job has to be ended.
    pub(super) why: &'static str,
    /// The keeper was stopped, and was not continued since.
    pub(super) is_stopped: bool,
    look_at_us: u64,
    last: Option<Microseconds>,
}

impl StandIn {
    pub(super) const fn new(why: &'static str, is_stopped: bool) -> Self {
        Self { why, is_stopped, look_at_us: 0, last: None }
    }

    /// When to look next, by `CLOCK_BOOTTIME`.
    pub(super) const fn look_at_us(&self) -> u64 {
        self.look_at_us
    }

    /// Reads; whether the job may go on. It may not where it burns on at its ceiling or after its lease, nor where what it burns cannot be
    /// read from here.
    pub(super) fn lets_go_on(&mut self, shared: SharedPage, plan: &Plan) -> bool {
        let now_us = SystemClock.boottime_us();
        let (Some(stop_at), Some(read)) = (shared.stop_at(), leftovers::read_group(plan.containment())) else {
            return false;
        };
        // This process may have stood still as well: what was burned before that is no sign.
        let is_late = now_us.saturating_sub(self.look_at_us) > LATE_US;
        let burns = self.last.replace(read).is_some_and(|last| read > last && !is_late);
        let left = stop_at.0.saturating_sub(read.0);
        let next_us = plan.highest_rate().earliest_us(left).clamp(LOOK_MIN_US, LOOK_MAX_US);
        // A running thread's time is up to a tick old.
        self.look_at_us = now_us.saturating_add(if left == 0 { plan.tick_us() } else { next_us });
        !(burns && (left == 0 || now_us >= shared.lease_ends_us()))
    }
}
