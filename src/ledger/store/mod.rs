//! Where the books are kept: SQL databases behind one small trait, and everything that both of them share.
//!
//! [`Store`] is a transaction on a database. The statements are the same for all ([`load`], [`save`], [`views`],
//! [`verify`]): 64-bit integers and text only, `$1` for parameters, which appear in their order.

mod alerts;
mod figures;
mod ledger;
pub(super) mod load;
mod parts;
mod plausible;
pub mod postgres;
mod quotas;
mod row;
mod save;
mod sessions;
pub mod sqlite;
mod stops;
mod table;
mod usage;
mod verify;
mod views;

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

/// What the tables became with each version, for every database.
const MIGRATIONS: [&str; 11] = [
    include_str!("migrations/1.sql"),
    include_str!("migrations/2.sql"),
    include_str!("migrations/3.sql"),
    include_str!("migrations/4.sql"),
    include_str!("migrations/5.sql"),
    include_str!("migrations/6.sql"),
    include_str!("migrations/7.sql"),
    include_str!("migrations/8.sql"),
    include_str!("migrations/9.sql"),
    include_str!("migrations/10.sql"),
    include_str!("migrations/11.sql"),
];

/// The migration that makes the table of names, whose rows no SQL can make out of those of accounts.
const NAMES_VERSION: u64 = 9;

/// The exact sum of a column, in two parts that 64 bits hold for 2^31 rows: of the high halves, and of the low ones.
fn wide_sum(column: &str) -> String {
    format!(
        "CAST(coalesce(sum({column} / 4294967296), 0) AS BIGINT), CAST(coalesce(sum({column} % 4294967296), 0) AS BIGINT)"
    )
}

/// What [`wide_sum`] asked for.
fn read_wide(row: &mut Row) -> Result<i128, LedgerError> {
    let (high, low) = (i128::from(row.int()?), i128::from(row.int()?));
    Ok((high << 32) + low)
}

/// Columns that came since, each with its table and its kind. They raise no version: one that does not know them names what
/// it reads and writes, and leaves them as they are, so that replicas of both go on beside each other.
const ADDED: [(&str, &str, &str); 1] = [
    // Of the secret that whoever opens, reports or finishes the attempt shows. NULL where none was shown yet.
    ("attempt", "secret_hash", "TEXT"),
];

/// Whose the jobs of an id are, and whether an operator stopped them or suspended their account.
const STOPPED: &str = "SELECT j.owner, j.principal, CASE WHEN j.stopped <> 0 OR a.suspended <> 0 THEN 1 ELSE 0 END FROM job j JOIN account a \
                       ON a.owner = j.owner WHERE j.id = $1";

pub use self::ledger::StoreLedger;
pub use self::plausible::Monotonic;
pub use self::row::{Row, Value};
pub use self::table::{Mode, Table};
use super::job_name::JobName;
use super::{Interrupter, LedgerError};

/// How long a transaction waits for an account that another session keeps locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patience {
    /// For as long as any statement may take.
    #[default]
    Long,
    /// For a moment, in which another replica commits its group.
    Short,
    /// Not at all: what concerns it is left out.
    None,
}

/// The accounts that a transaction will write: by name, and those of attempts and of jobs.
#[derive(Clone, Debug, Default)]
pub struct Concerned<'a> {
    /// Where one of them is locked.
    pub patience: Patience,
    /// By name. They may be new.
    pub owners: Vec<&'a str>,
    /// Those of these attempts.
    pub attempts: Vec<Uuid>,
    /// Those of the jobs that these names may mean.
    pub jobs: Vec<JobName>,
}

/// What a transaction may write, and whether it is as this store left it.
#[derive(Clone, Debug)]
pub struct Locked {
    /// Of these accounts alone, each with its revision, zero for one that is new; of all where this is `None`.
    pub revisions: Option<HashMap<String, i64>>,
    /// Those that another session keeps locked: nothing of them may be read or written.
    pub busy: HashSet<String>,
    /// An account with the revision that this store gave it last is as this store left it. Where everything is locked,
    /// nobody else has committed anything since.
    pub goes_on: bool,
}

/// What a sidecar is told of a job between two reports, and whom it may be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobStop {
    /// The account that the job is charged to.
    pub owner: String,
    /// The node, cluster or service that opened it.
    pub principal: String,
    /// By an operator; its tasks end with their next report.
    pub is_stopped: bool,
}

/// The same of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptStop {
    /// The one that was asked about.
    pub attempt: Uuid,
    /// The account that it is charged to.
    pub owner: String,
    /// The principal that opened it: a node, a cluster or a service.
    pub principal: String,
    /// An operator stopped its job or suspended the account, or it was ended without its sidecar.
    pub is_stopped: bool,
}

/// A database with at most one transaction under way.
pub trait Store: Send {
    /// Begins a transaction that may write; the ledger's time in it, in µs since 1970.
    ///
    /// # Errors
    /// See [`LedgerError`], as of all others.
    fn begin(&mut self) -> Result<i64, LedgerError>;

    /// The clock that nobody sets, of this machine.
    fn monotonic(&self) -> Monotonic;

    /// Begins a transaction that sees one state of the books, and neither waits for writers nor keeps them waiting.
    ///
    /// # Errors
    /// See [`LedgerError`].
    fn begin_reading(&mut self) -> Result<i64, LedgerError>;

    /// Locks accounts, in the order of their names, where the database lets others write meanwhile. Nothing of an account
    /// may be read before that is written after it, and nothing of any other be written.
    ///
    /// # Errors
    /// See [`LedgerError`].
    fn lock(&mut self, concerned: &Concerned<'_>) -> Result<Locked, LedgerError>;

    /// Reads.
    ///
    /// # Errors
    /// See [`LedgerError`].
    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, LedgerError>;

    /// Writes rows, in one step where the database can.
    ///
    /// # Errors
    /// See [`LedgerError`].
    fn write(&mut self, table: &'static Table, rows: Vec<Vec<Value>>) -> Result<(), LedgerError>;

    /// What was written is durable once this returns.
    ///
    /// # Errors
    /// See [`LedgerError`].
    fn commit(&mut self) -> Result<(), LedgerError>;

    /// Nothing of it was.
    fn rollback(&mut self);

    /// What ends the statement that it is at, for another thread; `None` where nothing does.
    fn interrupter(&self) -> Option<Interrupter> {
        None
    }

    /// Whether the database may have changed since this was asked last.
    fn may_have_changed(&mut self) -> bool {
        true
    }

    /// Whether an operator stopped the jobs of this id: a look that waits for no writer.
    ///
    /// # Errors
    /// See [`LedgerError`].
    fn job_stops(&mut self, id: &str) -> Result<Vec<JobStop>, LedgerError>;

    /// Damage that the database itself finds, one sentence each.
    ///
    /// # Errors
    /// See [`LedgerError`].
    fn check(&mut self) -> Result<Vec<String>, LedgerError>;
}

impl Store for Box<dyn Store> {
    fn begin(&mut self) -> Result<i64, LedgerError> {
        self.as_mut().begin()
    }

    fn monotonic(&self) -> Monotonic {
        self.as_ref().monotonic()
    }

    fn begin_reading(&mut self) -> Result<i64, LedgerError> {
        self.as_mut().begin_reading()
    }

    fn lock(&mut self, concerned: &Concerned<'_>) -> Result<Locked, LedgerError> {
        self.as_mut().lock(concerned)
    }

    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, LedgerError> {
        self.as_mut().query(sql, parameters)
    }

    fn write(&mut self, table: &'static Table, rows: Vec<Vec<Value>>) -> Result<(), LedgerError> {
        self.as_mut().write(table, rows)
    }

    fn commit(&mut self) -> Result<(), LedgerError> {
        self.as_mut().commit()
    }

    fn rollback(&mut self) {
        self.as_mut().rollback();
    }

    fn interrupter(&self) -> Option<Interrupter> {
        self.as_ref().interrupter()
    }

    fn may_have_changed(&mut self) -> bool {
        self.as_mut().may_have_changed()
    }

    fn job_stops(&mut self, id: &str) -> Result<Vec<JobStop>, LedgerError> {
        self.as_mut().job_stops(id)
    }

    fn check(&mut self) -> Result<Vec<String>, LedgerError> {
        self.as_mut().check()
    }
}
