//! Rows that a ledger keeps from one transaction to the next, so that it need not read them again where nobody else wrote.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;

use uuid::Uuid;

use super::rows::{Account, Attempt, Job};
use crate::ledger::LedgerError;
use crate::ledger::job_name::JobKey;
use crate::ledger::store::{Locked, Store, load};

/// So many attempts, jobs and accounts at most: some 20 MiB.
const ROWS_MAX: usize = 16_384;
/// After so many rows that found no room, other rows get it.
const REFUSED_MAX: usize = 16 * ROWS_MAX;

/// Rows as they were committed.
#[derive(Debug, Default)]
pub struct Kept {
    attempts: HashMap<Uuid, Box<Attempt>>,
    jobs: HashMap<JobKey, Box<Job>>,
    /// Of the accounts of both, as they were then.
    revisions: HashMap<String, i64>,
    /// Rows that found no room.
    refused: usize,
}

#[allow(clippy::vec_box, reason = "rows stay where they lie while they go through lists and maps")]
impl Kept {
    /// What of it is still as it is stored, of accounts that are locked. Nobody asks for what belongs to others.
    #[must_use]
    pub fn as_stored(mut self, locked: &Locked) -> Self {
        if !locked.goes_on {
            return Self::default();
        }
        let Some(revisions) = &locked.revisions else { return self };
        let written = revisions.iter().filter(|(owner, revision)| self.revisions.get(*owner) != Some(*revision));
        let others: HashSet<&String> = written.map(|(owner, _)| owner).chain(&locked.busy).collect();
        if !others.is_empty() {
            self.attempts.retain(|_, attempt| !others.contains(&attempt.owner));
            self.jobs.retain(|key, _| !others.contains(&key.owner));
        }
        self
    }

    /// What a transaction wrote or only read: an attempt that has ended is asked for no more. Where more are asked for than
    /// there is room for, those that are here stay: were each to make room for the next, all would be gone before they are
    /// asked for again.
    pub(super) fn add<'a>(
        &mut self,
        attempts: impl Iterator<Item = Box<Attempt>>,
        jobs: impl Iterator<Item = Box<Job>>,
        accounts: impl Iterator<Item = &'a Account>,
    ) {
        if self.revisions.len() > ROWS_MAX || self.refused > REFUSED_MAX {
            *self = Self::default();
        }
        self.revisions.extend(accounts.map(|account| (account.owner.clone(), account.revision)));
        for attempt in attempts {
            if attempt.ended_us.is_some() {
                self.attempts.remove(&attempt.id);
            } else if !put(&mut self.attempts, attempt.id, attempt) {
                self.refused += 1;
            }
        }
        for job in jobs {
            if !put(&mut self.jobs, job.key.clone(), job) {
                self.refused += 1;
            }
        }
    }

    /// Those of these attempts that are in the books, in no order. It keeps them no longer.
    pub(super) fn attempts(
        &mut self,
        store: &mut dyn Store,
        ids: &[Uuid],
        cards: &mut load::Cards,
    ) -> Result<Vec<Box<Attempt>>, LedgerError> {
        take(&mut self.attempts, ids, |ids| load::attempts(store, ids, cards))
    }

    /// Those of these jobs that are in the books, in no order. It keeps them no longer.
    pub(super) fn jobs(&mut self, store: &mut dyn Store, keys: &[JobKey]) -> Result<Vec<Box<Job>>, LedgerError> {
        take(&mut self.jobs, keys, |keys| load::jobs(store, keys))
    }
}

/// Keeps a row where there is room; whether there was.
fn put<K: Eq + Hash, T>(kept: &mut HashMap<K, Box<T>>, id: K, row: Box<T>) -> bool {
    let has_room = kept.len() < ROWS_MAX;
    if has_room {
        kept.insert(id, row);
    } else {
        // Whatever is kept of it is old.
        kept.remove(&id);
    }
    has_room
}

/// Rows that are kept, and the others from the store.
#[allow(clippy::vec_box, reason = "as above")]
fn take<K: Clone + Eq + Hash, T: PartialEq + Debug>(
    kept: &mut HashMap<K, Box<T>>,
    ids: &[K],
    mut load: impl FnMut(&[K]) -> Result<Vec<T>, LedgerError>,
) -> Result<Vec<Box<T>>, LedgerError> {
    let unknown: Vec<K> = ids.iter().filter(|id| !kept.contains_key(id)).cloned().collect();
    let mut rows: Vec<Box<T>> = load(&unknown)?.into_iter().map(Box::new).collect();
    rows.reserve(ids.len().saturating_sub(unknown.len()));
    for id in ids {
        if let Some(row) = kept.remove(id) {
            // So every test, and each step of the simulation, looks for whatever was written past what is kept.
            debug_assert_eq!(
                load(std::slice::from_ref(id))?.first(),
                Some(&*row),
                "kept rows are not as they are stored"
            );
            rows.push(row);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(at: usize, seq: u64) -> Box<Attempt> {
        Box::new(Attempt { id: Uuid::from_u128(at as u128), seq, ..Attempt::default() })
    }

    fn with(kept: &mut Kept, attempts: impl Iterator<Item = Box<Attempt>>) {
        kept.add(attempts, std::iter::empty(), std::iter::empty());
    }

    #[test]
    fn where_there_is_no_room_those_that_are_kept_stay_for_a_while() {
        let mut kept = Kept::default();
        with(&mut kept, (0..ROWS_MAX).map(|at| attempt(at, 1)));
        with(&mut kept, (ROWS_MAX..=2 * ROWS_MAX).map(|at| attempt(at, 1)));
        assert_eq!((kept.attempts.len(), kept.refused), (ROWS_MAX, ROWS_MAX + 1));
        assert!(kept.attempts.contains_key(&Uuid::nil()));
        with(&mut kept, (2 * ROWS_MAX..=18 * ROWS_MAX).map(|at| attempt(at, 1)));
        with(&mut kept, std::iter::once(attempt(7 * ROWS_MAX, 1)));
        assert!(kept.attempts.keys().eq([&Uuid::from_u128(7 * ROWS_MAX as u128)]), "others get their room");
    }

    #[test]
    fn nothing_old_is_kept_of_a_row_that_finds_no_room() {
        let mut kept = Kept::default();
        with(&mut kept, (0..ROWS_MAX).map(|at| attempt(at, 1)));
        with(&mut kept, std::iter::once(attempt(3, 2)));
        assert!(!kept.attempts.contains_key(&Uuid::from_u128(3)));
    }

    #[test]
    fn an_attempt_that_has_ended_is_not_kept() {
        let mut kept = Kept::default();
        with(&mut kept, std::iter::once(attempt(3, 1)));
        with(&mut kept, std::iter::once(Box::new(Attempt { ended_us: Some(1), ..*attempt(3, 2) })));
        assert!(kept.attempts.is_empty() && kept.refused == 0);
    }
}
