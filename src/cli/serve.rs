//! `jobmeter serve`: the ledger service.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::args::Serve;
use super::log;
use super::output::Failure;
use super::settings::{self, Settings, state_directory};
use crate::ledger::location::Location;
use crate::server::{self, Listen, Options, TlsFiles, Webhook};

pub(super) fn serve(serve: &Serve, settings: &Settings) -> Result<ExitCode, Failure> {
    let gone = |error: std::io::Error| Failure::new("the working directory cannot be found").because(error);
    let db = serve.db.as_deref().map_or_else(|| Ok(settings.ledger.clone()), settings::location)?;
    let db = db.absolute().map_err(gone)?;
    if matches!(db, Location::Service(..)) {
        return Err(Failure::new(format!("{db} is a service already")).hint("name a file or postgres://… by --db"));
    }
    let admin_key_file = serve.admin_key_file.clone().map_or_else(|| default_key_file(&db), Ok)?;
    let files = serve.tls_certificate.clone().zip(serve.tls_key.clone());
    let tls = files.map(|(certificate, key)| TlsFiles { certificate, key });
    let webhook = serve.webhook.as_deref().zip(serve.webhook_secret_file.as_deref());
    let webhook = webhook.map(|(url, secret)| Webhook::new(url, secret)).transpose().map_err(Failure::new)?;
    let trust_header = serve.trust_header.as_deref().map(str::parse).transpose();
    let trust_header =
        trust_header.map_err(|error| Failure::new("--trust-header: this is no name of a header").because(error))?;
    log::start();
    if settings::shows_password(std::env::args_os()) {
        tracing::warn!("{}", settings::SHOWN_PASSWORD);
    }
    let (at, key_file) = (db.to_string(), admin_key_file.display().to_string());
    let (listen, base_path) = (places(&serve.listen)?, serve.base_path.clone());
    let connections_max = connections_max(serve.connections);
    let options = Options { db, listen, base_path, admin_key_file, tls, trust_header, connections_max, webhook };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new("no event loop can be made").because(error))?;
    let listening = |urls: &[String]| {
        let (url, also) = urls.split_first().map(|(url, others)| (url, others.join(", "))).unzip();
        tracing::info!(
            url,
            also = also.filter(|others| !others.is_empty()),
            db = at,
            admin_key_file = key_file,
            "Serving the ledger."
        );
        // Where systemd does not wait for it, there is nobody to tell.
        sd_notify::notify(&[sd_notify::NotifyState::Ready]).ok();
    };
    runtime.block_on(async {
        if let Some(period) = sd_notify::watchdog_enabled() {
            tokio::spawn(watched(period / 3));
        }
        let stop = stopped().map_err(|error| Failure::new("signals cannot be taken").because(error))?;
        server::serve(options, listening, stop).await.map_err(Failure::new)
    })?;
    tracing::info!("Stopped.");
    Ok(ExitCode::SUCCESS)
}

/// Those that were named, and the sockets that systemd has opened for this process (systemd.socket(5)).
fn places(named: &[Listen]) -> Result<Vec<Listen>, Failure> {
    let passed = sd_notify::listen_fds();
    let passed = passed.map_err(|error| Failure::new("the sockets of systemd cannot be taken").because(error))?;
    let places: Vec<Listen> = named.iter().cloned().chain(passed.map(Listen::Passed)).collect();
    Ok(if places.is_empty() { vec![Listen::Host("127.0.0.1".to_owned(), 7770)] } else { places })
}

/// Beside the file; for a database, where this user's other files are. (In the working directory might lie somebody else's.)
fn default_key_file(db: &Location) -> Result<PathBuf, Failure> {
    if let Location::File(path) = db {
        let mut name = path.clone().into_os_string();
        name.push(".admin-key");
        return Ok(PathBuf::from(name));
    }
    let state = state_directory().ok_or_else(|| {
        Failure::new("there is no place for the admin key: HOME is not set").hint("name a file by --admin-key-file")
    })?;
    let unmade = |error| Failure::new(format!("the folder {} cannot be made", state.display())).because(error);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&state).map_err(unmade)?;
    Ok(state.join("admin-key"))
}

/// Descriptors of the service's own: databases, files, sockets to listen on.
const OWN_DESCRIPTORS: u64 = 256;

/// As many connections as were asked for, or as this user may have descriptors: each sidecar keeps two, and the usual 1024 are soon
/// used up.
fn connections_max(wanted: usize) -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(now, most)| {
        // Where it cannot be raised, what is there counts.
        Ok(if setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok() { most } else { now })
    });
    let most = descriptors.map_or(u64::MAX, |descriptors| descriptors.saturating_sub(OWN_DESCRIPTORS).max(1));
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if most < wanted {
        tracing::warn!(
            connections = most,
            "The limit of open files allows fewer connections than the {wanted} of --connections: raise it (LimitNOFILE=)."
        );
    }
    wanted.min(most)
}

/// Tells systemd's watchdog that the event loop goes round; a service that is stopped or hangs is started again.
async fn watched(each: std::time::Duration) {
    let mut ticks = tokio::time::interval(each);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        sd_notify::notify(&[sd_notify::NotifyState::Watchdog]).ok();
    }
}

/// Until SIGTERM or SIGINT.
fn stopped() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        sd_notify::notify(&[sd_notify::NotifyState::Stopping]).ok();
    })
}
