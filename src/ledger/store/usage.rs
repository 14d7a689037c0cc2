//! Sums over days and entries: the usage report, and what an account had of periods that have not come.

use super::views::rfc3339_s;
use super::{Row, Store, Value, read_wide, wide_sum};
use crate::domain::book::Source;
use crate::domain::calendar::{day_end, month_end, month_start};
use crate::domain::units::{Microseconds, Nanocredits};
use crate::ledger::LedgerError;
use crate::ledger::usage_range::UsageRange;
use crate::ledger::views::{PeriodLength, USAGE_ROWS_MAX, UsageRow, Whose};

/// By days or by months, the oldest first; of each account, its rows one after the other.
pub(super) fn usage(store: &mut dyn Store, whose: &Whose, range: &UsageRange) -> Result<Vec<UsageRow>, LedgerError> {
    let sums: String = ["amount", "cpu", "gpu", "token", "cpu_us", "gpu_us", "tokens"]
        .map(|column| format!(", {}", wide_sum(column)))
        .concat();
    let condition = if matches!(whose, Whose::User(_)) { " AND owner = $3" } else { "" };
    let sql = format!(
        "SELECT '', day{sums} FROM usage_day WHERE day >= $1 AND day < $2{condition} GROUP BY day ORDER BY day"
    );
    let mut parameters: Vec<Value> = vec![range.from_s.into(), range.to_s.into()];
    if let Whose::User(user) = whose {
        parameters.push(user.as_str().into());
    }
    let mut rows: Vec<UsageRow> = Vec::new();
    for row in store.query(&sql, &parameters)? {
        add(&mut rows, read(row, range.by, false)?.1)?;
    }
    Ok(rows)
}

/// A page of what each account used, one account after the other, and the cursor of the next page: the last day that is in it, and whose.
pub(super) fn usage_of_each(
    store: &mut dyn Store,
    range: &UsageRange,
    after: Option<&str>,
    count_max: u32,
) -> Result<(Vec<UsageRow>, Option<String>), LedgerError> {
    let no_cursor = || {
        LedgerError::Missing(format!(
            "invalid cursor {:?}: expected that of a page of usage",
            after.unwrap_or_default()
        ))
    };
    let (last_day, last_owner) = match after.map(|cursor| cursor.split_once('.')) {
        None => (i64::MIN, ""),
        Some(cursor) => cursor.and_then(|(day, owner)| Some((day.parse().ok()?, owner))).ok_or_else(no_cursor)?,
    };
    let halves = |column: &str| format!(", d.{column} / 4294967296, d.{column} % 4294967296");
    let columns = ["amount", "cpu", "gpu", "token", "cpu_us", "gpu_us", "tokens"].map(halves).concat();
    // Accounts first, whose days are found by their keys: SQLite joins in this order where it is told to cross.
    let sql = format!(
        "SELECT a.owner, d.day{columns} FROM account a CROSS JOIN usage_day d WHERE d.owner = a.owner AND a.owner >= $1 AND (a.owner > $1 \
         OR d.day > $2) AND d.day >= $3 AND d.day < $4 ORDER BY a.owner, d.day LIMIT $5"
    );
    // Those of a month are together on a page.
    let count = i64::from(count_max.clamp(1, USAGE_ROWS_MAX)).max(if range.by == PeriodLength::Month { 62 } else { 1 });
    let parameters = [last_owner.into(), last_day.into(), range.from_s.into(), range.to_s.into(), count.into()];
    let mut days = store.query(&sql, &parameters)?.into_iter();
    let is_whole = i64::try_from(days.len()).is_ok_and(|found| found < count);
    let (mut rows, mut ends) = (Vec::<UsageRow>::new(), Vec::new());
    days.try_for_each(|row| {
        let (day, of_day) = read(row, range.by, true)?;
        add(&mut rows, of_day)?;
        ends.resize(rows.len(), day);
        if let Some(end) = ends.last_mut() {
            *end = day;
        }
        Ok::<_, LedgerError>(())
    })?;
    if !is_whole && range.by == PeriodLength::Month {
        // Its other days may be on the next page.
        rows.pop();
        ends.truncate(rows.len());
    }
    let last = rows.last().and_then(|row| row.user.as_deref()).zip(ends.last()).filter(|_| !is_whole);
    let next = last.map(|(owner, day)| format!("{day}.{owner}"));
    Ok((rows, next))
}

/// Days of one account's period are one row.
fn add(rows: &mut Vec<UsageRow>, of_day: UsageRow) -> Result<(), LedgerError> {
    match rows.last_mut().filter(|last| last.period_start == of_day.period_start && last.user == of_day.user) {
        Some(last) => *last = std::mem::take(last).plus(&of_day).map_err(|_| too_much(&of_day))?,
        None => rows.push(of_day),
    }
    Ok(())
}

/// A row, with the day that it is of.
fn read(mut row: Row, by: PeriodLength, is_named: bool) -> Result<(i64, UsageRow), LedgerError> {
    let (owner, day) = (row.text()?, row.int()?);
    let (start, end) = match by {
        PeriodLength::Day => (day, day_end(day)),
        PeriodLength::Month => (month_start(day), month_end(day)),
    };
    let mut of_day = UsageRow {
        user: is_named.then_some(owner),
        period_start: rfc3339_s(start),
        period_end: rfc3339_s(end),
        ..UsageRow::default()
    };
    let [credits, cpu, gpu, token, cpu_us, gpu_us, tokens] = sums_of(&mut row)?.ok_or_else(|| too_much(&of_day))?;
    let count = |sum: i64| {
        u64::try_from(sum).map_err(|_| LedgerError::Broken(format!("the books are damaged: {sum} was used")))
    };
    [of_day.total_credits, of_day.cpu_credits, of_day.gpu_credits, of_day.token_credits] =
        [credits, cpu, gpu, token].map(Nanocredits);
    [of_day.total_virtual_cpu_time, of_day.total_virtual_gpu_time] =
        [Microseconds(count(cpu_us)?), Microseconds(count(gpu_us)?)];
    of_day.total_tokens_consumed = count(tokens)?;
    Ok((day, of_day))
}

/// `None` where one of them is no number that a program could read.
fn sums_of(row: &mut Row) -> Result<Option<[i64; 7]>, LedgerError> {
    let mut sums = [0; 7];
    let mut fit = true;
    for sum in &mut sums {
        match i64::try_from(read_wide(row)?) {
            Ok(wide) => *sum = wide,
            Err(_) => fit = false,
        }
    }
    Ok(fit.then_some(sums))
}

/// What one account uses can be summed up for ever, see the book's `turnover.rs`; of many accounts it need not be.
fn too_much(row: &UsageRow) -> LedgerError {
    LedgerError::Refused(format!(
        "what all accounts together used in the period from {} is more than a sum can hold: ask for shorter periods (by day), or for \
         each account (each=true)",
        row.period_start
    ))
}

/// What was booked of an account in periods that have not come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// What those that passed unused have given.
    pub(crate) unused: Nanocredits,
    /// What was revoked of what is carried over.
    pub(crate) revoked: Nanocredits,
    /// The debt that was made in them.
    pub(crate) owed: Nanocredits,
}

/// In periods that begin at `from_s` or later, since it was repaired last.
pub(crate) fn booked_ahead(store: &mut dyn Store, owner: &str, from_s: i64) -> Result<Ahead, LedgerError> {
    let sql = "SELECT CAST(coalesce(sum(CASE WHEN kind = 'unused' THEN amount END), 0) AS BIGINT), \
               CAST(coalesce(sum(CASE WHEN kind = 'revoke' AND source IN (SELECT id FROM credit_grant g WHERE g.owner = $1 AND \
               g.why = 'carried over') THEN amount END), 0) AS BIGINT), \
               CAST(coalesce(sum(CASE WHEN kind = 'debt' THEN amount WHEN kind = 'adjust' AND source = $3 AND amount < 0 THEN \
               -amount END), 0) AS BIGINT) FROM entry WHERE owner = $1 AND period >= $2 AND number > \
               (SELECT coalesce(max(number), 0) FROM entry WHERE owner = $1 AND kind = 'repair')";
    let mut sums = Ahead::default();
    for mut row in store.query(sql, &[owner.into(), from_s.into(), Source::DEBT.0.into()])? {
        sums = Ahead { unused: row.nanocredits()?, revoked: row.nanocredits()?, owed: row.nanocredits()? };
    }
    Ok(sums)
}
