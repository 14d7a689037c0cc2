//! The `credits` part of a receipt: what the books say an attempt cost.

use serde::{Deserialize, Serialize};

use super::protocol::Balance;
use crate::domain::rating::{Price, RateCard};
use crate::domain::units::Nanocredits;

/// What it cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credits {
    /// CPU.
    pub cpu: Nanocredits,
    /// GPU.
    pub gpu: Nanocredits,
    /// Tokens.
    pub tokens: Nanocredits,
    /// Their sum: what was charged.
    pub total: Nanocredits,
    /// Burned past the ceiling, not charged.
    pub overshoot: Nanocredits,
    /// Left in the account after it; `null` without a limit.
    pub balance: Option<Nanocredits>,
    /// The prices.
    pub rate_card: Prices,
}

/// The prices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prices {
    /// Version.
    pub version: u64,
    /// A.
    pub cpu_per_second: Nanocredits,
    /// B.
    pub gpu_per_second: Nanocredits,
    /// Tokens.
    pub per_million_tokens: Nanocredits,
}

impl Credits {
    /// Puts it together.
    #[must_use]
    pub fn new(charged: &Price, overshoot: Nanocredits, balance: Balance, rates: &RateCard) -> Self {
        Self {
            cpu: charged.cpu,
            gpu: charged.gpu,
            tokens: charged.tokens,
            total: charged.total,
            overshoot,
            balance: balance.left,
            rate_card: Prices {
                version: rates.version,
                cpu_per_second: rates.cpu_per_second,
                gpu_per_second: rates.gpu_per_second,
                per_million_tokens: rates.per_million_tokens,
            },
        }
    }
}
