//! Copies that take the ledger's place, files that vanish, and files of an older version.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use uuid::Uuid;

use super::suite::{DAY_S, HandClock, World, finish, seconds};
use super::*;
use crate::domain::rating::RateCard;
use crate::domain::units::Nanocredits;
use crate::ledger::Ledger;
use crate::ledger::asker::{Asker, Reach};
use crate::ledger::attempt_secret::AttemptSecret;
use crate::ledger::book::{Asked, Operation, Outcome};
use crate::ledger::keys::Scope;
use crate::ledger::protocol::{ClosedPeriod, Decision, Finish, Lease, OpenAnswer, OpenRequest, Report, Resume};
use crate::ledger::session::SessionToken;
use crate::ledger::settings::LEASE_DEFAULT_MS as LEASE_MS;
use crate::ledger::views::{Change, NewKey, Query, View};

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn copy(&self) {
        backup(&self.path("l.db"), &self.path("copy.db")).unwrap();
    }

    fn restore(&self) {
        self.restore_by(Restoring::default()).unwrap();
    }

    fn restore_by(&self, how: Restoring) -> Result<Option<PathBuf>, LedgerError> {
        restore(&self.path("l.db"), &self.path("copy.db"), how, ("op", "w"), Box::new(self.clock.clone()))
    }

    fn reopen(&mut self, request: &OpenRequest, lease: &Lease) {
        let answer = self.ledger.open(&OpenRequest { resume: Some(resume_of(lease)), ..request.clone() }).unwrap();
        assert!(matches!(answer, OpenAnswer::Opened { again: true, .. }), "{answer:?}");
    }
}

/// Of an attempt that began five seconds ago and obeys this lease.
fn resume_of(lease: &Lease) -> Resume {
    Resume {
        started_ms_ago: 5_000,
        rates_version: 1,
        period: lease.period,
        ceiling: lease.ceiling,
        ceiling_version: lease.version,
    }
}

fn opened(path: &Path, clock: &HandClock) -> StoreLedger<Box<dyn Store>> {
    StoreLedger::new(Box::new(Sqlite::open(path, Box::new(clock.clone())).unwrap()))
}

fn unknown<T: std::fmt::Debug>(answer: Result<T, LedgerError>) {
    assert!(matches!(answer, Err(LedgerError::Unknown(_))), "{answer:?}");
}

#[test]
fn after_a_restore_running_attempts_come_back_and_new_ones_wait() {
    let mut world = World::with_limit("0.01");
    let (known, first) = world.open("known", None);
    world.copy();
    // All of this is forgotten: a higher ceiling, an attempt, and one that ended.
    world.pass_s(1);
    let Decision::Lease(higher) = world.report(known, 1, &seconds("0.9"), &first, false) else { panic!() };
    assert!(higher.ceiling > first.ceiling);
    let request = World::request("forgotten", None);
    let OpenAnswer::Opened { lease, .. } = world.ledger.open(&request).unwrap() else { panic!() };
    world.pass_s(1);
    world.restore();

    let OpenAnswer::Wait { retry_in_ms } = world.ledger.open(&World::request("new", None)).unwrap() else {
        panic!("something new was leased")
    };
    assert_eq!(retry_in_ms, LEASE_MS);
    // The one it knows is charged, and the ceiling that it obeys is held.
    let Decision::Lease(again) = world.report(known, 2, &seconds("1.5"), &higher, false) else { panic!() };
    assert!(again.version > higher.version || again.ceiling == higher.ceiling, "{again:?}");
    assert_eq!(world.account().held, higher.ceiling.saturating_sub(Nanocredits(375_000)));
    // The one it does not know is opened again, with what it burned and obeys.
    let attempt = request.identity.attempt;
    let report = Report {
        attempt,
        seq: 1,
        usage: seconds("0.8"),
        period: lease.period,
        closed: None,
        ceiling_version: lease.version,
        ceiling: lease.ceiling,
        resources: request.resources.clone(),
        waiting: false,
        secret: None,
    };
    unknown(world.ledger.report(&report));
    world.reopen(&request, &lease);
    let Decision::Lease(held) = world.ledger.report(&report).unwrap().decision else { panic!() };
    assert_eq!(held.ceiling, lease.ceiling, "nothing is given before all have reported");
    world.check();

    world.pass_s(i64::try_from(LEASE_MS / 1_000).unwrap());
    let (_, after) = world.open("new", None);
    assert!(after.version > higher.version);
    world.finish(attempt, &seconds("0.8"), lease.period);
    world.finish(known, &seconds("1.5"), first.period);
    assert_eq!(world.account().current.0, 375_000 + 200_000);
    assert_eq!(world.job("forgotten").attempts[0].started_at, "2026-11-24T11:59:57Z");
    world.check();
}

#[test]
fn what_had_ended_is_charged_again_once() {
    let mut world = World::with_limit("0.01");
    world.copy();
    let request = OpenRequest { secret: Some(AttemptSecret::new()), ..World::request("ended", None) };
    let OpenAnswer::Opened { lease, .. } = world.ledger.open(&request).unwrap() else { panic!() };
    let without = finish(request.identity.attempt, &seconds("0.4"), lease.period);
    let finish = Finish { secret: request.secret, ..without.clone() };
    world.ledger.finish(&finish).unwrap();
    // Days later: its usage is charged to the day in which it happened.
    world.pass_s(2 * DAY_S);
    world.restore();
    unknown(world.ledger.finish(&finish));
    world.reopen(&request, &Lease { ceiling: Nanocredits::ZERO, ..lease });
    assert!(matches!(world.ledger.finish(&without), Err(LedgerError::Foreign)));
    for _ in 0..2 {
        assert_eq!(world.ledger.finish(&finish).unwrap().charged.total.0, 100_000);
    }
    assert_eq!(world.account().current, Nanocredits::ZERO);
    assert_eq!(world.usage_of_days(), [("2026-11-24T00:00:00Z".to_owned(), 100_000, 400_000)]);
    world.check();
}

#[test]
fn an_attempt_comes_back_to_no_ledger_that_was_never_restored() {
    let mut world = World::new();
    let request = World::request("j", None);
    let resume = Resume { started_ms_ago: 0, rates_version: 1, period: 0, ceiling: Nanocredits(1), ceiling_version: 1 };
    unknown(world.ledger.open(&OpenRequest { resume: Some(resume), ..request }));
}

#[test]
fn a_ledger_that_is_damaged_is_kept_aside_and_replaced() {
    let mut world = World::with_limit("2");
    world.copy();
    for name in ["l.db-wal", "l.db-shm"] {
        std::fs::remove_file(world.path(name)).ok();
    }
    std::fs::write(world.path("l.db"), "rubbish ".repeat(2_000)).unwrap();
    world.restore();
    world.ledger = opened(&world.path("l.db"), &world.clock);
    assert_eq!(world.account().limit, Some(Nanocredits(2_000_000_000)));
    world.check();
    let names = std::fs::read_dir(world.place.path()).unwrap().flatten();
    let aside = names.filter(|entry| entry.file_name().to_string_lossy().contains(".damaged-")).count();
    assert_eq!(aside, 1);
}

#[test]
fn a_file_that_vanishes_acknowledges_nothing_more() {
    let mut world = World::new();
    let (attempt, lease) = world.open("j", None);
    std::fs::rename(world.path("l.db"), world.path("gone.db")).unwrap();
    let finish = finish(attempt, &seconds("0.4"), lease.period);
    let error = world.ledger.finish(&finish).unwrap_err();
    assert!(matches!(&error, LedgerError::Unavailable(why) if why.contains("l.db")), "{error}");
    std::fs::rename(world.path("gone.db"), world.path("l.db")).unwrap();
    assert_eq!(world.ledger.finish(&finish).unwrap().charged.total.0, 100_000);
}

#[test]
fn a_ledger_of_an_older_version_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.db");
    Connection::open(&path).unwrap().execute_batch(include_str!("ledger-2.sql")).unwrap();
    // A minute after it was written.
    let clock = HandClock(Arc::new(AtomicI64::new(1_795_648_400 * 1_000_000)));
    let ledger = opened(&path, &clock);
    let mut world = World { place: directory, clock, ledger };
    world.check();
    let View::Account(account) = world.ledger.read(&Query::Account { user: "tester".into() }).unwrap() else {
        panic!()
    };
    assert_eq!((account.current.0, account.provisional.0), (869_670, 8_962_950));
    assert_eq!((account.grants.len(), account.running), (1, 0));
    let job = world.job("train-1");
    assert_eq!((job.charged.total.0, job.name.as_deref()), (45_344, Some("first model")));
    assert_eq!(job.attempts[0].identity.labels["team"], "a");
    assert_eq!(job.attempts[0].receipt.as_ref().unwrap()["outcome"]["reason"], "completed");
    assert_eq!((world.job("chat-1").tokens, world.job("silent").state.as_str()), (100, "provisional"));
    // Keys are known, numbers go on, and what had fallen silent is settled.
    let tokens = Change::ChargeTokens { job: "chat-1".into(), count: 100, by: "root".into(), key: "turn-1".into() };
    assert!(world.change(tokens).unwrap().again);
    let attempt = world.job("silent").attempts[0].identity.attempt;
    let settle = Change::Settle { attempt, usage: Some(seconds("1.2")), by: "op".into(), why: "gone".into() };
    world.change(settle).unwrap();
    let (attempt, lease) = world.open("j", None);
    world.finish(attempt, &seconds("0.4"), lease.period);
    world.check();
    // Opening it again changes nothing.
    world.ledger = opened(&path, &world.clock);
    world.check();
}

/// Reports that the next period has begun, again and again; how many periods it gets that way.
fn hurried(world: &mut World, attempt: Uuid, mut lease: Lease) -> i64 {
    let first = lease.period;
    for seq in 1..20 {
        let used = |s: u64| seconds(&(seq * 20_000 + s).to_string());
        let closed = Some(ClosedPeriod { period: lease.period, usage: used(0) });
        let report = super::suite::report(attempt, seq, &used(1), &lease, false);
        let told = Report { period: lease.period + DAY_S, closed, ..report };
        if let Decision::Lease(next) = world.ledger.report(&told).unwrap().decision {
            lease = next;
        }
    }
    (lease.period - first) / DAY_S
}

/// A restore forgets promises of the period that was near, and of no other.
#[test]
fn a_recovery_moves_no_account_on_and_on() {
    for (before_midnight_s, periods) in [(DAY_S / 2, 0), (20, 1)] {
        let mut world = World::with_limit("5");
        world.pass_s(DAY_S / 2 - before_midnight_s);
        let (attempt, lease) = world.open("j", None);
        world.copy();
        world.restore();
        assert_eq!(hurried(&mut world, attempt, lease), periods);
        let spent: i64 = world.usage_of_days().iter().map(|(_, charged, _)| charged).sum();
        assert!(spent <= 5_000_000_000 * (periods + 1), "{spent}");
        world.check();
    }
}

/// Who comes back after a restore does not choose a card of long ago.
#[test]
fn what_a_restore_forgot_is_priced_by_the_newest_card_it_knew() {
    let mut world = World::with_limit("5");
    for (version, price) in [(1, 100_000), (2, 400_000)] {
        let rates = RateCard { version, cpu_per_second: Nanocredits(price), ..RateCard::default() };
        world.change(Change::SetRates { rates, by: "t".into() }).unwrap();
        world.pass_s(3_600);
    }
    world.copy();
    let request = World::request("forgotten", None);
    let OpenAnswer::Opened { lease, .. } = world.ledger.open(&request).unwrap() else { panic!() };
    world.pass_s(2);
    world.restore();
    // It says that it was opened by version 1.
    world.reopen(&request, &lease);
    world.finish(request.identity.attempt, &seconds("1"), lease.period);
    assert_eq!(world.account().current.0, 400_000);
    world.check();
}

/// Whoever brings back what a restore forgot goes on with it, and nobody else does: a spool may have come to another node.
#[test]
fn what_is_opened_again_belongs_to_whoever_brings_it_back() {
    let mut world = World::with_limit("0.01");
    let node = |principal: &str| Asker { principal: principal.to_owned(), reach: Reach::Principal };
    let (first, second) = (node("node-1"), node("node-2"));
    let known = World::request("known", None);
    let by = |world: &mut World, asker: &Asker, operation: Operation<'_>| {
        world.ledger.post(&[Asked { operation, asker }]).unwrap().remove(0)
    };
    let lease_of = |opened: Result<Outcome, LedgerError>| match opened {
        Ok(Outcome::Opened(answer)) => match *answer {
            OpenAnswer::Opened { lease, .. } => lease,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let lease_known = lease_of(by(&mut world, &first, Operation::Open(&known)));
    world.copy();
    let forgotten = World::request("forgotten", None);
    let lease = lease_of(by(&mut world, &first, Operation::Open(&forgotten)));
    world.pass_s(1);
    world.restore();
    let resumed =
        |request: &OpenRequest, lease: &Lease| OpenRequest { resume: Some(resume_of(lease)), ..request.clone() };
    // What the copy knows is its principal's, whoever has its spool.
    let taken = by(&mut world, &second, Operation::Open(&resumed(&known, &lease_known)));
    assert!(matches!(taken, Err(LedgerError::Unknown(_))), "{taken:?}");
    lease_of(by(&mut world, &second, Operation::Open(&resumed(&forgotten, &lease))));
    let last = finish(forgotten.identity.attempt, &seconds("0.1"), lease.period);
    assert!(matches!(by(&mut world, &first, Operation::Finish(&last)), Err(LedgerError::Unknown(_))));
    assert!(by(&mut world, &second, Operation::Finish(&last)).is_ok());
    assert_eq!(world.job("forgotten").principal, "node-2");
    assert!(by(&mut world, &first, Operation::Open(&resumed(&known, &lease_known))).is_ok());
    world.check();
}

/// A copy may have a session that was ended after it was made.
#[test]
fn a_restore_ends_every_session() {
    let mut world = World::new();
    let (id, hash, key) = ("k".to_owned(), "h".to_owned(), NewKey::new("n", Scope::Read, "t"));
    world.change(Change::CreateKey { id, hash, key }).unwrap();
    let token = SessionToken::new();
    world.ledger.begin_session(&token, "k", None).unwrap();
    world.copy();
    world.ledger.end_session(&token).unwrap();
    assert!(opened(&world.path("copy.db"), &world.clock).session(&token).unwrap().is_some());
    world.restore();
    assert_eq!(opened(&world.path("l.db"), &world.clock).session(&token).unwrap(), None);
}

/// Days that were over when the copy was made were forgotten by nobody: no attempt comes back to one of them, however many there are.
#[test]
fn a_recovery_opens_no_day_that_was_over_before_the_copy() {
    let mut world = World::with_limit("0.01");
    world.open("j", None);
    world.copy();
    world.pass_s(1);
    world.restore();
    let before = world.account();
    let today = super::suite::NOON_S - DAY_S / 2;
    for days in 1..20 {
        let request = World::request(&format!("past-{days}"), None);
        let resume = Resume {
            started_ms_ago: 1 << 40,
            rates_version: 1,
            period: today - days * DAY_S,
            ceiling: Nanocredits(10_000_000),
            ceiling_version: 1,
        };
        let answer = world.ledger.open(&OpenRequest { resume: Some(resume), ..request.clone() }).unwrap();
        let OpenAnswer::Opened { lease, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(lease.period, today, "{days}");
        // Nor can it have run since before the copy.
        let absurd = seconds("1000000");
        let charged = world.finish(request.identity.attempt, &absurd, today).charged.total;
        assert!(charged.0 <= 10_000_000, "{charged}");
    }
    let after = world.account();
    assert!(after.charged.0 <= 10_000_000 && after.debt.0 == 0, "{before:?} {after:?}");
    world.check();
}

#[test]
fn nothing_turns_up_for_ever_after_a_restore() {
    let mut world = World::with_limit("0.01");
    let (attempt, lease) = world.open("j", None);
    world.finish(attempt, &seconds("0"), lease.period);
    world.copy();
    world.pass_s(1);
    world.restore();
    let settle = |key: &str| Change::SettleTokens {
        job: "j".into(),
        reservation: Uuid::now_v7(),
        count: 10,
        by: "b".into(),
        key: key.into(),
    };
    let first = settle("a");
    assert_eq!(world.change(first.clone()).unwrap().charged.0, 50_000);
    let Change::SettleTokens { job, reservation, count, by, .. } = first else { panic!() };
    let again = Change::SettleTokens { job, reservation, count, by, key: "another".into() };
    assert!(matches!(world.change(again), Err(LedgerError::Refused(_))), "it is settled once");
    world.pass_s(9 * DAY_S);
    assert!(matches!(world.change(settle("b")), Err(LedgerError::Missing(_))));
    let request = World::request("late", None);
    unknown(world.ledger.open(&OpenRequest { resume: Some(resume_of(&lease)), ..request }));
}
