//! Keys that were looked up lately. Whoever shows one while it is being looked up waits for that look: a thousand sidecars
//! with one key, whose time is over for all of them at once, are one question to the database.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::OnceCell;

use super::problem::Problem;
use crate::ledger::keys::KeyView;

/// A key that was looked up is believed for so long, in µs: that is how soon a revocation counts for requests. Streams end within a
/// second, of which this is a part (see [`super::doors`]).
const FRESH_US: u64 = 500_000;
/// Whether a key is used is asked of the writer no sooner again, in µs: what it was told may not be committed yet, or was lost.
const NOTED_EACH_US: u64 = 60_000_000;
/// No more are remembered; what anybody may send cannot fill the memory.
const REMEMBERED_MAX: usize = 10_000;

type Found = Result<Arc<KeyView>, Problem>;

/// By their ids.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// With when they were looked up.
    known: RwLock<HashMap<String, (u64, Arc<KeyView>)>>,
    looks: Mutex<HashMap<String, Arc<OnceCell<Found>>>>,
    /// Of which the writer was told that they are used, with when.
    noted: Mutex<HashMap<String, u64>>,
}

/// One of those who wait for a look; the last one takes it away, whatever becomes of them.
struct Waiter<'a> {
    keys: &'a Keys,
    id: &'a str,
    look: Arc<OnceCell<Found>>,
}

impl Keys {
    /// The key, by `look` where it was not looked up lately.
    pub(super) async fn key<F>(&self, id: &str, now_us: u64, look: impl FnOnce() -> F) -> Found
    where
        F: Future<Output = Found>,
    {
        if let Some(key) = self.known(id, now_us) {
            return Ok(key);
        }
        let waiter = self.waiter(id);
        let found = waiter.look.get_or_init(|| async {
            let found = look().await;
            if let Ok(key) = &found {
                self.remember(key, now_us);
            }
            found
        });
        found.await.clone()
    }

    /// Whether the writer is to be told that this key is used, which it was not told a moment ago.
    pub(super) fn takes_note(&self, id: &str, now_us: u64) -> bool {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.get(id).is_some_and(|at_us| now_us.saturating_sub(*at_us) < NOTED_EACH_US) {
            return false;
        }
        if noted.len() >= REMEMBERED_MAX {
            noted.clear();
        }
        noted.insert(id.to_owned(), now_us);
        true
    }

    fn known(&self, id: &str, now_us: u64) -> Option<Arc<KeyView>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(id).filter(|(at_us, _)| now_us.saturating_sub(*at_us) < FRESH_US).map(|(_, key)| Arc::clone(key))
    }

    fn remember(&self, key: &Arc<KeyView>, now_us: u64) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(key.id.clone(), (now_us, Arc::clone(key)));
    }

    fn looks(&self) -> MutexGuard<'_, HashMap<String, Arc<OnceCell<Found>>>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiter<'a>(&'a self, id: &'a str) -> Waiter<'a> {
        let look = Arc::clone(self.looks().entry(id.to_owned()).or_default());
        Waiter { keys: self, id, look }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut looks = self.keys.looks();
        let Some(look) = looks.get(self.id).filter(|look| Arc::ptr_eq(look, &self.look)) else { return };
        // Its own, and the map's. Nobody joins or leaves meanwhile, since all do so under this lock.
        let is_last = Arc::strong_count(look) <= 2;
        if look.initialized() || is_last {
            looks.remove(self.id);
        }
        self.look = Arc::default();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;
    use crate::ledger::keys::Scope;

    fn key(id: &str) -> Arc<KeyView> {
        Arc::new(KeyView {
            id: id.to_owned(),
            name: String::new(),
            scope: Scope::Read,
            user: None,
            created_at: String::new(),
            revoked_at: None,
            principal: String::new(),
            expires_at: None,
            used_at: None,
            hash: String::new(),
            is_over: false,
            is_due: false,
        })
    }

    /// A database that answers when it is let.
    #[derive(Default)]
    struct Database {
        looks: AtomicUsize,
        let_go: Notify,
    }

    impl Database {
        async fn look(&self, found: Found) -> Found {
            self.looks.fetch_add(1, Ordering::SeqCst);
            self.let_go.notified().await;
            found
        }
    }

    async fn turn_to_others() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn all_who_show_a_key_at_once_share_one_look() {
        let (keys, database) = (Arc::new(Keys::default()), Arc::new(Database::default()));
        let ask = |now_us, found: Found| {
            let (keys, database) = (Arc::clone(&keys), Arc::clone(&database));
            tokio::spawn(async move { keys.key("a", now_us, || database.look(found)).await })
        };
        let wrong = Err(Problem::unauthorized());
        // An answer, a failure after the key was believed for long enough, and an answer again: nobody remembers a failure.
        for (now_us, found, looks) in [(5, Ok(key("a")), 1), (FRESH_US + 5, wrong, 2), (FRESH_US + 5, Ok(key("a")), 3)]
        {
            let asked: Vec<_> = (0..100).map(|_| ask(now_us, found.clone())).collect();
            turn_to_others().await;
            database.let_go.notify_one();
            for one in asked {
                assert_eq!(one.await.unwrap().is_ok(), found.is_ok());
            }
            assert_eq!(database.looks.load(Ordering::SeqCst), looks);
        }
        assert!(ask(2 * FRESH_US + 4, Ok(key("a"))).await.unwrap().is_ok(), "it is believed, and nobody is let go");
        assert!(keys.looks().is_empty());
    }

    #[tokio::test]
    async fn who_hangs_up_takes_the_look_along_only_as_the_last() {
        let (keys, database) = (Arc::new(Keys::default()), Arc::new(Database::default()));
        let ask = || {
            let (keys, database) = (Arc::clone(&keys), Arc::clone(&database));
            tokio::spawn(async move { keys.key("a", 5, || database.look(Ok(key("a")))).await })
        };
        let (first, second) = (ask(), ask());
        turn_to_others().await;
        first.abort();
        turn_to_others().await;
        // The second one looks now.
        assert_eq!((database.looks.load(Ordering::SeqCst), keys.looks().len()), (2, 1));
        database.let_go.notify_one();
        assert!(second.await.unwrap().is_ok());
        let third = ask();
        assert!(third.await.unwrap().is_ok());
        let other = {
            let (keys, database) = (Arc::clone(&keys), Arc::clone(&database));
            tokio::spawn(async move { keys.key("b", 5, || database.look(Ok(key("b")))).await })
        };
        turn_to_others().await;
        assert_eq!(keys.looks().len(), 1);
        other.abort();
        turn_to_others().await;
        assert!(keys.looks().is_empty(), "nothing is left of what nobody waits for");
    }
}
