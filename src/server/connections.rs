//! Connections, with TLS or without, and their graceful end.

use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::listening::{Accepted, Listeners};

/// A handshake that takes longer is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// A client that says nothing for so long, or takes longer for the head of a request, is hung up on: connections that nobody
/// uses cannot use up the descriptors. A sidecar says something each 10 s.
const HEAD_MAX: Duration = Duration::from_mins(1);
/// A client of HTTP/2 that may have gone is asked this often.
const ALIVE_EACH: Duration = Duration::from_secs(30);

/// Serves until `stopping` is true, then lets requests under way end, for `drain_max` at most. TLS is spoken on TCP alone:
/// whoever is at a unix socket is on this machine.
pub(super) async fn serve(
    mut listeners: Listeners,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    mut stopping: watch::Receiver<bool>,
    drain_max: Duration,
) {
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    protocol.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    protocol.http2().timer(TokioTimer::new()).keep_alive_interval(ALIVE_EACH).keep_alive_timeout(HEAD_MAX);
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listeners.accept() => accepted,
            _ = stopping.wait_for(|stopped| *stopped) => break,
        };
        let connection = Connection { protocol: protocol.clone(), router: router.clone(), watcher: graceful.watcher() };
        match (accepted, acceptor.clone()) {
            (Accepted::Unix(stream), _) => _ = tokio::spawn(connection.plain(stream)),
            (Accepted::Tcp(stream), acceptor) => {
                // Small answers must not wait for each other.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "A connection was gone at once.");
                }
                match acceptor {
                    None => _ = tokio::spawn(connection.plain(stream)),
                    Some(acceptor) => _ = tokio::spawn(connection.encrypted(acceptor, stream)),
                }
            }
        }
    }
    drop(listeners);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(drain_max) => tracing::warn!("Some requests did not end in time."),
    }
}

/// What a connection is served with. One that breaks concerns its client alone.
struct Connection {
    protocol: auto::Builder<TokioExecutor>,
    router: Router,
    watcher: Watcher,
}

impl Connection {
    async fn plain(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        self.spoken(stream, false).await;
    }

    async fn encrypted(self, acceptor: TlsAcceptor, stream: TcpStream) {
        let handshake = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await;
        if let Ok(Ok(stream)) = handshake {
            let is_two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            self.spoken(stream, is_two).await;
        }
    }

    /// Which version it is, is known: nobody waits for the first bytes of a client that says nothing.
    async fn spoken(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, is_two: bool) {
        let protocol = if is_two { self.protocol.http2_only() } else { self.protocol.http1_only() };
        let connection = protocol.serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router));
        if let Err(error) = self.watcher.watch(connection.into_owned()).await {
            tracing::debug!(%error, "A connection broke.");
        }
    }
}
