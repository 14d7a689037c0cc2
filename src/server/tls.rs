//! Connections, with TLS or without, and their graceful end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// A handshake that takes longer is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Handshakes that wait to be served.
const READY_MAX: usize = 256;

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
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong(&self.certificate, error.to_string()))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| wrong(&self.key, error.to_string()))?;
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
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    stopping: watch::Receiver<bool>,
    drain_max: Duration,
) {
    let stopped = |mut stopping: watch::Receiver<bool>| async move {
        stopping.wait_for(|stopped| *stopped).await.ok();
    };
    let graceful = stopped(stopping.clone());
    let serving = async {
        let served = match acceptor {
            None => axum::serve(listener, router).with_graceful_shutdown(graceful).await,
            Some(acceptor) => {
                axum::serve(TlsListener::new(listener, acceptor), router).with_graceful_shutdown(graceful).await
            }
        };
        if let Err(error) = served {
            tracing::error!(%error, "Serving ended.");
        }
    };
    let too_long = async {
        stopped(stopping).await;
        tokio::time::sleep(drain_max).await;
    };
    tokio::select! {
        () = serving => {}
        () = too_long => tracing::warn!("Some requests did not end in time."),
    }
}

/// Takes connections whose handshakes are done; a slow one keeps nobody waiting.
struct TlsListener {
    address: std::io::Result<std::net::SocketAddr>,
    ready: tokio::sync::mpsc::Receiver<(tokio_rustls::server::TlsStream<tokio::net::TcpStream>, std::net::SocketAddr)>,
}

impl TlsListener {
    fn new(mut listener: TcpListener, acceptor: TlsAcceptor) -> Self {
        let (done, ready) = tokio::sync::mpsc::channel(READY_MAX);
        let address = listener.local_addr();
        tokio::spawn(async move {
            loop {
                // The framework's own accept, which goes on after an error.
                let (stream, peer) = tokio::select! {
                    accepted = Listener::accept(&mut listener) => accepted,
                    () = done.closed() => return,
                };
                let (acceptor, done) = (acceptor.clone(), done.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
                        done.send((stream, peer)).await.ok();
                    }
                });
            }
        });
        Self { address, ready }
    }
}

impl Listener for TlsListener {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The task that accepts ends only after this end.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.address.as_ref().copied().map_err(|error| std::io::Error::new(error.kind(), error.to_string()))
    }
}
