//! What of an account is over: a bounded number in each transaction, since others wait for its end. The next one goes on.

use uuid::Uuid;

use super::{Shelf, load};
use crate::ledger::LedgerError;

/// An operation settles so many of those that stayed silent.
const SETTLED_MAX: i64 = 64;
/// An operator's repair takes back so many leases.
const REPAIRED_MAX: i64 = 16_384;

/// What is to be marked.
#[derive(Debug)]
pub(in crate::ledger::book) struct Over {
    /// Attempts that fell silent.
    pub(in crate::ledger::book) silent: Vec<Uuid>,
    /// Reservations that nobody settled in time.
    pub(in crate::ledger::book) expired: Vec<Uuid>,
    /// Whether there are no more of them.
    pub(in crate::ledger::book) is_all: bool,
}

impl Shelf<'_> {
    /// Looked for once in a transaction, whose time stands still.
    pub(in crate::ledger::book) fn over(&mut self, owner: &str, now_us: i64) -> Result<Over, LedgerError> {
        if self.swept.iter().any(|swept| swept == owner) {
            return Ok(Over { silent: Vec::new(), expired: Vec::new(), is_all: self.marks_left > 0 });
        }
        self.swept.push(owner.to_owned());
        let silent = load::silence::fallen_silent(self.store, owner, now_us, self.marks_left)?;
        self.marks_left -= i64::try_from(silent.len()).unwrap_or(i64::MAX);
        let expired = load::silence::expired(self.store, owner, now_us, self.marks_left)?;
        self.marks_left -= i64::try_from(expired.len()).unwrap_or(i64::MAX);
        self.prefetch(&silent)?;
        for reservation in load::reservations(self.store, &expired, &mut self.cards)? {
            self.reservations.take_in(reservation.id, reservation);
        }
        Ok(Over { silent, expired, is_all: self.marks_left > 0 })
    }

    /// The first time from now on at which one can fall silent. What this transaction leases, or marks, comes on top.
    pub(in crate::ledger::book) fn silent_from(&mut self, owner: &str, now_us: i64) -> Result<i64, LedgerError> {
        let stored = load::silence::silent_from(self.store, owner)?.unwrap_or(i64::MAX);
        let here =
            self.attempts.rows().filter(|attempt| attempt.owner == owner && attempt.live && attempt.ended_us.is_none());
        let here = here.map(|attempt| attempt.lease_until_us).min().unwrap_or(i64::MAX);
        let reserved = self.reservations.rows().filter(|reserved| reserved.job.owner == owner && reserved.open);
        let reserved = reserved.map(|reserved| reserved.until_us).min().unwrap_or(i64::MAX);
        Ok(here.min(reserved).min(stored.max(now_us)))
    }

    /// Attempts whose lease is over, and whose period was at `ended_s`.
    pub(in crate::ledger::book) fn unsettled_since(
        &mut self,
        owner: &str,
        ended_s: i64,
        now_us: i64,
    ) -> Result<Vec<Uuid>, LedgerError> {
        let ids = load::silence::unsettled_since(self.store, owner, ended_s, now_us, SETTLED_MAX)?;
        self.prefetch(&ids)?;
        Ok(ids)
    }

    /// Attempts whose lease lasts longer than until then.
    pub(in crate::ledger::book) fn leased_beyond(
        &mut self,
        owner: &str,
        until_us: i64,
    ) -> Result<Vec<Uuid>, LedgerError> {
        let ids = load::silence::leased_beyond(self.store, owner, until_us, REPAIRED_MAX)?;
        self.prefetch(&ids)?;
        Ok(ids)
    }
}
