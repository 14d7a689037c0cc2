//! How many streams somebody may have open at the same time, so that nobody can use up the memory and the connections of the service.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::doors::Door;

/// Streams of one key, of one session, or of one user whom a proxy names.
pub(super) const STREAMS_MAX: usize = 16;
/// Streams of one key and of all sessions that were made with it: whoever signs in again gets no more than these.
pub(super) const STREAMS_OF_KEY_MAX: usize = 64;

/// Streams of everybody.
pub(super) const STREAMS_IN_ALL_MAX: usize = 2_048;

/// Whose streams are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Holder {
    /// A key or a session, as it was shown.
    Shown(Door),
    /// A key, whether it was shown or a session of it.
    Key(String),
    /// The user whom a proxy has named.
    Named(Option<String>),
    Everybody,
}

/// Open streams by holder. Who has none is not in it.
#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<HashMap<Holder, usize>>);

/// The right to one stream, which ends when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    holders: Vec<Holder>,
}

impl Seats {
    /// For whoever came in by this door, with this key or a session of it; or whom a proxy has named, who is this user. `None` where
    /// they have as many streams as may be.
    pub(super) fn take(self: &Arc<Self>, door: Option<Door>, key: &str, user: Option<String>) -> Option<Seat> {
        let mut wanted = match door {
            Some(door) => vec![(Holder::Shown(door), STREAMS_MAX), (Holder::Key(key.to_owned()), STREAMS_OF_KEY_MAX)],
            None => vec![(Holder::Named(user), STREAMS_MAX)],
        };
        wanted.push((Holder::Everybody, STREAMS_IN_ALL_MAX));
        self.seat(wanted)
    }

    /// One for all of these holders, each of whom has fewer than so many.
    fn seat(self: &Arc<Self>, wanted: Vec<(Holder, usize)>) -> Option<Seat> {
        let mut open = self.open();
        if wanted.iter().any(|(holder, count_max)| open.get(holder).is_some_and(|count| count >= count_max)) {
            return None;
        }
        let holders: Vec<Holder> = wanted.into_iter().map(|(holder, _)| holder).collect();
        for holder in &holders {
            let count = open.entry(holder.clone()).or_default();
            *count = count.saturating_add(1);
        }
        Some(Seat { seats: Arc::clone(self), holders })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Holder, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.seats.open();
        for holder in &self.holders {
            match open.get_mut(holder) {
                Some(count) if *count > 1 => *count = count.saturating_sub(1),
                _ => _ = open.remove(holder),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_session(session: &str) -> Vec<(Holder, usize)> {
        let door = Door::Session(session.to_owned());
        vec![(Holder::Shown(door), 2), (Holder::Key("k".to_owned()), 3)]
    }

    #[test]
    fn a_session_has_its_own_and_all_of_a_key_have_theirs() {
        let seats = Arc::new(Seats::default());
        let first = seats.seat(of_session("a")).unwrap();
        let second = seats.seat(of_session("a"));
        assert!(seats.seat(of_session("a")).is_none(), "of this session");
        let third = seats.seat(of_session("b"));
        assert!(seats.seat(of_session("b")).is_none(), "of this key");
        drop(first);
        let fourth = seats.seat(of_session("b")).unwrap();
        drop((second, third, fourth));
        assert!(seats.open().is_empty(), "nobody is remembered who has gone");
    }
}
