//! Unix sockets under paths (unix(7)): one process at a time listens there; and what a connection may leave lying.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::sockopt::{AcceptConn, TcpUserTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, bind, connect, getsockname,
    getsockopt, setsockopt, socket,
};

/// In a folder that nobody else can write; `None` where somebody listens there. What one has left that ended without a word is replaced.
///
/// # Errors
/// Where the folder cannot be locked, where something else than a socket is at the path, or those of bind(2).
pub fn listen(path: &Path) -> io::Result<Option<UnixListener>> {
    in_place_of_stale(path, || UnixListener::bind(path))
}

/// The same for those whom `mode` lets connect: nobody can before the path has it.
///
/// # Errors
/// As for [`listen`], and where the mode cannot be set.
pub fn listen_for(path: &Path, mode: u32) -> io::Result<Option<UnixListener>> {
    in_place_of_stale(path, || {
        let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        nix::sys::socket::listen(&fd, Backlog::MAXCONN)?;
        Ok(UnixListener::from(fd))
    })
}

/// Ends a connection whose other end takes nothing of what was sent to it for so long (`TCP_USER_TIMEOUT` of tcp(7)).
///
/// # Errors
/// Those of setsockopt(2).
pub fn give_up_after(stream: &impl AsFd, ms: u32) -> io::Result<()> {
    Ok(setsockopt(&stream.as_fd(), TcpUserTimeout, &ms)?)
}

fn in_place_of_stale(path: &Path, bind: impl Fn() -> io::Result<UnixListener>) -> io::Result<Option<UnixListener>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = File::open(folder)?;
    let _one_at_a_time =
        Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| io::Error::from(errno))?;
    match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        bound => return bound.map(Some),
    }
    // Connecting to a file that is no socket is refused as well.
    if !path.symlink_metadata()?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file there is not a socket"));
    }
    if connect_to(path)?.is_some() {
        return Ok(None);
    }
    std::fs::remove_file(path)?;
    bind().map(Some)
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

/// A listening socket that whoever started this process has opened.
#[derive(Debug)]
pub enum Passed {
    /// At an address.
    Tcp(TcpListener),
    /// At a path.
    Unix(UnixListener),
}

/// The listening socket at a number that whoever started this process has named (sd_listen_fds(3)).
///
/// # Errors
/// Where the number is that of nothing, or of something else than a listening stream socket.
pub fn passed(fd: RawFd) -> io::Result<Passed> {
    if fd < 0 {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: it is only duplicated, which fails where nothing is open under the number. Another thread that closes it
    // meanwhile would be a fault of ours all the same, and of no harm to memory.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
    let is_listener = getsockopt(&fd, AcceptConn)?;
    let family = getsockname::<SockaddrStorage>(fd.as_raw_fd())?.family();
    match family {
        Some(AddressFamily::Inet | AddressFamily::Inet6) if is_listener => Ok(Passed::Tcp(TcpListener::from(fd))),
        Some(AddressFamily::Unix) if is_listener => Ok(Passed::Unix(UnixListener::from(fd))),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a listening stream socket")),
    }
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
    #[test]
    fn only_a_socket_is_replaced_and_its_mode_is_the_one_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        std::fs::write(&path, "a file of somebody's").unwrap();
        for error in [listen(&path).unwrap_err(), listen_for(&path, 0o660).unwrap_err()] {
            assert!(error.to_string().contains("not a socket"), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file of somebody's");
        std::fs::remove_file(&path).unwrap();
        let listener = listen_for(&path, 0o660).unwrap().unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(passed(listener.as_raw_fd()).unwrap(), Passed::Unix(_)));
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(matches!(passed(tcp.as_raw_fd()).unwrap(), Passed::Tcp(_)));
        let stream = connect_to(&path).unwrap().unwrap();
        assert!(passed(stream.as_raw_fd()).is_err() && passed(-1).is_err());
    }
}
