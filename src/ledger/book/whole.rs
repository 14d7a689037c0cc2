//! What holds for the ledger as a whole, and what an administrator may set of it.

use super::Books;
use super::rows::{Account, Entry};
use crate::domain::book::LIMIT_DEFAULT;
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::settings::{KeptSettings, LedgerSettings};
use crate::ledger::views::{ChangeAnswer, PeriodLength};

impl Books<'_> {
    /// As the books keep them, for whoever reads them.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn kept_settings(&mut self) -> Result<KeptSettings, LedgerError> {
        self.shelf.settings().cloned()
    }

    pub(super) fn settings(&mut self) -> Result<LedgerSettings, LedgerError> {
        Ok(self.shelf.settings()?.settings)
    }

    /// How long a lease lasts that is given now.
    pub(super) fn lease_ms(&mut self) -> Result<u64, LedgerError> {
        Ok(self.settings()?.lease_ms)
    }

    /// The longest lease that may be out, in ms: one that was given before leases became shorter lasts as it was given.
    pub(super) fn longest_lease_ms(&mut self) -> Result<u64, LedgerError> {
        let now_us = self.now_us;
        Ok(self.shelf.settings()?.longest_lease_ms(now_us))
    }

    /// New settings, which name the version that they change: of two who change them at once none undoes what the other did.
    pub(super) fn set_settings(&mut self, settings: &LedgerSettings, by: &str) -> Result<ChangeAnswer, LedgerError> {
        settings.check()?;
        let before = self.settings()?;
        if settings.version != before.version {
            return Err(LedgerError::outdated_settings(before.version, settings.version));
        }
        if *settings == before {
            return Ok(ChangeAnswer::nothing(true));
        }
        let outlasting_ms = self.longest_lease_ms()?;
        let settings = LedgerSettings { version: before.version + 1, ..*settings };
        let told = serde_json::to_string(&settings).map_err(|error| LedgerError::Broken(error.to_string()))?;
        self.shelf.put_settings(KeptSettings { settings, outlasting_ms, since_us: self.now_us, by: by.to_owned() });
        self.of_ledger("settings", by, &told)?;
        Ok(ChangeAnswer::nothing(false))
    }

    /// A user who has no account may run nothing where the settings say so.
    pub(super) fn admit(&mut self, user: &str) -> Result<(), LedgerError> {
        if self.shelf.account(user)?.is_some() || self.settings()?.unknown_users {
            return Ok(());
        }
        Err(LedgerError::Refused(format!(
            "no account {user:?} is known, and this ledger runs the jobs of known users alone: an administrator adds the account by \
             `jobmeter account limit --user {user} CREDITS`"
        )))
    }

    /// A new account has another limit than the one that every ledger begins with: the books say so.
    pub(super) fn note_default(&mut self, account: &Account) {
        if (account.limit, account.length) == (Some(LIMIT_DEFAULT), PeriodLength::Day) {
            return;
        }
        let told = account.limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        let why = format!("{told} a {} at once: the limit of new accounts", account.length.as_str());
        let entry = self.of_account("limit", account, "ledger", &why);
        let amount = account.limit.unwrap_or(Nanocredits(-1));
        self.shelf.append(Entry { amount, source: 1, ..entry });
    }
}
