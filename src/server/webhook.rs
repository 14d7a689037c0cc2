//! Alerts on their way to a webhook: CloudEvents 1.0, signed as Standard Webhooks 1.0 says, tried again until they arrive.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Url;
use reqwest::blocking::Client;
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use sha2::Sha256;

use super::metrics::Metrics;
use crate::ledger::LedgerError;
use crate::ledger::book::rows::Alert;
use crate::ledger::location::Location;
use crate::ledger::store::{Store, StoreLedger};
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::trust;

/// New alerts are looked for this often.
const LOOK: Duration = Duration::from_secs(1);
/// A receiver that takes longer is tried again later.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A secret of Standard Webhooks is written so, and the rest is base64.
const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES_MIN: usize = 16;

/// Where alerts go.
#[derive(Clone, Debug)]
pub struct Webhook {
    url: Url,
    secret: Secret,
}

#[derive(Clone)]
struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// The thread that sends; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Sending {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Webhook {
    /// With the secret in a file: `whsec_` and base64, or any text.
    ///
    /// # Errors
    /// Where the URL or the secret cannot be used; for people.
    pub fn new(url: &str, secret_file: &Path) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| format!("the webhook {url:?} is no URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("the webhook {url} must begin with https:// or http://"));
        }
        let told = |why: String| format!("the webhook's secret {}: {why}", secret_file.display());
        let text = trust::read_to_string(secret_file).map_err(|why| told(why.to_string()))?;
        let text = text.trim();
        let secret = match text.strip_prefix(SECRET_PREFIX) {
            Some(coded) => STANDARD.decode(coded).map_err(|error| told(format!("it is no base64: {error}")))?,
            None => text.as_bytes().to_vec(),
        };
        if secret.len() < SECRET_BYTES_MIN {
            return Err(told(format!(
                "it has {} bytes, and needs {SECRET_BYTES_MIN}: make one by `openssl rand -base64 24 | sed s/^/whsec_/`",
                secret.len()
            )));
        }
        Ok(Self { url, secret: Secret(secret) })
    }

    /// `v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`.
    fn signature(&self, id: &str, at_s: i64, body: &[u8]) -> String {
        // A key of any length is taken.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret.0) else { return String::new() };
        mac.update(format!("{id}.{at_s}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }

    /// Starts to send, with a connection of its own to the database.
    ///
    /// # Errors
    /// Where no thread or no client can be had; for people.
    pub(super) fn start(self, db: Location, metrics: Metrics) -> Result<Sending, String> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("webhook".to_owned()).spawn(move || {
            // Made here, since it has an event loop of its own, which must not begin or end inside of another.
            let client = Client::builder()
                .timeout(ANSWER_MAX)
                .redirect(Policy::none())
                .user_agent(concat!("jobmeter/", env!("CARGO_PKG_VERSION")))
                .build();
            match client {
                Ok(client) => self.send_all(&client, &db, &metrics, &stopped),
                Err(error) => tracing::error!(%error, "No client for the webhook can be made."),
            }
        });
        let thread = thread.map_err(|error| format!("no thread can be started: {error}"))?;
        Ok(Sending { stop: Some(stop), thread: Some(thread) })
    }

    fn send_all(&self, client: &Client, db: &Location, metrics: &Metrics, stopped: &Receiver<()>) {
        let mut ledger: Option<StoreLedger<Box<dyn Store>>> = None;
        while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            if ledger.is_none() {
                ledger = db.existing_store().ok().map(StoreLedger::new);
            }
            let Some(open) = &mut ledger else { continue };
            if let Err(error) = self.send_due(client, open, metrics, stopped) {
                // What was taken and not said to be sent comes again.
                tracing::warn!(%error, "Alerts cannot be read from the books, or told to them.");
                ledger = None;
            }
        }
    }

    fn send_due(
        &self,
        client: &Client,
        ledger: &mut StoreLedger<Box<dyn Store>>,
        metrics: &Metrics,
        stopped: &Receiver<()>,
    ) -> Result<(), LedgerError> {
        for alert in ledger.take_alerts()? {
            let sent = self.send(client, &alert);
            metrics.alerted(sent.is_ok());
            match sent {
                Ok(()) => ledger.alerts_sent(std::slice::from_ref(&alert))?,
                Err(why) => {
                    tracing::warn!(
                        user = alert.owner,
                        percent = alert.percent,
                        tries = alert.tries,
                        why,
                        "An alert did not arrive."
                    );
                }
            }
            if stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Empty) {
                break;
            }
        }
        Ok(())
    }

    fn send(&self, client: &Client, alert: &Alert) -> Result<(), String> {
        let id = format!("{}-{}-{}-{}", alert.period, alert.percent, alert.at_us, hex(alert.owner.as_bytes()));
        let body = event(&id, alert).to_string().into_bytes();
        let at_s = SystemClock.realtime_us().div_euclid(1_000_000);
        let request = client
            .post(self.url.clone())
            .header("content-type", "application/cloudevents+json; charset=utf-8")
            .header("webhook-id", &id)
            .header("webhook-timestamp", at_s)
            .header("webhook-signature", self.signature(&id, at_s, &body))
            .body(body);
        // The URL may hold a secret of the receiver's.
        let answer = request.send().map_err(|error| error.without_url().to_string())?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("the webhook answers {status}")) }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Names may hold anything, and headers may not.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn event(id: &str, alert: &Alert) -> Value {
    let kind = if alert.percent >= 100 { "exhausted" } else { "threshold" };
    let time = |us: i64| jiff::Timestamp::from_microsecond(us).map_or_else(|_| String::new(), |time| time.to_string());
    json!({
        "specversion": "1.0",
        "id": id,
        "source": "urn:jobmeter:ledger",
        "type": format!("jobmeter.account.{kind}"),
        "subject": alert.owner,
        "time": time(alert.at_us),
        "datacontenttype": "application/json",
        "data": {
            "user": alert.owner,
            "percent": alert.percent,
            "spent": alert.spent,
            "spendable": alert.spendable,
            "left": alert.left(),
            "periodStart": time(alert.period.saturating_mul(1_000_000)),
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::pedantic, reason = "a test, not an interface")]

    use super::*;

    /// The example of the specification of Standard Webhooks.
    #[test]
    fn signs_as_standard_webhooks_says() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let webhook = Webhook::new("https://example.org/hook", file.path()).unwrap();
        let signature = webhook.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(!format!("{webhook:?}").contains("MfKQ"));
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "short").unwrap();
        assert!(Webhook::new("https://example.org", file.path()).unwrap_err().contains("openssl"));
        std::fs::write(file.path(), "whsec_***").unwrap();
        assert!(Webhook::new("https://example.org", file.path()).unwrap_err().contains("base64"));
        assert!(Webhook::new("ftp://example.org", file.path()).unwrap_err().contains("https://"));
        assert!(Webhook::new("https://example.org", Path::new("/nowhere")).unwrap_err().contains("/nowhere"));
    }
}
