//! Whoever connects: a wrapper that begins a session, one that goes on with it, or a workload that tries its luck.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Counted, GUESTS_MAX, Relay, STRANGERS_MAX};
use crate::ledger::job_name::JobName;
use crate::ledger::keys::Secret;
use crate::ledger::protocol::{OpenRequest, Report};
use crate::ledger::relay::{Ask, End, FromRelay, Kept, Line, Session, ToRelay, Told, VERSION, Welcome, nonce};
use crate::ledger::views::{Change, Query, View};
use crate::ledger::{Ledger, LedgerError};
use crate::sys::clock::Clock;
use crate::sys::clock::SystemClock;

const STACK_BYTES: usize = 512 * 1024;
/// A stranger has so long to prove something.
const PROOF_WAIT: Duration = Duration::from_secs(2);
/// A wrapper reports each 10 s at least, and a connection that says nothing for longer is looked for anew.
const SILENCE_MAX: Duration = Duration::from_mins(2);

/// On a thread of its own.
pub(super) fn welcome(relay: &Arc<Relay>, stream: UnixStream) {
    let relay = Arc::clone(relay);
    std::thread::Builder::new()
        .name("guest".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            if let Err(error) = serve(&relay, stream) {
                tracing::debug!(%error, "A connection ends.");
            }
        })
        .ok();
}

fn refuse(line: &mut Line, why: &str) -> std::io::Result<()> {
    tracing::warn!(why, "Somebody is refused.");
    line.say(&FromRelay::Refused { why: why.to_owned() })
}

fn serve(relay: &Relay, stream: UnixStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PROOF_WAIT))?;
    stream.set_write_timeout(Some(PROOF_WAIT))?;
    let mut line = Line::new(stream);
    let Some(stranger) = Counted::one_of(&relay.strangers, STRANGERS_MAX) else { return Ok(()) };
    let session = match line.hear::<ToRelay>()? {
        Some(ToRelay::Begin { version, secret, .. }) if version == VERSION => return begin(relay, &mut line, &secret),
        Some(ToRelay::Resume { version, nonce, session }) if version == VERSION => {
            match proved(relay, &mut line, &nonce, session)? {
                Some(session) => session,
                None => return refuse(&mut line, "there is no such session"),
            }
        }
        Some(ToRelay::Begin { .. } | ToRelay::Resume { .. }) => {
            return refuse(
                &mut line,
                &format!("this relay speaks version {VERSION}: use a wrapper of the same jobmeter"),
            );
        }
        Some(ToRelay::Prove { .. } | ToRelay::Ask(_)) | None => return Ok(()),
    };
    drop(stranger);
    let Some(_guest) = Counted::one_of(&relay.guests, GUESTS_MAX) else {
        return refuse(&mut line, "the session has too many connections");
    };
    line.stream().set_read_timeout(Some(SILENCE_MAX))?;
    relay.sessions().arrived(session.id);
    let served = answer_all(relay, &mut line, session.id);
    relay.sessions().left(session.id, SystemClock.boottime_us());
    served
}

/// There is no workload yet, or there is none any more.
fn begin(relay: &Relay, line: &mut Line, secret: &str) -> std::io::Result<()> {
    let Ok(secret) = secret.parse::<Secret>() else { return refuse(line, "this is no secret") };
    let session = Session { id: Uuid::now_v7(), hash: secret.hash() };
    let begun = relay.sessions().begin(&relay.options, session.clone(), SystemClock.boottime_us());
    match begun {
        Ok(()) => {
            tracing::info!(session = %session.id, "A session begins.");
            line.say(&welcome_of(relay, session.id))
        }
        Err(why) => refuse(line, &why),
    }
}

fn welcome_of(relay: &Relay, session: Uuid) -> FromRelay {
    let mut welcome = relay.options.welcome.clone();
    welcome.session = session;
    FromRelay::Welcome(Box::new(welcome))
}

/// Both ends show that they know the secret, the relay first.
fn proved(relay: &Relay, line: &mut Line, theirs: &str, id: Uuid) -> std::io::Result<Option<Session>> {
    let Some(session) = relay.sessions().known(id) else { return Ok(None) };
    let own = nonce();
    let proof = session.proof(End::Relay, &own, theirs);
    line.say(&FromRelay::Challenge { nonce: own.clone(), proof })?;
    let Some(ToRelay::Prove { proof }) = line.hear()? else { return Ok(None) };
    if !session.believes(&proof, End::Wrapper, &own, theirs) {
        return Ok(None);
    }
    line.say(&welcome_of(relay, id))?;
    Ok(Some(session))
}

fn answer_all(relay: &Relay, line: &mut Line, session: Uuid) -> std::io::Result<()> {
    let mut ledger: Option<Box<dyn Ledger>> = None;
    while let Some(said) = line.hear::<ToRelay>()? {
        let ToRelay::Ask(ask) = said else { return Ok(()) };
        let told = answer(relay, session, &mut ledger, *ask).unwrap_or_else(|error| {
            if matches!(error, LedgerError::Unavailable(_) | LedgerError::Broken(_)) {
                // A service may have moved: the next question looks for it anew.
                ledger = None;
            }
            Told::from(error)
        });
        line.say(&FromRelay::Told(Box::new(told)))?;
    }
    Ok(())
}

fn answer(relay: &Relay, session: Uuid, ledger: &mut Option<Box<dyn Ledger>>, ask: Ask) -> Result<Told, LedgerError> {
    // What is kept is kept before the ledger is asked, which may be away.
    let ask = kept(relay, session, ask)?;
    if matches!(ask, Ask::Keep(_)) {
        return Ok(Told::Kept);
    }
    let ledger = match ledger {
        Some(ledger) => ledger,
        none => none.insert((relay.options.connect)(&relay.options.ledger)?),
    };
    Ok(match ask {
        Ask::Open(request) => {
            let answer = ledger.open(&request)?;
            relay.sessions().opened(session, &answer)?;
            Told::Opened(answer)
        }
        Ask::Report(report) => Told::Reported(ledger.report(&report)?),
        Ask::Finish(finish) => {
            let answer = ledger.finish(&finish)?;
            relay.sessions().told(session);
            Told::Finished(answer)
        }
        Ask::Keep(_) => Told::Kept,
        Ask::Change(change) => Told::Changed(ledger.change(&change)?),
        Ask::Read(query @ Query::Stopped { .. }) => {
            let known = relay.sessions().is_stopped(session, &query, || ledger.second_line())?;
            let ask = || ledger.read(&query);
            Told::Read(known.map_or_else(ask, |is_stopped| Ok(View::Stopped(is_stopped)))?)
        }
        Ask::Read(query) => Told::Read(ledger.read(&query)?),
    })
}

fn own_job(own: &Welcome) -> JobName {
    JobName { id: own.job.clone(), user: Some(own.user.clone()), principal: None }
}

/// Who the job is says the relay; and a wrapper asks for its own attempt, job and account alone.
fn kept(relay: &Relay, session: Uuid, ask: Ask) -> Result<Ask, LedgerError> {
    let foreign = || LedgerError::Refused("a wrapper may ask for its own job alone".to_owned());
    let own = &relay.options.welcome;
    Ok(match ask {
        Ask::Open(OpenRequest { mut identity, resources, resume, .. }) => {
            identity.user.clone_from(&own.user);
            identity.job.clone_from(&own.job);
            identity.task.clone_from(&own.task);
            identity.kind = own.kind;
            identity.name.clone_from(&own.name);
            let mut request = OpenRequest { identity, resources, limit: own.limit, resume, secret: None };
            request.secret = relay.sessions().opening(&relay.options, session, &request)?;
            Ask::Open(request)
        }
        Ask::Report(mut report) => {
            let Report { attempt, usage, period, closed, .. } = &report;
            report.secret = relay.sessions().reported(session, *attempt, usage, *period, closed.as_ref())?;
            Ask::Report(report)
        }
        Ask::Keep(kept) => {
            let Kept { attempt, usage, period, closed } = &kept;
            relay.sessions().reported(session, *attempt, usage, *period, closed.as_ref())?;
            Ask::Keep(kept)
        }
        Ask::Finish(mut finish) => {
            finish.secret = relay.sessions().finished(session, &finish)?;
            Ask::Finish(finish)
        }
        Ask::Change(mut change) => {
            let is_stop = matches!(change, Change::StopJob { .. });
            let job = change.job_mut().filter(|job| !is_stop && job.id == own.job).ok_or_else(foreign)?;
            *job = own_job(own);
            Ask::Change(change)
        }
        Ask::Read(Query::Account { user }) if user == own.user => Ask::Read(Query::Account { user }),
        Ask::Read(Query::Stopped { job, .. }) if job.id == own.job => {
            Ask::Read(Query::Stopped { job: own_job(own), first: None })
        }
        Ask::Read(_) => return Err(foreign()),
    })
}
