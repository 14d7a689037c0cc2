//! A ledger service on a port that is free, and who asks it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::blocking::{Client, Response};
use serde_json::Value;

use crate::machine::Machine;
use crate::station::within;

/// What of an answer's head says something to who asked.
const HEADERS: [&str; 6] =
    ["location", "www-authenticate", "retry-after", "content-disposition", "content-security-policy", "set-cookie"];

/// The service, and a machine that knows its address and the first key.
pub(crate) struct Service {
    pub(crate) machine: Machine,
    child: Child,
    pub(crate) url: String,
    /// The keys by the names under which they were made.
    keys: Vec<(String, String)>,
    log: Arc<Mutex<Vec<String>>>,
}

/// A request: `PUT /path` by whom, with what.
pub(crate) struct Ask<'a> {
    pub(crate) by: &'a str,
    pub(crate) what: &'a str,
    pub(crate) body: String,
    pub(crate) headers: &'a [(&'a str, &'a str)],
}

impl<'a> Ask<'a> {
    pub(crate) fn new(by: &'a str, what: &'a str, body: impl Into<String>) -> Self {
        Self { by, what, body: body.into(), headers: &[("idempotency-key", "k")] }
    }
}

impl Service {
    /// On the file `service.db`, with more options.
    pub(crate) fn start(options: &str) -> Self {
        let mut machine = Machine::new();
        let line = format!("jobmeter serve --db $DIR/service.db --listen 127.0.0.1:0 {options}");
        let mut child = machine.command(line.trim_end()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let first = lines.next().expect("a first line");
        let told: Value = serde_json::from_str(&first).unwrap_or_else(|_| panic!("{first}"));
        let url = told["url"].as_str().unwrap_or_else(|| panic!("{first}")).to_owned();
        let log = Arc::new(Mutex::new(vec![first]));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || lines.for_each(|line| kept.lock().expect("a lock").push(line)));
        let key = std::fs::read_to_string(machine.path("service.db.admin-key")).expect("a key").trim().to_owned();
        machine.known.learn(url.split("://").nth(1).expect("an address"), "<address>");
        machine.set("JOBMETER_LEDGER", &url);
        let mut service = Self { machine, child, url, keys: Vec::new(), log };
        service.learn("first", key);
        service.act_as("first");
        service
    }

    fn learn(&mut self, name: &str, key: String) {
        let id = key.split('_').nth(1).expect("an id").to_owned();
        self.machine.known.learn(key.clone(), &format!("<key {name}>"));
        self.machine.known.learn(id, &format!("<id of key {name}>"));
        self.keys.push((name.to_owned(), key));
    }

    /// A key that can be named from now on.
    pub(crate) fn make_key(&mut self, name: &str, options: &str) {
        let made = self.machine.ok(format!("jobmeter key create {name} {options}").trim_end());
        self.learn(name, made.out.trim().to_owned());
    }

    /// The command line shows this key from now on.
    pub(crate) fn act_as(&mut self, name: &str) {
        let key = self.key(name).to_owned();
        self.machine.set("JOBMETER_KEY", &key);
    }

    pub(crate) fn key(&self, name: &str) -> &str {
        let found = self.keys.iter().find(|(known, _)| known == name);
        found.map(|(_, key)| key.as_str()).unwrap_or_else(|| panic!("no key {name}"))
    }

    /// One for all, since to make one takes as long as some requests.
    fn client() -> &'static Client {
        static CLIENT: OnceLock<Client> = OnceLock::new();
        CLIENT.get_or_init(|| {
            rustls::crypto::ring::default_provider().install_default().ok();
            let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
            client.expect("a client")
        })
    }

    /// An empty name shows no key; one that is unknown is shown as it is.
    pub(crate) fn send(&self, ask: &Ask) -> Response {
        let (method, path) = ask.what.split_once(' ').expect("a method and a path");
        let method = method.parse().expect("a method");
        let mut request = Self::client().request(method, format!("{}{path}", self.url)).body(ask.body.clone());
        if !ask.by.is_empty() {
            let key = self.keys.iter().find(|(name, _)| name == ask.by).map_or(ask.by, |(_, key)| key);
            request = request.bearer_auth(key);
        }
        for (name, value) in ask.headers {
            request = request.header(*name, *value);
        }
        request.send().expect("an answer")
    }

    /// What has to work for a test to make sense.
    pub(crate) fn does(&self, by: &str, what: &str, body: &Value) -> Value {
        let response = self.send(&Ask::new(by, what, body.to_string()));
        let (status, text) = (response.status(), response.text().expect("a text"));
        assert!(status.is_success(), "{what}: {status} {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The request and its answer.
    pub(crate) fn exchange(&self, ask: &Ask) -> String {
        let who = if ask.by.is_empty() { "no key" } else { ask.by };
        let response = self.send(ask);
        let body = if ask.body.len() > 400 { format!("({} bytes)", ask.body.len()) } else { ask.body.clone() };
        let mut text = format!("> {}, by {who}\n", ask.what);
        if !body.is_empty() {
            text.push_str(&format!("> {body}\n"));
        }
        text.push_str(&self.answered(response));
        self.machine.known.in_text(&text)
    }

    /// Status, head and body of an answer.
    pub(crate) fn answered(&self, response: Response) -> String {
        let header = |name: &str| Some(response.headers().get(name)?.to_str().expect("a text").to_owned());
        let kind = header("content-type").unwrap_or_else(|| "no content".to_owned());
        let mut text = format!("{} {kind}\n", response.status().as_u16());
        for name in HEADERS {
            text.extend(header(name).map(|value| format!("{name}: {value}\n")));
        }
        let body = response.text().expect("a text");
        let body = match serde_json::from_str::<Value>(&body) {
            Ok(document) => self.machine.known.in_json(&document, self.machine.keys),
            Err(_) => body,
        };
        text.push_str(&self.machine.known.in_text(&body));
        text.trim_end().to_owned() + "\n"
    }

    pub(crate) fn exchanges(&self, asks: &[Ask]) -> String {
        asks.iter().map(|ask| self.exchange(ask)).collect::<Vec<_>>().join("\n")
    }

    /// Tells it to stop, and waits for that: what it has logged.
    pub(crate) fn stop(mut self) -> Vec<String> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal");
        self.child.wait().expect("an end");
        let said = || self.log.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let has_ended = || said().iter().any(|line| line.contains("Stopped."));
        assert!(within(Duration::from_secs(60), has_ended), "{:?}", said());
        said()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
