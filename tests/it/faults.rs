//! Faults of real processes under load: the service killed, PostgreSQL stopped, connections cut and delayed, the disk full.
//! After each the books hold every receipt, to the nanocredit. `FAULTS=100 cargo test --test it faults` does it so often.

use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cluster;
use crate::proxy::Proxy;
use crate::service::{Service, serve};
use crate::station::{Station, micros, nano, within};

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
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        (job, child)
    };
    (0..count).map(start).collect()
}

/// Lets them go; whatever did not arrive is sent, and then each was charged what its kernel counted.
fn settled(service: &Service, url: &str, jobs: Vec<(String, Child)>) {
    std::fs::write(service.station.path("go"), "").unwrap();
    for (job, mut child) in jobs {
        assert!(within(Duration::from_secs(60), || child.try_wait().unwrap().is_some()), "{job} runs on");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{job} was stopped");
        // A last word that was lost on its way is kept.
        let mut flush = service.command(&service.admin, &["spool", "flush"]);
        flush.env("JOBMETER_LEDGER", url);
        let arrived = within(Duration::from_secs(60), || {
            if service.json(&["jobs", "show", &job])["state"] == "ended" {
                return true;
            }
            flush.output().unwrap();
            pause_ms(100);
            false
        });
        assert!(arrived, "the last word of {job} did not arrive");
        let shown = service.json(&["jobs", "show", &job]);
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
    let jobs = burning(&service, &proxy.url, 4);
    for fault in 0..faults(6) {
        pause_ms(150 + 37 * (fault as u64 % 11));
        service.signal(Signal::SIGKILL);
        service.again();
    }
    // Enough is said for a cut, whatever chance says.
    assert!(within(Duration::from_secs(60), || {
        service.call(&service.admin, &["status"]);
        proxy.cut.load(Ordering::Relaxed) > 0
    }));
    settled(&service, &proxy.url.clone(), jobs);
}

#[test]
fn a_database_that_is_stopped_again_and_again() {
    let is_up = |url: &str| jobmeter::ledger::location::Location::parse(url).connect().is_ok();
    let mut cluster = cluster::Fragile::start("-fragile", is_up);
    let db = cluster::url(&cluster.directory, "postgres");
    let station = Station::new();
    let (child, url) = serve(&station, "127.0.0.1:0", &["--db", &db]);
    let service = Service::at(station, child, url.clone());
    let jobs = burning(&service, &url, 4);
    for fault in 0..faults(2).min(20) {
        pause_ms(300 + 53 * (fault as u64 % 7));
        cluster.stop_immediately();
        pause_ms(200);
        cluster.again();
        assert!(within(Duration::from_secs(30), || is_up(&db)));
    }
    settled(&service, &url, jobs);
}

#[test]
fn a_disk_that_is_full_for_a_while() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can mount a small disk");
        return;
    }
    let station = Station::new();
    let disk = station.path("disk");
    std::fs::create_dir(&disk).unwrap();
    nix::mount::mount(Some("tmpfs"), &disk, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=6m"))
        .expect("a small disk");
    let db = disk.join("l.db");
    let (child, url) = serve(&station, "127.0.0.1:0", &["--db", db.to_str().unwrap()]);
    let service = Service::at(station, child, url.clone());
    let jobs = burning(&service, &url, 2);
    let mut full = std::fs::File::create(disk.join("full")).unwrap();
    while std::io::Write::write_all(&mut full, &[0; 4096]).is_ok() {}
    let mut refused = 0;
    assert!(within(Duration::from_secs(20), || {
        refused = service.call(&service.admin, &["account", "grant", "1", "--why", "w"]).status;
        refused != 0
    }));
    assert_eq!(refused, 75);
    pause_ms(1_500);
    drop(full);
    std::fs::remove_file(disk.join("full")).unwrap();
    assert!(within(Duration::from_secs(20), || {
        service.call(&service.admin, &["account", "grant", "1", "--why", "w"]).status == 0
    }));
    settled(&service, &url, jobs);
    drop(service);
    nix::mount::umount2(&disk, nix::mount::MntFlags::MNT_DETACH).unwrap();
}
