//! What a sidecar and a ledger say to each other, over a function call or over HTTP.
//!
//! Durations travel, never times of day: the sidecar counts them on `CLOCK_BOOTTIME` from when it *sent* the request
//! that the answer echoes, so clocks that disagree change nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::attempt_secret::AttemptSecret;
use super::receipt_text::ReceiptText;
use crate::domain::rating::{Price, RateCard};
use crate::domain::units::Nanocredits;
use crate::domain::usage::Usage;

/// What a job is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// Fits a model.
    #[default]
    Training,
    /// Writes data from a model.
    Generation,
    /// Runs the code of a chat.
    PythonSession,
}

impl JobKind {
    /// The word for it everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Generation => "generation",
            Self::PythonSession => "python-session",
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for JobKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Training, Self::Generation, Self::PythonSession]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no kind of job: use training, generation or python-session"))
    }
}

/// Which job, task and attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttemptIdentity {
    /// One start of jobmeter: a `UUIDv7` of its own.
    pub attempt: Uuid,
    /// The job, as the scheduler names it.
    pub job: String,
    /// The task within the job.
    pub task: String,
    /// Whose credits.
    pub user: String,
    /// What it is for.
    pub kind: JobKind,
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
    /// For people and programs.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The command line, lossily as UTF-8.
    pub command: Vec<String>,
    /// Where it runs.
    pub host: String,
}

/// What the attempt can burn at most, and how exactly its meter can stop it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Millionths of a CPU, that is µs of CPU time per second.
    pub cpus_ppm: u64,
    /// GPUs that it could open and whose names are not known.
    pub gpus: u64,
    /// Of those whose names are known, how many there are of each name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gpu_models: BTreeMap<String, u64>,
    /// Tick plus time to stop, in µs: the guard band G is the highest rate times this.
    pub stop_us: u64,
}

/// The same as the books keep it: at the prices that are pinned for the attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Millionths of a CPU.
    pub cpus_ppm: u64,
    /// Weights of all GPUs that it could open, added up, in parts per million.
    pub gpus_ppm: u64,
    /// Tick plus time to stop, in µs.
    pub stop_us: u64,
}

impl Resources {
    /// At these prices.
    #[must_use]
    pub fn pace(&self, rates: &RateCard) -> Pace {
        let of_unknown = rates.gpu_weight_ppm_of("").saturating_mul(self.gpus);
        let gpus_ppm = rates.gpus_ppm(&self.gpu_models).saturating_add(of_unknown);
        Pace { cpus_ppm: self.cpus_ppm, gpus_ppm, stop_us: self.stop_us }
    }
}

/// Opens an attempt. Opening the same attempt again returns the same lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenRequest {
    /// Who.
    pub identity: AttemptIdentity,
    /// How fast at most.
    pub resources: Resources,
    /// The job's own limit, kept over all its tasks.
    #[serde(default)]
    pub limit: Option<Nanocredits>,
    /// The attempt runs, or has run, and a restore made the ledger forget it.
    #[serde(default)]
    pub resume: Option<Resume>,
    /// What its sidecar makes up, and shows with each report and the finish as well. It travels beside the body.
    #[serde(skip)]
    pub secret: Option<AttemptSecret>,
}

/// What an attempt tells a ledger that was restored to a time before it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// How long ago it began.
    pub started_ms_ago: u64,
    /// Of the rate card that it was opened with.
    pub rates_version: u64,
    /// The period that pays now.
    pub period: i64,
    /// The ceiling that it obeys; zero once it has ended.
    pub ceiling: Nanocredits,
    /// Of that ceiling.
    pub ceiling_version: u64,
}

/// Credits held for one attempt, as a ceiling on its cumulative price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// Increases with each ceiling; the sidecar takes only newer ones, and confirms by version.
    pub version: u64,
    /// The attempt may burn to here and no further.
    pub ceiling: Nanocredits,
    /// The period (its start in seconds since the epoch, UTC) that pays.
    pub period: i64,
    /// How long the lease lasts, from when the request was sent. Never past the period's end.
    pub lasts_ms: u64,
    /// When the sidecar should report at the latest.
    pub report_in_ms: u64,
    /// A slice of the next period, once this one nearly ends: see [`NextPeriod`].
    #[serde(default)]
    pub next: Option<NextPeriod>,
    /// As things stand nothing is left to raise the ceiling with, and this is why.
    #[serde(default)]
    pub last: Option<StopReason>,
    /// Neither the account nor the job has a limit: while the ledger is silent the attempt goes on beyond the ceiling and the end of the
    /// lease, and reports what it burned when that is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unbounded: bool,
}

impl Lease {
    /// The same for a sidecar that counts from a question which was kept waiting for so long before it was answered.
    #[must_use]
    pub fn later(self, ms: u64) -> Self {
        let next = self.next.map(|next| NextPeriod { starts_in_ms: next.starts_in_ms.saturating_add(ms), ..next });
        let (lasts_ms, report_in_ms) = (self.lasts_ms.saturating_add(ms), self.report_in_ms.saturating_add(ms));
        Self { lasts_ms, report_in_ms, next, ..self }
    }
}

/// Lets an attempt run over the end of a period without waiting. At the end of the lease's period the sidecar takes a
/// reading, and from then on its ceiling is the price of that reading + `amount`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NextPeriod {
    /// The next period's start.
    pub period: i64,
    /// From when the request was sent until that start.
    pub starts_in_ms: u64,
    /// Held in the next period for this attempt.
    pub amount: Nanocredits,
    /// How long after the start the lease lasts.
    pub lasts_ms: u64,
}

/// What is left in the account, for people. One function of the books makes it: `limit - left` is what was spent of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Balance {
    /// Free and held together, less what is owed. `None` without a limit.
    pub left: Option<Nanocredits>,
    /// What could be spent in the period. `None` without a limit.
    pub limit: Option<Nanocredits>,
    /// An operator has suspended the account.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
}

/// Answer to [`OpenRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpenAnswer {
    /// The attempt may start.
    Opened {
        /// Pinned for the attempt.
        rates: RateCard,
        /// The first lease.
        lease: Lease,
        /// After the hold.
        balance: Balance,
        /// Whether this attempt had been opened before.
        again: bool,
    },
    /// Nothing may start: the refusal is an entry of the account.
    Refused {
        /// Why.
        reason: StopReason,
        /// Now.
        balance: Balance,
        /// Until the period's reset.
        resets_in_ms: u64,
    },
    /// The ledger was restored, and leases nothing until running attempts have reported: ask again.
    Wait {
        /// When.
        retry_in_ms: u64,
    },
}

/// Why the ledger lets no more be burned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The account has less than a minimum slice left, free or reclaimable.
    CreditsExhausted,
    /// The job's own limit is reached over all its tasks.
    JobLimit,
    /// An operator stopped the job.
    OperatorStop,
}

/// Cumulative usage of an attempt. Repeats, losses and reordering change nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Which.
    pub attempt: Uuid,
    /// Echoed by the answer.
    pub seq: u64,
    /// Since the attempt began.
    pub usage: Usage,
    /// The period in which `usage` was read: the one of the lease in force.
    pub period: i64,
    /// The reading at the end of the period before, until the ledger has acknowledged a report that carried it.
    #[serde(default)]
    pub closed: Option<ClosedPeriod>,
    /// The version of the ceiling that the sidecar obeys now.
    pub ceiling_version: u64,
    /// That ceiling, for a ledger that a restore made forget it. It confirms nothing.
    #[serde(default)]
    pub ceiling: Nanocredits,
    /// Declared again in each report, since it may change.
    pub resources: Resources,
    /// Frozen at its ceiling: what was burned is `usage`, and more is wanted now.
    #[serde(default)]
    pub waiting: bool,
    /// That of [`OpenRequest::secret`], beside the body as well.
    #[serde(skip)]
    pub secret: Option<AttemptSecret>,
}

/// The reading at the end of a period, which that period pays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClosedPeriod {
    /// Its start.
    pub period: i64,
    /// At its end.
    pub usage: Usage,
}

/// Answer to [`Report`]; leaves after its commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportAnswer {
    /// Of the report.
    pub seq: u64,
    /// After it.
    pub balance: Balance,
    /// The account's burn per second at present, over all its jobs.
    pub burn_per_second: Nanocredits,
    /// What to do.
    pub decision: Decision,
}

/// What an attempt may do after a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Run on, to this ceiling.
    Lease(Lease),
    /// Others hold what is left: stay frozen at the ceiling and ask again.
    Wait {
        /// When to ask; zero from a ledger that has kept the question waiting itself.
        retry_in_ms: u64,
    },
    /// Stop.
    Stop(StopReason),
}

/// How an attempt ended, as its receipt says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The command ended by itself with status 0.
    Completed,
    /// The command ended by itself with another status.
    Failed,
    /// The command died of a signal that jobmeter did not send.
    Signalled,
    /// No credits were left.
    CreditsExhausted,
    /// The job's own limit.
    JobLimit,
    /// Never ran: no credits.
    Refused,
    /// An operator's `jobs stop`.
    OperatorStop,
    /// The ledger was silent until the lease and the hold were over.
    LeaseExpired,
    /// The kernel's OOM killer.
    Oom,
    /// Front or keeper was killed, stopped or hung.
    MeterLost,
    /// Something did not die of SIGKILL.
    Unkillable,
}

impl Reason {
    /// Why an attempt ended, in one plain sentence.
    #[must_use]
    pub fn sentence(self, exit_code: Option<i32>, signal: Option<i32>) -> String {
        match self {
            Self::Completed => "The command ended by itself with status 0.",
            Self::Failed => return format!("The command ended by itself with status {}.", exit_code.unwrap_or(1)),
            Self::Signalled => return format!("The command died of signal {}.", signal.unwrap_or(0)),
            Self::CreditsExhausted => "It was stopped: the account's credits were used up.",
            Self::JobLimit => "It was stopped: the job's own limit was reached.",
            Self::Refused => "It never ran: no credits were left.",
            Self::OperatorStop => "It was stopped by an operator.",
            Self::LeaseExpired => "It was stopped: the ledger was silent until the lease and the hold were over.",
            Self::Oom => "The kernel killed it for want of memory.",
            Self::MeterLost => "It was stopped: jobmeter itself was killed, stopped or hung.",
            Self::Unkillable => "It was stopped, but some of its processes did not die.",
        }
        .to_owned()
    }

    /// The reason of this word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
    }

    /// The word for it everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Signalled => "signalled",
            Self::CreditsExhausted => "credits_exhausted",
            Self::JobLimit => "job_limit",
            Self::Refused => "refused",
            Self::OperatorStop => "operator_stop",
            Self::LeaseExpired => "lease_expired",
            Self::Oom => "oom",
            Self::MeterLost => "meter_lost",
            Self::Unkillable => "unkillable",
        }
    }
}

/// Final usage and outcome; repeating it changes nothing. All holds of the attempt are released.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Finish {
    /// Which.
    pub attempt: Uuid,
    /// Final, since the attempt began.
    pub usage: Usage,
    /// The period in which it ended: that of the lease in force.
    pub period: i64,
    /// As in [`Report::closed`].
    #[serde(default)]
    pub closed: Option<ClosedPeriod>,
    /// How it ended.
    pub reason: Reason,
    /// The receipt, without its `credits`, which the answer completes. Kept as it is, of 16 KiB at most, and shown by `jobs show`.
    #[schema(value_type = serde_json::Value)]
    pub receipt: ReceiptText,
    /// That of [`OpenRequest::secret`], beside the body as well.
    #[serde(skip)]
    pub secret: Option<AttemptSecret>,
}

/// Answer to [`Finish`]: what the books say, for the receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FinishAnswer {
    /// Charged in all, by component.
    pub charged: Price,
    /// Burned past the ceiling: reported, never charged.
    pub overshoot: Nanocredits,
    /// After it.
    pub balance: Balance,
    /// Whether this attempt had been finished before.
    pub again: bool,
}
