//! The page of administrators: accounts, the rate card and keys. Every change has a reason, is confirmed, and stands in the
//! entries.

use std::str::FromStr;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Query as Parameters, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use uuid::Uuid;

use super::super::api::change;
use super::super::problem::Problem;
use super::super::reads::newest_rates;
use super::super::sent::{self, Filled};
use super::super::{App, bounds};
use super::keys::{self, Key};
use super::rates::Rates;
use super::session::Visitor;
use super::{Page, encoded, page_or, rendered};
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::views::{Change, LimitSince, PeriodLength, Query, View};

const ENTRIES: u32 = 20;

#[derive(Deserialize)]
pub(super) struct ShownOf {
    user: Option<String>,
    done: Option<String>,
}

struct Action {
    action: &'static str,
    title: &'static str,
    example: &'static str,
    button: &'static str,
}

const FORMS: [Action; 4] = [
    Action { action: "limit", title: "Limit, or none", example: "5", button: "Set the limit" },
    Action { action: "grant", title: "Extra credits", example: "10", button: "Grant" },
    Action { action: "adjust", title: "Give back, or take by a minus", example: "-0.25", button: "Correct" },
    Action { action: "revoke-grant", title: "End a grant, by its number", example: "1", button: "End the grant" },
];

struct Entry {
    id: i64,
    at: String,
    kind: String,
    amount: String,
    job: String,
    by: String,
    why: String,
}

#[derive(Template)]
#[template(path = "admin.html", config = "src/server/pages/askama.toml")]
struct Admin {
    page: Page,
    done: Option<String>,
    user: String,
    /// Of the next change: sent twice, it is made once.
    key: String,
    facts: Vec<(&'static str, String)>,
    forms: &'static [Action],
    entries: Vec<Entry>,
    rates: Rates,
    keys: Vec<Key>,
    suspended: bool,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Parameters(of): Parameters<ShownOf>,
) -> Response {
    let made = shown(&app, &visitor, of).await;
    page_or(&app, &visitor, made).await
}

async fn shown(app: &Arc<App>, visitor: &Visitor, of: ShownOf) -> Result<Response, Problem> {
    visitor.caller.may_administer()?;
    let user = of.user.unwrap_or_default();
    let (mut facts, mut entries, mut suspended) = (Vec::new(), Vec::new(), false);
    if !user.is_empty() {
        bounds::name("user", &user)?;
        (facts, suspended) = account(app, &user).await?;
        entries = newest(app, &user).await?;
    }
    let done = of.done.map(|done| done.chars().take(200).collect());
    let page = Page::new(app, visitor, "admin", false).await?;
    let (rates, keys, key) = (newest_rates(app).await?.into(), keys::all(app).await?, Uuid::new_v4().to_string());
    Ok(rendered(&Admin { page, done, user, key, facts, forms: &FORMS, entries, rates, keys, suspended }))
}

/// What stands about an account, and whether it is suspended.
async fn account(app: &Arc<App>, user: &str) -> Result<(Vec<(&'static str, String)>, bool), Problem> {
    let View::Account(account) = app.pools.read(Query::Account { user: user.to_owned() }).await? else {
        return Err(LedgerError::unasked().into());
    };
    let or_none = |amount: Option<Nanocredits>| amount.map_or_else(|| "no limit".to_owned(), Nanocredits::for_people);
    let mut facts = vec![
        ("Allowance", format!("{} a {}", or_none(account.allowance), account.period.as_str())),
        ("Could be spent in it", or_none(account.limit)),
        ("Charged", account.charged.for_people()),
        ("Corrected", account.corrected.for_people()),
        ("Left", or_none(account.left)),
        ("Free for new jobs", or_none(account.free)),
        ("Held", account.held.for_people()),
        ("Of that provisional", account.provisional.for_people()),
        ("Owed", account.debt.for_people()),
        ("Tasks that run", account.running.to_string()),
    ];
    if let Some(pending) = &account.pending {
        let since = super::jobs::minute(&pending.since);
        facts.push(("Next", format!("{} a {} from {since}", or_none(pending.limit), pending.period.as_str())));
    }
    if account.carries_over {
        facts.push(("Carries over", "yes".to_owned()));
    }
    if account.suspended {
        facts.push(("Suspended", "nothing starts, and what runs stops".to_owned()));
    }
    facts.extend(account.grants.iter().map(|grant| {
        let until = grant.expires_at.as_deref().map(|at| format!(" until {}", super::jobs::minute(at)));
        (
            "Grant",
            format!(
                "{}: {} of {}{}",
                grant.id,
                grant.left.for_people(),
                grant.amount.for_people(),
                until.unwrap_or_default()
            ),
        )
    }));
    Ok((facts, account.suspended))
}

async fn newest(app: &Arc<App>, user: &str) -> Result<Vec<Entry>, Problem> {
    let query = Query::Entries { user: user.to_owned(), count_max: ENTRIES };
    let View::Entries(entries) = app.pools.read(query).await? else {
        return Err(LedgerError::unasked().into());
    };
    let entry = |entry: crate::ledger::views::EntryView| Entry {
        id: entry.id,
        at: super::jobs::minute(&entry.at),
        kind: entry.kind,
        amount: entry.amount.to_string(),
        job: entry.job.unwrap_or_default(),
        by: entry.by,
        why: entry.why,
    };
    Ok(entries.into_iter().map(entry).collect())
}

#[derive(Deserialize)]
pub(super) struct Given {
    user: String,
    amount: String,
    why: String,
    key: String,
    period: Option<String>,
    since: Option<String>,
    sure: Option<String>,
}

pub(super) async fn limit(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Filled(given): Filled<Given, { sent::CHANGE }>,
) -> Response {
    let made = changed(&app, &visitor, given, |given, by| {
        let limit = match given.amount.trim() {
            "none" => None,
            text => Some(not_negative(amount(text)?)?),
        };
        let period = given.period.as_deref().unwrap_or("day");
        let period = PeriodLength::from_str(period).map_err(Problem::malformed)?;
        let since = match given.since.as_deref() {
            Some("now") => Some(LimitSince::Now),
            Some("next") => Some(LimitSince::NextPeriod),
            _ => None,
        };
        Ok(Change::SetLimit {
            user: given.user.clone(),
            limit,
            period,
            since,
            carry_over: None,
            by,
            why: given.why.clone(),
        })
    });
    let made = made.await;
    page_or(&app, &visitor, made).await
}

pub(super) async fn grant(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Filled(given): Filled<Given, { sent::CHANGE }>,
) -> Response {
    let made = changed(&app, &visitor, given, |given, by| {
        let (user, amount, why) = (given.user.clone(), amount(&given.amount)?, given.why.clone());
        Ok(Change::Grant { user, amount, expires_at: None, by, why, key: format!("page: {}", given.key) })
    });
    let made = made.await;
    page_or(&app, &visitor, made).await
}

pub(super) async fn adjust(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Filled(given): Filled<Given, { sent::CHANGE }>,
) -> Response {
    let made = changed(&app, &visitor, given, |given, by| {
        let (user, amount, why) = (given.user.clone(), amount(&given.amount)?, given.why.clone());
        Ok(Change::Adjust { user, amount, grant: None, expires_at: None, by, why, key: format!("page: {}", given.key) })
    });
    let made = made.await;
    page_or(&app, &visitor, made).await
}

pub(super) async fn suspend(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Filled(given): Filled<Given, { sent::CHANGE }>,
) -> Response {
    let made = changed(&app, &visitor, given, |given, by| {
        let (user, why) = (given.user.clone(), given.why.clone());
        match given.amount.as_str() {
            "suspend" => Ok(Change::Suspend { user, by, why }),
            "resume" => Ok(Change::Resume { user, by, why }),
            other => Err(Problem::malformed(format!("{other:?} is neither suspend nor resume"))),
        }
    });
    let made = made.await;
    page_or(&app, &visitor, made).await
}

pub(super) async fn revoke_grant(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Filled(given): Filled<Given, { sent::CHANGE }>,
) -> Response {
    let made = changed(&app, &visitor, given, |given, by| {
        let number = given.amount.trim();
        let grant =
            number.parse().map_err(|_| Problem::malformed(format!("invalid grant {number:?}: expected its number")))?;
        Ok(Change::RevokeGrant { user: given.user.clone(), grant, by, why: given.why.clone() })
    });
    let made = made.await;
    page_or(&app, &visitor, made).await
}

fn amount(text: &str) -> Result<Nanocredits, Problem> {
    let amount = Nanocredits::from_str(text.trim()).map_err(|error| Problem::malformed(error.to_string()))?;
    bounds::amount("amount", amount)?;
    Ok(amount)
}

fn not_negative(amount: Nanocredits) -> Result<Nanocredits, Problem> {
    let below = || Problem::malformed(format!("a limit of {amount} is below zero: write none for no limit"));
    Some(amount).filter(|amount| *amount >= Nanocredits::ZERO).ok_or_else(below)
}

async fn changed(
    app: &Arc<App>,
    visitor: &Visitor,
    given: Given,
    of: impl FnOnce(&Given, String) -> Result<Change, Problem>,
) -> Result<Response, Problem> {
    visitor.caller.may_administer()?;
    confirmed(given.sure.as_deref())?;
    bounds::name("user", &given.user)?;
    bounds::name("why", &given.why)?;
    bounds::name("key", &given.key)?;
    let made = of(&given, visitor.caller.name())?;
    let answer = change(app, &visitor.caller, made).await?;
    let done = if answer.again { "That had been done before." } else { "Done. It stands in the entries." };
    let url = format!("/admin?user={}&done={}", encoded(&given.user), encoded(done));
    Ok(Redirect::to(&url).into_response())
}

pub(super) fn confirmed(sure: Option<&str>) -> Result<(), Problem> {
    let unsure = || Problem::malformed("nothing was changed: tick the box that you are sure");
    sure.filter(|sure| *sure == "yes").map(|_| ()).ok_or_else(unsure)
}
