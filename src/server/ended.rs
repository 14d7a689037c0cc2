//! Figures of attempts that ended, for Prometheus and for people alone: what is charged is never counted here. Of what a receipt says
//! nothing is a label.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::Value;

use crate::domain::units::{Microseconds, Nanocredits};
use crate::domain::usage::{GpuUsage, Usage};
use crate::ledger::protocol::Finish;
use crate::ledger::receipt_text::shown;

pub(super) type Labels = Vec<(&'static str, String)>;

type Sum = Counter<f64, AtomicU64>;

/// No attempt lasts for thirty years on a thousand devices, and what says so would spoil a sum for ever.
const FIGURE_MAX: f64 = 1e12;

/// Counters, from the start of the service on.
#[derive(Clone, Debug, Default)]
pub(super) struct EndedMetrics {
    attempts: Family<Labels, Counter>,
    meter_cpu_seconds: Sum,
    job_cpu_seconds: Sum,
    gpu_busy_seconds: Sum,
    gpu_allocated_seconds: Sum,
    gpu_idle_seconds: Sum,
    gpu_estimated_seconds: Sum,
    gpu_energy_joules: Sum,
    gpu_errors: Family<Labels, Counter>,
    overshoot_nanocredits: Counter<u64, AtomicU64>,
}

impl EndedMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("attempts_ended", "Attempts that ended, by why", metrics.attempts.clone());
        let mut sum = |name, help, sum: &Sum| registry.register(name, help, sum.clone());
        sum("meter_cpu_seconds", "CPU time of the meters of ended attempts", &metrics.meter_cpu_seconds);
        sum("job_cpu_seconds", "CPU time of ended attempts", &metrics.job_cpu_seconds);
        sum("gpu_busy_seconds", "GPU time of ended attempts", &metrics.gpu_busy_seconds);
        sum("gpu_allocated_seconds", "Wall time for which ended attempts had GPUs", &metrics.gpu_allocated_seconds);
        sum(
            "gpu_idle_seconds",
            "Of that, the time between looks in which a GPU did nothing",
            &metrics.gpu_idle_seconds,
        );
        let help = "GPU time that could not be read, and counts as busy";
        sum("gpu_estimated_seconds", help, &metrics.gpu_estimated_seconds);
        sum("gpu_energy_joules", "Energy of GPUs while they were an attempt's", &metrics.gpu_energy_joules);
        let help = "What went wrong on GPUs while they were an attempt's: errors of the driver (xid), memory errors that could not \
                    be corrected (ecc), rows of memory that were replaced by spare ones (row_remap)";
        registry.register("gpu_errors", help, metrics.gpu_errors.clone());
        let help = "Burned by ended attempts and not charged";
        registry.register("overshoot_nanocredits", help, metrics.overshoot_nanocredits.clone());
        metrics
    }

    /// One attempt, when its end is told for the first time.
    pub(super) fn count(&self, finish: &Finish, overshoot: Nanocredits) {
        self.attempts.get_or_create(&vec![("reason", finish.reason.as_str().to_owned())]).inc();
        let receipt = shown(finish.receipt.as_str());
        self.meter_cpu_seconds.inc_by(believed(&receipt["meter"]["cpu_seconds"]));
        self.job_cpu_seconds.inc_by(believed(&receipt["cpu"]["total_seconds"]));
        self.gpu_busy_seconds.inc_by(gpu_seconds(&finish.usage, |gpu| gpu.busy_seconds));
        self.gpu_allocated_seconds.inc_by(gpu_seconds(&finish.usage, |gpu| gpu.allocated_seconds));
        receipt["gpu"]["devices"].as_array().into_iter().flatten().for_each(|device| self.count_device(device));
        self.overshoot_nanocredits.inc_by(overshoot.at_least_zero().0.unsigned_abs());
    }

    fn count_device(&self, device: &Value) {
        self.gpu_idle_seconds.inc_by(believed(&device["idle_seconds"]));
        self.gpu_estimated_seconds.inc_by(believed(&device["estimated_seconds"]));
        self.gpu_energy_joules.inc_by(believed(&device["energy_millijoules"]) / 1_000.0);
        self.failed("xid", device["xids"].as_array().map_or(0, |xids| xids.len() as u64));
        self.failed("ecc", device["ecc_uncorrected_errors"].as_u64().unwrap_or(0));
        self.failed("row_remap", device["remapped_rows"].as_u64().unwrap_or(0));
    }

    /// No device has so many that 32 bits would not hold them.
    fn failed(&self, kind: &str, count: u64) {
        if count > 0 && u32::try_from(count).is_ok() {
            self.gpu_errors.get_or_create(&vec![("kind", kind.to_owned())]).inc_by(count);
        }
    }
}

/// A figure of a receipt, which says what its sidecar likes.
fn believed(figure: &Value) -> f64 {
    figure.as_f64().filter(|number| (0.0..=FIGURE_MAX).contains(number)).unwrap_or(0.0)
}

fn gpu_seconds(usage: &Usage, of: fn(&GpuUsage) -> Microseconds) -> f64 {
    usage.gpus.values().map(of).map(|time| std::time::Duration::from_micros(time.0).as_secs_f64()).sum()
}

#[cfg(test)]
mod tests {
    use super::believed;

    #[test]
    fn a_receipt_that_lies_spoils_no_sum() {
        let spoiled = ["1e300", "-1", "null", r#""7""#, "[]"];
        assert!(spoiled.iter().all(|text| believed(&serde_json::from_str(text).unwrap()).abs() < f64::EPSILON));
        assert!((believed(&serde_json::json!(1.5)) - 1.5).abs() < f64::EPSILON);
    }
}
