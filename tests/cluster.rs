//! A PostgreSQL of our own: on a socket in a directory of its own, and gone with the process that started it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

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

/// The directory of this process's cluster, with its socket; `is_up` tries to connect to it.
pub(crate) fn start(is_up: impl Fn(&str) -> bool) -> &'static PathBuf {
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
        for _ in 0..1_000_000 {
            if is_up(&url(&started, "postgres")) {
                return started;
            }
            std::thread::yield_now();
        }
        panic!("PostgreSQL did not start");
    })
}

/// A copy of the cluster as it is now, which will be recovered from it and goes on by itself, as after a point-in-time
/// recovery or a fail-over. It is started by the function that comes back.
#[allow(dead_code, reason = "each test binary uses a part of it")]
pub(crate) fn copied(directory: &Path, is_up: impl Fn(&str) -> bool) -> impl FnOnce() -> PathBuf {
    let programs = programs().expect("PostgreSQL");
    let copy = directory.join("copy");
    let made = as_postgres(&programs.join("pg_basebackup"))
        .args(["--username=jobmeter", "--checkpoint=fast", "--wal-method=stream", "-h"])
        .arg(directory)
        .arg("-D")
        .arg(&copy)
        .status();
    assert!(made.unwrap().success(), "pg_basebackup failed");
    std::fs::write(copy.join("recovery.signal"), "").unwrap();
    move || {
        let socket = copy.clone();
        std::thread::spawn(move || {
            let mut server = as_postgres(&programs.join("postgres"))
                .args([
                    "-c",
                    "listen_addresses=",
                    "-c",
                    "fsync=off",
                    "-c",
                    "hot_standby=off",
                    "-c",
                    "restore_command=false",
                    "-D",
                ])
                .arg(&copy)
                .arg("-k")
                .arg(&copy)
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            server.wait().ok();
        });
        for _ in 0..1_000_000 {
            if is_up(&url(&socket, "postgres")) {
                return socket;
            }
            std::thread::yield_now();
        }
        panic!("the copy did not start");
    }
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

/// A database of it.
pub(crate) fn url(directory: &Path, database: &str) -> String {
    let host = directory.display().to_string().replace('/', "%2F");
    format!("postgres://jobmeter@{host}/{database}")
}
