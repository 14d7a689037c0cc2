//! What every store promises: one suite, which each store's tests take in with a database of its own and a clock that is
//! set by hand.

#![allow(clippy::pedantic, reason = "a test, not an interface")]

mod against_model;
mod alerts;
mod attacked;
mod balance;
mod balance_model;
mod changes;
mod clocks;
mod names;
mod principals;
mod reading;
mod rules;
mod secrets;
mod sessions;
mod settings;
mod sharing;
mod silence;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use uuid::Uuid;

use super::{Place, another_store, store_for_tests};
use crate::domain::rating::RateCard;
use crate::domain::units::{Microseconds, Nanocredits};
use crate::domain::usage::Usage;
use crate::ledger::protocol::{
    AttemptIdentity, ClosedPeriod, Decision, Finish, FinishAnswer, JobKind, Lease, OpenAnswer, OpenRequest, Reason,
    Report, Resources, Resume, StopReason,
};
use crate::ledger::receipt_text::ReceiptText;
use crate::ledger::store::{Store, StoreLedger};
use crate::ledger::views::{AccountView, Change, ChangeAnswer, JobView, PeriodLength, Query, Verification, View};
use crate::ledger::{Ledger, LedgerError};
use crate::sys::clock::Clock;

/// 2026-11-24 12:00:00 UTC.
pub(crate) const NOON_S: i64 = 1_795_521_600;
pub(crate) const DAY_S: i64 = 86_400;
const RESOURCES: Resources =
    Resources { cpus_ppm: 2_000_000, gpus: 0, gpu_models: std::collections::BTreeMap::new(), stop_us: 6_000 };

#[derive(Clone, Debug)]
pub(crate) struct HandClock(pub(crate) Arc<AtomicI64>);

impl Clock for HandClock {
    fn boottime_us(&self) -> u64 {
        u64::try_from(self.realtime_us()).unwrap_or(0)
    }
    fn realtime_us(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[allow(missing_debug_implementations, reason = "a test's")]
pub(crate) struct World {
    pub(crate) place: Place,
    pub(crate) clock: HandClock,
    pub(crate) ledger: StoreLedger<Box<dyn Store>>,
}

pub(crate) fn seconds(s: &str) -> Usage {
    Usage { cpu_used_seconds: s.parse().unwrap(), ..Usage::default() }
}

pub(crate) fn report(attempt: Uuid, seq: u64, usage: &Usage, lease: &Lease, waiting: bool) -> Report {
    Report {
        attempt,
        seq,
        usage: usage.clone(),
        period: lease.period,
        closed: None,
        ceiling_version: lease.version,
        ceiling: lease.ceiling,
        resources: RESOURCES,
        waiting,
        secret: None,
    }
}

pub(crate) fn finish(attempt: Uuid, usage: &Usage, period: i64) -> Finish {
    let (usage, receipt, reason) = (usage.clone(), ReceiptText::of(&serde_json::json!({})), Reason::Completed);
    Finish { attempt, usage, period, closed: None, reason, receipt, secret: None }
}

/// The first report of the next period: CPU seconds at the end of the last, and now.
fn crossing(attempt: Uuid, seq: u64, lease: &Lease, [closed, now]: [&str; 2]) -> Report {
    let next = lease.next.as_ref().expect("a slice of the next period");
    let closed = Some(ClosedPeriod { period: lease.period, usage: seconds(closed) });
    Report { period: next.period, closed, ..report(attempt, seq, &seconds(now), lease, false) }
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = HandClock(Arc::new(AtomicI64::new(NOON_S * 1_000_000)));
        let (place, store) = store_for_tests(Box::new(clock.clone()));
        Self { place, clock, ledger: StoreLedger::new(store) }
    }

    pub(crate) fn with_limit(limit: &str) -> Self {
        let mut world = Self::new();
        world.limit(limit).unwrap();
        world
    }

    pub(crate) fn limit(&mut self, limit: &str) -> Result<ChangeAnswer, LedgerError> {
        let (limit, period) = (Some(limit.parse().unwrap()), PeriodLength::Day);
        self.change(Change::limit("u", limit, period, "t"))
    }

    pub(crate) fn unlimited(&mut self, user: &str) {
        let (user, period, by, why) = (user.to_owned(), PeriodLength::Day, "t".to_owned(), String::new());
        self.change(Change::SetLimit { user, limit: None, period, since: None, carry_over: None, by, why }).unwrap();
    }

    pub(crate) fn change(&mut self, change: Change) -> Result<ChangeAnswer, LedgerError> {
        self.ledger.change(&change)
    }

    pub(crate) fn pass_s(&self, s: i64) {
        self.clock.0.fetch_add(s * 1_000_000, Ordering::Relaxed);
    }

    pub(crate) fn request(job: &str, limit: Option<&str>) -> OpenRequest {
        OpenRequest {
            identity: AttemptIdentity {
                attempt: Uuid::now_v7(),
                job: job.into(),
                task: "0".into(),
                user: "u".into(),
                kind: JobKind::Training,
                name: None,
                labels: BTreeMap::new(),
                command: vec!["x".into()],
                host: "h".into(),
            },
            resources: RESOURCES,
            limit: limit.map(|limit| limit.parse().unwrap()),
            resume: None,
            secret: None,
        }
    }

    pub(crate) fn open(&mut self, job: &str, limit: Option<&str>) -> (Uuid, Lease) {
        let request = Self::request(job, limit);
        match self.ledger.open(&request).unwrap() {
            OpenAnswer::Opened { lease, .. } => (request.identity.attempt, lease),
            other => panic!("not opened: {other:?}"),
        }
    }

    pub(crate) fn refused(&mut self, job: &str) -> StopReason {
        match self.ledger.open(&Self::request(job, None)).unwrap() {
            OpenAnswer::Refused { reason, .. } => reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(crate) fn report(&mut self, attempt: Uuid, seq: u64, usage: &Usage, lease: &Lease, waiting: bool) -> Decision {
        let report = report(attempt, seq, usage, lease, waiting);
        self.ledger.report(&report).unwrap().decision
    }

    pub(crate) fn finish(&mut self, attempt: Uuid, usage: &Usage, period: i64) -> FinishAnswer {
        self.ledger.finish(&finish(attempt, usage, period)).unwrap()
    }

    pub(crate) fn account(&mut self) -> AccountView {
        match self.ledger.read(&Query::Account { user: "u".into() }).unwrap() {
            View::Account(account) => *account,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn job(&mut self, job: &str) -> JobView {
        match self.ledger.read(&Query::Job { job: job.into() }).unwrap() {
            View::Job(Some(job)) => *job,
            other => panic!("{other:?}"),
        }
    }

    /// Of this month: the day, its credits, and its CPU time in µs.
    pub(crate) fn usage_of_days(&mut self) -> Vec<(String, i64, u64)> {
        let range = crate::ledger::usage_range::UsageRange::new(Some("2026-11"), None, None, None).unwrap();
        let query = Query::Usage { whose: crate::ledger::views::Whose::User("u".into()), range };
        let View::Usage(days) = self.ledger.read(&query).unwrap() else { panic!() };
        let row = |day: &crate::ledger::views::UsageRow| {
            (day.period_start.clone(), day.total_credits.0, day.total_virtual_cpu_time.0)
        };
        days.iter().map(row).collect()
    }

    /// The books are right.
    pub(crate) fn check(&mut self) -> Verification {
        match self.ledger.read(&Query::Verify).unwrap() {
            View::Verified(found) => {
                assert_eq!(found.problems, Vec::<String>::new());
                found
            }
            other => panic!("{other:?}"),
        }
    }

    /// Burns to each ceiling, until the ledger stops it: what was burned, in µs of CPU time, and why.
    pub(crate) fn burn_out(&mut self, attempt: Uuid, mut lease: Lease) -> (u64, StopReason) {
        for seq in 1..10_000 {
            self.pass_s(1);
            let usage = Usage { cpu_used_seconds: cpu_at(lease.ceiling), ..Usage::default() };
            match self.report(attempt, seq, &usage, &lease, true) {
                Decision::Lease(newer) => lease = newer,
                Decision::Stop(reason) => {
                    self.finish(attempt, &usage, lease.period);
                    return (usage.cpu_used_seconds.0, reason);
                }
                Decision::Wait { .. } => panic!("nobody else holds anything"),
            }
            self.check();
        }
        panic!("it was never stopped")
    }
}

/// The CPU time whose price is this ceiling, rounded down.
pub(crate) fn cpu_at(ceiling: Nanocredits) -> Microseconds {
    Microseconds(u64::try_from(ceiling.0).unwrap() * 4)
}

#[test]
fn an_account_is_charged_to_its_limit_and_no_further() {
    let mut world = World::with_limit("0.001");
    let (attempt, lease) = world.open("j", None);
    let (cpu_us, reason) = world.burn_out(attempt, lease);
    assert_eq!((cpu_us, reason), (4_000_000, StopReason::CreditsExhausted));
    let account = world.account();
    assert_eq!((account.current.0, account.left, account.held), (1_000_000, Some(Nanocredits(0)), Nanocredits(0)));
    assert_eq!(world.refused("k"), StopReason::CreditsExhausted);
    world.check();
}

#[test]
fn a_jobs_own_limit_holds_over_its_attempts() {
    let mut world = World::new();
    let (attempt, lease) = world.open("j", Some("0.001"));
    let usage = seconds("1");
    assert!(matches!(world.report(attempt, 1, &usage, &lease, false), Decision::Lease(_)));
    world.finish(attempt, &usage, lease.period);
    let (second, lease) = world.open("j", Some("0.001"));
    let (cpu_us, reason) = world.burn_out(second, lease);
    assert_eq!((cpu_us, reason), (3_000_000, StopReason::JobLimit));
    assert_eq!(world.job("j").charged.total.0, 1_000_000);
    assert_eq!(world.refused("j"), StopReason::JobLimit);
}

#[test]
fn a_limit_below_a_minimum_slice_is_kept() {
    let mut world = World::new();
    let (attempt, lease) = world.open("j", Some("0.000025"));
    assert_eq!(lease.ceiling.0, 25_000);
    assert_eq!(world.burn_out(attempt, lease), (100_000, StopReason::JobLimit));
}

#[test]
fn repeats_change_nothing() {
    let mut world = World::new();
    let request = World::request("j", None);
    let first = world.ledger.open(&request).unwrap();
    let OpenAnswer::Opened { lease, .. } = first else { panic!() };
    let OpenAnswer::Opened { lease: again, again: true, .. } = world.ledger.open(&request).unwrap() else { panic!() };
    assert_eq!(lease, again);
    let attempt = request.identity.attempt;
    for _ in 0..3 {
        world.report(attempt, 1, &seconds("0.5"), &lease, false);
    }
    // Late and out of order: a smaller total changes nothing.
    world.report(attempt, 2, &seconds("1"), &lease, false);
    world.report(attempt, 1, &seconds("0.5"), &lease, false);
    assert_eq!(world.account().current.0, 250_000);
    let before = world.finish(attempt, &seconds("1.5"), lease.period);
    let after = world.finish(attempt, &seconds("1.5"), lease.period);
    assert!(!before.again && after.again);
    assert_eq!((before.charged, after.charged.total.0), (after.charged, 375_000));
    world.check();
}

#[test]
fn a_waiting_job_gets_what_another_gives_back() {
    let mut world = World::with_limit("0.003");
    let (first, lease) = world.open("a", None);
    world.pass_s(1);
    // Fast, and alone: it gets half of what is left.
    let Decision::Lease(mut rich) = world.report(first, 1, &seconds("1"), &lease, false) else { panic!() };
    let (second, mut poor) = world.open("b", None);
    let mut seq = 0;
    let mut burned = Usage::default();
    loop {
        seq += 1;
        burned.cpu_used_seconds = cpu_at(poor.ceiling);
        match world.report(second, seq, &burned, &poor, true) {
            Decision::Lease(newer) => poor = newer,
            Decision::Wait { retry_in_ms } => {
                assert!(retry_in_ms > 0 && seq > 1);
                break;
            }
            Decision::Stop(reason) => panic!("{reason:?} while another holds more than it needs"),
        }
        world.check();
    }
    // The first one is told to give back, and confirms that by the version of the lower ceiling.
    let before = rich.ceiling;
    for seq in 2..5 {
        world.pass_s(1);
        match world.report(first, seq, &seconds("1"), &rich, false) {
            Decision::Lease(newer) => rich = newer,
            other => panic!("{other:?}"),
        }
        world.check();
    }
    assert!(rich.ceiling < before, "{} of {before}", rich.ceiling);
    let decision = world.report(second, seq + 1, &burned, &poor, true);
    assert!(matches!(decision, Decision::Lease(newer) if newer.ceiling > poor.ceiling), "{decision:?}");
    world.check();
}

#[test]
fn usage_belongs_to_the_period_in_which_it_happened() {
    let mut world = World::new();
    world.pass_s(DAY_S / 2 - 20);
    let (attempt, lease) = world.open("j", None);
    assert!(lease.lasts_ms <= 20_000);
    let next = lease.next.expect("a slice of the next period");
    assert_eq!(next.period, lease.period + DAY_S);
    world.report(attempt, 1, &seconds("1"), &lease, false);
    world.pass_s(21);
    let report = crossing(attempt, 2, &lease, ["2", "3"]);
    // The same report twice: the answer to the first was lost.
    for _ in 0..2 {
        let Decision::Lease(now) = world.ledger.report(&report).unwrap().decision else { panic!() };
        assert_eq!(now.period, next.period);
    }
    assert_eq!(world.account().current.0, 250_000);
    world.finish(attempt, &seconds("3"), next.period);
    assert_eq!(world.job("j").charged.total.0, 750_000);
    let credits: Vec<i64> = world.usage_of_days().iter().map(|(_, credits, _)| *credits).collect();
    assert_eq!(credits, [500_000, 250_000]);
    world.check();
}

#[test]
fn a_silent_attempt_stays_held_until_it_is_settled() {
    let mut world = World::with_limit("0.001");
    let (attempt, lease) = world.open("j", None);
    world.pass_s(31);
    let account = world.account();
    assert_eq!((account.held, account.provisional), (lease.ceiling, lease.ceiling));
    let why = "host gone".to_owned();
    let settled = world.change(Change::Settle { attempt, usage: Some(seconds("0.1")), by: "op".into(), why }).unwrap();
    assert_eq!(settled.charged.0, 25_000);
    assert_eq!(world.account().provisional, Nanocredits::ZERO);
    // Its own last word comes late and is more: the rest is charged.
    world.finish(attempt, &seconds("0.2"), lease.period);
    assert_eq!(world.job("j").charged.total.0, 50_000);
    world.check();
}

#[test]
fn an_unsettled_attempt_is_charged_in_full_a_day_after_its_period() {
    let mut world = World::new();
    let (attempt, lease) = world.open("j", None);
    world.pass_s(3 * DAY_S);
    let _ = world.open("k", None);
    let job = world.job("j");
    assert_eq!((job.state.as_str(), job.charged.total), ("ended", lease.ceiling));
    world.check();
    world.finish(attempt, &seconds("0.1"), lease.period);
    assert_eq!(world.job("j").charged.total.0, 25_000);
    assert_eq!(world.usage_of_days(), [("2026-11-24T00:00:00Z".to_owned(), 25_000, 100_000)]);
    world.check();
}

/// What was paid by a grant goes back to the grant.
#[test]
fn a_correction_goes_back_to_where_it_was_paid_from() {
    let mut world = World::with_limit("0.0001");
    let amount = Nanocredits(10_000_000);
    let (by, why, key) = ("t".to_owned(), "w".to_owned(), "k".to_owned());
    world.change(Change::Grant { user: "u".into(), amount, expires_at: None, by, why, key }).unwrap();
    let (attempt, lease) = world.open("j", None);
    assert!(lease.ceiling.0 > 100_000);
    world.pass_s(31);
    let settle = Change::Settle { attempt, usage: None, by: "op".into(), why: "gone".into() };
    assert_eq!(world.change(settle).unwrap().charged, lease.ceiling);
    assert_eq!(world.account().charged, lease.ceiling);
    world.finish(attempt, &seconds("0.2"), lease.period);
    let account = world.account();
    assert_eq!((account.current.0, account.grants[0].left), (50_000, amount));
    assert_eq!(world.job("j").charged.total.0, 50_000);
    world.check();
}
