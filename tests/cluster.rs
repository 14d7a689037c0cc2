//! A PostgreSQL of our own: on a socket in a directory of its own, and gone with the process that started it.

#[path = "janitor.rs"]
mod janitor;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Where the programs of PostgreSQL are, the newest version first.
fn programs() -> Option<PathBuf> {
    let found = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = found.map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    versions.into_iter().rev().find(|path| path.join("initdb").exists())
}

/// A command as the user that PostgreSQL runs as: not root. Its end comes with this process's.
fn as_postgres(program: &Path, end: &str) -> Command {
    let mut command = Command::new("setpriv");
    if nix::unistd::geteuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg(format!("--pdeathsig={end}")).arg("--").arg(program).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

type Server = std::thread::JoinHandle<ExitStatus>;

/// Runs a server on a data directory, until it or this process ends.
fn run(data: PathBuf, socket: PathBuf, settings: &'static [&'static str]) -> Server {
    // The death signal comes when the thread ends that started it, which a test's may. Of SIGKILL its shared memory stays.
    std::thread::spawn(move || {
        let log = std::fs::File::options().create(true).append(true).open(socket.join("log")).unwrap();
        let mut command = as_postgres(&programs().expect("PostgreSQL").join("postgres"), "QUIT");
        for setting in [&["listen_addresses=", "max_connections=200"], settings].concat() {
            command.args(["-c", setting]);
        }
        // By DIR the janitor finds it.
        command.env("DIR", &socket).arg("-D").arg(data).arg("-k").arg(socket).stderr(log);
        command.spawn().unwrap().wait().unwrap()
    })
}

/// Starts take seconds on a busy machine; only a server that hangs takes this.
const UP_MAX: Duration = Duration::from_secs(120);

fn await_up(directory: &Path, server: &Server, is_up: impl Fn(&str) -> bool) {
    let start = Instant::now();
    while !is_up(&url(directory, "postgres")) {
        let log = || std::fs::read_to_string(directory.join("log")).unwrap_or_default();
        assert!(!server.is_finished(), "PostgreSQL has ended: {}", log());
        assert!(start.elapsed() < UP_MAX, "PostgreSQL did not start within {UP_MAX:?}: {}", log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A new cluster's directory, with its socket and log; its data is in `data`.
fn make() -> tempfile::TempDir {
    let programs = programs().expect("PostgreSQL is missing: apt-get install postgresql");
    let directory = tempfile::Builder::new().prefix("jobmeter-postgres-").tempdir().unwrap();
    janitor::takes(directory.path());
    if nix::unistd::geteuid().is_root() {
        let user = nix::unistd::User::from_name("postgres").unwrap().expect("the user postgres");
        nix::unistd::chown(directory.path(), Some(user.uid), Some(user.gid)).unwrap();
    }
    let made = as_postgres(&programs.join("initdb"), "KILL")
        .args(["--no-sync", "--auth=trust", "--username=jobmeter", "--encoding=UTF8", "-D"])
        .arg(directory.path().join("data"))
        .status();
    assert!(made.unwrap().success(), "initdb failed");
    directory
}

/// The directory of this process's cluster, with its socket; `is_up` tries to connect to it.
#[allow(dead_code, reason = "each test binary uses a part of it")]
pub(crate) fn start(is_up: impl Fn(&str) -> bool) -> &'static PathBuf {
    static CLUSTER: OnceLock<PathBuf> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        // The janitor takes it away.
        let directory = make().keep();
        let server = run(directory.join("data"), directory.clone(), &["fsync=off"]);
        await_up(&directory, &server, is_up);
        directory
    })
}

/// A cluster that is stopped under way, and started again; it syncs, as a real one does.
#[allow(dead_code, reason = "each test binary uses a part of it")]
pub(crate) struct Fragile {
    directory: tempfile::TempDir,
    server: Option<Server>,
}

#[allow(dead_code, reason = "each test binary uses a part of it")]
impl Fragile {
    pub(crate) fn start(is_up: impl Fn(&str) -> bool) -> Self {
        let mut cluster = Self { directory: make(), server: None };
        cluster.again(is_up);
        cluster
    }

    pub(crate) fn url(&self) -> String {
        url(self.directory.path(), "postgres")
    }

    /// Starts it, and waits until it is up.
    pub(crate) fn again(&mut self, is_up: impl Fn(&str) -> bool) {
        let directory = self.directory.path();
        let server = self.server.insert(run(directory.join("data"), directory.to_owned(), &[]));
        await_up(directory, server, is_up);
    }

    /// As `pg_ctl stop -m immediate`: nothing is written that was not.
    pub(crate) fn stop_immediately(&mut self) {
        let Some(server) = self.server.take() else { return };
        let file = std::fs::read_to_string(self.directory.path().join("data/postmaster.pid")).unwrap_or_default();
        if let Some(pid) = file.lines().next().and_then(|line| line.parse().ok()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGQUIT).ok();
        }
        server.join().ok();
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        self.stop_immediately();
    }
}

/// A copy of the cluster as it is now, which will be recovered from it and goes on by itself, as after a point-in-time
/// recovery or a fail-over. It is started by the function that comes back.
#[allow(dead_code, reason = "each test binary uses a part of it")]
pub(crate) fn copied(directory: &Path, is_up: impl Fn(&str) -> bool) -> impl FnOnce() -> PathBuf {
    let copy = directory.join("copy");
    let made = as_postgres(&programs().expect("PostgreSQL").join("pg_basebackup"), "KILL")
        .args(["--username=jobmeter", "--checkpoint=fast", "--wal-method=stream", "-h"])
        .arg(directory)
        .arg("-D")
        .arg(&copy)
        .status();
    assert!(made.unwrap().success(), "pg_basebackup failed");
    std::fs::write(copy.join("recovery.signal"), "").unwrap();
    move || {
        let server = run(copy.clone(), copy.clone(), &["fsync=off", "hot_standby=off", "restore_command=false"]);
        await_up(&copy, &server, is_up);
        copy
    }
}

/// A database of it.
pub(crate) fn url(directory: &Path, database: &str) -> String {
    let host = directory.display().to_string().replace('/', "%2F");
    format!("postgres://jobmeter@{host}/{database}")
}
