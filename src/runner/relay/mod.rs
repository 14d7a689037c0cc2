//! The relay: holds the ledger's key, and carries a job's burn to the ledger for a wrapper that holds none.
//!
//! It stands in a container of its own, under another user than the workload. One wrapper at a time has a session with it;
//! what that wrapper reports is kept in the relay's own directory before it goes to the ledger, so that an attempt whose
//! wrapper is gone (the container ran out of memory, the node's runtime killed it) is settled with what it said last.

mod guest;
mod session;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

use self::session::Sessions;
use crate::ledger::location::{Connect, Location};
use crate::ledger::relay::Welcome;
use crate::runner::keeper::micros;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::signals::{ENDING, Signals};

/// Nobody who has not proved anything gets more time, nor more of the relay's threads.
const STRANGERS_MAX: usize = 8;
/// And those of the session.
const GUESTS_MAX: usize = 8;
const LOOK: Duration = Duration::from_millis(500);

/// What a relay is told at its start.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// Where it listens.
    pub socket: PathBuf,
    /// Where it keeps what was reported; nobody else's.
    pub state_dir: PathBuf,
    /// Where the burn goes.
    pub ledger: Location,
    /// How that is opened.
    pub connect: Connect,
    /// Who the job is: what the wrapper is told, and what the ledger is.
    pub welcome: Welcome,
    /// How long a wrapper may be away before its attempt is settled without it.
    pub lost_after: Duration,
    /// How long the end waits for a wrapper that is still there, and for the ledger.
    pub grace: Duration,
}

/// What its threads share.
#[derive(Debug)]
struct Relay {
    options: RelayOptions,
    sessions: Mutex<Sessions>,
    strangers: AtomicUsize,
    guests: AtomicUsize,
}

impl Relay {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One more of those that are counted, for as long as this lives; `None` where there are enough.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn one_of(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let counted = Self(count);
        (count.fetch_add(1, Ordering::SeqCst) < most).then_some(counted)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Relays until SIGTERM, and settles what is left then.
///
/// # Errors
/// What is wrong with the socket or the directory, for people.
pub fn relay(options: RelayOptions) -> Result<(), String> {
    let mut signals = Signals::take(ENDING).map_err(|error| format!("cannot take signals: {error}"))?;
    crate::sys::process::forbid_tracing().map_err(|error| format!("prctl(PR_SET_DUMPABLE): {error}"))?;
    let sessions = Sessions::open(&options)?;
    let listener = listen(&options.socket)?;
    let relay = Arc::new(Relay {
        options,
        sessions: Mutex::new(sessions),
        strangers: AtomicUsize::new(0),
        guests: AtomicUsize::new(0),
    });
    tracing::info!(socket = %relay.options.socket.display(), job = relay.options.welcome.job, "Relaying.");
    let mut until_us = None;
    loop {
        let mut fds = [signals.as_fd(), listener.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let wait = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
        poll(&mut fds, wait).ok();
        let [signalled, called] = fds.map(|fd| fd.any().unwrap_or(false));
        if called {
            while let Ok((stream, _)) = listener.accept() {
                guest::welcome(&relay, stream);
            }
        }
        if signalled {
            while signals.arrived().is_some() {}
            until_us.get_or_insert_with(|| SystemClock.boottime_us().saturating_add(micros(relay.options.grace)));
        }
        let ends = until_us.is_some();
        let is_over = until_us.is_some_and(|until_us| SystemClock.boottime_us() >= until_us);
        let mut sessions = relay.sessions();
        sessions.settle_what_is_lost(&relay.options, ends, is_over);
        if ends && (is_over || sessions.is_all_told()) {
            let told = sessions.is_all_told();
            tracing::info!(told, "The relay ends.");
            std::fs::remove_file(&relay.options.socket).ok();
            return Ok(());
        }
    }
}

/// A socket that a workload of any user may connect to: who connects has to prove who it is.
fn listen(path: &Path) -> Result<UnixListener, String> {
    let told = |error: std::io::Error| format!("cannot listen on {}: {error}", path.display());
    // What an earlier relay of this container left.
    std::fs::remove_file(path).ok();
    let listener = UnixListener::bind(path).map_err(told)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(told)?;
    listener.set_nonblocking(true).map_err(told)?;
    Ok(listener)
}
