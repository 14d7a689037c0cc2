//! How much of the books is one principal's.

use super::{Store, StoreLedger};
use crate::ledger::LedgerError;

impl<S: Store> StoreLedger<S> {
    /// How many attempts of a principal have not ended: more than `most` are not counted.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn attempts_of_principal(&mut self, principal: &str, most: u64) -> Result<u64, LedgerError> {
        let open = "SELECT 1 FROM attempt WHERE principal = $1 AND ended_us IS NULL";
        self.look(|store, _| count(store, open, principal, most))
    }

    /// The same of its reservations.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn reservations_of_principal(&mut self, principal: &str, most: u64) -> Result<u64, LedgerError> {
        let open = "SELECT 1 FROM reservation WHERE principal = $1 AND open = 1";
        self.look(|store, _| count(store, open, principal, most))
    }
}

fn count(store: &mut dyn Store, which: &str, principal: &str, most: u64) -> Result<u64, LedgerError> {
    let sql = format!("SELECT count(*) FROM ({which} LIMIT $2) found");
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = store.query(&sql, &[principal.into(), most.into()])?;
    let count = rows.into_iter().next().map_or(Ok(0), |mut row| row.int())?;
    Ok(u64::try_from(count).unwrap_or(0))
}
