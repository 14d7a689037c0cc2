//! Rows that a ledger keeps from one transaction to the next, so that it need not read them again where nobody else wrote.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;

use uuid::Uuid;

use super::rows::{Account, Attempt, Job};
use crate::domain::rating::RateCard;
use crate::ledger::LedgerError;
use crate::ledger::store::{Locked, Store, load};

/// So many attempts, jobs and accounts at most, beside those of the last transaction: some 20 MiB.
const ROWS_MAX: usize = 16_384;

/// Rows as they were committed.
#[derive(Debug, Default)]
pub struct Kept {
    attempts: HashMap<Uuid, Box<Attempt>>,
    jobs: HashMap<String, Box<Job>>,
    /// Of the accounts of both, as they were then.
    revisions: HashMap<String, i64>,
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
        let others: HashSet<&String> = revisions
            .iter()
            .filter(|(owner, revision)| self.revisions.get(*owner) != Some(*revision))
            .map(|(owner, _)| owner)
            .collect();
        if !others.is_empty() {
            self.attempts.retain(|_, attempt| !others.contains(&attempt.owner));
            self.jobs.retain(|_, job| !others.contains(&job.owner));
        }
        self
    }

    /// What a transaction wrote or only read: an attempt that has ended is asked for no more.
    pub(super) fn add<'a>(
        &mut self,
        attempts: impl Iterator<Item = Box<Attempt>>,
        jobs: impl Iterator<Item = Box<Job>>,
        accounts: impl Iterator<Item = &'a Account>,
    ) {
        // Which of them will be asked for next is not known.
        if self.attempts.len().max(self.jobs.len()).max(self.revisions.len()) > ROWS_MAX {
            *self = Self::default();
        }
        self.revisions.extend(accounts.map(|account| (account.owner.clone(), account.revision)));
        for attempt in attempts {
            match attempt.ended_us {
                None => self.attempts.insert(attempt.id, attempt),
                Some(_) => self.attempts.remove(&attempt.id),
            };
        }
        self.jobs.extend(jobs.map(|job| (job.id.clone(), job)));
    }

    /// Those of these attempts that are in the books, in no order; `cards` are all cards. It keeps them no longer.
    pub(super) fn attempts(
        &mut self,
        store: &mut dyn Store,
        ids: &[Uuid],
        cards: &[RateCard],
    ) -> Result<Vec<Box<Attempt>>, LedgerError> {
        take(&mut self.attempts, ids, |ids| load::attempts(store, ids, cards))
    }

    /// Those of these jobs that are in the books, in no order. It keeps them no longer.
    pub(super) fn jobs(&mut self, store: &mut dyn Store, ids: &[String]) -> Result<Vec<Box<Job>>, LedgerError> {
        take(&mut self.jobs, ids, |ids| load::jobs(store, ids))
    }
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
