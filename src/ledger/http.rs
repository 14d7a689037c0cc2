//! The client of the ledger service: a [`Ledger`] over HTTP.

use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{HeaderValue, IF_MATCH};
use reqwest::{Method, Proxy, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::attempt_secret::{self, AttemptSecret};
use super::job_name::JobName;
use super::keys::Secret;
use super::protocol::{Finish, FinishAnswer, OpenAnswer, OpenRequest, Report, ReportAnswer};
use super::views::{Change, ChangeAnswer, Query, View, Whose};
use super::{Ledger, LedgerError};

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A commit takes milliseconds; a service that takes longer is as good as away, and the caller tries again.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// A ledger service, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Beginning with `http://` or `https://`.
    pub url: String,
    /// What it may be asked with.
    pub key: Option<Secret>,
    /// The proxy on the way to it. None is taken from the environment, which is the user's.
    pub proxy: Option<String>,
}

/// A connection to a service. It is kept between questions.
#[derive(Clone, Debug)]
pub struct HttpLedger {
    client: Client,
    base: Url,
    key: Option<Secret>,
}

/// A problem document of the service.
#[derive(Debug, Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    detail: String,
    answer: Option<Value>,
}

/// What came back: the answer, or an answer that is a problem.
enum Answered {
    Fine(Response),
    Problem(StatusCode, Problem),
}

impl HttpLedger {
    /// For this service. Nothing is sent yet.
    ///
    /// # Errors
    /// Where its URL, or that of the proxy, is none.
    pub fn new(service: &Service) -> Result<Self, LedgerError> {
        let wrong = |why: String| LedgerError::Refused(format!("the ledger's URL cannot be used: {why}"));
        let base = Url::parse(&service.url).map_err(|error| wrong(error.to_string()))?;
        if base.cannot_be_a_base() || base.host().is_none() {
            return Err(wrong("it names no host".to_owned()));
        }
        // Another part of the process may have chosen it before.
        rustls::crypto::ring::default_provider().install_default().ok();
        let builder = match base.scheme() {
            // An image may have no certificates, and needs none here.
            "http" => Client::builder().tls_certs_only([]),
            _ => Client::builder(),
        };
        let builder = match &service.proxy {
            Some(url) => builder.proxy(proxy(url)?),
            None => builder.no_proxy(),
        };
        let client = builder
            .connect_timeout(CONNECT_MAX)
            .timeout(ANSWER_MAX)
            .tcp_keepalive(Duration::from_secs(30))
            .user_agent(concat!("jobmeter/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                let causes = std::iter::successors(std::error::Error::source(&error), |error| error.source());
                wrong(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
            })?;
        Ok(Self { client, base, key: service.key.clone() })
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        let request = self.client.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key.text()),
            None => request,
        }
    }

    /// About an attempt, of which who asks shows the secret.
    fn of_attempt(
        &self,
        method: Method,
        attempt: &str,
        what: &[&str],
        secret: Option<AttemptSecret>,
    ) -> RequestBuilder {
        let request = self.request(method, &[&["attempts", attempt], what].concat());
        match secret.map(|secret| HeaderValue::from_str(&secret.text())) {
            Some(Ok(mut value)) => {
                value.set_sensitive(true);
                request.header(attempt_secret::HEADER, value)
            }
            // Hexadecimal digits always make a header.
            Some(Err(_)) | None => request,
        }
    }

    /// About a job. Whose it is stands beside its id, which services of before pass over.
    fn of_job(&self, method: Method, job: &JobName, what: &[&str]) -> RequestBuilder {
        let JobName { id, user, principal } = job;
        let of = [("user", user), ("principal", principal)].into_iter();
        let of: Vec<_> = of.filter_map(|(name, value)| Some((name, value.as_ref()?))).collect();
        self.request(method, &[&["jobs", id], what].concat()).query(&of)
    }

    fn of_tokens(&self, job: &JobName, body: &Value, key: &str) -> Result<ChangeAnswer, LedgerError> {
        let asked = self.of_job(Method::POST, job, &["tokens"]);
        self.ask_for_credits(asked.header("idempotency-key", key).json(body))
    }

    fn send(&self, request: RequestBuilder) -> Result<Answered, LedgerError> {
        let at = self.base.host_str().unwrap_or_default();
        let away =
            |error: reqwest::Error| LedgerError::Unavailable(format!("{at} does not answer: {}", causes(&error)));
        let response = request.send().map_err(away)?;
        let status = response.status();
        if status.is_success() {
            return Ok(Answered::Fine(response));
        }
        let text = response.text().map_err(away)?;
        match serde_json::from_str::<Problem>(&text) {
            Ok(problem) => Ok(Answered::Problem(status, problem)),
            // Something between here and the service.
            Err(_) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(LedgerError::Unavailable(format!("{at} answers {status}")))
            }
            Err(_) => Err(LedgerError::Refused(format!("{at} answers {status}: is it a jobmeter ledger?"))),
        }
    }

    fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, LedgerError> {
        match self.send(request)? {
            Answered::Fine(response) => decoded(response),
            Answered::Problem(status, problem) => Err(meant(status, problem)),
        }
    }

    /// What may be refused for want of credits, which is an answer.
    fn ask_for_credits<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, LedgerError> {
        match self.send(request)? {
            Answered::Fine(response) => decoded(response),
            Answered::Problem(StatusCode::PAYMENT_REQUIRED, Problem { answer: Some(answer), .. }) => {
                serde_json::from_value(answer)
                    .map_err(|error| LedgerError::Broken(format!("the answer cannot be read: {error}")))
            }
            Answered::Problem(status, problem) => Err(meant(status, problem)),
        }
    }

    fn get<T: DeserializeOwned>(&self, path: &[&str], parameters: &[(&str, String)]) -> Result<T, LedgerError> {
        self.ask(self.request(Method::GET, path).query(parameters))
    }

    fn tell(&self, method: Method, path: &[&str], body: &Value) -> Result<ChangeAnswer, LedgerError> {
        self.ask(self.request(method, path).json(body))
    }

    fn tell_once(&self, path: &[&str], body: &Value, key: &str) -> Result<ChangeAnswer, LedgerError> {
        self.ask_for_credits(self.request(Method::POST, path).header("idempotency-key", key).json(body))
    }
}

fn proxy(url: &str) -> Result<Proxy, LedgerError> {
    // It may hold a password.
    Proxy::all(url).map_err(|_| LedgerError::Refused("invalid setting proxy: expected http://HOST:PORT".to_owned()))
}

/// An error with all that stands behind it, but for the URL.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        cause = error.source();
    }
    if text.is_empty() { "the connection failed".to_owned() } else { text }
}

fn decoded<T: DeserializeOwned>(response: Response) -> Result<T, LedgerError> {
    let bytes = response
        .bytes()
        .map_err(|error| LedgerError::Unavailable(format!("the answer was cut: {}", causes(&error))))?;
    serde_json::from_slice(&bytes).map_err(|error| LedgerError::Broken(format!("the answer cannot be read: {error}")))
}

/// What a problem means to who asked.
fn meant(status: StatusCode, problem: Problem) -> LedgerError {
    let kind = problem.kind.rsplit(':').next().unwrap_or_default();
    match (kind, status) {
        ("attempt-unknown", _) => LedgerError::Unknown(problem.detail),
        ("not-found", _) => LedgerError::Missing(problem.detail),
        ("attempt-secret", _) => LedgerError::Foreign,
        ("unauthorized", _) => LedgerError::Refused("a valid key is needed: name its file by --key-file".to_owned()),
        ("broken", _) => LedgerError::Broken(format!("the ledger service is broken: {}", problem.detail)),
        (_, status) if status.is_server_error() => LedgerError::Unavailable(problem.detail),
        _ => LedgerError::Refused(problem.detail),
    }
}

/// Of a limit or a correction. What is not said is left out: a service of before refuses what it does not know.
fn body_of(change: &Change) -> serde_json::Value {
    let mut body = json!({});
    let mut add = |name: &str, value: Option<serde_json::Value>| {
        if let (Some(fields), Some(value)) = (body.as_object_mut(), value) {
            fields.insert(name.to_owned(), value);
        }
    };
    match change {
        Change::SetLimit { limit, period, since, carry_over, why, .. } => {
            add("limit", Some(json!(limit)));
            add("period", Some(json!(period)));
            add("since", since.map(|since| json!(since)));
            add("carryOver", carry_over.map(|carry_over| json!(carry_over)));
            add("why", Some(json!(why)));
        }
        Change::Adjust { amount, grant, expires_at, why, .. } => {
            add("amount", Some(json!(amount)));
            add("grant", grant.map(|grant| json!(grant)));
            add("expiresAt", expires_at.map(|expires_at| json!(expires_at)));
            add("why", Some(json!(why)));
        }
        _ => {}
    }
    body
}

impl Ledger for HttpLedger {
    fn open(&mut self, request: &OpenRequest) -> Result<OpenAnswer, LedgerError> {
        let asked = self.of_attempt(Method::PUT, &request.identity.attempt.to_string(), &[], request.secret);
        self.ask_for_credits(asked.json(request))
    }

    fn report(&mut self, report: &Report) -> Result<ReportAnswer, LedgerError> {
        self.ask(self.of_attempt(Method::PUT, &report.attempt.to_string(), &["usage"], report.secret).json(report))
    }

    fn finish(&mut self, finish: &Finish) -> Result<FinishAnswer, LedgerError> {
        self.ask(self.of_attempt(Method::POST, &finish.attempt.to_string(), &["finish"], finish.secret).json(finish))
    }

    /// `by` is the key's name there, whatever is said here.
    fn change(&mut self, change: &Change) -> Result<ChangeAnswer, LedgerError> {
        match change {
            Change::SetLimit { user, .. } => self.tell(Method::PUT, &["users", user, "limit"], &body_of(change)),
            Change::Suspend { user, why, .. } => {
                self.tell(Method::POST, &["users", user, "suspend"], &json!({ "why": why }))
            }
            Change::Resume { user, why, .. } => {
                self.tell(Method::POST, &["users", user, "resume"], &json!({ "why": why }))
            }
            Change::RepairPeriod { user, why, .. } => {
                self.tell(Method::POST, &["users", user, "repair"], &json!({ "why": why }))
            }
            Change::RevokeGrant { user, grant, why, .. } => {
                let path = ["users", user, "grants", &grant.to_string(), "revoke"];
                self.tell(Method::POST, &path, &json!({ "why": why }))
            }
            Change::Grant { user, amount, expires_at, why, key, .. } => {
                let body = json!({ "amount": amount, "expiresAt": expires_at, "why": why });
                self.tell_once(&["users", user, "grants"], &body, key)
            }
            Change::Adjust { user, key, .. } => self.tell_once(&["users", user, "adjustments"], &body_of(change), key),
            Change::SetRates { rates, .. } => {
                let body = serde_json::to_value(rates).map_err(|error| LedgerError::Broken(error.to_string()))?;
                let version = format!("\"{}\"", rates.version);
                self.ask(self.request(Method::PUT, &["rates"]).header(IF_MATCH, version).json(&body))
            }
            Change::SetSettings { settings, .. } => self.tell(Method::PUT, &["ledger", "settings"], &json!(settings)),
            Change::StopJob { job, why, .. } => {
                self.ask(self.of_job(Method::POST, job, &["stop"]).json(&json!({ "why": why })))
            }
            Change::ChargeTokens { job, count, key, .. } => self.of_tokens(job, &json!({ "count": count }), key),
            Change::ReserveTokens { job, count, lasts_ms, key, .. } => {
                self.of_tokens(job, &json!({ "reserve": count, "lastsMs": lasts_ms }), key)
            }
            Change::SettleTokens { job, reservation, count, key, .. } => {
                self.of_tokens(job, &json!({ "reservation": reservation, "count": count }), key)
            }
            Change::Settle { attempt, usage, why, .. } => {
                let body = json!({ "usage": usage, "why": why });
                self.tell(Method::POST, &["attempts", &attempt.to_string(), "settle"], &body)
            }
            Change::RevokeKey { id, .. } => self.ask(self.request(Method::DELETE, &["keys", id])),
            Change::CreateKey { .. } => {
                Err(LedgerError::Refused("the ledger service makes its keys itself".to_owned()))
            }
        }
    }

    fn second_line(&self) -> Option<Box<dyn Ledger>> {
        Some(Box::new(self.clone()))
    }

    fn read(&mut self, query: &Query) -> Result<View, LedgerError> {
        /// A page of jobs.
        #[derive(Deserialize)]
        struct Page {
            jobs: Vec<super::views::JobView>,
            cursor: Option<String>,
        }
        Ok(match query {
            Query::Account { user } => View::Account(Box::new(self.get(&["users", user, "credits"], &[])?)),
            Query::Entries { user, count_max, before } => {
                let mut parameters = vec![("count", count_max.to_string())];
                parameters.extend(before.map(|number| ("before", number.to_string())));
                View::Entries(self.get(&["users", user, "entries"], &parameters)?)
            }
            Query::Jobs { user, kind, running_only, count_max, before } => {
                let mut parameters = vec![("count", count_max.to_string()), ("running", running_only.to_string())];
                parameters.extend(user.iter().map(|user| ("user", user.clone())));
                parameters.extend(kind.iter().map(|kind| ("kind", kind.to_string())));
                parameters.extend(before.iter().map(|before| ("before", before.clone())));
                let Page { jobs, cursor } = self.get(&["jobs"], &parameters)?;
                View::Jobs { jobs, cursor }
            }
            Query::Job { job } => View::Job(Some(self.ask(self.of_job(Method::GET, job, &[]))?)),
            Query::Stopped { job, .. } => View::Stopped(self.ask(self.of_job(Method::GET, job, &["stopped"]))?),
            Query::AttemptStop { attempt, wait_ms } => {
                let asked = self.request(Method::GET, &["attempts", &attempt.to_string(), "stopped"]);
                let most = ANSWER_MAX + Duration::from_millis(*wait_ms);
                View::Stopped(self.ask(asked.query(&[("waitMs", wait_ms)]).timeout(most))?)
            }
            Query::Keys { .. } => View::Keys(self.get(&["keys"], &[])?),
            Query::Usage { whose, range } => {
                let mut parameters = vec![("by", range.by.as_str().to_owned())];
                for (name, at_s) in [("from", range.from_s), ("to", range.to_s)] {
                    // What has no end is not said.
                    let time = jiff::Timestamp::from_second(at_s).ok();
                    parameters.extend(time.map(|time| (name, time.to_string())));
                }
                let path = match whose {
                    Whose::User(user) => vec!["users", user, "usage"],
                    Whose::All => vec!["usage"],
                };
                View::Usage(self.get(&path, &parameters)?)
            }
            Query::Rates => View::Rates(self.get(&["rates"], &[])?),
            Query::Settings => View::Settings(self.get(&["ledger", "settings"], &[])?),
            Query::Figures | Query::UsageOfEach { .. } => return Err(LedgerError::unasked()),
            Query::Verify => View::Verified(self.get(&["ledger", "verify"], &[])?),
        })
    }

    fn new_key(&mut self, key: &super::views::NewKey) -> Result<Secret, LedgerError> {
        /// The only answer that holds a key.
        #[derive(Deserialize)]
        struct Made {
            key: String,
        }
        let mut body = json!({ "name": key.name, "scope": key.scope, "user": key.user });
        // What is not said is left out: a service of before refuses what it does not know.
        let more = [
            ("principal", key.principal.as_ref().map(|of| json!(of))),
            ("expiresAt", key.expires_at.map(|at| json!(at))),
        ];
        for (name, value) in more.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            body.as_object_mut().map(|fields| fields.insert(name.to_owned(), value));
        }
        let Made { key } = self.ask(self.request(Method::POST, &["keys"]).json(&body))?;
        key.parse().map_err(LedgerError::Broken)
    }
}
