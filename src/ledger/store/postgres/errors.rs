//! What PostgreSQL's errors mean to a caller.

use tokio_postgres::error::SqlState;

use crate::ledger::LedgerError;

impl From<tokio_postgres::Error> for LedgerError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(told) = error.as_db_error() else {
            return Self::Unavailable(format!("PostgreSQL does not answer: {}", chain(&error)));
        };
        let text = format!("PostgreSQL says: {}", told.message());
        let code = told.code();
        if [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::UNIQUE_VIOLATION]
            .contains(code)
        {
            return Self::Conflict(text);
        }
        if *code == SqlState::LOCK_NOT_AVAILABLE {
            return Self::Locked(text);
        }
        match code.code().get(..2) {
            // No room, no memory, too many connections; timeouts and shutdowns; connections.
            Some("53" | "57" | "08" | "55" | "58") => Self::Unavailable(text),
            // No such user, password or database; no right.
            Some("28" | "3D") => Self::Refused(text),
            Some("42") if *code == SqlState::INSUFFICIENT_PRIVILEGE => Self::Refused(text),
            Some("25") if *code == SqlState::READ_ONLY_SQL_TRANSACTION => Self::Unavailable(text),
            _ => Self::Broken(text),
        }
    }
}

/// An error with all that stands behind it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
