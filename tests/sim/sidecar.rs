//! A sidecar as the world sees it: its stage, what its job burns, and what it says.

use std::collections::BTreeMap;

use jobmeter::domain::deadline::{Bounds, HighestRate};
use jobmeter::domain::job::Job;
use jobmeter::domain::rating::RateCard;
use jobmeter::domain::units::{Microseconds, Nanocredits};
use jobmeter::domain::usage::Usage;
use jobmeter::ledger::attempt_secret::AttemptSecret;
use jobmeter::ledger::protocol::{AttemptIdentity, ClosedPeriod, Finish, JobKind, OpenRequest, Reason, Resources};
use jobmeter::runner::origin::{Beginning, Origin};
use uuid::Uuid;

use crate::network::Chance;
use crate::world::user;

pub const CPUS: u64 = 2;
/// Tick, floor between looks, and freeze.
pub const STOP_US: u64 = 7_000;

#[derive(Debug)]
pub enum Stage {
    Opening,
    Running(Box<Job>),
    /// Dead; its last word is sent until it is acknowledged.
    Ended(Finish),
    /// Acknowledged, or refused, or never to be heard of again.
    Gone,
}

#[derive(Debug)]
pub struct Sidecar {
    pub id: Uuid,
    pub job: usize,
    /// Whose credits it burns.
    pub user: String,
    /// That it brings its job, which others of the same job may run without.
    pub limit: Option<Nanocredits>,
    pub stage: Stage,
    pub cpu_us: u64,
    pub load_percent: u64,
    pub frozen: bool,
    pub asked: Option<(u64, u64)>,
    pub next_us: u64,
    pub stops_us: u64,
    pub last_word: bool,
    pub lateness_us: u64,
    /// What it said last; its spool keeps that for a while.
    pub said: Option<Finish>,
}

pub const RATE: HighestRate = HighestRate { cpus_ppm: CPUS * 1_000_000, quota: None };
pub const BOUNDS: Bounds = Bounds { cpu: RATE, gpus_ppm: 0, stop_us: STOP_US, gpu_age_us: 0, gpu_step_us: 0 };
pub const RESOURCES: Resources =
    Resources { cpus_ppm: CPUS * 1_000_000, gpus: 0, gpu_models: BTreeMap::new(), stop_us: STOP_US };

pub fn usage(cpu_us: u64) -> Usage {
    Usage { cpu_used_seconds: Microseconds(cpu_us), ..Usage::default() }
}

pub fn price(cpu_us: u64) -> Nanocredits {
    RateCard::default().price(&usage(cpu_us)).total
}

/// The same in each run of a seed.
pub fn secret_of(attempt: Uuid) -> AttemptSecret {
    let mut bytes = [7; 32];
    bytes[..16].copy_from_slice(attempt.as_bytes());
    bytes.into()
}

pub fn last_word(attempt: Uuid, job: &Job, cpu_us: u64, reason: Reason) -> Finish {
    let (period, closed) = job.period();
    Finish {
        attempt,
        usage: usage(cpu_us),
        period,
        closed: closed.map(|(period, usage)| ClosedPeriod { period: *period, usage: usage.clone() }),
        reason,
        receipt: serde_json::Value::Null,
        secret: Some(secret_of(attempt)),
    }
}

impl Sidecar {
    pub fn new(seed: u64, at: usize, chance: &mut Chance) -> Self {
        Self {
            id: Uuid::from_u128(u128::from(seed) << 64 | at as u128),
            job: at,
            user: user(0),
            limit: None,
            stage: Stage::Opening,
            cpu_us: 0,
            load_percent: chance.below(101),
            frozen: false,
            asked: None,
            next_us: chance.below(60_000_000),
            stops_us: 20_000_000 + chance.below(200_000_000),
            last_word: false,
            lateness_us: 0,
            said: None,
        }
    }

    pub fn job_id(&self) -> String {
        format!("job-{}", self.job)
    }

    pub fn origin(&self) -> Origin {
        let OpenRequest { identity, resources, limit, secret, .. } = self.request();
        let began = Beginning { realtime_us: 0, boottime_us: None };
        Origin { identity, resources, limit, secret, rates_version: 1, began }
    }

    pub fn request(&self) -> OpenRequest {
        let identity = AttemptIdentity {
            attempt: self.id,
            job: self.job_id(),
            task: "0".into(),
            user: self.user.clone(),
            kind: JobKind::Training,
            name: None,
            labels: BTreeMap::new(),
            command: vec!["burn".into()],
            host: "sim".into(),
        };
        let secret = Some(secret_of(self.id));
        OpenRequest { identity, resources: RESOURCES, limit: self.limit, resume: None, secret }
    }
}
