//! The status bar: what is left, and what became of the rest.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::super::App;
use super::super::problem::Problem;
use super::super::usage_of_each;
use super::markup;
use super::session::Visitor;
use crate::domain::units::{Microseconds, Nanocredits};
use crate::ledger::LedgerError;
use crate::ledger::book::alerts::reached;
use crate::ledger::usage_range::UsageRange;
use crate::ledger::views::{AccountView, PeriodLength, Query, UsageRow, Whose};

#[derive(Template)]
#[template(path = "credits.html", config = "src/server/pages/askama.toml")]
pub(super) struct Bar {
    user: String,
    state: &'static str,
    headline: String,
    /// Left, of what could be spent.
    percent: Option<u64>,
    advice: String,
    rows: Vec<(&'static str, String)>,
}

/// As a fragment: for the pages of others too.
pub(super) async fn widget(State(app): State<Arc<App>>, visitor: Visitor) -> Response {
    match bar(&app, visitor.account().as_deref()).await {
        Ok(text) => markup::page(&text).into_response(),
        Err(problem) => problem.into_response(),
    }
}

pub(super) async fn bar(app: &Arc<App>, user: Option<&str>) -> Result<String, Problem> {
    let bar = match user {
        Some(user) => {
            super::super::bounds::name("user", user)?;
            let account = app.pools.read(Query::Account { user: user.to_owned() }).await?.account()?;
            let today = used(app, &account).await?;
            of(&account, today.as_ref())
        }
        None => Bar {
            user: String::new(),
            state: "none",
            headline: "all accounts".to_owned(),
            percent: None,
            advice: "This key is of no account. Choose a user to see their credits.".to_owned(),
            rows: Vec::new(),
        },
    };
    bar.render().map_err(|error| LedgerError::Broken(format!("the status bar cannot be rendered: {error}")).into())
}

/// What the account used in its period.
async fn used(app: &Arc<App>, account: &AccountView) -> Result<Option<UsageRow>, Problem> {
    let (from, to) = (account.period_start.as_str(), account.period_end.as_str());
    let range = UsageRange::new(None, Some(from), Some(to), Some(account.period)).map_err(Problem::malformed)?;
    let rows = usage_of_each::together(&app.pools, Whose::User(account.user.clone()), range).await?;
    Ok(rows.into_iter().next_back())
}

pub(super) fn of(account: &AccountView, used: Option<&UsageRow>) -> Bar {
    let period = match account.period {
        PeriodLength::Day => "today",
        PeriodLength::Month => "this month",
    };
    let rows = rows(account, used);
    let (Some(left), Some(whole)) = (account.left, account.limit) else {
        let headline = format!("{} credits {period}", account.charged.for_people());
        let advice = "This account has no limit.".to_owned();
        return Bar { user: account.user.clone(), state: "none", headline, percent: None, advice, rows };
    };
    let percent = percent_of(left, whole);
    let (state, advice) = match (percent, reached(account.current, whole)) {
        _ if account.suspended => {
            ("red", "Suspended by an operator: nothing starts, and what runs stops, until it is resumed.".to_owned())
        }
        // What is less than a hundredth is less than a job is started with, as a rule.
        (0, _) | (_, 100) => (
            "red",
            format!("Used up {period}: running jobs are stopped, and new ones start after the reset or a grant."),
        ),
        (_, 95) => ("red", format!("Almost nothing is left {period}.")),
        (_, 80) => ("amber", format!("Little is left {period}.")),
        _ => ("ok", format!("{} of {} credits are left {period}.", left.for_people(), whole.for_people())),
    };
    let headline = format!("{} of {} credits left", left.for_people(), whole.for_people());
    Bar { user: account.user.clone(), state, headline, percent: Some(percent), advice, rows }
}

/// What stands behind the headline.
fn rows(account: &AccountView, used: Option<&UsageRow>) -> Vec<(&'static str, String)> {
    let mut rows = vec![("Charged", account.charged.for_people())];
    if let Some(used) = used {
        let of = |credits: Nanocredits, what: String| format!("{} for {what}", credits.for_people());
        let seconds = |time: Microseconds| format!("{} s", time.for_people());
        rows.push(("by CPU", of(used.cpu_credits, seconds(used.total_virtual_cpu_time))));
        if used.total_virtual_gpu_time > Microseconds::ZERO {
            rows.push(("by GPU", of(used.gpu_credits, seconds(used.total_virtual_gpu_time))));
        }
        if used.total_tokens_consumed > 0 {
            rows.push(("by tokens", of(used.token_credits, format!("{} tokens", used.total_tokens_consumed))));
        }
    }
    if account.corrected < Nanocredits::ZERO {
        rows.push(("Corrected", account.corrected.for_people()));
    }
    if account.debt > Nanocredits::ZERO {
        rows.push(("Owed", account.debt.for_people()));
    }
    rows.push(("Held by running jobs", account.held.for_people()));
    rows.push(("Burning now", format!("{} a second", account.burn_per_second.for_people())));
    if let Some(at) = &account.exhausted_at {
        rows.push(("At zero", super::jobs::minute(at)));
    }
    rows.push(("Resets", super::jobs::minute(&account.period_end)));
    if let Some(pending) = &account.pending {
        let limit = pending.limit.map_or_else(|| "no limit".to_owned(), Nanocredits::for_people);
        rows.push((
            "Next",
            format!("{limit} a {} from {}", pending.period.as_str(), super::jobs::minute(&pending.since)),
        ));
    }
    rows
}

fn percent_of(left: Nanocredits, whole: Nanocredits) -> u64 {
    let (left, whole) = (i128::from(left.at_least_zero().0), i128::from(whole.0.max(1)));
    u64::try_from(left * 100 / whole).unwrap_or(0).min(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(left: i64, current: i64, limit: Option<i64>) -> AccountView {
        AccountView {
            user: "<b>ann".to_owned(),
            current: Nanocredits(current),
            limit: limit.map(Nanocredits),
            charged: Nanocredits(current),
            corrected: Nanocredits::ZERO,
            left: limit.map(|_| Nanocredits(left)),
            free: None,
            available: None,
            debt: Nanocredits::ZERO,
            suspended: false,
            allowance: limit.map(Nanocredits),
            carries_over: false,
            pending: None,
            held: Nanocredits::ZERO,
            provisional: Nanocredits::ZERO,
            grants: Vec::new(),
            period: PeriodLength::Day,
            period_start: "2026-11-26T00:00:00Z".to_owned(),
            period_end: "2026-11-27T00:00:00Z".to_owned(),
            resets_in_ms: 1,
            burn_per_second: Nanocredits::ZERO,
            exhausted_at: None,
            running: 0,
            standing: crate::ledger::views::Standing::Known,
        }
    }

    #[test]
    fn it_turns_amber_and_red() {
        let credit = 1_000_000_000;
        for (left, current, state) in [(5, 0, "ok"), (1, 4, "amber"), (0, 5, "red"), (-1, 6, "red")] {
            let bar = of(&account(left * credit, current * credit, Some(5 * credit)), None);
            assert_eq!(bar.state, state, "{left}");
        }
        let bar = of(&account(0, 7 * credit, None), None);
        assert_eq!((bar.state, bar.percent), ("none", None));
        let text = bar.render().unwrap();
        assert!(text.contains("7 credits today") && !text.contains("<b>ann"), "{text}");
    }
}
