//! Unix sockets under abstract names (unix(7)): no file is left of them, and who has bound a name has it alone.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{AcceptConn, PeerCredentials, SendTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, connect, getsockopt, listen, setsockopt, socket,
};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;

/// Who is at the other end, as the kernel knows it since the connection was made, or since `listen` there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// In this process's PID namespace.
    pub pid: Pid,
    /// In this process's user namespace.
    pub uid: u32,
}

/// `None` where somebody has the name.
///
/// # Errors
/// Those of socket(2) and bind(2).
pub fn bind(name: &str) -> io::Result<Option<UnixListener>> {
    match UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}

/// Without waiting for anybody to accept it. `None` where nobody has the name.
///
/// # Errors
/// Those of socket(2) and connect(2); `EAGAIN` where too many wait there.
pub fn connect_to(name: &str) -> io::Result<Option<UnixStream>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?) {
        Ok(()) => {}
        Err(Errno::ECONNREFUSED) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    }
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(Some(stream))
}

/// # Errors
/// Where it is not connected.
pub fn peer(stream: &UnixStream) -> io::Result<Peer> {
    let found = getsockopt(stream, PeerCredentials)?;
    Ok(Peer { pid: Pid::from_raw(found.pid()), uid: found.uid() })
}

/// What an inherited descriptor is.
#[derive(Debug)]
pub enum Inherited {
    /// Others connect to it.
    Listener(UnixListener),
    /// One that is connected, or two that are ends of pipes and the like.
    Other(OwnedFd),
}

/// # Errors
/// Where it cannot be duplicated.
pub fn inherited(fd: impl AsFd) -> io::Result<Inherited> {
    let fd = fd.as_fd().try_clone_to_owned()?;
    let is_listener = getsockopt(&fd, AcceptConn).unwrap_or(false);
    Ok(if is_listener { Inherited::Listener(UnixListener::from(fd)) } else { Inherited::Other(fd) })
}

/// Whether it is a socket, which takes answers as well.
pub fn is_socket(fd: impl AsFd) -> bool {
    getsockopt(&fd.as_fd(), AcceptConn).is_ok()
}

/// From now on this process is the peer of those who connect.
///
/// # Errors
/// Those of listen(2).
pub fn listen_as_this_process(listener: &UnixListener) -> io::Result<()> {
    Ok(listen(listener, Backlog::MAXCONN)?)
}

/// Nothing that is written to it waits longer for a peer that does not read.
///
/// # Errors
/// Those of setsockopt(2).
pub fn limit_writes(stream: &UnixStream, wait_max: Duration) -> io::Result<()> {
    let seconds = i64::try_from(wait_max.as_secs()).unwrap_or(i64::MAX);
    Ok(setsockopt(stream, SendTimeout, &TimeVal::new(seconds, wait_max.subsec_micros().into()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_listeners_and_goes_with_it() {
        let name = format!("jobmeter-test-{}", std::process::id());
        assert!(connect_to(&name).unwrap().is_none());
        let listener = bind(&name).unwrap().unwrap();
        assert!(bind(&name).unwrap().is_none());
        assert!(matches!(inherited(&listener).unwrap(), Inherited::Listener(_)));
        let stream = connect_to(&name).unwrap().unwrap();
        let own = Peer { pid: nix::unistd::getpid(), uid: nix::unistd::geteuid().as_raw() };
        assert_eq!(peer(&stream).unwrap(), own);
        assert!(matches!(inherited(&stream).unwrap(), Inherited::Other(_)) && is_socket(&stream));
        let pipe = nix::unistd::pipe().unwrap();
        assert!(!is_socket(&pipe.0));
        drop(listener);
        assert!(connect_to(&name).unwrap().is_none() && bind(&name).unwrap().is_some());
    }
}
