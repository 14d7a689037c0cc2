//! Whether a service is ready, and what strangers are told of it.

use jobmeter::ledger::store::Store;
use jobmeter::ledger::store::sqlite::Sqlite;
use jobmeter::sys::clock::SystemClock;

use crate::service::Service;
use crate::station::awaited;

/// Ready is who can commit, and strangers are not told why somebody cannot.
#[test]
fn a_service_that_cannot_write_is_not_ready() {
    let service = Service::start();
    assert_eq!(reqwest::blocking::get(format!("{}/readyz", service.url)).unwrap().status(), 200);
    let db = service.station.path("service.db");
    let mut other = Sqlite::open(&db, Box::new(SystemClock)).unwrap();
    other.begin().unwrap();
    let told = awaited(|| {
        let answer = reqwest::blocking::get(format!("{}/readyz", service.url)).unwrap();
        if answer.status() == 503 { Ok(answer.text().unwrap()) } else { Err(answer.status().to_string()) }
    });
    assert!(told.contains("not ready") && !told.contains("service.db"), "{told}");
    assert_eq!(reqwest::blocking::get(format!("{}/healthz", service.url)).unwrap().status(), 200);
    other.rollback();
    awaited(|| match reqwest::blocking::get(format!("{}/readyz", service.url)).unwrap().status() {
        status if status == 200 => Ok(()),
        status => Err(status.to_string()),
    });
    let made_up = reqwest::Method::from_bytes(b"SPIN").unwrap();
    reqwest::blocking::Client::new().request(made_up, format!("{}/healthz", service.url)).send().unwrap();
    let metrics = reqwest::blocking::get(format!("{}/metrics", service.url)).unwrap().text().unwrap();
    assert!(metrics.contains("method=\"other\"") && !metrics.contains("SPIN"), "{metrics}");
}
