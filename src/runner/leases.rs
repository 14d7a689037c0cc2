//! Between the ledger's words, which are durations, and the state machine's, which are times of this machine.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::domain::deadline::Bounds;
use crate::domain::job::{AccountState, End, Grant, Job, NextGrant, ReportDue, Verdict};
use crate::domain::lease::answer_us;
use crate::domain::units::Nanocredits;
use crate::ledger::protocol::{Balance, ClosedPeriod, Decision, Lease, Report, Resources, StopReason};
use crate::ledger::relay::Kept;

fn after_ms(sent_us: u64, ms: u64) -> u64 {
    sent_us.saturating_add(ms.saturating_mul(1_000))
}

/// The reason why a ledger stops an attempt, as the state machine sees it.
pub(super) const fn end_of(reason: StopReason) -> End {
    match reason {
        StopReason::CreditsExhausted => End::CreditsExhausted,
        StopReason::JobLimit => End::JobLimit,
        StopReason::OperatorStop => End::OperatorStop,
    }
}

/// The account as of an answer to a question of `at_us`.
pub(super) fn account_state(balance: Balance, burn_per_second: Nanocredits, at_us: u64) -> AccountState {
    AccountState { left: balance.left, burn_per_second, at_us }
}

/// A lease, counted from when its request was sent: no delay of the answer can make it longer than the ledger meant.
#[must_use]
pub fn grant(lease: &Lease, sent_us: u64) -> Grant {
    Grant {
        version: lease.version,
        ceiling: lease.ceiling,
        last: lease.last.map(end_of),
        unbounded: lease.unbounded,
        period: lease.period,
        ends_us: after_ms(sent_us, lease.lasts_ms),
        report_at_us: after_ms(sent_us, lease.report_in_ms),
        next: lease.next.map(|next| {
            let starts_us = after_ms(sent_us, next.starts_in_ms);
            let ends_us = after_ms(starts_us, next.lasts_ms);
            NextGrant { period: next.period, starts_us, amount: next.amount, ends_us }
        }),
    }
}

/// What the ledger decided.
#[must_use]
pub fn verdict(decision: Decision, sent_us: u64) -> Verdict {
    match decision {
        Decision::Lease(lease) => Verdict::Lease(grant(&lease, sent_us)),
        Decision::Wait { retry_in_ms: 0 } => Verdict::Wait { ask_at_us: None },
        Decision::Wait { retry_in_ms } => Verdict::Wait { ask_at_us: Some(after_ms(sent_us, retry_in_ms)) },
        Decision::Stop(reason) => Verdict::Stop(end_of(reason)),
    }
}

/// What the ledger is told of a job's bounds and of the GPUs that it could open, by their names: the rate that it can
/// keep up, and a time to stop with which that rate gives
/// at least the guard band by which the sidecar decides. Were the ledger's smaller, it would take a job for running that
/// its sidecar keeps frozen. A job that cannot be frozen at its ceiling is killed there, so that its slices have to last
/// until the ledger has answered, be the machine as busy as it may.
#[must_use]
pub fn resources(bounds: &Bounds, gpus: &BTreeMap<String, u64>, can_hold: bool) -> Resources {
    let mut gpu_models = gpus.clone();
    let gpus = gpu_models.remove("").unwrap_or(0);
    // One that can be frozen waits for its answer.
    let answer_us = if can_hold { 0 } else { answer_us(can_hold) };
    Resources {
        cpus_ppm: bounds.cpu.sustained_ppm(),
        gpus,
        gpu_models,
        stop_us: bounds.unseen_us().saturating_add(answer_us),
    }
}

/// What would be settled if nobody of jobmeter lived to say more.
#[must_use]
pub fn kept(attempt: Uuid, job: &Job) -> Kept {
    let (period, closed) = job.period();
    let closed = closed.map(|(period, usage)| ClosedPeriod { period: *period, usage: usage.clone() });
    Kept { attempt, usage: job.usage().clone(), period, closed }
}

/// The report that the state machine wants, but for the attempt's secret, of which that knows nothing.
#[must_use]
pub fn report(attempt: Uuid, due: &ReportDue, job: &Job, gpus: &BTreeMap<String, u64>) -> Report {
    Report {
        attempt,
        seq: due.seq,
        usage: job.usage().clone(),
        period: due.period,
        closed: due.closed.as_ref().map(|(period, usage)| ClosedPeriod { period: *period, usage: usage.clone() }),
        ceiling_version: due.ceiling_version,
        ceiling: job.grant().ceiling,
        resources: resources(&job.bounds(), gpus, job.rules().can_hold),
        waiting: due.waiting,
        secret: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::pedantic, reason = "a test, not an interface")]

    use proptest::prelude::*;

    use super::*;
    use crate::domain::deadline::{HighestRate, Quota};
    use crate::domain::job::{AccountState, Rules};
    use crate::domain::lease::burned_in;
    use crate::domain::rating::RateCard;
    use crate::domain::units::Nanocredits;

    proptest! {
        #![proptest_config(crate::properties::config())]

        /// A frozen job whose ceiling the ledger takes for far enough would wait until its hold is over (found by a keeper
        /// that woke late, and by a bandwidth limit).
        #[test]
        fn the_ledgers_guard_band_is_never_smaller_than_the_sidecars(
            cpus in 1..512u64, stop_us in 1_000..20_000u64, price in 0..10_000_000i64,
            gpus in 0..16u64, gpu_age_us in 0..15_000_000u64,
            quota in proptest::option::of((1_000..1_000_000u64, 1_000..1_000_000u64)),
        ) {
            let quota = quota.map(|(quota_us, period_us)| Quota { quota_us, period_us, burst_us: 0 });
            let cpu = HighestRate { cpus_ppm: cpus * 1_000_000, quota };
            let rates = RateCard { cpu_per_second: Nanocredits(price), ..RateCard::default() };
            let rules = Rules { rates: rates.clone(), interval_us: 1, hold_us: 1, can_hold: true, notice_before_us: None, spread: 0 };
            let lease = Lease { version: 1, ceiling: Nanocredits(0), period: 0, lasts_ms: 1, report_in_ms: 1, next: None, last: None, unbounded: false };
            let models = [("NVIDIA H200".to_owned(), gpus)].into();
            let bounds = Bounds { cpu, gpus_ppm: rates.gpus_ppm(&models), stop_us, gpu_age_us, gpu_step_us: 0 };
            let job = Job::new(rules, grant(&lease, 0), bounds, AccountState::default(), 0);
            let declared = resources(&bounds, &models, true).pace(&rates);
            let highest = rates.highest_rate_per_second(declared.cpus_ppm, declared.gpus_ppm);
            let of_ledger = burned_in(highest, declared.stop_us);
            prop_assert!(of_ledger >= job.guard(), "{of_ledger} < {}", job.guard());
        }
    }
}
