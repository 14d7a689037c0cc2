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
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::{Value, json};
use uuid::Uuid;

use super::ask::Ask;
use crate::domain::units::Nanocredits;
use crate::ledger::location::{Connect, Location};
use crate::ledger::protocol::AttemptIdentity;
use crate::ledger::views::{Change, ChangeAnswer, Query, RESERVED_MS, View};
use crate::ledger::{Ledger, LedgerError};
use crate::sys::clock::{Clock, SystemClock, pause};
use crate::sys::containment::{Containment, ContainmentSpec};

/// What the command finds the socket by.
pub(super) const VARIABLE: &str = "JOBMETER_SOCKET";
const STACK_BYTES: usize = 512 * 1024;
/// No question is longer.
const LINE_MAX_BYTES: usize = 1_024;
const CLIENTS_MAX: usize = 32;
/// Between two answers: a job that asks without end costs the meter next to nothing.
const PACE: Duration = Duration::from_millis(5);
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
}

/// Where sockets are: a directory that nobody else can have put there.
fn directory() -> Option<PathBuf> {
    let uid = nix::unistd::geteuid();
    let (path, mode) = match std::env::var_os("XDG_RUNTIME_DIR") {
        // Other users' jobs have to reach it.
        _ if uid.is_root() => (PathBuf::from("/run/jobmeter"), 0o755),
        Some(runtime) if !runtime.is_empty() => (Path::new(&runtime).join("jobmeter"), 0o700),
        _ => (std::env::temp_dir().join(format!("jobmeter-{uid}")), 0o700),
    };
    std::fs::DirBuilder::new().mode(mode).create(&path).ok();
    let found = std::fs::symlink_metadata(&path).ok()?;
    (found.is_dir() && found.uid() == uid.as_raw() && found.mode() & 0o022 == 0).then_some(path)
}

impl JobSocket {
    /// Makes it; `None` where there is no place for it, and then the job has none.
    pub(super) fn bind(attempt: Uuid, for_another_user: bool) -> Option<Self> {
        let path = directory()?.join(format!("{attempt}.sock"));
        let listener = UnixListener::bind(&path).ok()?;
        // Who connects is looked at: the mode only lets them.
        let mode = if for_another_user { 0o666 } else { 0o600 };
        let ready = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
            .and_then(|()| listener.set_nonblocking(true));
        if ready.is_err() {
            std::fs::remove_file(&path).ok();
            return None;
        }
        Some(Self { listener, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn remove(self) {
        std::fs::remove_file(&self.path).ok();
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
    fn answer_all(&mut self, listener: &UnixListener) {
        let mut clients: Vec<Client> = Vec::new();
        loop {
            let mut fds: Vec<PollFd<'_>> = clients.iter().map(|client| readable(client.stream.as_fd())).collect();
            if clients.len() < CLIENTS_MAX {
                fds.push(readable(listener.as_fd()));
            }
            if poll(&mut fds, PollTimeout::NONE).is_err() {
                pause(PACE);
                continue;
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
            drop(fds);
            let mut at = ready.iter();
            clients.retain_mut(|client| at.next() != Some(&true) || self.serve(client).is_ok());
            if at.next() == Some(&true)
                && let Ok((stream, _)) = listener.accept()
            {
                clients.extend(self.admitted(stream));
            }
            pause(PACE);
        }
    }

    /// Whoever connects, if they are of this job.
    fn admitted(&self, stream: UnixStream) -> Option<Client> {
        stream.set_nonblocking(true).ok()?;
        let peer = getsockopt(&stream, PeerCredentials).ok()?;
        let job = Containment::reopen(&self.containment).ok()??;
        if !job.contains(peer.pid()) {
            told(&stream, &json!({ "error": "only processes of the job are answered" })).ok();
            return None;
        }
        Some(Client { stream, pending: Vec::new() })
    }

    /// Answers the lines that have come; an error ends the connection.
    fn serve(&mut self, client: &mut Client) -> io::Result<()> {
        let mut buffer = [0; LINE_MAX_BYTES];
        let read = match client.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        client.pending.extend_from_slice(buffer.get(..read).unwrap_or_default());
        while let Some(end) = client.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = client.pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let answer = self.answer(line.trim()).unwrap_or_else(|why| json!({ "error": why }));
            told(&client.stream, &answer)?;
            pause(PACE);
        }
        if client.pending.len() > LINE_MAX_BYTES {
            told(&client.stream, &json!({ "error": "a line may have 1024 bytes at most" }))?;
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }

    fn answer(&mut self, line: &str) -> Result<Value, String> {
        let ask = line.parse::<Ask>()?;
        let AttemptIdentity { attempt, job, .. } = &self.identity;
        let (job, by) = (job.clone(), "the job itself".to_owned());
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
