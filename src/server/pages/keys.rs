//! Keys of the service: made, told once, revoked.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::super::admin::make_key;
use super::super::api::change;
use super::super::problem::Problem;
use super::super::sent::{self, Filled};
use super::super::{App, bounds};
use super::admin::confirmed;
use super::jobs::minute;
use super::session::Visitor;
use super::{Page, encoded, page_or, rendered};
use crate::domain::calendar::DAY_S;
use crate::ledger::LedgerError;
use crate::ledger::keys::{KeyView, Scope};
use crate::ledger::views::{Change, NewKey, Query, View};
use crate::sys::clock::{Clock, SystemClock};

/// No key is made for longer: a hundred years.
const DAYS_MAX: i64 = 36_525;

/// A row of the table.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) scope: &'static str,
    pub(super) user: String,
    pub(super) principal: String,
    pub(super) ends: String,
    pub(super) used: String,
    pub(super) valid: bool,
    pub(super) revoked: bool,
}

pub(super) async fn all(app: &Arc<App>) -> Result<Vec<Key>, Problem> {
    let View::Keys(keys) = app.pools.read(Query::Keys { id: None }).await? else {
        return Err(LedgerError::unasked().into());
    };
    let key = |key: KeyView| Key {
        id: key.id,
        name: key.name,
        scope: key.scope.as_str(),
        user: key.user.unwrap_or_default(),
        principal: key.principal,
        ends: key.expires_at.as_deref().map(minute).unwrap_or_default(),
        used: key.used_at.as_deref().map(minute).unwrap_or_default(),
        valid: !key.is_over,
        revoked: key.revoked_at.is_some(),
    };
    Ok(keys.into_iter().map(key).collect())
}

/// The only page that ever shows a key.
#[derive(Template)]
#[template(path = "key.html", config = "src/server/pages/askama.toml")]
struct Made {
    page: Page,
    name: String,
    secret: String,
}

#[derive(Deserialize)]
pub(super) struct New {
    name: String,
    scope: Scope,
    /// Empty: of every account.
    user: String,
    /// Where it is empty, the key works for what it is named after.
    #[serde(default)]
    principal: String,
    /// Where it is empty, the key is good for ever.
    #[serde(default)]
    days: String,
    sure: Option<String>,
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Filled(new): Filled<New, { sent::CHANGE }>,
) -> Response {
    let made = created(&app, &visitor, new).await;
    page_or(&app, &visitor, made).await
}

async fn created(app: &Arc<App>, visitor: &Visitor, new: New) -> Result<Response, Problem> {
    visitor.caller.may_administer()?;
    confirmed(new.sure.as_deref())?;
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    let (user, principal, expires_at) = (said(new.user), said(new.principal), said(new.days).map(in_days).transpose()?);
    let (name, scope, by) = (new.name.clone(), new.scope, visitor.caller.name());
    let secret = make_key(app, &visitor.caller, NewKey { name, scope, user, principal, expires_at, by }).await?;
    let page = Page::new(app, visitor, "admin", false).await?;
    Ok(rendered(&Made { page, name: new.name, secret: secret.text().to_owned() }))
}

/// So many days from now, in seconds since 1970.
fn in_days(days: String) -> Result<i64, Problem> {
    let count = days.trim().parse::<i64>().ok().filter(|count| (1..=DAYS_MAX).contains(count));
    let invalid =
        || Problem::malformed(format!("invalid days {days:?}: expected 1 to {DAYS_MAX}, or nothing for ever"));
    Ok(SystemClock.realtime_us().div_euclid(1_000_000).saturating_add(count.ok_or_else(invalid)? * DAY_S))
}

#[derive(Deserialize)]
pub(super) struct Revoked {
    id: String,
    user: String,
    sure: Option<String>,
}

pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Filled(of): Filled<Revoked, { sent::CHANGE }>,
) -> Response {
    let made = revoked(&app, &visitor, of).await;
    page_or(&app, &visitor, made).await
}

async fn revoked(app: &Arc<App>, visitor: &Visitor, of: Revoked) -> Result<Response, Problem> {
    visitor.caller.may_administer()?;
    confirmed(of.sure.as_deref())?;
    bounds::name("id", &of.id)?;
    let _answer = change(app, &visitor.caller, Change::RevokeKey { id: of.id, by: visitor.caller.name() }).await?;
    let url = format!("/admin?user={}&done={}", encoded(&of.user), encoded("The key is revoked."));
    Ok(Redirect::to(&url).into_response())
}
