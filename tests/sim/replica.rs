//! Replicas of the service: each with a connection of its own to the same books, posting in groups, and crashing between
//! any two statements.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jobmeter::ledger::LedgerError;
use jobmeter::ledger::asker::{Asker, Reach};
use jobmeter::ledger::book::{Asked, Operation, Outcome};
use jobmeter::ledger::store::sqlite::Sqlite;
use jobmeter::ledger::store::{Concerned, JobStop, Locked, Monotonic, Row, Store, StoreLedger, Table, Value};
use jobmeter::sys::clock::Clock;

use crate::network::{Message, Packet};

/// No transaction has more statements than this would let through.
const NEVER: i64 = i64::MAX;

/// A store whose process dies when its fuse has burned down; each statement shortens it.
pub(crate) struct Mortal {
    store: Sqlite,
    fuse: Arc<AtomicI64>,
}

fn dead<T>() -> Result<T, LedgerError> {
    Err(LedgerError::Unavailable("the replica has crashed".to_owned()))
}

impl Mortal {
    fn lives(&self) -> Result<(), LedgerError> {
        if self.fuse.load(Ordering::Relaxed) == NEVER {
            return Ok(());
        }
        if self.fuse.fetch_sub(1, Ordering::Relaxed) <= 0 { dead() } else { Ok(()) }
    }
}

impl Store for Mortal {
    fn begin(&mut self) -> Result<i64, LedgerError> {
        self.lives()?;
        self.store.begin()
    }
    fn monotonic(&self) -> Monotonic {
        self.store.monotonic()
    }

    fn begin_reading(&mut self) -> Result<i64, LedgerError> {
        self.lives()?;
        self.store.begin_reading()
    }
    fn lock(&mut self, concerned: &Concerned<'_>) -> Result<Locked, LedgerError> {
        self.lives()?;
        self.store.lock(concerned)
    }
    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, LedgerError> {
        self.lives()?;
        self.store.query(sql, parameters)
    }
    fn write(&mut self, table: &'static Table, rows: Vec<Vec<Value>>) -> Result<(), LedgerError> {
        for row in rows {
            self.lives()?;
            self.store.write(table, vec![row])?;
        }
        Ok(())
    }
    /// It may die before the commit, or after it and before anybody is told.
    fn commit(&mut self) -> Result<(), LedgerError> {
        self.lives()?;
        self.store.commit()?;
        self.lives()
    }
    fn rollback(&mut self) {
        self.store.rollback();
    }
    fn job_stops(&mut self, id: &str) -> Result<Vec<JobStop>, LedgerError> {
        self.lives()?;
        self.store.job_stops(id)
    }
    fn check(&mut self) -> Result<Vec<String>, LedgerError> {
        self.store.check()
    }
}

pub(crate) struct Replica {
    pub ledger: StoreLedger<Mortal>,
    fuse: Arc<AtomicI64>,
    pub down_until_us: u64,
    queue: Vec<Packet>,
    pub post_at_us: Option<u64>,
}

impl Replica {
    pub(crate) fn new(path: &Path, clock: Box<dyn Clock>) -> Self {
        let fuse = Arc::new(AtomicI64::new(NEVER));
        let store = Sqlite::open(path, clock).expect("a replica opens the books");
        let ledger = StoreLedger::new(Mortal { store, fuse: Arc::clone(&fuse) });
        Self { ledger, fuse, down_until_us: 0, queue: Vec::new(), post_at_us: None }
    }

    /// It will die within so many statements.
    pub(crate) fn doom(&self, statements: u64) {
        self.fuse.store(i64::try_from(statements).unwrap(), Ordering::Relaxed);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.fuse.load(Ordering::Relaxed) < 0
    }

    /// Another process takes its place. What it had been asked is lost.
    pub(crate) fn restart(&mut self, down_until_us: u64) {
        self.fuse.store(NEVER, Ordering::Relaxed);
        self.down_until_us = down_until_us;
        self.queue.clear();
        self.post_at_us = None;
    }

    pub(crate) fn take(&mut self, packet: Packet, post_at_us: u64) {
        self.queue.push(packet);
        self.post_at_us.get_or_insert(post_at_us);
    }

    /// Posts what has come together in one transaction; what each was answered, or nothing where it has died.
    pub(crate) fn post(&mut self) -> Vec<(Packet, Result<Outcome, LedgerError>)> {
        self.post_at_us = None;
        let group = std::mem::take(&mut self.queue);
        // All of them work for one cluster, and reach what that has.
        let cluster = Asker { principal: "cluster".to_owned(), reach: Reach::Principal };
        let asked = group.iter().map(|packet| Asked { operation: operation(&packet.message), asker: &cluster });
        let asked: Vec<Asked<'_>> = asked.collect();
        match self.ledger.post(&asked) {
            Ok(outcomes) => {
                drop(asked);
                group.into_iter().zip(outcomes).collect()
            }
            Err(LedgerError::Unavailable(_)) => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn operation(message: &Message) -> Operation<'_> {
    match message {
        Message::Open(request) => Operation::Open(request),
        Message::Report(report) => Operation::Report(report),
        Message::Finish(finish) => Operation::Finish(finish),
        Message::Change(change) => Operation::Change(change),
        Message::Opened(_) | Message::Answered(_) | Message::Finished | Message::Changed(_) => {
            panic!("an answer comes to the ledger")
        }
    }
}
