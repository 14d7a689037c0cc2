//! What a wrapper that holds no key and the relay that does say to each other over a unix socket, one JSON document a
//! line; and the wrapper's end of it, a [`Ledger`].
//!
//! The first connection comes before the workload exists, and makes a session: the wrapper tells the relay a secret, which
//! stays in the wrapper's memory. Whoever connects later, on a socket that the workload can reach and could even have put
//! there, proves that it knows the secret's hash, and so does the relay: neither can the workload speak for the meter, nor
//! can it answer in the relay's place.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

use super::attempt_secret::AttemptSecret;
use super::keys::Secret;
use super::protocol::{ClosedPeriod, Finish, FinishAnswer, JobKind, OpenAnswer, OpenRequest, Report, ReportAnswer};
use super::views::{Change, ChangeAnswer, NewKey, Query, View};
use super::{Ledger, LedgerError};
use crate::domain::units::Nanocredits;
use crate::domain::usage::Usage;

/// Of what is said here. A relay and a wrapper of different versions refuse each other.
pub const VERSION: u32 = 1;
/// No line is longer: a receipt of a wrapper of before may have 256 KiB.
const LINE_MAX_BYTES: u64 = 1024 * 1024;
/// The relay waits for a ledger that does not answer for 15 s.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// From the wrapper.
#[expect(missing_docs, reason = "the fields are words of the design")]
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToRelay {
    /// Makes a session, of which `secret` is the secret.
    Begin { version: u32, nonce: String, secret: String },
    /// Goes on with one.
    Resume { version: u32, nonce: String, session: Uuid },
    /// That it knows the secret.
    Prove { proof: String },
    /// Once it is believed.
    Ask(Box<Ask>),
}

/// A question to the ledger.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// See [`Ledger::open`].
    Open(OpenRequest),
    /// See [`Ledger::report`].
    Report(Report),
    /// See [`Ledger::finish`].
    Finish(Finish),
    /// See [`Ledger::keep`].
    Keep(Kept),
    /// See [`Ledger::change`].
    Change(Change),
    /// See [`Ledger::read`].
    Read(Query),
}

/// What an attempt has burned so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Which.
    pub attempt: Uuid,
    /// Since it began.
    pub usage: Usage,
    /// Which period pays.
    pub period: i64,
    /// What an earlier period still has to be told.
    pub closed: Option<ClosedPeriod>,
}

/// From the relay.
#[expect(missing_docs, reason = "the fields are words of the design")]
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromRelay {
    /// The session was made, or goes on.
    Welcome(Box<Welcome>),
    /// `proof` says that the relay knows the secret; now the wrapper.
    Challenge { nonce: String, proof: String },
    /// Nobody is believed.
    Refused { why: String },
    /// To a question.
    Told(Box<Told>),
}

/// What the ledger answered.
#[expect(missing_docs, reason = "the fields are words of the design")]
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    Opened(OpenAnswer),
    Reported(ReportAnswer),
    Finished(FinishAnswer),
    Changed(ChangeAnswer),
    Kept,
    Read(View),
    Failed { family: Family, why: String },
}

/// The families of [`LedgerError`].
#[expect(missing_docs, reason = "the same words")]
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    Refused,
    Missing,
    Unknown,
    Unavailable,
    Conflict,
    Broken,
}

/// What the relay decides, and not the pod's command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// Names the session.
    pub session: Uuid,
    /// Whose credits.
    pub user: String,
    /// Which job.
    pub job: String,
    /// Which task of it.
    pub task: String,
    /// What for.
    pub kind: JobKind,
    /// For people.
    pub name: Option<String>,
    /// The job's own limit.
    pub limit: Option<Nanocredits>,
    /// No other job has the container's GPUs.
    #[serde(default)]
    pub gpu_exclusive: bool,
}

/// A session as both ends know it.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Names it.
    pub id: Uuid,
    /// Of the secret; whoever knows it is believed.
    pub hash: String,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Which end proves something: a proof of one is none of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Holds the ledger's key.
    Relay,
    /// Holds the workload.
    Wrapper,
}

impl Session {
    /// Of these words, the first of which says what it is for.
    fn mac(&self, words: &[&str]) -> Hmac<Sha256> {
        // Keys of any length are taken.
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.hash.as_bytes()).expect("HMAC takes every key");
        for word in words {
            mac.update(word.as_bytes());
            mac.update(b"\n");
        }
        mac
    }

    fn proof_mac(&self, end: End, relay_nonce: &str, wrapper_nonce: &str) -> Hmac<Sha256> {
        let end = if end == End::Relay { "relay" } else { "wrapper" };
        self.mac(&[end, &self.id.to_string(), relay_nonce, wrapper_nonce])
    }

    /// With which the relay opens an attempt of the session. The one that the wrapper makes does not reach it, and whatever
    /// relay goes on with the session finds the same.
    #[must_use]
    pub fn secret_of(&self, attempt: Uuid) -> AttemptSecret {
        let bytes: [u8; 32] = self.mac(&["attempt", &attempt.to_string()]).finalize().into_bytes().into();
        bytes.into()
    }

    /// That this end knows the secret, for these two nonces.
    #[must_use]
    pub fn proof(&self, end: End, relay_nonce: &str, wrapper_nonce: &str) -> String {
        let bytes = self.proof_mac(end, relay_nonce, wrapper_nonce).finalize().into_bytes();
        bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    /// Whether the other end does.
    #[must_use]
    pub fn believes(&self, proof: &str, end: End, relay_nonce: &str, wrapper_nonce: &str) -> bool {
        let bytes: Option<Vec<u8>> = (proof.len() == 64 && proof.is_ascii())
            .then(|| (0..32).map(|at| u8::from_str_radix(&proof[at * 2..at * 2 + 2], 16).ok()).collect())
            .flatten();
        bytes.is_some_and(|bytes| self.proof_mac(end, relay_nonce, wrapper_nonce).verify_slice(&bytes).is_ok())
    }
}

/// Random, and never used again.
#[must_use]
pub fn nonce() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

impl From<LedgerError> for Told {
    fn from(error: LedgerError) -> Self {
        let (family, why) = match error {
            LedgerError::Refused(why) | LedgerError::Outdated(why) => (Family::Refused, why),
            LedgerError::Missing(why) => (Family::Missing, why),
            LedgerError::Unknown(why) => (Family::Unknown, why),
            // A wrapper of an earlier version knows no family of its own for it.
            error @ LedgerError::Foreign => (Family::Refused, error.to_string()),
            error @ LedgerError::Locked(_) => (Family::Unavailable, error.to_string()),
            LedgerError::Unavailable(why) => (Family::Unavailable, why),
            LedgerError::Conflict(why) => (Family::Conflict, why),
            LedgerError::Broken(why) => (Family::Broken, why),
        };
        Self::Failed { family, why }
    }
}

fn error_of(family: Family, why: String) -> LedgerError {
    match family {
        Family::Refused => LedgerError::Refused(why),
        Family::Missing => LedgerError::Missing(why),
        Family::Unknown => LedgerError::Unknown(why),
        Family::Unavailable => LedgerError::Unavailable(why),
        Family::Conflict => LedgerError::Conflict(why),
        Family::Broken => LedgerError::Broken(why),
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Line(BufReader<UnixStream>);

impl Line {
    /// Of a stream whose timeouts are set.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// Says something.
    ///
    /// # Errors
    /// Where the other end has gone, or takes nothing.
    pub fn say<T: Serialize>(&mut self, what: &T) -> std::io::Result<()> {
        let mut bytes = serde_json::to_vec(what)?;
        bytes.push(b'\n');
        self.0.get_mut().write_all(&bytes)
    }

    /// What the other end says; `None` once it has closed.
    ///
    /// # Errors
    /// Where it says nothing in time, too much, or what is not understood.
    pub fn hear<T: DeserializeOwned>(&mut self) -> std::io::Result<Option<T>> {
        let mut bytes = Vec::new();
        let read = (&mut self.0).take(LINE_MAX_BYTES).read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&bytes)?))
    }

    /// The stream, for its timeouts.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        self.0.get_ref()
    }
}

/// The ledger behind a relay.
#[derive(Debug)]
pub struct RelayLedger(Line);

fn lost(error: std::io::Error) -> LedgerError {
    LedgerError::Unavailable(format!("the relay does not answer: {error}"))
}

fn connected(socket: &Path) -> Result<Line, LedgerError> {
    let stream = UnixStream::connect(socket).map_err(lost)?;
    stream
        .set_read_timeout(Some(ANSWER_MAX))
        .and_then(|()| stream.set_write_timeout(Some(ANSWER_MAX)))
        .map_err(lost)?;
    Ok(Line::new(stream))
}

fn heard(line: &mut Line) -> Result<FromRelay, LedgerError> {
    match line.hear().map_err(lost)? {
        Some(FromRelay::Refused { why }) => Err(LedgerError::Unavailable(format!("the relay: {why}"))),
        Some(told) => Ok(told),
        None => Err(LedgerError::Unavailable("the relay has closed the connection".to_owned())),
    }
}

/// Makes a session, before there is a workload.
///
/// # Errors
/// [`LedgerError::Unavailable`] where the relay is not there yet, or still has the session of a wrapper that was here
/// before.
pub fn begin(socket: &Path) -> Result<(Session, Welcome), LedgerError> {
    let mut line = connected(socket)?;
    let secret = Secret::new();
    let hello = ToRelay::Begin { version: VERSION, nonce: nonce(), secret: secret.text().to_owned() };
    line.say(&hello).map_err(lost)?;
    match heard(&mut line)? {
        FromRelay::Welcome(welcome) => Ok((Session { id: welcome.session, hash: secret.hash() }, *welcome)),
        FromRelay::Challenge { .. } | FromRelay::Refused { .. } | FromRelay::Told(_) => Err(LedgerError::unasked()),
    }
}

impl RelayLedger {
    /// Goes on with a session.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] where the relay is away, or whoever answers in its place does not know the secret.
    pub fn resume(socket: &Path, session: &Session) -> Result<Self, LedgerError> {
        let mut line = connected(socket)?;
        let own = nonce();
        line.say(&ToRelay::Resume { version: VERSION, nonce: own.clone(), session: session.id }).map_err(lost)?;
        let FromRelay::Challenge { nonce, proof } = heard(&mut line)? else { return Err(LedgerError::unasked()) };
        if !session.believes(&proof, End::Relay, &nonce, &own) {
            return Err(LedgerError::Unavailable(
                "what answers in the relay's place does not know the secret".to_owned(),
            ));
        }
        line.say(&ToRelay::Prove { proof: session.proof(End::Wrapper, &nonce, &own) }).map_err(lost)?;
        match heard(&mut line)? {
            FromRelay::Welcome(_) => Ok(Self(line)),
            FromRelay::Challenge { .. } | FromRelay::Refused { .. } | FromRelay::Told(_) => Err(LedgerError::unasked()),
        }
    }

    fn ask(&mut self, ask: Ask) -> Result<Told, LedgerError> {
        self.0.say(&ToRelay::Ask(Box::new(ask))).map_err(lost)?;
        match heard(&mut self.0)? {
            FromRelay::Told(told) => match *told {
                Told::Failed { family, why } => Err(error_of(family, why)),
                told => Ok(told),
            },
            FromRelay::Welcome(_) | FromRelay::Challenge { .. } | FromRelay::Refused { .. } => {
                Err(LedgerError::unasked())
            }
        }
    }
}

impl Ledger for RelayLedger {
    fn open(&mut self, request: &OpenRequest) -> Result<OpenAnswer, LedgerError> {
        match self.ask(Ask::Open(request.clone()))? {
            Told::Opened(answer) => Ok(answer),
            _ => Err(LedgerError::unasked()),
        }
    }

    fn report(&mut self, report: &Report) -> Result<ReportAnswer, LedgerError> {
        match self.ask(Ask::Report(report.clone()))? {
            Told::Reported(answer) => Ok(answer),
            _ => Err(LedgerError::unasked()),
        }
    }

    fn finish(&mut self, finish: &Finish) -> Result<FinishAnswer, LedgerError> {
        match self.ask(Ask::Finish(finish.clone()))? {
            Told::Finished(answer) => Ok(answer),
            _ => Err(LedgerError::unasked()),
        }
    }

    fn keep(&mut self, kept: &Kept) -> Result<(), LedgerError> {
        match self.ask(Ask::Keep(kept.clone()))? {
            Told::Kept => Ok(()),
            _ => Err(LedgerError::unasked()),
        }
    }

    fn change(&mut self, change: &Change) -> Result<ChangeAnswer, LedgerError> {
        let mut change = change.clone();
        if let Some(job) = change.job_mut() {
            *job = job.id.as_str().into();
        }
        match self.ask(Ask::Change(change))? {
            Told::Changed(answer) => Ok(answer),
            _ => Err(LedgerError::unasked()),
        }
    }

    fn new_key(&mut self, _key: &NewKey) -> Result<Secret, LedgerError> {
        Err(LedgerError::Refused("a relay makes no keys".to_owned()))
    }

    fn read(&mut self, query: &Query) -> Result<View, LedgerError> {
        // The relay knows whose the job is, and one of before knows no such fields.
        let query = match query {
            Query::Stopped { job, .. } => Query::Stopped { job: job.id.as_str().into(), first: None },
            query => query.clone(),
        };
        match self.ask(Ask::Read(query))? {
            Told::Read(view) => Ok(view),
            _ => Err(LedgerError::unasked()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_for_one_end_and_once() {
        let session = Session { id: Uuid::from_u128(7), hash: "abc".to_owned() };
        let proof = session.proof(End::Relay, "r", "w");
        assert!(session.believes(&proof, End::Relay, "r", "w"));
        assert!(!session.believes(&proof, End::Wrapper, "r", "w"));
        assert!(!session.believes(&proof, End::Relay, "r2", "w") && !session.believes(&proof, End::Relay, "r", "w2"));
        for wrong in ["", "zz", &"é".repeat(32), &"g".repeat(64)] {
            assert!(!session.believes(wrong, End::Relay, "r", "w"), "{wrong}");
        }
        let other = Session { hash: "abd".to_owned(), ..session.clone() };
        assert!(!other.believes(&proof, End::Relay, "r", "w"));
        assert!(!format!("{session:?}").contains("abc"));
    }

    #[test]
    fn the_secret_of_an_attempt_is_that_of_its_session_alone() {
        let session = Session { id: Uuid::from_u128(7), hash: "abc".to_owned() };
        let attempt = Uuid::from_u128(8);
        assert_eq!(session.secret_of(attempt), session.clone().secret_of(attempt));
        assert_ne!(session.secret_of(attempt), session.secret_of(Uuid::from_u128(9)));
        assert_ne!(session.secret_of(attempt), Session { hash: "abd".to_owned(), ..session }.secret_of(attempt));
    }
}
