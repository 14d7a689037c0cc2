//! What of an account is over, or will be: attempts that fall silent, and reservations that expire. A transaction takes so many of them
//! and no more, since an account may have tens of thousands.

use uuid::Uuid;

use super::{Loaded, one};
use crate::ledger::store::Store;

/// So many attempts of an account that are marked live and whose lease was over before `now_us`.
pub(crate) fn fallen_silent(store: &mut dyn Store, owner: &str, now_us: i64, count: i64) -> Loaded<Vec<Uuid>> {
    let sql =
        "SELECT id FROM attempt WHERE owner = $1 AND ended_us IS NULL AND live = 1 AND lease_until_us < $2 LIMIT $3";
    let rows = store.query(sql, &[owner.into(), now_us.into(), count.into()])?;
    rows.into_iter().map(|mut row| row.parsed()).collect()
}

/// The first time at which an attempt of an account that is marked live can fall silent, or a reservation expire.
pub(crate) fn silent_from(store: &mut dyn Store, owner: &str) -> Loaded<Option<i64>> {
    let sql = "SELECT min(lease_until_us), (SELECT min(until_us) FROM reservation WHERE owner = $1 AND open = 1) \
               FROM attempt WHERE owner = $1 AND ended_us IS NULL AND live = 1";
    one(store.query(sql, &[owner.into()])?, |mut row| {
        let (silent_us, expired_us) = (row.maybe_int()?, row.maybe_int()?);
        Ok(silent_us.into_iter().chain(expired_us).min())
    })
    .map(Option::flatten)
}

/// So many reservations of an account that are over.
pub(crate) fn expired(store: &mut dyn Store, owner: &str, now_us: i64, count: i64) -> Loaded<Vec<Uuid>> {
    let sql = "SELECT id FROM reservation WHERE owner = $1 AND open = 1 AND until_us < $2 ORDER BY id LIMIT $3";
    let rows = store.query(sql, &[owner.into(), now_us.into(), count.into()])?;
    rows.into_iter().map(|mut row| row.parsed()).collect()
}

/// So many attempts of an account that have not ended and whose lease lasts longer than until then.
pub(crate) fn leased_beyond(store: &mut dyn Store, owner: &str, until_us: i64, count: i64) -> Loaded<Vec<Uuid>> {
    let sql =
        "SELECT id FROM attempt WHERE owner = $1 AND ended_us IS NULL AND lease_until_us > $2 ORDER BY id LIMIT $3";
    let rows = store.query(sql, &[owner.into(), until_us.into(), count.into()])?;
    rows.into_iter().map(|mut row| row.parsed()).collect()
}

/// So many attempts of an account that have not ended, whose lease was over before `now_us`, and whose period was at `ended_s`.
pub(crate) fn unsettled_since(
    store: &mut dyn Store,
    owner: &str,
    ended_s: i64,
    now_us: i64,
    count: i64,
) -> Loaded<Vec<Uuid>> {
    let sql = "SELECT a.id FROM attempt a JOIN period p ON p.owner = a.owner AND p.start = a.period WHERE a.owner = $1 AND \
               a.ended_us IS NULL AND a.period < $2 AND p.ends <= $2 AND a.lease_until_us < $3 ORDER BY a.id LIMIT $4";
    let rows = store.query(sql, &[owner.into(), ended_s.into(), now_us.into(), count.into()])?;
    rows.into_iter().map(|mut row| row.parsed()).collect()
}
