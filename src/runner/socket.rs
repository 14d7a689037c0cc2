//! The job's socket, named in `JOBMETER_SOCKET`: what is left, and tokens, for the processes of the job and nobody else.
//!
//! A line of words asks, a line of JSON answers:
//!
//! ```text
//! left                            {"left":4.98,"limit":5,"burn_per_second":0.0005}
//! charge COUNT [KEY]              {"charged":0.006,"overshoot":0,"left":4.974,"again":false}
//! reserve COUNT [SECONDS [KEY]]   {"reservation":"019…","held":0.04,"lasts_ms":900000,"left":4.974,"again":false}
//!                                 {"refused":"credits_exhausted","left":0.01}
//! settle RESERVATION COUNT [KEY]  as charge
//! anything that goes wrong        {"error":"…"}
//! ```
//!
//! It runs on a thread of its own, with a connection of its own, so that nothing that a job asks can keep a look or a
//! report waiting; and it answers at a pace that costs next to nothing, whatever a job asks.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{Mode, umask};
use serde_json::{Value, json};
use uuid::Uuid;

use super::ask::Ask;
use crate::domain::units::Nanocredits;
use crate::ledger::job_name::JobName;
use crate::ledger::location::{Connect, Location};
use crate::ledger::protocol::AttemptIdentity;
use crate::ledger::views::{Change, ChangeAnswer, Query, RESERVED_MS, View};
use crate::ledger::{Ledger, LedgerError};
use crate::sys::clock::{Clock, SystemClock, pause};
use crate::sys::containment::{Containment, ContainmentSpec};
use crate::sys::credentials::Credentials;
use crate::sys::identity::FileIdentity;
use crate::sys::trust;

/// What the command finds the socket by.
pub(super) const VARIABLE: &str = "JOBMETER_SOCKET";
const STACK_BYTES: usize = 512 * 1024;
/// No question is longer.
const LINE_MAX_BYTES: usize = 1_024;
const CLIENTS_MAX: usize = 32;
/// Between two answers: a job that asks without end costs the meter next to nothing.
const PACE: Duration = Duration::from_millis(5);
/// The name of a socket that has a folder of its own.
const ALONE: &str = "job.sock";
/// What is left is asked of the ledger no more often.
const LEFT_FRESH_US: u64 = 1_000_000;

/// The socket, before anybody listens.
#[derive(Debug)]
pub(super) struct JobSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// What the thread needs to answer.
struct Service {
    identity: AttemptIdentity,
    containment: ContainmentSpec,
    location: Location,
    connect: Connect,
    ledger: Option<Box<dyn Ledger>>,
    left: Option<(u64, Value)>,
}

struct Client {
    stream: UnixStream,
    pending: Vec<u8>,
    /// When it came, or was answered last.
    asked_us: u64,
}

impl Client {
    fn has_line(&self) -> bool {
        self.pending.contains(&b'\n')
    }

    /// Takes what has come, unless a line of it waits already.
    fn hear(&mut self) -> io::Result<()> {
        if self.has_line() {
            return Ok(());
        }
        let mut buffer = [0; LINE_MAX_BYTES];
        let read = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        self.pending.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if self.pending.len() > LINE_MAX_BYTES && !self.has_line() {
            told(&self.stream, &json!({ "error": "a line may have 1024 bytes at most" }))?;
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }
}

/// Makes room for one that has just come.
fn forget_the_quietest(clients: &mut Vec<Client>) {
    let quietest = clients.iter().enumerate().min_by_key(|(_, client)| client.asked_us);
    if let Some((at, _)) = quietest {
        clients.swap_remove(at);
    }
}

/// Where sockets are: a directory that nobody else can have put there.
fn directory() -> Option<PathBuf> {
    let uid = nix::unistd::geteuid();
    let set = |variable: &str| std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let (path, mode) = match set("XDG_RUNTIME_DIR") {
        // A unit has one of its own; other users' jobs have to reach the way to it.
        _ if uid.is_root() => (set("RUNTIME_DIRECTORY").unwrap_or_else(|| PathBuf::from("/run/jobmeter")), 0o711),
        Some(runtime) => (runtime.join("jobmeter"), 0o700),
        None => (std::env::temp_dir().join(format!("jobmeter-{uid}")), 0o700),
    };
    std::fs::DirBuilder::new().mode(mode).create(&path).ok();
    if uid.is_root() {
        return trust::believe(&path).ok();
    }
    let found = std::fs::symlink_metadata(&path).ok()?;
    (found.is_dir() && found.uid() == uid.as_raw() && found.mode() & 0o022 == 0).then_some(path)
}

/// A socket for somebody else, which he makes himself, so that it is his and nobody else can connect. The folder is open while he
/// does, under a name that cannot be guessed, and what somebody else has put there is not taken.
fn bind_for(user: &Credentials, path: &Path) -> io::Result<UnixListener> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mode = |mode| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode));
    std::fs::DirBuilder::new().mode(0o700).create(folder)?;
    mode(0o1733)?;
    let bound = FileIdentity::assume(user).and_then(|_as_user| bind_private(path));
    mode(0o711)?;
    let listener = bound?;
    let found = std::fs::symlink_metadata(path)?;
    let is_his = found.file_type().is_socket() && found.uid() == user.uid && found.mode() & 0o777 == 0o600;
    if is_his { Ok(listener) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// For its owner alone from the first moment on. The caller has one thread.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    bound
}

/// A path has 108 bytes at most (unix(7)).
fn place_below(directory: &Path, attempt: Uuid) -> PathBuf {
    directory.join(attempt.to_string()).join(ALONE)
}

/// Removes a socket and what was made for it.
pub(super) fn remove(path: &Path) {
    std::fs::remove_file(path).ok();
    if let Some(folder) = path.parent().filter(|_| path.file_name() == Some(ALONE.as_ref())) {
        std::fs::remove_dir(folder).ok();
    }
}

impl JobSocket {
    /// Makes it for the job's user; `None` where there is no place for it, and then the job has none.
    pub(super) fn bind(attempt: Uuid, job_user: Option<&Credentials>) -> Option<Self> {
        let (directory, name) = (directory()?, format!("{attempt}.sock"));
        let (path, bound) = match job_user {
            Some(user) => {
                let path = place_below(&directory, attempt);
                let bound = bind_for(user, &path);
                (path, bound)
            }
            None => {
                let path = directory.join(name);
                let bound = bind_private(&path);
                (path, bound)
            }
        };
        let ready = bound.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        match ready {
            Ok(listener) => Some(Self { listener, path }),
            Err(_) => {
                remove(&path);
                None
            }
        }
    }

    /// Where that of a job of another user would be.
    pub(super) fn place_for_another(attempt: Uuid) -> Option<PathBuf> {
        directory().map(|directory| place_below(&directory, attempt))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn remove(self) {
        remove(&self.path);
    }

    /// Answers for as long as this process lives.
    pub(super) fn serve(
        self,
        identity: AttemptIdentity,
        containment: ContainmentSpec,
        location: Location,
        connect: Connect,
    ) {
        let mut service = Service { identity, containment, location, connect, ledger: None, left: None };
        // Without the thread the job is not answered; it is metered all the same.
        std::thread::Builder::new()
            .name("socket".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || service.answer_all(&self.listener))
            .ok();
    }
}

impl Service {
    /// In turns: each client that has asked is answered one line a round, so that one that asks without end costs the others
    /// no more than that.
    fn answer_all(&mut self, listener: &UnixListener) {
        let mut clients: Vec<Client> = Vec::new();
        loop {
            let mut fds: Vec<PollFd<'_>> = clients.iter().map(|client| readable(client.stream.as_fd())).collect();
            fds.push(readable(listener.as_fd()));
            let waits = clients.iter().any(Client::has_line);
            if poll(&mut fds, if waits { PollTimeout::ZERO } else { PollTimeout::NONE }).is_err() {
                pause(PACE);
                continue;
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
            drop(fds);
            let mut at = ready.iter();
            clients.retain_mut(|client| {
                let has_said = at.next() == Some(&true);
                (!has_said && !client.has_line()) || self.serve(client).is_ok()
            });
            if at.next() == Some(&true)
                && let Ok((stream, _)) = listener.accept()
                && let Some(client) = self.admitted(stream)
            {
                if clients.len() >= CLIENTS_MAX {
                    forget_the_quietest(&mut clients);
                }
                clients.push(client);
            }
            pause(PACE);
        }
    }

    /// Whoever connects, if they are of this job.
    fn admitted(&self, stream: UnixStream) -> Option<Client> {
        stream.set_nonblocking(true).ok()?;
        let peer = getsockopt(&stream, PeerCredentials).ok()?;
        let job = Containment::reopen(&self.containment).ok()?.found()?;
        if !job.contains(peer.pid()) {
            told(&stream, &json!({ "error": "only processes of the job are answered" })).ok();
            return None;
        }
        Some(Client { stream, pending: Vec::new(), asked_us: SystemClock.boottime_us() })
    }

    /// Answers one line, once it has come; an error ends the connection.
    fn serve(&mut self, client: &mut Client) -> io::Result<()> {
        client.hear()?;
        let Some(end) = client.pending.iter().position(|byte| *byte == b'\n') else { return Ok(()) };
        let line: Vec<u8> = client.pending.drain(..=end).collect();
        let line = String::from_utf8_lossy(&line);
        let answer = self.answer(line.trim()).unwrap_or_else(|why| json!({ "error": why }));
        client.asked_us = SystemClock.boottime_us();
        told(&client.stream, &answer)
    }

    fn answer(&mut self, line: &str) -> Result<Value, String> {
        let ask = line.parse::<Ask>()?;
        let AttemptIdentity { attempt, job, user, .. } = &self.identity;
        let job = JobName { id: job.clone(), user: Some(user.clone()), principal: None };
        let by = "the job itself".to_owned();
        // Keys of one attempt do not meet those of another, nor of those who ask the ledger themselves.
        let keyed = |key: Option<String>| {
            let key = key.unwrap_or_else(|| Uuid::now_v7().to_string());
            format!("socket of {attempt}: {key}")
        };
        let change = match ask {
            Ask::Left => return self.left(),
            Ask::Charge { count, key } => Change::ChargeTokens { job, count, by, key: keyed(key) },
            Ask::Reserve { count, lasts_s, key } => {
                let lasts_ms = lasts_s.map_or(RESERVED_MS, |seconds| seconds.saturating_mul(1_000));
                Change::ReserveTokens { job, count, lasts_ms, new_id: Uuid::now_v7(), by, key: keyed(key) }
            }
            Ask::Settle { reservation, count, key } => {
                Change::SettleTokens { job, reservation, count, by, key: keyed(key) }
            }
        };
        let answer = self.with_ledger(|ledger| ledger.change(&change))?;
        self.left = None;
        Ok(changed(&answer))
    }

    fn left(&mut self) -> Result<Value, String> {
        let now_us = SystemClock.boottime_us();
        if let Some((_, left)) = self.left.as_ref().filter(|(at_us, _)| now_us.saturating_sub(*at_us) < LEFT_FRESH_US) {
            return Ok(left.clone());
        }
        let user = self.identity.user.clone();
        let View::Account(account) = self.with_ledger(|ledger| ledger.read(&Query::Account { user }))? else {
            return Err(LedgerError::unasked().to_string());
        };
        let burn_per_second = account.burn_per_second;
        let left = json!({ "left": account.left, "limit": account.limit, "burn_per_second": burn_per_second });
        Ok(self.left.insert((now_us, left)).1.clone())
    }

    fn with_ledger<T>(&mut self, ask: impl FnOnce(&mut dyn Ledger) -> Result<T, LedgerError>) -> Result<T, String> {
        let ledger = match &mut self.ledger {
            Some(ledger) => ledger,
            none => none.insert((self.connect)(&self.location).map_err(|error| error.to_string())?),
        };
        let answer = ask(ledger.as_mut());
        if matches!(answer, Err(LedgerError::Unavailable(_) | LedgerError::Broken(_))) {
            self.ledger = None;
        }
        answer.map_err(|error| error.to_string())
    }
}

fn changed(answer: &ChangeAnswer) -> Value {
    let left: Option<Nanocredits> = answer.balance.and_then(|balance| balance.left);
    let again = answer.again;
    match (answer.refused, answer.reserved) {
        (Some(refused), _) => json!({ "refused": refused, "left": left }),
        (None, Some(reserved)) => {
            let (reservation, held, lasts_ms) = (reserved.reservation, reserved.held, reserved.lasts_ms);
            json!({ "reservation": reservation, "held": held, "lasts_ms": lasts_ms, "left": left, "again": again })
        }
        (None, None) => {
            json!({ "charged": answer.charged, "overshoot": answer.overshoot, "left": left, "again": again })
        }
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

/// In one write, which a reader that takes nothing does not hold up: the connection ends.
fn told(mut stream: &UnixStream, answer: &Value) -> io::Result<()> {
    stream.write_all(format!("{answer}\n").as_bytes())
}
