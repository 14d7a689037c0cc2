//! One look a second at each account that somebody watches, shared by all who watch it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::pace::Pace;
use super::seats::Seats;
use super::seen::{Changed, Seen};
use crate::ledger::LedgerError;

/// How often an account is looked at.
pub(super) const EACH: Duration = Duration::from_secs(1);

/// What was seen in the last look that differed from the one before it, for all streams of the account. `None` until the first look.
pub(super) type Latest = Option<Arc<Frame>>;

/// What was seen, and the event that tells it to a stream whose last frame was the one before.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) number: u64,
    seen: Seen,
    event: String,
}

impl Frame {
    /// The one after `before`; `None` where nothing has changed.
    fn after(before: Option<&Self>, seen: Seen) -> Result<Option<Self>, LedgerError> {
        let changed = Changed::since(before.map(|before| &before.seen), &seen);
        if changed.is_nothing() {
            return Ok(None);
        }
        let number = before.map_or(0, |before| before.number.saturating_add(1));
        Ok(Some(Self { number, event: seen.event(changed)?, seen }))
    }

    /// The event for a stream whose last frame was `last`. Where it has missed some in between, it is told of what has changed in all of
    /// them.
    pub(super) fn event_after(&self, last: Option<&Self>) -> Result<String, LedgerError> {
        let follows = last.map_or(0, |last| last.number.saturating_add(1)) == self.number;
        if follows {
            Ok(self.event.clone())
        } else {
            self.seen.event(Changed::since(last.map(|last| &last.seen), &self.seen))
        }
    }
}

/// The accounts that somebody watches.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    accounts: Mutex<HashMap<String, watch::Sender<Latest>>>,
    pace: Pace,
    pub(super) seats: Arc<Seats>,
}

impl Watched {
    /// When an attempt of this account has to report, where it would report in `usual_ms`.
    pub(crate) fn report_in_ms(&self, owner: &str, now_us: u64, usual_ms: u64) -> u64 {
        if self.accounts().contains_key(owner) { self.pace.report_in_ms(now_us, usual_ms) } else { usual_ms }
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Latest>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody watches an account. Where nobody did before, `look` looks at it each second until the last of them has gone or
    /// `stopping` is true, which ends the streams.
    pub(super) fn join<F>(
        self: &Arc<Self>,
        user: &str,
        stopping: watch::Receiver<bool>,
        look: impl Fn() -> F + Send + Sync + 'static,
    ) -> watch::Receiver<Latest>
    where
        F: Future<Output = Result<Seen, LedgerError>> + Send + 'static,
    {
        match self.accounts().entry(user.to_owned()) {
            Entry::Occupied(known) => known.get().subscribe(),
            Entry::Vacant(unknown) => {
                let (latest, receiver) = watch::channel(None);
                unknown.insert(latest.clone());
                tokio::spawn(Arc::clone(self).watch(user.to_owned(), latest, stopping, look));
                receiver
            }
        }
    }

    async fn watch<F: Future<Output = Result<Seen, LedgerError>>>(
        self: Arc<Self>,
        user: String,
        latest: watch::Sender<Latest>,
        mut stopping: watch::Receiver<bool>,
        look: impl Fn() -> F,
    ) {
        loop {
            let is_stopping = tokio::select! {
                () = look_each(EACH, &latest, &look) => false,
                _ = stopping.wait_for(|stopped| *stopped) => true,
            };
            let mut accounts = self.accounts();
            // Somebody may have come since the last one left.
            if is_stopping || latest.receiver_count() == 0 {
                accounts.remove(&user);
                return;
            }
        }
    }
}

/// Looks until nobody watches. What differs from the last frame becomes the next one.
pub(super) async fn look_each<F: Future<Output = Result<Seen, LedgerError>>>(
    each: Duration,
    latest: &watch::Sender<Latest>,
    look: impl Fn() -> F,
) {
    loop {
        let before = latest.borrow().clone();
        match look().await.and_then(|seen| Frame::after(before.as_deref(), seen)) {
            Ok(Some(frame)) => _ = latest.send_replace(Some(Arc::new(frame))),
            Ok(None) => {}
            // What cannot be read now may be in a second.
            Err(error) => tracing::debug!(%error, "A watched account cannot be read."),
        }
        tokio::select! {
            () = tokio::time::sleep(each) => {}
            () = latest.closed() => return,
        }
    }
}
