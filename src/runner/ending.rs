//! The end of an attempt: freeze, read, kill, settle with the ledger, write the receipt, say it.

use std::time::Duration;

use super::keeper::{Keeper, Running};
use super::receipt::{CpuPart, IoPart, JobPart, MemoryPart, MeterPart, OutcomePart, Receipt, TimePart, rfc3339};
use super::spool::Record;
use super::summary;
use super::uplink::{Answer, Question, Uplink};
use super::wire::{Exit, ExitKind, SpawnFailure};
use crate::domain::job::End;
use crate::domain::printable::printable_json;
use crate::domain::rating::RateCard;
use crate::domain::units::Microseconds;
use crate::domain::usage::Usage;
use crate::ledger::LedgerError;
use crate::ledger::protocol::{Balance, ClosedPeriod, Finish, FinishAnswer, OpenAnswer, Reason, StopReason};
use crate::ledger::receipt::Credits;
use crate::ledger::receipt_text::ReceiptText;
use crate::meter::breakdown::Breakdown;
use crate::meter::gpu::watch::END_WAIT_MAX;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::process::{cpu_us_of, exit_now, is_beyond_reach, own_cpu_us};

/// A process inside one 3 GiB page population cannot be frozen and burns on; it is killed after this wait.
pub(super) const FREEZE_WAIT_MAX: Duration = Duration::from_millis(5);
/// What has not died of SIGKILL after this is unkillable.
pub(super) const KILL_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long the end waits for a ledger that does not answer, before it leaves the burn to the spool.
const FINISH_WAIT_MAX_US: u64 = 5_000_000;
/// A question that was asked within that time may be answered so much later.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);
const FINISH_RETRY: Duration = Duration::from_millis(200);

/// What the front prints, and how it ends.
pub(super) type Ended = (Vec<String>, Exit, bool);

/// The part of the end that does not depend on why.
struct Settled {
    usage: Usage,
    teardown: Microseconds,
    /// What does not die, where something does not.
    unkillable: Option<Vec<i32>>,
    /// What was killed although the command had ended.
    left_behind: usize,
    breakdown: Breakdown,
    wall: Microseconds,
    ended_at_us: i64,
}

impl Settled {
    /// Why some of it lives on, where no wait could have changed that.
    fn beyond_reach(&self) -> Option<String> {
        let pids: Vec<i32> = self.unkillable.iter().flatten().copied().filter(|pid| is_beyond_reach(*pid)).collect();
        (!pids.is_empty()).then(|| {
            format!(
                "process ids {pids:?} of the job have become another user, whom this user may not signal: they run on, and \
                 nobody meters them any more; a cgroup of the job's own would end them (see `jobmeter doctor`)"
            )
        })
    }
}

/// Ends a job that was started.
pub(super) fn end(keeper: &mut Keeper<'_>, mut running: Running, end: End) -> Ended {
    if !keeper.plan.containment().can_be_seen() {
        // Somebody has left it no descriptor: the front, whose children all of it become, ends it without.
        exit_now(125);
    }
    // The front must not take what is awaited here for a keeper that hangs.
    keeper.trust_for(FREEZE_WAIT_MAX + KILL_WAIT_MAX + END_WAIT_MAX);
    let settled = settle(keeper, &mut running, end);
    let is_removed = keeper.plan.discard();
    // There is no command any more that a signal could have reached.
    drop(keeper.witness.take());
    keeper.trust_for(Duration::from_micros(FINISH_WAIT_MAX_US) + ANSWER_WAIT_MAX);
    keeper.continue_front(&running);
    if running.ended.is_none() && end != End::MeterLost && keeper.options.attach.is_none() {
        running.ended = keeper.await_command_end(&running);
    }
    let reason = reason_of(end, running.ended, &settled);
    let receipt = receipt(keeper, &running, &settled, reason);
    let answer = tell_ledger(keeper, &running, &settled, reason, &receipt);
    // The next jobmeter comes back for what does not die, or for the groups.
    if answer.is_ok() && is_removed {
        keeper.spool.acknowledge().ok();
    }
    let receipt = complete(receipt, &answer, &running.job.rules().rates);
    let mut lines = Vec::new();
    lines.extend(settled.beyond_reach().map(|why| format!("jobmeter: warning: {why}")));
    write_receipt(keeper, &receipt, &mut lines);
    super::termination::of_receipt(keeper.options.termination_log.as_deref(), &receipt);
    if let Some(remainder) = &running.remainder {
        lines.extend(summary::left_behind(keeper.options, remainder, settled.left_behind));
    }
    match &answer {
        Ok(answer) => summary::ended(keeper.options, &receipt, answer, &mut lines),
        Err(error) => {
            summary::ended_unacknowledged(&receipt, &mut lines);
            lines.push(format!(
                "jobmeter: warning: the ledger did not take the last usage: {error}\n{}",
                keeper.spool.kept_in()
            ));
        }
    }
    (lines, exit_of(reason, running.ended, keeper.options.exhausted_status), reason != Reason::Completed)
}

/// Freeze, read, kill, read again. The reading at the freeze is charged; what the kill burns is teardown.
fn settle(keeper: &mut Keeper<'_>, running: &mut Running, end: End) -> Settled {
    keeper.recapture_strays(running);
    let populated = keeper.plan.containment().is_populated();
    if populated && !running.job.is_held() {
        keeper.plan.containment().freeze(FREEZE_WAIT_MAX);
    }
    let now_us = SystemClock.boottime_us();
    running.figures.held_until(now_us);
    running.figures.cut_gpus(now_us);
    let mut usage = match running.figures.look(now_us, &mut keeper.plan) {
        Ok(usage) => running.job.usage().merged(&usage),
        Err(_) => running.job.usage().clone(),
    };
    running.job.settle(&usage);
    keeper.write_spool(&running.job);
    let breakdown = running.figures.breakdown(&keeper.plan);
    let mut unkillable = None;
    let mut left_behind = 0;
    let mut teardown = Microseconds::ZERO;
    if populated {
        if end == End::Exited {
            left_behind = keeper.plan.containment().processes().len();
        }
        if !keeper.plan.containment().kill(KILL_WAIT_MAX) {
            unkillable = Some(keeper.plan.containment().processes());
        }
        teardown = running.figures.burned_since();
    }
    unkillable = unkillable.or_else(|| keeper.end_orphans(&running.members));
    running.figures.finish_gpus(&mut usage, now_us);
    if usage != *running.job.usage() {
        running.job.settle(&usage);
        keeper.write_spool(&running.job);
    }
    let wall = Microseconds(now_us.saturating_sub(keeper.attempt.started_boottime_us));
    Settled { usage, teardown, unkillable, left_behind, breakdown, wall, ended_at_us: SystemClock.realtime_us() }
}

fn reason_of(end: End, ended: Option<ExitKind>, settled: &Settled) -> Reason {
    if settled.unkillable.is_some() {
        return Reason::Unkillable;
    }
    match (end, ended) {
        (End::CreditsExhausted, _) => Reason::CreditsExhausted,
        (End::JobLimit, _) => Reason::JobLimit,
        (End::OperatorStop, _) => Reason::OperatorStop,
        (End::LeaseExpired, _) => Reason::LeaseExpired,
        (End::MeterLost, _) | (End::Exited, None) => Reason::MeterLost,
        (End::Exited, Some(ExitKind::Exited(0))) => Reason::Completed,
        (End::Exited, Some(ExitKind::Exited(_))) => Reason::Failed,
        (End::Exited, Some(ExitKind::Signalled(9))) if settled.breakdown.oom_kills.is_some_and(|kills| kills > 0) => {
            Reason::Oom
        }
        (End::Exited, Some(ExitKind::Signalled(_))) => Reason::Signalled,
    }
}

fn exit_of(reason: Reason, ended: Option<ExitKind>, exhausted_status: u8) -> Exit {
    match (reason, ended) {
        (Reason::CreditsExhausted | Reason::JobLimit | Reason::Refused, _) => Exit::Status(exhausted_status),
        (Reason::OperatorStop, _) => Exit::Status(137),
        (Reason::Completed | Reason::Failed | Reason::Signalled | Reason::Oom, Some(ended)) => Exit::AsCommand(ended),
        _ => Exit::Status(125),
    }
}

fn outcome(keeper: &Keeper<'_>, running: &Running, settled: &Settled, reason: Reason) -> OutcomePart {
    let tamper = if running.strayed { "detected" } else { keeper.plan.tamper() };
    let (of_figures, of_end) = (running.figures.degraded(), settled.beyond_reach());
    let degraded = keeper.plan.degraded().into_iter().chain(of_figures).chain(of_end).collect();
    OutcomePart {
        unkillable: settled.unkillable.clone().unwrap_or_default(),
        left_behind: settled.left_behind,
        ..OutcomePart::new(reason, running.ended, tamper, degraded)
    }
}

fn receipt(keeper: &Keeper<'_>, running: &Running, settled: &Settled, reason: Reason) -> Receipt {
    let (source, error_bound) = running.figures.source();
    let reading = running.figures.last();
    let (breakdown, figures) = (&settled.breakdown, &running.figures);
    let mut cpu = CpuPart {
        source,
        error_bound_seconds: error_bound,
        total_seconds: settled.usage.cpu_used_seconds,
        user_seconds: reading.user_seconds,
        system_seconds: reading.system_seconds,
        allocated_seconds: settled.usage.cpu_allocated_seconds,
        throttled_seconds: None,
        pressure_seconds: None,
        steal_seconds: None,
        teardown_seconds: settled.teardown,
        busiest: Vec::new(),
    };
    cpu.take(breakdown);
    Receipt {
        schema: "jobmeter.receipt/1".to_owned(),
        job: JobPart::new(&keeper.attempt.identity),
        outcome: outcome(keeper, running, settled, reason),
        time: TimePart {
            started_at: rfc3339(keeper.attempt.started_realtime_us),
            ended_at: rfc3339(settled.ended_at_us),
            wall_seconds: settled.wall,
            held_seconds: Microseconds(figures.held_us()),
            frozen_seconds: breakdown.frozen_seconds,
            notice_sent_at: figures.notice_sent_at_us.map(rfc3339),
        },
        cpu,
        memory: MemoryPart { peak_bytes: breakdown.peak_bytes, oom_kills: breakdown.oom_kills },
        io: IoPart { read_bytes: breakdown.read_bytes, written_bytes: breakdown.written_bytes },
        gpu: running.figures.gpu_part(&running.job.rules().rates),
        tokens: settled.usage.tokens,
        virtual_time: running.job.rules().rates.virtual_time(&settled.usage),
        credits: None,
        meter: MeterPart {
            cpu_seconds: Microseconds(own_cpu_us() + cpu_us_of(keeper.front) + running.figures.helper_cpu_us()),
            readings: figures.readings,
            reports: figures.reports,
            ledger_answers: figures.ledger_answers.clone(),
            wake_lateness_max_seconds: Microseconds(figures.lateness_max_us),
        },
    }
}

/// The final figures go to the spool first and then to the ledger, so that no death in between loses them.
fn tell_ledger(
    keeper: &mut Keeper<'_>,
    running: &Running,
    settled: &Settled,
    reason: Reason,
    receipt: &Receipt,
) -> Result<FinishAnswer, LedgerError> {
    let (period, closed) = running.job.period();
    let finish = Finish {
        attempt: keeper.attempt.identity.attempt,
        usage: settled.usage.clone(),
        period,
        closed: closed.map(|(period, usage)| ClosedPeriod { period: *period, usage: usage.clone() }),
        reason,
        receipt: ReceiptText::of(receipt),
        secret: Some(keeper.attempt.secret),
    };
    let record = Record {
        usage: settled.usage.clone(),
        period: Some(period),
        at_us: settled.ended_at_us,
        rates_version: Some(running.job.rules().rates.version),
        finish: Some(finish.clone()),
        ..Record::default()
    };
    keeper.spool.write(record).ok();
    ask_to_finish(keeper, running, &finish)
}

fn ask_to_finish(keeper: &Keeper<'_>, running: &Running, finish: &Finish) -> Result<FinishAnswer, LedgerError> {
    let until_us = SystemClock.boottime_us().saturating_add(FINISH_WAIT_MAX_US);
    loop {
        running.uplink.ask(Question::Finish(Box::new(finish.clone())));
        let result = loop {
            match running.uplink.wait(until_us.saturating_sub(SystemClock.boottime_us())) {
                Some(answered) => {
                    if let Answer::Finished(result) = answered.answer {
                        break result;
                    }
                }
                None => return Err(LedgerError::Unavailable("it did not answer within 5 s".to_owned())),
            }
        };
        match result {
            Err(LedgerError::Unavailable(_)) if SystemClock.boottime_us() < until_us => keeper.pause(FINISH_RETRY),
            result => return result,
        }
    }
}

fn complete(mut receipt: Receipt, answer: &Result<FinishAnswer, LedgerError>, rates: &RateCard) -> Receipt {
    receipt.credits =
        answer.as_ref().ok().map(|answer| Credits::new(&answer.charged, answer.overshoot, answer.balance, rates));
    receipt
}

fn write_receipt(keeper: &Keeper<'_>, receipt: &Receipt, lines: &mut Vec<String>) {
    let Some(file) = &keeper.receipt else { return };
    let written = serde_json::to_string_pretty(receipt).map_err(std::io::Error::from).and_then(|json| {
        // It may be a terminal.
        file.write(format!("{}\n", printable_json(&json)).as_bytes())
    });
    if let Err(error) = written {
        lines.push(format!("jobmeter: error: cannot write the receipt {}: {error}", file.path().display()));
    }
}

/// The command did not start: nothing was burned that anyone asked for.
pub(super) fn not_started(keeper: &mut Keeper<'_>, mut running: Running, failure: &SpawnFailure) -> Ended {
    running.ended = Some(ExitKind::Exited(i32::from(failure.status)));
    let (_, _, killed) = end(keeper, running, End::Exited);
    (vec![format!("jobmeter: error: {}", failure.message)], Exit::Status(failure.status), killed)
}

/// Nothing is to be started any more: what the ledger has opened, or is about to, is closed again, so that nothing stays held.
pub(super) fn give_up(keeper: &Keeper<'_>, uplink: &Uplink) {
    let until_us = SystemClock.boottime_us().saturating_add(FINISH_WAIT_MAX_US);
    let left_us = || until_us.saturating_sub(SystemClock.boottime_us());
    while let Some(answered) = uplink.wait(left_us()) {
        match answered.answer {
            Answer::Opened(Ok(OpenAnswer::Opened { lease, .. })) => {
                uplink.ask(Question::Finish(Box::new(unused(keeper, lease.period))));
            }
            // What it has open, the next jobmeter asks it.
            Answer::Opened(Err(LedgerError::Unavailable(_))) | Answer::Finished(Err(_)) => return,
            // It has nothing open, or nothing any more.
            Answer::Opened(_) | Answer::Finished(Ok(_)) => return keeper.nothing_started(),
            Answer::Reported { .. } | Answer::Stopped => {}
        }
    }
}

/// The end of an attempt that has burned nothing.
fn unused(keeper: &Keeper<'_>, period: i64) -> Finish {
    let identity = &keeper.attempt.identity;
    let outcome = OutcomePart::new(Reason::Signalled, None, "none", Vec::new());
    let started_us = keeper.attempt.started_realtime_us;
    let receipt = Receipt::bare(identity, keeper.plan.source(), outcome, started_us, SystemClock.realtime_us());
    Finish {
        attempt: identity.attempt,
        usage: Usage::default(),
        period,
        closed: None,
        reason: Reason::Signalled,
        receipt: ReceiptText::of(&receipt),
        secret: Some(keeper.attempt.secret),
    }
}

/// The ledger refused: nothing was started, and a retry later is safe.
pub(super) fn refused(keeper: &mut Keeper<'_>, reason: StopReason, balance: Balance, resets_in_ms: u64) -> Ended {
    keeper.nothing_started();
    let now_us = SystemClock.realtime_us();
    let outcome = OutcomePart::new(Reason::Refused, None, "none", Vec::new());
    let started_us = keeper.attempt.started_realtime_us;
    let receipt = Receipt::bare(&keeper.attempt.identity, keeper.plan.source(), outcome, started_us, now_us);
    let mut lines = vec![summary::refused(keeper.options, reason, balance, resets_in_ms)];
    write_receipt(keeper, &receipt, &mut lines);
    super::termination::of_receipt(keeper.options.termination_log.as_deref(), &receipt);
    (lines, Exit::Status(keeper.options.exhausted_status), false)
}
