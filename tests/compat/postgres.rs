//! The same ledger on PostgreSQL, restored from a dump.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use jobmeter::ledger::store::StoreLedger;
use jobmeter::ledger::store::postgres::Postgres;
use serde_json::Value;

use crate::cluster;
use crate::fixture::{Version, assert_refused, versions};
use crate::ledger::{assert_says_the_same, assert_shows_the_same_accounts};
use crate::station::{Called, Station, nano, skip};

/// Sends statements to a database, and says what went wrong.
fn send(url: &str, statements: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) =
            tokio_postgres::connect(url, tokio_postgres::NoTls).await.map_err(|error| error.to_string())?;
        let served = tokio::spawn(connection);
        let sent = client.batch_execute(statements).await.map_err(|error| format!("{error:?}"));
        drop(client);
        served.await.unwrap().ok();
        sent
    })
}

/// The cluster of this process; `None` where no PostgreSQL is installed, which is said.
fn cluster() -> Option<&'static PathBuf> {
    let found = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    if !found.into_iter().any(|version| version.path().join("bin/initdb").exists()) {
        skip("PostgreSQL is missing: apt-get install postgresql");
        return None;
    }
    Some(cluster::start(|url| send(url, "SELECT 1").is_ok()))
}

/// A new database with the dump of a version, and a station whose ledger it is.
struct Restored {
    station: Station,
    url: String,
}

impl Restored {
    fn new(cluster: &Path, version: &Version) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("compat_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        send(&cluster::url(cluster, "postgres"), &format!("CREATE DATABASE {name}")).unwrap();
        let url = cluster::url(cluster, &name);
        send(&url, &version.text("postgres/dump.sql")).unwrap_or_else(|error| panic!("{}: {error}", version.name));
        Self { station: Station::new(), url }
    }

    fn call(&self, arguments: &[&str]) -> Called {
        self.station.command(arguments).env("JOBMETER_LEDGER", &self.url).output().unwrap().into()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let called = self.call(&[&["--json"], arguments].concat());
        assert_eq!(called.status, 0, "{arguments:?}: {called:?}");
        serde_json::from_str(&called.out).unwrap()
    }
}

#[test]
fn a_database_says_what_it_said() {
    let Some(cluster) = cluster() else { return };
    for version in versions() {
        let asked = version.answers("postgres/answers.jsonl");
        let restored = Restored::new(cluster, &version);
        assert_says_the_same(&|arguments| restored.json(arguments), &asked);
        let other = Restored::new(cluster, &version);
        assert_shows_the_same_accounts(&asked, |clock| {
            Box::new(StoreLedger::new(Postgres::open(&other.url, Some(clock)).unwrap()))
        });
        // It was asked as of then, and the clock is years ahead of that.
        other.json(&["ledger", "trust-clock", "--why", "the present"]);
        let verified = other.call(&["ledger", "verify"]);
        assert_eq!(verified.status, 0, "{} {verified:?}", version.name);
    }
}

#[test]
fn a_database_goes_on() {
    let Some(cluster) = cluster() else { return };
    for version in versions() {
        let restored = Restored::new(cluster, &version);
        let again = restored.json(&["tokens", "train-1", "1200", "--key", "turn-1"]);
        assert_eq!((again["again"].as_bool(), nano(&again["charged"])), (Some(true), 6_000_000), "{}", version.name);
        // It has been put back, and has noticed: nothing is leased for half a minute, and everything else goes on.
        let granted = restored.json(&["--user", "ann", "account", "grant", "1", "--why", "new"]);
        assert_eq!(granted["again"], false, "{} {granted}", version.name);
        restored.json(&["rates", "set", "--cpu-per-second", "0.0004"]);
        assert_eq!(restored.json(&["rates", "show"])[0]["rates"]["version"], 3, "{}", version.name);
        let attempt = restored.json(&["jobs", "show", "silent-1"])["attempts"][0]["identity"]["attempt"].clone();
        let settled =
            restored.json(&["ledger", "settle", attempt.as_str().unwrap(), "--cpu-seconds", "2.5", "--why", "x"]);
        assert_eq!(nano(&settled["charged"]), 150_000, "{} {settled}", version.name);
        let verified = restored.call(&["ledger", "verify"]);
        assert_eq!(verified.status, 0, "{} {verified:?}", version.name);
    }
}

#[test]
fn a_database_of_a_newer_version_is_refused() {
    let Some(cluster) = cluster() else { return };
    for version in versions() {
        let restored = Restored::new(cluster, &version);
        restored.json(&["rates", "show"]);
        send(&restored.url, "INSERT INTO jobmeter_schema SELECT max(version) + 1 FROM jobmeter_schema").unwrap();
        for arguments in [["ledger", "verify"], ["usage", "--all"]] {
            assert_refused(&restored.call(&arguments), &["a ledger of version", "use a newer jobmeter"]);
        }
    }
}
