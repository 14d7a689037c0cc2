//! Who looks at a page: a session, whose token is in a cookie that no script can read and no form of another site can send.

use std::sync::Arc;

use askama::Template;
use axum::extract::{FromRequestParts, Query as Parameters, State};
use axum::http::header::{HOST, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::super::App;
use super::super::auth::{Caller, cookie, session_cookie, session_of};
use super::super::problem::Problem;
use super::super::sent::{self, Filled};
use super::{encoded, rendered};
use crate::ledger::keys::Secret;
use crate::ledger::session::{SESSION_MAX_US, SessionToken};

/// In which earlier versions left the key itself, for a month.
const OLD_COOKIE: &str = "jobmeter-key";

/// Whoever has signed in.
pub(super) struct Visitor {
    pub(super) caller: Caller,
    asked_for: Option<String>,
}

impl Visitor {
    /// The account whose credits stand in the bar: the key's own, or the one that is looked at.
    pub(super) fn account(&self) -> Option<String> {
        self.caller.only().or_else(|| self.asked_for.clone().filter(|user| !user.is_empty()))
    }

    pub(super) fn sees_everybody(&self) -> bool {
        self.caller.only().is_none()
    }

    pub(super) fn may_administer(&self) -> bool {
        self.caller.may_administer().is_ok()
    }
}

impl FromRequestParts<Arc<App>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        if parts.method != Method::GET && parts.method != Method::HEAD && !is_of_this_site(&parts.headers) {
            return Err(Problem::forbidden("a form of another site may not do that").into_response());
        }
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let sign_in = || Redirect::to(&format!("/sign-in?next={}", encoded(path))).into_response();
        let by_proxy = Caller::named_by_proxy(&parts.headers, app).map_err(IntoResponse::into_response)?;
        let known = match by_proxy {
            Some(caller) => Ok(caller),
            None => Caller::signed_in(&parts.headers, app).await,
        };
        let caller = match known {
            Ok(caller) => caller,
            Err(problem) if problem.told().0 == StatusCode::UNAUTHORIZED => return Err(sign_in()),
            Err(problem) => return Err(problem.into_response()),
        };
        caller.is_shown(parts);
        let asked_for = Parameters::<AskedFor>::try_from_uri(&parts.uri).ok().and_then(|of| of.0.user);
        Ok(Self { caller, asked_for })
    }
}

#[derive(Deserialize)]
struct AskedFor {
    user: Option<String>,
}

/// Browsers say where a form was: `Sec-Fetch-Site`, or in older ones `Origin`.
fn is_of_this_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text(ORIGIN.as_str()), text(HOST.as_str())) {
        (Some(site), ..) => site == "same-origin",
        (None, Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, from)| from == host),
        _ => false,
    }
}

#[derive(Template)]
#[template(path = "sign_in.html", config = "src/server/pages/askama.toml")]
struct SignIn {
    next: String,
    wrong: bool,
}

#[derive(Deserialize)]
pub(super) struct Next {
    next: Option<String>,
}

/// Only to a path of ours.
fn path_of(next: Option<String>) -> String {
    next.filter(|next| next.starts_with('/') && !next.starts_with("//") && !next.contains('\\'))
        .unwrap_or_else(|| "/".to_owned())
}

pub(super) async fn ask(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Parameters(next): Parameters<Next>,
) -> Response {
    let has_key = cookie(&headers, OLD_COOKIE).is_some();
    let forgotten = has_key.then(|| (SET_COOKIE, cookie_set(OLD_COOKIE, "", 0, app.tls)));
    let page = rendered(&SignIn { next: path_of(next.next), wrong: false });
    (AppendHeaders(forgotten), page).into_response()
}

#[derive(Deserialize)]
pub(super) struct Given {
    key: String,
    next: Option<String>,
}

pub(super) async fn enter(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Filled(given): Filled<Given, { sent::SIGN_IN }>,
) -> Response {
    let next = path_of(given.next);
    if !is_of_this_site(&headers) {
        return Problem::forbidden("a form of another site may not do that").into_response();
    }
    let wrong = || (StatusCode::UNAUTHORIZED, rendered(&SignIn { next: next.clone(), wrong: true })).into_response();
    let Ok(secret) = given.key.trim().parse::<Secret>() else { return wrong() };
    match begun(&app, &secret, session_of(&headers, app.tls)).await {
        Ok(token) => {
            let lasts_s = SESSION_MAX_US / 1_000_000;
            let set = cookie_set(session_cookie(app.tls), token.text(), lasts_s, app.tls);
            ([(SET_COOKIE, set)], Redirect::to(&next)).into_response()
        }
        Err(problem) if problem.told().0 == StatusCode::UNAUTHORIZED => wrong(),
        Err(problem) => problem.into_response(),
    }
}

/// A session of whoever has this key, in the place of the one that the browser had.
async fn begun(app: &Arc<App>, secret: &Secret, before: Option<SessionToken>) -> Result<SessionToken, Problem> {
    let key_id = Caller::of(secret, app).await?.key_id().to_owned();
    let token = SessionToken::new();
    let made = token.clone();
    app.pools.session_writer.with(move |ledger| ledger.begin_session(&made, &key_id, before.as_ref())).await?;
    Ok(token)
}

pub(super) async fn leave(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if !is_of_this_site(&headers) {
        return Problem::forbidden("a form of another site may not do that").into_response();
    }
    if let Some(token) = session_of(&headers, app.tls) {
        let ended = app.pools.session_writer.with(move |ledger| ledger.end_session(&token)).await;
        // The browser keeps its cookie, to try again.
        if let Err(error) = ended {
            return Problem::from(error).into_response();
        }
    }
    let forgotten = cookie_set(session_cookie(app.tls), "", 0, app.tls);
    ([(SET_COOKIE, forgotten)], Redirect::to("/sign-in")).into_response()
}

fn cookie_set(name: &str, value: &str, lasts_s: i64, tls: bool) -> String {
    let secure = if tls { "; Secure" } else { "" };
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={lasts_s}{secure}")
}
