//! Where the command of a task waits until its attempt is open.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::unistd::Pid;

use crate::runner::wire::Channel;
use crate::sys::handshake::is_told;

/// One command's. Where it goes without a word, the command ends.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(super) command: Pid,
    socket: Channel,
    /// Says so when the command is in the job's group.
    is_in: OwnedFd,
    /// `NAME=VALUE`, each ended by a NUL byte.
    variables: Vec<u8>,
}

impl Gate {
    /// At which `command` waits, to be told of these variables.
    pub(super) fn new(command: Pid, socket: OwnedFd, is_in: OwnedFd, variables: &[(&'static str, OsString)]) -> Self {
        let mut bytes = Vec::new();
        for (name, value) in variables {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b'=');
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        }
        Self { command, socket: Channel::of(socket), is_in, variables: bytes }
    }

    /// Waits until it is; `false` where it cannot be.
    pub(super) fn is_command_in_group(&self) -> bool {
        is_told(self.is_in.as_fd())
    }

    /// The command goes on with these variables.
    pub(super) fn open(&self) {
        self.socket.send_bytes(&self.variables);
    }
}
