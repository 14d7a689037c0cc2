//! Answers of the kind that was asked for.

use super::{AccountView, SettingsView, View};
use crate::ledger::LedgerError;

impl View {
    /// To [`super::Query::Account`].
    ///
    /// # Errors
    /// Where it is another answer.
    pub fn account(self) -> Result<AccountView, LedgerError> {
        if let Self::Account(account) = self { Ok(*account) } else { Err(LedgerError::unasked()) }
    }

    /// To [`super::Query::Settings`].
    ///
    /// # Errors
    /// Where it is another answer.
    pub fn settings(self) -> Result<SettingsView, LedgerError> {
        if let Self::Settings(settings) = self { Ok(settings) } else { Err(LedgerError::unasked()) }
    }
}
