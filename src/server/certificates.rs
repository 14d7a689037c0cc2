//! The certificate of the service, which is renewed under way: whoever renews it, as ACME clients do, need not restart anything.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;

use crate::ledger::LedgerError;
use crate::sys::trust;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Certificate chain and key, PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What tells a file from the one that it was: device, inode, size, and when it was written, in seconds and nanoseconds.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

impl TlsFiles {
    /// Reads them.
    ///
    /// # Errors
    /// Where one cannot be read or they do not belong together.
    fn read(&self) -> Result<CertifiedKey, LedgerError> {
        let wrong =
            |path: &PathBuf, error: String| LedgerError::Refused(format!("cannot use {}: {error}", path.display()));
        let read = |path: &PathBuf| trust::read(path).map_err(|why| wrong(path, why.to_string()));
        let chain = CertificateDer::pem_slice_iter(&read(&self.certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(&self.certificate, error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?);
        let key = key.map_err(|error| wrong(&self.key, error.to_string()))?;
        CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
            .map_err(|error| wrong(&self.certificate, error.to_string()))
    }

    fn stamps(&self) -> [Stamp; 2] {
        let stamp = |path: &Path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
        };
        [stamp(&self.certificate), stamp(&self.key)]
    }
}

/// The certificate that new connections get. Those that are there keep theirs.
#[derive(Debug)]
pub(super) struct Certificates {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub(super) fn new(files: TlsFiles) -> Result<Arc<Self>, LedgerError> {
        let current = RwLock::new(Arc::new(files.read()?));
        Ok(Arc::new(Self { files, current }))
    }

    /// What makes connections of TLS.
    ///
    /// # Errors
    /// Where the library has no version of TLS that it could speak.
    pub(super) fn acceptor(self: Arc<Self>) -> Result<TlsAcceptor, LedgerError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| LedgerError::Refused(format!("TLS cannot be used: {error}")))?
            .with_no_client_auth()
            .with_cert_resolver(self);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Reads the files again. What cannot be used changes nothing, and is logged: the two are seldom replaced in one moment.
    fn renew(&self) {
        match self.files.read() {
            Ok(new) => {
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                if current.cert == new.cert {
                    return;
                }
                *current = Arc::new(new);
                drop(current);
                tracing::info!(file = %self.files.certificate.display(), "New connections get the new certificate.");
            }
            Err(why) => tracing::warn!(%why, "The new certificate cannot be used: the old one stays in use."),
        }
    }

    /// Reads the files again whenever they are others than they were, and at each SIGHUP, until `stopping`.
    pub(super) async fn watch(self: Arc<Self>, mut hangups: Signal, mut stopping: watch::Receiver<bool>) {
        let mut seen = self.files.stamps();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                _ = looks.tick() => false,
                Some(()) = hangups.recv() => true,
                _ = stopping.wait_for(|stopped| *stopped) => return,
            };
            let this = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || {
                // Looked at before they are read: what changes meanwhile is read once more.
                let stamps = this.files.stamps();
                if is_asked || stamps != seen {
                    this.renew();
                }
                stamps
            });
            match looked.await {
                Ok(stamps) => seen = stamps,
                Err(error) => tracing::error!(%error, "The certificate's files cannot be looked at."),
            }
        }
    }
}
