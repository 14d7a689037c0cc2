//! What people and programs may change in a ledger and read from it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::keys::{KeyView, Scope};
use super::protocol::{AttemptIdentity, Balance, JobKind, Reason, StopReason};
use super::usage_range::UsageRange;
use crate::domain::rating::{Price, RateCard, VirtualTime};
use crate::domain::units::Nanocredits;
use crate::domain::usage::Usage;

/// How long a limit counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeriodLength {
    /// A day in UTC.
    #[default]
    Day,
    /// A month in UTC.
    Month,
}

impl PeriodLength {
    /// The word for it everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

impl std::str::FromStr for PeriodLength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Day, Self::Month].into_iter().find(|length| length.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is no period: use day or month"))
    }
}

/// A change, by whom (`by`, a login name or a key's name).
#[expect(missing_docs, reason = "the fields are words of the design")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Sets a user's limit per period, from the next period on where the length changes or the limit falls; a higher
    /// limit counts at once.
    SetLimit { user: String, limit: Option<Nanocredits>, period: PeriodLength, by: String, why: String },
    /// Extra credits, with an expiry (seconds since the epoch) or without. `key` makes a repeat harmless.
    Grant { user: String, amount: Nanocredits, expires_at: Option<i64>, by: String, why: String, key: String },
    /// A correction: positive gives credits back, negative takes them.
    Adjust { user: String, amount: Nanocredits, by: String, why: String, key: String },
    /// A new version of the rate card, out of the one that `version` in it names, which has to be the newest. Attempts keep the card they
    /// were opened with.
    SetRates { rates: RateCard, by: String },
    /// An operator's stop of all tasks of a job.
    StopJob { job: String, by: String, why: String },
    /// Charges tokens to a job at once; what the account cannot cover is overshoot.
    ChargeTokens { job: String, count: u64, by: String, key: String },
    /// Sets aside what so many tokens of a job can cost at most, for so long; `new_id` names it from now on.
    ReserveTokens { job: String, count: u64, lasts_ms: u64, new_id: Uuid, by: String, key: String },
    /// Charges the tokens that were used of a reservation, none for all that was not needed, and gives the rest back.
    SettleTokens { job: String, reservation: Uuid, count: u64, by: String, key: String },
    /// A key of the ledger service, of which only the hash is given.
    CreateKey { id: String, hash: String, name: String, scope: Scope, user: Option<String>, by: String },
    /// Makes a key invalid, for good.
    RevokeKey { id: String, by: String },
    /// Settles a provisional attempt at `usage`, or at its full hold where that is `None`.
    Settle { attempt: Uuid, usage: Option<Usage>, by: String, why: String },
}

/// A key to be made, by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// For people.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// Whose account alone.
    pub user: Option<String>,
    /// Who makes it.
    pub by: String,
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

/// What to read.
#[expect(missing_docs, reason = "the fields are words of the design")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Query {
    /// → [`View::Account`].
    Account { user: String },
    /// → [`View::Entries`]: the newest first.
    Entries { user: String, count_max: u32 },
    /// → [`View::Jobs`]: newest first, of one user or of all, of one kind or of all; `before` is the `cursor` of the last
    /// page.
    Jobs { user: Option<String>, kind: Option<JobKind>, running_only: bool, count_max: u32, before: Option<String> },
    /// → [`View::Job`]; `None` inside where there is none. `job` may be a unique prefix of at least 4 characters.
    Job { job: String },
    /// → [`View::Stopped`]: a look that costs next to nothing, for a sidecar between two reports.
    Stopped { job: String },
    /// → [`View::Keys`]: all of them, or the one of this id.
    Keys { id: Option<String> },
    /// → [`View::Usage`]: days or months.
    Usage { whose: Whose, range: UsageRange },
    /// → [`View::Rates`]: all versions, newest first.
    Rates,
    /// → [`View::Figures`]: for whoever looks after a service.
    Figures,
    /// → [`View::Verified`]: replays all entries and compares every balance.
    Verify,
}

/// Whose usage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// Of this account.
    User(String),
    /// Of all accounts together.
    All,
    /// Of all accounts, a row for each.
    Each,
}

/// Answer to a [`Query`].
#[expect(missing_docs, reason = "the fields are words of the design")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// See [`AccountView`].
    Account(AccountView),
    /// Entries.
    Entries(Vec<EntryView>),
    /// Jobs and the cursor of the next page.
    Jobs { jobs: Vec<JobView>, cursor: Option<String> },
    /// One job.
    Job(Option<Box<JobView>>),
    /// Whether an operator stopped the job.
    Stopped(bool),
    /// Keys, the newest first.
    Keys(Vec<KeyView>),
    /// Rows, oldest first.
    Usage(Vec<UsageRow>),
    /// Cards.
    Rates(Vec<RatesView>),
    /// Figures.
    Figures(Box<Figures>),
    /// Result.
    Verified(Verification),
}

/// An account in its current period. Field names are those of the platform's client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountView {
    /// Whose.
    pub user: String,
    /// Credits charged in this period.
    pub current: Nanocredits,
    /// Allowance per period; `None` without a limit.
    pub limit: Option<Nanocredits>,
    /// What is not charged yet: free + held + provisional, grants included; `None` without a limit.
    pub left: Option<Nanocredits>,
    /// Free for new leases; `None` without a limit.
    pub available: Option<Nanocredits>,
    /// Held by live leases.
    pub held: Nanocredits,
    /// Held for attempts that fell silent.
    pub provisional: Nanocredits,
    /// Left of live grants.
    pub grants: Vec<GrantView>,
    /// Day or month.
    pub period: PeriodLength,
    /// RFC 3339, UTC.
    pub period_start: String,
    /// RFC 3339, UTC.
    pub period_end: String,
    /// Until then.
    pub resets_in_ms: u64,
    /// Over all running jobs, from their last reports.
    pub burn_per_second: Nanocredits,
    /// At this rate, RFC 3339; `None` when nothing burns or there is no limit.
    pub exhausted_at: Option<String>,
    /// Attempts that hold a live lease.
    pub running: u32,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrantView {
    /// Granted.
    pub amount: Nanocredits,
    /// Not charged yet.
    pub left: Nanocredits,
    /// RFC 3339, UTC.
    pub expires_at: Option<String>,
    /// Why.
    pub why: String,
}

/// One entry of the append-only list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EntryView {
    /// Gapless within the ledger.
    pub id: i64,
    /// RFC 3339, UTC.
    pub at: String,
    /// `charge`, `grant`, `adjust`, `limit`, `refuse`, `settle`, `tokens`, `reserve`, `expire`, …
    pub kind: String,
    /// The sum that it moved; charges are positive.
    pub amount: Nanocredits,
    /// Job, where one is concerned.
    pub job: Option<String>,
    /// Attempt or reservation, where one is concerned.
    pub attempt: Option<Uuid>,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
}

/// A job with its attempts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobView {
    /// Its id.
    pub job: String,
    /// Whose.
    pub user: String,
    /// What for.
    pub kind: JobKind,
    /// For people.
    pub name: Option<String>,
    /// `running`, `provisional` (an attempt fell silent), `ended`, or `refused` (it was never started).
    pub state: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// RFC 3339, UTC; `None` while it runs.
    pub ended_at: Option<String>,
    /// Sum over attempts, tokens charged to the job included.
    pub charged: Price,
    /// Sum over attempts, reported, never charged.
    pub overshoot: Nanocredits,
    /// Sum over attempts.
    #[serde(rename = "virtual")]
    pub virtual_time: VirtualTime,
    /// Sum of attempts and of tokens charged to the job.
    pub tokens: u64,
    /// The job's own limit.
    pub limit: Option<Nanocredits>,
    /// Oldest first. In a list (`Query::Jobs`) without `receipt` and `burn`.
    pub attempts: Vec<AttemptView>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptView {
    /// Who.
    pub identity: AttemptIdentity,
    /// `running`, `provisional` or `ended`.
    pub state: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// RFC 3339, UTC.
    pub ended_at: Option<String>,
    /// `None` while it runs.
    pub reason: Option<Reason>,
    /// Last reported.
    pub usage: Usage,
    /// So far.
    pub charged: Price,
    /// So far.
    pub overshoot: Nanocredits,
    /// Its hold now.
    pub held: Nanocredits,
    /// Pinned.
    pub rates: RateCard,
    /// The final receipt, with `credits` completed.
    pub receipt: Option<serde_json::Value>,
    /// Cumulative credits over time, a bounded number of points, for a chart.
    pub burn: Vec<BurnPoint>,
}

/// A point of the burn chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BurnPoint {
    /// Since the attempt began.
    pub after_ms: u64,
    /// Cumulative.
    pub charged: Nanocredits,
}

/// A row of the usage report. Field names are those of the platform's client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageRow {
    /// Whose, where each account has its rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// RFC 3339, UTC.
    pub period_start: String,
    /// RFC 3339, UTC.
    pub period_end: String,
    /// Credits.
    pub total_credits: Nanocredits,
    /// Seconds.
    #[serde(rename = "totalVirtualCPUTime")]
    pub total_virtual_cpu_time: crate::domain::units::Microseconds,
    /// Seconds.
    #[serde(rename = "totalVirtualGPUTime")]
    pub total_virtual_gpu_time: crate::domain::units::Microseconds,
    /// Tokens.
    pub total_tokens_consumed: u64,
    /// What of the credits was for CPU time.
    #[serde(default)]
    pub cpu_credits: Nanocredits,
    /// What of them was for GPU time.
    #[serde(default)]
    pub gpu_credits: Nanocredits,
    /// What of them was for tokens.
    #[serde(default)]
    pub token_credits: Nanocredits,
}

impl UsageRow {
    /// Both together, at the place of this one.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            total_credits: self.total_credits.saturating_add(other.total_credits),
            total_virtual_cpu_time: self.total_virtual_cpu_time.saturating_add(other.total_virtual_cpu_time),
            total_virtual_gpu_time: self.total_virtual_gpu_time.saturating_add(other.total_virtual_gpu_time),
            total_tokens_consumed: self.total_tokens_consumed.saturating_add(other.total_tokens_consumed),
            cpu_credits: self.cpu_credits.saturating_add(other.cpu_credits),
            gpu_credits: self.gpu_credits.saturating_add(other.gpu_credits),
            token_credits: self.token_credits.saturating_add(other.token_credits),
            ..self
        }
    }
}

/// A version of the rate card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RatesView {
    /// The card.
    pub rates: RateCard,
    /// RFC 3339, UTC.
    pub since: String,
    /// Who.
    pub by: String,
}

/// The books in a few figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Attempts with a live lease.
    pub running: u64,
    /// Attempts that fell silent.
    pub provisional: u64,
    /// How long the oldest of those has been silent, in µs.
    pub provisional_oldest_us: u64,
    /// Accounts whose charges and holds are more than what could be spent.
    pub overspent: u64,
    /// Alerts that wait for the webhook.
    pub alerts_unsent: u64,
    /// Those that burn or hold something, at most some hundred.
    pub accounts: Vec<AccountFigures>,
}

/// An account that burns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountFigures {
    /// Whose.
    pub user: String,
    /// Attempts with a live lease.
    pub running: u64,
    /// In this period.
    pub charged: Nanocredits,
    /// By live leases.
    pub held: Nanocredits,
    /// For attempts that fell silent.
    pub provisional: Nanocredits,
    /// Not charged yet; `None` without a limit.
    pub left: Option<Nanocredits>,
    /// Over all its running jobs.
    pub burn_per_second: Nanocredits,
}

/// What `ledger verify` found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Replayed.
    pub entries: u64,
    /// Compared.
    pub accounts: u64,
    /// Compared.
    pub attempts: u64,
    /// Each disagreement in one sentence; empty when the books are right.
    pub problems: Vec<String>,
}
