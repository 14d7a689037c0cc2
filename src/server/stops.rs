//! Sidecars that ask whether their job was stopped. Their questions are kept; twice a second one look for all of them says whether
//! anything was stopped anywhere, and only then is looked for whom.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::looks::{LOOKED_AT_MAX, Looks};
use super::pool::Sessions;
use crate::ledger::LedgerError;
use crate::ledger::store::{AttemptStop, StoreLedger};

/// What another replica, or a command beside the service, has stopped is told after this.
const LOOK: Duration = Duration::from_millis(500);
/// A look takes no longer.
const TELL_MAX: Duration = Duration::from_secs(5);

/// Questions that are kept, by attempt; each is told once its job was stopped.
#[derive(Debug, Default)]
pub(super) struct Stops {
    asked: Mutex<HashMap<Uuid, watch::Sender<bool>>>,
    look: Notify,
    /// At those who have just come.
    first: Looks,
}

impl Stops {
    /// Something was stopped here: who asks need not wait for the next look.
    pub(super) fn look(&self) {
        self.look.notify_one();
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Sender<bool>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question is kept while the answer lives, which turns true.
    pub(super) fn ask(&self, attempt: Uuid) -> watch::Receiver<bool> {
        self.all().entry(attempt).or_insert_with(|| watch::channel(false).0).subscribe()
    }

    /// What the books say now of an attempt that is asked about.
    pub(super) async fn find(&self, books: &Arc<Sessions>, attempt: Uuid) -> Result<Option<AttemptStop>, LedgerError> {
        let look = |attempts: Vec<Uuid>| books.with(move |ledger| ledger.attempt_stops(&attempts));
        self.first.at(attempt, look).await
    }

    /// Those for whom somebody still asks.
    fn asked(&self) -> Vec<Uuid> {
        let mut all = self.all();
        all.retain(|_, told| told.receiver_count() > 0);
        all.keys().copied().collect()
    }

    /// Looks until the service stops.
    pub(super) async fn watch(self: Arc<Self>, books: Arc<Sessions>, mut stopping: watch::Receiver<bool>) {
        let mut seen = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.look.notified() => {}
                _ = stopping.wait_for(|stopped| *stopped) => return,
            }
            // Whoever is told late is told with his next report as well; what hangs is given up, and its connection with it.
            let told = tokio::time::timeout(TELL_MAX, self.tell(&books, &mut seen)).await;
            let late = |_| LedgerError::Unavailable("it took too long".to_owned());
            if let Err(error) = told.map_err(late).and_then(|told| told) {
                seen = None;
                // Each is told with its next report as well.
                tracing::debug!(%error, "Whether jobs were stopped cannot be read.");
            }
        }
    }

    /// Tells those whose job was stopped, if anything was since the count that was `seen`.
    async fn tell(&self, books: &Arc<Sessions>, seen: &mut Option<i64>) -> Result<(), LedgerError> {
        if self.asked().is_empty() {
            return Ok(());
        }
        // Read before it is known who asks, and before the attempts are: what is stopped in between is looked for again.
        let count = books.with(StoreLedger::stop_count).await?;
        if seen.replace(count) == Some(count) {
            return Ok(());
        }
        let asked = self.asked();
        for attempts in asked.chunks(LOOKED_AT_MAX).map(<[Uuid]>::to_vec) {
            let looked = books.with(move |ledger| ledger.attempt_stops(&attempts)).await;
            let stops = looked.inspect_err(|_| *seen = None)?;
            let all = self.all();
            for stop in stops.iter().filter(|stop| stop.is_stopped) {
                all.get(&stop.attempt).map(|told| told.send_replace(true));
            }
        }
        Ok(())
    }
}
