//! What people and programs may change in a ledger.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::rating::RateCard;
use crate::domain::units::Nanocredits;
use crate::domain::usage::Usage;
use crate::ledger::job_name::JobName;
use crate::ledger::keys::Scope;
use crate::ledger::period_length::PeriodLength;
use crate::ledger::protocol::{Balance, StopReason};
use crate::ledger::settings::LedgerSettings;

/// From when on a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitSince {
    /// From this moment on.
    Now,
    /// From the next period on.
    NextPeriod,
}

/// A change, by whom (`by`, a login name or a key's name).
#[expect(missing_docs, reason = "the fields are words of the design")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Sets a user's limit per period, from the next period on where the length changes or the limit falls; a higher
    /// limit counts at once.
    SetLimit {
        user: String,
        limit: Option<Nanocredits>,
        period: PeriodLength,
        /// Where it is not said: at once if it rises or nothing was spent yet, else from the next period on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<LimitSince>,
        /// Whether what a period's allowance leaves is kept in a grant; `None` leaves that as it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        carry_over: Option<bool>,
        by: String,
        why: String,
    },
    /// Nothing of the account starts, and what runs stops, until it is resumed.
    Suspend { user: String, by: String, why: String },
    /// Ends a suspension of the account.
    Resume { user: String, by: String, why: String },
    /// Puts an account back into the period that holds the ledger's time, after a clock was years ahead.
    RepairPeriod { user: String, by: String, why: String },
    /// Ends what is free of a grant.
    RevokeGrant { user: String, grant: i64, by: String, why: String },
    /// Extra credits, with an expiry (seconds since the epoch) or without. `key` makes a repeat harmless.
    Grant { user: String, amount: Nanocredits, expires_at: Option<i64>, by: String, why: String, key: String },
    /// A correction: a positive one is a grant, which ends with the period where no expiry (seconds since the epoch) is given; a negative
    /// one takes what is free, of one grant where that is named, and else what it cannot take is owed.
    Adjust {
        user: String,
        amount: Nanocredits,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grant: Option<i64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<i64>,
        by: String,
        why: String,
        key: String,
    },
    /// A new version of the rate card, out of the one that `version` in it names, which has to be the newest. Attempts keep the card they
    /// were opened with.
    SetRates { rates: RateCard, by: String },
    /// New settings of the ledger, out of those that `version` in them names, which have to be the newest.
    SetSettings { settings: LedgerSettings, by: String },
    /// An operator's stop of all tasks of a job.
    StopJob { job: JobName, by: String, why: String },
    /// Charges tokens to a job at once; what the account cannot cover is overshoot.
    ChargeTokens { job: JobName, count: u64, by: String, key: String },
    /// Sets aside what so many tokens of a job can cost at most, for so long; `new_id` names it from now on.
    ReserveTokens { job: JobName, count: u64, lasts_ms: u64, new_id: Uuid, by: String, key: String },
    /// Charges the tokens that were used of a reservation, none for all that was not needed, and gives the rest back.
    SettleTokens { job: JobName, reservation: Uuid, count: u64, by: String, key: String },
    /// A key of the ledger service, of which only the hash is given.
    CreateKey { id: String, hash: String, key: NewKey },
    /// Makes a key invalid, for good.
    RevokeKey { id: String, by: String },
    /// Settles a provisional attempt at `usage`, or at its full hold where that is `None`.
    Settle { attempt: Uuid, usage: Option<Usage>, by: String, why: String },
}

impl Change {
    /// A limit that counts from when it usually does.
    #[must_use]
    pub fn limit(user: &str, limit: Option<Nanocredits>, period: PeriodLength, by: &str) -> Self {
        let (user, by, why) = (user.to_owned(), by.to_owned(), String::new());
        Self::SetLimit { user, limit, period, since: None, carry_over: None, by, why }
    }

    /// Whether it is about a job, as whoever runs that may ask for it. All others are for operators.
    #[must_use]
    pub const fn is_of_a_job(&self) -> bool {
        self.job().is_some()
    }

    /// The job that it is about, where it is about one.
    #[must_use]
    pub const fn job(&self) -> Option<&JobName> {
        match self {
            Self::StopJob { job, .. }
            | Self::ChargeTokens { job, .. }
            | Self::ReserveTokens { job, .. }
            | Self::SettleTokens { job, .. } => Some(job),
            _ => None,
        }
    }

    /// The same, to name it in another way.
    pub const fn job_mut(&mut self) -> Option<&mut JobName> {
        match self {
            Self::StopJob { job, .. }
            | Self::ChargeTokens { job, .. }
            | Self::ReserveTokens { job, .. }
            | Self::SettleTokens { job, .. } => Some(job),
            _ => None,
        }
    }
}

/// A key to be made, by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// For people.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// Whose account alone.
    pub user: Option<String>,
    /// For whom it works; its name where nothing is said, so that a key which follows another goes on with its work.
    pub principal: Option<String>,
    /// Until when it is good, in seconds since 1970; for ever where nothing is said.
    pub expires_at: Option<i64>,
    /// Who makes it.
    pub by: String,
}

impl NewKey {
    /// One that is good for every account and for ever, and works for whom it is named after.
    #[must_use]
    pub fn new(name: &str, scope: Scope, by: &str) -> Self {
        let (name, by) = (name.to_owned(), by.to_owned());
        Self { name, scope, user: None, principal: None, expires_at: None, by }
    }
}

/// Answer to a [`Change`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeAnswer {
    /// Whether the same change with the same key had been made before.
    pub again: bool,
    /// The account concerned, after it; `None` for rates and stops.
    pub balance: Option<Balance>,
    /// What was charged (tokens, settle), else zero.
    pub charged: Nanocredits,
    /// What could not be covered.
    pub overshoot: Nanocredits,
    /// What was set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Reserved>,
    /// Nothing was set aside, and this is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<StopReason>,
}

impl ChangeAnswer {
    /// Where no account was moved.
    #[must_use]
    pub const fn nothing(again: bool) -> Self {
        let (charged, overshoot) = (Nanocredits::ZERO, Nanocredits::ZERO);
        Self { again, balance: None, charged, overshoot, reserved: None, refused: None }
    }
}

/// How long tokens are reserved for where nothing else is said, in ms.
pub const RESERVED_MS: u64 = 900_000;
/// And at most.
pub const RESERVED_MAX_MS: u64 = 86_400_000;

/// Credits that were set aside for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reserved {
    /// To be settled by this id.
    pub reservation: Uuid,
    /// So many.
    pub held: Nanocredits,
    /// After this they go back by themselves.
    pub lasts_ms: u64,
}
