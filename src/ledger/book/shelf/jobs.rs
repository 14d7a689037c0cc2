//! Jobs: by their keys, and by what people and programs name them by.

use super::{Shelf, load};
use crate::ledger::LedgerError;
use crate::ledger::book::rows::{Attempt, Hold, Job, JobSums};
use crate::ledger::job_name::{JobKey, JobName};

impl Shelf<'_> {
    pub(super) fn take_in_jobs(&mut self, keys: &[JobKey]) -> Result<(), LedgerError> {
        for job in self.kept.jobs(self.store, keys)? {
            self.jobs.take_in(job.key.clone(), job);
        }
        Ok(())
    }

    pub(in crate::ledger::book) fn job(&mut self, key: &JobKey) -> Result<Option<&Job>, LedgerError> {
        if self.jobs.get(key).is_none() {
            self.take_in_jobs(std::slice::from_ref(key))?;
        }
        Ok(self.jobs.get(key).map(Box::as_ref))
    }

    /// The job of an attempt, which most reports look at several times.
    pub(in crate::ledger::book) fn job_of(&mut self, attempt: &Attempt) -> Result<Option<&Job>, LedgerError> {
        let key = (attempt.owner.as_str(), attempt.principal.as_str(), attempt.job.as_str());
        if self.jobs.get(&key).is_none() {
            self.take_in_jobs(&[attempt.job_key()])?;
        }
        Ok(self.jobs.get(&key).map(Box::as_ref))
    }

    /// Those that a name means, in the order of their keys; of many the first ones. This transaction may have made some.
    pub(in crate::ledger::book) fn jobs_named(&mut self, name: &JobName) -> Result<Vec<JobKey>, LedgerError> {
        let mut found = load::jobs_named(self.store, name)?;
        found.extend(self.jobs.keys().filter(|key| name.names(key)).cloned());
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Those whose ids begin as the name's, in the order of their ids; of many the first ones.
    pub(in crate::ledger::book) fn jobs_beginning(&mut self, name: &JobName) -> Result<Vec<JobKey>, LedgerError> {
        load::jobs_beginning(self.store, name)
    }

    /// Sums over the attempts of a job, and what is set aside for its tokens.
    pub(in crate::ledger::book) fn sums_of(&mut self, job: &Job) -> Result<JobSums, LedgerError> {
        let ids = load::attempt_ids_of(self.store, &job.key)?;
        self.take_in_attempts(&ids)?;
        for id in load::open_reservations_of(self.store, &job.key)? {
            self.reservation(id)?;
        }
        let is_its = |attempt: &&Attempt| {
            (&attempt.owner, &attempt.principal, &attempt.job) == (&job.key.owner, &job.key.principal, &job.key.id)
        };
        let attempts = self.attempts.rows().map(Box::as_ref).filter(is_its).map(Attempt::job_sums);
        let reserved = self.reservations.rows().filter(|reserved| reserved.open && reserved.job == job.key);
        let reserved = reserved.map(|reserved| JobSums::held(Hold::sum(&reserved.holds)));
        let none = JobSums::default();
        Ok(attempts.chain(reserved).try_fold(none, |sums, more| sums.exchanged(&none, &more))?)
    }

    pub(in crate::ledger::book) fn put_job(&mut self, job: Job) {
        self.jobs.put(job.key.clone(), Box::new(job));
    }

    pub(in crate::ledger::book) fn change_job(&mut self, key: &JobKey, change: impl FnOnce(&mut Job)) {
        self.jobs.change(key, |job| change(job));
    }
}
