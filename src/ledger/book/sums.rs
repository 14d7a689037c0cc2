//! Sums over attempts, with one of them exchanged.

use super::rows::{AccountSums, JobSums};
use crate::domain::units::Nanocredits;

fn exchanged(sum: Nanocredits, before: Nanocredits, after: Nanocredits) -> Nanocredits {
    sum.saturating_sub(before).saturating_add(after)
}

impl AccountSums {
    /// With one attempt's part exchanged.
    #[must_use]
    pub fn exchanged(self, before: &Self, after: &Self) -> Self {
        Self {
            live: self.live - before.live + after.live,
            beyond: exchanged(self.beyond, before.beyond, after.beyond),
            silent: exchanged(self.silent, before.silent, after.silent),
            rate: exchanged(self.rate, before.rate, after.rate),
            ..self
        }
    }
}

impl JobSums {
    /// Of what is set aside for tokens.
    #[must_use]
    pub fn held(amount: Nanocredits) -> Self {
        Self { held: amount, ..Self::default() }
    }

    /// With one attempt's part exchanged.
    #[must_use]
    pub fn exchanged(self, before: &Self, after: &Self) -> Self {
        Self {
            charged: exchanged(self.charged, before.charged, after.charged),
            held: exchanged(self.held, before.held, after.held),
            beyond: exchanged(self.beyond, before.beyond, after.beyond),
        }
    }
}
