//! An answer of yes or no that comes later than its head. Somebody who keeps a question open for a minute holds nothing meanwhile of what
//! has led to it: the routes, the reading of the key, and what is logged.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};

/// Both are as long: nobody has to know the answer to say how long it is.
const TRUE: &str = "true ";
const FALSE: &str = "false";

struct Later(Option<Pin<Box<dyn Future<Output = bool> + Send>>>);

impl hyper::body::Body for Later {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(answer) = &mut self.0 else { return Poll::Ready(None) };
        let text = if ready!(answer.as_mut().poll(context)) { TRUE } else { FALSE };
        self.0 = None;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(if self.0.is_some() { FALSE.len() as u64 } else { 0 })
    }
}

/// As JSON, once it is known.
pub(super) fn later(answer: impl Future<Output = bool> + Send + 'static) -> Response {
    ([(CONTENT_TYPE, "application/json")], Body::new(Later(Some(Box::pin(answer))))).into_response()
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
