//! Whether an operator stopped the job, asked of a ledger service beside the reports: the question is kept there until it is so, and
//! then asked anew. A service that answers late or not at all keeps no report waiting.

use std::thread::Builder;
use std::time::Duration;

use uuid::Uuid;

use crate::ledger::views::{Query, View};
use crate::ledger::{Ledger, LedgerError};
use crate::sys::clock::{Clock, SystemClock};

const STACK_BYTES: usize = 256 * 1024;
/// How long a question is kept.
const KEPT_MS: u64 = 55_000;
/// A service that answers sooner keeps no questions, since it is stopping or too busy: it is asked again after so long at least, and up
/// to five times that, so that those of many jobs do not come back together.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Asks until the job is stopped, or until nobody wants to know: `is_wanted` is called after each answer, and `stopped` once. `before` is
/// what a service of before is asked.
///
/// # Errors
/// Where no thread can be started.
pub(super) fn watch(
    mut ledger: Box<dyn Ledger>,
    attempt: Uuid,
    before: Query,
    is_wanted: impl Fn() -> bool + Send + 'static,
    stopped: impl FnOnce() + Send + 'static,
) -> std::io::Result<()> {
    let asks = move || {
        let mut query = Query::AttemptStop { attempt, wait_ms: KEPT_MS };
        let mut failed = 0;
        while is_wanted() {
            let asked_us = SystemClock.boottime_us();
            let answer = ledger.read(&query);
            let took = Duration::from_micros(SystemClock.boottime_us().saturating_sub(asked_us));
            failed = if answer.is_ok() { 0 } else { failed + 1 };
            match answer {
                Ok(View::Stopped(true)) => return stopped(),
                // A service of before has no such question: it is asked the one that it knows, each second.
                Err(LedgerError::Missing(_) | LedgerError::Refused(_)) if query != before => query = before.clone(),
                Ok(_) if took.as_millis() * 2 > u128::from(KEPT_MS) => {}
                Ok(_) | Err(_) => std::thread::sleep(pause_after(failed, Uuid::new_v4())),
            }
        }
    };
    Builder::new().name("stops".to_owned()).stack_size(STACK_BYTES).spawn(asks).map(|_| ())
}

/// After so many failures in a row; `random` spreads those of many jobs.
fn pause_after(failed: u32, random: Uuid) -> Duration {
    let least = PAUSE.saturating_mul(1 << failed.min(5)).min(PAUSE_MAX);
    let part = u32::from(random.as_bytes()[0]);
    least.saturating_add(least.saturating_mul(4 * part) / 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_spread() {
        let seconds = |failed, part| pause_after(failed, Uuid::from_bytes([part; 16])).as_secs();
        assert_eq!(
            [seconds(0, 0), seconds(0, 255), seconds(1, 0), seconds(3, 0), seconds(9, 0), seconds(9, 255)],
            [1, 5, 2, 8, 30, 150]
        );
    }
}
