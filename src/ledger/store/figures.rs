//! Figures of the books for whoever looks after the service.

use super::{Row, Store, read_wide, wide_sum};
use crate::domain::balance::Snapshot;
use crate::domain::book::LIMIT_DEFAULT;
use crate::domain::units::Total;
use crate::ledger::LedgerError;
use crate::ledger::views::{AccountFigures, Figures};

/// Accounts that burn now, those that burn most first: the labels of one look are bounded.
const ACCOUNTS_MAX: i64 = 500;

/// How the account of a user stands.
type Snapshots = fn(&mut dyn Store, i64, &str) -> Result<Snapshot, LedgerError>;

/// As of now; `snapshot` says how an account stands.
pub(super) fn figures(store: &mut dyn Store, now_us: i64, snapshot: Snapshots) -> Result<Figures, LedgerError> {
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
    let sql = "SELECT count(*) FROM account a JOIN (SELECT owner, start, credit_limit, charged + held + taken AS used FROM period) p \
               ON p.owner = a.owner AND p.start = a.period WHERE p.used > p.credit_limit AND p.used > $1 AND p.used > (SELECT \
               coalesce(max(CASE WHEN e.amount < 0 THEN p.used ELSE e.amount END), 0) FROM entry e \
               WHERE e.owner = p.owner AND e.kind = 'limit')";
    for mut row in store.query(sql, &[LIMIT_DEFAULT.into()])? {
        figures.overspent = row.count()?;
    }
    figures.debt = total(store, "debt", "account WHERE debt > 0")?;
    let of_attempts = total(store, "overshoot", "attempt WHERE overshoot > 0")?;
    let of_jobs = total(store, "tokens_overshoot", "job WHERE tokens_overshoot > 0")?;
    figures.overshoot = Total(of_attempts.0 + of_jobs.0);
    let sql = "SELECT count(*) FROM alert WHERE sent_us IS NULL";
    for mut row in store.query(sql, &[])? {
        figures.alerts_unsent = row.count()?;
    }
    let sql = "SELECT owner, live, silent, rate FROM account WHERE live > 0 OR silent > 0 OR debt > 0 ORDER BY rate DESC, owner LIMIT $1";
    for row in store.query(sql, &[ACCOUNTS_MAX.into()])? {
        figures.accounts.push(account(row, |user| snapshot(store, now_us, user))?);
    }
    Ok(figures)
}

/// Of all accounts together, which 64 bits may not hold.
fn total(store: &mut dyn Store, column: &str, rows: &str) -> Result<Total, LedgerError> {
    let sql = format!("SELECT {} FROM {rows}", wide_sum(column));
    let sum = store.query(&sql, &[])?.iter_mut().map(read_wide).sum::<Result<i128, LedgerError>>();
    sum.map(Total)
}

fn account(
    mut row: Row,
    snapshot: impl FnOnce(&str) -> Result<Snapshot, LedgerError>,
) -> Result<AccountFigures, LedgerError> {
    let (user, running) = (row.text()?, row.count()?);
    let (provisional, burn_per_second) = (row.nanocredits()?, row.nanocredits()?);
    let Snapshot { charged, held, left, debt, .. } = snapshot(&user)?;
    let provisional = provisional.min(held);
    Ok(AccountFigures { user, running, charged, held, provisional, left, debt, burn_per_second })
}
