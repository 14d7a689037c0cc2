//! The usage report of a month, by day.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query as Parameters, State};
use axum::response::Response;
use serde::Deserialize;

use super::super::App;
use super::super::problem::Problem;
use super::super::usage_of_each;
use super::jobs::{Bar, bars};
use super::session::Visitor;
use super::{Page, encoded, page_or, rendered};
use crate::domain::calendar::{day_start, month_end};
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::usage_range::UsageRange;
use crate::ledger::views::{PeriodLength, UsageRow, Whose};
use crate::sys::clock::{Clock, SystemClock};

#[derive(Deserialize)]
pub(super) struct ReportOf {
    month: Option<String>,
    user: Option<String>,
}

/// Accounts that the report of all of them lists; the downloads have every one.
const ACCOUNTS_MAX: usize = 200;

/// What an account used in the month.
struct Account {
    user: String,
    url: String,
    credits: Nanocredits,
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
    /// Empty: all of them.
    user: String,
    rows: Vec<Row>,
    total: Row,
    bars: Vec<Bar>,
    accounts: Vec<Account>,
    downloads: [(&'static str, String); 3],
}

/// Which month of which account, or of all.
pub(super) struct Asked {
    pub(super) user: Option<String>,
    pub(super) month: String,
    pub(super) from_s: i64,
}

impl Asked {
    /// The month, in rows of this length.
    pub(super) fn range(&self, by: PeriodLength) -> Result<UsageRange, Problem> {
        UsageRange::new(Some(&self.month), None, None, Some(by)).map_err(Problem::malformed)
    }

    /// A month of the same account, or of all.
    fn query(&self, month: &str) -> String {
        format!("?month={month}&user={}", encoded(self.user.as_deref().unwrap_or_default()))
    }
}

/// `2026-11` of a time.
fn month_of(s: i64) -> String {
    jiff::Timestamp::from_second(s).map_or_else(|_| String::new(), |time| time.to_string().chars().take(7).collect())
}

pub(super) fn asked(visitor: &Visitor, of: ReportOf) -> Result<Asked, Problem> {
    let user = of.user.filter(|user| !user.is_empty()).or_else(|| visitor.caller.only());
    if let Some(user) = &user {
        visitor.caller.may_see(user)?;
        super::super::bounds::name("user", user)?;
    }
    let now_s = SystemClock.realtime_us().div_euclid(1_000_000);
    let month = of.month.unwrap_or_else(|| month_of(now_s));
    let range = UsageRange::new(Some(&month), None, None, None).map_err(Problem::malformed)?;
    Ok(Asked { user, month, from_s: range.from_s })
}

/// The days of the month; without a user those of all accounts together.
pub(super) async fn rows(app: &Arc<App>, asked: &Asked) -> Result<Vec<UsageRow>, Problem> {
    let whose = asked.user.clone().map_or(Whose::All, Whose::User);
    Ok(usage_of_each::together(&app.pools, whose, asked.range(PeriodLength::Day)?).await?)
}

/// The accounts that used most in the month.
async fn most_used(app: &Arc<App>, asked: &Asked) -> Result<Vec<UsageRow>, Problem> {
    let pages = usage_of_each::pages(app.pools.clone(), asked.range(PeriodLength::Month)?).await?;
    Ok(usage_of_each::chosen(pages, keep_most).await?)
}

/// Those that used most first, and no more of them than are listed.
fn keep_most(rows: &mut Vec<UsageRow>) {
    rows.sort_by(|a, b| b.total_credits.cmp(&a.total_credits).then_with(|| a.user.cmp(&b.user)));
    rows.truncate(ACCOUNTS_MAX);
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
    let asked = asked(visitor, of)?;
    let found = rows(app, &asked).await?;
    let of_each = if asked.user.is_some() { Vec::new() } else { most_used(app, &asked).await? };
    let page = Page::new(app, visitor, "usage", false).await?;
    let total = UsageRow::sum(&found).map_err(LedgerError::from)?;
    Ok(rendered(&page_of(page, asked, (&found, &total), of_each)))
}

pub(super) fn page_of(
    page: Page,
    asked: Asked,
    (found, total): (&[UsageRow], &UsageRow),
    of_each: Vec<UsageRow>,
) -> impl Template {
    let (here, before_s, after_s) = (asked.query(&asked.month), day_start(asked.from_s - 1), month_end(asked.from_s));
    let highest = found.iter().map(|row| row.total_credits.at_least_zero().0.unsigned_abs()).max().unwrap_or(0);
    let heights: Vec<(u64, String)> = days(&asked, found);
    Report {
        page,
        before: format!("/usage{}", asked.query(&month_of(before_s))),
        after: format!("/usage{}", asked.query(&month_of(after_s))),
        rows: found.iter().map(row).collect(),
        total: row(total),
        bars: bars(&heights, highest, (620, 100)),
        accounts: accounts(of_each, &asked.month),
        downloads: [("CSV", "csv"), ("JSON", "json"), ("FOCUS 1.2", "focus.csv")]
            .map(|(name, kind)| (name, format!("/usage.{kind}{here}"))),
        user: asked.user.unwrap_or_default(),
        month: asked.month,
    }
}

/// Those that used most first.
fn accounts(mut rows: Vec<UsageRow>, month: &str) -> Vec<Account> {
    keep_most(&mut rows);
    let account = |row: UsageRow| {
        let user = row.user.unwrap_or_default();
        let url = format!("/usage?month={month}&user={}", encoded(&user));
        Account { user, url, credits: row.total_credits }
    };
    rows.into_iter().map(account).collect()
}

/// Credits of each day of the month, also of those without any.
fn days(asked: &Asked, rows: &[UsageRow]) -> Vec<(u64, String)> {
    let count = month_end(asked.from_s).saturating_sub(asked.from_s) / 86_400;
    let day = |at: i64| {
        let text = jiff::Timestamp::from_second(asked.from_s + at * 86_400)
            .map_or_else(|_| String::new(), |time| time.to_string());
        let text = text.get(..10).unwrap_or_default().to_owned();
        let row = rows.iter().find(|row| row.period_start.starts_with(&text));
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
