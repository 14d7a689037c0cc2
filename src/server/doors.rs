//! By which key or session somebody came in who stays: a stream, or a question that is kept. Nobody of them shows it again, so that
//! each is told when it ends.
//!
//! One look for all of them sees what has ended, on whatever replica: many streams are one question to the database.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::pool::Sessions;

/// How often is looked. With the half second for which a key is believed that was looked up (see [`super::keys`]) a stream lives no
/// longer than a second after its key.
const LOOK: Duration = Duration::from_millis(250);

/// How somebody came in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Door {
    /// By the key of this id.
    Key(String),
    /// By the session whose token has this hash.
    Session(String),
}

/// Those behind which somebody is, each with what tells them that it is shut.
#[derive(Debug, Default)]
pub(super) struct Doors(Mutex<HashMap<Door, watch::Sender<bool>>>);

/// Somebody who has come in. `None` for whom a proxy names, who alone knows when that ends.
#[derive(Debug)]
pub(super) struct Inside(Option<watch::Receiver<bool>>);

impl Inside {
    /// Comes when the key or session has ended.
    pub(super) async fn ended(&mut self) {
        match &mut self.0 {
            // What is gone without a word is shut as well.
            Some(shut) => _ = shut.wait_for(|is_shut| *is_shut).await,
            None => pending().await,
        }
    }
}

impl Doors {
    /// Somebody comes in, and stays while the answer lives.
    pub(super) fn enter(&self, door: Option<Door>) -> Inside {
        Inside(door.map(|door| self.all().entry(door).or_insert_with(|| watch::channel(false).0).subscribe()))
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Door, watch::Sender<bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those behind which somebody is still.
    fn used(&self) -> HashSet<Door> {
        let mut doors = self.all();
        doors.retain(|_, shut| shut.receiver_count() > 0);
        doors.keys().cloned().collect()
    }

    fn shut(&self, ended: impl Iterator<Item = Door>) {
        let mut doors = self.all();
        for shut in ended.filter_map(|door| doors.remove(&door)) {
            shut.send_replace(true);
        }
    }

    /// Looks until the service stops, when all who are inside go by themselves.
    pub(super) async fn watch(self: Arc<Self>, sessions: Arc<Sessions>, mut stopping: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = stopping.wait_for(|stopped| *stopped) => return,
            }
            let used = self.used();
            if used.is_empty() {
                continue;
            }
            let (keys, hashes): (Vec<_>, Vec<_>) = used.iter().partition(|door| matches!(door, Door::Key(_)));
            let name = |door: &Door| match door {
                Door::Key(name) | Door::Session(name) => name.clone(),
            };
            let (keys, hashes) = (keys.into_iter().map(name).collect(), hashes.into_iter().map(name).collect());
            match sessions.with(move |ledger| ledger.lasting(keys, hashes)).await {
                Ok((keys, hashes)) => {
                    let lasting = keys.into_iter().map(Door::Key).chain(hashes.into_iter().map(Door::Session));
                    let lasting: HashSet<Door> = lasting.collect();
                    self.shut(used.difference(&lasting).cloned());
                }
                // Nobody is told anything of the books meanwhile, which cannot be read either.
                Err(error) => tracing::debug!(%error, "Whether keys and sessions last cannot be read."),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn key(id: &str) -> Door {
        Door::Key(id.to_owned())
    }

    #[test]
    fn who_is_inside_is_told_and_nobody_else() {
        let doors = Doors::default();
        let (mut first, mut second) = (doors.enter(Some(key("a"))), doors.enter(Some(key("a"))));
        let (mut other, mut by_proxy) = (doors.enter(Some(Door::Session("a".to_owned()))), doors.enter(None));
        assert_eq!(doors.used().len(), 2);
        assert_eq!(first.ended().now_or_never(), None);
        doors.shut([key("a")].into_iter());
        assert_eq!((first.ended().now_or_never(), second.ended().now_or_never()), (Some(()), Some(())));
        assert_eq!((other.ended().now_or_never(), by_proxy.ended().now_or_never()), (None, None));
        // Whoever comes in by it again has been let in anew.
        assert_eq!(doors.enter(Some(key("a"))).ended().now_or_never(), None);
        drop(other);
        assert!(doors.used().is_empty(), "nobody is looked for who has gone");
    }
}
