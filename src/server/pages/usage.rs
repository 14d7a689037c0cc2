//! The usage report of a month, by day, and its downloads.

use std::sync::Arc;

use askama::Template;
use axum::Json;
use axum::extract::{Query as Parameters, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::super::App;
use super::super::problem::Problem;
use super::jobs::{Bar, bars};
use super::session::Visitor;
use super::{Page, encoded, page_or, rendered};
use crate::domain::calendar::{day_start, month_end};
use crate::domain::units::{Microseconds, Nanocredits};
use crate::ledger::LedgerError;
use crate::ledger::usage_range::UsageRange;
use crate::ledger::views::{Query, UsageRow, View};
use crate::sys::clock::{Clock, SystemClock};

#[derive(Deserialize)]
pub(super) struct ReportOf {
    month: Option<String>,
    user: Option<String>,
}

struct Row {
    day: String,
    credits: String,
    cpu: String,
    gpu: String,
    tokens: u64,
}

#[derive(Template)]
#[template(path = "usage.html", config = "src/server/pages/askama.toml")]
struct Report {
    page: Page,
    month: String,
    before: String,
    after: String,
    user: String,
    rows: Vec<Row>,
    total: Row,
    bars: Vec<Bar>,
    csv: String,
    json: String,
}

/// A month's rows, and whose.
struct Found {
    user: String,
    month: String,
    from_s: i64,
    rows: Vec<UsageRow>,
}

/// `2026-11` of a time.
fn month_of(s: i64) -> String {
    jiff::Timestamp::from_second(s).map_or_else(|_| String::new(), |time| time.to_string().chars().take(7).collect())
}

async fn find(app: &Arc<App>, visitor: &Visitor, of: ReportOf) -> Result<Found, Problem> {
    let chosen = || Problem::malformed("this key is of no account: say whose usage by ?user=NAME");
    let user = of.user.filter(|user| !user.is_empty()).or_else(|| visitor.caller.only()).ok_or_else(chosen)?;
    visitor.caller.may_see(&user)?;
    super::super::bounds::name("user", &user)?;
    let now_s = SystemClock.realtime_us().div_euclid(1_000_000);
    let month = of.month.unwrap_or_else(|| month_of(now_s));
    let range = UsageRange::new(Some(&month), None, None, None).map_err(Problem::malformed)?;
    match app.readers.read(Query::Usage { user: user.clone(), range }).await? {
        View::Usage(rows) => Ok(Found { user, month, from_s: range.from_s, rows }),
        _ => Err(LedgerError::unasked().into()),
    }
}

pub(super) async fn report(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Parameters(of): Parameters<ReportOf>,
) -> Response {
    let made = reported(&app, &visitor, of).await;
    page_or(&app, &visitor, made).await
}

async fn reported(app: &Arc<App>, visitor: &Visitor, of: ReportOf) -> Result<Response, Problem> {
    let found = find(app, visitor, of).await?;
    let query = |month: &str| format!("?month={month}&user={}", encoded(&found.user));
    let (here, before_s, after_s) = (query(&found.month), day_start(found.from_s - 1), month_end(found.from_s));
    let highest = found.rows.iter().map(|row| row.total_credits.at_least_zero().0.unsigned_abs()).max().unwrap_or(0);
    let heights: Vec<(u64, String)> = days(&found);
    let page = Page::new(app, visitor, "usage", format!("/usage{here}"), false).await?;
    Ok(rendered(&Report {
        page,
        before: format!("/usage{}", query(&month_of(before_s))),
        after: format!("/usage{}", query(&month_of(after_s))),
        rows: found.rows.iter().map(row).collect(),
        total: row(&total(&found.rows)),
        bars: bars(&heights, highest, (620, 100)),
        csv: format!("/usage.csv{here}"),
        json: format!("/usage.json{here}"),
        user: found.user,
        month: found.month,
    }))
}

/// Credits of each day of the month, also of those without any.
fn days(found: &Found) -> Vec<(u64, String)> {
    let count = month_end(found.from_s).saturating_sub(found.from_s) / 86_400;
    let day = |at: i64| {
        let text = jiff::Timestamp::from_second(found.from_s + at * 86_400)
            .map_or_else(|_| String::new(), |time| time.to_string());
        let text = text.get(..10).unwrap_or_default().to_owned();
        let row = found.rows.iter().find(|row| row.period_start.starts_with(&text));
        let credits = row.map_or(Nanocredits::ZERO, |row| row.total_credits);
        (credits.at_least_zero().0.unsigned_abs(), format!("{text}: {} credits", credits.for_people()))
    };
    (0..count).map(day).collect()
}

fn row(row: &UsageRow) -> Row {
    Row {
        day: row.period_start.get(..10).unwrap_or_default().to_owned(),
        credits: row.total_credits.for_people(),
        cpu: row.total_virtual_cpu_time.for_people(),
        gpu: row.total_virtual_gpu_time.for_people(),
        tokens: row.total_tokens_consumed,
    }
}

fn total(rows: &[UsageRow]) -> UsageRow {
    let none = UsageRow {
        period_start: String::new(),
        period_end: String::new(),
        total_credits: Nanocredits::ZERO,
        total_virtual_cpu_time: Microseconds::ZERO,
        total_virtual_gpu_time: Microseconds::ZERO,
        total_tokens_consumed: 0,
    };
    rows.iter().fold(none, |sum, row| UsageRow {
        total_credits: sum.total_credits.saturating_add(row.total_credits),
        total_virtual_cpu_time: sum.total_virtual_cpu_time.saturating_add(row.total_virtual_cpu_time),
        total_virtual_gpu_time: sum.total_virtual_gpu_time.saturating_add(row.total_virtual_gpu_time),
        total_tokens_consumed: sum.total_tokens_consumed.saturating_add(row.total_tokens_consumed),
        ..sum
    })
}

/// Every digit.
pub(super) async fn csv(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Parameters(of): Parameters<ReportOf>,
) -> Response {
    let made = find(&app, &visitor, of).await.map(|found| {
        let mut text = "day,user,credits,virtual_cpu_seconds,virtual_gpu_seconds,tokens\r\n".to_owned();
        for row in &found.rows {
            let day = row.period_start.get(..10).unwrap_or_default();
            let (credits, cpu, gpu) = (row.total_credits, row.total_virtual_cpu_time, row.total_virtual_gpu_time);
            let user = quoted(&found.user);
            text.push_str(&format!("{day},{user},{credits},{cpu},{gpu},{}\r\n", row.total_tokens_consumed));
        }
        let name = format!("attachment; filename=\"usage-{}.csv\"", found.month);
        ([(CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, name)], text).into_response()
    });
    page_or(&app, &visitor, made).await
}

/// RFC 4180; and no cell that a spreadsheet would take for a formula.
fn quoted(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

pub(super) async fn json(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Parameters(of): Parameters<ReportOf>,
) -> Response {
    let made = find(&app, &visitor, of).await.map(|found| {
        let name = format!("attachment; filename=\"usage-{}.json\"", found.month);
        ([(CONTENT_DISPOSITION, name)], Json(found.rows)).into_response()
    });
    page_or(&app, &visitor, made).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_no_formula() {
        assert_eq!(quoted("=1+\"1\""), "\"'=1+\"\"1\"\"\"");
        assert_eq!(quoted("ann"), "\"ann\"");
    }
}
