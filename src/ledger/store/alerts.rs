//! Alerts on their way: an outbox, written in the transaction that spent the credits, and emptied by who sends them.

use super::table::ALERT;
use super::{Concerned, Row, Store, StoreLedger, Value};
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::book::rows::Alert;

/// So many are taken at once.
const TAKEN_MAX: i64 = 32;
/// The second try comes after this, the third after twice that, and so on.
const RETRY_FIRST_US: i64 = 5_000_000;
/// But no later than this.
const RETRY_MAX_US: i64 = 3_600_000_000;
/// What could not be sent for three days is news to nobody.
const GIVEN_UP_US: i64 = 3 * 86_400_000_000;

fn read(mut row: Row) -> Result<Alert, LedgerError> {
    Ok(Alert {
        owner: row.text()?,
        period: row.int()?,
        percent: row.int()?,
        at_us: row.int()?,
        spent: row.nanocredits()?,
        spendable: row.nanocredits()?,
        sent_us: row.maybe_int()?,
        tries: row.int()?,
        next_try_us: row.int()?,
    })
}

pub(super) fn values(alert: &Alert) -> Vec<Value> {
    vec![
        alert.owner.as_str().into(),
        alert.period.into(),
        alert.percent.into(),
        alert.at_us.into(),
        alert.spent.into(),
        alert.spendable.into(),
        alert.sent_us.into(),
        alert.tries.into(),
        alert.next_try_us.into(),
    ]
}

fn due(store: &mut dyn Store, now_us: i64) -> Result<Vec<Alert>, LedgerError> {
    let sql = format!(
        "SELECT {} FROM alert WHERE sent_us IS NULL AND next_try_us <= $1 ORDER BY next_try_us LIMIT $2",
        ALERT.names()
    );
    store.query(&sql, &[now_us.into(), TAKEN_MAX.into()])?.into_iter().map(read).collect()
}

fn next_try_us(alert: &Alert, now_us: i64) -> i64 {
    if now_us.saturating_sub(alert.at_us) > GIVEN_UP_US {
        return i64::MAX;
    }
    let doublings = u32::try_from(alert.tries.clamp(0, 20)).unwrap_or(0);
    now_us.saturating_add(RETRY_FIRST_US.saturating_mul(1 << doublings).min(RETRY_MAX_US))
}

impl<S: Store> StoreLedger<S> {
    /// Takes the alerts that are due. Nobody else gets them before their next try, which comes if they were not said to be
    /// sent until then.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn take_alerts(&mut self) -> Result<Vec<Alert>, LedgerError> {
        let now_us = self.store.begin_reading()?;
        let found = due(&mut self.store, now_us);
        self.store.rollback();
        let found = found?;
        if found.is_empty() {
            return Ok(found);
        }
        let mut owners: Vec<&str> = found.iter().map(|alert| alert.owner.as_str()).collect();
        owners.sort_unstable();
        owners.dedup();
        let concerned = Concerned { owners, ..Concerned::default() };
        self.within(|store, now_us| {
            store.lock(&concerned)?;
            let taken = due(store, now_us)?;
            // One whose account is not locked here is somebody else's to take.
            let taken = taken.into_iter().filter(|alert| concerned.owners.contains(&alert.owner.as_str()));
            let taken: Vec<Alert> = taken
                .map(|alert| Alert {
                    next_try_us: next_try_us(&alert, now_us),
                    tries: alert.tries.saturating_add(1),
                    ..alert
                })
                .collect();
            if !taken.is_empty() {
                store.write(&ALERT, taken.iter().map(values).collect())?;
            }
            Ok(taken)
        })
    }

    /// They have arrived.
    ///
    /// # Errors
    /// Where the store fails; then they are sent again.
    pub fn alerts_sent(&mut self, alerts: &[Alert]) -> Result<(), LedgerError> {
        self.within(|store, now_us| {
            let sent = alerts.iter().map(|alert| values(&Alert { sent_us: Some(now_us), ..alert.clone() }));
            store.write(&ALERT, sent.collect())
        })
    }
}

impl Alert {
    /// Of what could be spent, what is left.
    #[must_use]
    pub fn left(&self) -> Nanocredits {
        self.spendable.saturating_sub(self.spent).at_least_zero()
    }
}
