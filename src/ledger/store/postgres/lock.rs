//! Accounts are locked before anything of them is read: their rows, in the order of their names.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use uuid::Uuid;

use super::Postgres;
use crate::ledger::LedgerError;
use crate::ledger::job_name::{JobKey, JobName};
use crate::ledger::store::{Concerned, Locked, Patience, Row, Store, Value, load};

/// So many attempts' owners are remembered: some 6 MiB.
const OWNERS_MAX: usize = 65_536;

/// In which another replica commits its group.
const SHORT: Duration = Duration::from_millis(200);
/// As a session has it otherwise.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

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
        let (mut revisions, busy) = match concerned.patience {
            Patience::Long => (self.lock_each(&owners)?, HashSet::new()),
            Patience::Short => {
                self.set_lock_timeout(SHORT)?;
                let revisions = self.lock_each(&owners)?;
                self.set_lock_timeout(LOCK_TIMEOUT)?;
                (revisions, HashSet::new())
            }
            Patience::None => self.lock_free(&owners)?,
        };
        for owner in owners.into_iter().filter(|owner| !busy.contains(owner)) {
            revisions.entry(owner).or_insert(0);
        }
        let goes_on = std::mem::replace(&mut self.owners.goes_on, true);
        Ok(Locked { revisions: Some(revisions), busy, goes_on })
    }

    /// Until the transaction ends, which has been begun.
    fn set_lock_timeout(&mut self, most: Duration) -> Result<(), LedgerError> {
        let most = format!("{}ms", most.as_millis());
        self.query("SELECT set_config('lock_timeout', $1, true)", &[most.into()]).map(|_| ())
    }

    /// Waits for each that somebody else keeps locked.
    fn lock_each(&mut self, owners: &[String]) -> Result<HashMap<String, i64>, LedgerError> {
        let revisions = self.lock_rows(owners, "")?;
        // A row that is not there yet cannot be locked: its name is, and then the row, which may have been made meanwhile.
        let new: Vec<String> = owners.iter().filter(|owner| !revisions.contains_key(*owner)).cloned().collect();
        if new.is_empty() {
            return Ok(revisions);
        }
        // In the order of `new`.
        let sql = "SELECT count(pg_advisory_xact_lock(hashtextextended(owner, 0))) FROM \
                   UNNEST(CAST($1 AS TEXT[])) AS owner";
        self.query(sql, &[Value::Texts(new)])?;
        self.lock_rows(owners, "")
    }

    /// Waits for none: those that nobody else keeps locked, and the others.
    fn lock_free(&mut self, owners: &[String]) -> Result<(HashMap<String, i64>, HashSet<String>), LedgerError> {
        let mut revisions = self.lock_rows(owners, "SKIP LOCKED")?;
        let others: Vec<String> = owners.iter().filter(|owner| !revisions.contains_key(*owner)).cloned().collect();
        if others.is_empty() {
            return Ok((revisions, HashSet::new()));
        }
        // One that is there is locked by somebody else; of one that is not, the name may be.
        let sql = "SELECT owner FROM (SELECT new.owner, a.owner IS NOT NULL OR NOT pg_try_advisory_xact_lock(hashtextextended(new.owner, 0)) \
                   AS is_busy FROM UNNEST(CAST($1 AS TEXT[])) AS new (owner) LEFT JOIN account a ON a.owner = new.owner) AS found \
                   WHERE is_busy";
        let found = self.query(sql, &[Value::Texts(others.clone())])?;
        let busy = found.into_iter().map(|mut row| row.text()).collect::<Result<HashSet<_>, _>>()?;
        let new: Vec<String> = others.into_iter().filter(|owner| !busy.contains(owner)).collect();
        if !new.is_empty() {
            // They may have been made meanwhile.
            revisions.extend(self.lock_rows(&new, "SKIP LOCKED")?);
        }
        Ok((revisions, busy))
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

    /// The accounts of these that are there, which are locked now, and their revisions; `skip` is what becomes of those that somebody
    /// else keeps locked.
    fn lock_rows(&mut self, owners: &[String], skip: &str) -> Result<HashMap<String, i64>, LedgerError> {
        let sql = format!("SELECT owner, revision FROM account WHERE owner = ANY($1) ORDER BY owner FOR UPDATE {skip}");
        let rows = self.query(&sql, &[Value::Texts(owners.to_vec())])?;
        rows.into_iter().map(|mut row| Ok((row.text()?, row.int()?))).collect()
    }
}
