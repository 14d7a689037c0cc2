//! HTTP/1 on one connection. What speaks it keeps a buffer of 8 KiB while it waits for a request, and each sidecar has two connections on
//! which mostly nothing is said: so it is there from the first bytes of a request to the end of its answer alone, or to that of its head where
//! a yes or no comes later.
//!
//! ```text
//!            bytes have come
//!   Silent ──────────────────▶ Speaking: reads what has come, answers
//!      ▲                          │  │
//!      ├──────────────────────────┘  │ nothing is missing but a yes or no (see [`super::later`])
//!      │ all is on its way           ▼
//!      └────────────────────────── Telling: writes that once it is known
//! ```
//!
//! All reading is done here, into one buffer for each thread. Somebody who goes while a question of his is under way is noticed by it, and
//! the question ends with the connection.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{Method, Version};
use axum::response::Response;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::later::Coming;

/// So much is read at most before it is taken: what a sidecar says is far shorter.
const READ_MAX_BYTES: usize = 16 << 10;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_MAX_BYTES].into());
}

/// What is shared with what speaks HTTP.
struct Line<S> {
    stream: S,
    /// Read, and not taken yet.
    ahead: Bytes,
    has_ended: bool,
    /// More was wanted than there was.
    is_wanted: bool,
    written: Written,
}

/// What became of an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Nothing,
    /// It may not be on its way.
    Some,
    /// All that was written is on its way.
    Flushed,
}

impl<S: AsyncRead + Unpin> Line<S> {
    /// Reads on, once what was read has been taken. False at the end.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        READ.with_borrow_mut(|bytes| {
            let mut read = ReadBuf::new(bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
            self.ahead = Bytes::copy_from_slice(read.filled());
            self.has_ended = self.ahead.is_empty();
            Poll::Ready(Ok(!self.has_ended))
        })
    }
}

/// The side of what speaks HTTP.
struct Side<S>(Arc<Mutex<Line<S>>>);

impl<S> Side<S> {
    fn line(&self) -> MutexGuard<'_, Line<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> AsyncRead for Side<S> {
    /// Nobody is woken by it: whoever polls what reads here does so again once more has come.
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut line = self.line();
        if line.ahead.is_empty() && !line.has_ended {
            line.is_wanted = true;
            return Poll::Pending;
        }
        let count = buffer.remaining().min(line.ahead.len());
        buffer.put_slice(&line.ahead.split_to(count));
        if line.ahead.is_empty() {
            // An empty rest would keep all of it.
            line.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Side<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut line = self.line();
        line.written = Written::Some;
        Pin::new(&mut line.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut line = self.line();
        line.written = Written::Some;
        Pin::new(&mut line.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.line().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.line();
        ready!(Pin::new(&mut line.stream).poll_flush(context))?;
        if line.written == Written::Some {
            line.written = Written::Flushed;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line().stream).poll_shutdown(context)
    }
}

/// The body of an answer, which is under way while this lives.
pub(super) struct Answer {
    body: Body,
    _is_under_way: Arc<Asked>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What came of the requests since a connection has been silent. Held by each answer that is under way.
#[derive(Default)]
struct Asked {
    was_asked: AtomicBool,
    /// The answer that is yet to come, where nothing forbids to tell it without what speaks HTTP.
    coming: Mutex<Option<Coming>>,
}

impl Asked {
    fn coming(&self) -> MutexGuard<'_, Option<Coming>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers, and knows whether it is at it.
struct Answering<A> {
    answer: A,
    asked: Arc<Asked>,
}

/// Whether the connection goes on after the answer, which has a body as long as it says.
fn is_plain(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && !request.headers().contains_key(CONNECTION)
}

impl<A, F> hyper::service::Service<Request<Incoming>> for Answering<A>
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response, Infallible>> + Send + 'static,
{
    type Response = hyper::Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.asked.was_asked.store(true, Ordering::Relaxed);
        let (is_plain, asked) = (is_plain(&request), Arc::clone(&self.asked));
        let answer = (self.answer)(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            *asked.coming() = answer.extensions_mut().remove().filter(|_| is_plain);
            Ok(answer.map(|body| Answer { body, _is_under_way: asked }))
        })
    }
}

/// A yes or no that comes later, or what is still to be written of it.
enum Telling {
    Coming(Coming),
    Rest(&'static [u8]),
}

type Speaking<S, A> = http1::Connection<TokioIo<Side<S>>, Answering<A>>;

/// A connection; it comes to its end with the client, with an error, or after a silence.
pub(super) struct KeptAlive<S, A, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Incoming>) -> F + Clone + Unpin,
    F: Future<Output = Result<Response, Infallible>> + Send + 'static,
{
    protocol: http1::Builder,
    line: Arc<Mutex<Line<S>>>,
    answer: A,
    asked: Arc<Asked>,
    speaking: Option<Box<Speaking<S, A>>>,
    telling: Option<Telling>,
    silence: Pin<Box<Sleep>>,
    silence_max: Duration,
    /// No further request is taken.
    is_ending: bool,
    is_over: bool,
}

impl<S, A, F> KeptAlive<S, A, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Incoming>) -> F + Clone + Unpin,
    F: Future<Output = Result<Response, Infallible>> + Send + 'static,
{
    /// Hung up on is who says nothing for `silence_max`.
    pub(super) fn new(mut protocol: http1::Builder, stream: S, silence_max: Duration, answer: A) -> Self {
        // That somebody has gone is seen here.
        protocol.half_close(true);
        let line = Line { stream, ahead: Bytes::new(), has_ended: false, is_wanted: false, written: Written::Nothing };
        Self {
            protocol,
            line: Arc::new(Mutex::new(line)),
            answer,
            asked: Arc::default(),
            speaking: None,
            telling: None,
            silence: Box::pin(tokio::time::sleep(silence_max)),
            silence_max,
            is_ending: false,
            is_over: false,
        }
    }

    /// After the answer that is under way no request is taken any more.
    pub(super) fn end(&mut self) {
        self.is_ending = true;
        if let Some(speaking) = &mut self.speaking {
            Pin::new(&mut **speaking).graceful_shutdown();
        }
    }

    fn speak(&mut self) {
        self.asked.was_asked.store(false, Ordering::Relaxed);
        *self.asked.coming() = None;
        self.line().written = Written::Nothing;
        let answering = Answering { answer: self.answer.clone(), asked: Arc::clone(&self.asked) };
        let side = TokioIo::new(Side(Arc::clone(&self.line)));
        self.speaking = Some(Box::new(self.protocol.serve_connection(side, answering)));
    }

    fn line(&self) -> MutexGuard<'_, Line<S>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until something is said.
    fn poll_silent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.is_ending || self.silence.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(false));
        }
        let mut line = self.line();
        if line.ahead.is_empty() && !ready!(line.poll_fill(context))? {
            return Poll::Ready(Ok(false));
        }
        drop(line);
        self.speak();
        Poll::Ready(Ok(true))
    }

    /// Until all is answered, or nothing is missing but a yes or no.
    fn poll_speaking(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, hyper::Error>> {
        while let Some(speaking) = &mut self.speaking {
            self.line.lock().unwrap_or_else(PoisonError::into_inner).is_wanted = false;
            if let Poll::Ready(ended) = speaking.poll_without_shutdown(context) {
                return Poll::Ready(ended.map(|()| false));
            }
            let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
            let is_answered = self.asked.was_asked.load(Ordering::Relaxed) && Arc::strong_count(&self.asked) == 2;
            let is_told = line.written == Written::Flushed && !self.is_ending;
            let coming = self.asked.coming().take_if(|coming| is_told && coming.is_waited_for());
            if coming.is_some() || (is_answered && line.is_wanted && line.written != Written::Some) {
                drop(line);
                self.telling = coming.map(Telling::Coming);
                self.fall_silent();
                return Poll::Ready(Ok(true));
            }
            if !line.ahead.is_empty() {
                return Poll::Pending;
            }
            match line.poll_fill(context) {
                Poll::Pending => return Poll::Pending,
                // Who is answered has gone.
                Poll::Ready(Ok(false) | Err(_)) if !line.is_wanted => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(true)) if !line.is_wanted => return Poll::Pending,
                Poll::Ready(Err(_)) => line.has_ended = true,
                Poll::Ready(Ok(_)) => {}
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Until it is told, or who has asked is gone.
    fn poll_telling(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.ahead.is_empty() && matches!(line.poll_fill(context), Poll::Ready(Ok(false) | Err(_))) {
            return Poll::Ready(Ok(false));
        }
        while let Some(telling) = &mut self.telling {
            match telling {
                Telling::Coming(coming) => {
                    let text = ready!(coming.poll(context)).unwrap_or_default();
                    *telling = Telling::Rest(text.as_bytes());
                }
                Telling::Rest([]) => {
                    ready!(Pin::new(&mut line.stream).poll_flush(context))?;
                    self.telling = None;
                }
                Telling::Rest(rest) => {
                    let count = ready!(Pin::new(&mut line.stream).poll_write(context, rest))?;
                    *rest = rest.get(count..).filter(|_| count > 0).ok_or(io::ErrorKind::WriteZero)?;
                }
            }
        }
        drop(line);
        self.silence.set(tokio::time::sleep(self.silence_max));
        Poll::Ready(Ok(true))
    }

    /// What was read of a request that has not come in whole is the beginning of the next one.
    fn fall_silent(&mut self) {
        let Some(speaking) = self.speaking.take() else { return };
        // Copied, since an empty rest would keep the buffer as well.
        let rest = Bytes::copy_from_slice(&speaking.into_parts().read_buf);
        let mut line = self.line();
        line.ahead = if line.ahead.is_empty() { rest } else { [rest, line.ahead.clone()].concat().into() };
        drop(line);
        self.silence.set(tokio::time::sleep(self.silence_max));
    }
}

impl<S, A, F> Future for KeptAlive<S, A, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Incoming>) -> F + Clone + Unpin,
    F: Future<Output = Result<Response, Infallible>> + Send + 'static,
{
    type Output = Result<(), Box<dyn std::error::Error + Send + Sync>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        while !this.is_over {
            let goes_on = if this.telling.is_some() {
                ready!(this.poll_telling(context))?
            } else if this.speaking.is_some() {
                ready!(this.poll_speaking(context))?
            } else {
                ready!(this.poll_silent(context))?
            };
            if !goes_on {
                (this.is_over, this.speaking, this.telling) = (true, None, None);
            }
        }
        // The client is told, where it still listens.
        let mut line = this.line.lock().unwrap_or_else(PoisonError::into_inner);
        ready!(Pin::new(&mut line.stream).poll_shutdown(context))?;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
