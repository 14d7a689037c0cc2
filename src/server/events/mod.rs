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
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::seats::{STREAMS_MAX, STREAMS_OF_KEY_MAX, Seat};
use self::seen::{AccountEvent, look};
pub(super) use self::watched::Watched;
use self::watched::{Frame, Latest};
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
    let (readers, of) = (Arc::clone(&app.pools.readers), user.clone());
    let latest = app.watched.join(&user, app.stopping.clone(), move || look(Arc::clone(&readers), of.clone()));
    let stream = told(latest, seat).take_until(async move { inside.ended().await });
    let alive = Event::default().event("alive").data("{}");
    Ok(([UNBUFFERED], Sse::new(stream).keep_alive(KeepAlive::new().interval(ALIVE_EACH).event(alive))))
}

fn too_many() -> Problem {
    Problem::too_many(format!(
        "a key or a session may have {STREAMS_MAX} streams, and a key with all of its sessions {STREAMS_OF_KEY_MAX}: close one of them, \
         or ask for users/{{user}}/credits now and then"
    ))
}

/// A comment, so that whoever waits for the first bytes has them; then the latest frame whenever it is a new one, until nobody looks any
/// more.
fn told(mut latest: watch::Receiver<Latest>, seat: Seat) -> impl Stream<Item = Result<Event, Infallible>> {
    // Whoever comes later begins with what the others have seen.
    latest.mark_changed();
    let first = once(async { Ok(Event::default().comment("")) });
    let frames = unfold((latest, None, seat), |(mut latest, last, seat): (_, Option<Arc<Frame>>, _)| async move {
        loop {
            latest.changed().await.ok()?;
            let Some(frame) = latest.borrow_and_update().clone() else { continue };
            match frame.event_after(last.as_deref()) {
                Ok(event) => {
                    let event = Event::default().event("account").data(event);
                    return Some((Ok(event), (latest, Some(frame), seat)));
                }
                Err(error) => {
                    tracing::error!(%error, "A stream ends.");
                    return None;
                }
            }
        }
    });
    first.chain(frames)
}

#[cfg(test)]
mod tests;
