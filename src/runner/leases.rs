//! Between the ledger's words, which are durations, and the state machine's, which are times of this machine.

use uuid::Uuid;

use super::keeper::end_of;
use crate::domain::job::{Grant, Job, NextGrant, ReportDue, Verdict};
use crate::ledger::protocol::{ClosedPeriod, Decision, Lease, Report, Resources};

fn after_ms(sent_us: u64, ms: u64) -> u64 {
    sent_us.saturating_add(ms.saturating_mul(1_000))
}

/// A lease, counted from when its request was sent: no delay of the answer can make it longer than the ledger meant.
#[must_use]
pub fn grant(lease: &Lease, sent_us: u64) -> Grant {
    Grant {
        version: lease.version,
        ceiling: lease.ceiling,
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
        Decision::Wait { retry_in_ms } => Verdict::Wait { ask_at_us: after_ms(sent_us, retry_in_ms) },
        Decision::Stop(reason) => Verdict::Stop(end_of(reason)),
    }
}

/// The report that the state machine wants.
#[must_use]
pub fn report(attempt: Uuid, due: &ReportDue, job: &Job, resources: Resources) -> Report {
    Report {
        attempt,
        seq: due.seq,
        usage: job.usage().clone(),
        period: due.period,
        closed: due.closed.as_ref().map(|(period, usage)| ClosedPeriod { period: *period, usage: usage.clone() }),
        ceiling_version: due.ceiling_version,
        resources,
        waiting: due.waiting,
    }
}
