//! Accounts are locked before anything of them is read: their rows, in the order of their names.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use super::Postgres;
use crate::ledger::LedgerError;
use crate::ledger::job_name::{JobKey, JobName};
use crate::ledger::store::{Concerned, Locked, Row, Store, Value, load};

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
        let of_jobs = self.owners_of_jobs(&concerned.jobs)?;
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

    /// Whose the jobs are that these names may mean. Where one means several, nothing of them will be written.
    fn owners_of_jobs(&mut self, names: &[JobName]) -> Result<Vec<String>, LedgerError> {
        let (of_principals, others): (Vec<&JobName>, Vec<_>) = names.iter().partition(|name| name.principal.is_some());
        let ids = |names: &[&JobName]| Value::Texts(names.iter().map(|name| name.id.clone()).collect());
        let mut found = Vec::new();
        if !of_principals.is_empty() {
            let mut principals: Vec<_> = of_principals.iter().filter_map(|name| name.principal.clone()).collect();
            principals.sort_unstable();
            principals.dedup();
            let sql = "SELECT owner, principal, id FROM job WHERE id = ANY($1) AND principal = ANY($2)";
            found.extend(self.query(sql, &[ids(&of_principals), Value::Texts(principals)])?);
        }
        if !others.is_empty() {
            let sql = "SELECT owner, principal, id FROM job WHERE id = ANY($1)";
            found.extend(self.query(sql, &[ids(&others)])?);
        }
        let read = |mut row: Row| Ok(JobKey { owner: row.text()?, principal: row.text()?, id: row.text()? });
        let found = found.into_iter().map(read).collect::<Result<Vec<_>, LedgerError>>()?;
        let is_meant = |key: &JobKey| names.iter().any(|name| name.names(key));
        Ok(found.into_iter().filter(is_meant).map(|key| key.owner).collect())
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
