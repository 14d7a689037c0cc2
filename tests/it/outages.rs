//! What a running job survives: outages of its ledger.

use std::process::{Child, Stdio};

use nix::sys::signal::Signal;

use crate::service::{Service, receipt};
use crate::station::{awaited, ended, line_of, micros, nano};

/// A job that burns until there is a file of this name.
fn burning(service: &Service, key: &str, user: &str, until: &str) -> Child {
    let line = format!("echo ready; while [ ! -e {} ]; do :; done", service.station.path(until).display());
    let run = ["--user", user, "run", "--hold", "1s", "--job", user, "--", "sh", "-c", &line];
    let mut command = service.command(key, &run);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(line_of(child.stdout.as_mut().unwrap()), "ready");
    child
}

/// The service is killed for longer than a lease lasts. A job without a limit goes on, and all that it burned is charged afterwards, once;
/// one with a limit is stopped.
#[test]
fn without_a_limit_a_job_outlives_any_outage() {
    let mut service = Service::start();
    service.json(&["ledger", "set", "--lease", "5s"]);
    service.json(&["--user", "free", "account", "limit", "none"]);
    service.json(&["--user", "ann", "account", "limit", "1000"]);
    let key = service.key(&["worker"]);
    let mut free = burning(&service, &key, "free", "go");
    let mut limited = burning(&service, &key, "ann", "never");
    for user in ["free", "ann"] {
        awaited(|| match service.json(&["--user", user, "account", "show"])["account"]["current"].as_f64() {
            Some(charged) if charged > 0.0 => Ok(()),
            charged => Err(format!("{charged:?}")),
        });
    }
    service.signal(Signal::SIGKILL);
    assert!(!ended(&mut limited).success());
    assert!(free.try_wait().unwrap().is_none(), "it was stopped by silence");
    service.again();
    std::fs::write(service.station.path("go"), "").unwrap();
    assert!(ended(&mut free).success());
    let job = service.json(&["jobs", "show", "free"]);
    let told = receipt(&job);
    assert_eq!(told["outcome"]["reason"], "completed", "{job}");
    let cpu_us = i64::try_from(micros(&told["cpu"]["total_seconds"])).unwrap();
    assert!(micros(&told["time"]["wall_seconds"]) > 5_000_000, "{told}");
    // A quarter of a nanocredit for each µs.
    assert_eq!((nano(&job["charged"]["total"]), nano(&job["overshoot"])), (cpu_us / 4, 0));
    assert_eq!(service.json(&["--user", "free", "account", "show"])["account"]["current"], job["charged"]["total"]);
    let flushed = service.call(&key, &["spool", "flush"]);
    assert_eq!(flushed.status, 0, "{flushed:?}");
    assert_eq!(receipt(&service.json(&["jobs", "show", "ann"]))["outcome"]["reason"], "lease_expired");
    service.verify();
}
