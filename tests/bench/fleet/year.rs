//! Fills a ledger with a past, before a service is started on it: a year of usage, and attempts that fell silent an hour ago.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jobmeter::ledger::attempt_secret::AttemptSecret;
use jobmeter::ledger::book::{Asked, Operation};
use jobmeter::ledger::location::Location;
use jobmeter::ledger::protocol::{OpenRequest, Resources};
use jobmeter::ledger::store::{Concerned, JobStop, Locked, Monotonic, Row, Store, StoreLedger, Table, Value};
use jobmeter::ledger::views::{Change, PeriodLength};
use jobmeter::ledger::{Interrupter, LedgerError};
use jobmeter::sys::clock::{Clock, SystemClock};
use uuid::Uuid;

use crate::sidecar::identity;

const DAY_US: i64 = 86_400_000_000;
const HOUR_US: i64 = 3_600_000_000;
const GROUP: usize = 500;
/// Tokens of a job and day.
const TOKENS: u64 = 1_000;

/// A store whose clock stands where it was set.
struct Dated {
    store: Box<dyn Store>,
    now_us: Arc<AtomicI64>,
}

impl Store for Dated {
    fn begin(&mut self) -> Result<i64, LedgerError> {
        self.store.begin()?;
        Ok(self.now_us.load(Ordering::Relaxed))
    }
    fn monotonic(&self) -> Monotonic {
        self.store.monotonic()
    }
    fn begin_reading(&mut self) -> Result<i64, LedgerError> {
        self.store.begin_reading()?;
        Ok(self.now_us.load(Ordering::Relaxed))
    }
    fn lock(&mut self, concerned: &Concerned<'_>) -> Result<Locked, LedgerError> {
        self.store.lock(concerned)
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
    fn interrupter(&self) -> Option<Interrupter> {
        self.store.interrupter()
    }
    fn job_stops(&mut self, id: &str) -> Result<Vec<JobStop>, LedgerError> {
        self.store.job_stops(id)
    }
    fn check(&mut self) -> Result<Vec<String>, LedgerError> {
        self.store.check()
    }
}

fn opening(job: &str, account: &str) -> OpenRequest {
    let identity = identity(Uuid::now_v7(), job, account);
    let resources = Resources { cpus_ppm: 1_000_000, gpus: 0, gpu_models: BTreeMap::new(), stop_us: 7_000 };
    OpenRequest { identity, resources, limit: None, resume: None, secret: Some(AttemptSecret::new()) }
}

struct Past {
    ledger: StoreLedger<Dated>,
    now_us: Arc<AtomicI64>,
}

impl Past {
    fn post(&mut self, operations: &[Operation<'_>]) {
        for group in operations.chunks(GROUP) {
            let asked: Vec<Asked<'_>> = group.iter().map(|operation| (*operation).into()).collect();
            for outcome in self.ledger.post(&asked).expect("the ledger takes a group") {
                outcome.expect("the ledger takes each of it");
            }
        }
    }

    fn change(&mut self, changes: &[Change]) {
        self.post(&changes.iter().map(Operation::Change).collect::<Vec<_>>());
    }

    fn open(&mut self, requests: &[OpenRequest]) {
        self.post(&requests.iter().map(Operation::Open).collect::<Vec<_>>());
    }
}

/// `accounts` that used tokens on each of the last `days`, and `silent` attempts of the account `of`.
pub(crate) fn fill(location: &Location, accounts: u64, days: i64, silent: u64, of: &str) {
    let today_us = SystemClock.realtime_us();
    let now_us = Arc::new(AtomicI64::new(today_us - days * DAY_US));
    let store = Dated { store: location.store().expect("the ledger opens"), now_us: Arc::clone(&now_us) };
    let mut past = Past { ledger: StoreLedger::new(store), now_us };
    let name = |at: u64| format!("year-{at}");
    let limits = (0..accounts).map(name).chain([of.to_owned()]);
    past.change(&limits.map(|account| Change::limit(&account, None, PeriodLength::Month, "load")).collect::<Vec<_>>());
    past.open(&(0..accounts).map(|at| opening(&name(at), &name(at))).collect::<Vec<_>>());
    for day in (0..days).rev() {
        past.now_us.store(today_us - day * DAY_US - HOUR_US, Ordering::Relaxed);
        let charged = |at: u64| {
            let (job, key) = (name(at).as_str().into(), format!("{at} {day}"));
            Change::ChargeTokens { job, count: TOKENS, by: "load".to_owned(), key }
        };
        past.change(&(0..accounts).map(charged).collect::<Vec<_>>());
    }
    past.open(&(0..silent).map(|at| opening(&format!("silent-{at}"), of)).collect::<Vec<_>>());
}
