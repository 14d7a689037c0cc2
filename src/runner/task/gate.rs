//! Where the command of a task waits until its attempt is open.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::Pid;

/// One command's. Where it goes without a word, the command ends.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(super) command: Pid,
    socket: OwnedFd,
    /// `NAME=VALUE`, each ended by a NUL byte.
    variables: Vec<u8>,
}

impl Gate {
    /// At which `command` waits, to be told of these variables.
    pub(super) fn new(command: Pid, socket: OwnedFd, variables: &[(&'static str, OsString)]) -> Self {
        let mut bytes = Vec::new();
        for (name, value) in variables {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b'=');
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        }
        Self { command, socket, variables: bytes }
    }

    /// The command goes on with these variables.
    pub(super) fn open(&self) -> io::Result<()> {
        loop {
            match send(self.socket.as_raw_fd(), &self.variables, MsgFlags::MSG_NOSIGNAL) {
                Err(Errno::EINTR) => {}
                sent => return Ok(sent.map(|_| ())?),
            }
        }
    }
}
