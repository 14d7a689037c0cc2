//! Unix sockets under paths (unix(7)): one process at a time listens there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::sockopt::AcceptConn;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};

/// In a folder that nobody else can write; `None` where somebody listens there. What one has left that ended without a word is replaced.
///
/// # Errors
/// Where the folder cannot be locked, or those of bind(2).
pub fn listen(path: &Path) -> io::Result<Option<UnixListener>> {
    let folder = File::open(path.parent().unwrap_or(Path::new("/")))?;
    let _one_at_a_time =
        Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| io::Error::from(errno))?;
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        bound => return bound.map(Some),
    }
    if connect_to(path)?.is_some() {
        return Ok(None);
    }
    std::fs::remove_file(path)?;
    UnixListener::bind(path).map(Some)
}

/// Without waiting for anybody to accept it. `None` where nobody listens there.
///
/// # Errors
/// Those of socket(2) and connect(2); `EAGAIN` where too many wait there.
pub fn connect_to(path: &Path) -> io::Result<Option<UnixStream>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) => {}
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    }
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(Some(stream))
}

/// What an inherited descriptor is.
#[derive(Debug)]
pub enum Inherited {
    /// Others connect to it.
    Listener(UnixListener),
    /// One that is connected, or an end of a pipe and the like.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_listens_at_a_path_and_what_it_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(connect_to(&path).unwrap().is_none());
        let listener = listen(&path).unwrap().unwrap();
        assert!(listen(&path).unwrap().is_none());
        assert!(matches!(inherited(&listener).unwrap(), Inherited::Listener(_)));
        let stream = connect_to(&path).unwrap().unwrap();
        assert!(matches!(inherited(&stream).unwrap(), Inherited::Other(_)) && is_socket(&stream));
        let pipe = nix::unistd::pipe().unwrap();
        assert!(!is_socket(&pipe.0));
        drop(listener);
        assert!(path.exists() && connect_to(&path).unwrap().is_none() && listen(&path).unwrap().is_some());
    }
}
