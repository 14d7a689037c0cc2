//! Attempts and reservations, as whoever speaks for them knows them.

use uuid::Uuid;

use super::super::Lease;

/// An attempt as its sidecar knows it, in nanocredits.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) number: usize,
    pub(super) attempt: Uuid,
    pub(super) period: i64,
    pub(super) lease: Lease,
    pub(super) ceilings: Vec<(u64, i128)>,
    pub(super) seq: u64,
    pub(super) burned: i64,
    pub(super) charged: i128,
    pub(super) opened_us: i64,
    pub(super) until_us: i64,
    pub(super) next: Option<(i64, i128)>,
    /// Posted as charged in full, since it was silent for a day.
    pub(super) is_posted: bool,
}

#[derive(Debug)]
pub(super) struct Reserved {
    pub(super) number: usize,
    pub(super) id: Uuid,
    pub(super) period: i64,
    pub(super) held: i128,
    pub(super) until_us: i64,
}

impl Run {
    pub(super) fn ceiling(&self) -> i128 {
        self.ceilings.iter().map(|(_, ceiling)| *ceiling).max().unwrap_or(0)
    }

    pub(super) fn held(&self) -> i128 {
        self.ceiling() - self.charged
    }
}
