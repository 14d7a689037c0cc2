//! Versions of the rate card, each of which is read when something names it: there may be thousands.

use std::collections::HashMap;

use super::{Loaded, one};
use crate::domain::rating::RateCard;
use crate::ledger::store::{Row, Store};

/// Those that were asked for. No version ever changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cards(HashMap<u64, RateCard>);

impl Cards {
    /// The one of this version; the first one is there before any was set.
    pub(crate) fn of(&mut self, store: &mut dyn Store, version: u64) -> Loaded<RateCard> {
        if let Some(card) = self.0.get(&version) {
            return Ok(card.clone());
        }
        let found = store.query("SELECT card FROM rates WHERE version = $1", &[version.into()])?;
        let card = one(found, |mut row: Row| row.json::<RateCard>())?.unwrap_or_default();
        self.0.insert(version, card.clone());
        Ok(card)
    }
}

/// The card that counts for what starts now; the first one before any change.
pub(crate) fn newest_rates(store: &mut dyn Store) -> Loaded<RateCard> {
    let found = store.query("SELECT card FROM rates ORDER BY version DESC LIMIT 1", &[])?;
    Ok(one(found, |mut row: Row| row.json())?.unwrap_or_default())
}

/// The newest version that was made before this time, in µs since 1970.
pub(crate) fn rates_version_before(store: &mut dyn Store, us: i64) -> Loaded<Option<u64>> {
    let sql = "SELECT version FROM rates WHERE since_us < $1 ORDER BY version DESC LIMIT 1";
    one(store.query(sql, &[us.into()])?, |mut row| row.count())
}
