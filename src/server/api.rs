//! What sidecars and the assistant's backend say: attempts and tokens.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::auth::Caller;
use super::poster::Work;
use super::problem::{Problem, Refusals};
use super::{App, bounds};
use crate::ledger::LedgerError;
use crate::ledger::book::Outcome;
use crate::ledger::protocol::{Finish, FinishAnswer, OpenAnswer, OpenRequest, Report, ReportAnswer};
use crate::ledger::views::{Change, ChangeAnswer};

/// Its routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(open)).routes(routes!(report)).routes(routes!(finish)).routes(routes!(tokens))
}

pub(super) fn attempt_id(text: &str) -> Result<Uuid, Problem> {
    text.parse().map_err(|_| Problem::malformed(format!("{text:?} is no UUID of an attempt")))
}

fn same(path: Uuid, body: Uuid) -> Result<(), Problem> {
    if path == body { Ok(()) } else { Err(Problem::malformed("the body names another attempt than the path")) }
}

#[utoipa::path(put, path = "/attempts/{attempt}", summary = "Opens an attempt of a job, with its first lease.", params(("attempt" = Uuid, Path, description = "a UUIDv7")), request_body = OpenRequest, responses((status = 201, description = "It may start.", body = OpenAnswer), (status = 200, description = "It was open already.", body = OpenAnswer), (status = 202, description = "Ask again: the ledger was restored.", body = OpenAnswer), (status = 402, description = "No credits: the answer says why.", body = Problem), Refusals))]
async fn open(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(attempt): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    caller.may_report()?;
    let request: OpenRequest = bounds::json(&body)?;
    same(attempt_id(&attempt)?, request.identity.attempt)?;
    bounds::open(&request)?;
    caller.may_see(&request.identity.user)?;
    let Outcome::Opened(answer) = app.poster.ask(Work::Open(Box::new(request)), caller.only()).await? else {
        return Err(LedgerError::unasked().into());
    };
    let status = match &*answer {
        OpenAnswer::Opened { again: false, .. } => StatusCode::CREATED,
        OpenAnswer::Opened { again: true, .. } => StatusCode::OK,
        OpenAnswer::Wait { .. } => StatusCode::ACCEPTED,
        OpenAnswer::Refused { .. } => {
            let answer = serde_json::to_value(&answer).unwrap_or_default();
            return Err(Problem::exhausted(answer));
        }
    };
    Ok((status, Json(answer)).into_response())
}

#[utoipa::path(put, path = "/attempts/{attempt}/usage", summary = "Reports cumulative usage, and gets a lease.", params(("attempt" = Uuid, Path, description = "a UUIDv7")), request_body = Report, responses((status = 200, description = "What to do.", body = ReportAnswer), Refusals))]
async fn report(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(attempt): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    caller.may_report()?;
    let report: Report = bounds::json(&body)?;
    same(attempt_id(&attempt)?, report.attempt)?;
    bounds::report(&report)?;
    match app.poster.ask(Work::Report(Box::new(report)), caller.only()).await? {
        Outcome::Reported(answer) => {
            app.metrics.reported();
            Ok(Json(answer).into_response())
        }
        _ => Err(LedgerError::unasked().into()),
    }
}

#[utoipa::path(post, path = "/attempts/{attempt}/finish", summary = "Says the final usage and how it ended.", params(("attempt" = Uuid, Path, description = "a UUIDv7")), request_body = Finish, responses((status = 200, description = "What was charged.", body = FinishAnswer), Refusals))]
async fn finish(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(attempt): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    caller.may_report()?;
    let finish: Finish = bounds::json(&body)?;
    same(attempt_id(&attempt)?, finish.attempt)?;
    bounds::finish(&finish)?;
    match app.poster.ask(Work::Finish(Box::new(finish)), caller.only()).await? {
        Outcome::Finished(answer) => Ok(Json(answer).into_response()),
        _ => Err(LedgerError::unasked().into()),
    }
}

/// Makes a change.
pub(super) async fn change(app: &App, caller: &Caller, change: Change) -> Result<Json<ChangeAnswer>, Problem> {
    match app.poster.ask(Work::Change(Box::new(change)), caller.only()).await? {
        Outcome::Changed(answer) => Ok(Json(answer)),
        _ => Err(LedgerError::unasked().into()),
    }
}

/// What makes a repeat harmless. Keys for different things do not meet: `of` is what it is for.
pub(super) fn idempotency_key(headers: &HeaderMap, of: &str) -> Result<String, Problem> {
    let missing = || Problem::malformed("the header Idempotency-Key is missing: give each request one of its own");
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).ok_or_else(missing)?;
    bounds::name("Idempotency-Key", key)?;
    Ok(format!("{of}: {key}"))
}

/// How many.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Tokens {
    count: u64,
}

#[utoipa::path(post, path = "/jobs/{job}/tokens", summary = "Charges tokens to a job.", params(("job" = String, Path, description = "its id"), ("idempotency-key" = String, Header, description = "makes a repeat harmless")), request_body = Tokens, responses((status = 200, description = "What was charged.", body = ChangeAnswer), Refusals))]
async fn tokens(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(job): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<ChangeAnswer>, Problem> {
    caller.may_report()?;
    let Tokens { count } = bounds::json(&body)?;
    bounds::tokens(count)?;
    let key = idempotency_key(&headers, &format!("tokens of {job}"))?;
    change(&app, &caller, Change::ChargeTokens { job, count, by: caller.name(), key }).await
}
