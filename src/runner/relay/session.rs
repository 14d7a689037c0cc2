//! The session with a wrapper and its attempt: what the relay keeps on its own disk, and settles where the wrapper is gone.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::RelayOptions;
use crate::domain::usage::Usage;
use crate::ledger::attempt_secret::AttemptSecret;
use crate::ledger::protocol::{ClosedPeriod, Finish, OpenAnswer, OpenRequest};
use crate::ledger::relay::Session;
use crate::ledger::views::Query;
use crate::ledger::{Ledger, LedgerError};
use crate::runner::keeper::micros;
use crate::runner::spool::{Header, Record, SLOT_BYTES_WITH_GPUS, Spool, out_of_others_reach};
use crate::runner::{leftovers, stops};
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::containment::ContainmentSpec;
use crate::sys::process::boot_id;

const FILE: &str = "session.json";
/// A ledger that did not take what was settled is asked again so often.
const AGAIN_US: u64 = 5_000_000;

/// What is kept of a session, so that a relay that was restarted goes on with it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    session: Uuid,
    hash: String,
    attempt: Option<Uuid>,
}

/// A wrapper, and its attempt once it is open.
#[derive(Debug)]
struct Live {
    session: Session,
    connections: usize,
    /// Since when nobody of it is connected.
    left_at_us: u64,
    spool: Option<(Spool, Header)>,
    record: Record,
    /// The ledger has taken the end.
    is_told: bool,
    /// True once an operator stopped the job; where a question about that is kept.
    is_stopped: Option<Arc<AtomicBool>>,
}

/// The one session, and what is left of those before it.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    live: Option<Live>,
    /// Spools of earlier attempts may be waiting for the ledger.
    has_leftovers: bool,
    again_at_us: u64,
}

fn refused(why: &str) -> LedgerError {
    LedgerError::Refused(why.to_owned())
}

fn unwritten(error: std::io::Error) -> LedgerError {
    // The wrapper keeps what was not taken, and says it again.
    LedgerError::Unavailable(format!("the relay cannot write its state: {error}"))
}

impl Sessions {
    /// Goes on where an earlier relay of this pod was.
    pub(super) fn open(options: &RelayOptions) -> Result<Self, String> {
        let told = |error: std::io::Error| format!("the relay's state {}: {error}", options.state_dir.display());
        out_of_others_reach(&options.state_dir)
            .and_then(|()| std::fs::create_dir_all(&options.state_dir))
            .map_err(told)?;
        let path = options.state_dir.join(FILE);
        let mut sessions = Self { has_leftovers: true, ..Self::default() };
        let kept = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Kept>(&bytes).map_err(|error| told(error.into()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(sessions),
            Err(error) => return Err(told(error)),
        };
        let spool = kept.attempt.map(|attempt| options.state_dir.join(format!("{attempt}.spool")));
        let adopted = spool.filter(|path| path.exists()).map(|path| Spool::adopt(&path)).transpose().map_err(told)?;
        let (spool, record) = match adopted.flatten() {
            Some((spool, header, record)) => (Some((spool, header)), record),
            None => (None, Record::default()),
        };
        sessions.live = Some(Live {
            session: Session { id: kept.session, hash: kept.hash },
            connections: 0,
            left_at_us: SystemClock.boottime_us(),
            spool,
            record,
            is_told: false,
            is_stopped: None,
        });
        Ok(sessions)
    }

    pub(super) fn known(&self, id: Uuid) -> Option<Session> {
        self.live.as_ref().map(|live| &live.session).filter(|session| session.id == id).cloned()
    }

    /// A wrapper that begins finds nobody here, or one that has ended, or is gone.
    pub(super) fn begin(&mut self, options: &RelayOptions, session: Session, now_us: u64) -> Result<(), String> {
        if let Some(live) = &self.live
            && !live.has_ended()
            && !live.is_lost(options.lost_after, now_us)
            && !live.has_begun_nothing()
        {
            return Err("there is a session already; it ends with its wrapper".to_owned());
        }
        self.settle(options);
        let kept = Kept { session: session.id, hash: session.hash.clone(), attempt: None };
        write(&options.state_dir, &kept).map_err(|error| format!("the relay cannot write its state: {error}"))?;
        self.live = Some(Live {
            session,
            connections: 0,
            left_at_us: now_us,
            spool: None,
            record: Record::default(),
            is_told: false,
            is_stopped: None,
        });
        Ok(())
    }

    pub(super) fn arrived(&mut self, id: Uuid) {
        if let Some(live) = self.live.as_mut().filter(|live| live.session.id == id) {
            live.connections += 1;
        }
    }

    pub(super) fn left(&mut self, id: Uuid, now_us: u64) {
        if let Some(live) = self.live.as_mut().filter(|live| live.session.id == id) {
            live.connections = live.connections.saturating_sub(1);
            live.left_at_us = now_us;
        }
    }

    fn live(&mut self, id: Uuid) -> Result<&mut Live, LedgerError> {
        let live = self.live.as_mut().filter(|live| live.session.id == id);
        live.ok_or_else(|| refused("the session is over"))
    }

    /// An attempt is about to be opened, with this secret: one for each session.
    pub(super) fn opening(
        &mut self,
        options: &RelayOptions,
        id: Uuid,
        request: &OpenRequest,
    ) -> Result<Option<AttemptSecret>, LedgerError> {
        let live = self.live(id)?;
        let attempt = request.identity.attempt;
        if let Some((_, header)) = &live.spool {
            let same = header.identity.attempt == attempt;
            return if same { Ok(header.secret) } else { Err(refused("the session has an attempt already")) };
        }
        let started_ms_ago = request.resume.map_or(0, |resume| resume.started_ms_ago);
        let ago_us = started_ms_ago.saturating_mul(1_000);
        let header = Header {
            schema: "jobmeter.spool/1".to_owned(),
            identity: request.identity.clone(),
            ledger: options.ledger.to_string(),
            boot_id: boot_id(),
            // It cannot be reached from here: the wrapper is the first process of its namespace, and ends with it.
            containment: ContainmentSpec::Tree { front: 0, start: 0, before_us: 0, pid_namespace: None },
            started_at_us: SystemClock.realtime_us().saturating_sub_unsigned(ago_us),
            started_boottime_us: SystemClock.boottime_us().checked_sub(ago_us),
            resources: request.resources.clone(),
            slot_bytes: SLOT_BYTES_WITH_GPUS,
            limit: request.limit,
            socket: None,
            secret: Some(live.session.secret_of(attempt)),
        };
        let spool = Spool::create(&options.state_dir, &header).map_err(unwritten)?;
        let kept = Kept { session: id, hash: live.session.hash.clone(), attempt: Some(attempt) };
        write(&options.state_dir, &kept).map_err(unwritten)?;
        let secret = header.secret;
        live.spool = Some((spool, header));
        Ok(secret)
    }

    pub(super) fn opened(&mut self, id: Uuid, answer: &OpenAnswer) -> Result<(), LedgerError> {
        let live = self.live(id)?;
        if let OpenAnswer::Opened { rates, lease, .. } = answer {
            live.record.period = live.record.period.or(Some(lease.period));
            live.record.rates_version = Some(rates.version);
            return live.keep();
        }
        Ok(())
    }

    /// What it burned is kept, before the ledger is told of it with this secret.
    pub(super) fn reported(
        &mut self,
        id: Uuid,
        attempt: Uuid,
        usage: &Usage,
        period: i64,
        closed: Option<&ClosedPeriod>,
    ) -> Result<Option<AttemptSecret>, LedgerError> {
        let live = self.of_attempt(id, attempt)?;
        live.record.usage = live.record.usage.merged(usage);
        live.record.period = Some(period);
        live.record.closed = closed.cloned();
        live.keep()?;
        Ok(live.secret())
    }

    /// So is its last word.
    pub(super) fn finished(&mut self, id: Uuid, finish: &Finish) -> Result<Option<AttemptSecret>, LedgerError> {
        let live = self.of_attempt(id, finish.attempt)?;
        if live.record.finish.is_none() {
            live.record.finish = Some(finish.clone());
            live.keep()?;
        }
        Ok(live.secret())
    }

    fn of_attempt(&mut self, id: Uuid, attempt: Uuid) -> Result<&mut Live, LedgerError> {
        let live = self.live(id)?;
        let is_own = live.spool.as_ref().is_some_and(|(_, header)| header.identity.attempt == attempt);
        if is_own { Ok(live) } else { Err(refused("this is not the session's attempt")) }
    }

    /// Whether an operator stopped the job of its attempt, as far as a question that is kept by `second_line` has told; `None` where none
    /// is.
    pub(super) fn is_stopped(
        &mut self,
        id: Uuid,
        query: &Query,
        second_line: impl FnOnce() -> Option<Box<dyn Ledger>>,
    ) -> Result<Option<bool>, LedgerError> {
        let live = self.live(id)?;
        let attempt = live.spool.as_ref().map(|(_, header)| header.identity.attempt);
        if live.is_stopped.is_none()
            && let Some((attempt, ledger)) = attempt.zip(second_line())
        {
            let is_stopped = Arc::new(AtomicBool::new(false));
            let (wanted, told) = (Arc::downgrade(&is_stopped), Arc::downgrade(&is_stopped));
            let stopped = move || _ = told.upgrade().map(|told| told.store(true, Ordering::Release));
            let watched = stops::watch(ledger, attempt, query.clone(), move || wanted.strong_count() > 0, stopped);
            live.is_stopped = watched.is_ok().then_some(is_stopped);
        }
        Ok(live.is_stopped.as_ref().map(|stopped| stopped.load(Ordering::Acquire)))
    }

    /// The ledger has taken the end.
    pub(super) fn told(&mut self, id: Uuid) {
        if let Some(live) = self.live.as_mut().filter(|live| live.session.id == id) {
            live.is_told = true;
            if let Some((spool, _)) = live.spool.take() {
                spool.acknowledge().ok();
            }
        }
    }

    /// Settles the attempt of a wrapper that is gone, and what the ledger did not take before. At the relay's own end
    /// everything is settled that no wrapper holds any more, and once its time `is_over` the rest as well.
    pub(super) fn settle_what_is_lost(&mut self, options: &RelayOptions, ends: bool, is_over: bool) {
        let now_us = SystemClock.boottime_us();
        let lost_after = if ends { Duration::ZERO } else { options.lost_after };
        let is_lost = self.live.as_ref().is_some_and(|live| {
            live.spool.is_some() && live.connections == 0 && (live.has_ended() || live.is_lost(lost_after, now_us))
        });
        if is_lost || is_over {
            self.settle(options);
        }
        if self.has_leftovers && (now_us >= self.again_at_us || is_over) {
            self.again_at_us = now_us.saturating_add(AGAIN_US);
            let flushed = leftovers::flush(&options.state_dir, &options.ledger, options.connect);
            self.has_leftovers = flushed.is_ok_and(|flushed| !flushed.kept.is_empty());
        }
    }

    fn settle(&mut self, options: &RelayOptions) {
        let Some(live) = &mut self.live else { return };
        let Some((spool, header)) = live.spool.take() else { return };
        let record = std::mem::take(&mut live.record);
        let attempt = header.identity.attempt;
        match leftovers::settle(spool, &header, record, &options.ledger, options.connect) {
            Ok(_) => tracing::info!(%attempt, "An attempt was settled without its wrapper."),
            Err((_, why)) => {
                tracing::warn!(%attempt, why, "An attempt waits to be settled.");
                self.has_leftovers = true;
            }
        }
        live.is_told = true;
    }

    pub(super) fn is_all_told(&self) -> bool {
        !self.has_leftovers
            && self.live.as_ref().is_none_or(|live| live.is_told || (live.spool.is_none() && live.connections == 0))
    }
}

impl Live {
    /// Of its attempt. One that an older relay opened has none, and gets none: its spool, from which it may be settled
    /// later, would not know it.
    fn secret(&self) -> Option<AttemptSecret> {
        self.spool.as_ref().and_then(|(_, header)| header.secret)
    }

    fn has_ended(&self) -> bool {
        self.is_told || self.record.finish.is_some()
    }

    /// It was refused, or failed before its workload could exist.
    fn has_begun_nothing(&self) -> bool {
        self.connections == 0 && self.record.period.is_none()
    }

    fn is_lost(&self, after: Duration, now_us: u64) -> bool {
        self.connections == 0 && now_us.saturating_sub(self.left_at_us) >= micros(after)
    }

    fn keep(&mut self) -> Result<(), LedgerError> {
        self.record.at_us = SystemClock.realtime_us();
        match &mut self.spool {
            Some((spool, _)) => spool.write(self.record.clone()).map_err(unwritten),
            None => Err(refused("nothing was opened")),
        }
    }
}

fn write(directory: &Path, kept: &Kept) -> std::io::Result<()> {
    let part = directory.join(format!(".{FILE}.part"));
    std::fs::write(&part, serde_json::to_vec(kept)?)?;
    std::fs::rename(part, directory.join(FILE))
}
