//! Whether the database is still the one that acknowledged what the books say. A standby that took over may have lost
//! commits, and so does a database that was put back from a copy: both begin an epoch of the ledger.
//!
//! What tells them apart: the cluster's identifier, its timeline, which each promotion and each recovery to a point in
//! time makes anew, and the number of a table, which a dump that was read in again has not. A copy of the whole data
//! directory that was made while the server was down has all three; for that there is `jobmeter ledger restore`.

use super::Postgres;
use crate::ledger::LedgerError;
use crate::ledger::book::{Before, Books};
use crate::ledger::store::{Store, Value, save, sessions};

const WHERE_WE_ARE: &str = "SELECT CAST(system_identifier AS TEXT) || '/' || \
                            substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) || '/' || \
                            CAST(CAST('entry'::regclass AS oid) AS TEXT) FROM pg_control_system()";

impl Postgres {
    /// Looks, once for each connection.
    pub(super) fn look_where_we_are(&mut self) -> Result<(), LedgerError> {
        // A database that speaks PostgreSQL's protocol and has no such functions, or does not let this user call them,
        // tells nothing: the operator has to.
        let Ok(mut found) = self.query(WHERE_WE_ARE, &[]) else { return Ok(()) };
        let Some(mut row) = found.pop() else { return Ok(()) };
        let place = row.text()?;
        self.batch("BEGIN")?;
        let done = self.compare(&place);
        match done {
            Ok(()) => self.commit(),
            Err(error) => {
                self.rollback();
                Err(error)
            }
        }
    }

    /// One replica begins the epoch, and the others wait for it.
    fn compare(&mut self, place: &str) -> Result<(), LedgerError> {
        let known = self.query("SELECT place FROM jobmeter_place FOR UPDATE", &[])?.pop();
        let known = known.map(|mut row| row.text()).transpose()?;
        match known {
            Some(known) if known == place => Ok(()),
            Some(known) => {
                let why = format!("the database was {known} and is {place}: it was put back, or another took over");
                self.new_epoch(0, "jobmeter", &why)?;
                self.query("UPDATE jobmeter_place SET place = $1", &[place.into()]).map(|_| ())
            }
            None => {
                let sql = "INSERT INTO jobmeter_place (one, place) VALUES (1, $1) ON CONFLICT DO NOTHING";
                self.query(sql, &[place.into()]).map(|_| ())
            }
        }
    }

    /// Begins an epoch, within a transaction.
    fn new_epoch(&mut self, lease_ms: u64, by: &str, why: &str) -> Result<(), LedgerError> {
        let now_us = self.time()?;
        let mut books = Books::new(self, now_us);
        books.restored(Before { lease_ms, ..Before::default() }, by, why)?;
        let changes = books.changes()?;
        sessions::remove_all(self)?;
        save::save(self, &changes)
    }

    /// The ledger's time within a transaction.
    fn time(&mut self) -> Result<i64, LedgerError> {
        if let Some(clock) = &self.clock {
            return Ok(clock.realtime_us());
        }
        let sql = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)";
        let row = self.query(sql, &[] as &[Value])?.pop();
        row.ok_or_else(|| LedgerError::Broken("PostgreSQL does not tell the time".to_owned()))?.int()
    }

    /// The database was put back from a copy in a way that it does not tell itself: begins an epoch. `by` and `why` are for
    /// the books; leases that it gave and has forgotten lasted for `lease_ms` at most, or for as long as the copy says.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn restored(&mut self, lease_ms: u64, by: &str, why: &str) -> Result<(), LedgerError> {
        self.begin()?;
        match self.new_epoch(lease_ms, by, why) {
            Ok(()) => self.commit(),
            Err(error) => {
                self.rollback();
                Err(error)
            }
        }
    }
}
