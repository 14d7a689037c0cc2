//! What people and programs may change in a ledger and read from it.

mod answers;
mod changes;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

pub use self::changes::{Change, ChangeAnswer, LimitSince, NewKey, RESERVED_MAX_MS, RESERVED_MS, Reserved};
use super::job_name::{JobKey, JobName};
use super::keys::KeyView;
pub use super::period_length::PeriodLength;
use super::protocol::{AttemptIdentity, JobKind, Reason};
pub use super::settings::{SettingsView, Standing};
use super::usage_range::UsageRange;
use crate::domain::rating::{Price, RateCard, VirtualTime};
use crate::domain::units::{Microseconds, Nanocredits, OutOfRange, Total};
use crate::domain::usage::Usage;

/// What to read.
#[expect(missing_docs, reason = "the fields are words of the design")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Query {
    /// → [`View::Account`].
    Account { user: String },
    /// → [`View::Entries`]: the newest first, of those before the one of this number.
    #[rustfmt::skip] // A relay of an earlier version knows no such field.
    Entries { user: String, count_max: u32, #[serde(default, skip_serializing_if = "Option::is_none")] before: Option<i64> },
    /// → [`View::Jobs`]: newest first, of one user or of all, of one kind or of all; `before` is the `cursor` of the last
    /// page.
    Jobs { user: Option<String>, kind: Option<JobKind>, running_only: bool, count_max: u32, before: Option<String> },
    /// → [`View::Job`]; `None` inside where there is none. The id in `job` may be a unique prefix of at least 4 characters.
    Job { job: JobName },
    /// → [`View::Stopped`]: a look that costs next to nothing, for a sidecar between two reports. Of several jobs, those of the
    /// principal that `first` names count, where there are such, and all of them have to be stopped.
    #[rustfmt::skip] // A relay of an earlier version knows no such field.
    Stopped { job: JobName, #[serde(default, skip_serializing_if = "Option::is_none")] first: Option<String> },
    /// → [`View::Stopped`]: for the sidecar of an attempt, between two reports. A service keeps the question until the job is stopped, for
    /// `wait_ms` at most; others answer at once, and at next to no cost.
    AttemptStop { attempt: Uuid, wait_ms: u64 },
    /// → [`View::Keys`]: all of them, or the one of this id.
    Keys { id: Option<String> },
    /// → [`View::Usage`]: days or months.
    Usage { whose: Whose, range: UsageRange },
    /// → [`View::UsagePage`]: days or months of each account, one account after the other; `after` is the `next` of a page.
    UsageOfEach { range: UsageRange, after: Option<String>, count_max: u32 },
    /// → [`View::Rates`]: all versions, newest first.
    Rates,
    /// → [`View::Settings`]: as they count now.
    Settings,
    /// → [`View::Figures`]: for whoever looks after a service.
    Figures,
    /// → [`View::Verified`]: replays all entries and compares every balance.
    Verify,
}

/// No page of the usage of each account has more rows.
pub const USAGE_ROWS_MAX: u32 = 1_000;
/// No page of entries has more.
pub const ENTRIES_MAX: u32 = 1_000;

/// Whose usage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// Of this account.
    User(String),
    /// Of all accounts together.
    All,
}

/// Answer to a [`Query`].
#[expect(missing_docs, reason = "the fields are words of the design")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// See [`AccountView`].
    Account(Box<AccountView>),
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
    /// Rows of accounts, and the cursor of the next page.
    UsagePage { rows: Vec<UsageRow>, next: Option<String> },
    /// Cards.
    Rates(Vec<RatesView>),
    /// Of the ledger as a whole.
    Settings(SettingsView),
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
    /// `charged - corrected`, so that `limit - current` is what is left.
    pub current: Nanocredits,
    /// What could be spent in this period: `left + charged - corrected`; `None` without a limit.
    pub limit: Option<Nanocredits>,
    /// For what was used in this period, whatever paid.
    #[serde(default)]
    pub charged: Nanocredits,
    /// By negative corrections, and by debt that was brought into the period or made in it by late usage: zero at most.
    #[serde(default)]
    pub corrected: Nanocredits,
    /// `free + held - debt`; `None` without a limit.
    pub left: Option<Nanocredits>,
    /// For new leases; `None` without a limit.
    #[serde(default)]
    pub free: Option<Nanocredits>,
    /// The same, for a jobmeter of before.
    pub available: Option<Nanocredits>,
    /// Of the allowance of this period and of grants, by leases and reservations.
    pub held: Nanocredits,
    /// How much of it is held for attempts that fell silent.
    pub provisional: Nanocredits,
    /// Owed: what becomes free next pays it.
    #[serde(default)]
    pub debt: Nanocredits,
    /// An operator has suspended the account: nothing starts.
    #[serde(default)]
    pub suspended: bool,
    /// What each period gives; `None` without a limit.
    #[serde(default)]
    pub allowance: Option<Nanocredits>,
    /// Whether what it leaves is kept in a grant.
    #[serde(default)]
    pub carries_over: bool,
    /// What counts from the next period on.
    #[serde(default)]
    pub pending: Option<PendingLimit>,
    /// Live ones, in the order in which they are spent, and those of which something is held.
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
    /// Whether there is such an account. Of one that there is not, the rest is what it would get.
    #[serde(default)]
    pub standing: Standing,
}

/// A limit that does not count yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingLimit {
    /// `None` for none.
    pub limit: Option<Nanocredits>,
    /// Day or month.
    pub period: PeriodLength,
    /// From when on, RFC 3339, UTC.
    pub since: String,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrantView {
    /// Its number in the account; zero from a service of before.
    #[serde(default)]
    pub id: i64,
    /// Granted.
    pub amount: Nanocredits,
    /// Free and held together.
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
    /// The node, cluster or service that opened it; empty where it was opened without a service.
    #[serde(default)]
    pub principal: String,
    /// What for.
    pub kind: JobKind,
    /// For people.
    pub name: Option<String>,
    /// `running`, `provisional` (an attempt fell silent), `ended`, or `refused` (it was never started; a ledger of before kept those).
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

impl JobView {
    /// Which job it is.
    #[must_use]
    pub fn key(&self) -> JobKey {
        JobKey { owner: self.user.clone(), principal: self.principal.clone(), id: self.job.clone() }
    }
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
    pub total_virtual_cpu_time: Microseconds,
    /// Seconds.
    #[serde(rename = "totalVirtualGPUTime")]
    pub total_virtual_gpu_time: Microseconds,
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
    ///
    /// # Errors
    /// Where a sum of them leaves its range, which those of one account never do.
    pub fn plus(self, other: &Self) -> Result<Self, OutOfRange> {
        let time = |one: Microseconds, more: Microseconds| one.0.checked_add(more.0).map(Microseconds);
        let cpu_time = time(self.total_virtual_cpu_time, other.total_virtual_cpu_time);
        let gpu_time = time(self.total_virtual_gpu_time, other.total_virtual_gpu_time);
        let tokens = self.total_tokens_consumed.checked_add(other.total_tokens_consumed);
        Ok(Self {
            total_credits: self.total_credits.plus(other.total_credits)?,
            total_virtual_cpu_time: cpu_time.ok_or(OutOfRange)?,
            total_virtual_gpu_time: gpu_time.ok_or(OutOfRange)?,
            total_tokens_consumed: tokens.ok_or(OutOfRange)?,
            cpu_credits: self.cpu_credits.plus(other.cpu_credits)?,
            gpu_credits: self.gpu_credits.plus(other.gpu_credits)?,
            token_credits: self.token_credits.plus(other.token_credits)?,
            ..self
        })
    }

    /// All of them together.
    ///
    /// # Errors
    /// As of [`Self::plus`].
    pub fn sum(rows: &[Self]) -> Result<Self, OutOfRange> {
        rows.iter().try_fold(Self::default(), Self::plus)
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
    /// Owed by all accounts together.
    #[serde(default)]
    pub debt: Total,
    /// Used by all attempts together, and charged to nobody.
    #[serde(default)]
    pub overshoot: Total,
    /// Alerts that wait for the webhook.
    pub alerts_unsent: u64,
    /// Those that burn or hold something, at most some hundred.
    pub accounts: Vec<AccountFigures>,
}

/// An account that burns, or owes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountFigures {
    /// Whose.
    pub user: String,
    /// Attempts with a live lease.
    pub running: u64,
    /// For what was used in this period, whatever paid.
    pub charged: Nanocredits,
    /// By leases and reservations.
    pub held: Nanocredits,
    /// How much of it for attempts that fell silent.
    pub provisional: Nanocredits,
    /// Free and held, less what is owed; `None` without a limit.
    pub left: Option<Nanocredits>,
    /// Owed.
    #[serde(default)]
    pub debt: Nanocredits,
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
