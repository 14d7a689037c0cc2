#![allow(clippy::pedantic, reason = "a test, not an interface")]
use proptest::prelude::*;

use super::*;
use crate::domain::deadline::HighestRate;
use crate::domain::rating::RateCard;
use crate::domain::units::Microseconds;

const STOP_US: u64 = 7_000;
const HOLD_US: u64 = 5_000_000;

/// One thing that may happen, as small numbers.
#[derive(Clone, Debug)]
enum Step {
    /// Time passes until the next look, the job burning this share of its highest rate (percent).
    Look(u64),
    /// Time passes, but less than until the next look.
    Early(u64),
    /// The ledger raises the ceiling.
    Raise(i64),
    /// The same, and nothing more can be had after that.
    Last(i64),
    /// The ledger lowers it.
    Lower(i64),
    Wait,
    Silent,
    Repeat,
    Stop,
    Exit,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..=100u64).prop_map(Step::Look),
        2 => (0..=100u64).prop_map(Step::Early),
        4 => (0..400_000i64).prop_map(Step::Raise),
        1 => (0..400_000i64).prop_map(Step::Last),
        1 => (0..400_000i64).prop_map(Step::Lower),
        1 => Just(Step::Wait),
        1 => Just(Step::Silent),
        1 => Just(Step::Repeat),
        1 => Just(Step::Stop),
        1 => Just(Step::Exit),
    ]
}

/// The small model: what is burned, what may be, and who said what.
struct Model {
    job: Job,
    now_us: u64,
    cpu_us: u64,
    frozen: bool,
    outstanding: Option<u64>,
    version: u64,
    ceiling: i64,
    ended: Option<End>,
    stopped: bool,
    exited: bool,
    /// Nothing more could be had while the job still ran on for a while.
    foreseen: bool,
    noticed: bool,
}

fn rules(can_hold: bool) -> Rules {
    Rules {
        rates: RateCard::default(),
        interval_us: 1_000_000,
        hold_us: HOLD_US,
        can_hold,
        notice_before_us: Some(0),
        spread: 7,
    }
}

fn grant(version: u64, ceiling: i64, now_us: u64) -> Grant {
    Grant {
        version,
        ceiling: Nanocredits(ceiling),
        period: 0,
        ends_us: now_us + 30_000_000,
        report_at_us: now_us + 10_000_000,
        next: None,
        last: None,
        unbounded: false,
    }
}

const RATE: HighestRate = HighestRate { cpus_ppm: 2_000_000, quota: None };
const BOUNDS: Bounds = Bounds { cpu: RATE, gpus_ppm: 0, stop_us: STOP_US, gpu_age_us: 0, gpu_step_us: 0 };

impl Model {
    fn new(can_hold: bool) -> Self {
        let job = Job::new(rules(can_hold), grant(1, 300_000, 0), BOUNDS, AccountState::default(), 0);
        Self {
            job,
            now_us: 0,
            cpu_us: 0,
            frozen: false,
            outstanding: None,
            version: 1,
            ceiling: 300_000,
            ended: None,
            stopped: false,
            exited: false,
            foreseen: false,
            noticed: false,
        }
    }

    fn pass(&mut self, us: u64, percent: u64) {
        self.now_us += us;
        if !self.frozen && self.ended.is_none() {
            self.cpu_us += us * 2 * percent / 100;
        }
    }

    fn price(&self) -> i64 {
        self.cpu_us as i64 / 4
    }

    /// Feeds an event and performs what comes out of it, as the keeper does.
    fn feed(&mut self, event: Event) -> Result<(), TestCaseError> {
        let mut event = Some(event);
        while let Some(happened) = event.take() {
            let usage = Usage { cpu_used_seconds: Microseconds(self.cpu_us), ..Usage::default() };
            let before_end = self.ended;
            let actions = self.job.step(self.now_us, &usage, happened);
            prop_assert!(before_end.is_none() || actions.is_empty(), "something is done after the end");
            for action in actions {
                match action {
                    Action::Freeze => {
                        prop_assert!(!self.frozen);
                        prop_assert!(self.noticed || !self.foreseen || self.is_lease_over(), "frozen without notice");
                        self.frozen = true;
                        event = Some(Event::Looked);
                    }
                    Action::Thaw => {
                        prop_assert!(self.frozen, "thawed what runs");
                        self.frozen = false;
                    }
                    Action::Report(report) => {
                        prop_assert_eq!(self.outstanding, None, "two questions at once");
                        prop_assert_eq!(report.waiting, self.frozen);
                        prop_assert!(report.ceiling_version <= self.version);
                        self.outstanding = Some(report.seq);
                    }
                    Action::Notice => {
                        prop_assert!(!self.noticed && !self.frozen);
                        self.noticed = true;
                    }
                    Action::End(end) => self.ends(end)?,
                }
            }
        }
        Ok(())
    }

    /// Invariant 6: nothing is ended without a reason that the model knows.
    fn ends(&mut self, end: End) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.ended, None);
        self.ended = Some(end);
        let grant = self.job.grant();
        let left = grant.ceiling.0 - self.price();
        let lease_over = self.is_lease_over();
        prop_assert!(self.noticed || !self.foreseen || lease_over || self.stopped || self.exited, "no notice");
        match end {
            End::Exited => prop_assert!(self.exited),
            End::OperatorStop => prop_assert!(self.stopped),
            End::CreditsExhausted | End::LeaseExpired => {
                prop_assert!(left <= self.job.guard().0 || lease_over, "{left} left, lease until {}", grant.ends_us);
            }
            End::JobLimit | End::MeterLost => prop_assert!(false, "nobody said so"),
        }
        Ok(())
    }

    fn is_lease_over(&self) -> bool {
        self.now_us + STOP_US >= self.job.grant().ends_us
    }

    fn answer(&mut self, verdict: Verdict) -> Result<(), TestCaseError> {
        let Some(seq) = self.outstanding.take() else { return Ok(()) };
        self.feed(Event::Answered { seq, verdict, account: AccountState::default() })
    }

    fn grant_the_last(&mut self, more: i64) -> Result<(), TestCaseError> {
        if self.outstanding.is_some() {
            self.version += 1;
            self.ceiling = self.ceiling.max(self.price()) + more;
        }
        let last = Some(End::CreditsExhausted);
        self.answer(Verdict::Lease(Grant { last, ..grant(self.version, self.ceiling, self.now_us) }))
    }

    fn perform(&mut self, step: Step) -> Result<(), TestCaseError> {
        let due_us = self.job.look_at_us();
        prop_assert!(due_us >= self.now_us && due_us <= self.now_us + 1_000_000);
        match step {
            Step::Look(percent) => {
                self.pass(due_us - self.now_us, percent);
                self.feed(Event::Looked)
            }
            Step::Early(percent) => {
                self.pass((due_us - self.now_us) / 2, percent);
                self.feed(Event::Looked)
            }
            Step::Raise(more) => {
                if self.outstanding.is_some() {
                    self.version += 1;
                    self.ceiling = self.ceiling.max(self.price()) + more;
                }
                let lease = grant(self.version, self.ceiling, self.now_us);
                self.answer(Verdict::Lease(lease))
            }
            Step::Last(more) => self.grant_the_last(more),
            Step::Lower(less) => {
                if self.outstanding.is_some() {
                    self.version += 1;
                    let lowered = grant(self.version, (self.ceiling - less).max(0), self.now_us);
                    let before = self.job.grant().ceiling;
                    self.answer(Verdict::Lease(lowered))?;
                    let obeyed = self.job.grant().ceiling;
                    prop_assert!(obeyed == before || obeyed == lowered.ceiling);
                    self.ceiling = self.ceiling.max(obeyed.0);
                }
                Ok(())
            }
            Step::Wait => self.answer(Verdict::Wait { ask_at_us: Some(self.now_us + 250_000) }),
            Step::Silent => match self.outstanding.take() {
                Some(seq) => self.feed(Event::LedgerSilent { seq }),
                None => Ok(()),
            },
            // An old answer comes again: nothing may change by it.
            Step::Repeat => {
                let ceiling = self.job.grant().ceiling;
                let old = grant(0, 1, self.now_us);
                let verdict = Verdict::Lease(old);
                self.feed(Event::Answered { seq: 0, verdict, account: AccountState::default() })?;
                prop_assert_eq!(self.job.grant().ceiling, ceiling);
                Ok(())
            }
            Step::Stop => {
                self.stopped |= self.outstanding.is_some();
                self.answer(Verdict::Stop(End::OperatorStop))
            }
            Step::Exit => {
                self.exited = true;
                self.feed(Event::Exited)
            }
        }
    }

    /// Invariant 1, on the side of the sidecar: what runs is below its ceiling, whatever it burns.
    fn check(&mut self) -> Result<(), TestCaseError> {
        self.foreseen = self.job.is_last() && (self.foreseen || self.job.left() > self.job.guard());
        let ceiling = self.job.grant().ceiling.0;
        prop_assert!(self.price() <= ceiling, "{} burned of {ceiling}", self.price());
        prop_assert!(self.ended.is_some() || self.frozen == self.job.is_held());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..crate::properties::config() })]
    #[test]
    fn a_job_never_burns_past_its_ceiling_and_never_ends_without_reason(
        steps in proptest::collection::vec(step(), 1..120), can_hold: bool,
    ) {
        let mut model = Model::new(can_hold);
        for step in steps {
            if model.ended.is_some() {
                break;
            }
            model.perform(step)?;
            model.check()?;
        }
    }
}

/// It burned a third of what it could while the account was last asked.
#[test]
fn a_notice_comes_in_time_where_a_job_burns_faster_than_before() {
    let account = AccountState { left: Some(Nanocredits(300_000)), burn_per_second: Nanocredits(50_000), at_us: 0 };
    let rules = Rules { notice_before_us: Some(1_000_000), ..rules(true) };
    let mut job = Job::new(rules, grant(1, 300_000, 0), BOUNDS, account, 0);
    let noticed_at_us = (100_000..).step_by(100_000).find(|now_us| {
        let usage = Usage { cpu_used_seconds: Microseconds(now_us * 6 / 10), ..Usage::default() };
        job.step(*now_us, &usage, Event::Looked).iter().any(|action| matches!(action, Action::Notice))
    });
    // It burns 150 000 in a second, and is at its end after two.
    assert_eq!(noticed_at_us, Some(1_000_000));
}

#[test]
fn a_held_job_ends_when_the_ledger_stays_silent() {
    let mut model = Model::new(true);
    while model.ended.is_none() && model.now_us < 60_000_000 {
        model.perform(Step::Look(100)).unwrap();
        model.perform(Step::Silent).unwrap();
    }
    assert_eq!(model.ended, Some(End::LeaseExpired));
    assert!(model.now_us >= HOLD_US);
}

#[test]
fn at_the_end_of_a_period_the_next_one_pays_from_that_reading_on() {
    let next = NextGrant { period: 86_400, starts_us: 500_000, amount: Nanocredits(1_000_000), ends_us: 30_500_000 };
    let first = Grant { ends_us: 500_000, next: Some(next), ..grant(1, 300_000, 0) };
    let mut job = Job::new(rules(true), first, BOUNDS, AccountState::default(), 0);
    assert_eq!(job.look_at_us(), 500_000);
    let usage = Usage { cpu_used_seconds: Microseconds(400_000), ..Usage::default() };
    let actions = job.step(500_000, &usage, Event::Looked);
    assert_eq!((job.grant().period, job.grant().ceiling), (86_400, Nanocredits(1_100_000)));
    let Some(Action::Report(report)) = actions.first() else { panic!("no report at the end of the period") };
    assert_eq!((report.period, report.closed.as_ref()), (86_400, Some(&(0, usage))));
}

/// A suspend of the machine: the boot clock jumps past the lease while nothing burned.
#[test]
fn after_a_suspend_a_job_is_frozen_until_its_lease_is_renewed() {
    let mut model = Model::new(true);
    model.perform(Step::Look(10)).unwrap();
    model.pass(3_600_000_000, 0);
    model.feed(Event::Looked).unwrap();
    assert!(model.frozen && model.ended.is_none());
    model.perform(Step::Raise(0)).unwrap();
    assert!(!model.frozen && model.ended.is_none(), "{:?}", model.job);
}

/// Neither its ceiling nor the end of its lease stops what no limit stands behind, and what it burned is reported.
#[test]
fn without_a_limit_silence_stops_nothing() {
    for can_hold in [true, false] {
        let first = Grant { unbounded: true, ..grant(1, 300_000, 0) };
        let mut job = Job::new(rules(can_hold), first, BOUNDS, AccountState::default(), 0);
        let at = |s: u64| Usage { cpu_used_seconds: Microseconds(s * 2_000_000), ..Usage::default() };
        let mut asked = Vec::new();
        for s in 1..3_600 {
            for action in job.step(s * 1_000_000, &at(s), Event::Looked) {
                let Action::Report(report) = action else { panic!("{action:?} after {s} s") };
                asked.push(s);
                assert_eq!(job.step(s * 1_000_000, &at(s), Event::LedgerSilent { seq: report.seq }), []);
            }
            assert!(job.look_at_us() <= (s + 1) * 1_000_000);
        }
        assert!(asked.len() > 80 && asked.windows(2).all(|pair| pair[1] - pair[0] <= 46), "{asked:?}");
        // The ledger comes back, and the account has a limit meanwhile: what is above the ceiling stops at once.
        let report = (3_600..3_700).find_map(|s| {
            let actions = job.step(s * 1_000_000, &at(3_600), Event::Looked);
            actions
                .into_iter()
                .find_map(|action| if let Action::Report(report) = action { Some((s, report)) } else { None })
        });
        let (s, report) = report.expect("it asks again");
        let bounded = Verdict::Lease(Grant { last: Some(End::CreditsExhausted), ..grant(2, 300_000, s * 1_000_000) });
        let answered = Event::Answered { seq: report.seq, verdict: bounded, account: AccountState::default() };
        let stops = if can_hold { Action::Freeze } else { Action::End(End::CreditsExhausted) };
        assert_eq!(job.step(s * 1_000_000, &at(3_600), answered).first(), Some(&stops));
    }
}

/// Of two that lost their ledger, the one that can go on for less asks sooner.
#[test]
fn whoever_needs_an_answer_soonest_asks_first() {
    let waits = |lease_us: u64, cpu_us: u64| {
        let first = Grant { ends_us: lease_us, report_at_us: 10_000_000, ..grant(1, 10_000_000, 0) };
        let mut job = Job::new(rules(true), first, BOUNDS, AccountState::default(), 0);
        let mut now_us = 10_000_000;
        let usage = Usage { cpu_used_seconds: Microseconds(cpu_us), ..Usage::default() };
        for _ in 0..20 {
            let before_us = now_us;
            let Some(Action::Report(report)) = job.step(now_us, &usage, Event::Looked).into_iter().next() else {
                panic!()
            };
            let _ = job.step(now_us, &usage, Event::LedgerSilent { seq: report.seq });
            now_us = job.report_at_us;
            if now_us > 30_000_000 {
                return now_us - before_us;
            }
        }
        panic!("it asks too often")
    };
    let (idle, idle_short) = (waits(600_000_000, 0), waits(60_000_000, 0));
    let burning = waits(600_000_000, 20_000_000);
    assert!(idle > idle_short && idle_short > burning, "{idle} {idle_short} {burning}");
}

/// Ten thousand that lose their ledger at the same moment do not come back at the same moment.
#[test]
fn retries_of_many_attempts_are_spread() {
    let mut at = std::collections::BTreeMap::<u64, u32>::new();
    for spread in 0..10_000_u64 {
        let rules = Rules { spread: spread.wrapping_mul(0x2545_f491_4f6c_dd1d), ..rules(true) };
        let mut job = Job::new(rules, grant(1, 300_000, 0), BOUNDS, AccountState::default(), 0);
        let mut now_us = 0;
        for _ in 0..6 {
            now_us = now_us.max(job.report_at_us);
            let usage = Usage::default();
            let actions = job.step(now_us, &usage, Event::Looked);
            let Some(Action::Report(report)) = actions.into_iter().next() else { continue };
            let _ = job.step(now_us, &usage, Event::LedgerSilent { seq: report.seq });
        }
        *at.entry(job.report_at_us / 100_000).or_default() += 1;
    }
    // In tenths of a second: an even spread over some seconds, nowhere more than three times the average.
    let most = at.values().copied().max().unwrap();
    assert!(at.len() > 20 && most * (at.len() as u32) < 30_000, "{at:?}");
}
