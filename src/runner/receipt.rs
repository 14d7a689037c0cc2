//! The receipt: the final breakdown of one attempt, schema `jobmeter.receipt/1`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::gpu_part::GpuPart;
use super::spool::Record;
use super::wire::ExitKind;
use crate::domain::rating::VirtualTime;
use crate::domain::units::Microseconds;
use crate::ledger::protocol::{AttemptIdentity, JobKind, Reason};
use crate::ledger::receipt::Credits;
use crate::meter::CpuSource;
use crate::meter::breakdown::{Breakdown, BusyProcess};

/// The whole receipt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// `jobmeter.receipt/1`.
    pub schema: String,
    /// Who.
    pub job: JobPart,
    /// How it ended.
    pub outcome: OutcomePart,
    /// When.
    pub time: TimePart,
    /// CPU.
    pub cpu: CpuPart,
    /// Memory.
    pub memory: MemoryPart,
    /// Storage.
    pub io: IoPart,
    /// GPU; empty where the job had none.
    pub gpu: GpuPart,
    /// Tokens used through the attempt.
    pub tokens: u64,
    /// After basis and weight.
    #[serde(rename = "virtual")]
    pub virtual_time: VirtualTime,
    /// What it cost; `None` until the ledger has acknowledged the end.
    pub credits: Option<Credits>,
    /// What metering cost.
    pub meter: MeterPart,
}

/// Who.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPart {
    /// Job.
    pub id: String,
    /// Task.
    pub task: String,
    /// Attempt.
    pub attempt: Uuid,
    /// For people.
    pub name: Option<String>,
    /// What for.
    pub kind: JobKind,
    /// Whose credits.
    pub user: String,
    /// Command line.
    pub command: Vec<String>,
    /// Where.
    pub host: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomePart {
    /// Why.
    pub reason: Reason,
    /// Of the command.
    pub exit_code: Option<i32>,
    /// Of which the command died.
    pub signal: Option<i32>,
    /// `none`, `possible` (the job could have reached the meter) or `detected`.
    pub tamper: String,
    /// What does not die of SIGKILL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unkillable: Vec<i32>,
    /// How many processes the command had left behind that were killed: see `--grace`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_behind: usize,
    /// What could not be done exactly here, one sentence each.
    pub degraded: Vec<String>,
}

/// When.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimePart {
    /// RFC 3339, UTC.
    pub started_at: String,
    /// RFC 3339, UTC.
    pub ended_at: String,
    /// Between them, by a clock that is never set.
    pub wall_seconds: Microseconds,
    /// Frozen at a ceiling, waiting for credits.
    pub held_seconds: Microseconds,
    /// Frozen, as the kernel counts it.
    pub frozen_seconds: Option<Microseconds>,
    /// RFC 3339, UTC.
    pub notice_sent_at: Option<String>,
}

/// CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuPart {
    /// Where the total comes from.
    pub source: CpuSource,
    /// `null` where none can be declared.
    pub error_bound_seconds: Option<Microseconds>,
    /// The figure that was billed.
    pub total_seconds: Microseconds,
    /// Estimated split.
    pub user_seconds: Microseconds,
    /// Estimated split.
    pub system_seconds: Microseconds,
    /// Wall time × CPUs that the job could use.
    pub allocated_seconds: Microseconds,
    /// Kept waiting by a quota.
    pub throttled_seconds: Option<Microseconds>,
    /// Some task was waiting for a CPU.
    pub pressure_seconds: Option<Microseconds>,
    /// Taken by the hypervisor from the whole machine meanwhile.
    pub steal_seconds: Option<Microseconds>,
    /// Burned by the kill; not charged.
    pub teardown_seconds: Microseconds,
    /// Samples.
    pub busiest: Vec<BusyProcess>,
}

/// Memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPart {
    /// The most at any time.
    pub peak_bytes: Option<u64>,
    /// By the kernel's OOM killer.
    pub oom_kills: Option<u64>,
}

/// Storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoPart {
    /// Read.
    pub read_bytes: Option<u64>,
    /// Written.
    pub written_bytes: Option<u64>,
}

/// What metering cost and how well it went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeterPart {
    /// CPU time of front, keeper and helper.
    pub cpu_seconds: Microseconds,
    /// Looks.
    pub readings: u64,
    /// Reports that the ledger answered.
    pub reports: u64,
    /// How long the ledger took to answer.
    #[serde(default)]
    pub ledger_answers: LedgerAnswers,
    /// How late a look was at most.
    pub wake_lateness_max_seconds: Microseconds,
}

/// A histogram of how long the ledger took to answer the attempt's questions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerAnswers {
    /// The longest.
    pub max_seconds: Microseconds,
    /// How many stayed below so many ms and not below the bound before it; what took 10 s and more is not counted here.
    pub below_ms: BTreeMap<u64, u64>,
}

const BELOW_MS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

impl LedgerAnswers {
    /// One more.
    pub fn took(&mut self, us: u64) {
        self.max_seconds = self.max_seconds.max(Microseconds(us));
        if let Some(below_ms) = BELOW_MS.into_iter().find(|ms| us < ms * 1_000) {
            *self.below_ms.entry(below_ms).or_default() += 1;
        }
    }
}

impl JobPart {
    /// From the attempt's identity.
    #[must_use]
    pub fn new(identity: &AttemptIdentity) -> Self {
        Self {
            id: identity.job.clone(),
            task: identity.task.clone(),
            attempt: identity.attempt,
            name: identity.name.clone(),
            kind: identity.kind,
            user: identity.user.clone(),
            command: identity.command.clone(),
            host: identity.host.clone(),
            labels: identity.labels.clone(),
        }
    }
}

impl OutcomePart {
    /// With what is known of the command's end.
    #[must_use]
    pub fn new(reason: Reason, ended: Option<ExitKind>, tamper: &str, degraded: Vec<String>) -> Self {
        let (exit_code, signal) = match ended {
            Some(ExitKind::Exited(code)) => (Some(code), None),
            Some(ExitKind::Signalled(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        Self { reason, exit_code, signal, tamper: tamper.to_owned(), unkillable: Vec::new(), left_behind: 0, degraded }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Receipt {
    /// With nothing but who, when and how it ended.
    #[must_use]
    pub fn bare(
        identity: &AttemptIdentity,
        source: CpuSource,
        outcome: OutcomePart,
        started_at_us: i64,
        ended_at_us: i64,
    ) -> Self {
        let zero = Microseconds::ZERO;
        Self {
            schema: "jobmeter.receipt/1".to_owned(),
            job: JobPart::new(identity),
            outcome,
            time: TimePart {
                started_at: rfc3339(started_at_us),
                ended_at: rfc3339(ended_at_us),
                wall_seconds: zero,
                held_seconds: zero,
                frozen_seconds: None,
                notice_sent_at: None,
            },
            cpu: CpuPart {
                source,
                error_bound_seconds: None,
                total_seconds: zero,
                user_seconds: zero,
                system_seconds: zero,
                allocated_seconds: zero,
                throttled_seconds: None,
                pressure_seconds: None,
                steal_seconds: None,
                teardown_seconds: zero,
                busiest: Vec::new(),
            },
            memory: MemoryPart { peak_bytes: None, oom_kills: None },
            io: IoPart { read_bytes: None, written_bytes: None },
            gpu: GpuPart::none(),
            tokens: 0,
            virtual_time: VirtualTime::default(),
            credits: None,
            meter: MeterPart::default(),
        }
    }

    /// Of an attempt whose meter died: from what its spool file and the kernel's counter still knew.
    #[must_use]
    pub fn of_lost(identity: &AttemptIdentity, source: CpuSource, started_at_us: i64, record: &Record) -> Self {
        let told = "the meter was killed; the figures are the last ones that could be read".to_owned();
        let outcome = OutcomePart::new(Reason::MeterLost, None, "detected", vec![told]);
        let mut receipt = Self::bare(identity, source, outcome, started_at_us, record.at_us);
        let wall_us = u64::try_from(record.at_us.saturating_sub(started_at_us)).unwrap_or(0);
        receipt.time.wall_seconds = Microseconds(wall_us);
        receipt.cpu.total_seconds = record.usage.cpu_used_seconds;
        receipt.cpu.allocated_seconds = record.usage.cpu_allocated_seconds;
        for device in record.usage.gpus.values() {
            receipt.gpu.busy_seconds = receipt.gpu.busy_seconds.saturating_add(device.busy_seconds);
            receipt.gpu.allocated_seconds = receipt.gpu.allocated_seconds.saturating_add(device.allocated_seconds);
        }
        if !record.usage.gpus.is_empty() {
            let note = "what was not read any more was taken as allocated".to_owned();
            receipt.gpu = GpuPart { source: "spool".to_owned(), notes: vec![note], ..receipt.gpu };
        }
        receipt.tokens = record.usage.tokens;
        receipt
    }
}

/// µs since 1970 as RFC 3339 in UTC.
#[must_use]
pub fn rfc3339(realtime_us: i64) -> String {
    jiff::Timestamp::from_microsecond(realtime_us).map_or_else(|_| String::new(), |time| time.to_string())
}

impl CpuPart {
    /// The part that comes from the breakdown; the rest are the billing meter's figures.
    pub fn take(&mut self, breakdown: &Breakdown) {
        self.throttled_seconds = breakdown.throttled_seconds;
        self.pressure_seconds = breakdown.pressure_seconds;
        self.steal_seconds = breakdown.steal_seconds;
        self.busiest.clone_from(&breakdown.busiest);
    }
}
