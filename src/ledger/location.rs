//! Where a ledger is: a path, `postgres://…` or `http(s)://…`; for a wrapper without a key, behind a relay.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::http::{HttpLedger, Service};
use super::keys::Secret;
use super::relay::{RelayLedger, Session};
use super::store::postgres::{self, Postgres};
use super::store::sqlite::{Sqlite, is_missing};
use super::store::{Store, StoreLedger};
use super::{Ledger, LedgerError};
use crate::sys::clock::SystemClock;

/// By which a name alone is that of a file.
const FILE_EXTENSIONS: [&str; 3] = ["db", "sqlite", "sqlite3"];

/// Where the ledger is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// The embedded ledger, one SQLite file.
    File(PathBuf),
    /// A PostgreSQL database: `postgres://…`, or `postgres:` and libpq's pairs, as in `postgres:host=db dbname=jobmeter`.
    Postgres(String),
    /// A ledger service, to which HTTP is spoken.
    Service(Service),
    /// A relay, by its socket, and the session with it.
    Relay(PathBuf, Session),
}

/// How a ledger is opened. The wrapper opens relays alone, so that no database and no HTTP is linked into it.
pub type Connect = fn(&Location) -> Result<Box<dyn Ledger>, LedgerError>;

impl Location {
    /// With the key for a service, and the proxy on the way to it; other places need none.
    #[must_use]
    pub fn with_key(self, key: Option<Secret>, proxy: Option<String>) -> Self {
        match self {
            Self::Service(service) => Self::Service(Service { key, proxy, ..service }),
            other => other,
        }
    }

    /// The same place, whatever the working directory is later.
    ///
    /// # Errors
    /// Where the working directory has gone.
    pub fn absolute(self) -> std::io::Result<Self> {
        match self {
            Self::File(path) => std::path::absolute(path).map(Self::File),
            other => Ok(other),
        }
    }

    /// The file, for what only a file can do.
    ///
    /// # Errors
    /// Where it is none.
    pub fn file(&self) -> Result<&Path, LedgerError> {
        match self {
            Self::File(path) => Ok(path),
            other => Err(LedgerError::Refused(format!("{other} is no ledger file: name one by --ledger PATH"))),
        }
    }

    /// Says to a database that it was put back from a copy: what it acknowledged since is forgotten, and comes back with
    /// the reports and spool files of the attempts. `by` and `why` are for the books; see [`Postgres::restored`].
    ///
    /// # Errors
    /// Where it is no PostgreSQL database, and else see [`LedgerError`].
    pub fn restored(&self, lease_ms: u64, by: &str, why: &str) -> Result<(), LedgerError> {
        match self {
            Self::Postgres(url) => Postgres::open(url, None)?.restored(lease_ms, by, why),
            other => Err(LedgerError::Refused(format!("{other} is no PostgreSQL database: name the copy to restore"))),
        }
    }

    /// From now on the clock of the ledger is believed, which was not before, since it had jumped.
    ///
    /// # Errors
    /// Where it is a service, whose database has to be named, and else see [`LedgerError`].
    pub fn trust_clock(&self, by: &str, why: &str) -> Result<(), LedgerError> {
        match self {
            Self::File(path) => {
                StoreLedger::new(Sqlite::open_existing(path, Box::new(SystemClock))?).trust_clock(by, why)
            }
            Self::Postgres(url) => StoreLedger::new(Postgres::open(url, None)?).trust_clock(by, why),
            other => Err(LedgerError::Refused(format!("{other} is not the database itself: name that by --ledger"))),
        }
    }

    /// Whether it holds a password, which everybody on the machine can read in a command line.
    #[must_use]
    pub fn has_password(&self) -> bool {
        match self {
            Self::Postgres(url) | Self::Service(Service { url, .. }) => without_password(url) != *url,
            Self::File(_) | Self::Relay(..) => false,
        }
    }

    /// What a `jobmeter` within a job may be told, so that it asks the same ledger: no password, no key. A relay is no
    /// ledger to a program that has no session with it.
    #[must_use]
    pub fn without_secrets(&self) -> Option<OsString> {
        match self {
            Self::File(path) => Some(path.into()),
            Self::Postgres(url) | Self::Service(Service { url, .. }) => Some(without_password(url).into()),
            Self::Relay(..) => None,
        }
    }

    /// Opens it. A ledger file is made where there is none.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn connect(&self) -> Result<Box<dyn Ledger>, LedgerError> {
        match self {
            Self::File(path) => Ok(Box::new(StoreLedger::new(Sqlite::open(path, Box::new(SystemClock))?))),
            other => other.connect_existing(),
        }
    }

    /// Opens it for whoever only reads, and makes nothing: where there is no file yet, an empty ledger answers.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn connect_to_read(&self) -> Result<Box<dyn Ledger>, LedgerError> {
        match self {
            Self::File(path) if is_missing(path) => {
                Ok(Box::new(StoreLedger::new(Sqlite::empty(path, Box::new(SystemClock))?)))
            }
            other => other.connect_existing(),
        }
    }

    /// Opens it where there is one.
    ///
    /// # Errors
    /// See [`LedgerError`]; also where there is no such file.
    pub fn connect_existing(&self) -> Result<Box<dyn Ledger>, LedgerError> {
        Ok(match self {
            Self::File(path) => Box::new(StoreLedger::new(Sqlite::open_existing(path, Box::new(SystemClock))?)),
            Self::Service(service) => Box::new(HttpLedger::new(service)?),
            Self::Postgres(_) => Box::new(StoreLedger::new(self.store()?)),
            Self::Relay(socket, session) => Box::new(RelayLedger::resume(socket, session)?),
        })
    }

    /// Opens the database itself, for a service that keeps it open. A file is made where there is none.
    ///
    /// # Errors
    /// See [`LedgerError`]; a service has none that could be opened.
    pub fn store(&self) -> Result<Box<dyn Store>, LedgerError> {
        match self {
            Self::File(path) => Ok(Box::new(Sqlite::open(path, Box::new(SystemClock))?.with_much_memory()?)),
            other => other.existing_store(),
        }
    }

    /// The same for further connections of a service, which make nothing.
    ///
    /// # Errors
    /// As for [`Self::store`], and where the file has gone.
    pub fn existing_store(&self) -> Result<Box<dyn Store>, LedgerError> {
        match self {
            Self::File(path) => Ok(Box::new(Sqlite::open_existing(path, Box::new(SystemClock))?.with_much_memory()?)),
            Self::Postgres(url) => Ok(Box::new(Postgres::open(url, None)?)),
            Self::Service(..) | Self::Relay(..) => {
                Err(LedgerError::Refused(format!("{self} is no database: name a file or postgres://…")))
            }
        }
    }
}

/// Nothing that could be meant as another kind of place is taken for a file, which would be made, and in which every job would run free.
fn invalid(text: &str, expected: &str) -> LedgerError {
    LedgerError::Refused(format!("invalid ledger {text:?}: expected {expected}"))
}

impl FromStr for Location {
    type Err = LedgerError;

    /// Reads what was given by `--ledger` or `JOBMETER_LEDGER`.
    fn from_str(text: &str) -> Result<Self, LedgerError> {
        let first = text.split('/').next().unwrap_or_default();
        let is_path = first.is_empty() || matches!(first, "." | "..");
        match text.split_once("://") {
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(text.to_owned())),
            // Values of pairs may hold anything.
            _ if text.strip_prefix("postgres:").is_some_and(|pairs| pairs.contains('=') && !pairs.starts_with('/')) => {
                Ok(Self::Postgres(text.to_owned()))
            }
            Some(("http" | "https", _)) => Ok(Self::Service(Service { url: text.to_owned(), key: None, proxy: None })),
            Some(_) if !is_path => {
                Err(invalid(&without_password(text), "https://, http:// or postgres:// in small letters, or a path"))
            }
            // A name of a host, of a scheme or of a drive.
            None if !is_path && first.contains(':') => {
                Err(invalid(text, &format!("https://{text} for a service, or ./{text} for a file")))
            }
            _ if text.is_empty() || (first == text && !is_file_name(text)) => {
                let file = "for a file a path with a slash or a name such as ledger.db";
                Err(invalid(text, &format!("https://{text} for a service, or {file}")))
            }
            _ => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

/// A name alone is one of a file if it looks like that, or there is such a file.
fn is_file_name(name: &str) -> bool {
    let path = Path::new(name);
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    FILE_EXTENSIONS.contains(&&*extension) || path.is_file()
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Relay(socket, _) => write!(f, "behind the relay {}", socket.display()),
            Self::Postgres(url) | Self::Service(Service { url, .. }) => without_password(url).fmt(f),
        }
    }
}

/// A URL may carry a password between "//" and "@", and one of PostgreSQL in its query as well. A password that was not
/// escaped may hold every delimiter, so that what is cut ends at the last "@".
fn without_password(url: &str) -> String {
    if let Some(pairs) = url.strip_prefix("postgres:").filter(|rest| !rest.starts_with("//")) {
        return format!("postgres:{}", postgres::without_password(pairs));
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = match rest.rsplit_once('@') {
        Some((who, rest)) => format!("{}@{rest}", who.split(':').next().unwrap_or_default()),
        None => rest.to_owned(),
    };
    let Some((place, query)) = rest.split_once('?') else { return format!("{scheme}://{rest}") };
    // A name that is escaped may be that of a password.
    let is_secret = |name: &str| name.contains("pass") || name.contains('%');
    let kept = query.split('&').filter(|pair| !is_secret(pair.split('=').next().unwrap_or_default()));
    match kept.collect::<Vec<_>>().join("&").as_str() {
        "" => format!("{scheme}://{place}"),
        kept => format!("{scheme}://{place}?{kept}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_never_guessed() {
        for path in ["a/b.db", "ledger.db", "./ledger.example.com:7770", "/srv/ledger", "../x", "a/b:c", "./a://b"] {
            assert_eq!(path.parse::<Location>().unwrap(), Location::File(path.into()));
        }
        for (wrong, hint) in [
            ("ledger.example.com:7770", "https://ledger.example.com:7770"),
            ("ledger.example.com:7770/x", "./ledger.example.com:7770/x"),
            ("[::1]:7770", "https://[::1]:7770"),
            ("https:/ledger", "expected"),
            ("ledger.example.com", "https://ledger.example.com"),
            ("HTTPS://ledger.example.com", "small letters"),
            ("htps://ledger.example.com", "small letters"),
            ("file:///srv/ledger.db", "or a path"),
            ("Postgres://me:secret@host/db", "small letters"),
            ("", "expected"),
        ] {
            let error = wrong.parse::<Location>().unwrap_err().to_string();
            assert!(error.contains(hint) && !error.contains("secret"), "{wrong}: {error}");
        }
    }

    #[test]
    fn tells_files_from_urls_and_hides_passwords() {
        let parse = |text: &str| text.parse::<Location>().unwrap();
        let postgres = parse("postgres://me:secret@host/db");
        assert_eq!(postgres.to_string(), "postgres://me@host/db");
        for (url, told) in [
            ("postgres:///db?host=/run/pg&password=secret", "postgres:///db?host=/run/pg"),
            ("postgres:host=/run/pg dbname=db password='se cret'", "postgres:host='/run/pg' dbname='db'"),
            ("postgres:user=a=b://c sslpassword = secret", "postgres:user='a=b://c'"),
            ("postgres:host=a 'secret", "postgres:"),
            ("postgres://host/db?p%61ssword=secret", "postgres://host/db"),
            ("postgres://me:se/cr@t?secret@host/db?sslmode=require", "postgres://me@host/db?sslmode=require"),
            ("https://:secret@host:1/a", "https://@host:1/a"),
            ("http://host:7770", "http://host:7770"),
        ] {
            assert_eq!(parse(url).without_secrets().unwrap(), told);
        }
        let error = postgres.connect().map(|_| ()).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(matches!(parse("https://x"), Location::Service(Service { key: None, proxy: None, .. })));
    }
}
