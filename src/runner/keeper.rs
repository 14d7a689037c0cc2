//! The keeper: forked from the front, in a session of its own. It looks, prices, asks the ledger, keeps the spool,
//! freezes, kills and settles. One loop: every source becomes an [`Event`], the job's state machine answers with
//! [`Action`]s, the loop performs them.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;

use super::attempt::Attempt;
use super::ending;
use super::figures::Figures;
use super::options::RunOptions;
use super::spool::{Record, Spool};
use super::title::Title;
use super::uplink::{Answer, Answered, Question, Uplink};
use super::wire::{Channel, Exit, ExitKind, ToFront, ToKeeper};
use crate::domain::job::{Action, End, Event, Job, Rules};
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::protocol::{Balance, ClosedPeriod, OpenAnswer, OpenRequest, StopReason};
use crate::meter::select::Plan;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::process::{PidFd, StatFile, schedule_first};
use crate::sys::shared::SharedPage;

/// While what the command left behind is waited for, its end is looked for this often.
const LINGER_LOOK_US: u64 = 50_000;

/// Whether the front was stopped is looked for this often, between the looks at the job.
const FRONT_LOOK_US: u64 = 400_000;

/// How long the end waits for the front to say how the command ended.
const COMMAND_END_WAIT_MAX_US: u64 = 1_000_000;

/// What the keeper was given by the front before the fork.
#[derive(Debug)]
pub(super) struct Keeper<'a> {
    pub(super) options: &'a RunOptions,
    pub(super) attempt: &'a Attempt,
    pub(super) shared: &'a SharedPage,
    pub(super) channel: Channel,
    pub(super) front: Pid,
    pub(super) front_fd: PidFd,
    pub(super) plan: Plan,
    pub(super) spool: Spool,
    pub(super) leftovers: Option<std::thread::JoinHandle<()>>,
}

/// A job that runs.
pub(super) struct Running {
    pub(super) job: Job,
    pub(super) rules: Rules,
    pub(super) uplink: Uplink,
    pub(super) figures: Figures,
    pub(super) child: Option<PidFd>,
    pub(super) child_state: Option<StatFile>,
    pub(super) front_state: Option<StatFile>,
    pub(super) ended: Option<ExitKind>,
    pub(super) balance: Balance,
    pub(super) title: Title,
    /// The job left its group, and was brought back.
    pub(super) strayed: bool,
}

/// What the loop found.
enum Woken {
    Front(ToKeeper),
    FrontGone,
    Ledger(Box<Answered>),
    Time,
}

impl Keeper<'_> {
    /// Runs to the end and tells the front how to end.
    pub(super) fn run(mut self) {
        let (lines, exit, killed) = self.attempt_to_end();
        self.shared.set_settled();
        self.channel.send(&ToFront::Done { lines, exit, killed });
        // What an earlier jobmeter left over is settled to its end, while the front and its caller go on.
        if let Some(thread) = self.leftovers.take() {
            thread.join().ok();
        }
    }

    fn attempt_to_end(&mut self) -> (Vec<String>, Exit, bool) {
        let uplink = match Uplink::start(self.options.ledger.clone()) {
            Ok(uplink) => uplink,
            Err(error) => return self.failed(&format!("cannot start the ledger's thread: {error}")),
        };
        schedule_first();
        let rate = self.plan.highest_rate();
        let resources = self.plan.resources(&rate);
        uplink.ask(Question::Open(Box::new(OpenRequest {
            identity: self.attempt.identity.clone(),
            resources,
            limit: self.options.limit,
        })));
        let answered = loop {
            match self.wait(&uplink, None) {
                Woken::Ledger(answered) => break *answered,
                Woken::FrontGone => return self.failed("the front was killed before the start"),
                Woken::Front(_) | Woken::Time => {}
            }
        };
        let sent_us = answered.sent_us;
        match answered.answer {
            Answer::Opened(Ok(OpenAnswer::Opened { rates, lease, balance, .. })) => {
                let rules = Rules {
                    rates,
                    interval_us: micros(self.options.interval),
                    hold_us: micros(self.options.hold),
                    can_hold: self.plan.containment().can_hold(),
                    notice_before_us: self.options.notice.map(|notice| micros(notice.before)),
                };
                let account = account_state(balance, Nanocredits::ZERO, sent_us);
                let job =
                    Job::new(rules, super::leases::grant(&lease, sent_us), rate, resources.stop_us, account, sent_us);
                self.start(job, rules, uplink, balance)
            }
            Answer::Opened(Ok(OpenAnswer::Refused { reason, balance, resets_in_ms })) => {
                ending::refused(self, reason, balance, resets_in_ms)
            }
            Answer::Opened(Err(error)) => {
                self.failed(&format!("the ledger {} does not open: {error}", self.options.ledger))
            }
            Answer::Reported { .. } | Answer::Finished(_) => self.failed("the ledger answered what it was not asked"),
        }
    }

    fn failed(&mut self, message: &str) -> (Vec<String>, Exit, bool) {
        self.spool.discard().ok();
        self.plan.discard();
        (vec![format!("jobmeter: error: {message}")], Exit::Status(125), false)
    }

    fn start(&mut self, job: Job, rules: Rules, uplink: Uplink, balance: Balance) -> (Vec<String>, Exit, bool) {
        self.write_spool(&job);
        let mut running = Running {
            job,
            rules,
            uplink,
            figures: Figures::new(&self.plan),
            child: None,
            child_state: None,
            front_state: StatFile::open(self.front).ok(),
            ended: None,
            balance,
            title: Title::of_terminal(self.options),
            strayed: false,
        };
        self.shared.trust_until_us(running.job.trusted_until_us());
        self.channel.send(&ToFront::Start);
        self.leftovers = super::settle_leftovers(&self.options.spool_dir);
        loop {
            match self.wait(&running.uplink, None) {
                Woken::Front(ToKeeper::Cloned { pid }) => {
                    if let Err(error) = running.figures.begin(&mut self.plan, Pid::from_raw(pid), *self.shared) {
                        self.plan.containment().kill();
                        return self.failed(&format!("the job cannot be metered: {error}"));
                    }
                    running.child = PidFd::open(Pid::from_raw(pid)).ok();
                    running.child_state = StatFile::open(Pid::from_raw(pid)).ok();
                    if self.plan.needs_gate() {
                        self.channel.send(&ToFront::OpenGate);
                    }
                }
                Woken::Front(ToKeeper::Started) => break,
                Woken::Front(ToKeeper::NotStarted(failure)) => return ending::not_started(self, running, &failure),
                Woken::Front(ToKeeper::Ended(ended)) => {
                    running.ended = Some(ended);
                    break;
                }
                Woken::Front(ToKeeper::Passing { .. }) | Woken::Ledger(_) | Woken::Time => {}
                Woken::FrontGone => return ending::end(self, running, End::MeterLost),
            }
        }
        self.meter(running)
    }

    fn meter(&mut self, mut running: Running) -> (Vec<String>, Exit, bool) {
        let mut event = match running.ended {
            Some(_) => Some(self.command_ended(&running)),
            None => Some(Event::Looked),
        };
        loop {
            if let Some(happened) = event.take()
                && let Some(end) = self.step(&mut running, happened)
            {
                return ending::end(self, running, end);
            }
            let now_us = SystemClock.boottime_us();
            let mut due_us = running.job.look_at_us();
            if running.ended.is_some() {
                due_us = due_us.min(now_us.saturating_add(LINGER_LOOK_US));
            }
            self.shared.trust_until_us(running.job.trusted_until_us().max(due_us.saturating_add(1_000_000)));
            let front_look_us = due_us.min(now_us.saturating_add(FRONT_LOOK_US));
            let woken = self.wait(&running.uplink, Some(front_look_us));
            event = match woken {
                Woken::Time if front_look_us < due_us => self.front_was_stopped(&running).then_some(Event::MeterLost),
                woken => self.event_of(&mut running, woken, due_us),
            };
        }
    }

    fn event_of(&mut self, running: &mut Running, woken: Woken, due_us: u64) -> Option<Event> {
        Some(match woken {
            Woken::Time => {
                running.figures.woke(SystemClock.boottime_us().saturating_sub(due_us));
                if self.front_was_stopped(running) {
                    return Some(Event::MeterLost);
                }
                if running.ended.is_some() && !self.plan.containment().is_populated() {
                    return Some(Event::Exited);
                }
                Event::Looked
            }
            Woken::FrontGone => Event::MeterLost,
            Woken::Front(ToKeeper::Ended(ended)) => {
                running.ended = Some(ended);
                self.command_ended(running)
            }
            // A reading goes to the spool before a signal that may end everything is passed on.
            Woken::Front(_) => {
                self.look_into_spool(running);
                Event::Looked
            }
            Woken::Ledger(answered) => ledger_event(running, *answered)?,
        })
    }

    fn command_ended(&self, running: &Running) -> Event {
        let linger = self.options.linger && running.ended.is_some() && self.plan.containment().is_populated();
        if linger { Event::Looked } else { Event::Exited }
    }

    /// Looks, lets the state machine decide, and does what it says; `Some` when the attempt must end.
    fn step(&mut self, running: &mut Running, event: Event) -> Option<End> {
        let mut event = event;
        loop {
            let now_us = SystemClock.boottime_us();
            let Ok(usage) = running.figures.look(now_us, &mut self.plan) else { return Some(End::MeterLost) };
            running.job.set_rate(running.figures.highest_rate(), 0, running.figures.stop_us(&self.plan));
            let actions = running.job.step(now_us, &usage, event);
            self.keep_spool(running, now_us);
            event = Event::Looked;
            let mut frozen = false;
            for action in actions {
                match action {
                    Action::Freeze => {
                        running.figures.held_from(SystemClock.boottime_us());
                        self.plan.containment().freeze(ending::FREEZE_WAIT_MAX);
                        frozen = true;
                    }
                    Action::Thaw => {
                        self.plan.containment().thaw();
                        running.figures.held_until(SystemClock.boottime_us());
                    }
                    Action::Notice => self.notice(running),
                    Action::Report(due) => {
                        let report = super::leases::report(
                            self.attempt.identity.attempt,
                            &due,
                            &running.job,
                            self.plan.resources(&running.figures.highest_rate()),
                        );
                        running.uplink.ask(Question::Report(Box::new(report)));
                    }
                    Action::End(end) => return Some(end),
                }
            }
            if !frozen {
                return None;
            }
        }
    }

    fn notice(&self, running: &mut Running) {
        if let (Some(child), Some(notice)) = (&running.child, self.options.notice) {
            child.send(notice.signal).ok();
            running.figures.notice_sent();
        }
    }

    fn keep_spool(&mut self, running: &mut Running, now_us: u64) {
        if running.figures.spool_is_due(now_us, micros(self.options.interval)) {
            self.write_spool(&running.job);
            if let Ok(handle) = self.spool.handle() {
                running.uplink.ask(Question::Sync(handle));
            }
            self.recapture_strays(running);
            running.figures.sample(&self.plan);
            running.title.show(running.balance, running.job.account(), now_us);
        }
    }

    /// What has left the job's group is metered again from now on, and the receipt says so.
    pub(super) fn recapture_strays(&self, running: &mut Running) {
        for pid in self.plan.containment().strays(self.front.as_raw()) {
            running.strayed = true;
            if !self.plan.containment().recapture(pid) {
                crate::sys::tree::kill_process(pid);
            }
        }
    }

    fn look_into_spool(&mut self, running: &mut Running) {
        let now_us = SystemClock.boottime_us();
        if running.figures.look(now_us, &mut self.plan).is_ok() {
            self.write_spool(&running.job);
        }
    }

    /// A full disk costs exactness after a crash, not the job: the ledger still holds the lease.
    pub(super) fn write_spool(&mut self, job: &Job) {
        let (period, closed) = job.period();
        let record = Record {
            seq: 0,
            usage: job.usage().clone(),
            period: Some(period),
            closed: closed.map(|(period, usage)| ClosedPeriod { period: *period, usage: usage.clone() }),
            at_us: SystemClock.realtime_us(),
            finish: None,
        };
        self.spool.write(record).ok();
    }

    /// A front that is stopped and did not say so cannot end the job if the keeper dies. One that stopped with the
    /// command, and would not notice that the command runs again, is continued.
    fn front_was_stopped(&self, running: &Running) -> bool {
        let stopped = running.front_state.as_ref().is_some_and(StatFile::is_stopped);
        if stopped && self.shared.front_paused() {
            let command_runs = running.child_state.as_ref().is_some_and(|state| !state.is_stopped());
            if command_runs {
                kill(self.front, Signal::SIGCONT).ok();
            }
            return false;
        }
        stopped
    }

    /// A front that stopped itself with the command has to be there for the end.
    pub(super) fn continue_front(&self) {
        if self.shared.front_paused() {
            kill(self.front, Signal::SIGCONT).ok();
        }
    }

    /// The front reaps the command and says how it ended, soon after the kill.
    pub(super) fn await_command_end(&self, running: &Running) -> Option<ExitKind> {
        let until_us = SystemClock.boottime_us().saturating_add(COMMAND_END_WAIT_MAX_US);
        loop {
            match self.wait(&running.uplink, Some(until_us)) {
                Woken::Front(ToKeeper::Ended(ended)) => return Some(ended),
                Woken::Front(_) | Woken::Ledger(_) => {}
                Woken::FrontGone | Woken::Time => return None,
            }
        }
    }

    /// Waits, but not for a front that has gone.
    pub(super) fn pause(&self, pause: Duration) {
        let mut fds = [PollFd::new(self.front_fd.as_fd(), PollFlags::POLLIN)];
        ppoll(&mut fds, Some(TimeSpec::from_duration(pause)), None).ok();
    }

    fn wait(&self, uplink: &Uplink, due_us: Option<u64>) -> Woken {
        loop {
            if let Some(answered) = uplink.next() {
                return Woken::Ledger(Box::new(answered));
            }
            let left_us = due_us.map(|due_us| due_us.saturating_sub(SystemClock.boottime_us()));
            let mut fds = [
                PollFd::new(self.channel.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.front_fd.as_fd(), PollFlags::POLLIN),
                PollFd::new(uplink.bell(), PollFlags::POLLIN),
            ];
            let polled = ppoll(&mut fds, left_us.map(Duration::from_micros).map(TimeSpec::from_duration), None);
            let [spoken, gone, _] = fds.map(|fd| fd.any().unwrap_or(false));
            if spoken && let Ok(Some(message)) = self.channel.receive() {
                return Woken::Front(message);
            }
            if gone || spoken {
                return Woken::FrontGone;
            }
            if polled == Ok(0) {
                return Woken::Time;
            }
        }
    }
}

fn ledger_event(running: &mut Running, answered: Answered) -> Option<Event> {
    let sent_us = answered.sent_us;
    running.figures.ledger_answered(answered.took_us);
    Some(match answered.answer {
        Answer::Reported { seq, result: Ok(answer) } => {
            running.balance = answer.balance;
            Event::Answered {
                seq,
                verdict: super::leases::verdict(answer.decision, sent_us),
                account: account_state(answer.balance, answer.burn_per_second, sent_us),
            }
        }
        Answer::Reported { seq, result: Err(LedgerError::Unavailable(_)) } => Event::LedgerSilent { seq },
        Answer::Reported { result: Err(_), .. } => Event::LedgerBroken,
        Answer::Opened(_) | Answer::Finished(_) => return None,
    })
}

/// The reason why a ledger stops an attempt, as the state machine sees it.
pub(super) const fn end_of(reason: StopReason) -> End {
    match reason {
        StopReason::CreditsExhausted => End::CreditsExhausted,
        StopReason::JobLimit => End::JobLimit,
        StopReason::OperatorStop => End::OperatorStop,
    }
}

fn account_state(balance: Balance, burn_per_second: Nanocredits, at_us: u64) -> crate::domain::job::AccountState {
    crate::domain::job::AccountState { left: balance.left, burn_per_second, at_us }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
