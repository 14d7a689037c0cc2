//! Accounts are locked before anything of them is read: their rows, in the order of their names.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use super::Postgres;
use crate::ledger::LedgerError;
use crate::ledger::store::{Concerned, Locked, Store, Value, load};

/// So many attempts' owners are remembered: some 6 MiB.
const OWNERS_MAX: usize = 65_536;

/// Whose attempts are, which never changes; as this connection was told.
#[derive(Debug, Default)]
pub(super) struct Owners {
    of_attempts: HashMap<Uuid, String>,
    /// It has locked before, so that accounts go on from what it left.
    goes_on: bool,
}

impl Postgres {
    pub(super) fn lock_accounts(&mut self, concerned: &Concerned<'_>) -> Result<Locked, LedgerError> {
        self.learn_owners(&concerned.attempts)?;
        let jobs = concerned.jobs.iter().map(|id| (*id).to_owned()).collect();
        let of_jobs = load::by_ids(self, "SELECT owner FROM job", jobs)?;
        let of_jobs = of_jobs.into_iter().map(|mut row| row.text()).collect::<Result<Vec<_>, _>>()?;
        let of_attempts = concerned.attempts.iter().filter_map(|id| self.owners.of_attempts.get(id));
        let others = of_attempts.chain(&of_jobs).map(String::as_str);
        let owners: BTreeSet<&str> = concerned.owners.iter().copied().chain(others).collect();
        let owners: Vec<String> = owners.into_iter().map(str::to_owned).collect();
        let mut revisions = self.lock_rows(&owners)?;
        // A row that is not there yet cannot be locked: its name is, and then the row, which may have been made meanwhile.
        let new: Vec<String> = owners.iter().filter(|owner| !revisions.contains_key(*owner)).cloned().collect();
        if !new.is_empty() {
            // In the order of `new`.
            let sql = "SELECT count(pg_advisory_xact_lock(hashtextextended(owner, 0))) FROM \
                       UNNEST(CAST($1 AS TEXT[])) AS owner";
            self.query(sql, &[Value::Texts(new)])?;
            revisions = self.lock_rows(&owners)?;
        }
        for owner in owners {
            revisions.entry(owner).or_insert(0);
        }
        let goes_on = std::mem::replace(&mut self.owners.goes_on, true);
        Ok(Locked { revisions: Some(revisions), goes_on })
    }

    /// Asks whose attempts are of which that is not known.
    fn learn_owners(&mut self, attempts: &[Uuid]) -> Result<(), LedgerError> {
        if self.owners.of_attempts.len() > OWNERS_MAX {
            self.owners.of_attempts.clear();
        }
        let unknown = attempts.iter().filter(|id| !self.owners.of_attempts.contains_key(*id));
        let unknown = unknown.map(Uuid::to_string).collect();
        let found = load::by_ids(self, "SELECT id, owner FROM attempt", unknown)?;
        for mut row in found {
            self.owners.of_attempts.insert(row.parsed()?, row.text()?);
        }
        Ok(())
    }

    /// The accounts of these that are there, which are locked now, and their revisions.
    fn lock_rows(&mut self, owners: &[String]) -> Result<HashMap<String, i64>, LedgerError> {
        let sql = "SELECT owner, revision FROM account WHERE owner = ANY($1) ORDER BY owner FOR UPDATE";
        let rows = self.query(sql, &[Value::Texts(owners.to_vec())])?;
        rows.into_iter().map(|mut row| Ok((row.text()?, row.int()?))).collect()
    }
}
