//! The keeper: forked from the front, in a session of its own. It looks, prices, asks the ledger, keeps the spool,
//! freezes, kills and settles. One loop: every source becomes an [`Event`], the job's state machine answers with
//! [`Action`]s, the loop performs them.

use std::time::Duration;

use nix::unistd::Pid;

use super::attempt::Attempt;
use super::ending;
use super::figures::Figures;
use super::grace::Remainder;
use super::options::RunOptions;
use super::receipt_file::ReceiptFile;
use super::socket::JobSocket;
use super::spool::{Record, Spool};
use super::summary;
use super::task::gate::Gate;
use super::title::Title;
use super::uplink::{Answer, Answered, Question, Uplink};
use super::waiting::{Woken, ends_a_wait};
use super::wire::{Channel, Exit, ExitKind, SpawnFailure, ToFront, ToKeeper};
use crate::domain::job::{Action, End, Event, Job, Rules};
use crate::domain::rating::RateCard;
use crate::domain::units::Nanocredits;
use crate::ledger::protocol::{Balance, OpenAnswer, OpenRequest, Report, Resources};
use crate::ledger::relay::Kept;
use crate::meter::select::Plan;
use crate::sys::clock::{Alarm, Clock, SystemClock};
use crate::sys::process::{Limits, PidFd, StatFile, schedule_first};
use crate::sys::shared::SharedPage;
use crate::sys::signals::SIGKILL;
use crate::sys::tree::Member;
use crate::sys::witness::Witness;

/// After a restore of the ledger, the first lease is asked for this often.
const OPEN_RETRY_MAX_MS: u64 = 1_000;

/// Whether the front was stopped is looked for this often, between the looks at the job.
pub(super) const FRONT_LOOK_US: u64 = 400_000;

/// What the keeper was given by the front before the fork.
#[derive(Debug)]
pub(super) struct Keeper<'a> {
    pub(super) options: &'a RunOptions,
    pub(super) attempt: &'a Attempt,
    pub(super) shared: &'a SharedPage,
    pub(super) channel: Channel,
    pub(super) front: Pid,
    pub(super) front_fd: PidFd,
    /// Where a scheduler has started the command, which waits at it.
    pub(super) gate: Option<Gate>,
    /// The front had children before it became jobmeter (a script that ends with `exec`): they are not the job's.
    pub(super) front_has_others: bool,
    pub(super) alarm: Alarm,
    pub(super) plan: Plan,
    pub(super) spool: Spool,
    pub(super) socket: Option<JobSocket>,
    pub(super) receipt: Option<ReceiptFile>,
    pub(super) witness: Option<Witness>,
    pub(super) leftovers: Option<std::thread::JoinHandle<()>>,
}

/// A job that runs.
pub(super) struct Running {
    pub(super) job: Job,
    pub(super) uplink: Uplink,
    pub(super) figures: Figures,
    pub(super) child: Option<(Pid, PidFd)>,
    pub(super) child_state: Option<StatFile>,
    pub(super) front_state: Option<StatFile>,
    /// Of front and keeper, at the start.
    pub(super) limits: [Option<Limits>; 2],
    pub(super) ended: Option<ExitKind>,
    pub(super) remainder: Option<Remainder>,
    pub(super) balance: Balance,
    pub(super) title: Title,
    /// As last seen: without a group nothing else names the job once the front has gone.
    pub(super) members: Vec<Member>,
    /// The job left its group, and was brought back.
    pub(super) strayed: bool,
}

/// What has become of the command at its start.
pub(super) enum Started {
    Runs,
    /// The front went, or stands still, before it said.
    Lost,
    Not(SpawnFailure),
}

impl Keeper<'_> {
    /// Runs to the end and tells the front how to end.
    pub(super) fn run(mut self) {
        let socket = self.socket.as_ref().map(|socket| socket.path().to_owned());
        let (lines, exit, killed) = self.attempt_to_end();
        if let Some(path) = socket {
            super::socket::remove(&path);
        }
        self.shared.set_settled();
        // Nothing of jobmeter's stays in the group of who started it.
        drop(self.witness.take());
        self.channel.send(&ToFront::Done { lines, exit, killed });
        // What an earlier jobmeter left over is settled to its end, while the front and its caller go on.
        if let Some(thread) = self.leftovers.take() {
            thread.join().ok();
        }
    }

    fn attempt_to_end(&mut self) -> (Vec<String>, Exit, bool) {
        let started = Uplink::start(self.options.ledger.clone(), self.options.connect, self.attempt.began());
        let uplink = match started {
            Ok(uplink) => uplink,
            Err(error) => return self.failed(&format!("cannot start the ledger's thread: {error}")),
        };
        schedule_first();
        let mut figures = match Figures::new(&self.plan, &self.options.gpus) {
            Ok(figures) => figures,
            Err(error) => return self.failed(&error),
        };
        let bounds = figures.bounds(&self.plan, &RateCard::default());
        let can_hold = self.plan.containment().can_hold();
        let resources = super::leases::resources(&bounds, figures.gpu_models(), can_hold);
        let answered = match self.open(&uplink, resources) {
            Ok(answered) => answered,
            Err(ended) => return ended,
        };
        let sent_us = answered.sent_us;
        match answered.answer {
            Answer::Opened(Ok(OpenAnswer::Opened { rates, lease, balance, .. })) => {
                let rules = Rules {
                    rates: rates.clone(),
                    interval_us: micros(self.options.interval),
                    hold_us: micros(self.options.hold),
                    can_hold: self.plan.containment().can_hold(),
                    notice_before_us: self.options.notice.map(|notice| micros(notice.before)),
                    spread: self.attempt.identity.attempt.as_u64_pair().1,
                };
                let account = super::leases::account_state(balance, Nanocredits::ZERO, sent_us);
                figures.ledger_answered(answered.took_us);
                figures.take_rates(&rates);
                self.say_of_gpus(&figures, &rates);
                let bounds = figures.bounds(&self.plan, &rates);
                let job = Job::new(rules, super::leases::grant(&lease, sent_us), bounds, account, sent_us);
                self.start(job, figures, uplink, balance)
            }
            Answer::Opened(Ok(OpenAnswer::Refused { reason, balance, resets_in_ms })) => {
                ending::refused(self, reason, balance, resets_in_ms)
            }
            Answer::Opened(Err(error)) => {
                self.failed(&format!("the ledger {} does not open: {error}", self.options.ledger))
            }
            Answer::Opened(Ok(OpenAnswer::Wait { .. }))
            | Answer::Reported { .. }
            | Answer::Finished(_)
            | Answer::Stopped => self.failed("the ledger answered what it was not asked"),
        }
    }

    /// Asks for the first lease, again for as long as the ledger says `wait`. What a user or a scheduler sends meanwhile
    /// ends it, since there is no command yet that could take it.
    fn open(&mut self, uplink: &Uplink, resources: Resources) -> Result<Answered, (Vec<String>, Exit, bool)> {
        let (identity, limit, secret) = (self.attempt.identity.clone(), self.options.limit, Some(self.attempt.secret));
        let request = OpenRequest { identity, resources, limit, resume: None, secret };
        uplink.ask(Question::Open(Box::new(request.clone())));
        let mut ask_at_us = None;
        let mut told = false;
        loop {
            match self.wait(uplink, ask_at_us) {
                Woken::Ledger(answered) => {
                    let Answer::Opened(Ok(OpenAnswer::Wait { retry_in_ms })) = answered.answer else {
                        return Ok(*answered);
                    };
                    ask_at_us = Some(answered.sent_us.saturating_add(retry_in_ms.min(OPEN_RETRY_MAX_MS) * 1_000));
                    if !std::mem::replace(&mut told, true) {
                        self.channel.send(&ToFront::Say(summary::waits(retry_in_ms)));
                    }
                }
                Woken::Time => {
                    ask_at_us = None;
                    uplink.ask(Question::Open(Box::new(request.clone())));
                }
                Woken::Front(ToKeeper::Passing { signal }) if ends_a_wait(signal) => {
                    return Err(self.not_to_start(uplink, ask_at_us.is_none(), ExitKind::Signalled(signal)));
                }
                // At the gate of a scheduler's task.
                Woken::Front(ToKeeper::Ended(ended)) => {
                    return Err(self.not_to_start(uplink, ask_at_us.is_none(), ended));
                }
                Woken::Front(_) | Woken::Population | Woken::Devices => {}
                Woken::FrontGone => {
                    return Err(self.not_to_start(uplink, ask_at_us.is_none(), ExitKind::Signalled(SIGKILL)));
                }
            }
        }
    }

    fn not_to_start(&self, uplink: &Uplink, is_asked: bool, ended: ExitKind) -> ending::Ended {
        if is_asked {
            ending::give_up(self, uplink);
        } else {
            self.nothing_started();
        }
        (Vec::new(), Exit::AsCommand(ended), false)
    }

    fn say_of_gpus(&self, figures: &Figures, rates: &RateCard) {
        if !self.options.quiet {
            for line in figures.gpu_lines(rates, Title::is_wanted(self.options)) {
                self.channel.send(&ToFront::Say(line));
            }
        }
    }

    /// Takes away what was prepared.
    pub(super) fn nothing_started(&self) {
        self.spool.discard().ok();
        self.plan.discard();
    }

    pub(super) fn failed(&mut self, message: &str) -> (Vec<String>, Exit, bool) {
        self.nothing_started();
        super::termination::of_failure(self.options.termination_log.as_deref(), "error", message);
        (vec![format!("jobmeter: error: {message}")], Exit::Status(125), false)
    }

    fn start(&mut self, job: Job, figures: Figures, uplink: Uplink, balance: Balance) -> (Vec<String>, Exit, bool) {
        self.write_spool(&job);
        let mut running = Running {
            job,
            uplink,
            figures,
            child: None,
            child_state: None,
            front_state: StatFile::open(self.front).ok(),
            limits: self.limits(),
            ended: None,
            remainder: None,
            balance,
            title: Title::of_terminal(self.options),
            members: Vec::new(),
            strayed: false,
        };
        self.shared.trust_until_us(running.job.trusted_until_us());
        if let Some(socket) = self.socket.take() {
            let (identity, ledger) = (self.attempt.identity.clone(), self.options.ledger.clone());
            socket.serve(identity, self.plan.specification(), ledger, self.options.connect);
        }
        if let Some(refusal) = running.figures.gpu_refusal(&running.job.rules().rates) {
            return ending::not_started(self, running, &refusal);
        }
        if self.gate.is_some() {
            return match self.release(&mut running) {
                Ok(()) => self.meter(running),
                Err(failure) => ending::not_started(self, running, &failure),
            };
        }
        self.channel.send(&ToFront::Start);
        self.leftovers = super::settle_leftovers(self.options);
        match self.await_start(&mut running) {
            Started::Runs => {
                // Before its exec it is as hidden as the front, whose memory it has (hidepid).
                running.child_state = running.child.as_ref().and_then(|(child, _)| StatFile::open(*child).ok());
                self.meter(running)
            }
            Started::Lost => ending::end(self, running, End::MeterLost),
            Started::Not(failure) => ending::not_started(self, running, &failure),
        }
    }

    fn meter(&mut self, mut running: Running) -> (Vec<String>, Exit, bool) {
        let mut event = match running.ended {
            Some(_) => Some(self.command_ended(&mut running)),
            None => Some(Event::Looked),
        };
        loop {
            if let Some(happened) = event.take()
                && let Some(end) = self.step(&mut running, happened)
            {
                let end = running.remainder.as_mut().map_or(end, |remainder| remainder.outcome(end));
                return ending::end(self, running, end);
            }
            let now_us = SystemClock.boottime_us();
            let remainder = running.remainder.as_ref();
            let due_us = remainder.and_then(Remainder::look_at_us).into_iter().fold(running.job.look_at_us(), u64::min);
            self.shared.trust_until_us(running.job.trusted_until_us().max(due_us.saturating_add(1_000_000)));
            let front_look_us = due_us.min(now_us.saturating_add(FRONT_LOOK_US));
            let population = remainder.and_then(Remainder::told_by);
            let devices = running.figures.gpu_bell();
            let woken = self.wait_or_be_told(&running.uplink, Some(front_look_us), population, devices);
            event = match woken {
                Woken::Time if front_look_us < due_us => {
                    running.members = self.plan.containment().members();
                    (self.front_was_stopped(&running) || self.is_starved(&running)).then_some(Event::MeterLost)
                }
                woken => self.event_of(&mut running, woken, due_us),
            };
        }
    }

    fn event_of(&mut self, running: &mut Running, woken: Woken, due_us: u64) -> Option<Event> {
        Some(match woken {
            Woken::Time | Woken::Population => {
                if matches!(woken, Woken::Time) {
                    running.figures.woke(SystemClock.boottime_us().saturating_sub(due_us));
                }
                if self.front_was_stopped(running) || self.is_starved(running) {
                    return Some(Event::MeterLost);
                }
                self.looked(running)
            }
            // By what they can burn the next look is due sooner.
            Woken::Devices => Event::Looked,
            Woken::FrontGone => self.event_of_lost_front(running),
            Woken::Front(ToKeeper::Ended(ended)) => {
                running.ended = Some(ended);
                self.command_ended(running)
            }
            // From a front that stood still at the start.
            Woken::Front(ToKeeper::NotStarted(failure)) => {
                running.ended = Some(ExitKind::Exited(i32::from(failure.status)));
                self.command_ended(running)
            }
            // There is no command any more that could take it.
            Woken::Front(ToKeeper::Passing { signal }) if running.ended.is_some() && ends_a_wait(signal) => {
                Event::Exited
            }
            // A reading goes to the spool before a signal that may end everything is passed on.
            Woken::Front(_) => {
                self.look_into_spool(running);
                Event::Looked
            }
            Woken::Ledger(answered) => ledger_event(running, *answered)?,
        })
    }

    /// Looks, lets the state machine decide, and does what it says; `Some` when the attempt must end.
    fn step(&mut self, running: &mut Running, event: Event) -> Option<End> {
        let mut event = event;
        loop {
            let now_us = SystemClock.boottime_us();
            let Ok(usage) = running.figures.look(now_us, &mut self.plan) else { return Some(End::MeterLost) };
            let bounds = running.figures.bounds(&self.plan, &running.job.rules().rates);
            running.job.set_bounds(bounds);
            let actions = running.job.step(now_us, &usage, event);
            // Before a lower ceiling is confirmed.
            self.shared.set_bounds(running.job.stop_at(), running.job.grant().ends_us);
            running.figures.hurry(&running.job);
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
                        let (attempt, gpus) = (self.attempt.identity.attempt, running.figures.gpu_models());
                        let report = super::leases::report(attempt, &due, &running.job, gpus);
                        let report = Report { secret: Some(self.attempt.secret), ..report };
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
        if let (Some((_, child)), Some(notice)) = (&running.child, self.options.notice) {
            child.send(notice.signal as i32).ok();
            running.figures.notice_sent();
        }
    }

    fn keep_spool(&mut self, running: &mut Running, now_us: u64) {
        if running.figures.spool_is_due(now_us, micros(self.options.interval)) {
            self.write_spool(&running.job);
            let kept = super::leases::kept(self.attempt.identity.attempt, &running.job);
            running.uplink.keep(|| self.spool.handle(), kept);
            self.recapture_strays(running);
            running.members = self.plan.containment().members();
            running.figures.sample(&self.plan);
            running.title.show(running.balance, running.job.account(), now_us);
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
        let Kept { usage, period, closed, .. } = super::leases::kept(self.attempt.identity.attempt, job);
        let record = Record {
            seq: 0,
            usage,
            period: Some(period),
            closed,
            at_us: SystemClock.realtime_us(),
            boot_us: SystemClock.boottime_us(),
            gpu_age_us: job.bounds().gpu_age_us,
            rates_version: Some(job.rules().rates.version),
            finish: None,
        };
        self.spool.write(record).ok();
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
                account: super::leases::account_state(answer.balance, answer.burn_per_second, sent_us),
            }
        }
        // Whatever is wrong with the ledger, the job runs on within its lease.
        Answer::Reported { seq, result: Err(_) } => Event::LedgerSilent { seq },
        Answer::Stopped => Event::OperatorStop,
        Answer::Opened(_) | Answer::Finished(_) => return None,
    })
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
