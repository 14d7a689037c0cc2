//! What an administrator sets for a ledger as a whole, by versions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::period_length::PeriodLength;
use crate::domain::book::LIMIT_DEFAULT;
use crate::domain::units::{NANOCREDITS_MAX, Nanocredits};

/// How long a lease lasts until somebody sets another length, in ms.
pub const LEASE_DEFAULT_MS: u64 = 30_000;
/// No lease is shorter, in ms: a sidecar needs time for a few questions in it.
pub const LEASE_MIN_MS: u64 = 5_000;
/// No lease is longer, in ms: for so long a job that fell silent goes on, and its credits are held.
pub const LEASE_MAX_MS: u64 = 3_600_000;
/// What a user may spend a month who was never given a limit: as much as in thirty days.
const MONTH_LIMIT_DEFAULT: Nanocredits = Nanocredits(LIMIT_DEFAULT.0 * 30);

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
            month_limit: Some(MONTH_LIMIT_DEFAULT),
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
    pub fn check(&self) -> Result<(), OutOfBounds> {
        if !(LEASE_MIN_MS..=LEASE_MAX_MS).contains(&self.lease_ms) {
            return Err(OutOfBounds::Lease(self.lease_ms));
        }
        let mut limits = [self.day_limit, self.month_limit].into_iter().flatten();
        limits
            .find(|limit| !(0..=NANOCREDITS_MAX).contains(&limit.0))
            .map_or(Ok(()), |limit| Err(OutOfBounds::Limit(limit)))
    }
}

/// A value that no ledger can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfBounds {
    /// So many ms are no length of a lease.
    #[error("a lease of {0} ms is out of range: set one from {LEASE_MIN_MS} to {LEASE_MAX_MS} ms")]
    Lease(u64),
    /// So many credits are no limit.
    #[error("a limit of {0} credits is out of range: set one from 0 to a thousand million")]
    Limit(Nanocredits),
}

/// Settings as the books keep them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptSettings {
    /// As they count now.
    pub settings: LedgerSettings,
    /// The longest lease that was given before they counted, in ms: some may be out for so long after that.
    pub outlasting_ms: u64,
    /// Since when they count, in µs since 1970; zero before the first change.
    pub since_us: i64,
    /// By whom they were set; empty before the first change.
    pub by: String,
}

impl KeptSettings {
    /// The longest lease that may be out, in ms, a restore aside.
    #[must_use]
    pub fn longest_lease_ms(&self, now_us: i64) -> u64 {
        // A slice of the next period lets one last for a second time.
        let outlast_until_us = i128::from(self.since_us) + i128::from(self.outlasting_ms) * 2_000;
        let outlasting_ms = if i128::from(now_us) <= outlast_until_us { self.outlasting_ms } else { 0 };
        self.settings.lease_ms.max(outlasting_ms)
    }
}

/// The settings of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SettingsView {
    /// As they count now.
    pub settings: LedgerSettings,
    /// RFC 3339; `None` before the first change.
    pub since: Option<String>,
    /// By whom they were set; empty before the first change.
    pub by: String,
}

/// Whether there is an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// There is; what a service of before does not say.
    #[default]
    Known,
    /// There is none yet: the user's first job makes it.
    Unknown,
    /// There is none, and the ledger's settings say that an administrator has to add it.
    NotAdmitted,
}
