//! An attempt as it is stored.

use rusqlite::{OptionalExtension, Row};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Books;
use crate::domain::rating::{Price, RateCard, VirtualTime};
use crate::domain::units::Nanocredits;
use crate::domain::usage::Usage;
use crate::ledger::LedgerError;
use crate::ledger::protocol::{AttemptIdentity, Reason, Resources};
use crate::ledger::views::BurnPoint;

/// Points of the burn chart that are kept; when they are full, every second one goes.
const BURN_POINTS_MAX: usize = 96;

/// The columns that are searched for stand beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) identity: AttemptIdentity,
    pub(super) rates: RateCard,
    pub(super) resources: Resources,
    pub(super) usage: Usage,
    /// What the usage so far was priced at: charged or given up.
    pub(super) accounted: Price,
    pub(super) accounted_time: VirtualTime,
    pub(super) charged: Price,
    pub(super) overshoot: Nanocredits,
    /// Versions not older than the confirmed one, oldest first; the books hold the highest of them.
    pub(super) ceilings: Vec<(u64, Nanocredits)>,
    /// Held in the next period: its start and the amount.
    pub(super) next: Option<(i64, Nanocredits)>,
    pub(super) seq: u64,
    pub(super) waits: bool,
    pub(super) rate: Nanocredits,
    pub(super) rate_since_us: i64,
    pub(super) rate_from: Nanocredits,
    pub(super) burn: Vec<BurnPoint>,
}

/// One attempt.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) id: Uuid,
    pub(super) job: String,
    pub(super) user: String,
    pub(super) started_us: i64,
    pub(super) period: i64,
    pub(super) lease_until_us: i64,
    pub(super) ended_us: Option<i64>,
    pub(super) reason: Option<Reason>,
    pub(super) receipt: Option<serde_json::Value>,
    pub(super) state: State,
}

const COLUMNS: &str = "id, job, user, started_us, period, lease_until_us, ended_us, reason, receipt, state";

impl Attempt {
    /// The highest ceiling that it may obey.
    pub(super) fn ceiling(&self) -> Nanocredits {
        self.state.ceilings.iter().map(|(_, ceiling)| *ceiling).max().unwrap_or_default()
    }

    /// The newest ceiling.
    pub(super) fn newest(&self) -> (u64, Nanocredits) {
        self.state.ceilings.last().copied().unwrap_or_default()
    }

    /// Its highest rate by its pinned prices.
    pub(super) fn highest_rate(&self) -> Nanocredits {
        self.state.rates.highest_rate_per_second(self.state.resources.cpus_ppm, self.state.resources.gpus)
    }

    /// G.
    pub(super) fn guard(&self) -> Nanocredits {
        crate::domain::lease::burned_in(self.highest_rate(), self.state.resources.stop_us)
    }

    /// m.
    pub(super) fn minimum(&self) -> Nanocredits {
        crate::domain::lease::minimum_slice(self.highest_rate(), self.guard())
    }

    /// Adds a point to the burn chart.
    pub(super) fn chart(&mut self, now_us: i64) {
        let after_ms = u64::try_from(now_us.saturating_sub(self.started_us) / 1_000).unwrap_or(0);
        self.state.burn.push(BurnPoint { after_ms, charged: self.state.charged.total });
        if self.state.burn.len() >= BURN_POINTS_MAX {
            let mut keep = false;
            self.state.burn.retain(|_| {
                keep = !keep;
                !keep
            });
        }
    }
}

fn reason(text: &str) -> Option<Reason> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
}

fn attempt(row: &Row<'_>) -> Result<Attempt, LedgerError> {
    let id: String = row.get(0)?;
    let state: String = row.get(9)?;
    let damaged = |what: &str| LedgerError::Broken(format!("the attempt {id} is damaged: {what}"));
    let receipt: Option<String> = row.get(8)?;
    Ok(Attempt {
        id: Uuid::parse_str(&id).map_err(|_| damaged("its id"))?,
        job: row.get(1)?,
        user: row.get(2)?,
        started_us: row.get(3)?,
        period: row.get(4)?,
        lease_until_us: row.get(5)?,
        ended_us: row.get(6)?,
        reason: row.get::<_, Option<String>>(7)?.as_deref().and_then(reason),
        receipt: receipt.and_then(|text| serde_json::from_str(&text).ok()),
        state: serde_json::from_str(&state).map_err(|error| damaged(&error.to_string()))?,
    })
}

impl Books<'_> {
    /// The attempt of this id.
    pub(super) fn attempt(&self, id: Uuid) -> Result<Option<Attempt>, LedgerError> {
        let mut statement = self.tx.prepare_cached(&format!("SELECT {COLUMNS} FROM attempt WHERE id = ?1"))?;
        statement.query_row([id.to_string()], |row| Ok(attempt(row))).optional()?.transpose()
    }

    /// All that match, oldest first.
    pub(super) fn attempts(&self, condition: &str, value: &str) -> Result<Vec<Attempt>, LedgerError> {
        let sql = format!("SELECT {COLUMNS} FROM attempt WHERE {condition} ORDER BY started_us, id");
        let mut statement = self.tx.prepare_cached(&sql)?;
        let rows = statement.query_map([value], |row| Ok(attempt(row)))?;
        rows.map(|row| row?).collect()
    }

    /// Attempts of a user that have not ended, running or silent.
    pub(super) fn unended(&self, user: &str) -> Result<Vec<Attempt>, LedgerError> {
        self.attempts("user = ?1 AND ended_us IS NULL", user)
    }

    /// Writes it back.
    pub(super) fn keep(&self, attempt: &Attempt) -> Result<(), LedgerError> {
        let text = |error: serde_json::Error| LedgerError::Broken(error.to_string());
        let state = serde_json::to_string(&attempt.state).map_err(text)?;
        let receipt = attempt.receipt.as_ref().map(serde_json::to_string).transpose().map_err(text)?;
        self.tx
            .prepare_cached(
                "INSERT INTO attempt (id, job, user, started_us, period, lease_until_us, ended_us, reason, receipt, \
                 charged, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (id) DO UPDATE SET \
                 period = ?5, lease_until_us = ?6, ended_us = ?7, reason = ?8, receipt = ?9, charged = ?10, state = ?11",
            )?
            .execute((
                attempt.id.to_string(),
                &attempt.job,
                &attempt.user,
                attempt.started_us,
                attempt.period,
                attempt.lease_until_us,
                attempt.ended_us,
                attempt.reason.map(Reason::as_str),
                receipt,
                attempt.state.charged.total.0,
                state,
            ))?;
        Ok(())
    }
}
