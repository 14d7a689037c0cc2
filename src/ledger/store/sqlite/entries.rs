//! Entries: the append-only list from which every balance can be replayed.

use uuid::Uuid;

use super::Books;
use crate::domain::book::Source;
use crate::domain::rating::{Price, VirtualTime};
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;

/// What is written; the number, the time and the rest come by themselves.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry<'a> {
    pub(super) kind: &'a str,
    pub(super) user: &'a str,
    pub(super) period: i64,
    /// In which UTC day it was burned.
    pub(super) day: i64,
    pub(super) source: i64,
    pub(super) amount: Nanocredits,
    pub(super) parts: Price,
    pub(super) time: VirtualTime,
    pub(super) tokens: u64,
    pub(super) job: Option<&'a str>,
    pub(super) attempt: Option<Uuid>,
    pub(super) by: &'a str,
    pub(super) why: &'a str,
}

/// An amount of something that SQLite keeps as a signed number.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// And back.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

impl Books<'_> {
    /// Appends one. Numbers are gapless, since the transaction is the only writer and nothing is ever removed.
    pub(super) fn append(&self, entry: &Entry<'_>) -> Result<(), LedgerError> {
        self.tx
            .prepare_cached(
                "INSERT INTO entry (id, at_us, kind, user, period, day, source, amount, cpu, gpu, token, cpu_us, gpu_us, \
                 tokens, job, attempt, by, why) VALUES ((SELECT coalesce(max(id), 0) + 1 FROM entry), \
                 ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
            )?
            .execute(rusqlite::params![
                self.now_us,
                entry.kind,
                entry.user,
                entry.period,
                entry.day,
                entry.source,
                entry.amount.0,
                entry.parts.cpu.0,
                entry.parts.gpu.0,
                entry.parts.tokens.0,
                signed(entry.time.cpu_seconds.0),
                signed(entry.time.gpu_seconds.0),
                signed(entry.tokens),
                entry.job,
                entry.attempt.map(|id| id.to_string()),
                entry.by,
                entry.why,
            ])?;
        Ok(())
    }

    /// Moves a charge to where it is paid from.
    pub(super) fn pay(&self, user: &str, period: i64, source: Source, amount: Nanocredits) -> Result<(), LedgerError> {
        let changed = if source == Source::ALLOWANCE {
            self.tx
                .prepare_cached("UPDATE period SET charged = charged + ?3 WHERE user = ?1 AND start = ?2")?
                .execute((user, period, amount.0))?
        } else {
            self.tx
                .prepare_cached("UPDATE credit_grant SET charged = charged + ?2 WHERE id = ?1")?
                .execute((source.0, amount.0))?
        };
        if changed == 1 {
            Ok(())
        } else {
            Err(LedgerError::Broken(format!("the books have no source {} in the period {period} of {user}", source.0)))
        }
    }
}
