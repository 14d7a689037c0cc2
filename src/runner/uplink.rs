//! The uplink: a thread of the keeper that talks to the ledger, since a commit takes milliseconds and a look may not
//! wait for it. One question at a time; answers come back with the time at which the question was sent.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use super::origin::Origin;
use crate::ledger::job_name::JobName;
use crate::ledger::location::{Connect, Location};
use crate::ledger::protocol::{Finish, FinishAnswer, OpenAnswer, OpenRequest, Report, ReportAnswer};
use crate::ledger::relay::Kept;
use crate::ledger::views::{Query, View};
use crate::ledger::{Ledger, LedgerError};
use crate::sys::bell::Bell;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::process::schedule_first;

const STACK_BYTES: usize = 512 * 1024;

/// What the thread is to do.
#[derive(Debug)]
pub(super) enum Question {
    Open(Box<OpenRequest>),
    Report(Box<Report>),
    Finish(Box<Finish>),
    /// Make what was written to the spool survive a power cut, and look whether an operator stopped the job meanwhile.
    Keep {
        spool: File,
        job: String,
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
}

impl Uplink {
    /// Starts the thread; the ledger is opened with the first question.
    pub(super) fn start(location: Location, connect: Connect, started_at_us: i64) -> io::Result<Self> {
        let (questions, inbox) = channel::<Question>();
        let (outbox, answers) = channel::<Answered>();
        let bell = Arc::new(Bell::new()?);
        let ring = Arc::clone(&bell);
        Builder::new().name("uplink".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            // The job's own threads must not keep its answers waiting.
            schedule_first();
            let mut line = Line { location, connect, ledger: None, started_at_us, origin: None };
            while let Ok(question) = inbox.recv() {
                let sent_us = SystemClock.boottime_us();
                let Some(answer) = line.ask(question) else { continue };
                let took_us = SystemClock.boottime_us().saturating_sub(sent_us);
                if outbox.send(Answered { sent_us, took_us, answer }).is_err() {
                    return;
                }
                ring.ring();
            }
        })?;
        Ok(Self { questions, answers, bell })
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

struct Line {
    location: Location,
    connect: Connect,
    ledger: Option<Box<dyn Ledger>>,
    started_at_us: i64,
    /// Once it is open.
    origin: Option<Origin>,
}

impl Line {
    fn ask(&mut self, question: Question) -> Option<Answer> {
        let now_us = SystemClock.realtime_us();
        let origin = self.origin.clone();
        Some(match question {
            Question::Open(request) => Answer::Opened(self.open(*request)),
            Question::Report(report) => {
                let result = self.with_ledger(|ledger| match &origin {
                    Some(origin) => origin.report(ledger, &report, now_us),
                    None => ledger.report(&report),
                });
                Answer::Reported { seq: report.seq, result }
            }
            Question::Finish(finish) => Answer::Finished(self.with_ledger(|ledger| match &origin {
                Some(origin) => origin.finish(ledger, &finish, now_us),
                None => ledger.finish(&finish),
            })),
            Question::Keep { spool, job, kept } => {
                spool.sync_data().ok();
                // Where it fails, the next comes in a moment.
                self.with_ledger(|ledger| ledger.keep(&kept)).ok();
                let user = self.origin.as_ref().map(|origin| origin.identity.user.clone());
                let job = JobName { id: job, user, principal: None };
                let stopped = self.with_ledger(|ledger| ledger.read(&Query::Stopped { job, first: None }));
                return matches!(stopped, Ok(View::Stopped(true))).then_some(Answer::Stopped);
            }
        })
    }

    fn open(&mut self, request: OpenRequest) -> Result<OpenAnswer, LedgerError> {
        let answer = self.with_ledger(|ledger| ledger.open(&request))?;
        if let OpenAnswer::Opened { rates, .. } = &answer {
            let OpenRequest { identity, resources, limit, secret, .. } = request;
            let (rates_version, started_at_us) = (rates.version, self.started_at_us);
            self.origin = Some(Origin { identity, resources, limit, secret, rates_version, started_at_us });
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
