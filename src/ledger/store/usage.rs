//! The usage report, out of the sums of days.

use super::views::rfc3339_s;
use super::{Row, Store, Value};
use crate::domain::calendar::{day_end, month_end, month_start};
use crate::domain::units::Microseconds;
use crate::ledger::LedgerError;
use crate::ledger::usage_range::UsageRange;
use crate::ledger::views::{PeriodLength, UsageRow, Whose};

/// By days or by months, the oldest first; of each account, its rows one after the other.
pub(super) fn usage(store: &mut dyn Store, whose: &Whose, range: &UsageRange) -> Result<Vec<UsageRow>, LedgerError> {
    let sums: String = ["amount", "cpu", "gpu", "token", "cpu_us", "gpu_us", "tokens"]
        .map(|column| format!(", CAST(sum({column}) AS BIGINT)"))
        .concat();
    let (owner, condition, by) = match whose {
        Whose::User(_) => ("''", " AND owner = $3", "day"),
        Whose::All => ("''", "", "day"),
        Whose::Each => ("owner", "", "owner, day"),
    };
    let sql = format!(
        "SELECT {owner}, day{sums} FROM usage_day WHERE day >= $1 AND day < $2{condition} GROUP BY {by} ORDER BY {by}"
    );
    let mut parameters: Vec<Value> = vec![range.from_s.into(), range.to_s.into()];
    if let Whose::User(user) = whose {
        parameters.push(user.as_str().into());
    }
    let mut rows: Vec<UsageRow> = Vec::new();
    for row in store.query(&sql, &parameters)? {
        let of_day = read(row, range.by, matches!(whose, Whose::Each))?;
        match rows.last_mut().filter(|last| last.period_start == of_day.period_start && last.user == of_day.user) {
            Some(last) => *last = std::mem::take(last).plus(&of_day),
            None => rows.push(of_day),
        }
    }
    Ok(rows)
}

fn read(mut row: Row, by: PeriodLength, is_named: bool) -> Result<UsageRow, LedgerError> {
    let (owner, day) = (row.text()?, row.int()?);
    let (start, end) = match by {
        PeriodLength::Day => (day, day_end(day)),
        PeriodLength::Month => (month_start(day), month_end(day)),
    };
    Ok(UsageRow {
        user: is_named.then_some(owner),
        period_start: rfc3339_s(start),
        period_end: rfc3339_s(end),
        total_credits: row.nanocredits()?,
        cpu_credits: row.nanocredits()?,
        gpu_credits: row.nanocredits()?,
        token_credits: row.nanocredits()?,
        total_virtual_cpu_time: Microseconds(row.count()?),
        total_virtual_gpu_time: Microseconds(row.count()?),
        total_tokens_consumed: row.count()?,
    })
}
