//! TLS to a server, and what of its certificate is checked: as much as `sslmode` says, as libpq does.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::runtime::Builder;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::errors::chain;
use super::target::{Encryption, Roots, Target};
use crate::ledger::LedgerError;

/// As tokio-postgres begins what it says of a handshake that failed.
const HANDSHAKE_FAILED: &str = "error performing TLS handshake";
/// As it says that the server asks for what it was not given.
const PASSWORD_MISSING: &str = "password missing";

/// Connects. What may be encrypted or not is tried the other way where the server refuses the first.
pub(super) async fn connect(target: &Target) -> Result<Client, LedgerError> {
    let plain = || plain(&target.config);
    let encrypted = |mode| async move {
        let mut config = target.config.clone();
        config.ssl_mode(mode);
        let connector = MakeRustlsConnect::new(settings(target)?);
        Ok::<_, LedgerError>(config.connect(connector).await.map(|(client, connection)| {
            tokio::spawn(async move { connection.await.ok() });
            client
        }))
    };
    let connected = match target.encryption {
        Encryption::Disable => plain().await,
        Encryption::Allow => match plain().await {
            Err(error) if is_refused(&error) => encrypted(SslMode::Require).await?,
            connected => connected,
        },
        Encryption::Prefer => match encrypted(SslMode::Prefer).await? {
            Err(error) if is_refused(&error) || error.to_string().starts_with(HANDSHAKE_FAILED) => plain().await,
            connected => connected,
        },
        Encryption::Require | Encryption::VerifyCa | Encryption::VerifyFull => encrypted(SslMode::Require).await?,
    };
    connected.map_err(|error| told(error, target))
}

/// Ends the statement that a connection is at.
pub(super) fn cancel(token: &CancelToken, target: &Target) -> Result<(), LedgerError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| LedgerError::Unavailable(format!("no event loop can be made: {error}")))?;
    let connector = MakeRustlsConnect::new(settings(target)?);
    Ok(runtime.block_on(token.cancel_query(connector))?)
}

/// Whoever is refused, or lacks a password, is told of a password file that was not read.
fn told(error: tokio_postgres::Error, target: &Target) -> LedgerError {
    let lacks_password = target.config.get_password().is_none() && chain(&error).contains(PASSWORD_MISSING);
    let why = match LedgerError::from(error) {
        _ if lacks_password => {
            "PostgreSQL wants a password: give it by PGPASSWORD or a password file (~/.pgpass)".to_owned()
        }
        LedgerError::Refused(why) => why,
        other => return other,
    };
    LedgerError::Refused(match &target.ignored {
        Some(ignored) => format!("{why} ({ignored})"),
        None => why,
    })
}

async fn plain(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let mut config = config.clone();
    let (client, connection) = config.ssl_mode(SslMode::Disable).connect(NoTls).await?;
    tokio::spawn(async move { connection.await.ok() });
    Ok(client)
}

/// By `pg_hba.conf`, which may ask for encryption, or for none.
fn is_refused(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

fn settings(target: &Target) -> Result<ClientConfig, LedgerError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |error: Error| LedgerError::Refused(format!("TLS cannot be used: {error}"));
    let roots = match &target.roots {
        Roots::Unchecked => Vec::new(),
        Roots::System => rustls_native_certs::load_native_certs().certs,
        Roots::File(path) => read(path)?,
    };
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    let chain = if store.is_empty() {
        None
    } else {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider));
        Some(builder.build().map_err(|error| unusable(Error::General(error.to_string())))?)
    };
    if chain.is_none() && target.roots != Roots::Unchecked {
        return Err(LedgerError::Refused("there are no certificates to check the server's against".to_owned()));
    }
    let checks_name = target.encryption == Encryption::VerifyFull;
    let verifier = Verifier { chain, roots, checks_name, provider: Arc::clone(&provider) };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, LedgerError> {
    let told = |error: String| LedgerError::Refused(format!("sslrootcert {}: {error}", path.display()));
    let found = CertificateDer::pem_file_iter(path).map_err(|error| told(error.to_string()))?;
    found.collect::<Result<Vec<_>, _>>().map_err(|error| told(error.to_string()))
}

/// Checks the chain where there are authorities, and the name where that is asked for.
#[derive(Debug)]
struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    roots: Vec<CertificateDer<'static>>,
    checks_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        // One that signed itself stands in the file itself. It is an authority, and webpki takes none of them for a server.
        if self.roots.iter().any(|root| root == end_entity) {
            if self.checks_name {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is the last that it checks.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
