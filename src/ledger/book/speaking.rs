//! Who speaks for an attempt: the sidecar that opened it, and nobody else who holds a key. An operator settles without.

use super::rows::Attempt;
use crate::ledger::LedgerError;
use crate::ledger::attempt_secret::AttemptSecret;

impl Attempt {
    /// Refuses whoever opens, reports or finishes it with another secret than its own, or without it. One that was opened
    /// without any, by an older sidecar or through an older service, takes the first that is shown.
    pub(super) fn hear(&mut self, shown: Option<&AttemptSecret>) -> Result<(), LedgerError> {
        let shown = shown.map(AttemptSecret::hash);
        // The hashes of random secrets: how far they agree tells nothing.
        if self.secret.is_some() && self.secret != shown {
            return Err(LedgerError::Foreign);
        }
        self.secret = shown;
        Ok(())
    }
}
