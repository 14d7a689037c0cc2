//! Connections, with TLS or without, and their graceful end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::sys::trust;

/// A handshake that takes longer is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// A client that says nothing for so long, or takes longer for the head of a request, is hung up on: connections that nobody
/// uses cannot use up the descriptors. A sidecar says something each 10 s.
const HEAD_MAX: Duration = Duration::from_mins(1);
/// A client of HTTP/2 that may have gone is asked this often.
const ALIVE_EACH: Duration = Duration::from_secs(30);

/// Certificate chain and key, PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Reads them.
    ///
    /// # Errors
    /// Where one cannot be read or they do not belong together; for people.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, String> {
        let wrong = |path: &PathBuf, error: String| format!("cannot use {}: {error}", path.display());
        let read = |path: &PathBuf| trust::read(path).map_err(|why| wrong(path, why.to_string()));
        let chain = CertificateDer::pem_slice_iter(&read(&self.certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(&self.certificate, error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?);
        let key = key.map_err(|error| wrong(&self.key, error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| wrong(&self.certificate, error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Serves until `stopping` is true, then lets requests under way end, for `drain_max` at most.
pub(super) async fn serve(
    mut listener: TcpListener,
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
        // The framework's own accept, which goes on after an error.
        let (stream, _) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            _ = stopping.wait_for(|stopped| *stopped) => break,
        };
        // Small answers must not wait for each other.
        stream.set_nodelay(true).ok();
        let (protocol, acceptor, watcher) = (protocol.clone(), acceptor.clone(), graceful.watcher());
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            // A connection that breaks concerns its client alone.
            match acceptor {
                // Which version it is, is known: nobody waits for the first bytes of a client that says nothing.
                None => {
                    let protocol = protocol.http1_only();
                    let connection = protocol.serve_connection(TokioIo::new(stream), service);
                    watcher.watch(connection.into_owned()).await.ok();
                }
                Some(acceptor) => {
                    let handshake = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await;
                    if let Ok(Ok(stream)) = handshake {
                        let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        let protocol = if two { protocol.http2_only() } else { protocol.http1_only() };
                        let connection = protocol.serve_connection(TokioIo::new(stream), service);
                        watcher.watch(connection.into_owned()).await.ok();
                    }
                }
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(drain_max) => tracing::warn!("Some requests did not end in time."),
    }
}
