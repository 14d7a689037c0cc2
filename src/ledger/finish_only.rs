//! A ledger for who settles what somebody else has written down: attempts that the ledger knows are finished, by the secret that
//! stands there, and nothing else is said.

use super::keys::Secret;
use super::protocol::{Finish, FinishAnswer, OpenAnswer, OpenRequest, Report, ReportAnswer};
use super::views::{Change, ChangeAnswer, NewKey, Query, View};
use super::{Ledger, LedgerError};

/// Opening an attempt anew, which a restored ledger permits, would charge whichever account the record names.
pub struct FinishOnly(pub Box<dyn Ledger>);

fn refused<T>() -> Result<T, LedgerError> {
    Err(LedgerError::Refused(
        "the ledger does not know this attempt: only its own user's jobmeter can open it again".to_owned(),
    ))
}

impl std::fmt::Debug for FinishOnly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FinishOnly").finish_non_exhaustive()
    }
}

impl Ledger for FinishOnly {
    fn open(&mut self, _: &OpenRequest) -> Result<OpenAnswer, LedgerError> {
        refused()
    }

    fn report(&mut self, _: &Report) -> Result<ReportAnswer, LedgerError> {
        refused()
    }

    fn finish(&mut self, finish: &Finish) -> Result<FinishAnswer, LedgerError> {
        self.0.finish(finish)
    }

    fn change(&mut self, _: &Change) -> Result<ChangeAnswer, LedgerError> {
        refused()
    }

    fn new_key(&mut self, _: &NewKey) -> Result<Secret, LedgerError> {
        refused()
    }

    fn read(&mut self, _: &Query) -> Result<View, LedgerError> {
        refused()
    }
}
