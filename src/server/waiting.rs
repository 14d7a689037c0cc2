//! Attempts that wait for credits which others hold: their question is kept, and answered as soon as something of their
//! account becomes free.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::App;
use super::auth::Caller;
use super::posting::Work;
use super::problem::Problem;
use crate::ledger::LedgerError;
use crate::ledger::book::Outcome;
use crate::ledger::protocol::{Decision, Report, ReportAnswer};
use crate::sys::clock::{Clock, SystemClock};

/// A question is kept for so long at most: a sidecar whose job ends meanwhile has its last word to say.
const KEPT_MAX_US: u64 = 2_000_000;
/// What another replica has freed is not told here: the books are asked so often at least.
const LOOK: Duration = Duration::from_millis(500);
/// And at most, however much becomes free.
const PACE: Duration = Duration::from_millis(20);

/// Who is told when something becomes free, by account.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<HashMap<String, Arc<Notify>>>);

impl Waiting {
    /// Something of these accounts has become free.
    pub(super) fn wake(&self, owners: &[String]) {
        if owners.is_empty() {
            return;
        }
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owners.iter().filter_map(|owner| waiting.get(owner)).for_each(|notify| notify.notify_waiters());
    }

    fn of(&self, owner: &str) -> Arc<Notify> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those for whom nobody waits any more.
        waiting.retain(|_, notify| Arc::strong_count(notify) > 1);
        Arc::clone(waiting.entry(owner.to_owned()).or_default())
    }
}

/// Asks, and where the answer is to wait, again when something has become free; unless the caller's key has ended meanwhile.
pub(super) async fn report(app: &App, report: &Report, caller: &Caller) -> Result<ReportAnswer, Problem> {
    let asked_us = SystemClock.boottime_us();
    let mut stopping = app.stopping.clone();
    let mut inside = None;
    loop {
        let work = Work::Report(Box::new(report.clone()));
        let Outcome::Reported { mut answer, owner } = app.poster.ask(work, caller.asker()).await? else {
            return Err(LedgerError::unasked().into());
        };
        let kept_us = SystemClock.boottime_us().saturating_sub(asked_us);
        match &mut answer.decision {
            Decision::Wait { .. } if kept_us < KEPT_MAX_US && !*stopping.borrow() => {
                let freed = app.waiting.of(&owner);
                let inside = inside.get_or_insert_with(|| app.doors.enter(caller.door()));
                tokio::select! {
                    () = inside.ended() => return Err(Problem::unauthorized()),
                    () = freed.notified() => tokio::time::sleep(PACE).await,
                    () = tokio::time::sleep(LOOK) => {}
                    _ = stopping.changed() => {}
                }
            }
            Decision::Wait { retry_in_ms } => {
                *retry_in_ms = if *stopping.borrow() { *retry_in_ms } else { 0 };
                return Ok(answer);
            }
            Decision::Lease(lease) => {
                let now_us = SystemClock.boottime_us();
                lease.report_in_ms = app.watched.report_in_ms(&owner, now_us, lease.report_in_ms);
                // The sidecar counts from when it has asked.
                *lease = lease.later(kept_us / 1_000);
                return Ok(answer);
            }
            Decision::Stop(_) => return Ok(answer),
        }
    }
}
