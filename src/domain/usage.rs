//! Usage: what an attempt has used since it began. Cumulative, never decreasing, merged by maximum.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::units::Microseconds;

/// Time of one GPU, before weights. Always `busy` ≤ `allocated`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GpuUsage {
    /// As the driver names it; its weight is by this name. What it was first is what it stays. Empty where no driver
    /// could be asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Integral of utilisation.
    pub busy_seconds: Microseconds,
    /// Wall time during which the device was the job's.
    pub allocated_seconds: Microseconds,
}

/// Everything that is charged for, since the attempt began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// CPU time that the kernel counted.
    pub cpu_used_seconds: Microseconds,
    /// Wall time × CPUs that the job could use.
    pub cpu_allocated_seconds: Microseconds,
    /// Per device, by UUID.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gpus: BTreeMap<String, GpuUsage>,
    /// Tokens used through the attempt.
    #[serde(default)]
    pub tokens: u64,
}

impl Usage {
    /// Field by field the larger of the two, so that repeats, delays and reordering of reports change nothing.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let mut gpus = self.gpus.clone();
        for (uuid, theirs) in &other.gpus {
            let ours = gpus.entry(uuid.clone()).or_insert_with(|| theirs.clone());
            ours.busy_seconds = ours.busy_seconds.max(theirs.busy_seconds);
            ours.allocated_seconds = ours.allocated_seconds.max(theirs.allocated_seconds);
        }
        Self {
            cpu_used_seconds: self.cpu_used_seconds.max(other.cpu_used_seconds),
            cpu_allocated_seconds: self.cpu_allocated_seconds.max(other.cpu_allocated_seconds),
            gpus,
            tokens: self.tokens.max(other.tokens),
        }
    }
}
