//! `--dry-run`: what would be metered, how exactly, at which price, and what is left. Nothing is started.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use super::figures::Figures;
use super::gpu_part::GpuDevice;
use super::options::RunOptions;
use crate::domain::lease::burned_in;
use crate::domain::units::{Microseconds, Nanocredits};
use crate::ledger::LedgerError;
use crate::ledger::protocol::Balance;
use crate::ledger::views::{Query, View};
use crate::meter::gpu::prospect::by_uuid;
use crate::meter::select::Plan;

/// What it says.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DryRun {
    /// Where CPU time would be read.
    pub source: &'static str,
    /// How far the final figure can be from the truth; `None` where no bound can be declared.
    pub error_bound_seconds: Option<Microseconds>,
    /// What could not be done exactly, one sentence each.
    pub degraded: Vec<String>,
    /// Whether the job could reach the meter.
    pub tamper: &'static str,
    /// Millionths of a CPU.
    pub highest_cpus_ppm: u64,
    /// A.
    pub price_per_cpu_second: Nanocredits,
    /// B: of a device of weight 1.
    pub price_per_gpu_second: Nanocredits,
    /// Devices that would be the job's from the start.
    pub gpus: Vec<GpuDevice>,
    /// How the devices would be measured, and within what bound: by UUID, for people.
    pub gpus_measured: BTreeMap<String, String>,
    /// How many of each model it could open. What it was not given counts from its first use on.
    pub gpus_openable: BTreeMap<String, u64>,
    /// Credits per second at that rate.
    pub highest_rate_per_second: Nanocredits,
    /// G: kept unburned, so that nothing is burned past the ceiling.
    pub guard: Nanocredits,
    /// Of the user.
    pub balance: Balance,
    /// How long that lasts at the highest rate; `None` without a limit.
    pub lasts_seconds: Option<Microseconds>,
}

/// Finds it out.
///
/// # Errors
/// Where no source can be used or the ledger does not open, for people.
pub fn dry_run(options: &RunOptions) -> Result<DryRun, String> {
    let job_uid = options.run_as.as_ref().map_or_else(|| nix::unistd::geteuid().as_raw(), |user| user.uid);
    let plan = Plan::prepare(options.cpu_source, Uuid::now_v7(), job_uid).map_err(|error| error.to_string())?;
    let found = asked(options).map_err(|error| error.to_string());
    let figures = found.and_then(|found| Ok((Figures::new(&plan, &options.gpus)?, found)));
    plan.discard();
    let (figures, (rates, balance)) = figures?;
    let resources =
        super::leases::resources(&figures.bounds(&plan, &rates), figures.gpu_models(), plan.containment().can_hold());
    let pace = resources.pace(&rates);
    let highest = rates.highest_rate_per_second(pace.cpus_ppm, pace.gpus_ppm);
    let lasts = balance.left.map(|left| {
        let us = i128::from(left.at_least_zero().0) * 1_000_000 / i128::from(highest.0.max(1));
        Microseconds(u64::try_from(us).unwrap_or(u64::MAX))
    });
    Ok(DryRun {
        source: plan.source().as_str(),
        error_bound_seconds: plan.error_bound(),
        degraded: plan.degraded().into_iter().chain(figures.gpu_notes(&rates)).collect(),
        tamper: plan.tamper(),
        highest_cpus_ppm: resources.cpus_ppm,
        price_per_cpu_second: rates.cpu_per_second,
        price_per_gpu_second: rates.gpu_per_second,
        gpus: figures.gpu_part(&rates).devices,
        gpus_measured: if options.gpus.concern_a_gpu() {
            by_uuid(options.gpus.library.as_deref())
        } else {
            BTreeMap::new()
        },
        gpus_openable: figures.openable_gpu_models(),
        highest_rate_per_second: highest,
        guard: burned_in(highest, resources.stop_us),
        balance,
        lasts_seconds: lasts,
    })
}

fn asked(options: &RunOptions) -> Result<(crate::domain::rating::RateCard, Balance), LedgerError> {
    let mut ledger = (options.connect)(&options.ledger)?;
    let rates = match ledger.read(&Query::Rates)? {
        View::Rates(versions) => versions.first().map(|version| version.rates.clone()).unwrap_or_default(),
        _ => return Err(LedgerError::unasked()),
    };
    match ledger.read(&Query::Account { user: options.user.clone() })? {
        View::Account(account) => {
            Ok((rates, Balance { left: account.left, limit: account.limit, suspended: account.suspended }))
        }
        _ => Err(LedgerError::unasked()),
    }
}
