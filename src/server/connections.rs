//! Connections, with TLS or without, and their graceful end.

use std::fmt::Display;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::admission::{Admission, Place};
use super::keep_alive::KeptAlive;
use super::listening::{Accepted, Listeners};
use crate::sys::sockets::give_up_after;

/// A handshake that takes longer is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// A client that says nothing for so long, or takes longer for the head of a request, is hung up on: connections that nobody
/// uses cannot use up the descriptors. A sidecar says something each 10 s.
const HEAD_MAX: Duration = Duration::from_mins(1);
/// Whoever has shown no key by then may end what he is at, and comes again for more.
const STRANGER_MAX: Duration = Duration::from_secs(20);
/// No head of a request has more, nor does a connection keep more of a body that nobody reads.
const BUFFER_MAX_BYTES: usize = 32 << 10;
/// Requests on one connection at the same time.
const STREAMS_MAX: u32 = 128;
/// A client that takes nothing of an answer for so long has gone.
const TAKES_NOTHING_MAX_MS: u32 = 60_000;
/// A client of HTTP/2 that may have gone is asked this often.
const ALIVE_EACH: Duration = Duration::from_secs(30);
/// Where many say nothing, those who have come are heard before the next one is let in.
const HEARD_FIRST: Duration = Duration::from_millis(1);

/// Both versions, with their bounds.
#[derive(Clone)]
struct Protocol {
    one: http1::Builder,
    two: http2::Builder<TokioExecutor>,
}

impl Protocol {
    fn new() -> Self {
        let (mut one, mut two) = (http1::Builder::new(), http2::Builder::new(TokioExecutor::new()));
        one.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(BUFFER_MAX_BYTES);
        let buffer = u32::try_from(BUFFER_MAX_BYTES).ok();
        two.timer(TokioTimer::new()).keep_alive_interval(ALIVE_EACH).keep_alive_timeout(HEAD_MAX);
        two.max_concurrent_streams(STREAMS_MAX).max_send_buf_size(BUFFER_MAX_BYTES);
        two.initial_stream_window_size(buffer).initial_connection_window_size(buffer.map(|bytes| 4 * bytes));
        Self { one, two }
    }
}

/// Serves until `stopping` is true, then lets requests under way end, for `drain_max` at most. TLS is spoken on TCP alone:
/// whoever is at a unix socket is on this machine.
pub(super) async fn serve(
    mut listeners: Listeners,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    admission: &Arc<Admission>,
    mut stopping: watch::Receiver<bool>,
    drain_max: Duration,
) {
    let protocol = Protocol::new();
    // Each connection has a sender: where none is left, all have ended.
    let (open, mut all_ended) = mpsc::channel::<()>(1);
    loop {
        let (origin, accepted) = tokio::select! {
            accepted = listeners.accept() => accepted,
            _ = stopping.wait_for(|stopped| *stopped) => break,
        };
        if admission.is_crowded(origin) {
            tokio::time::sleep(HEARD_FIRST).await;
        }
        let Some(place) = admission.admit(origin) else {
            tracing::debug!("A connection was turned away: there are as many as may be, all of them of known clients.");
            continue;
        };
        let (protocol, router, stopping) = (protocol.clone(), router.clone(), stopping.clone());
        let connection = Connection { protocol, router, place, stopping, _open: open.clone() };
        match (accepted, acceptor.clone()) {
            (Accepted::Unix(stream), _) => _ = tokio::spawn(connection.plain(stream)),
            (Accepted::Tcp(stream), acceptor) => {
                prepare(&stream);
                match acceptor {
                    None => _ = tokio::spawn(connection.plain(stream)),
                    Some(acceptor) => _ = tokio::spawn(connection.encrypted(acceptor, stream)),
                }
            }
        }
    }
    drop((listeners, open));
    tokio::select! {
        _ = all_ended.recv() => {}
        () = tokio::time::sleep(drain_max) => tracing::warn!("Some requests did not end in time."),
    }
}

/// Small answers must not wait for each other, and nothing is kept for who does not take it.
fn prepare(stream: &TcpStream) {
    let nodelay = stream.set_nodelay(true);
    if let Err(error) = nodelay.and_then(|()| give_up_after(stream, TAKES_NOTHING_MAX_MS)) {
        tracing::debug!(%error, "A connection was gone at once.");
    }
}

/// What a connection is served with. One that breaks concerns its client alone.
struct Connection {
    protocol: Protocol,
    router: Router,
    place: Arc<Place>,
    stopping: watch::Receiver<bool>,
    _open: mpsc::Sender<()>,
}

impl Connection {
    async fn plain(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        self.spoken(stream, false).await;
    }

    async fn encrypted(self, acceptor: TlsAcceptor, stream: TcpStream) {
        let handshake = tokio::select! {
            handshake = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)) => handshake,
            () = self.place.taken() => return,
        };
        if let Ok(Ok(stream)) = handshake {
            let is_two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            self.spoken(stream, is_two).await;
        }
    }

    /// Which version it is, is known: nobody waits for the first bytes of a client that says nothing.
    async fn spoken(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, is_two: bool) {
        let Self { protocol, router, place, mut stopping, _open } = self;
        let asked_of = Arc::clone(&place);
        let answer = move |mut request: Request<hyper::body::Incoming>| {
            let asking = asked_of.ask();
            request.extensions_mut().insert(Arc::clone(&asked_of));
            let answer = router.clone().oneshot(request);
            async move {
                let _asking = asking;
                answer.await
            }
        };
        let ends = pin!(async {
            tokio::select! {
                _ = stopping.wait_for(|stopped| *stopped) => {}
                () = stays_unknown(&place) => {}
            }
        });
        if is_two {
            let service = TowerToHyperService::new(tower::service_fn(answer));
            let mut connection = Box::pin(protocol.two.serve_connection(TokioIo::new(stream), service));
            served(connection.as_mut(), http2::Connection::graceful_shutdown, ends, &place).await;
        } else {
            let connection = pin!(KeptAlive::new(protocol.one, stream, HEAD_MAX, answer));
            served(connection, |connection| connection.get_mut().end(), ends, &place).await;
        }
    }
}

/// Serves until the connection comes to its end, which it is told to once `ends` does, or until its place is taken.
async fn served<C: Future<Output = Result<(), E>>, E: Display>(
    mut connection: Pin<&mut C>,
    end: impl FnOnce(Pin<&mut C>),
    ends: impl Future<Output = ()>,
    place: &Place,
) {
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = place.taken() => return,
        () = ends => {
            end(connection.as_mut());
            tokio::select! {
                served = connection => served,
                () = place.taken() => return,
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "A connection broke.");
    }
}

/// Comes where nobody has shown a key in time.
async fn stays_unknown(place: &Place) {
    tokio::time::sleep(STRANGER_MAX).await;
    if place.is_known() {
        std::future::pending::<()>().await;
    }
}
