//! What front and keeper tell each other, one JSON document a packet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::os::fd::AsRawFd;

use crate::domain::printable::printable;
use crate::sys::containment::ContainmentSpec;
use crate::sys::process::Change;
use crate::sys::signals::{SIGCONT, SIGURG, SIGWINCH};
use crate::sys::spawn::{SpawnError, Stage};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitKind {
    /// By itself, with this status.
    Exited(i32),
    /// Of this signal.
    Signalled(i32),
}

impl ExitKind {
    /// `None` of a process that has not ended.
    pub(super) const fn of(change: Change) -> Option<Self> {
        match change {
            Change::Exited(code) => Some(Self::Exited(code)),
            Change::Signalled(number) => Some(Self::Signalled(number)),
            Change::Stopped(_) | Change::Continued => None,
        }
    }
}

/// Why the command did not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SpawnFailure {
    /// For people.
    pub message: String,
    /// 126, 127 or 125.
    pub status: u8,
}

impl SpawnFailure {
    /// In words for whoever typed it.
    pub(super) fn of(program: &str, error: SpawnError) -> Self {
        let program = printable(program);
        let (message, status) = match (error.stage, error.errno) {
            (Stage::Exec, Errno::ENOENT | Errno::ENOTDIR) => {
                (format!("{program}: command not found: check the spelling, or give its path"), 127)
            }
            (Stage::Exec, Errno::EACCES) => {
                (format!("{program}: permission denied: it is not executable (chmod +x), or is a directory"), 126)
            }
            (Stage::Exec, errno) => (format!("{program}: cannot execute: {}", errno.desc()), 126),
            (Stage::Credentials, errno) => {
                (format!("cannot become the user of --as: {}: start jobmeter as root", errno.desc()), 125)
            }
            (Stage::Directory, errno) => {
                (format!("cannot start {program} in the folder of --chdir: {}", errno.desc()), 125)
            }
            (stage, errno) => (format!("cannot start {program} ({stage:?}): {}", errno.desc()), 125),
        };
        Self { message, status }
    }
}

/// From the front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToKeeper {
    /// The command was cloned, and is about to run: since `at_us` of `CLOCK_BOOTTIME`, or once the gate is open.
    Cloned { pid: i32, at_us: u64 },
    /// The command runs.
    Started,
    /// The command did not start.
    NotStarted(SpawnFailure),
    /// The command ended.
    Ended(ExitKind),
    /// A signal is about to be passed on.
    Passing { signal: i32 },
}

impl ToKeeper {
    /// Of a signal that may end everything; `None` of one that does not.
    pub(super) fn passing(signal: i32) -> Option<Self> {
        (!matches!(signal, SIGWINCH | SIGCONT | SIGURG)).then_some(Self::Passing { signal })
    }
}

/// How jobmeter ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Exit {
    /// With this status.
    Status(u8),
    /// As the command did.
    AsCommand(ExitKind),
}

/// From the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToFront {
    /// The attempt is open: start the command.
    Start,
    /// The meter runs: let the command go on to its exec.
    OpenGate,
    /// The command, which something else has started, was let go on to its exec, and is held by this.
    Released(ContainmentSpec),
    /// Print this line.
    Say(String),
    /// All is settled, or nothing was started: print these lines and end.
    Done { lines: Vec<String>, exit: Exit, killed: bool },
}

/// One end of a pair of sockets that keep the borders of messages.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// No message is longer.
const MESSAGE_MAX_BYTES: usize = 64 * 1024;

impl Channel {
    /// Both ends.
    ///
    /// # Errors
    /// Where the kernel has no descriptor left.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(a), Self(b)))
    }

    /// One that somebody else has made.
    pub(super) fn of(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends; the other side's death is not an error here, since its pidfd tells that.
    pub(super) fn send<T: Serialize>(&self, message: &T) {
        if let Ok(bytes) = serde_json::to_vec(message) {
            self.send_bytes(&bytes);
        }
    }

    /// The same of what is no message.
    pub(super) fn send_bytes(&self, bytes: &[u8]) {
        while send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) == Err(Errno::EINTR) {}
    }

    /// Waits for the next message; `None` once the other side has closed.
    ///
    /// # Errors
    /// Where the message is none of ours.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        let mut buffer = vec![0_u8; MESSAGE_MAX_BYTES];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(0) => return Ok(None),
                // A single byte is a word that came after those that were waited for. ECONNRESET: the other side has closed with
                // something of ours unread. Told once, before what it had sent, which the next call returns (unix(7)).
                Ok(1) | Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Ok(length) => return Ok(Some(serde_json::from_slice(buffer.get(..length).unwrap_or_default())?)),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
