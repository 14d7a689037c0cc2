//! How a server is reached, as libpq reads it: URLs and `key=value` strings, `sslmode`, `sslrootcert` and password files.
//!
//! What tokio-postgres knows itself is left to it.

use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::errors::chain;
use crate::ledger::LedgerError;

/// Before a string of `key=value` pairs, which tells it from a file's name.
const SCHEME: &str = "postgres:";
/// The permissions that a password file may not have.
const OTHERS: u32 = 0o077;
const PORT: u16 = 5432;

/// Whether TLS is spoken, and what of the server's certificate is checked (libpq, "SSL Mode Descriptions").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl FromStr for Encryption {
    type Err = LedgerError;

    fn from_str(text: &str) -> Result<Self, LedgerError> {
        Ok(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                return Err(LedgerError::Refused(format!(
                    "invalid sslmode {text:?}: expected disable, allow, prefer, require, verify-ca or verify-full"
                )));
            }
        })
    }
}

/// Which authorities the server's certificate may be of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Roots {
    /// Any: the certificate is not checked.
    Unchecked,
    /// Those of this machine.
    System,
    /// Those in a file, PEM.
    File(PathBuf),
}

/// A server, and how it is spoken to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) config: Config,
    pub(super) encryption: Encryption,
    pub(super) roots: Roots,
    /// Why a password file was not read, for whoever is refused without a password.
    pub(super) ignored: Option<String>,
}

/// What is taken from the environment, as libpq does.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub(super) home: Option<PathBuf>,
    pub(super) password: Option<String>,
    pub(super) passfile: Option<PathBuf>,
}

impl Environment {
    pub(super) fn of_process() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self { home: path("HOME"), password: std::env::var("PGPASSWORD").ok(), passfile: path("PGPASSFILE") }
    }
}

/// What libpq knows and tokio-postgres does not.
#[derive(Debug, Default)]
struct Ours {
    sslmode: Option<String>,
    sslrootcert: Option<String>,
    passfile: Option<String>,
}

impl Ours {
    /// Takes it, if it is one of these.
    fn takes(&mut self, key: &str, value: &str) -> bool {
        let place = match key {
            "sslmode" => &mut self.sslmode,
            "sslrootcert" => &mut self.sslrootcert,
            "passfile" => &mut self.passfile,
            _ => return false,
        };
        *place = Some(value.to_owned());
        true
    }
}

/// Pairs without those that hold a password, to show them; nothing of what cannot be understood.
#[must_use]
pub fn without_password(text: &str) -> String {
    let Ok(mut pairs) = pairs(text) else { return String::new() };
    let count = pairs.len();
    pairs.retain(|(key, _)| !key.contains("password"));
    if pairs.len() == count { text.to_owned() } else { joined(pairs.into_iter()) }
}

/// As [`pairs`] reads them.
fn joined(pairs: impl Iterator<Item = (String, String)>) -> String {
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    pairs.map(|(key, value)| format!("{key}='{}'", quoted(&value))).collect::<Vec<_>>().join(" ")
}

impl Target {
    /// Reads a location of a PostgreSQL database: `postgres://…` or `postgres:key=value …`.
    ///
    /// # Errors
    /// Where it cannot be understood, or asks for a check without saying against what. No error shows a password.
    pub(super) fn new(location: &str, environment: &Environment) -> Result<Self, LedgerError> {
        let mut ours = Ours::default();
        let rest = match location.strip_prefix(SCHEME) {
            Some(pairs) if !pairs.starts_with("//") => without_ours_in_pairs(pairs, &mut ours)?,
            _ => without_ours_in_url(location, &mut ours),
        };
        let mut config: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            let why = chain(&error);
            LedgerError::Refused(format!(
                "this is not the URL or the connection string of a PostgreSQL database: {why}"
            ))
        })?;
        let root = environment.home.as_ref().map(|home| home.join(".postgresql/root.crt"));
        let (encryption, roots) = checks(&ours, root)?;
        config.ssl_mode(match encryption {
            Encryption::Disable | Encryption::Allow => SslMode::Disable,
            Encryption::Prefer => SslMode::Prefer,
            Encryption::Require | Encryption::VerifyCa | Encryption::VerifyFull => SslMode::Require,
        });
        let mut target = Self { config, encryption, roots, ignored: None };
        // libpq speaks no TLS on unix sockets either.
        let hosts = target.config.get_hosts();
        if !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Unix(_))) {
            target.encryption = Encryption::Disable;
            target.config.ssl_mode(SslMode::Disable);
        }
        target.find_password(ours.passfile.map(PathBuf::from), environment);
        Ok(target)
    }

    /// In the order of libpq: the string, `PGPASSWORD`, the password file.
    fn find_password(&mut self, named: Option<PathBuf>, environment: &Environment) {
        if self.config.get_password().is_some() {
            return;
        }
        if let Some(password) = &environment.password {
            self.config.password(password);
            return;
        }
        let by_default = || environment.home.as_ref().map(|home| home.join(".pgpass"));
        let Some(path) = named.or_else(|| environment.passfile.clone()).or_else(by_default) else { return };
        match passwords(&path) {
            Ok(None) => {}
            Ok(Some(lines)) => {
                if let Some(password) = password_for(&lines, &self.config) {
                    self.config.password(password);
                }
            }
            Err(why) => self.ignored = Some(format!("the password file {} was not read: {why}", path.display())),
        }
    }
}

/// What is checked. A file of authorities that is there is used whatever the mode.
fn checks(ours: &Ours, by_default: Option<PathBuf>) -> Result<(Encryption, Roots), LedgerError> {
    let mode = ours.sslmode.as_deref().map(str::parse).transpose()?;
    if ours.sslrootcert.as_deref() == Some("system") {
        return match mode {
            None | Some(Encryption::VerifyFull) => Ok((Encryption::VerifyFull, Roots::System)),
            Some(_) => Err(LedgerError::Refused("sslrootcert=system needs sslmode=verify-full".to_owned())),
        };
    }
    let mode = mode.unwrap_or(Encryption::Prefer);
    let file = match &ours.sslrootcert {
        Some(path) => Some(PathBuf::from(path)),
        None => by_default,
    };
    if let Some(file) = file.as_ref().filter(|file| file.exists()) {
        return Ok((mode, Roots::File(file.clone())));
    }
    if matches!(mode, Encryption::VerifyCa | Encryption::VerifyFull) {
        let file = file.map_or_else(|| "~/.postgresql/root.crt".to_owned(), |file| file.display().to_string());
        return Err(LedgerError::Refused(format!(
            "there are no certificates to check the server's against: {file} does not exist: name a file by sslrootcert, \
             or sslrootcert=system with sslmode=verify-full"
        )));
    }
    Ok((mode, Roots::Unchecked))
}

/// A URL without what tokio-postgres does not know.
fn without_ours_in_url(url: &str, ours: &mut Ours) -> String {
    // What stands before "@" may hold a question mark.
    let after_user = url.find('@').map_or(0, |at| at + 1);
    let Some(at) = url.get(after_user..).and_then(|rest| rest.find('?')).map(|at| after_user + at) else {
        return url.to_owned();
    };
    let (place, query) = url.split_at(at);
    let kept: Vec<&str> = query
        .trim_start_matches('?')
        .split('&')
        .filter(|pair| !pair.split_once('=').is_some_and(|(key, value)| ours.takes(&decoded(key), &decoded(value))))
        .collect();
    if kept.is_empty() { place.to_owned() } else { format!("{place}?{}", kept.join("&")) }
}

/// With `%41` and the like as what they stand for.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A string of pairs without what tokio-postgres does not know.
fn without_ours_in_pairs(text: &str, ours: &mut Ours) -> Result<String, LedgerError> {
    Ok(joined(pairs(text)?.into_iter().filter(|(key, value)| !ours.takes(key, value))))
}

/// `key = value` pairs, whose values may be in single quotation marks, with `\` before what else would end them.
fn pairs(text: &str) -> Result<Vec<(String, String)>, LedgerError> {
    let wrong = || LedgerError::Refused("invalid connection string: expected key=value pairs".to_owned());
    let mut letters = text.chars().peekable();
    let mut pairs = Vec::new();
    loop {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        if letters.peek().is_none() {
            return Ok(pairs);
        }
        let mut key = String::new();
        while let Some(letter) = letters.next_if(|letter| *letter != '=' && !letter.is_whitespace()) {
            key.push(letter);
        }
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        if key.is_empty() || letters.next() != Some('=') {
            return Err(wrong());
        }
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        let is_quoted = letters.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        let is_ended = loop {
            match letters.next() {
                None => break !is_quoted,
                Some('\'') if is_quoted => break true,
                Some(letter) if !is_quoted && letter.is_whitespace() => break true,
                Some('\\') => value.extend(letters.next()),
                Some(letter) => value.push(letter),
            }
        };
        if !is_ended {
            return Err(wrong());
        }
        pairs.push((key, value));
    }
}

/// The text of a password file; `None` where there is none.
fn passwords(path: &Path) -> io::Result<Option<String>> {
    let meta = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        meta => meta?,
    };
    if !meta.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a file"));
    }
    if meta.permissions().mode() & OTHERS != 0 {
        let why = "others than its owner may read or write it: chmod 600";
        return Err(io::Error::new(ErrorKind::PermissionDenied, why));
    }
    std::fs::read_to_string(path).map(Some)
}

/// The password of the first line that fits: `host:port:database:user:password`, where `*` stands for anything.
fn password_for(lines: &str, config: &Config) -> Option<String> {
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) if matches!(path.to_str(), Some("/tmp" | "/var/run/postgresql")) => "localhost".to_owned(),
        Host::Unix(path) => path.display().to_string(),
    });
    let ports = config.get_ports();
    let port_of = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(PORT).to_string();
    let places: Vec<(String, String)> = hosts.enumerate().map(|(at, host)| (host, port_of(at))).collect();
    let own_name = || nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name);
    let user = config.get_user().map(str::to_owned).or_else(own_name).unwrap_or_default();
    let database = config.get_dbname().unwrap_or(&user);
    let fits = |pattern: &str, value: &str| pattern == "*" || unescaped(pattern) == value;
    lines.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let [host, port, of_database, of_user, password] = fields.as_slice() else { return None };
        let is_here = places.iter().any(|(name, number)| fits(host, name) && fits(port, number));
        (is_here && fits(of_database, database) && fits(of_user, &user)).then(|| unescaped(password))
    })
}

/// The fields of a line, as they are written.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut is_escaped) = (vec![String::new()], false);
    for letter in line.chars() {
        match (letter, fields.len()) {
            // The password is the rest of the line.
            (':', 1..5) if !is_escaped => fields.push(String::new()),
            _ => fields.last_mut().into_iter().for_each(|field| field.push(letter)),
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    fields
}

/// With `\:` and `\\` as what they stand for.
fn unescaped(field: &str) -> String {
    let mut letters = field.chars();
    let mut text = String::new();
    while let Some(letter) = letters.next() {
        text.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    text
}

#[cfg(test)]
mod tests;
