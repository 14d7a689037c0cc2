//! What a transaction writes.

use uuid::Uuid;

use super::kept::Kept;
use super::rows::{Account, Alert, Attempt, Entry, Epoch, Grant, Job, Key, Period, Reservation};
use super::steady::Extent;
use crate::ledger::receipt_text::ReceiptText;
use crate::ledger::settings::KeptSettings;

/// What a transaction writes.
#[derive(Debug, Default)]
pub struct Changes {
    /// The ledger's time in it.
    pub now_us: i64,
    /// Changed or new.
    pub accounts: Vec<Account>,
    /// New: names as [`crate::domain::user_name::folded`] makes them, and whose they are.
    pub names: Vec<(String, String)>,
    /// Changed or new.
    pub periods: Vec<Period>,
    /// Changed or new.
    pub grants: Vec<Grant>,
    /// Changed or new.
    pub jobs: Vec<Box<Job>>,
    /// Changed or new, and how far.
    pub attempts: Vec<(Extent, Box<Attempt>)>,
    /// Rows that were not changed, for the next transaction.
    pub(super) kept: Kept,
    /// Changed or new.
    pub reservations: Vec<Reservation>,
    /// Of new attempts; JSON.
    pub identities: Vec<(Uuid, String)>,
    /// Of attempts that said their last word.
    pub receipts: Vec<(Uuid, ReceiptText)>,
    /// New, with their numbers within their accounts.
    pub entries: Vec<(i64, Entry)>,
    /// New.
    pub alerts: Vec<Alert>,
    /// New: key, body, answer.
    pub once: Vec<(String, String, String)>,
    /// New: version, JSON, since when, by whom.
    pub rate_cards: Vec<(u64, String, i64, String)>,
    /// Changed or new.
    pub keys: Vec<Key>,
    /// Ids of those that were used.
    pub used_keys: Vec<String>,
    /// New, by their versions.
    pub settings: Vec<KeptSettings>,
    /// New: its number, and until when it settles.
    pub epoch: Option<Epoch>,
}

impl Changes {
    /// What the next transaction need not read, once this one is committed.
    #[must_use]
    pub fn into_kept(self) -> Kept {
        let mut kept = self.kept;
        kept.add(self.attempts.into_iter().map(|(_, attempt)| attempt), self.jobs.into_iter(), self.accounts.iter());
        kept
    }
}
