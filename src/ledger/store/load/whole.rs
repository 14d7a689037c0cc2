//! What holds for the ledger as a whole.

use super::{Loaded, one};
use crate::ledger::book::rows::Epoch;
use crate::ledger::settings::{KeptSettings, LedgerSettings};
use crate::ledger::store::{Row, Store};

/// The ledger's epoch, and what an administrator has set. Both in one question, since nearly every transaction asks it: zeros where
/// nothing was ever restored, and the first settings before any change.
pub(crate) fn whole(store: &mut dyn Store) -> Loaded<(Epoch, KeptSettings)> {
    let sql = "SELECT e.number, e.settles_until_us, e.known_us, s.version, s.lease_ms, s.period, s.unknown_users, s.day_limit, \
               s.month_limit, s.outlasting_ms, s.since_us, s.by FROM (SELECT 1 AS one) o \
               LEFT JOIN (SELECT * FROM epoch ORDER BY number DESC LIMIT 1) e ON o.one = 1 \
               LEFT JOIN (SELECT * FROM ledger_setting ORDER BY version DESC LIMIT 1) s ON o.one = 1";
    Ok(one(store.query(sql, &[])?, read_whole)?.unwrap_or_default())
}

fn read_whole(mut row: Row) -> Loaded<(Epoch, KeptSettings)> {
    let epoch = match (row.maybe_count()?, row.maybe_int()?, row.maybe_int()?) {
        (Some(number), Some(settles_until_us), Some(known_us)) => Epoch { number, settles_until_us, known_us },
        _ => Epoch::default(),
    };
    let Some(version) = row.maybe_count()? else { return Ok((epoch, KeptSettings::default())) };
    let (lease_ms, period, unknown_users) = (row.count()?, row.parsed()?, row.flag()?);
    let (day_limit, month_limit) = (row.maybe_nanocredits()?, row.maybe_nanocredits()?);
    let settings = LedgerSettings { version, lease_ms, day_limit, month_limit, period, unknown_users };
    Ok((epoch, KeptSettings { settings, outlasting_ms: row.count()?, since_us: row.int()?, by: row.text()? }))
}
