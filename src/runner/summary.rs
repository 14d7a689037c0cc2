//! What is said at the end, on standard error. Programs read the receipt; people and `grep` read this.

use super::grace::Remainder;
use super::options::{Grace, RunOptions};
use super::receipt::Receipt;
use crate::domain::units::{Microseconds, Nanocredits};
use crate::ledger::protocol::{Balance, FinishAnswer, Reason, StopReason};

/// Credits for people.
#[must_use]
pub fn credits(amount: Nanocredits) -> String {
    amount.for_people()
}

/// The same, where there may be no limit.
#[must_use]
pub fn credits_or_none(amount: Option<Nanocredits>) -> String {
    amount.map_or("no limit".to_owned(), credits)
}

/// Seconds for people.
#[must_use]
pub fn seconds(time: Microseconds) -> String {
    time.for_people()
}

fn gpu_seconds(receipt: &Receipt) -> String {
    if receipt.gpu.devices.is_empty() {
        return String::new();
    }
    format!(", {} s GPU", seconds(receipt.gpu.busy_seconds))
}

fn left(balance: Balance) -> String {
    match (balance.left, balance.limit) {
        (Some(left), Some(limit)) => format!("{} of {} credits left", credits(left), credits(limit)),
        _ => "no limit".to_owned(),
    }
}

/// The ledger has taken the end.
pub(super) fn ended(options: &RunOptions, receipt: &Receipt, answer: &FinishAnswer, lines: &mut Vec<String>) {
    lines.extend(stopped(receipt, answer.balance.suspended));
    if options.quiet {
        return;
    }
    let mut line = format!(
        "jobmeter: {} s CPU{} in {} s, {} credits charged, {}",
        seconds(receipt.cpu.total_seconds),
        gpu_seconds(receipt),
        seconds(receipt.time.wall_seconds),
        credits(answer.charged.total),
        left(answer.balance),
    );
    if answer.overshoot > Nanocredits::ZERO {
        line.push_str(&format!("; {} credits burned past the ceiling were not charged", credits(answer.overshoot)));
    }
    lines.push(line);
}

/// The ledger has not.
pub(super) fn ended_unacknowledged(receipt: &Receipt, lines: &mut Vec<String>) {
    lines.extend(stopped(receipt, false));
}

fn stopped(receipt: &Receipt, is_suspended: bool) -> Option<String> {
    let what = match receipt.outcome.reason {
        Reason::CreditsExhausted => "credits exhausted",
        Reason::JobLimit => "the job's own limit is reached",
        Reason::OperatorStop if is_suspended => "by an operator, who has suspended the account,",
        Reason::OperatorStop => "by an operator",
        Reason::LeaseExpired => "the ledger did not answer until the lease and the hold were over",
        Reason::Oom => "out of memory",
        Reason::MeterLost => "the meter was lost",
        Reason::Unkillable => "but some processes do not die",
        Reason::Completed | Reason::Failed | Reason::Signalled | Reason::Refused => return None,
    };
    let mut line = format!(
        "jobmeter: stopped: {what} after {} s CPU{} (job {}, attempt {})",
        seconds(receipt.cpu.total_seconds),
        gpu_seconds(receipt),
        receipt.job.id,
        receipt.job.attempt
    );
    if !receipt.outcome.unkillable.is_empty() {
        line.push_str(&format!(": process ids {:?}", receipt.outcome.unkillable));
    }
    Some(line)
}

/// What was killed although the command had ended by itself.
pub(super) fn left_behind(options: &RunOptions, remainder: &Remainder, processes: usize) -> Option<String> {
    let Grace::For(grace) = options.grace else { return None };
    let why = if remainder.is_out_of_credits() {
        "when the credits came to an end".to_owned()
    } else if remainder.has_overstayed() {
        let seconds = grace.as_secs_f64();
        format!("after a grace of {seconds} s (--grace sets another, --wait-descendants waits for their end)")
    } else {
        return None;
    };
    if options.quiet || processes == 0 {
        return None;
    }
    let what = if processes == 1 { "1 process".to_owned() } else { format!("{processes} processes") };
    Some(format!("jobmeter: killed {what} that the command had left behind, {why}"))
}

/// The ledger leases nothing yet.
pub(super) fn waits(retry_in_ms: u64) -> String {
    format!("jobmeter: waiting: the ledger was restored and starts nothing new for {} s", retry_in_ms.div_ceil(1_000))
}

/// Nothing was started.
pub(super) fn refused(options: &RunOptions, reason: StopReason, balance: Balance, resets_in_ms: u64) -> String {
    if balance.suspended && reason == StopReason::OperatorStop {
        let user = &options.user;
        return format!("jobmeter: refused: an operator has suspended the account of {user}; nothing was started");
    }
    let why = match reason {
        StopReason::CreditsExhausted => "credits exhausted",
        StopReason::JobLimit => "the job's own limit is reached",
        StopReason::OperatorStop => "the job was stopped by an operator",
    };
    let minutes = resets_in_ms / 60_000;
    format!(
        "jobmeter: refused: {why} for {} ({}); resets in {} h {:02} min; nothing was started",
        options.user,
        left(balance),
        minutes / 60,
        minutes % 60
    )
}
