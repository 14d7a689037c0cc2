//! Whether an attempt is to end, for sidecars that ask between two reports, and for a service that asks for many of them at once.

use uuid::Uuid;

use super::load::by_ids;
use super::{AttemptStop, Row, Store, StoreLedger};
use crate::ledger::LedgerError;

fn stops(store: &mut dyn Store, attempts: &[Uuid]) -> Result<Vec<AttemptStop>, LedgerError> {
    let select = "SELECT id, owner, principal, is_stopped FROM (SELECT a.id, a.owner, a.principal, CASE WHEN a.ended_us IS NOT NULL OR \
                  j.stopped <> 0 OR c.suspended <> 0 THEN 1 ELSE 0 END AS is_stopped FROM attempt a JOIN job j ON j.owner = a.owner AND \
                  j.principal = a.principal AND j.id = a.job JOIN account c ON c.owner = a.owner) found";
    let rows = by_ids(store, select, attempts.iter().map(Uuid::to_string).collect())?;
    let read = |mut row: Row| {
        Ok(AttemptStop { attempt: row.parsed()?, owner: row.text()?, principal: row.text()?, is_stopped: row.flag()? })
    };
    rows.into_iter().map(read).collect()
}

impl<S: Store> StoreLedger<S> {
    /// Counts up with each stop of a job and each suspension of an account: while it is the same, whoever was not stopped is not.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn stop_count(&mut self) -> Result<i64, LedgerError> {
        self.look(|store, _| {
            let rows = store.query("SELECT count FROM stop_count", &[])?;
            rows.into_iter().next().map_or(Ok(0), |mut row| row.int())
        })
    }

    /// Of these attempts, those that are known.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn attempt_stops(&mut self, attempts: &[Uuid]) -> Result<Vec<AttemptStop>, LedgerError> {
        self.look(|store, _| stops(store, attempts))
    }

    /// Of one: unknown ones go on, since a ledger that was put back learns of them with the next report. Where nothing was written since,
    /// it is not asked for again.
    pub(super) fn attempt_stop(&mut self, attempt: Uuid) -> Result<bool, LedgerError> {
        let may_have_changed = self.store.may_have_changed();
        if !may_have_changed && self.unstopped == Some(attempt) {
            return Ok(false);
        }
        self.unstopped = None;
        let is_stopped = self.attempt_stops(&[attempt])?.first().is_some_and(|found| found.is_stopped);
        self.unstopped = (!is_stopped).then_some(attempt);
        Ok(is_stopped)
    }

    /// Reads one state of the books.
    pub(crate) fn look<T>(
        &mut self,
        act: impl FnOnce(&mut dyn Store, i64) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let now_us = self.store.begin_reading()?;
        let found = act(&mut self.store, now_us);
        self.store.rollback();
        found
    }
}
