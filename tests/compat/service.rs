//! Today's service on a database, asked as a program asks it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::station::Station;

pub(crate) struct Service {
    child: Child,
    pub(crate) url: String,
    client: reqwest::blocking::Client,
}

/// A status, the type of the body, and the body: text where it is no JSON.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) body: Value,
}

impl Service {
    /// On the ledger of a station, whose first admin key comes into the file `admin-key` where it has none.
    pub(crate) fn start(station: &Station) -> Self {
        let (db, key) = (station.path("ledger.db"), station.path("admin-key"));
        let mut command = station.command(&["serve", "--listen", "127.0.0.1:0", "--db", db.to_str().unwrap()]);
        command.args(["--admin-key-file", key.to_str().unwrap()]).env("JOBMETER_LEDGER", "http://127.0.0.1:1");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut told = String::new();
        log.read_line(&mut told).unwrap();
        let url = serde_json::from_str::<Value>(&told).ok().and_then(|line| Some(line["url"].as_str()?.to_owned()));
        let url = url.unwrap_or_else(|| panic!("the service says no address: {told}"));
        // What it says later must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        rustls::crypto::ring::default_provider().install_default().ok();
        Self { child, url, client: reqwest::blocking::Client::new() }
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::blocking::RequestBuilder {
        self.client.request(method.parse().unwrap(), format!("{}{path}", self.url))
    }

    pub(crate) fn ask(&self, key: &str, method: &str, path: &str, body: &str) -> Response {
        let request = self.request(method, path).bearer_auth(key).header("idempotency-key", "k");
        answered(request.body(body.to_owned()))
    }
}

pub(crate) fn answered(request: reqwest::blocking::RequestBuilder) -> Response {
    let response = request.send().unwrap();
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").map_or("", |kind| kind.to_str().unwrap()).to_owned();
    let text = response.text().unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Response { status, kind, body }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
