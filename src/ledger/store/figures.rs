//! Figures of the books for whoever looks after the service.

use super::{Row, Store};
use crate::ledger::LedgerError;
use crate::ledger::views::{AccountFigures, Figures};

/// Accounts that burn now, those that burn most first: the labels of one look are bounded.
const ACCOUNTS_MAX: i64 = 500;

/// As of now.
pub(super) fn figures(store: &mut dyn Store, now_us: i64) -> Result<Figures, LedgerError> {
    let mut figures = Figures::default();
    let sql = "SELECT CAST(coalesce(sum(CASE WHEN lease_until_us >= $1 THEN 1 ELSE 0 END), 0) AS BIGINT), \
               CAST(coalesce(sum(CASE WHEN lease_until_us < $1 THEN 1 ELSE 0 END), 0) AS BIGINT), \
               coalesce(min(CASE WHEN lease_until_us < $1 THEN lease_until_us END), $1) FROM attempt WHERE ended_us IS NULL";
    for mut row in store.query(sql, &[now_us.into()])? {
        figures.running = row.count()?;
        figures.provisional = row.count()?;
        figures.provisional_oldest_us = u64::try_from(now_us.saturating_sub(row.int()?)).unwrap_or(0);
    }
    // Of all accounts, whether they burn or not: as `verify` asks it. The entries are looked at for those alone that have more
    // than the limit of today.
    let sql = "SELECT count(*) FROM account a JOIN (SELECT owner, start, credit_limit, charged + held - \
               CASE WHEN adjusted > 0 THEN adjusted ELSE 0 END AS spent FROM period) p ON p.owner = a.owner AND \
               p.start = a.period WHERE p.spent > p.credit_limit AND p.spent > (SELECT coalesce(max(e.amount), 0) FROM entry e \
               WHERE e.owner = p.owner AND e.period = p.start AND e.kind = 'limit')";
    for mut row in store.query(sql, &[])? {
        figures.overspent = row.count()?;
    }
    let sql = "SELECT count(*) FROM alert WHERE sent_us IS NULL";
    for mut row in store.query(sql, &[])? {
        figures.alerts_unsent = row.count()?;
    }
    let sql = "SELECT a.owner, a.credit_limit, a.live, a.silent, a.rate, p.charged, p.held, \
               (SELECT CAST(coalesce(sum(g.held), 0) AS BIGINT) FROM credit_grant g WHERE g.owner = a.owner), \
               (SELECT CAST(coalesce(sum(g.amount - g.charged), 0) AS BIGINT) FROM credit_grant g WHERE g.owner = a.owner AND \
               (g.expires_s IS NULL OR g.expires_s > $1)), p.adjusted \
               FROM account a JOIN period p ON p.owner = a.owner AND p.start = a.period WHERE a.live > 0 OR a.silent > 0 \
               ORDER BY a.rate DESC, a.owner LIMIT $2";
    let rows = store.query(sql, &[now_us.div_euclid(1_000_000).into(), ACCOUNTS_MAX.into()])?;
    figures.accounts = rows.into_iter().map(account).collect::<Result<_, _>>()?;
    Ok(figures)
}

fn account(mut row: Row) -> Result<AccountFigures, LedgerError> {
    let (user, limit, running) = (row.text()?, row.maybe_nanocredits()?, row.count()?);
    let (provisional, burn_per_second) = (row.nanocredits()?, row.nanocredits()?);
    let (charged, held, in_grants) = (row.nanocredits()?, row.nanocredits()?, row.nanocredits()?);
    let (of_grants, adjusted) = (row.nanocredits()?, row.nanocredits()?);
    let held = held.saturating_add(in_grants);
    let left = limit
        .map(|limit| limit.saturating_add(adjusted).saturating_sub(charged).at_least_zero().saturating_add(of_grants));
    Ok(AccountFigures {
        user,
        running,
        charged,
        held: held.saturating_sub(provisional).at_least_zero(),
        provisional,
        left,
        burn_per_second,
    })
}
