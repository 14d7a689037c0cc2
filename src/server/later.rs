//! An answer of yes or no that comes later than its head. Somebody who keeps a question open for a minute holds nothing meanwhile of what
//! has led to it: the routes, the reading of the key, and what is logged.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};

/// Both are as long: nobody has to know the answer to say how long it is.
const TRUE: &str = "true ";
const FALSE: &str = "false";

type Answer = Pin<Box<dyn Future<Output = bool> + Send>>;

/// The answer to come. It stands in the response as well, for who goes on with the connection in the place of what speaks HTTP.
#[derive(Clone)]
pub(super) struct Coming(Arc<Mutex<Waiting>>);

struct Waiting {
    /// Until it was given.
    answer: Option<Answer>,
    /// The head of the answer has been told.
    is_waited_for: bool,
}

impl Coming {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its text, once; nothing where it was given before.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Option<&'static str>> {
        let mut waiting = self.waiting();
        waiting.is_waited_for = true;
        let Some(answer) = &mut waiting.answer else { return Poll::Ready(None) };
        let text = if ready!(answer.as_mut().poll(context)) { TRUE } else { FALSE };
        waiting.answer = None;
        Poll::Ready(Some(text))
    }

    /// Whether nothing is missing but the answer.
    pub(super) fn is_waited_for(&self) -> bool {
        let waiting = self.waiting();
        waiting.is_waited_for && waiting.answer.is_some()
    }
}

struct Later(Coming);

impl hyper::body::Body for Later {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let text = ready!(self.0.poll(context));
        Poll::Ready(text.map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.waiting().answer.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(if self.is_end_stream() { 0 } else { FALSE.len() as u64 })
    }
}

/// As JSON, once it is known.
pub(super) fn later(answer: impl Future<Output = bool> + Send + 'static) -> Response {
    let coming = Coming(Arc::new(Mutex::new(Waiting { answer: Some(Box::pin(answer)), is_waited_for: false })));
    let body = Body::new(Later(coming.clone()));
    ([(CONTENT_TYPE, "application/json")], Extension(coming), body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_answers_are_json_of_one_length() {
        for is_so in [true, false] {
            let body = later(async move { is_so }).into_body();
            assert_eq!(hyper::body::Body::size_hint(&body).exact(), Some(FALSE.len() as u64));
            let bytes = axum::body::to_bytes(body, 100).await.unwrap();
            assert_eq!(bytes.len(), FALSE.len());
            assert_eq!(serde_json::from_slice::<bool>(&bytes).unwrap(), is_so);
        }
    }
}
