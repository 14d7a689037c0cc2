//! Figures for Prometheus.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::http::Method;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::ended::{EndedMetrics, Labels};
use crate::ledger::protocol::{Finish, FinishAnswer};

/// What is counted.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    registry: Arc<Registry>,
    requests: Family<Labels, Counter>,
    transactions: Counter,
    transaction_seconds: Histogram,
    reports: Counter<u64, AtomicU64>,
    alerts: Family<Labels, Counter>,
    ended: EndedMetrics,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("jobmeter");
        let requests = Family::<Labels, Counter>::default();
        let (transactions, reports) = (Counter::default(), Counter::default());
        let transaction_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 12));
        registry.register("http_requests", "Requests, by method and status", requests.clone());
        registry.register("transactions", "Transactions of the writer", transactions.clone());
        registry.register("transaction_seconds", "How long they took, in seconds", transaction_seconds.clone());
        registry.register("reports", "Reports that were posted", reports.clone());
        let alerts = Family::<Labels, Counter>::default();
        registry.register("alerts", "Alerts to the webhook, by whether they arrived", alerts.clone());
        let ended = EndedMetrics::new(&mut registry);
        let info = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Which jobmeter this is", info);
        Self { registry: Arc::new(registry), requests, transactions, transaction_seconds, reports, alerts, ended }
    }

    /// What somebody makes up is no label: there is no end of that.
    pub(super) fn answered(&self, method: &Method, status: u16) {
        let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS];
        let method = if known.contains(method) { method.as_str() } else { "other" };
        let labels = vec![("method", method.to_owned()), ("status", status.to_string())];
        self.requests.get_or_create(&labels).inc();
    }

    pub(super) fn posted(&self, took_us: u64) {
        self.transactions.inc();
        self.transaction_seconds.observe(std::time::Duration::from_micros(took_us).as_secs_f64());
    }

    pub(super) fn reported(&self) {
        self.reports.inc();
    }

    pub(super) fn alerted(&self, arrived: bool) {
        self.alerts.get_or_create(&vec![("arrived", arrived.to_string())]).inc();
    }

    /// An attempt has ended; once, however often that is said.
    pub(super) fn ended(&self, finish: &Finish, answer: &FinishAnswer) {
        if !answer.again {
            self.ended.count(finish, answer.overshoot);
        }
    }

    /// In the text format of OpenMetrics, with what the books say.
    pub(super) fn text(&self, figures: &str) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        encode(&mut text, &self.registry).ok();
        text.truncate(text.trim_end().strip_suffix("# EOF").map_or(text.len(), str::len));
        text.push_str(figures);
        text.push_str("# EOF\n");
        text
    }
}
