//! What people and programs read.

use std::sync::Arc;

use axum::extract::{Path, Query as Parameters, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;

use super::auth::Caller;
use super::problem::Problem;
use super::{App, bounds};
use crate::ledger::LedgerError;
use crate::ledger::views::{JobView, Query, View};

/// Its routes.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/jobs", get(jobs))
        .route("/jobs/{job}", get(job))
        .route("/jobs/{job}/stopped", get(stopped))
        .route("/users/{user}/credits", get(credits))
        .route("/users/{user}/usage", get(usage))
        .route("/users/{user}/entries", get(entries))
        .route("/rates", get(rates))
        .route("/keys", get(keys))
        .route("/ledger/verify", get(verify))
}

/// Outside the API: for whoever looks after the service.
pub(super) fn health() -> Router<Arc<App>> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// Ready is who can read the books.
async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    app.read(Query::Keys { id: Some(String::new()) }).await?;
    Ok("ready\n")
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(axum::http::header::CONTENT_TYPE, kind)], app.metrics.text()).into_response()
}

fn unasked() -> Problem {
    LedgerError::unasked().into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobsPage {
    user: Option<String>,
    #[serde(default)]
    running: bool,
    count: Option<u32>,
    before: Option<String>,
}

async fn jobs(
    State(app): State<Arc<App>>,
    caller: Caller,
    page: Result<Parameters<JobsPage>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Parameters(page) = page.map_err(|error| Problem::malformed(error.body_text()))?;
    let user = page.user.or_else(|| caller.only());
    if let Some(user) = &user {
        caller.may_see(user)?;
    }
    let count_max = page.count.unwrap_or(20);
    let query = Query::Jobs { user, running_only: page.running, count_max, before: page.before };
    match app.read(query).await? {
        View::Jobs { jobs, cursor } => Ok(Json(serde_json::json!({ "jobs": jobs, "cursor": cursor })).into_response()),
        _ => Err(unasked()),
    }
}

async fn job(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(job): Path<String>,
) -> Result<Json<Box<JobView>>, Problem> {
    let View::Job(Some(found)) = app.read(Query::Job { job: job.clone() }).await? else {
        return Err(Problem::missing(format!("no job {job:?} is known")));
    };
    // The beginning of an id would tell that there is such a job.
    let may = caller.only().is_none_or(|own| own == found.user && found.job == job);
    if may { Ok(Json(found)) } else { Err(Problem::missing(format!("no job {job:?} is known"))) }
}

/// Whether an operator stopped it: a sidecar asks between two reports.
async fn stopped(State(app): State<Arc<App>>, caller: Caller, Path(job): Path<String>) -> Result<Json<bool>, Problem> {
    caller.may_report()?;
    match app.read(Query::Stopped { job }).await? {
        View::Stopped(stopped) => Ok(Json(stopped)),
        _ => Err(unasked()),
    }
}

async fn credits(State(app): State<Arc<App>>, caller: Caller, Path(user): Path<String>) -> Result<Response, Problem> {
    caller.may_see(&user)?;
    bounds::name("user", &user)?;
    match app.read(Query::Account { user }).await? {
        View::Account(account) => Ok(Json(account).into_response()),
        _ => Err(unasked()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageOf {
    month: Option<String>,
}

async fn usage(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    of: Result<Parameters<UsageOf>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    caller.may_see(&user)?;
    let Parameters(UsageOf { month }) = of.map_err(|error| Problem::malformed(error.body_text()))?;
    match app.read(Query::Usage { user, month }).await? {
        View::Usage(rows) => Ok(Json(rows).into_response()),
        _ => Err(unasked()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntriesOf {
    count: Option<u32>,
}

async fn entries(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    of: Result<Parameters<EntriesOf>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    caller.may_see(&user)?;
    let Parameters(of) = of.map_err(|error| Problem::malformed(error.body_text()))?;
    match app.read(Query::Entries { user, count_max: of.count.unwrap_or(20) }).await? {
        View::Entries(entries) => Ok(Json(entries).into_response()),
        _ => Err(unasked()),
    }
}

async fn rates(State(app): State<Arc<App>>, _caller: Caller) -> Result<Response, Problem> {
    match app.read(Query::Rates).await? {
        View::Rates(rates) => Ok(Json(rates).into_response()),
        _ => Err(unasked()),
    }
}

async fn keys(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Problem> {
    caller.may_administer()?;
    match app.read(Query::Keys { id: None }).await? {
        View::Keys(keys) => Ok(Json(keys).into_response()),
        _ => Err(unasked()),
    }
}

async fn verify(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Problem> {
    caller.may_administer()?;
    match app.read(Query::Verify).await? {
        View::Verified(found) => Ok(Json(found).into_response()),
        _ => Err(unasked()),
    }
}
