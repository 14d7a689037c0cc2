//! The body of a request. Each route says by its type how much it takes; who asks is known before anything is read, and what takes
//! too long or is too large is told so, and never kept.

use std::sync::Arc;
use std::time::Duration;

use axum::Form;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::{HeaderMap, Method};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::ledger::LedgerError;

/// A key, and where to go with it: all that somebody sends of whom nothing is known.
pub(super) const SIGN_IN: usize = 4 << 10;
/// A change, with its reason.
pub(super) const CHANGE: usize = 16 << 10;
/// An identity with its labels and its command line, and GPUs by their models.
pub(super) const OPENING: usize = 256 << 10;
/// Figures of a thousand GPUs, twice: a report may close a period.
pub(super) const USAGE: usize = 512 << 10;
/// The same with a receipt: sidecars of before send ones of 256 KiB.
pub(super) const LAST_WORD: usize = 1 << 20;
/// Weights of a thousand models of GPUs.
pub(super) const RATES: usize = 1 << 20;

/// Who sends a body slower than that is not waited for.
const READ_MAX: Duration = Duration::from_secs(20);
/// What is too large is read so far beyond that, and not kept: whoever is still sending would not hear the answer.
const DISCARDED_MAX: usize = 1 << 20;
/// Bodies up to this size are read whatever else is read: reports are smaller than that.
const ALWAYS_READ: usize = 16 << 10;
/// All larger ones that are read or worked on at the same time have so many KiB.
const ROOM_KIB: usize = 64 << 10;

/// Room for large bodies.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_KIB)))
    }
}

impl Room {
    /// For a body of this size at most, until what is given back is dropped.
    async fn take(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        if bytes <= ALWAYS_READ {
            return Ok(None);
        }
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let taken = Arc::clone(&self.0).acquire_many_owned(kib).await;
        let stopping = |_| LedgerError::Unavailable("the ledger is stopping".to_owned());
        Ok(Some(taken.map_err(stopping)?))
    }
}

/// What was sent: so many bytes at most.
pub(super) struct Sent<const BYTES_MAX: usize> {
    bytes: Bytes,
    /// Until the request was answered.
    _room: Option<OwnedSemaphorePermit>,
}

impl<const BYTES_MAX: usize> std::ops::Deref for Sent<BYTES_MAX> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<S: Send + Sync, const BYTES_MAX: usize> FromRequest<S> for Sent<BYTES_MAX>
where
    Room: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (room, body) = (Room::from_ref(state), request.into_body());
        let declared = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        let read = async {
            let room = room.take(declared.unwrap_or(BYTES_MAX).min(BYTES_MAX)).await?;
            Ok(Self { bytes: read(body, BYTES_MAX).await?, _room: room })
        };
        tokio::time::timeout(READ_MAX, read).await.unwrap_or_else(|_| Err(Problem::too_slow(READ_MAX.as_secs())))
    }
}

async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let (mut frames, mut kept, mut count) = (body.into_data_stream(), Vec::new(), 0);
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body broke off"))?;
        count += frame.len();
        if count <= bytes_max {
            kept.extend_from_slice(&frame);
        } else if count > bytes_max + DISCARDED_MAX {
            break;
        } else {
            kept = Vec::new();
        }
    }
    if count <= bytes_max { Ok(kept.into()) } else { Err(Problem::too_large(bytes_max)) }
}

/// What a form says: so many bytes at most.
pub(super) struct Filled<T, const BYTES_MAX: usize>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned, const BYTES_MAX: usize> FromRequest<S> for Filled<T, BYTES_MAX>
where
    Room: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let headers: HeaderMap = request.headers().clone();
        let sent = Sent::<BYTES_MAX>::from_request(request, state).await?;
        let mut whole = Request::new(Body::from(sent.bytes));
        *whole.method_mut() = Method::POST;
        *whole.headers_mut() = headers;
        let Form(told) =
            Form::from_request(whole, state).await.map_err(|error| Problem::malformed(error.body_text()))?;
        Ok(Self(told))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};

    use super::*;

    fn body(frames: usize, bytes: usize) -> Body {
        let frame = move |_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; bytes]));
        Body::from_stream(stream::iter(0..frames).map(frame))
    }

    #[tokio::test]
    async fn what_is_too_large_is_not_kept_nor_read_without_end() {
        assert_eq!(read(body(4, 1_000), 4_000).await.unwrap().len(), 4_000);
        let status = |problem: Problem| problem.told().0.as_u16();
        assert_eq!(read(body(5, 1_000), 4_000).await.map_err(status), Err(413));
        assert_eq!(read(body(usize::MAX, 1_000), 4_000).await.map_err(status), Err(413));
        let broken = stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
        assert_eq!(read(Body::from_stream(broken), 4_000).await.map_err(status), Err(400));
    }

    #[tokio::test]
    async fn large_bodies_wait_for_each_other_and_small_ones_for_nobody() {
        let room = Room::default();
        let mut taken = Vec::new();
        while let Some(Ok(one)) = room.take(LAST_WORD).now_or_never() {
            taken.extend(one);
        }
        assert_eq!(taken.len(), ROOM_KIB / (LAST_WORD >> 10));
        assert!(room.take(ALWAYS_READ).now_or_never().unwrap().unwrap().is_none());
        taken.pop();
        assert!(room.take(OPENING).now_or_never().unwrap().unwrap().is_some());
    }
}
