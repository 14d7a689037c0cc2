//! The suite on PostgreSQL: a cluster of our own, and a database for each test.

#![allow(clippy::pedantic, clippy::print_stdout, reason = "a test, not an interface")]

#[path = "../suite/mod.rs"]
mod suite;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::sys::clock::pause;

/// The name of a database. It goes with its cluster.
#[derive(Debug)]
struct Place(#[expect(dead_code, reason = "for who looks at a failed test")] String);

/// Where the programs of PostgreSQL are, the newest version first.
fn programs() -> Option<PathBuf> {
    let found = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = found.map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    versions.into_iter().rev().find(|path| path.join("initdb").exists())
}

/// A command as the user that PostgreSQL runs as: not root. Its end comes with this process's.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if nix::unistd::geteuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig=KILL", "--"]).arg(program).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Where the cluster listens: a socket in its directory.
fn cluster() -> &'static PathBuf {
    static CLUSTER: OnceLock<PathBuf> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let programs = programs().expect("PostgreSQL is missing: apt-get install postgresql");
        let directory = std::env::temp_dir().join(format!("jobmeter-postgres-{}", std::process::id()));
        remove_old();
        std::fs::create_dir(&directory).unwrap();
        if nix::unistd::geteuid().is_root() {
            let user = nix::unistd::User::from_name("postgres").unwrap().expect("the user postgres");
            nix::unistd::chown(&directory, Some(user.uid), Some(user.gid)).unwrap();
        }
        let (data, socket) = (directory.join("data"), directory.clone());
        let started = directory.clone();
        // The death signal comes when the thread ends that started it, which a test's may.
        std::thread::spawn(move || {
            let made = as_postgres(&programs.join("initdb"))
                .args(["--no-sync", "--auth=trust", "--username=jobmeter", "--encoding=UTF8", "-D"])
                .arg(&data)
                .status();
            assert!(made.unwrap().success(), "initdb failed");
            let mut server = as_postgres(&programs.join("postgres"))
                .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200"])
                .arg("-D")
                .arg(&data)
                .arg("-k")
                .arg(&socket)
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            server.wait().ok();
        });
        for _ in 0..20_000 {
            if Postgres::open(&url(&started, "postgres"), None).is_ok() {
                return started;
            }
            pause(Duration::from_millis(1));
        }
        panic!("PostgreSQL did not start");
    })
}

/// The clusters of test runs that are over.
fn remove_old() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("jobmeter-postgres-").and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}

fn url(directory: &Path, database: &str) -> String {
    format!("host={} user=jobmeter dbname={database}", directory.display())
}

fn store_for_tests(clock: Box<dyn Clock>) -> (Place, Box<dyn Store>) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let directory = cluster();
    let name = format!("world_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let mut first = Postgres::open(&url(directory, "postgres"), None).unwrap();
    first.batch(&format!("CREATE DATABASE {name}")).unwrap();
    let place = Place(name.clone());
    (place, Box::new(Postgres::open(&url(directory, &name), Some(clock)).unwrap()))
}
