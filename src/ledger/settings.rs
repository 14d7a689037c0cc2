//! What an administrator sets for a ledger as a whole, by versions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::LedgerError;
use super::views::PeriodLength;
use crate::domain::book::LIMIT_DEFAULT;
use crate::domain::units::{NANOCREDITS_MAX, Nanocredits};

/// How long a lease lasts until somebody sets another length, in ms.
pub const LEASE_DEFAULT_MS: u64 = 30_000;
/// No lease is shorter, in ms: a sidecar needs time for a few questions in it.
pub const LEASE_MIN_MS: u64 = 5_000;
/// No lease is longer, in ms: for so long a job that fell silent goes on, and its credits are held.
pub const LEASE_MAX_MS: u64 = 3_600_000;
/// Days that a month is given for, until somebody sets another limit.
const MONTH_DAYS: i64 = 30;

/// Settings of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LedgerSettings {
    /// Counts up with each change; 1 before the first.
    pub version: u64,
    /// How long a lease lasts, from 5000 to 3600000: the outage of the ledger that a running job survives.
    pub lease_ms: u64,
    /// The limit that an account has from the start, where it is one of a day; `null` for none.
    pub day_limit: Option<Nanocredits>,
    /// The same where it is one of a month.
    pub month_limit: Option<Nanocredits>,
    /// Which of both a new account has.
    pub period: PeriodLength,
    /// Whether a user may run jobs who has no account yet: the first one makes it.
    pub unknown_users: bool,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self {
            version: 1,
            lease_ms: LEASE_DEFAULT_MS,
            day_limit: Some(LIMIT_DEFAULT),
            month_limit: Some(Nanocredits(LIMIT_DEFAULT.0.saturating_mul(MONTH_DAYS))),
            period: PeriodLength::Day,
            unknown_users: true,
        }
    }
}

impl LedgerSettings {
    /// The limit of a new account.
    #[must_use]
    pub const fn limit(&self) -> Option<Nanocredits> {
        match self.period {
            PeriodLength::Day => self.day_limit,
            PeriodLength::Month => self.month_limit,
        }
    }

    /// Whether they can be a ledger's.
    ///
    /// # Errors
    /// Where a value is out of its range.
    pub fn check(&self) -> Result<(), LedgerError> {
        let lease_ms = self.lease_ms;
        if !(LEASE_MIN_MS..=LEASE_MAX_MS).contains(&lease_ms) {
            return Err(LedgerError::Refused(format!(
                "a lease of {lease_ms} ms is out of range: set one from {LEASE_MIN_MS} to {LEASE_MAX_MS} ms"
            )));
        }
        for limit in [self.day_limit, self.month_limit].into_iter().flatten() {
            if !(0..=NANOCREDITS_MAX).contains(&limit.0) {
                return Err(LedgerError::Refused(format!(
                    "a limit of {limit} credits is out of range: set one from 0 to a thousand million"
                )));
            }
        }
        Ok(())
    }
}
