//! Where the service listens: addresses and host names, unix sockets, and sockets that systemd has opened for it.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use axum::serve::Listener;
use futures_util::future::select_all;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, lookup_host};

use super::admission::Origin;
use super::base_path::BasePath;
use crate::ledger::LedgerError;
use crate::sys::sockets::{self, Passed};

/// Whoever is of the service's group, as a proxy may be, can connect to its unix socket.
const SOCKET_MODE: u32 = 0o660;

/// One place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// All addresses of a host's name, or one address, with a port.
    Host(String, u16),
    /// A unix socket at a path.
    Unix(PathBuf),
    /// A socket that is open already, by its number.
    Passed(RawFd),
}

impl FromStr for Listen {
    type Err = LedgerError;

    /// `ADDRESS:PORT`, `HOST:PORT` or `unix:PATH`.
    fn from_str(text: &str) -> Result<Self, LedgerError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let wrong = || LedgerError::Refused("expected unix:PATH".to_owned());
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Unix(path.into())) };
        }
        let expected = || {
            let places = "ADDRESS:PORT, HOST:PORT or unix:PATH, such as 127.0.0.1:7770 or [::]:7770";
            LedgerError::Refused(format!("expected {places}"))
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let port = port.parse().map_err(|_| expected())?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_address = bare.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
        let is_name = !host.is_empty() && !host.contains(|letter: char| "[]:/ ".contains(letter));
        if is_address || is_name { Ok(Self::Host(host.to_owned(), port)) } else { Err(expected()) }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Passed(fd) => write!(f, "the socket with the number {fd}"),
        }
    }
}

/// A connection, which TLS may be spoken on where it is one of TCP.
pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

enum Open {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Open {
    /// The framework's own accept, which goes on after an error.
    async fn accept(&mut self) -> (Origin, Accepted) {
        match self {
            Self::Tcp(listener) => {
                let (stream, from) = Listener::accept(listener).await;
                (Origin::of(from.ip()), Accepted::Tcp(stream))
            }
            Self::Unix(listener) => (Origin::Here, Accepted::Unix(Listener::accept(listener).await.0)),
        }
    }

    fn url(&self, scheme: &str, base_path: &BasePath) -> io::Result<String> {
        Ok(match self {
            Self::Tcp(listener) => format!("{scheme}://{}{base_path}", TcpListener::local_addr(listener)?),
            Self::Unix(listener) => {
                let address = UnixListener::local_addr(listener)?;
                format!(
                    "unix:{}",
                    address.as_pathname().map(Path::display).map(|path| path.to_string()).unwrap_or_default()
                )
            }
        })
    }
}

/// A path at which this service made its socket. It goes with it, where it is still the same one.
struct Made {
    path: PathBuf,
    inode: u64,
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.path.symlink_metadata().is_ok_and(|meta| meta.ino() == self.inode)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "The socket cannot be removed.");
        }
    }
}

/// Everything that the service listens on.
pub(super) struct Listeners {
    open: Vec<Open>,
    made: Vec<Made>,
}

impl Listeners {
    /// Listens at all these places.
    ///
    /// # Errors
    /// Where one of them cannot be listened on.
    pub(super) async fn bind(places: &[Listen]) -> Result<Self, LedgerError> {
        let mut listeners = Self { open: Vec::new(), made: Vec::new() };
        for place in places {
            let bound = match place {
                Listen::Host(host, port) => listeners.add_host(host, *port).await,
                Listen::Unix(path) => listeners.add_socket(path),
                Listen::Passed(fd) => listeners.add_passed(*fd),
            };
            bound.map_err(|error| LedgerError::Refused(format!("cannot listen on {place}: {error}")))?;
        }
        Ok(listeners)
    }

    /// At all addresses of the name, but for those of a family that this machine has no address of.
    async fn add_host(&mut self, host: &str, port: u16) -> io::Result<()> {
        let before = self.open.len();
        let mut failed = None;
        for address in lookup_host(format!("{host}:{port}")).await? {
            match TcpListener::bind(address).await {
                Ok(listener) => self.open.push(Open::Tcp(listener)),
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        if self.open.len() > before {
            return Ok(());
        }
        Err(failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
    }

    fn add_socket(&mut self, path: &Path) -> io::Result<()> {
        let in_use = || io::Error::new(io::ErrorKind::AddrInUse, "another process listens there");
        let listener = sockets::listen_for(path, SOCKET_MODE)?.ok_or_else(in_use)?;
        self.made.push(Made { path: path.to_owned(), inode: path.symlink_metadata()?.ino() });
        listener.set_nonblocking(true)?;
        self.open.push(Open::Unix(UnixListener::from_std(listener)?));
        Ok(())
    }

    fn add_passed(&mut self, fd: RawFd) -> io::Result<()> {
        self.open.push(match sockets::passed(fd)? {
            Passed::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Open::Tcp(TcpListener::from_std(listener)?)
            }
            Passed::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Open::Unix(UnixListener::from_std(listener)?)
            }
        });
        Ok(())
    }

    /// Where they are, for people and for clients.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub(super) fn urls(&self, scheme: &str, base_path: &BasePath) -> io::Result<Vec<String>> {
        self.open.iter().map(|open| open.url(scheme, base_path)).collect()
    }

    /// The next connection on any of them, and where it comes from. The one that it came by is asked last from then on, so that a busy one
    /// keeps no other waiting.
    pub(super) async fn accept(&mut self) -> (Origin, Accepted) {
        let (accepted, at, _) = select_all(self.open.iter_mut().map(|open| Box::pin(open.accept()))).await;
        let was_asked = self.open.remove(at);
        self.open.push(was_asked);
        accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fifty wait at one place, and one at the other: it is the second at the latest.
    #[tokio::test]
    async fn a_busy_place_keeps_no_other_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let quiet = directory.path().join("quiet");
        for first in [0, 1] {
            let mut places = vec![Listen::Host("127.0.0.1".to_owned(), 0), Listen::Unix(quiet.clone())];
            places.swap(0, first);
            let mut listeners = Listeners::bind(&places).await.unwrap();
            let urls = listeners.urls("http", &BasePath::default()).unwrap();
            let busy =
                urls.iter().find_map(|url| url.strip_prefix("http://")).unwrap().trim_end_matches('/').to_owned();
            let mut waiting = Vec::new();
            for _ in 0..50 {
                waiting.push(TcpStream::connect(&busy).await.unwrap());
            }
            let _one = UnixStream::connect(&quiet).await.unwrap();
            let accepted = [listeners.accept().await, listeners.accept().await];
            assert!(accepted.iter().any(|accepted| matches!(accepted, (_, Accepted::Unix(_)))));
        }
    }

    #[test]
    fn a_place_is_an_address_a_name_or_a_path() {
        let host = |host: &str, port| Listen::Host(host.to_owned(), port);
        for (text, place) in [
            ("127.0.0.1:7770", host("127.0.0.1", 7770)),
            ("ledger.example.org:1", host("ledger.example.org", 1)),
            ("[::1]:0", host("[::1]", 0)),
            ("unix:/run/jobmeter/socket", Listen::Unix("/run/jobmeter/socket".into())),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap(), place);
            assert_eq!(place.to_string(), text);
        }
        for wrong in ["nowhere", "127.0.0.1", "::1:7770", ":7770", "a:b", "a:70000", "unix:", "http://a:1", "[a]:1", ""]
        {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
        }
    }
}
