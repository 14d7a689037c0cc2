//! `jobmeter usage`: the report by day or by month.

use std::process::ExitCode;

use super::args;
use super::output::{Failure, Output, Style};
use super::settings::Settings;
use crate::ledger::LedgerError;
use crate::ledger::usage_range::UsageRange;
use crate::ledger::views::{PeriodLength, Query, UsageRow, View, Whose};
use crate::runner::summary::seconds;

pub(super) fn usage(usage: &args::Usage, settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    let range = UsageRange::new(usage.month.as_deref(), usage.from.as_deref(), usage.to.as_deref(), usage.by);
    let range = range.map_err(|why| Failure { status: 2, ..Failure::new(why) })?;
    let whose = if usage.all { Whose::All } else { Whose::User(settings.user.clone()) };
    let query = Query::Usage { whose, range };
    match settings.connect_to_read()?.read(&query)? {
        View::Usage(rows) => out.print(&rows, |style| text(&rows, range.by == PeriodLength::Day, style)),
        _ => Err(LedgerError::unasked().into()),
    }
}

fn text(rows: &[UsageRow], by_day: bool, style: &Style) -> String {
    if rows.is_empty() {
        return "nothing was used\n".to_owned();
    }
    let start = |row: &UsageRow| row.period_start.get(..if by_day { 10 } else { 7 }).unwrap_or_default().to_owned();
    let mut table: Vec<Vec<String>> = rows.iter().map(|row| cells(start(row), row)).collect();
    match UsageRow::sum(rows) {
        Ok(total) => table.push(cells("total".to_owned(), &total)),
        Err(why) => table.push(vec!["total".to_owned(), why.to_string()]),
    }
    style.table(&[if by_day { "DAY" } else { "MONTH" }, "CREDITS", "VIRTUAL CPU S", "VIRTUAL GPU S", "TOKENS"], &table)
}

/// All nine digits: a report is what people check sums with.
fn cells(start: String, row: &UsageRow) -> Vec<String> {
    vec![
        start,
        row.total_credits.to_string(),
        seconds(row.total_virtual_cpu_time),
        seconds(row.total_virtual_gpu_time),
        row.total_tokens_consumed.to_string(),
    ]
}
