//! Faults of real processes under load: the service killed, PostgreSQL stopped, connections cut and delayed, the disk full.
//! After each the books hold every receipt, to the nanocredit. `FAULTS=100 cargo test --test it faults` does it so often.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cluster;
use crate::proxy::Proxy;
use crate::service::Service;
use crate::station::{Called, Station, awaited, ended, line_of, micros, nano, skip};

fn faults(default: usize) -> usize {
    std::env::var("FAULTS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn pause_ms(ms: u64) {
    jobmeter::sys::clock::pause(Duration::from_millis(ms));
}

/// Jobs that burn until they are let go, each with its id.
fn burning(service: &Service, url: &str, count: usize) -> Vec<(String, Child)> {
    let line = "echo ready; while [ ! -e $DIR/go ]; do :; done";
    let start = |at: usize| {
        let job = format!("burner-{at}");
        let mut command = service.command(&service.admin, &["run", "-q", "--job", &job, "--", "bash", "-c", line]);
        command.env("JOBMETER_LEDGER", url).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        assert_eq!(line_of(child.stdout.as_mut().unwrap()), "ready");
        (job, child)
    };
    (0..count).map(start).collect()
}

/// Lets them go; whatever did not arrive is sent, and then each was charged what its kernel counted.
fn settled(service: &Service, url: &str, jobs: Vec<(String, Child)>) {
    std::fs::write(service.station.path("go"), "").unwrap();
    for (job, mut child) in jobs {
        assert_eq!(ended(&mut child).code(), Some(0), "{job} was stopped");
        // A last word that was lost on its way is kept.
        let mut flush = service.command(&service.admin, &["spool", "flush"]);
        flush.env("JOBMETER_LEDGER", url);
        let shown = awaited(|| {
            let shown = service.json(&["jobs", "show", &job]);
            if shown["state"] == "ended" {
                return Ok(shown);
            }
            let flushed: Called = flush.output().unwrap().into();
            pause_ms(100);
            Err(format!("the last word of {job} has not arrived: {flushed:?}"))
        });
        let attempt: &Value = &shown["attempts"][0];
        let cpu_us = micros(&attempt["receipt"]["cpu"]["total_seconds"]);
        assert!(cpu_us > 0);
        assert_eq!(nano(&shown["charged"]["total"]), i64::try_from(cpu_us).unwrap() / 4, "{job}");
        assert_eq!(nano(&shown["overshoot"]), 0, "{job}");
    }
    let account = service.json(&["status"]);
    assert_eq!((nano(&account["held"]), nano(&account["provisional"])), (0, 0), "{account}");
    service.verify();
}

#[test]
fn a_service_that_is_killed_again_and_again_behind_a_bad_line() {
    let mut service = Service::start();
    let proxy = Proxy::start(&service.address());
    // A job whose first question is lost does not start.
    let jobs = burning(&service, &proxy.url, 4);
    proxy.spoil();
    for fault in 0..faults(6) {
        pause_ms(150 + 37 * (fault as u64 % 11));
        service.signal(Signal::SIGKILL);
        service.again();
    }
    // Enough is said for a cut, whatever chance says.
    let mut command = service.command(&service.admin, &["status"]);
    command.env("JOBMETER_LEDGER", &proxy.url);
    awaited(|| {
        let called: Called = command.output().unwrap().into();
        if proxy.cuts() > 0 { Ok(()) } else { Err(format!("nothing was cut: {called:?}")) }
    });
    settled(&service, &proxy.url.clone(), jobs);
}

#[test]
fn a_database_that_is_stopped_again_and_again() {
    let is_up = |url: &str| url.parse::<jobmeter::ledger::location::Location>().unwrap().connect().is_ok();
    let mut cluster = cluster::Fragile::start(is_up);
    let service = Service::with(&["--db", &cluster.url()]);
    let url = service.url.clone();
    let jobs = burning(&service, &url, 4);
    for fault in 0..faults(2).min(20) {
        pause_ms(300 + 53 * (fault as u64 % 7));
        cluster.stop_immediately();
        pause_ms(200);
        cluster.again(is_up);
    }
    settled(&service, &url, jobs);
}

/// A small file system in memory.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        let (none, small) = (nix::mount::MsFlags::empty(), Some("size=6m"));
        nix::mount::mount(Some("tmpfs"), &path, Some("tmpfs"), none, small).expect("a small disk");
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).ok();
    }
}

/// What becomes of a change of the books.
fn granted(service: &Service) -> Called {
    service.call(&service.admin, &["account", "grant", "1", "--why", "w"])
}

#[test]
fn a_disk_that_is_full_for_a_while() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can mount a small disk");
    }
    let place = Station::new();
    let disk = Disk::mount(place.path("disk"));
    let db = disk.0.join("l.db");
    let service = Service::with(&["--db", db.to_str().unwrap()]);
    let url = service.url.clone();
    let jobs = burning(&service, &url, 2);
    let mut full = std::fs::File::create(disk.0.join("full")).unwrap();
    while std::io::Write::write_all(&mut full, &[0; 4096]).is_ok() {}
    // What was free in the books' own pages is used up first.
    let refused = awaited(|| match granted(&service) {
        called if called.status == 0 => Err("there is room still".to_owned()),
        called => Ok(called),
    });
    assert_eq!(refused.status, 75, "{refused:?}");
    // For a while: time is what is tested.
    pause_ms(1_500);
    drop(full);
    std::fs::remove_file(disk.0.join("full")).unwrap();
    awaited(|| match granted(&service) {
        called if called.status == 0 => Ok(()),
        called => Err(format!("{called:?}")),
    });
    settled(&service, &url, jobs);
}
