//! The uplink: a thread of the keeper that talks to the ledger, since a commit takes milliseconds and a look may not
//! wait for it. One question at a time; answers come back with the time at which the question was sent.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use super::origin::{Beginning, Origin};
use crate::ledger::location::{Connect, Location};
use crate::ledger::protocol::{AttemptIdentity, Finish, FinishAnswer, OpenAnswer, OpenRequest, Report, ReportAnswer};
use crate::ledger::relay::Kept;
use crate::ledger::views::{Query, View};
use crate::ledger::{Ledger, LedgerError};
use crate::sys::bell::Bell;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::process::schedule_first;

const STACK_BYTES: usize = 512 * 1024;
/// So often is looked whether an operator stopped the job, where the ledger keeps no question about that.
const LOOK_US: u64 = 1_000_000;

/// What the thread is to do.
#[derive(Debug)]
pub(super) enum Question {
    Open(Box<OpenRequest>),
    Report(Box<Report>),
    Finish(Box<Finish>),
    /// Make what was written to the spool survive a power cut.
    Keep {
        spool: File,
        kept: Box<Kept>,
    },
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Answer {
    Opened(Result<OpenAnswer, LedgerError>),
    Reported {
        seq: u64,
        result: Result<ReportAnswer, LedgerError>,
    },
    Finished(Result<FinishAnswer, LedgerError>),
    /// Unasked: an operator stopped the job.
    Stopped,
}

/// An answer, and when its question was sent (`CLOCK_BOOTTIME`, µs).
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) sent_us: u64,
    pub(super) took_us: u64,
    pub(super) answer: Answer,
}

/// The keeper's end.
#[derive(Debug)]
pub(super) struct Uplink {
    questions: Sender<Question>,
    answers: Receiver<Answered>,
    bell: Arc<Bell>,
    /// The thread has something to keep. While the disk is slow, nothing more is piled up in front of reports.
    is_keeping: Arc<AtomicBool>,
}

impl Uplink {
    /// Starts the thread; the ledger is opened with the first question.
    pub(super) fn start(location: Location, connect: Connect, began: Beginning) -> io::Result<Self> {
        let (questions, inbox) = channel::<Question>();
        let (outbox, answers) = channel::<Answered>();
        let bell = Arc::new(Bell::new()?);
        let is_keeping = Arc::new(AtomicBool::new(false));
        let answering = Answering { outbox, bell: Arc::clone(&bell) };
        let kept = Arc::clone(&is_keeping);
        Builder::new().name("uplink".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            // The job's own threads must not keep its answers waiting.
            schedule_first();
            let mut line = Line { location, connect, ledger: None, began, origin: None, answering, look_at_us: None };
            while let Some(question) = line.next(&inbox) {
                let is_keep = matches!(question, Question::Keep { .. });
                let sent_us = SystemClock.boottime_us();
                let answer = line.ask(question);
                if is_keep {
                    kept.store(false, Ordering::Release);
                }
                if answer.is_some_and(|answer| !line.answering.answer(sent_us, answer)) {
                    return;
                }
            }
        })?;
        Ok(Self { questions, answers, bell, is_keeping })
    }

    /// Keeps what was written to the spool, unless that of before is still being kept.
    pub(super) fn keep(&self, spool: impl FnOnce() -> io::Result<File>, kept: Kept) {
        if self.is_keeping.load(Ordering::Acquire) {
            return;
        }
        // Where the file has no other handle now, it has one in a moment.
        if let Ok(spool) = spool() {
            self.is_keeping.store(true, Ordering::Release);
            self.ask(Question::Keep { spool, kept: Box::new(kept) });
        }
    }

    /// Asks; the answer rings the bell.
    pub(super) fn ask(&self, question: Question) {
        // The thread ends only when this end is dropped.
        self.questions.send(question).ok();
    }

    /// The next answer that has come.
    pub(super) fn next(&self) -> Option<Answered> {
        let _has_rung = self.bell.silence();
        self.answers.try_recv().ok()
    }

    /// Waits for the next answer, at most `wait_us`.
    pub(super) fn wait(&self, wait_us: u64) -> Option<Answered> {
        self.answers.recv_timeout(Duration::from_micros(wait_us)).ok()
    }

    /// Becomes readable with each answer.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// The way back to the keeper.
#[derive(Clone)]
struct Answering {
    outbox: Sender<Answered>,
    bell: Arc<Bell>,
}

impl Answering {
    /// Whether somebody is there to take it.
    fn answer(&self, sent_us: u64, answer: Answer) -> bool {
        let took_us = SystemClock.boottime_us().saturating_sub(sent_us);
        let is_sent = self.outbox.send(Answered { sent_us, took_us, answer }).is_ok();
        self.bell.ring();
        is_sent
    }
}

/// Whether its job was stopped, by the job's id alone, as it was asked before principals.
fn of_job(identity: &AttemptIdentity) -> Query {
    Query::Stopped { job: identity.job.clone().into(), first: None }
}

struct Line {
    location: Location,
    connect: Connect,
    ledger: Option<Box<dyn Ledger>>,
    began: Beginning,
    /// Once it is open.
    origin: Option<Origin>,
    answering: Answering,
    /// When it looks next whether the job was stopped; `None` where a question about that is kept.
    look_at_us: Option<u64>,
}

impl Line {
    /// The next question; meanwhile it looks whether the job was stopped, with nothing else to ask.
    fn next(&mut self, inbox: &Receiver<Question>) -> Option<Question> {
        loop {
            let Some(at_us) = self.look_at_us else { return inbox.recv().ok() };
            let wait = Duration::from_micros(at_us.saturating_sub(SystemClock.boottime_us()));
            match inbox.recv_timeout(wait) {
                Ok(question) => return Some(question),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.look(),
            }
        }
    }

    fn look(&mut self) {
        let Some(identity) = self.origin.as_ref().map(|origin| &origin.identity) else { return };
        let query = match &self.location {
            // It may be one of before, which knows this question alone.
            Location::Relay(..) => of_job(identity),
            _ => Query::AttemptStop { attempt: identity.attempt, wait_ms: 0 },
        };
        let sent_us = SystemClock.boottime_us();
        let found = self.with_ledger(|ledger| ledger.read(&query));
        self.look_at_us = Some(SystemClock.boottime_us().saturating_add(LOOK_US));
        if matches!(found, Ok(View::Stopped(true))) {
            self.look_at_us = None;
            self.answering.answer(sent_us, Answer::Stopped);
        }
    }

    /// Once the attempt is open: a service keeps a question whether its job was stopped, of others it is asked again and again.
    fn watch_stops(&mut self, identity: &AttemptIdentity) {
        let second = self.ledger.as_ref().and_then(|ledger| ledger.second_line());
        let answering = self.answering.clone();
        let told = move || _ = answering.answer(SystemClock.boottime_us(), Answer::Stopped);
        let is_watched = second.is_some_and(|ledger| {
            super::stops::watch(ledger, identity.attempt, of_job(identity), || true, told).is_ok()
        });
        self.look_at_us = (!is_watched).then(|| SystemClock.boottime_us().saturating_add(LOOK_US));
    }

    fn ask(&mut self, question: Question) -> Option<Answer> {
        let origin = self.origin.clone();
        Some(match question {
            Question::Open(request) => Answer::Opened(self.open(*request)),
            Question::Report(report) => {
                let result = self.with_ledger(|ledger| match &origin {
                    Some(origin) => origin.report(ledger, &report, &SystemClock),
                    None => ledger.report(&report),
                });
                Answer::Reported { seq: report.seq, result }
            }
            Question::Finish(finish) => Answer::Finished(self.with_ledger(|ledger| match &origin {
                Some(origin) => origin.finish(ledger, &finish, &SystemClock),
                None => ledger.finish(&finish),
            })),
            Question::Keep { spool, kept } => {
                spool.sync_data().ok();
                // Where it fails, the next comes in a moment.
                self.with_ledger(|ledger| ledger.keep(&kept)).ok();
                return None;
            }
        })
    }

    fn open(&mut self, request: OpenRequest) -> Result<OpenAnswer, LedgerError> {
        let answer = self.with_ledger(|ledger| ledger.open(&request))?;
        if let OpenAnswer::Opened { rates, .. } = &answer {
            let OpenRequest { identity, resources, limit, secret, .. } = request;
            let (rates_version, began) = (rates.version, self.began);
            let opened = identity.clone();
            self.origin = Some(Origin { identity, resources, limit, secret, rates_version, began });
            self.watch_stops(&opened);
        }
        Ok(answer)
    }

    fn with_ledger<T>(
        &mut self,
        ask: impl FnOnce(&mut dyn Ledger) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let ledger = match &mut self.ledger {
            Some(ledger) => ledger,
            none => none.insert((self.connect)(&self.location)?),
        };
        let answer = ask(ledger.as_mut());
        if matches!(answer, Err(LedgerError::Unavailable(_) | LedgerError::Broken(_))) {
            // The file may have been put back, or a service moved: the next question looks for it anew.
            self.ledger = None;
        }
        answer
    }
}
