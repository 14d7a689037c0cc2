//! Server-sent events for whoever watches an account: its balance and what runs in it, each second in which they change. A stream
//! ends with the key or the session that it was opened with, and with the service.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Query as Parameters, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::auth::Caller;
use super::problem::{Problem, Refusals};
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::views::{AccountView, Query, View};

const EACH: Duration = Duration::from_secs(1);
/// A connection through proxies is kept open by a comment.
const ALIVE_EACH: Duration = Duration::from_secs(15);
/// No event tells of more jobs.
const JOBS_MAX: u32 = 100;

/// Its route.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(events))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct WatchOf {
    /// Whose account; that of the key where it is bound to one.
    user: Option<String>,
}

/// The data of an event `account`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct Seen {
    /// As in `users/{user}/credits`.
    account: AccountView,
    /// What runs.
    running: Vec<RunningJob>,
}

/// A job that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
struct RunningJob {
    job: String,
    name: Option<String>,
    /// `running` or `provisional`.
    state: String,
    charged: Nanocredits,
}

/// Accounts that somebody watches, and how many do: what runs in them reports each second.
#[derive(Debug, Default)]
pub(super) struct Watched(Mutex<HashMap<String, usize>>);

impl Watched {
    pub(super) fn holds(&self, owner: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(owner)
    }
}

/// What a stream remembers between two events.
struct Watch {
    app: Arc<App>,
    user: String,
    last: Option<Seen>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.app.watched.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = watched.get_mut(&self.user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                watched.remove(&self.user);
            }
        }
    }
}

#[utoipa::path(
    get,
    path = "/events",
    summary = "Watches an account: server-sent events `account`.",
    params(WatchOf),
    responses((status = 200, description = "A stream.", body = Seen, content_type = "text/event-stream"), Refusals)
)]
async fn events(
    State(app): State<Arc<App>>,
    caller: Caller,
    watched: Result<Parameters<WatchOf>, axum::extract::rejection::QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let Parameters(watched) = watched.map_err(|error| Problem::malformed(error.body_text()))?;
    let missing = || Problem::malformed("the parameter user says which account to watch");
    let user = watched.user.or_else(|| caller.only()).ok_or_else(missing)?;
    caller.may_see(&user)?;
    super::bounds::name("user", &user)?;
    let mut inside = app.doors.enter(caller.door());
    *app.watched.0.lock().unwrap_or_else(PoisonError::into_inner).entry(user.clone()).or_default() += 1;
    let stream = unfold(Watch { app, user, last: None }, |mut watch| async move {
        let event = watch.next().await?;
        Some((Ok(event), watch))
    });
    let stream = stream.take_until(async move { inside.ended().await });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(ALIVE_EACH)))
}

impl Watch {
    /// The next that differs from the last; `None` once the service stops.
    async fn next(&mut self) -> Option<Event> {
        let mut stopping = self.app.stopping.clone();
        loop {
            if *stopping.borrow() {
                return None;
            }
            // What cannot be read now may be in a second.
            if let Ok(seen) = self.look().await
                && self.last.as_ref().is_none_or(|last| differs(last, &seen))
            {
                let event = Event::default().event("account").json_data(&seen).ok();
                self.last = Some(seen);
                return event;
            }
            tokio::select! {
                () = tokio::time::sleep(EACH) => {}
                _ = stopping.changed() => {}
            }
        }
    }

    async fn look(&self) -> Result<Seen, LedgerError> {
        let account = match self.app.pools.read(Query::Account { user: self.user.clone() }).await? {
            View::Account(account) => *account,
            _ => return Err(LedgerError::unasked()),
        };
        if account.running == 0 {
            return Ok(Seen { account, running: Vec::new() });
        }
        let user = Some(self.user.clone());
        let query = Query::Jobs { user, kind: None, running_only: true, count_max: JOBS_MAX, before: None };
        let View::Jobs { jobs, .. } = self.app.pools.read(query).await? else {
            return Err(LedgerError::unasked());
        };
        let running = jobs.into_iter().map(|job| RunningJob {
            job: job.job,
            name: job.name,
            state: job.state,
            charged: job.charged.total,
        });
        Ok(Seen { account, running: running.collect() })
    }
}

/// The time to the reset passes by itself.
fn differs(last: &Seen, seen: &Seen) -> bool {
    let still = |seen: &Seen| AccountView { resets_in_ms: 0, ..seen.account.clone() };
    last.running != seen.running || still(last) != still(seen)
}
