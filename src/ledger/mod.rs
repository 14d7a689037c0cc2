//! The ledger: what is left, what is held, what was charged, and why.
//!
//! [`Ledger`] is what the sidecar and the command line see. A ledger on a database ([`store`]) answers it in this process,
//! the client of a ledger service ([`http`]) over HTTP.

pub mod asker;
pub mod attempt_secret;
pub mod book;
pub mod finish_only;
pub mod http;
pub mod job_name;
pub mod keys;
pub mod location;
pub mod period_length;
pub mod protocol;
pub mod receipt;
pub mod receipt_text;
pub mod relay;
pub mod session;
pub mod settings;
pub mod store;
pub mod usage_range;
pub mod views;

use std::sync::Arc;

use crate::domain::units::OutOfRange;
use keys::Secret;
use protocol::{Finish, FinishAnswer, OpenAnswer, OpenRequest, Report, ReportAnswer};
use relay::Kept;
use settings::OutOfBounds;
use views::{Change, ChangeAnswer, NewKey, Query, View};

/// Ends what a database is at: who has asked for that gets an error. It may take as long as a connection does.
pub type Interrupter = Arc<dyn Fn() -> Result<(), LedgerError> + Send + Sync>;

/// What a sidecar and the command line ask of a ledger. An answer leaves after its commit: acknowledged means durable.
pub trait Ledger: Send {
    /// Opens an attempt and grants its first lease, or refuses.
    ///
    /// # Errors
    /// See [`LedgerError`]; a refusal for want of credits is an answer, not an error.
    fn open(&mut self, request: &OpenRequest) -> Result<OpenAnswer, LedgerError>;

    /// Charges cumulative usage and renews the lease.
    ///
    /// # Errors
    /// See [`LedgerError`].
    fn report(&mut self, report: &Report) -> Result<ReportAnswer, LedgerError>;

    /// Charges the final usage, keeps the receipt and releases every hold of the attempt.
    ///
    /// # Errors
    /// See [`LedgerError`].
    fn finish(&mut self, finish: &Finish) -> Result<FinishAnswer, LedgerError>;

    /// What an attempt has burned so far, for whoever settles it where its sidecar vanishes without a trace. A ledger does
    /// not need it: the sidecar has a spool; a relay does, whose wrapper has none.
    ///
    /// # Errors
    /// See [`LedgerError`].
    fn keep(&mut self, _kept: &Kept) -> Result<(), LedgerError> {
        Ok(())
    }

    /// Changes an account, the rates, a job or tokens; each change is an entry with who and why.
    ///
    /// # Errors
    /// See [`LedgerError`].
    fn change(&mut self, change: &Change) -> Result<ChangeAnswer, LedgerError>;

    /// Makes a key of the ledger service, which is told this once.
    ///
    /// # Errors
    /// See [`LedgerError`].
    fn new_key(&mut self, key: &NewKey) -> Result<Secret, LedgerError>;

    /// What ends the question that it is at, for another thread; `None` where nothing does.
    fn interrupter(&self) -> Option<Interrupter> {
        None
    }

    /// Another line to the same ledger, for a question that is kept there. `None` where none is: a look costs next to nothing.
    fn second_line(&self) -> Option<Box<dyn Ledger>> {
        None
    }

    /// Reads.
    ///
    /// # Errors
    /// See [`LedgerError`].
    fn read(&mut self, query: &Query) -> Result<View, LedgerError>;
}

/// The families decide what a caller does, not the text.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The ledger said no, and would say so again: a bad value, an unknown job, a key used with another body.
    #[error("{0}")]
    Refused(String),
    /// What was to be changed is no longer what whoever changes it has seen: look again.
    #[error("{0}")]
    Outdated(String),
    /// There is no such job, attempt or key.
    #[error("{0}")]
    Missing(String),
    /// The books do not know this attempt: after a restore it can be opened again ([`protocol::Resume`]).
    #[error("{0}")]
    Unknown(String),
    /// The secret of the attempt was not shown: whoever asks did not open it.
    #[error(
        "the attempt belongs to the sidecar that opened it: flush its spool with the jobmeter that wrote it or a newer one, \
         or settle it by `jobmeter ledger settle`"
    )]
    Foreign,
    /// Try again within the lease: busy, a full disk, a network that does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// Another session of the database keeps the account locked.
    #[error(
        "another session of the database keeps it locked: {0}: try again, or look for who holds it in pg_stat_activity"
    )]
    Locked(String),
    /// Another transaction came in the way: the same again may succeed.
    #[error("{0}")]
    Conflict(String),
    /// Corrupt data, or data of a newer version: stop.
    #[error("{0}")]
    Broken(String),
}

impl From<OutOfRange> for LedgerError {
    fn from(error: OutOfRange) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<OutOfBounds> for LedgerError {
    fn from(error: OutOfBounds) -> Self {
        Self::Refused(error.to_string())
    }
}

impl LedgerError {
    /// A change of the rate card by somebody who has not seen the newest one, but `seen`.
    #[must_use]
    pub fn outdated_rates(newest: u64, seen: impl std::fmt::Display) -> Self {
        Self::Outdated(format!(
            "the rate card is at version {newest} by now, and this changes version {seen}: look at it by `jobmeter rates show`, \
             and make the change again"
        ))
    }

    /// The same of the ledger's settings.
    #[must_use]
    pub fn outdated_settings(newest: u64, seen: impl std::fmt::Display) -> Self {
        Self::Outdated(format!(
            "the ledger's settings are at version {newest} by now, and this changes version {seen}: look at them by `jobmeter ledger \
             show`, and make the change again"
        ))
    }

    /// An answer of another kind than the question's.
    #[must_use]
    pub fn unasked() -> Self {
        Self::Broken("the ledger answered what it was not asked".to_owned())
    }
}
