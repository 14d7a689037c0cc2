//! What operators change.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, IntoResponses, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{attempt_id, change, idempotency_key, try_change};
use super::auth::Caller;
use super::if_match::IfMatch;
use super::named_job::{NamedJob, OfJob};
use super::problem::{Problem, Refusals};
use super::reads::newest_rates;
use super::sent::{self, Sent};
use super::{App, bounds};
use crate::domain::rating::RateCard;
use crate::domain::units::Nanocredits;
use crate::domain::usage::Usage;
use crate::ledger::LedgerError;
use crate::ledger::keys::{Scope, Secret};
use crate::ledger::settings::LedgerSettings;
use crate::ledger::views::{self, Change, ChangeAnswer, LimitSince, PeriodLength};

type Answered = Result<Json<ChangeAnswer>, Problem>;

/// Its routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(stop))
        .routes(routes!(limit))
        .routes(routes!(suspend))
        .routes(routes!(resume))
        .routes(routes!(repair))
        .routes(routes!(grant))
        .routes(routes!(revoke_grant))
        .routes(routes!(adjust))
        .routes(routes!(settle))
        .routes(routes!(rates))
        .routes(routes!(settings))
        .routes(routes!(create_key))
        .routes(routes!(revoke_key))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Why {
    why: String,
}

#[utoipa::path(post, path = "/jobs/{job}/stop", summary = "Stops all tasks of a job.", params(("job" = String, Path, description = "its id"), OfJob), request_body = Why, responses((status = 200, description = "Done.", body = ChangeAnswer), Refusals))]
async fn stop(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamedJob(job): NamedJob,
    body: Sent<{ sent::CHANGE }>,
) -> Answered {
    // Whoever may run a job may stop it, and the books know whose it is.
    caller.may_report()?;
    let Why { why } = bounds::json(&body)?;
    bounds::text("why", &why)?;
    change(&app, &caller, Change::StopJob { job, by: caller.name(), why }).await
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Limit {
    /// `null` for none.
    limit: Option<Nanocredits>,
    #[serde(default)]
    period: PeriodLength,
    /// Where it is not said: at once if it rises or nothing was spent yet, else from the next period on.
    since: Option<LimitSince>,
    /// Whether what a period's allowance leaves is kept in a grant; as it was where it is not said.
    carry_over: Option<bool>,
    #[serde(default)]
    why: String,
}

#[utoipa::path(put, path = "/users/{user}/limit", summary = "Sets the limit of a period.", params(("user" = String, Path, description = "a name")), request_body = Limit, responses((status = 200, description = "Done.", body = ChangeAnswer), Refusals))]
async fn limit(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    body: Sent<{ sent::CHANGE }>,
) -> Answered {
    caller.may_administer()?;
    let Limit { limit, period, since, carry_over, why } = bounds::json(&body)?;
    bounds::name("user", &user)?;
    bounds::text("why", &why)?;
    bounds::amount("limit", limit.unwrap_or_default())?;
    change(&app, &caller, Change::SetLimit { user, limit, period, since, carry_over, by: caller.name(), why }).await
}

#[utoipa::path(post, path = "/users/{user}/suspend", summary = "Nothing of the account starts, and what runs stops, until it is resumed.", params(("user" = String, Path, description = "a name")), request_body = Why, responses((status = 200, description = "Done.", body = ChangeAnswer), Refusals))]
async fn suspend(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    body: Sent<{ sent::CHANGE }>,
) -> Answered {
    let why = why_of(&caller, &user, &body)?;
    change(&app, &caller, Change::Suspend { user, by: caller.name(), why }).await
}

#[utoipa::path(post, path = "/users/{user}/resume", summary = "Ends a suspension.", params(("user" = String, Path, description = "a name")), request_body = Why, responses((status = 200, description = "Done.", body = ChangeAnswer), Refusals))]
async fn resume(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    body: Sent<{ sent::CHANGE }>,
) -> Answered {
    let why = why_of(&caller, &user, &body)?;
    change(&app, &caller, Change::Resume { user, by: caller.name(), why }).await
}

#[utoipa::path(post, path = "/users/{user}/repair", summary = "Puts an account back into the period of now, after a clock was years ahead.", params(("user" = String, Path, description = "a name")), request_body = Why, responses((status = 200, description = "Done.", body = ChangeAnswer), Refusals))]
async fn repair(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    body: Sent<{ sent::CHANGE }>,
) -> Answered {
    let why = why_of(&caller, &user, &body)?;
    change(&app, &caller, Change::RepairPeriod { user, by: caller.name(), why }).await
}

#[utoipa::path(post, path = "/users/{user}/grants/{grant}/revoke", summary = "Ends what is free of a grant; what jobs hold of it stays good.", params(("user" = String, Path, description = "a name"), ("grant" = i64, Path, description = "its number")), request_body = Why, responses((status = 200, description = "Done.", body = ChangeAnswer), Refusals))]
async fn revoke_grant(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((user, grant)): Path<(String, String)>,
    body: Sent<{ sent::CHANGE }>,
) -> Answered {
    let why = why_of(&caller, &user, &body)?;
    let grant =
        grant.parse().map_err(|_| Problem::malformed(format!("invalid grant {grant:?}: expected its number")))?;
    change(&app, &caller, Change::RevokeGrant { user, grant, by: caller.name(), why }).await
}

/// Of a change to an account that the caller may make.
fn why_of(caller: &Caller, user: &str, body: &[u8]) -> Result<String, Problem> {
    caller.may_administer()?;
    let Why { why } = bounds::json(body)?;
    bounds::name("user", user)?;
    bounds::text("why", &why)?;
    Ok(why)
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Grant {
    amount: Nanocredits,
    /// Seconds since 1970.
    expires_at: Option<i64>,
    why: String,
}

#[utoipa::path(post, path = "/users/{user}/grants", summary = "Gives extra credits.", params(("user" = String, Path, description = "a name"), ("idempotency-key" = String, Header, description = "makes a repeat harmless")), request_body = Grant, responses((status = 200, description = "Done.", body = ChangeAnswer), Refusals))]
async fn grant(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    headers: HeaderMap,
    body: Sent<{ sent::CHANGE }>,
) -> Answered {
    caller.may_administer()?;
    let Grant { amount, expires_at, why } = bounds::json(&body)?;
    bounds::name("user", &user)?;
    bounds::text("why", &why)?;
    bounds::amount("amount", amount)?;
    let (by, key) = (caller.name(), idempotency_key(&headers, &format!("grant for {user}"))?);
    change(&app, &caller, Change::Grant { user, amount, expires_at, by, why, key }).await
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Adjustment {
    /// Above zero a grant, below zero taken of what is free; the rest of that is owed.
    amount: Nanocredits,
    /// Take of this grant alone.
    grant: Option<i64>,
    /// Of what is given, in seconds since 1970; the period's end where it is not said.
    expires_at: Option<i64>,
    why: String,
}

#[utoipa::path(post, path = "/users/{user}/adjustments", summary = "Corrects a balance.", params(("user" = String, Path, description = "a name"), ("idempotency-key" = String, Header, description = "makes a repeat harmless")), request_body = Adjustment, responses((status = 200, description = "Done.", body = ChangeAnswer), Refusals))]
async fn adjust(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    headers: HeaderMap,
    body: Sent<{ sent::CHANGE }>,
) -> Answered {
    caller.may_administer()?;
    let Adjustment { amount, grant, expires_at, why } = bounds::json(&body)?;
    bounds::name("user", &user)?;
    bounds::text("why", &why)?;
    bounds::amount("amount", amount)?;
    let (by, key) = (caller.name(), idempotency_key(&headers, &format!("correction of {user}"))?);
    change(&app, &caller, Change::Adjust { user, amount, grant, expires_at, by, why, key }).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Settle {
    /// `null`: all that it holds.
    usage: Option<Usage>,
    why: String,
}

#[utoipa::path(post, path = "/attempts/{attempt}/settle", summary = "Settles an attempt that fell silent.", params(("attempt" = Uuid, Path, description = "a UUIDv7")), request_body = Settle, responses((status = 200, description = "Done.", body = ChangeAnswer), Refusals))]
async fn settle(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(attempt): Path<String>,
    body: Sent<{ sent::USAGE }>,
) -> Answered {
    caller.may_administer()?;
    let Settle { usage, why } = bounds::json(&body)?;
    bounds::text("why", &why)?;
    usage.as_ref().map_or(Ok(()), bounds::usage)?;
    let attempt = attempt_id(&attempt)?;
    change(&app, &caller, Change::Settle { attempt, usage, by: caller.name(), why }).await
}

/// The header that names a version, for the OpenAPI document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it only describes a header")]
struct OfVersion {
    /// The `ETag` of `GET /rates`: the version that this changes, which has to be the newest. Without it the body says which one.
    #[param(rename = "if-match", example = "\"3\"", nullable = false)]
    if_match: Option<String>,
}

/// What else is answered to who changes the rate card.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it only describes answers")]
enum RatesRefusals {
    /// `If-Match` cannot be read.
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(Problem),
    /// `If-Match` names another version than the newest: look at that, and make the change again.
    #[response(status = 412, content_type = "application/problem+json")]
    Outdated(Problem),
}

#[utoipa::path(put, path = "/rates", summary = "Makes a new version of the rate card, out of the newest one, whose version If-Match or the body names. The same card again makes none.", params(OfVersion), request_body = RateCard, responses((status = 200, description = "Done.", body = ChangeAnswer), RatesRefusals, Refusals))]
async fn rates(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    body: Sent<{ sent::RATES }>,
) -> Answered {
    caller.may_administer()?;
    let mut rates: RateCard = bounds::json(&body)?;
    bounds::rates(&rates)?;
    let seen = IfMatch::of(&headers)?;
    let outdated = |error: LedgerError| Problem::precondition_failed(error.to_string());
    let names_some = matches!(seen, IfMatch::Tags(_));
    if names_some {
        let newest = newest_rates(&app).await?.rates.version;
        if !seen.names(newest) {
            return Err(outdated(LedgerError::outdated_rates(newest, seen)));
        }
        rates.version = newest;
    }
    match try_change(&app, &caller, Change::SetRates { rates, by: caller.name() }).await {
        Ok(answer) => Ok(Json(answer)),
        Err(error @ LedgerError::Outdated(_)) if names_some => Err(outdated(error)),
        Err(error) => Err(error.into()),
    }
}

#[utoipa::path(put, path = "/ledger/settings", summary = "Sets what holds for the ledger as a whole; version in the body names what this changes, which has to be the newest.", request_body = LedgerSettings, responses((status = 200, description = "Done.", body = ChangeAnswer), Refusals))]
async fn settings(State(app): State<Arc<App>>, caller: Caller, body: Sent<{ sent::CHANGE }>) -> Answered {
    caller.may_administer()?;
    let settings: LedgerSettings = bounds::json(&body)?;
    settings.check().map_err(|error| Problem::malformed(error.to_string()))?;
    change(&app, &caller, Change::SetSettings { settings, by: caller.name() }).await
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewKey {
    name: String,
    scope: Scope,
    /// Whose account alone.
    user: Option<String>,
    /// The node, cluster or service that it works for; its name where it is not said.
    principal: Option<String>,
    /// Until when it is good, in seconds since 1970; for ever where it is not said.
    expires_at: Option<i64>,
}

/// The only answer that ever holds the key itself.
#[derive(Serialize, ToSchema)]
struct MadeKey {
    /// Names it.
    id: String,
    /// The key.
    key: String,
}

/// Makes a key.
#[utoipa::path(post, path = "/keys", summary = "Makes a key, which is told this once.", request_body = NewKey, responses((status = 201, description = "The key.", body = MadeKey), Refusals))]
async fn create_key(
    State(app): State<Arc<App>>,
    caller: Caller,
    body: Sent<{ sent::CHANGE }>,
) -> Result<Response, Problem> {
    caller.may_administer()?;
    let NewKey { name, scope, user, principal, expires_at } = bounds::json(&body)?;
    let new = views::NewKey { name, scope, user, principal, expires_at, by: caller.name() };
    let secret = make_key(&app, &caller, new).await?;
    let (id, key) = (secret.id().to_owned(), secret.text().to_owned());
    Ok((StatusCode::CREATED, Json(MadeKey { id, key })).into_response())
}

/// A key that the books know from now on, by its hash. Whether the caller may have one made was asked before.
pub(super) async fn make_key(app: &App, caller: &Caller, key: views::NewKey) -> Result<Secret, Problem> {
    bounds::name("name", &key.name)?;
    key.user.as_deref().map_or(Ok(()), |user| bounds::name("user", user))?;
    key.principal.as_deref().map_or(Ok(()), bounds::principal)?;
    key.expires_at.map_or(Ok(()), |at_s| bounds::at("expiresAt", at_s))?;
    let secret = Secret::new();
    let (id, hash) = (secret.id().to_owned(), secret.hash());
    let Json(_) = change(app, caller, Change::CreateKey { id, hash, key }).await?;
    Ok(secret)
}

#[utoipa::path(delete, path = "/keys/{id}", summary = "Makes a key invalid, within a second.", params(("id" = String, Path, description = "its id")), responses((status = 200, description = "Done.", body = ChangeAnswer), Refusals))]
async fn revoke_key(State(app): State<Arc<App>>, caller: Caller, Path(id): Path<String>) -> Answered {
    caller.may_administer()?;
    change(&app, &caller, Change::RevokeKey { id, by: caller.name() }).await
}
