//! What people and programs read.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Path, Query as Parameters, State};
use axum::http::header::{CONTENT_TYPE, ETAG, LINK};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::if_match::etag;
use super::named_job::{NamedJob, OfJob};
use super::problem::{Problem, Refusals};
use super::{App, bounds, usage_of_each};
use crate::ledger::LedgerError;
use crate::ledger::job_name::JobName;
use crate::ledger::keys::KeyView;
use crate::ledger::protocol::JobKind;
use crate::ledger::store::StoreLedger;
use crate::ledger::usage_range::UsageRange;
use crate::ledger::views::{
    AccountView, EntryView, JobView, PeriodLength, Query, RatesView, SettingsView, USAGE_ROWS_MAX, UsageRow,
    Verification, View, Whose,
};
use crate::sys::clock::{Clock, SystemClock};

/// Its routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(jobs))
        .routes(routes!(job))
        .routes(routes!(stopped))
        .routes(routes!(credits))
        .routes(routes!(usage))
        .routes(routes!(usage_of_all))
        .routes(routes!(entries))
        .routes(routes!(rates))
        .routes(routes!(settings))
        .routes(routes!(keys))
        .routes(routes!(verify))
}

/// Outside the API: for whoever looks after the service.
pub(super) fn health() -> Router<Arc<App>> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// Ready is who can commit, to the books that this service has served. To strangers nothing is told of why not.
async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    let readiness = app.readiness.ask(SystemClock.boottime_us(), || async {
        let epoch = app.pools.session_writer.with(StoreLedger::commit_clock).await?;
        same_books(app.epoch.fetch_max(epoch, Ordering::Relaxed), epoch)
    });
    match readiness.await {
        Ok(()) => Ok("ready\n"),
        Err(why) => {
            tracing::warn!(%why, "Not ready.");
            Err(LedgerError::Unavailable("not ready: the log says why".to_owned()).into())
        }
    }
}

/// Restores and fail-overs count epochs up. Where one is told that is older than the one before, another database answers: one that was
/// the ledger once, or a copy.
fn same_books(served: u64, epoch: u64) -> Result<(), LedgerError> {
    if epoch >= served {
        return Ok(());
    }
    Err(LedgerError::Unavailable(format!(
        "the database is in the epoch {epoch} of the ledger, and this service has served the epoch {served}: another one took its place, or a \
         copy was put back without `jobmeter ledger restore`"
    )))
}

/// What this process counted is told to everybody, whatever becomes of the books; figures of accounts to a key that sees
/// all of them.
async fn metrics(State(app): State<Arc<App>>, caller: Result<Caller, Problem>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let sees_accounts = caller.is_ok_and(|caller| caller.may_see_all().is_ok());
    let found = app.figures.ask(SystemClock.boottime_us(), || async {
        let View::Figures(figures) = app.pools.read(Query::Figures).await? else { return Ok(Arc::default()) };
        Ok(Arc::from(figures))
    });
    let figures = match found.await {
        Ok(figures) => super::figures::text(&figures, sees_accounts),
        Err(why) => {
            tracing::warn!(%why, "The figures of the books cannot be read.");
            String::new()
        }
    };
    ([(CONTENT_TYPE, kind)], app.metrics.text(&figures)).into_response()
}

fn unasked() -> Problem {
    LedgerError::unasked().into()
}

/// A page of jobs.
#[derive(Serialize, ToSchema)]
struct JobsFound {
    jobs: Vec<JobView>,
    /// For the next page; `null` where there is none.
    cursor: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct JobsPage {
    user: Option<String>,
    kind: Option<JobKind>,
    #[serde(default)]
    running: bool,
    count: Option<u32>,
    before: Option<String>,
}

#[utoipa::path(get, path = "/jobs", summary = "Jobs, the newest first.", params(JobsPage), responses((status = 200, description = "A page, and the cursor of the next.", body = JobsFound), (status = 400, description = "`before` came with no page of these jobs.", body = Problem, content_type = "application/problem+json"), Refusals))]
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
    let query = Query::Jobs { user, kind: page.kind, running_only: page.running, count_max, before: page.before };
    let (jobs, cursor) = page_of_jobs(&app, query).await?;
    Ok(Json(serde_json::json!({ "jobs": jobs, "cursor": cursor })).into_response())
}

/// A page of jobs, and the cursor of the next. What a page was asked for by is missing only where it is no cursor: it tells of no
/// job whether it is there.
pub(super) async fn page_of_jobs(app: &App, query: Query) -> Result<(Vec<JobView>, Option<String>), Problem> {
    match app.pools.read(query).await {
        Ok(View::Jobs { jobs, cursor }) => Ok((jobs, cursor)),
        Err(LedgerError::Missing(why)) => Err(Problem::bad_request(why)),
        Err(error) => Err(error.into()),
        Ok(_) => Err(unasked()),
    }
}

#[utoipa::path(get, path = "/jobs/{job}", summary = "One job with its attempts and receipts.", params(("job" = String, Path, description = "its id"), OfJob), responses((status = 200, description = "The job.", body = JobView), Refusals))]
async fn job(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamedJob(job): NamedJob,
) -> Result<Json<Box<JobView>>, Problem> {
    Ok(Json(job_for(&app, &caller, job).await?))
}

/// The job that a name means among those that the caller may see: of others neither an id nor the beginning of one tells anything.
pub(super) async fn job_for(app: &Arc<App>, caller: &Caller, job: JobName) -> Result<Box<JobView>, Problem> {
    let job = seen_by(caller, job)?;
    let missing = Problem::missing(job.missing());
    match app.pools.read(Query::Job { job }).await? {
        View::Job(Some(found)) => Ok(found),
        _ => Err(missing),
    }
}

/// A job's name among those that the caller may see.
fn seen_by(caller: &Caller, job: JobName) -> Result<JobName, Problem> {
    match caller.only() {
        Some(own) => job.clone().of_user(&own).ok_or_else(|| Problem::missing(job.missing())),
        None => Ok(job),
    }
}

/// Whether an operator stopped it: a sidecar asks between two reports, of a job that its key may see.
#[utoipa::path(get, path = "/jobs/{job}/stopped", summary = "Whether an operator stopped it.", params(("job" = String, Path, description = "its id"), OfJob), responses((status = 200, description = "Whether.", body = bool), Refusals))]
async fn stopped(State(app): State<Arc<App>>, caller: Caller, NamedJob(job): NamedJob) -> Result<Json<bool>, Problem> {
    caller.may_report()?;
    let (job, first) = (seen_by(&caller, job)?, Some(caller.asker().principal));
    match app.pools.read(Query::Stopped { job, first }).await? {
        View::Stopped(stopped) => Ok(Json(stopped)),
        _ => Err(unasked()),
    }
}

#[utoipa::path(get, path = "/users/{user}/credits", summary = "An account in its current period.", params(("user" = String, Path, description = "a name")), responses((status = 200, description = "The account.", body = AccountView), Refusals))]
async fn credits(State(app): State<Arc<App>>, caller: Caller, Path(user): Path<String>) -> Result<Response, Problem> {
    caller.may_see(&user)?;
    bounds::name("user", &user)?;
    match app.pools.read(Query::Account { user }).await? {
        View::Account(account) => Ok(Json(account).into_response()),
        _ => Err(unasked()),
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct UsageOf {
    /// The days of this one: `YYYY-MM`.
    month: Option<String>,
    /// The first day: `YYYY-MM-DD`, or a time of RFC 3339 within it; UTC.
    from: Option<String>,
    /// The day after the last one.
    to: Option<String>,
    /// The length of a row: days of what is asked for, or else months.
    by: Option<PeriodLength>,
}

#[utoipa::path(get, path = "/users/{user}/usage", summary = "Usage by day or by month.", params(("user" = String, Path, description = "a name"), UsageOf), responses((status = 200, description = "Oldest first.", body = Vec<UsageRow>), Refusals))]
async fn usage(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    of: Result<Parameters<UsageOf>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    caller.may_see(&user)?;
    let Parameters(UsageOf { month, from, to, by }) = of.map_err(|error| Problem::malformed(error.body_text()))?;
    let range = UsageRange::new(month.as_deref(), from.as_deref(), to.as_deref(), by).map_err(Problem::malformed)?;
    Ok(Json(usage_of_each::together(&app.pools, Whose::User(user), range).await?).into_response())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct UsageOfAll {
    /// As of one account.
    month: Option<String>,
    /// As of one account.
    from: Option<String>,
    /// As of one account.
    to: Option<String>,
    /// As of one account.
    by: Option<PeriodLength>,
    /// Rows of each account, one account after the other, and not of all together.
    #[serde(default)]
    each: bool,
    /// With each: a page of so many rows, 1000 at most; all of them where it is not said.
    count: Option<u32>,
    /// With each: the page that the header `Link` of the one before names.
    after: Option<String>,
}

#[utoipa::path(get, path = "/usage", summary = "Usage of all accounts by day or by month.", params(UsageOfAll), responses((status = 200, description = "Oldest first.", body = Vec<UsageRow>, headers(("link" = String, description = "of a page of each account: the next one, as rel=next"))), Refusals))]
async fn usage_of_all(
    State(app): State<Arc<App>>,
    caller: Caller,
    of: Result<Parameters<UsageOfAll>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    caller.may_see_all()?;
    let Parameters(of) = of.map_err(|error| Problem::malformed(error.body_text()))?;
    let UsageOfAll { month, from, to, by, each, count, after } = &of;
    let range = UsageRange::new(month.as_deref(), from.as_deref(), to.as_deref(), *by).map_err(Problem::malformed)?;
    match (each, count.is_some() || after.is_some()) {
        (false, true) => Err(Problem::malformed("count and after are for each=true")),
        (false, false) => Ok(Json(usage_of_each::together(&app.pools, Whose::All, range).await?).into_response()),
        (true, true) => page_of_usage(&app, &of, range).await,
        (true, false) => {
            let body = usage_of_each::json(usage_of_each::pages(app.pools.clone(), range).await?);
            Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
        }
    }
}

/// One page of it, with a link to the next.
async fn page_of_usage(app: &App, of: &UsageOfAll, range: UsageRange) -> Result<Response, Problem> {
    let count = of.count.unwrap_or(USAGE_ROWS_MAX);
    let found = usage_of_each::page(&app.pools, range, of.after.clone(), count).await;
    let (rows, next) = found.map_err(|error| match error {
        LedgerError::Missing(why) => Problem::bad_request(why),
        error => error.into(),
    })?;
    let link = next.and_then(|next| {
        let count = count.to_string();
        usage_of_each::link(&[
            ("each", Some("true")),
            ("month", of.month.as_deref()),
            ("from", of.from.as_deref()),
            ("to", of.to.as_deref()),
            ("by", of.by.map(PeriodLength::as_str)),
            ("count", Some(&count)),
            ("after", Some(&next)),
        ])
    });
    Ok((AppendHeaders(link.map(|link| (LINK, link))), Json(rows)).into_response())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EntriesOf {
    /// 20 where it is not said, and 1000 at most.
    count: Option<u32>,
    /// Those before the one of this id.
    before: Option<i64>,
}

#[utoipa::path(get, path = "/users/{user}/entries", summary = "Entries of an account.", params(("user" = String, Path, description = "a name"), EntriesOf), responses((status = 200, description = "The newest first.", body = Vec<EntryView>), Refusals))]
async fn entries(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(user): Path<String>,
    of: Result<Parameters<EntriesOf>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    caller.may_see(&user)?;
    let Parameters(of) = of.map_err(|error| Problem::malformed(error.body_text()))?;
    match app.pools.read(Query::Entries { user, count_max: of.count.unwrap_or(20), before: of.before }).await? {
        View::Entries(entries) => Ok(Json(entries).into_response()),
        _ => Err(unasked()),
    }
}

#[utoipa::path(get, path = "/rates", summary = "All versions of the rate card.", responses((status = 200, description = "The newest first.", body = Vec<RatesView>, headers(("etag" = String, description = "the newest version in quotes, for the If-Match of who changes it"))), Refusals))]
async fn rates(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Problem> {
    let mut versions = rate_cards(&app).await?;
    if caller.only().is_some() {
        // The keys of administrators are no user's business.
        for version in &mut versions {
            "an administrator".clone_into(&mut version.by);
        }
    }
    let tag = versions.first().map(|newest| etag(newest.rates.version));
    Ok((AppendHeaders(tag.map(|tag| (ETAG, tag))), Json(versions)).into_response())
}

/// All versions of the rate card, the newest first.
async fn rate_cards(app: &App) -> Result<Vec<RatesView>, Problem> {
    match app.pools.read(Query::Rates).await? {
        View::Rates(versions) => Ok(versions),
        _ => Err(unasked()),
    }
}

/// The rate card that counts for what starts now.
pub(super) async fn newest_rates(app: &App) -> Result<RatesView, Problem> {
    // The first one is there before anybody has set one.
    let missing = || LedgerError::Broken("the ledger has no rate card".to_owned());
    Ok(rate_cards(app).await?.into_iter().next().ok_or_else(missing)?)
}

#[utoipa::path(get, path = "/ledger/settings", summary = "What is set for the ledger as a whole.", responses((status = 200, description = "As it counts now.", body = SettingsView), Refusals))]
async fn settings(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Problem> {
    caller.may_administer()?;
    Ok(Json(app.pools.read(Query::Settings).await?.settings()?).into_response())
}

#[utoipa::path(get, path = "/keys", summary = "All keys, without the keys themselves.", responses((status = 200, description = "The newest first.", body = Vec<KeyView>), Refusals))]
async fn keys(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Problem> {
    caller.may_administer()?;
    match app.pools.read(Query::Keys { id: None }).await? {
        View::Keys(keys) => Ok(Json(keys).into_response()),
        _ => Err(unasked()),
    }
}

#[utoipa::path(get, path = "/ledger/verify", summary = "Replays all entries and compares every balance.", responses((status = 200, description = "What disagrees.", body = Verification), Refusals))]
async fn verify(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Problem> {
    caller.may_administer()?;
    match app.pools.read(Query::Verify).await? {
        View::Verified(found) => Ok(Json(found).into_response()),
        _ => Err(unasked()),
    }
}

#[cfg(test)]
mod tests {
    use super::same_books;

    #[test]
    fn a_service_is_not_ready_for_books_of_an_earlier_epoch() {
        assert!(same_books(0, 0).is_ok() && same_books(0, 7).is_ok() && same_books(7, 8).is_ok());
        let why = same_books(8, 7).unwrap_err().to_string();
        assert!(why.contains("epoch 7") && why.contains("epoch 8"), "{why}");
    }
}
