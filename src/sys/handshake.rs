//! A first word over a socket whose other end others hold: the kernel says which process spoke (`SCM_CREDENTIALS`, unix(7); whoever made the
//! socket has set `SO_PASSCRED`).

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg};
use nix::sys::stat::SFlag;

use super::process::keep_files_from_programs_at_once;

/// A byte, a number of 32 bits and some variables.
const WORD_BYTES_MAX: usize = 4096;

/// What a process has said first.
#[derive(Debug)]
pub struct FirstWord {
    /// The first byte that it sent.
    pub byte: u8,
    /// The decimal number behind that.
    pub number: Option<u32>,
    /// And behind that, `NAME=VALUE`, each with its NUL byte.
    pub variables: BTreeMap<String, String>,
    /// Its process id, in this process's namespace.
    pub pid: i32,
    /// Its real user, by this process's user namespace.
    pub uid: u32,
    /// What it handed over.
    pub handed: Option<OwnedFd>,
}

/// A socket that the caller of this program has left open for it. What it has left open beside that, above the standard streams, stays open
/// for as long as this process lives, and for no program that it starts.
///
/// # Errors
/// Where nothing is open there, or something else.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: nothing else in this process, which has just started, knows of this descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let is_socket =
        nix::sys::stat::fstat(&socket).map(|found| SFlag::from_bits_truncate(found.st_mode).contains(SFlag::S_IFSOCK));
    match is_socket {
        Ok(true) => {
            if !keep_files_from_programs_at_once() {
                fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            }
            Ok(socket)
        }
        not => {
            // It is not ours to close.
            std::mem::forget(socket);
            Err(not.err().map_or_else(|| io::ErrorKind::InvalidInput.into(), io::Error::from))
        }
    }
}

/// Waits until the other end of a pipe says a byte; `false` where it goes without one.
#[must_use]
pub fn is_told(pipe: BorrowedFd<'_>) -> bool {
    let mut byte = [0];
    loop {
        match nix::unistd::read(pipe, &mut byte) {
            Err(Errno::EINTR) => {}
            read => return read == Ok(1),
        }
    }
}

/// Waits for the next message; `None` once the other side has closed. A longer one is cut.
///
/// # Errors
/// Where it came without its sender.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<FirstWord>> {
    let mut bytes = [0_u8; WORD_BYTES_MAX];
    let Some(Received { length, sender, handed }) = receive_into(socket, &mut bytes)? else { return Ok(None) };
    let (byte, digits) = bytes.get(..length).and_then(<[u8]>::split_first).unwrap_or((&0, &[]));
    let mut parts = digits.split(|byte| *byte == 0).map(|part| std::str::from_utf8(part).unwrap_or_default());
    let number = parts.next().and_then(|digits| digits.parse().ok());
    let pairs = parts.filter_map(|pair| pair.split_once('='));
    let variables = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(Some(FirstWord { byte: *byte, number, variables, pid: sender.pid(), uid: sender.uid(), handed }))
}

/// Waits for a message of root's; `None` once the other side has closed.
///
/// # Errors
/// Where somebody else sent it, or it is longer than `max_bytes`.
pub fn receive_of_root(socket: BorrowedFd<'_>, max_bytes: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; max_bytes.saturating_add(1)];
    let Some(Received { length, sender, .. }) = receive_into(socket, &mut bytes)? else { return Ok(None) };
    let invalid = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    if sender.uid() != 0 {
        return invalid("a message that is not root's");
    }
    if length > max_bytes {
        return invalid("a message that is too long");
    }
    bytes.truncate(length);
    Ok(Some(bytes))
}

struct Received {
    length: usize,
    sender: UnixCredentials,
    handed: Option<OwnedFd>,
}

fn receive_into(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<Option<Received>> {
    let mut control = cmsg_space!(UnixCredentials, RawFd);
    let mut into = [IoSliceMut::new(bytes)];
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut into, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            received => break received?,
        }
    };
    let (length, mut sender, mut handed) = (message.bytes, None, None);
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::ScmCredentials(of) => sender = Some(of),
            ControlMessageOwned::ScmRights(numbers) => {
                for number in numbers {
                    // SAFETY: the kernel has just made this descriptor for this process.
                    handed = Some(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
            _ => {}
        }
    }
    if length == 0 {
        return Ok(None);
    }
    let sender = sender.filter(|sender| sender.pid() > 0);
    let sender =
        sender.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a message came without its sender"))?;
    Ok(Some(Received { length, sender, handed }))
}
