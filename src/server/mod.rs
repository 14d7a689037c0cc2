//! The ledger service: the HTTP API on a store, for sidecars on many machines.
//!
//! ```text
//! connections ─▶ auth ─▶ api, pages ─┬─▶ waiting ─▶ poster (one thread, group commit) ─▶ store
//!                             └─▶ pools (connections of their own: readers, sessions) ─▶ store ─▶ webhook
//! ```
//!
//! Architecture Invariant: no rule of the books stands here; a handler says who may ask what, and nothing else.

mod admin;
mod admin_key;
mod admission;
mod api;
mod auth;
mod base_path;
mod bounds;
mod certificates;
mod connections;
mod doors;
mod ended;
mod events;
mod figures;
mod if_match;
mod keep_alive;
mod keys;
mod late;
mod later;
mod listening;
mod looks;
mod metrics;
mod named_job;
mod once_a_second;
mod pages;
mod platform;
mod pool;
mod poster;
mod posting;
mod problem;
mod quotas;
mod reads;
mod sent;
mod stops;
mod usage_of_each;
mod vanished;
mod waiting;
mod webhook;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRef, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use utoipa::OpenApi;
use utoipa::openapi::Server;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use self::admin_key::ensure_admin_key;
use self::admission::Admission;
pub use self::base_path::BasePath;
use self::certificates::Certificates;
pub use self::certificates::TlsFiles;
use self::doors::Doors;
use self::events::Watched;
use self::keys::Keys;
use self::late::Late;
pub use self::listening::Listen;
use self::listening::Listeners;
use self::metrics::Metrics;
use self::once_a_second::OnceASecond;
use self::pool::Pools;
use self::poster::Poster;
use self::posting::Posting;
pub use self::quotas::Quotas;
use self::quotas::Taken;
use self::sent::Room;
use self::stops::Stops;
use self::vanished::FileWatch;
use self::waiting::Waiting;
use self::webhook::Sending;
pub use self::webhook::Webhook;
use crate::ledger::LedgerError;
use crate::ledger::location::Location;
use crate::ledger::store::StoreLedger;
use crate::ledger::views::Figures;

/// A request that takes longer is given up.
const REQUEST_MAX: Duration = Duration::from_mins(1);
/// How long a stop waits for requests under way.
const DRAIN_MAX: Duration = Duration::from_secs(20);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database.
    pub db: Location,
    /// Where to listen: one place at least.
    pub listen: Vec<Listen>,
    /// Below which path of its host.
    pub base_path: BasePath,
    /// Where the first admin key is written.
    pub admin_key_file: PathBuf,
    /// With TLS.
    pub tls: Option<TlsFiles>,
    /// A proxy in front signs users in and names them in this header, which it takes away from what others send.
    pub trust_header: Option<HeaderName>,
    /// Connections at the same time.
    pub connections_max: usize,
    /// How much of the books each principal may take up.
    pub quotas: Quotas,
    /// Where alerts go.
    pub webhook: Option<Webhook>,
}

/// What all handlers share.
struct App {
    poster: Poster,
    keys: Keys,
    metrics: Metrics,
    pools: Pools,
    waiting: Arc<Waiting>,
    watched: Arc<Watched>,
    doors: Arc<Doors>,
    stops: Arc<Stops>,
    /// For what is sent.
    room: Room,
    /// Of the quotas of principals.
    taken: Taken,
    /// Whether something can be committed, and in the epoch that this service is of.
    readiness: OnceASecond<()>,
    epoch: AtomicU64,
    figures: OnceASecond<Arc<Figures>>,
    /// In which a proxy in front names users.
    trust_header: Option<HeaderName>,
    /// Whether cookies are for encrypted connections alone.
    tls: bool,
    /// True once it stops: streams that never end by themselves end then.
    stopping: watch::Receiver<bool>,
}

impl FromRef<Arc<App>> for Room {
    fn from_ref(app: &Arc<App>) -> Self {
        app.room.clone()
    }
}

impl App {
    /// Opens what the handlers share, and starts the writer.
    async fn start(
        options: &Options,
        stopping: watch::Receiver<bool>,
    ) -> Result<(Arc<Self>, JoinHandle<()>), LedgerError> {
        let (metrics, waiting) = (Metrics::new(), Arc::new(Waiting::default()));
        let (poster, thread) = start_poster(options, metrics.clone(), Arc::clone(&waiting)).await?;
        let app = Self {
            poster,
            keys: Keys::default(),
            metrics,
            pools: Pools::new(&options.db),
            waiting,
            watched: Arc::default(),
            doors: Arc::default(),
            stops: Arc::default(),
            room: Room::default(),
            taken: Taken::new(options.quotas),
            readiness: OnceASecond::default(),
            epoch: AtomicU64::default(),
            figures: OnceASecond::default(),
            tls: options.tls.is_some(),
            trust_header: options.trust_header.clone(),
            stopping,
        };
        Ok((Arc::new(app), thread))
    }
}

/// Opens the database, makes the first key where there is none, and starts the writer.
async fn start_poster(
    options: &Options,
    metrics: Metrics,
    waiting: Arc<Waiting>,
) -> Result<(Poster, JoinHandle<()>), LedgerError> {
    let (db, key_file) = (options.db.clone(), options.admin_key_file.clone());
    let started = tokio::task::spawn_blocking(move || {
        let mut ledger = StoreLedger::new(db.store()?);
        ensure_admin_key(&mut ledger, &key_file)?;
        let unable = |error| LedgerError::Unavailable(format!("no thread can be started: {error}"));
        let posting = Posting { metrics, freed: Arc::new(move |owners| waiting.wake(owners)) };
        let late = Late::new(Arc::new(move || db.existing_store()), posting.clone());
        Poster::start(ledger.into_store(), posting, late).map_err(unable)
    });
    started.await.unwrap_or_else(|error| Err(LedgerError::Unavailable(error.to_string())))
}

/// Serves until `stop` comes, and then until what is under way has been answered. `listening` is called with the URLs once
/// requests are taken.
///
/// # Errors
/// Where the database, the key file, the certificate or the address cannot be used; for people.
pub async fn serve(
    options: Options,
    listening: impl FnOnce(&[String]),
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    let (stopped, stopping) = watch::channel(false);
    let started = App::start(&options, stopping.clone()).await;
    let (app, thread) = started.map_err(|error| format!("{}: {error}", options.db))?;
    let (pools, doors, stops) = (app.pools.clone(), Arc::clone(&app.doors), Arc::clone(&app.stops));
    let metrics = app.metrics.clone();
    let watch = FileWatch::new(options.db.file().ok());
    let sending = options.webhook.map(|webhook| webhook.start(options.db.clone(), metrics)).transpose()?;
    let told = |error: LedgerError| error.to_string();
    let listeners = Listeners::bind(&options.listen).await.map_err(told)?;
    let certificates = options.tls.map(Certificates::new).transpose().map_err(told)?;
    let acceptor = certificates.clone().map(Certificates::acceptor).transpose().map_err(told)?;
    // Taken without TLS as well: whoever reloads the service must not end it.
    let hangups = signal(SignalKind::hangup()).map_err(|error| format!("SIGHUP cannot be taken: {error}"))?;
    let scheme = if acceptor.is_some() { "https" } else { "http" };
    listening(&listeners.urls(scheme, &options.base_path).map_err(|error| error.to_string())?);
    let router = router(Arc::clone(&app), &options.base_path);
    let admission = Admission::new(options.connections_max);
    let stopping_because = tokio::spawn(async move {
        let why = tokio::select! {
            () = stop => None,
            why = watch.ended() => Some(why),
        };
        // Nobody may be there to hear it, where the service has failed otherwise.
        stopped.send(true).ok();
        why
    });
    let renewing = certificates.map(|certificates| tokio::spawn(certificates.watch(hangups, stopping.clone())));
    let looking = tokio::spawn(doors.watch(Arc::clone(&pools.sessions), stopping.clone()));
    let watching = tokio::spawn(stops.watch(Arc::clone(&pools.stops), stopping.clone()));
    connections::serve(listeners, acceptor, router, &admission, stopping, DRAIN_MAX).await;
    // They end with `stopping`.
    for task in renewing.into_iter().chain([looking, watching]) {
        if let Err(error) = task.await {
            tracing::error!(%error, "A task of the service failed.");
        }
    }
    pools.close().await;
    end_writer(app, thread, sending).await;
    match stopping_because.await {
        Ok(None) => Ok(()),
        Ok(Some(why)) => Err(format!("{}: {why}", options.db)),
        Err(error) => Err(error.to_string()),
    }
}

/// The writer ends when nobody can ask it any more, after the last commit. It is the last to close a ledger file, and leaves
/// everything in it.
async fn end_writer(app: Arc<App>, thread: JoinHandle<()>, sending: Option<Sending>) {
    let ended = tokio::task::spawn_blocking(move || {
        drop(sending);
        drop(app);
        thread.join()
    });
    if !matches!(ended.await, Ok(Ok(()))) {
        tracing::error!("The writer ended in the middle of something.");
    }
}

/// The head of the OpenAPI document; the rest comes from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(title = "jobmeter ledger", description = "Credits are leased to attempts of jobs, charged as they burn."),
    modifiers(&Bearer),
    security(("key" = []))
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document.components.get_or_insert_default().add_security_scheme("key", scheme);
    }
}

fn router(app: Arc<App>, base_path: &BasePath) -> Router {
    let api = api::routes().merge(reads::routes()).merge(admin::routes()).merge(events::routes());
    let (router, mut document) =
        OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", api).split_for_parts();
    env!("CARGO_PKG_VERSION").clone_into(&mut document.info.version);
    document.servers = (!base_path.is_root()).then(|| vec![Server::new(base_path.to_string())]);
    let document = axum::Json(document);
    let router = router
        .route("/api/v1/openapi.json", axum::routing::get(|| async { document }))
        .merge(reads::health())
        .merge(pages::routes())
        .merge(platform::routes());
    let router = base_path.before(answering(router, "no such path: see /api/v1").with_state(Arc::clone(&app)));
    let router = if base_path.is_root() {
        router
    } else {
        // What probes and scrapes the service itself comes past the proxy.
        let outside = format!("no such path: this service is at {base_path}");
        router.merge(answering(reads::health(), &outside).with_state(Arc::clone(&app)))
    };
    router.layer(axum::middleware::from_fn_with_state(app, logged))
}

/// Routes that answer in our own words also what is none of them.
fn answering(routes: Router<Arc<App>>, missing: &str) -> Router<Arc<App>> {
    let missing = missing.to_owned();
    routes
        .fallback(|| async { problem::Problem::missing(missing) })
        .method_not_allowed_fallback(|| async { problem::Problem::malformed("this path takes another method") })
}

/// The answer, which comes within a time. No name, id or cursor has a NUL character, and not every database has a text with one.
async fn answered(request: Request, next: Next) -> Response {
    if request.uri().path_and_query().is_some_and(|address| address.as_str().contains("%00")) {
        return problem::Problem::malformed("the address may hold no NUL character (%00)").into_response();
    }
    let answered = tokio::time::timeout(REQUEST_MAX, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        let late = LedgerError::Unavailable("the ledger took too long".to_owned());
        problem::Problem::from(late).into_response()
    })
}

/// Gives a request its id, bounds its time, counts it and logs it. Neither bodies nor keys are ever logged.
async fn logged(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| id.len() <= 64);
    let id = given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = answered(request, next).await;
    // What the framework refused by itself is told as everything else is.
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_problem = kind == "application/problem+json" || kind.starts_with("text/html");
    if response.status().as_u16() >= 400 && !is_problem {
        response = problem::Problem::of_status(response.status()).into_response();
    }
    let status = response.status().as_u16();
    app.metrics.answered(&method, status);
    if status >= 500 {
        tracing::warn!(%method, path, status, request_id = id, "A request failed.");
    } else {
        tracing::debug!(%method, path, status, request_id = id, "Answered.");
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

#[cfg(test)]
mod tests;
