//! A sidecar whose job burns by the clock. The library's own state machine decides when it reports, asks again, freezes and ends.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jobmeter::domain::deadline::{Bounds, HighestRate};
use jobmeter::domain::job::{AccountState, Action, End, Event, Job, ReportDue, Rules};
use jobmeter::domain::rating::RateCard;
use jobmeter::domain::units::Microseconds;
use jobmeter::domain::usage::Usage;
use jobmeter::ledger::attempt_secret::AttemptSecret;
use jobmeter::ledger::protocol::{
    AttemptIdentity, ClosedPeriod, Finish, FinishAnswer, JobKind, OpenAnswer, OpenRequest, Reason, Report,
    ReportAnswer, Resume,
};
use jobmeter::ledger::receipt_text::ReceiptText;
use jobmeter::runner::leases;
use jobmeter::sys::clock::{Clock, SystemClock};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::line::{Answer, Line, Service};
use crate::tally::Tally;

const CPU: HighestRate = HighestRate { cpus_ppm: 1_000_000, quota: None };
const BOUNDS: Bounds = Bounds { cpu: CPU, gpus_ppm: 0, stop_us: 7_000, gpu_age_us: 0, gpu_step_us: 0 };
/// Of its CPU, in percent.
const LOAD_PERCENT: u64 = 60;
/// As `jobmeter run` has it where nothing is said.
const HOLD_US: u64 = 30_000_000;
/// What burns by the clock need not be looked at more often.
const LOOK_US: u64 = 10_000_000;
/// As `runner::stops` keeps it.
const KEPT: Duration = Duration::from_secs(55);
/// A last word that was not taken is said again after this.
const AGAIN: Duration = Duration::from_secs(1);
const LAST_WORDS_MAX: u32 = 300;

/// What all sidecars share.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) service: Service,
    pub(crate) tally: Tally,
    /// True once all are to end.
    pub(crate) ending: watch::Receiver<bool>,
    /// How many may open at the same time.
    pub(crate) openings: tokio::sync::Semaphore,
}

/// Which report, and when it was sent.
type Asked = (u64, u64);
type Asking = Pin<Box<dyn Future<Output = (Line, Asked, Result<ReportAnswer, String>)> + Send>>;

pub(crate) struct Sidecar {
    fleet: Arc<Fleet>,
    attempt: Uuid,
    job: String,
    account: String,
    secret: AttemptSecret,
    job_state: Job,
    began_us: u64,
    /// Until when it has burned, and how much.
    burned_until_us: u64,
    cpu_us: u64,
    is_frozen: bool,
    /// With the attempt, when an operator has stopped it: for how long it takes to be told.
    stopped_us: Arc<std::sync::atomic::AtomicU64>,
}

fn decoded<T: DeserializeOwned>(answer: Answer) -> Result<T, String> {
    let (status, body) = answer?;
    if status >= 300 {
        return Err(format!("{status} {}", String::from_utf8_lossy(&body)));
    }
    serde_json::from_slice(&body).map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&body)))
}

/// Who an attempt of the fleet is, now or in its past.
pub(crate) fn identity(attempt: Uuid, job: &str, account: &str) -> AttemptIdentity {
    AttemptIdentity {
        attempt,
        job: job.to_owned(),
        task: "0".to_owned(),
        user: account.to_owned(),
        kind: JobKind::Training,
        name: None,
        labels: BTreeMap::new(),
        command: vec!["burn".to_owned()],
        host: "load".to_owned(),
    }
}

fn request(attempt: Uuid, job: &str, account: &str, secret: AttemptSecret, resume: Option<Resume>) -> OpenRequest {
    let identity = identity(attempt, job, account);
    let resources = leases::resources(&BOUNDS, &BTreeMap::new(), true);
    OpenRequest { identity, resources, limit: None, resume, secret: Some(secret) }
}

async fn open(line: &mut Line, request: &OpenRequest) -> Result<OpenAnswer, String> {
    let path = format!("/attempts/{}", request.identity.attempt);
    decoded(line.ask("PUT", &path, &serde_json::to_vec(request).unwrap_or_default()).await)
}

impl Sidecar {
    /// Opens its attempt, and asks again until it may.
    pub(crate) async fn open(
        fleet: Arc<Fleet>,
        job: String,
        account: String,
        stopped_us: Arc<std::sync::atomic::AtomicU64>,
    ) -> Option<(Self, Line)> {
        let (attempt, secret) = (Uuid::now_v7(), AttemptSecret::new());
        let mut line = Line::new(&fleet.service, Some(secret));
        let asked = request(attempt, &job, &account, secret, None);
        let (rates, lease, sent_us) = loop {
            let sent_us = SystemClock.boottime_us();
            let turn = fleet.openings.acquire().await.ok()?;
            let answer = open(&mut line, &asked).await;
            drop(turn);
            match answer {
                Ok(OpenAnswer::Opened { rates, lease, .. }) => break (rates, lease, sent_us),
                Ok(OpenAnswer::Wait { .. }) => {}
                Ok(other) => {
                    fleet.tally.unanswered(&format!("open: {other:?}"));
                    return None;
                }
                Err(why) => fleet.tally.unanswered(&format!("open: {why}")),
            }
            tokio::time::sleep(AGAIN).await;
        };
        fleet.tally.opened();
        let spread = attempt.as_u64_pair().1;
        let rules =
            Rules { rates, interval_us: LOOK_US, hold_us: HOLD_US, can_hold: true, notice_before_us: None, spread };
        let job_state = Job::new(rules, leases::grant(&lease, sent_us), BOUNDS, AccountState::default(), sent_us);
        let (began_us, burned_until_us) = (sent_us, sent_us);
        let is_frozen = false;
        Some((
            Self {
                fleet,
                attempt,
                job,
                account,
                secret,
                job_state,
                began_us,
                burned_until_us,
                cpu_us: 0,
                is_frozen,
                stopped_us,
            },
            line,
        ))
    }

    fn usage(&mut self, now_us: u64) -> Usage {
        if !self.is_frozen {
            self.cpu_us += (now_us - self.burned_until_us) * LOAD_PERCENT / 100;
        }
        self.burned_until_us = now_us;
        Usage { cpu_used_seconds: Microseconds(self.cpu_us), ..Usage::default() }
    }

    /// Until it is stopped or all end.
    pub(crate) async fn live(mut self, line: Line) {
        let stopped = Arc::new(Notify::new());
        let watching = tokio::spawn(watch_stops(Arc::clone(&self.fleet), self.attempt, Arc::clone(&stopped)));
        let mut ending = self.fleet.ending.clone();
        let (mut line, mut asking): (Option<Line>, Option<Asking>) = (Some(line), None);
        let end = 'life: loop {
            let wait_us = self.job_state.look_at_us().saturating_sub(SystemClock.boottime_us());
            let event = tokio::select! {
                () = tokio::time::sleep(Duration::from_micros(wait_us)) => Event::Looked,
                (back, asked, answer) = async { match &mut asking { Some(asking) => asking.await, None => pending().await } } => {
                    (line, asking) = (Some(back), None);
                    self.event_of(asked, answer)
                }
                () = stopped.notified() => {
                    let stopped_us = self.stopped_us.load(std::sync::atomic::Ordering::Relaxed);
                    self.fleet.tally.stop_told(SystemClock.boottime_us().saturating_sub(stopped_us));
                    Event::OperatorStop
                }
                _ = ending.wait_for(|ending| *ending) => Event::Exited,
            };
            let now_us = SystemClock.boottime_us();
            let usage = self.usage(now_us);
            for action in self.job_state.step(now_us, &usage, event) {
                match action {
                    Action::Freeze => self.freeze(true),
                    Action::Thaw => self.freeze(false),
                    Action::Notice => {}
                    Action::Report(due) => asking = line.take().map(|line| self.asking(line, &due)),
                    Action::End(end) => break 'life end,
                }
            }
        };
        watching.abort();
        self.fleet.tally.ended(&format!("{end:?}"));
        let line = line.unwrap_or_else(|| Line::new(&self.fleet.service, Some(self.secret)));
        self.last_word(line, end).await;
    }

    fn freeze(&mut self, is_frozen: bool) {
        self.is_frozen = is_frozen;
        if is_frozen {
            self.fleet.tally.frozen();
        }
    }

    fn event_of(&self, (seq, sent_us): Asked, answer: Result<ReportAnswer, String>) -> Event {
        match answer {
            Ok(answer) => {
                let ReportAnswer { seq, balance, burn_per_second, decision } = answer;
                let account = AccountState { left: balance.left, burn_per_second, at_us: sent_us };
                self.fleet.tally.answered(SystemClock.boottime_us() - sent_us);
                Event::Answered { seq, verdict: leases::verdict(decision, sent_us), account }
            }
            Err(why) => {
                self.fleet.tally.unanswered(&why);
                Event::LedgerSilent { seq }
            }
        }
    }

    fn asking(&self, mut line: Line, due: &ReportDue) -> Asking {
        let report = leases::report(self.attempt, due, &self.job_state, &BTreeMap::new());
        let resume = self.resumption(report.period, &report);
        Box::pin(async move {
            let sent_us = SystemClock.boottime_us();
            let mut answer = told(&mut line, &report).await;
            // The ledger went on from a state of before: it is told of the attempt anew, as `runner::origin` does.
            if answer.as_ref().is_err_and(|why| why.contains("attempt-unknown")) {
                answer = match open(&mut line, &resume).await {
                    Ok(_) => told(&mut line, &report).await,
                    Err(why) => Err(why),
                };
            }
            (line, (report.seq, sent_us), answer)
        })
    }

    fn resumption(&self, period: i64, report: &Report) -> OpenRequest {
        let resume = Resume {
            started_ms_ago: (SystemClock.boottime_us() - self.began_us) / 1_000,
            rates_version: self.job_state.rules().rates.version,
            period,
            ceiling: report.ceiling,
            ceiling_version: report.ceiling_version,
        };
        request(self.attempt, &self.job, &self.account, self.secret, Some(resume))
    }

    /// Says what was burned until the ledger has it, and compares that with what was charged.
    async fn last_word(mut self, mut line: Line, end: End) {
        let usage = self.usage(SystemClock.boottime_us());
        let (period, closed) = self.job_state.period();
        let closed = closed.map(|(period, usage)| ClosedPeriod { period: *period, usage: usage.clone() });
        let reason = match end {
            End::OperatorStop => Reason::OperatorStop,
            End::CreditsExhausted | End::JobLimit => Reason::CreditsExhausted,
            End::LeaseExpired => Reason::LeaseExpired,
            End::Exited | End::MeterLost => Reason::Completed,
        };
        let finish = Finish {
            attempt: self.attempt,
            usage: usage.clone(),
            period,
            closed,
            reason,
            receipt: ReceiptText::default(),
            secret: None,
        };
        let body = serde_json::to_vec(&finish).unwrap_or_default();
        let path = format!("/attempts/{}/finish", self.attempt);
        for _ in 0..LAST_WORDS_MAX {
            let turn = self.fleet.openings.acquire().await;
            let answer: Result<FinishAnswer, String> = decoded(line.ask("POST", &path, &body).await);
            drop(turn);
            match answer {
                Ok(answer) => {
                    let burned = RateCard::price(&self.job_state.rules().rates, &usage).total;
                    return self.fleet.tally.settled(&self.account, burned, answer.charged.total, answer.overshoot);
                }
                Err(why) => self.fleet.tally.unanswered(&format!("finish: {why}")),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

async fn told(line: &mut Line, report: &Report) -> Result<ReportAnswer, String> {
    let path = format!("/attempts/{}/usage", report.attempt);
    decoded(line.ask("PUT", &path, &serde_json::to_vec(report).unwrap_or_default()).await)
}

/// Keeps a question at the service, as `runner::stops` does.
async fn watch_stops(fleet: Arc<Fleet>, attempt: Uuid, stopped: Arc<Notify>) {
    let mut line = Line::new(&fleet.service, None);
    let path = format!("/attempts/{attempt}/stopped?waitMs={}", KEPT.as_millis());
    loop {
        let asked_us = SystemClock.boottime_us();
        let answer: Result<bool, String> = decoded(line.ask_kept("GET", &path, b"", KEPT).await);
        match answer {
            Ok(true) => return stopped.notify_one(),
            Ok(false) if SystemClock.boottime_us() - asked_us > 27_500_000 => continue,
            Ok(false) => {}
            Err(why) => fleet.tally.unanswered(&format!("stopped: {why}")),
        }
        // From one second to five, as those of many jobs do not come back together.
        tokio::time::sleep(Duration::from_millis(1_000 + u64::from(Uuid::new_v4().as_bytes()[0]) * 4_000 / 255)).await;
    }
}
