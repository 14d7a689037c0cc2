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

/// Runs a server on a data directory, until it or this process ends.
fn run(data: PathBuf, socket: PathBuf, settings: &'static [&'static str]) -> std::thread::JoinHandle<()> {
    // The death signal comes when the thread ends that started it, which a test's may.
    std::thread::spawn(move || {
        let mut command = as_postgres(&programs().expect("PostgreSQL").join("postgres"));
        for setting in [&["listen_addresses=", "max_connections=200"], settings].concat() {
            command.args(["-c", setting]);
        }
        let mut server = command.arg("-D").arg(data).arg("-k").arg(socket).stderr(Stdio::null()).spawn().unwrap();
        server.wait().ok();
    })
}

fn await_up(directory: &Path, is_up: impl Fn(&str) -> bool) {
    let came_up = (0..1_000_000).any(|_| {
        std::thread::yield_now();
        is_up(&url(directory, "postgres"))
    });
    assert!(came_up, "PostgreSQL did not start");
}

/// A new cluster's directory, with its socket; its data is in `data`.
fn make(name: &str) -> PathBuf {
    let programs = programs().expect("PostgreSQL is missing: apt-get install postgresql");
    let directory = std::env::temp_dir().join(format!("jobmeter-postgres-{}{name}", std::process::id()));
    remove_old();
    std::fs::create_dir(&directory).unwrap();
    if nix::unistd::geteuid().is_root() {
        let user = nix::unistd::User::from_name("postgres").unwrap().expect("the user postgres");
        nix::unistd::chown(&directory, Some(user.uid), Some(user.gid)).unwrap();
    }
    let made = as_postgres(&programs.join("initdb"))
        .args(["--no-sync", "--auth=trust", "--username=jobmeter", "--encoding=UTF8", "-D"])
        .arg(directory.join("data"))
        .status();
    assert!(made.unwrap().success(), "initdb failed");
    directory
}

/// The directory of this process's cluster, with its socket; `is_up` tries to connect to it.
#[allow(dead_code, reason = "each test binary uses a part of it")]
pub(crate) fn start(is_up: impl Fn(&str) -> bool) -> &'static PathBuf {
    static CLUSTER: OnceLock<PathBuf> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let directory = make("");
        run(directory.join("data"), directory.clone(), &["fsync=off"]);
        await_up(&directory, is_up);
        directory
    })
}

/// A cluster that is stopped under way, and started again; it syncs, as a real one does.
#[allow(dead_code, reason = "each test binary uses a part of it")]
pub(crate) struct Fragile {
    pub(crate) directory: PathBuf,
    server: Option<std::thread::JoinHandle<()>>,
}

#[allow(dead_code, reason = "each test binary uses a part of it")]
impl Fragile {
    pub(crate) fn start(name: &str, is_up: impl Fn(&str) -> bool) -> Self {
        let directory = make(name);
        let mut cluster = Self { directory, server: None };
        cluster.again();
        await_up(&cluster.directory, is_up);
        cluster
    }

    pub(crate) fn again(&mut self) {
        self.server = Some(run(self.directory.join("data"), self.directory.clone(), &[]));
    }

    /// As `pg_ctl stop -m immediate`: nothing is written that was not.
    pub(crate) fn stop_immediately(&mut self) {
        let file = std::fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        let pid = nix::unistd::Pid::from_raw(file.lines().next().unwrap().parse().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT).unwrap();
        self.server.take().unwrap().join().unwrap();
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        if self.server.is_some() && !std::thread::panicking() {
            self.stop_immediately();
        }
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

/// A copy of the cluster as it is now, which will be recovered from it and goes on by itself, as after a point-in-time
/// recovery or a fail-over. It is started by the function that comes back.
#[allow(dead_code, reason = "each test binary uses a part of it")]
pub(crate) fn copied(directory: &Path, is_up: impl Fn(&str) -> bool) -> impl FnOnce() -> PathBuf {
    let copy = directory.join("copy");
    let made = as_postgres(&programs().expect("PostgreSQL").join("pg_basebackup"))
        .args(["--username=jobmeter", "--checkpoint=fast", "--wal-method=stream", "-h"])
        .arg(directory)
        .arg("-D")
        .arg(&copy)
        .status();
    assert!(made.unwrap().success(), "pg_basebackup failed");
    std::fs::write(copy.join("recovery.signal"), "").unwrap();
    move || {
        run(copy.clone(), copy.clone(), &["fsync=off", "hot_standby=off", "restore_command=false"]);
        await_up(&copy, is_up);
        copy
    }
}

/// The clusters of test runs that are over.
fn remove_old() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let rest = name.strip_prefix("jobmeter-postgres-");
        let pid = rest.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
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
