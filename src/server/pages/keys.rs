//! Keys of the service: made, told once, revoked.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::super::admin::make_key;
use super::super::api::change;
use super::super::problem::Problem;
use super::super::{App, bounds};
use super::admin::confirmed;
use super::session::Visitor;
use super::{Page, encoded, page_or, rendered};
use crate::ledger::LedgerError;
use crate::ledger::keys::{KeyView, Scope};
use crate::ledger::views::{Change, Query, View};

/// A row of the table.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) scope: &'static str,
    pub(super) user: String,
    pub(super) valid: bool,
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
        valid: key.revoked_at.is_none(),
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
    sure: Option<String>,
}

pub(super) async fn create(State(app): State<Arc<App>>, visitor: Visitor, Form(new): Form<New>) -> Response {
    let made = created(&app, &visitor, new).await;
    page_or(&app, &visitor, made).await
}

async fn created(app: &Arc<App>, visitor: &Visitor, new: New) -> Result<Response, Problem> {
    visitor.caller.may_administer()?;
    confirmed(new.sure.as_deref())?;
    let user = Some(new.user).filter(|user| !user.is_empty());
    let secret = make_key(app, &visitor.caller, new.name.clone(), new.scope, user).await?;
    let page = Page::new(app, visitor, "admin", false).await?;
    Ok(rendered(&Made { page, name: new.name, secret: secret.text().to_owned() }))
}

#[derive(Deserialize)]
pub(super) struct Revoked {
    id: String,
    user: String,
    sure: Option<String>,
}

pub(super) async fn revoke(State(app): State<Arc<App>>, visitor: Visitor, Form(of): Form<Revoked>) -> Response {
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
