//! The suite on PostgreSQL: a cluster of our own, and a database for each test.

#![allow(clippy::pedantic, clippy::print_stdout, reason = "a test, not an interface")]

#[path = "../../../../tests/cluster.rs"]
mod cluster;
#[path = "../suite/mod.rs"]
mod suite;

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::domain::units::Nanocredits;
use crate::ledger::Ledger;
use crate::ledger::book::{Asked, Operation};
use crate::ledger::protocol::{Decision, OpenAnswer, Report, Resources, StopReason};
use crate::ledger::store::{Patience, StoreLedger};
use crate::ledger::views::{Change, Query, View};

/// The name of a database. It goes with its cluster.
#[derive(Debug)]
struct Place(String);

/// The name of a new database, and its URL.
pub(crate) fn new_database() -> (String, String) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let directory = cluster::start(|url| Postgres::open(url, None).is_ok());
    let name = format!("world_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let mut first = Postgres::open(&cluster::url(directory, "postgres"), None).unwrap();
    first.batch(&format!("CREATE DATABASE {name}")).unwrap();
    let url = cluster::url(directory, &name);
    (name, url)
}

fn store_for_tests(clock: Box<dyn Clock>) -> (Place, Box<dyn Store>) {
    let (name, url) = new_database();
    (Place(name), Box::new(Postgres::open(&url, Some(clock)).unwrap()))
}

fn another_store(place: &Place, clock: Box<dyn Clock>) -> Box<dyn Store> {
    let directory = cluster::start(|url| Postgres::open(url, None).is_ok());
    Box::new(Postgres::open(&cluster::url(directory, &place.0), Some(clock)).unwrap())
}

/// A replica of an older version knows of no revision, nor does a person: what they write is read all the same.
#[test]
fn what_is_written_by_hand_counts() {
    let mut world = suite::World::new();
    let directory = cluster::start(|url| Postgres::open(url, None).is_ok());
    let mut hand = Postgres::open(&cluster::url(directory, &world.place.0), None).unwrap();
    hand.batch("RESET jobmeter.revises").unwrap();
    let (attempt, lease) = world.open("j", None);
    world.report(attempt, 1, &suite::seconds("0.1"), &lease, false);
    hand.batch("UPDATE attempt SET cpu_us = 400000").unwrap();
    world.report(attempt, 2, &suite::seconds("0.2"), &lease, false);
    assert_eq!(world.account().current.0, 100_000);
    hand.batch("UPDATE job SET stopped = 1").unwrap();
    let decision = world.report(attempt, 3, &suite::seconds("0.5"), &lease, false);
    assert_eq!(decision, Decision::Stop(StopReason::OperatorStop));
    world.check();
}

/// As behind a pooler that lends another connection of the server's for each transaction: nothing is written by settings that
/// are not ours, and the next connection is asked anew.
#[test]
fn a_transaction_in_another_session_is_refused() {
    let (_place, url) = new_database();
    let mut store = Postgres::open(&url, None).unwrap();
    store.batch("SET jobmeter.session = 'of somebody else'").unwrap();
    let error = store.begin().unwrap_err();
    assert!(matches!(&error, LedgerError::Refused(why) if why.contains("pool_mode=session")), "{error}");
    store.begin().unwrap();
    store.commit().unwrap();
}

/// A person keeps the row of an account: what concerns it fails, or waits, and all else is posted with its group.
#[test]
fn an_account_that_is_locked_delays_itself_alone() {
    let mut world = suite::World::new();
    let directory = cluster::start(|url| Postgres::open(url, None).is_ok());
    let mut hand = Postgres::open(&cluster::url(directory, &world.place.0), None).unwrap();
    let opened = |world: &mut suite::World, user: &str| {
        let mut request = suite::World::request("j", None);
        request.identity.user = user.into();
        let OpenAnswer::Opened { lease, .. } = world.ledger.open(&request).unwrap() else { panic!() };
        (request.identity.attempt, lease)
    };
    let (locked, others) = (opened(&mut world, "locked"), ["a", "b", "z"].map(|user| opened(&mut world, user)));
    hand.begin().unwrap();
    hand.query("SELECT owner FROM account WHERE owner = 'locked' FOR UPDATE", &[]).unwrap();
    let mut newcomer = suite::World::request("n", None);
    newcomer.identity.user = "new".into();
    for seq in 1..20 {
        let report = |(attempt, lease): &(uuid::Uuid, crate::ledger::protocol::Lease)| {
            suite::report(*attempt, seq, &suite::seconds("0.1"), lease, false)
        };
        let reports: Vec<Report> = others.iter().chain([&locked]).map(report).collect();
        let mut asked: Vec<Asked<'_>> = reports.iter().map(|report| Operation::Report(report).into()).collect();
        asked.push(Operation::Open(&newcomer).into());
        let outcomes = world.ledger.post_with(&asked, Patience::None).unwrap();
        let told: Vec<_> = outcomes.iter().map(|outcome| outcome.is_ok()).collect();
        assert_eq!(told, [true, true, true, false, true], "{outcomes:?}");
        assert!(matches!(&outcomes[3], Err(LedgerError::Locked(owner)) if owner == "locked"));
    }
    let report = suite::report(locked.0, 30, &suite::seconds("0.2"), &locked.1, false);
    let asked = [Asked::from(Operation::Report(&report))];
    assert!(matches!(world.ledger.post_with(&asked, Patience::Short), Err(LedgerError::Locked(_))));
    // Of one that is new, somebody else may keep the name.
    hand.query("SELECT count(pg_advisory_xact_lock(hashtextextended('newer', 0)))", &[]).unwrap();
    newcomer.identity.user = "newer".into();
    newcomer.identity.attempt = uuid::Uuid::now_v7();
    let of_newer = [Asked::from(Operation::Open(&newcomer))];
    let outcomes = world.ledger.post_with(&of_newer, Patience::None).unwrap();
    assert!(matches!(&outcomes[..], [Err(LedgerError::Locked(owner))] if owner == "newer"), "{outcomes:?}");
    hand.rollback();
    assert!(world.ledger.post_with(&of_newer, Patience::None).unwrap()[0].is_ok());
    assert!(world.ledger.post_with(&asked, Patience::Short).unwrap()[0].is_ok());
    world.check();
}

/// Rows are sent as the tables have them, which a newer version may have changed while this one runs.
#[test]
fn a_column_that_a_newer_version_added_is_left_alone() {
    let mut world = suite::World::new();
    let directory = cluster::start(|url| Postgres::open(url, None).is_ok());
    let mut newer = Postgres::open(&cluster::url(directory, &world.place.0), None).unwrap();
    let (attempt, lease) = world.open("j", None);
    world.report(attempt, 1, &suite::seconds("0.1"), &lease, false);
    for table in ["account", "attempt", "entry"] {
        newer.batch(&format!("ALTER TABLE {table} ADD COLUMN later BIGINT NOT NULL DEFAULT 7")).unwrap();
    }
    world.report(attempt, 2, &suite::seconds("0.2"), &lease, false);
    world.finish(attempt, &suite::seconds("0.3"), lease.period);
    assert_eq!(world.account().current.0, 75_000);
    world.check();
    let sql = "SELECT count(*) FROM entry WHERE later <> 7";
    newer.begin_reading().unwrap();
    assert_eq!(newer.query(sql, &[]).unwrap().pop().unwrap().int().unwrap(), 0);
}

/// A store on which something happens between the lock and what is read.
struct Interrupted<F> {
    store: Postgres,
    after_lock: Option<F>,
    locks: u32,
}

impl<F: FnOnce() + Send> Store for Interrupted<F> {
    fn begin(&mut self) -> Result<i64, LedgerError> {
        self.store.begin()
    }
    fn monotonic(&self) -> crate::ledger::store::Monotonic {
        self.store.monotonic()
    }

    fn begin_reading(&mut self) -> Result<i64, LedgerError> {
        self.store.begin_reading()
    }
    fn lock(&mut self, concerned: &Concerned<'_>) -> Result<Locked, LedgerError> {
        let locked = self.store.lock(concerned)?;
        self.locks += 1;
        if let Some(happen) = self.after_lock.take() {
            happen();
        }
        Ok(locked)
    }
    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, LedgerError> {
        self.store.query(sql, parameters)
    }
    fn write(&mut self, table: &'static Table, rows: Vec<Vec<Value>>) -> Result<(), LedgerError> {
        self.store.write(table, rows)
    }
    fn commit(&mut self) -> Result<(), LedgerError> {
        self.store.commit()
    }
    fn rollback(&mut self) {
        self.store.rollback();
    }
    fn job_stops(&mut self, id: &str) -> Result<Vec<JobStop>, LedgerError> {
        self.store.job_stops(id)
    }
    fn check(&mut self) -> Result<Vec<String>, LedgerError> {
        self.store.check()
    }
}

/// Its account was not known at the lock, so that nothing kept others from writing it.
#[test]
fn a_report_that_overtakes_its_opening_writes_nothing_unlocked() {
    let (place, _store) = store_for_tests(Box::new(crate::sys::clock::SystemClock));
    let directory = cluster::start(|url| Postgres::open(url, None).is_ok());
    let connect = || Postgres::open(&cluster::url(directory, &place.0), None).unwrap();
    let request = suite::World::request("j", None);
    let report = Report {
        attempt: request.identity.attempt,
        seq: 1,
        usage: suite::seconds("0.1"),
        period: 0,
        closed: None,
        ceiling_version: 0,
        ceiling: Nanocredits::ZERO,
        resources: request.resources.clone(),
        waiting: false,
        secret: None,
    };
    let mut other = StoreLedger::new(connect());
    let open = || assert!(matches!(other.open(&request).unwrap(), OpenAnswer::Opened { .. }));
    let mut ledger = StoreLedger::new(Interrupted { store: connect(), after_lock: Some(open), locks: 0 });
    assert!(matches!(ledger.report(&report).unwrap().decision, Decision::Lease(_)));
    assert_eq!(ledger.store.locks, 2);
    let View::Verified(found) = ledger.read(&Query::Verify).unwrap() else { panic!() };
    assert_eq!(found.problems, Vec::<String>::new());
}

/// Tokens and a sidecar's reports, limits and looks come by several replicas at once: what one of them reads, no other may
/// change before it has written.
#[test]
fn replicas_never_write_over_each_other() {
    let (place, _store) = store_for_tests(Box::new(crate::sys::clock::SystemClock));
    let directory = cluster::start(|url| Postgres::open(url, None).is_ok());
    let connect = || StoreLedger::new(Postgres::open(&cluster::url(directory, &place.0), None).unwrap());
    let mut ledger = connect();
    let request = suite::World::request("j", None);
    let (attempt, resources) = (request.identity.attempt, request.resources.clone());
    let OpenAnswer::Opened { mut lease, .. } = ledger.open(&request).unwrap() else { panic!() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut ledger = connect();
            for seq in 1..400 {
                // Every second one burns nothing, and only moves what is held.
                let usage = suite::seconds(&format!("{}.0", seq / 2));
                let resources = Resources { cpus_ppm: (1 + seq % 7) * 1_000_000, ..resources.clone() };
                let report = Report { resources, ..suite::report(attempt, seq, &usage, &lease, false) };
                if let Decision::Lease(newer) = ledger.report(&report).unwrap().decision {
                    lease = newer;
                }
            }
        });
        for replica in 0..2 {
            let connect = &connect;
            scope.spawn(move || {
                let mut ledger = connect();
                for at in 0..200 {
                    let key = format!("{replica}-{at}");
                    ledger.change(&Change::ChargeTokens { job: "j".into(), count: 10, by: "t".into(), key }).unwrap();
                    // Somebody looks at an account that nobody knew, while its first job is opened.
                    let user = format!("user-{at}");
                    if replica == 0 {
                        ledger.read(&Query::Account { user }).unwrap();
                    } else {
                        let mut request = suite::World::request(&format!("job-{at}"), None);
                        request.identity.user = user;
                        assert!(matches!(ledger.open(&request).unwrap(), OpenAnswer::Opened { .. }));
                    }
                }
            });
        }
    });
    let View::Verified(found) = ledger.read(&Query::Verify).unwrap() else { panic!() };
    assert_eq!(found.problems, Vec::<String>::new());
    let View::Job(Some(job)) = ledger.read(&Query::Job { job: "j".into() }).unwrap() else { panic!() };
    assert_eq!((job.tokens, job.charged.tokens), (4_000, Nanocredits(20_000_000)));
}

/// The same id for two users' jobs, on two replicas in the same moment: it is one of theirs.
#[test]
fn a_job_that_two_users_make_at_once_is_one_users() {
    let (place, _store) = store_for_tests(Box::new(crate::sys::clock::SystemClock));
    let directory = cluster::start(|url| Postgres::open(url, None).is_ok());
    let connect = || StoreLedger::new(Postgres::open(&cluster::url(directory, &place.0), None).unwrap());
    std::thread::scope(|scope| {
        for user in ["a", "b"] {
            let connect = &connect;
            scope.spawn(move || {
                let mut ledger = connect();
                for at in 0..200 {
                    let mut request = suite::World::request(&format!("job-{at}"), None);
                    request.identity.user = user.into();
                    match ledger.open(&request) {
                        Ok(OpenAnswer::Opened { .. }) | Err(LedgerError::Refused(_)) => {}
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    let mut ledger = connect();
    let View::Verified(found) = ledger.read(&Query::Verify).unwrap() else { panic!() };
    assert_eq!(found.problems, Vec::<String>::new());
    let sql = "SELECT count(*) FROM attempt a WHERE NOT EXISTS (SELECT 1 FROM job j WHERE j.owner = a.owner AND j.principal = a.principal AND \
               j.id = a.job)";
    ledger.store.begin_reading().unwrap();
    let strangers = ledger.store.query(sql, &[]).unwrap().pop().unwrap().int().unwrap();
    assert_eq!(strangers, 0);
}

/// Recovered to a time before the last commits: nothing new is leased until those who run have told what they burned, and
/// who was forgotten is known again.
#[test]
fn a_database_that_lost_commits_begins_an_epoch() {
    let (place, _store) = store_for_tests(Box::new(crate::sys::clock::SystemClock));
    let is_up = |url: &str| Postgres::open(url, None).is_ok();
    let directory = cluster::start(is_up);
    let url = cluster::url(directory, &place.0);
    let mut ledger = StoreLedger::new(Postgres::open(&url, None).unwrap());
    let known = suite::World::request("known", None);
    assert!(matches!(ledger.open(&known).unwrap(), OpenAnswer::Opened { .. }));
    // A connection that was lost, and the same database behind the next.
    ledger.store.client = None;
    assert!(matches!(ledger.open(&suite::World::request("same", None)).unwrap(), OpenAnswer::Opened { .. }));
    let start = cluster::copied(directory, is_up);
    let forgotten = suite::World::request("forgotten", None);
    let OpenAnswer::Opened { lease, .. } = ledger.open(&forgotten).unwrap() else { panic!() };
    let url = cluster::url(&start(), &place.0);
    let mut ledger = StoreLedger::new(Postgres::open(&url, None).unwrap());
    let new = suite::World::request("new", None);
    assert!(matches!(ledger.open(&new).unwrap(), OpenAnswer::Wait { .. }));
    let resume = crate::ledger::protocol::Resume {
        started_ms_ago: 1_000,
        rates_version: 1,
        period: lease.period,
        ceiling: lease.ceiling,
        ceiling_version: lease.version,
    };
    let again = crate::ledger::protocol::OpenRequest { resume: Some(resume), ..forgotten };
    assert!(matches!(ledger.open(&again).unwrap(), OpenAnswer::Opened { again: true, .. }));
    let View::Entries(entries) =
        ledger.read(&Query::Entries { user: String::new(), count_max: 10, before: None }).unwrap()
    else {
        panic!()
    };
    assert_eq!(entries.iter().filter(|entry| entry.kind == "restore").count(), 1, "{entries:?}");
    // The next connection finds what this one has written.
    let mut other = StoreLedger::new(Postgres::open(&url, None).unwrap());
    assert!(matches!(other.open(&new).unwrap(), OpenAnswer::Wait { .. }));
    let View::Verified(found) = other.read(&Query::Verify).unwrap() else { panic!() };
    assert_eq!(found.problems, Vec::<String>::new());
}
