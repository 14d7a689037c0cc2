//! Pages for people: rendered here, complete without a script, nothing loaded from elsewhere.

mod admin;
mod credits;
mod downloads;
mod focus;
mod jobs;
mod keys;
mod markup;
mod rates;
mod session;
#[cfg(test)]
mod tests;
mod usage;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use self::session::Visitor;
use super::App;
use super::problem::Problem;

/// Scripts, styles and pictures are our own, forms go to us, and nobody frames a page of ours.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// But the status bar, which the platform's own pages may show.
const POLICY_OF_WIDGET: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'";

/// Their routes.
pub(super) fn routes() -> Router<Arc<App>> {
    let asset = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "max-age=3600")], text) })
    };
    let widget = Router::new().route("/widget/credits", get(credits::widget)).layer(map_response(secured_widget));
    Router::new()
        .route("/", get(|| async { Redirect::to("/jobs") }))
        .route("/sign-in", get(session::ask).post(session::enter))
        .route("/sign-out", post(session::leave))
        .route("/jobs", get(jobs::list))
        .route("/jobs/{job}", get(jobs::one))
        .route("/jobs/{job}/stop", post(jobs::stop))
        .route("/admin", get(admin::show))
        .route("/admin/limit", post(admin::limit))
        .route("/admin/grant", post(admin::grant))
        .route("/admin/adjust", post(admin::adjust))
        .route("/admin/revoke-grant", post(admin::revoke_grant))
        .route("/admin/suspend", post(admin::suspend))
        .route("/admin/revoke", post(keys::revoke))
        .route("/admin/key", post(keys::create))
        .route("/admin/rates", post(rates::set))
        .route("/usage", get(usage::report))
        .route("/usage.csv", get(downloads::csv))
        .route("/usage.json", get(downloads::json))
        .route("/usage.focus.csv", get(downloads::focus))
        .route("/assets/style.css", asset("text/css; charset=utf-8", include_str!("assets/style.css")))
        .route("/assets/live.js", asset("text/javascript; charset=utf-8", include_str!("assets/live.js")))
        .route("/assets/stream.js", asset("text/javascript; charset=utf-8", include_str!("assets/stream.js")))
        .route("/assets/icon.svg", asset("image/svg+xml", include_str!("assets/icon.svg")))
        .layer(map_response(secured))
        .merge(widget)
}

/// Headers that hold for every page.
async fn secured(response: Response) -> Response {
    with_policy(response, POLICY)
}

async fn secured_widget(response: Response) -> Response {
    with_policy(response, POLICY_OF_WIDGET)
}

fn with_policy(mut response: Response, policy: &'static str) -> Response {
    let mut set = |name: HeaderName, value: &'static str| {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(CONTENT_SECURITY_POLICY, policy);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "same-origin");
    set(CACHE_CONTROL, "no-store");
    response
}

/// What every page has around it.
struct Page {
    /// Which entry of the navigation it is.
    here: &'static str,
    /// The status bar.
    bar: String,
    bar_url: String,
    /// Whose account changes it; empty: nobody's.
    watch: String,
    /// Whether it changes while jobs run.
    live: bool,
    /// Whether accounts of others may be seen.
    everybody: bool,
    administers: bool,
}

impl Page {
    async fn new(app: &Arc<App>, visitor: &Visitor, here: &'static str, live: bool) -> Result<Self, Problem> {
        let user = visitor.account();
        let bar = credits::bar(app, user.as_deref()).await?;
        let watch = user.clone().unwrap_or_default();
        let bar_url = user
            .map_or_else(|| "/widget/credits".to_owned(), |user| format!("/widget/credits?user={}", encoded(&user)));
        let (everybody, administers) = (visitor.sees_everybody(), visitor.may_administer());
        Ok(Self { here, bar, bar_url, watch, live, everybody, administers })
    }
}

/// A part of a URL.
fn encoded(text: &str) -> String {
    askama::filters::urlencode_strict(text).map(|encoded| encoded.to_string()).unwrap_or_default()
}

fn rendered(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => markup::page(&text).into_response(),
        Err(error) => {
            tracing::error!(%error, "A page cannot be rendered.");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// What went wrong, as a page.
#[derive(Template)]
#[template(path = "trouble.html", config = "src/server/pages/askama.toml")]
struct Trouble {
    page: Page,
    title: String,
    detail: String,
}

/// A page, or what went wrong.
async fn page_or(app: &Arc<App>, visitor: &Visitor, made: Result<Response, Problem>) -> Response {
    let problem = match made {
        Ok(response) => return response,
        Err(problem) => problem,
    };
    let (status, title, detail) = problem.told();
    match Page::new(app, visitor, "", false).await {
        Ok(page) => (status, rendered(&Trouble { page, title, detail })).into_response(),
        // Not even the bar can be read.
        Err(problem) => problem.into_response(),
    }
}
