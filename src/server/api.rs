//! What sidecars and the assistant's backend say: attempts and tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query as Parameters, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::auth::Caller;
use super::later::later;
use super::named_job::{NamedJob, OfJob};
use super::posting::Work;
use super::problem::{Problem, Refusals};
use super::sent::{self, Sent};
use super::{App, bounds};
use crate::ledger::LedgerError;
use crate::ledger::attempt_secret::{self, AttemptSecret};
use crate::ledger::book::Outcome;
use crate::ledger::job_name::JobName;
use crate::ledger::protocol::{Finish, FinishAnswer, OpenAnswer, OpenRequest, Report, ReportAnswer};
use crate::ledger::views::{Change, ChangeAnswer, RESERVED_MS};
use crate::sys::clock::{Clock, SystemClock};

/// Its routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(open))
        .routes(routes!(report))
        .routes(routes!(finish))
        .routes(routes!(attempt_stopped))
        .routes(routes!(tokens))
}

pub(super) fn attempt_id(text: &str) -> Result<Uuid, Problem> {
    text.parse().map_err(|_| Problem::malformed(format!("{text:?} is no UUID of an attempt")))
}

/// The header with the attempt's secret, for the OpenAPI document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it only describes a header")]
struct Shown {
    /// Digits that the sidecar makes up for the attempt. Once they were shown, each request about it has to show them.
    #[param(rename = "jobmeter-attempt-secret", pattern = "^[0-9a-f]{64}$", nullable = false)]
    secret: Option<String>,
}

/// The attempt's secret, where one is shown. What cannot be read is refused, and not repeated.
fn secret(headers: &HeaderMap) -> Result<Option<AttemptSecret>, Problem> {
    let shown: Vec<_> = headers.get_all(attempt_secret::HEADER).iter().collect();
    let read = match shown[..] {
        [] => return Ok(None),
        [value] => value.to_str().ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    let malformed = || Problem::malformed("the header Jobmeter-Attempt-Secret must be 64 hexadecimal digits, once");
    read.map(Some).ok_or_else(malformed)
}

fn same(path: Uuid, body: Uuid) -> Result<(), Problem> {
    if path == body { Ok(()) } else { Err(Problem::malformed("the body names another attempt than the path")) }
}

#[utoipa::path(put, path = "/attempts/{attempt}", summary = "Opens an attempt of a job, with its first lease.", params(("attempt" = Uuid, Path, description = "a UUIDv7"), Shown), request_body = OpenRequest, responses((status = 201, description = "It may start.", body = OpenAnswer), (status = 200, description = "It was open already.", body = OpenAnswer), (status = 202, description = "Ask again: the ledger was restored.", body = OpenAnswer), (status = 402, description = "No credits: the answer says why.", body = Problem), Refusals))]
async fn open(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(attempt): Path<String>,
    headers: HeaderMap,
    body: Sent<{ sent::OPENING }>,
) -> Result<Response, Problem> {
    caller.may_report()?;
    let request = OpenRequest { secret: secret(&headers)?, ..bounds::json(&body)? };
    same(attempt_id(&attempt)?, request.identity.attempt)?;
    bounds::open(&request)?;
    caller.may_see(&request.identity.user)?;
    let asker = caller.asker();
    if request.resume.is_none() {
        app.taken.may_open(&app.pools.sessions, &asker, request.identity.attempt, body.len()).await?;
    }
    let Outcome::Opened(answer) = app.poster.ask(Work::Open(Box::new(request)), asker).await? else {
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

#[utoipa::path(put, path = "/attempts/{attempt}/usage", summary = "Reports cumulative usage, and gets a lease. One that has to wait is answered when something becomes free, after two seconds at most.", params(("attempt" = Uuid, Path, description = "a UUIDv7"), Shown), request_body = Report, responses((status = 200, description = "What to do.", body = ReportAnswer), Refusals))]
async fn report(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(attempt): Path<String>,
    headers: HeaderMap,
    body: Sent<{ sent::USAGE }>,
) -> Result<Response, Problem> {
    caller.may_report()?;
    let report = Report { secret: secret(&headers)?, ..bounds::json(&body)? };
    same(attempt_id(&attempt)?, report.attempt)?;
    bounds::report(&report)?;
    let answer = super::waiting::report(&app, &report, &caller).await?;
    app.metrics.reported();
    Ok(Json(answer).into_response())
}

#[utoipa::path(post, path = "/attempts/{attempt}/finish", summary = "Says the final usage and how it ended.", params(("attempt" = Uuid, Path, description = "a UUIDv7"), Shown), request_body = Finish, responses((status = 200, description = "What was charged.", body = FinishAnswer), Refusals))]
async fn finish(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(attempt): Path<String>,
    headers: HeaderMap,
    body: Sent<{ sent::LAST_WORD }>,
) -> Result<Response, Problem> {
    caller.may_report()?;
    let finish = Finish { secret: secret(&headers)?, ..bounds::json(&body)? };
    same(attempt_id(&attempt)?, finish.attempt)?;
    let finish = bounds::finish(finish)?;
    let asker = caller.asker();
    match app.poster.ask(Work::Finish(Box::new(finish.clone())), asker.clone()).await? {
        Outcome::Finished(answer) => {
            app.taken.keep(&asker.principal, finish.receipt.as_str().len(), SystemClock.boottime_us());
            app.metrics.ended(&finish, &answer);
            Ok(Json(answer).into_response())
        }
        _ => Err(LedgerError::unasked().into()),
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Kept {
    /// How long the question may be kept, in ms: 55000 at most.
    #[serde(default)]
    wait_ms: u64,
}

#[utoipa::path(get, path = "/attempts/{attempt}/stopped", summary = "Whether an operator stopped the job of an attempt. Kept until it is so, for waitMs at most.", params(("attempt" = Uuid, Path, description = "a UUIDv7"), Kept), responses((status = 200, description = "True where it was.", body = bool), Refusals))]
async fn attempt_stopped(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(attempt): Path<String>,
    kept: Result<Parameters<Kept>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    caller.may_report()?;
    let attempt = attempt_id(&attempt)?;
    let Parameters(Kept { wait_ms }) = kept.map_err(|error| Problem::malformed(error.body_text()))?;
    bounds::kept_ms(wait_ms)?;
    // Asked before it is looked at, so that no stop falls in between.
    let mut told = app.stops.ask(attempt);
    let found = app.stops.find(&app.pools.stops, attempt).await?;
    // To who may not see it, an attempt is as unknown as one that there is not: it goes on.
    let found = found.filter(|stop| caller.asker().may_go_on_with(&stop.owner, &stop.principal));
    let (is_known, is_stopped) = (found.is_some(), found.is_some_and(|stop| stop.is_stopped));
    if is_stopped || wait_ms == 0 {
        return Ok(Json(is_stopped).into_response());
    }
    let (mut stopping, mut inside) = (app.stopping.clone(), app.doors.enter(caller.door()));
    Ok(later(async move {
        tokio::select! {
            is_told = told.wait_for(|stopped| *stopped), if is_known => is_told.is_ok(),
            // It asks anew, and is told that its key has ended.
            () = inside.ended() => false,
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => false,
            _ = stopping.wait_for(|stopped| *stopped) => false,
        }
    }))
}

/// Makes a change.
pub(super) async fn change(app: &App, caller: &Caller, change: Change) -> Result<Json<ChangeAnswer>, Problem> {
    Ok(Json(try_change(app, caller, change).await?))
}

/// The same, for who has to know why it failed.
pub(super) async fn try_change(app: &App, caller: &Caller, change: Change) -> Result<ChangeAnswer, LedgerError> {
    let stops = matches!(change, Change::StopJob { .. } | Change::Suspend { .. });
    let outcome = app.poster.ask(Work::Change(Box::new(change)), caller.asker()).await?;
    if stops {
        app.stops.look();
    }
    match outcome {
        Outcome::Changed(answer) => Ok(answer),
        _ => Err(LedgerError::unasked()),
    }
}

/// What makes a repeat harmless. Keys for different things do not meet: `of` is what it is for.
pub(super) fn idempotency_key(headers: &HeaderMap, of: &str) -> Result<String, Problem> {
    let missing = || Problem::malformed("the header Idempotency-Key is missing: give each request one of its own");
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).ok_or_else(missing)?;
    bounds::name("Idempotency-Key", key)?;
    Ok(format!("{of}: {key}"))
}

/// One of three: `count` alone charges; `reserve` sets aside the most that a turn may cost, until it is settled or its time
/// is over; `reservation` and `count` settle.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Tokens {
    /// How many were used.
    count: Option<u64>,
    /// How many may be used at most.
    reserve: Option<u64>,
    /// How long that is reserved for, in ms: a day at most, a quarter of an hour where nothing is said.
    lasts_ms: Option<u64>,
    /// What was reserved.
    reservation: Option<Uuid>,
}

impl Tokens {
    fn change(self, job: JobName, by: String, key: String) -> Result<Change, Problem> {
        match self {
            Self { count: Some(count), reserve: None, lasts_ms: None, reservation } => {
                bounds::tokens("count", count)?;
                Ok(match reservation {
                    Some(reservation) => Change::SettleTokens { job, reservation, count, by, key },
                    None => Change::ChargeTokens { job, count, by, key },
                })
            }
            Self { count: None, reserve: Some(count), lasts_ms, reservation: None } => {
                bounds::tokens("reserve", count)?;
                let lasts_ms = lasts_ms.unwrap_or(RESERVED_MS);
                bounds::reserved_ms(lasts_ms)?;
                Ok(Change::ReserveTokens { job, count, lasts_ms, new_id: Uuid::now_v7(), by, key })
            }
            _ => Err(Problem::malformed("say count, or reserve and if need be lastsMs, or reservation and count")),
        }
    }
}

#[utoipa::path(post, path = "/jobs/{job}/tokens", summary = "Charges, reserves or settles tokens of a job.", params(("job" = String, Path, description = "its id"), OfJob, ("idempotency-key" = String, Header, description = "makes a repeat harmless")), request_body = Tokens, responses((status = 200, description = "What was charged or reserved.", body = ChangeAnswer), (status = 402, description = "Too few credits to reserve: the answer says why.", body = Problem), Refusals))]
async fn tokens(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamedJob(job): NamedJob,
    headers: HeaderMap,
    body: Sent<{ sent::CHANGE }>,
) -> Result<Json<ChangeAnswer>, Problem> {
    caller.may_report()?;
    let tokens: Tokens = bounds::json(&body)?;
    let key = idempotency_key(&headers, &format!("tokens of {}", job.id))?;
    let asker = caller.asker();
    if tokens.reserve.is_some() {
        app.taken.may_reserve(&app.pools.sessions, &asker).await?;
    }
    app.taken.keep(&asker.principal, 0, SystemClock.boottime_us());
    let answer = change(&app, &caller, tokens.change(job, caller.name(), key)?).await?;
    if answer.refused.is_some() {
        return Err(Problem::exhausted(serde_json::to_value(&*answer).unwrap_or_default()));
    }
    Ok(answer)
}
