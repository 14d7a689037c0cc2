//! Server-sent events for whoever watches an account: its balance and what runs in it.
//!
//! ```text
//! readers ─▶ a look each second, one for each watched account ─▶ the latest frame ─▶ streams
//! ```
//!
//! All who watch an account share the looks, so that many of them cost as much as one. A look that differs from the one before it
//! becomes the next frame, and each stream sends the latest one: events come once a second at most, and a slow reader misses what lies
//! between two of them, but never the last one. Looks are compared by what stands in the books, and not by what passes with the time.
//!
//! A stream ends with the key or the session that it was opened with, and with the service. How many somebody may have is bounded.
//!
//! Architecture Invariant: this room is for watchers. Whether and when a job is stopped is not decided here.

mod pace;
mod seats;
mod seen;
mod watched;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query as Parameters, State};
use axum::http::HeaderName;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{once, unfold};
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Sleep;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::seats::{STREAMS_IN_ALL_MAX, STREAMS_MAX, STREAMS_OF_KEY_MAX, Seat};
use self::seen::{AccountEvent, look};
pub(super) use self::watched::Watched;
use self::watched::{EACH, Frame, Latest};
use super::App;
use super::auth::Caller;
use super::problem::{Problem, Refusals};

/// After so much silence comes an event `alive`, by which a page knows that the stream gets through, and proxies keep it open.
const ALIVE_EACH: Duration = Duration::from_secs(5);
/// nginx passes on each event as it comes, where it would fill its buffers first.
const UNBUFFERED: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

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

#[utoipa::path(
    get,
    path = "/events",
    summary = "Watches an account: server-sent events `account`, once a second at most, and `alive` where nothing has changed for 5 s.",
    params(WatchOf),
    responses(
        (status = 200, description = "A stream.", body = AccountEvent, content_type = "text/event-stream"),
        (status = 429, description = "The key or the session has too many streams.", body = Problem, content_type = "application/problem+json"),
        Refusals,
    )
)]
async fn events(
    State(app): State<Arc<App>>,
    caller: Caller,
    watched: Result<Parameters<WatchOf>, axum::extract::rejection::QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    let Parameters(watched) = watched.map_err(|error| Problem::malformed(error.body_text()))?;
    let missing = || Problem::malformed("the parameter user says which account to watch");
    let user = watched.user.or_else(|| caller.only()).ok_or_else(missing)?;
    caller.may_see(&user)?;
    super::bounds::name("user", &user)?;
    let seat = app.watched.seats.take(caller.door(), caller.key_id(), caller.only()).ok_or_else(too_many)?;
    let mut inside = app.doors.enter(caller.door());
    let (pools, of) = (app.pools.clone(), user.clone());
    let latest = app.watched.join(&user, app.stopping.clone(), move || look(pools.clone(), of.clone()));
    let stream = told(Told::new(latest, app.stopping.clone(), seat)).take_until(async move { inside.ended().await });
    let alive = Event::default().event("alive").data("{}");
    Ok(([UNBUFFERED], Sse::new(stream).keep_alive(KeepAlive::new().interval(ALIVE_EACH).event(alive))))
}

fn too_many() -> Problem {
    Problem::too_many(format!(
        "a key or a session may have {STREAMS_MAX} streams, a key with all of its sessions {STREAMS_OF_KEY_MAX}, and a service \
         {STREAMS_IN_ALL_MAX}: close one of them, or ask for users/{{user}}/credits now and then"
    ))
}

/// A comment, so that whoever waits for the first bytes has them; then what is seen of the account.
fn told(told: Told) -> impl Stream<Item = Result<Event, Infallible>> {
    let first = once(async { Ok(Event::default().comment("")) });
    first.chain(unfold(told, |mut told| async move {
        let event = told.next().await?;
        Some((Ok(event), told))
    }))
}

/// What a stream has told, and what it will tell.
struct Told {
    latest: watch::Receiver<Latest>,
    last: Option<Arc<Frame>>,
    /// Until when it says nothing more, since it has just told something.
    rest: Option<Pin<Box<Sleep>>>,
    stopping: watch::Receiver<bool>,
    _seat: Seat,
}

impl Told {
    fn new(mut latest: watch::Receiver<Latest>, stopping: watch::Receiver<bool>, seat: Seat) -> Self {
        // Whoever comes later begins with what the others have seen.
        latest.mark_changed();
        Self { latest, last: None, rest: None, stopping, _seat: seat }
    }

    /// The latest frame once it is another, a second after the last one at the earliest; `None` once the service stops.
    async fn next(&mut self) -> Option<Event> {
        if let Some(rest) = self.rest.take() {
            tokio::select! {
                () = rest => {}
                _ = self.stopping.wait_for(|stopped| *stopped) => return None,
            }
        }
        loop {
            self.latest.changed().await.ok()?;
            let Some(frame) = self.latest.borrow_and_update().clone() else { continue };
            let told = frame.event_after(self.last.as_deref());
            self.last = Some(frame);
            self.rest = Some(Box::pin(tokio::time::sleep(EACH)));
            let unable = |error| tracing::error!(%error, "A stream ends.");
            return Some(Event::default().event("account").data(told.map_err(unable).ok()?));
        }
    }
}

#[cfg(test)]
mod tests;
