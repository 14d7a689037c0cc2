//! The world: time, jobs that burn, sidecars that look and ask, and one ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jobmeter::domain::deadline::Bounds;
use jobmeter::domain::job::{AccountState, Action, End, Event, Job, Rules};
use jobmeter::domain::units::Nanocredits;
use jobmeter::ledger::book::Outcome;
use jobmeter::ledger::protocol::{OpenAnswer, Reason, Report, ReportAnswer};
use jobmeter::ledger::store::sqlite::SqliteLedger;
use jobmeter::ledger::views::{Change, PeriodLength};
use jobmeter::ledger::{Ledger, LedgerError};
use jobmeter::runner::leases;
use jobmeter::sys::clock::Clock;

use crate::backend::Chat;
use crate::network::{Chance, Message, Network, Packet};
use crate::replica::Replica;
use crate::sidecar::{BOUNDS, CPUS, STOP_US, Sidecar, Stage, last_word, price, secret_of, usage};

/// From the decision to the standstill, the job burns on for at most this.
const FREEZE_US: u64 = 2_000;
/// How late the keeper was lately.
const LATENESS_MAX_US: u64 = 4_000;
/// A question that was not answered within this is taken as lost.
const TIMEOUT_US: u64 = 2_000_000;
const LIFE_US: u64 = 120_000_000;
pub(crate) const HOSTS: usize = 4;
pub(crate) const USERS: usize = 3;

/// Whose accounts there are.
pub(crate) fn user(at: usize) -> String {
    format!("u{at}")
}

#[derive(Clone, Debug)]
pub(crate) struct LedgerClock(pub(crate) Arc<AtomicI64>);

impl Clock for LedgerClock {
    fn boottime_us(&self) -> u64 {
        0
    }
    fn realtime_us(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) chance: Chance,
    pub(crate) now_us: u64,
    pub(crate) wall: LedgerClock,
    /// Of who looks from outside.
    pub(crate) ledger: SqliteLedger,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) chats: Vec<Chat>,
    /// Between this host and this replica, until then.
    pub(crate) cuts: BTreeMap<(usize, usize), u64>,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) network: Network,
    pub(crate) sidecars: Vec<Sidecar>,
    pub(crate) silent_until_us: u64,
    /// The ledger's clock is years ahead until then; zero where it is not.
    pub(crate) ahead_until_us: u64,
    /// That operators have made so far.
    pub(crate) changes: u64,
    pub(crate) life_us: u64,
    /// Nothing happens but what the network does to messages.
    pub(crate) calm: bool,
    pub(crate) limit: Nanocredits,
    pub(crate) calls: u64,
    pub(crate) crashes: u64,
    pub(crate) restores: u64,
    pub(crate) restored_at_us: u64,
    pub(crate) stops: BTreeMap<String, u64>,
}

/// In memory, where there is some: the rules are tested here, the disk elsewhere.
fn directory() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let directory = made.expect("a directory");
    crate::janitor::takes(directory.path());
    directory
}

fn set_limits(ledger: &mut SqliteLedger, limit: Nanocredits) {
    for at in 0..USERS {
        let change = Change::limit(&user(at), Some(limit), PeriodLength::Day, "sim");
        ledger.change(&change).expect("a limit");
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let directory = directory();
        // Somewhere around midnight, so that most worlds see a period end.
        let midnight_s: i64 = 1_795_564_800;
        let wall = LedgerClock(Arc::new(AtomicI64::new((midnight_s - 60) * 1_000_000)));
        let mut ledger =
            SqliteLedger::open_file(&directory.path().join("l.db"), Box::new(wall.clone())).expect("a ledger");
        let limit = Nanocredits(2_000_000 + i64::try_from(chance.below(60_000_000)).unwrap());
        set_limits(&mut ledger, limit);
        let count = 2 + chance.below(14) as usize;
        let jobs = if chance.percent(50) { count } else { 1 + chance.below(count as u64) as usize };
        let of_job = |_| Nanocredits(500_000 + i64::try_from(chance.below(20_000_000)).unwrap());
        let limits: Vec<Nanocredits> = (0..jobs).map(of_job).collect();
        let mut sidecar = |at| {
            let (job, brings) = (at % jobs, chance.percent([0, 40, 100][at % jobs % 3]));
            let limit = limits.get(job).copied().filter(|_| brings);
            Sidecar { job, user: user(job % USERS), limit, ..Sidecar::new(seed, at, &mut chance) }
        };
        let sidecars: Vec<Sidecar> = (0..count).map(&mut sidecar).collect();
        let replica = |_| Replica::new(&directory.path().join("l.db"), Box::new(wall.clone()));
        let replicas = (0..=chance.below(3)).map(replica).collect();
        let chats =
            (0..chance.below(3) as usize).map(|at| Chat::new(format!("job-{}", at % jobs), &mut chance)).collect();
        Self {
            seed,
            chance,
            now_us: 0,
            wall,
            ledger,
            replicas,
            chats,
            cuts: BTreeMap::new(),
            directory,
            network: Network::default(),
            sidecars,
            silent_until_us: 0,
            ahead_until_us: 0,
            changes: 0,
            life_us: LIFE_US,
            calm: false,
            limit,
            calls: 0,
            crashes: 0,
            restores: 0,
            restored_at_us: 0,
            stops: BTreeMap::new(),
        }
    }

    /// Many jobs of one user at noon, each of which burns as much as it can until it is stopped.
    pub(crate) fn crowd(seed: u64, count: usize, limit: Nanocredits) -> Self {
        let mut world = Self::new(seed);
        world.wall.0.fetch_sub(43_200_000_000, Ordering::Relaxed);
        (world.calm, world.life_us, world.chats, world.limit) = (true, 4_000_000_000, Vec::new(), limit);
        let change = Change::limit(&user(0), Some(limit), PeriodLength::Day, "sim");
        world.ledger.change(&change).expect("a limit");
        let sidecars = (0..count).map(|at| Sidecar {
            load_percent: 100,
            stops_us: u64::MAX,
            ..Sidecar::new(seed, at, &mut world.chance)
        });
        world.sidecars = sidecars.collect();
        world
    }

    /// Lives until all sidecars are gone or the time is over.
    pub(crate) fn run(&mut self) {
        while self.now_us < self.life_us && self.sidecars.iter().any(|sidecar| !matches!(sidecar.stage, Stage::Gone)) {
            let by_sidecar = self.sidecars.iter().map(|sidecar| sidecar.next_us).min().unwrap_or(self.life_us);
            let by_chat = self.chats.iter().map(|chat| chat.next_us).min().unwrap_or(self.life_us);
            let by_replica =
                self.replicas.iter().filter_map(|replica| replica.post_at_us).min().unwrap_or(self.life_us);
            let next_us =
                self.network.next_at_us().unwrap_or(self.life_us).min(by_sidecar).min(by_chat).min(by_replica);
            let next_us = next_us.max(self.now_us + 1);
            self.pass(next_us.min(self.life_us) - self.now_us);
            if !self.calm {
                self.disturb();
            }
            while let Some(packet) = self.network.arrived(self.now_us) {
                self.deliver(packet);
            }
            for at in 0..self.replicas.len() {
                if self.replicas[at].post_at_us.is_some_and(|at_us| at_us <= self.now_us) {
                    self.post(at);
                }
            }
            for at in 0..self.sidecars.len() {
                if self.sidecars[at].next_us <= self.now_us {
                    self.wake(at);
                }
            }
            for at in 0..self.chats.len() {
                if self.chats[at].next_us <= self.now_us
                    && let Some(change) = self.chats[at].wake(self.now_us, &mut self.chance)
                {
                    let packet = Packet { attempt: at, sent_us: self.now_us, message: Message::Change(change) };
                    self.network.send(&mut self.chance, self.now_us, packet);
                }
            }
        }
    }

    fn pass(&mut self, us: u64) {
        self.now_us += us;
        self.wall.0.fetch_add(us as i64, Ordering::Relaxed);
        for sidecar in &mut self.sidecars {
            if matches!(sidecar.stage, Stage::Running(_)) && !sidecar.frozen {
                sidecar.cpu_us += us * CPUS * sidecar.load_percent / 100;
            }
            if let Stage::Running(job) = &sidecar.stage {
                let burned = price(sidecar.cpu_us);
                let ceiling = job.grant().ceiling;
                assert!(
                    burned <= ceiling,
                    "seed {} at {} µs: {burned} burned of {ceiling}: {sidecar:?}",
                    self.seed,
                    self.now_us
                );
            }
        }
    }

    fn deliver(&mut self, packet: Packet) {
        match packet.message {
            Message::Opened(answer) => self.opened(packet.attempt, packet.sent_us, answer),
            Message::Answered(answer) => self.answered(packet.attempt, packet.sent_us, answer),
            Message::Finished => {
                // Taken by books that are forgotten since: its spool file says it again.
                let forgotten = packet.sent_us < self.restored_at_us;
                if !forgotten && matches!(self.sidecars[packet.attempt].stage, Stage::Ended(_)) {
                    self.sidecars[packet.attempt].stage = Stage::Gone;
                    self.sidecars[packet.attempt].last_word = true;
                }
            }
            Message::Changed(told) => {
                let (change, answer) = *told;
                self.chats[packet.attempt].answered(&change, answer.as_ref(), self.now_us, &mut self.chance);
            }
            _ if self.now_us < self.silent_until_us => {}
            _ => {
                // A host asks the replica that it is led to, and is led to another now and then.
                let (host, count) = (packet.attempt % HOSTS, self.replicas.len());
                let at = if self.chance.percent(10) { self.chance.below(count as u64) as usize } else { host % count };
                let cut = self.cuts.get(&(host, at)).is_some_and(|until_us| self.now_us < *until_us);
                if !cut && self.now_us >= self.replicas[at].down_until_us {
                    let post_at_us = self.now_us + self.chance.below(5_000);
                    self.replicas[at].take(packet, post_at_us);
                }
            }
        }
    }

    /// A replica posts what has come to it.
    fn post(&mut self, at: usize) {
        for (packet, outcome) in self.replicas[at].post() {
            let message = match (packet.message, outcome) {
                (_, Ok(Outcome::Opened(answer))) => Some(Message::Opened(*answer)),
                (_, Ok(Outcome::Reported { answer, .. })) => Some(Message::Answered(answer)),
                (_, Ok(Outcome::Finished(_))) => Some(Message::Finished),
                (Message::Change(change), Ok(Outcome::Changed(answer))) => {
                    Some(Message::Changed(Box::new((change, Some(answer)))))
                }
                (Message::Change(change), Err(LedgerError::Refused(_) | LedgerError::Missing(_))) => {
                    Some(Message::Changed(Box::new((change, None))))
                }
                // The books have forgotten the attempt: its sidecar opens it again.
                (Message::Report(report), Err(LedgerError::Unknown(_))) => {
                    let origin = self.sidecars[packet.attempt].origin();
                    origin.report(&mut self.replicas[at].ledger, &report, &self.wall).ok().map(Message::Answered)
                }
                (Message::Finish(finish), Err(LedgerError::Unknown(_))) => {
                    let origin = self.sidecars[packet.attempt].origin();
                    let told = origin.finish(&mut self.replicas[at].ledger, &finish, &self.wall);
                    told.ok().map(|_| Message::Finished)
                }
                (Message::Open(_), Err(LedgerError::Refused(_))) => None,
                (message, outcome) => panic!("seed {}: {message:?} is answered by {outcome:?}", self.seed),
            };
            if let (Some(message), false) = (message, self.replicas[at].is_dead()) {
                if let (Message::Finished, Stage::Ended(finish)) = (&message, &self.sidecars[packet.attempt].stage) {
                    self.sidecars[packet.attempt].said = Some(finish.clone());
                }
                let (attempt, sent_us) = (packet.attempt, packet.sent_us);
                self.network.send(&mut self.chance, self.now_us, Packet { attempt, sent_us, message });
            }
        }
        if self.replicas[at].is_dead() {
            self.crashes += 1;
            let down_until_us = self.now_us + self.chance.below(10_000_000);
            self.replicas[at].restart(down_until_us);
        }
        self.calls += 1;
        self.check();
    }

    fn opened(&mut self, at: usize, sent_us: u64, answer: OpenAnswer) {
        let now_us = self.now_us;
        let sidecar = &mut self.sidecars[at];
        if !matches!(sidecar.stage, Stage::Opening) {
            return;
        }
        match answer {
            OpenAnswer::Opened { rates, lease, .. } => {
                let rules = Rules {
                    rates,
                    interval_us: 1_000_000,
                    hold_us: 30_000_000,
                    can_hold: true,
                    notice_before_us: None,
                    spread: sidecar.id.as_u64_pair().1,
                };
                let grant = leases::grant(&lease, sent_us);
                if grant.ends_us <= now_us {
                    return;
                }
                let job = Job::new(rules, grant, BOUNDS, AccountState::default(), now_us);
                sidecar.stage = Stage::Running(Box::new(job));
                sidecar.next_us = now_us;
            }
            OpenAnswer::Refused { .. } => {
                sidecar.stage = Stage::Gone;
                sidecar.last_word = true;
            }
            // It asks again.
            OpenAnswer::Wait { .. } => {}
        }
    }

    fn answered(&mut self, at: usize, sent_us: u64, answer: ReportAnswer) {
        let asked = self.sidecars[at].asked;
        if asked.is_some_and(|(seq, _)| seq == answer.seq) {
            self.sidecars[at].asked = None;
        }
        let verdict = leases::verdict(answer.decision, sent_us);
        let account =
            AccountState { left: answer.balance.left, burn_per_second: answer.burn_per_second, at_us: sent_us };
        self.feed(at, Event::Answered { seq: answer.seq, verdict, account });
    }

    fn wake(&mut self, at: usize) {
        let now_us = self.now_us;
        self.sidecars[at].next_us = now_us + 60_000_000;
        match &self.sidecars[at].stage {
            Stage::Opening => {
                let request = self.sidecars[at].request();
                self.sidecars[at].next_us = now_us + TIMEOUT_US;
                let packet = Packet { attempt: at, sent_us: now_us, message: Message::Open(request) };
                self.network.send(&mut self.chance, now_us, packet);
            }
            Stage::Ended(finish) => {
                let message = Message::Finish(finish.clone());
                self.sidecars[at].next_us = now_us + TIMEOUT_US;
                self.network.send(&mut self.chance, now_us, Packet { attempt: at, sent_us: now_us, message });
            }
            Stage::Running(_) => {
                if let Some((seq, _)) = self.sidecars[at].asked.filter(|(_, at_us)| now_us >= at_us + TIMEOUT_US) {
                    self.sidecars[at].asked = None;
                    self.feed(at, Event::LedgerSilent { seq });
                }
                let exits = now_us >= self.sidecars[at].stops_us;
                self.feed(at, if exits { Event::Exited } else { Event::Looked });
            }
            Stage::Gone => {}
        }
    }

    fn feed(&mut self, at: usize, event: Event) {
        let now_us = self.now_us;
        let mut event = Some(event);
        while let Some(happened) = event.take() {
            // A running thread's time is up to one tick old.
            let stale_us = if self.sidecars[at].frozen { 0 } else { self.chance.below(4_000) * CPUS };
            let freeze_us = self.chance.below(FREEZE_US) * CPUS;
            self.sidecars[at].lateness_us = self.chance.below(LATENESS_MAX_US);
            let sidecar = &mut self.sidecars[at];
            let Stage::Running(job) = &mut sidecar.stage else { return };
            let usage = usage(sidecar.cpu_us.saturating_sub(stale_us));
            job.set_bounds(Bounds { stop_us: STOP_US + sidecar.lateness_us, ..BOUNDS });
            let actions = job.step(now_us, &usage, happened);
            for action in actions {
                match action {
                    Action::Freeze => {
                        sidecar.cpu_us += freeze_us * sidecar.load_percent / 100;
                        sidecar.frozen = true;
                        event = Some(Event::Looked);
                    }
                    Action::Thaw => sidecar.frozen = false,
                    Action::Notice => panic!("no notice was asked for"),
                    Action::Report(due) => {
                        sidecar.asked = Some((due.seq, now_us));
                        let secret = Some(secret_of(sidecar.id));
                        let report = Report { secret, ..leases::report(sidecar.id, &due, job, &BTreeMap::new()) };
                        let packet = Packet { attempt: at, sent_us: now_us, message: Message::Report(report) };
                        self.network.send(&mut self.chance, now_us, packet);
                    }
                    Action::End(end) => return self.ended(at, end),
                }
            }
        }
        let sidecar = &mut self.sidecars[at];
        if let Stage::Running(job) = &sidecar.stage {
            let by_timeout = sidecar.asked.map_or(u64::MAX, |(_, at_us)| at_us + TIMEOUT_US);
            sidecar.next_us = job.look_at_us().min(by_timeout).max(now_us + 1);
        }
    }

    /// Invariant 6: no end without a reason that can be seen from outside.
    fn ended(&mut self, at: usize, end: End) {
        let sidecar = &self.sidecars[at];
        let Stage::Running(job) = &sidecar.stage else { return };
        let grant = job.grant();
        let guard = Nanocredits(i64::try_from(CPUS * (STOP_US + LATENESS_MAX_US + 4_000) / 4 + 1).unwrap());
        let left = grant.ceiling.saturating_sub(price(sidecar.cpu_us));
        let over = left <= guard || self.now_us + STOP_US + LATENESS_MAX_US >= grant.ends_us;
        let allowed = match end {
            End::Exited => self.now_us >= sidecar.stops_us,
            End::CreditsExhausted | End::LeaseExpired => over,
            // Somebody with a newer clock has posted it: its lease was over long ago.
            End::OperatorStop => true,
            End::JobLimit => over && self.limit_of(self.sidecars[at].job).is_some(),
            End::MeterLost => false,
        };
        assert!(allowed, "seed {} at {} µs: ended by {end:?} with {left} left: {job:?}", self.seed, self.now_us);
        *self.stops.entry(format!("{end:?}")).or_default() += 1;
        let sidecar = &mut self.sidecars[at];
        let Stage::Running(job) = &mut sidecar.stage else { return };
        job.settle(&usage(sidecar.cpu_us));
        let finish = last_word(sidecar.id, job, sidecar.cpu_us, Reason::Completed);
        sidecar.stage = Stage::Ended(finish);
        sidecar.next_us = self.now_us + 1;
    }
}
