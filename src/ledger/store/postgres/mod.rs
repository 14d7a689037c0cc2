//! The ledger on PostgreSQL: any number of replicas of the service on one database.
//!
//! A transaction locks the rows of its accounts before it reads what it will write (see [`lock`]);
//! whatever came in the way all the same (a new account made twice, a deadlock over a job) is tried again. The clock is
//! the database's.

mod errors;
mod lock;
mod place;
mod session;
mod target;
mod tls;
mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use self::lock::{LOCK_TIMEOUT, Owners};
use self::session::{SessionMark, no_session};
pub use self::target::without_password;
use self::target::{Environment, Target};
use self::write::Writing;
use super::{ADDED, Concerned, JobStop, Locked, MIGRATIONS, Monotonic, NAMES_VERSION, Row, Store, Table, Value};
use crate::domain::user_name::folded;
use crate::ledger::{Interrupter, LedgerError};
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::process::boot_id;

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// "JBMT": whoever migrates holds this lock.
const MIGRATION_LOCK: i64 = 0x4a42_4d54;
/// What the tables have on PostgreSQL alone, with each version: entries cannot be changed, rows that are written again and
/// again find room beside their old versions, and the database knows where it is (see [`place`]).
const EXTRAS: [&str; MIGRATIONS.len()] = [
    "
    CREATE FUNCTION entries_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'entries are append-only'; END $$;
    CREATE TRIGGER entry_append_only BEFORE UPDATE OR DELETE ON entry
        FOR EACH ROW EXECUTE FUNCTION entries_are_append_only();
    ALTER TABLE attempt SET (fillfactor = 50);
    ALTER TABLE account SET (fillfactor = 50);
    ALTER TABLE period SET (fillfactor = 50);
    ALTER TABLE job SET (fillfactor = 50);",
    "ALTER TABLE reservation SET (fillfactor = 50);
    CREATE TABLE jobmeter_place (one INT PRIMARY KEY CHECK (one = 1), place TEXT NOT NULL);",
    "ALTER TABLE usage_day SET (fillfactor = 50);",
    "",
    // A replica of a version before, or a person, does not know that an account has a revision.
    "
    CREATE FUNCTION account_is_revised() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN UPDATE account SET revision = revision + 1 WHERE owner = NEW.owner; RETURN NULL; END $$;
    CREATE TRIGGER attempt_revises AFTER INSERT OR UPDATE ON attempt FOR EACH ROW
        WHEN (current_setting('jobmeter.revises', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION account_is_revised();
    CREATE TRIGGER job_revises AFTER INSERT OR UPDATE ON job FOR EACH ROW
        WHEN (current_setting('jobmeter.revises', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION account_is_revised();",
    "",
    "",
    "
    CREATE TRIGGER job_revises AFTER INSERT OR UPDATE ON job FOR EACH ROW
        WHEN (current_setting('jobmeter.revises', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION account_is_revised();
    ALTER TABLE job SET (fillfactor = 50);",
    "",
    "",
    "",
];

/// A connection to a database.
pub struct Postgres {
    runtime: Runtime,
    target: Arc<Target>,
    client: Option<Arc<Client>>,
    statements: HashMap<String, Statement>,
    /// Of the session of `client`.
    mark: SessionMark,
    /// Instead of the database's.
    clock: Option<Box<dyn Clock>>,
    /// It is not known yet whether this connection leads to the database that it led to before.
    is_new: bool,
    /// Of what this connection has asked for.
    owners: Owners,
    /// Sent, and not answered yet.
    writing: Vec<Writing>,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("hosts", &self.target.config.get_hosts()).finish_non_exhaustive()
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut tokio_postgres::types::private::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) if *kind == Type::INT4 => i32::try_from(*number)?.to_sql(kind, out),
            Self::Int(number) => number.to_sql(kind, out),
            Self::Text(text) => text.to_sql(kind, out),
            Self::Texts(texts) => texts.to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT8, Type::INT4, Type::TEXT, Type::VARCHAR, Type::TEXT_ARRAY].contains(kind)
    }

    to_sql_checked!();
}

/// What [`Value`] is read from.
struct Read(Value);

impl<'a> FromSql<'a> for Read {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(match *kind {
            Type::INT8 => Value::Int(i64::from_sql(kind, raw)?),
            Type::INT4 => Value::Int(i32::from_sql(kind, raw)?.into()),
            Type::BOOL => Value::Int(bool::from_sql(kind, raw)?.into()),
            _ => Value::Text(String::from_sql(kind, raw)?),
        }))
    }

    fn from_sql_null(_kind: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Value::Null))
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT8, Type::INT4, Type::BOOL, Type::TEXT, Type::VARCHAR, Type::NAME].contains(kind)
    }
}

impl Postgres {
    /// Connects, and makes or brings forward the tables. `clock` stands for the database's where one is given.
    ///
    /// # Errors
    /// Where the location cannot be understood, the database does not answer or is behind a pooler that breaks sessions, or its
    /// tables are of a newer version.
    pub fn open(url: &str, clock: Option<Box<dyn Clock>>) -> Result<Self, LedgerError> {
        let mut target = Target::new(url, &Environment::of_process())?;
        target.config.connect_timeout(CONNECT_MAX).application_name("jobmeter");
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| LedgerError::Unavailable(format!("no event loop can be made: {error}")))?;
        let (client, statements, is_new) = (None, HashMap::new(), true);
        let (owners, writing) = (Owners::default(), Vec::new());
        let mark = SessionMark::new();
        let target = Arc::new(target);
        let mut postgres = Self { runtime, target, client, statements, mark, clock, is_new, owners, writing };
        postgres.refuse_without_sessions()?;
        postgres.migrate()?;
        Ok(postgres)
    }

    /// Refuses a pooler that would break sessions.
    fn refuse_without_sessions(&mut self) -> Result<(), LedgerError> {
        self.connected()?;
        let Some(client) = self.client.clone() else { return Ok(()) };
        let is_shared = session::is_shared(&client, &self.mark, &self.target);
        if self.runtime.block_on(is_shared) { Err(no_session()) } else { Ok(()) }
    }

    /// The connection, made anew where it was lost.
    fn connected(&mut self) -> Result<&Client, LedgerError> {
        if self.client.as_ref().is_none_or(|client| client.is_closed()) {
            self.statements.clear();
            let client = self.runtime.block_on(tls::connect(&self.target))?;
            self.mark = SessionMark::new();
            let settings = "SET statement_timeout = '60s'; SET jobmeter.revises = 'on'; \
                 SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";
            let lock_timeout = format!("SET lock_timeout = '{}ms'", LOCK_TIMEOUT.as_millis());
            let settings = format!("{lock_timeout}; {settings}; {}", self.mark.set());
            self.runtime.block_on(client.batch_execute(&settings))?;
            self.client = Some(Arc::new(client));
            self.is_new = true;
            self.owners = Owners::default();
        }
        self.client.as_deref().ok_or_else(|| LedgerError::Unavailable("there is no connection".to_owned()))
    }

    fn batch(&mut self, sql: &str) -> Result<(), LedgerError> {
        self.connected()?;
        let Some(client) = &self.client else { return Ok(()) };
        Ok(self.runtime.block_on(client.batch_execute(sql))?)
    }

    /// One replica migrates, and the others wait for it.
    fn migrate(&mut self) -> Result<(), LedgerError> {
        self.batch(&format!("BEGIN; SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))?;
        let done = self.migrate_locked();
        self.batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        done
    }

    fn migrate_locked(&mut self) -> Result<(), LedgerError> {
        self.batch("CREATE TABLE IF NOT EXISTS jobmeter_schema (version BIGINT PRIMARY KEY)")?;
        let found = self.query("SELECT coalesce(max(version), 0) FROM jobmeter_schema", &[])?;
        let version = found.into_iter().next().map_or(Ok(0), |mut row| row.count())?;
        let known = u64::try_from(MIGRATIONS.len()).unwrap_or(u64::MAX);
        if version > known {
            return Err(LedgerError::Broken(format!(
                "the database holds a ledger of version {version}, and this jobmeter knows versions up to {known}: use a \
                 newer jobmeter"
            )));
        }
        let migrations = MIGRATIONS.into_iter().zip(EXTRAS);
        for (at, (migration, extras)) in (1_u64..).zip(migrations).filter(|(at, _)| *at > version) {
            self.batch(migration)?;
            self.batch(extras)?;
            if at == NAMES_VERSION {
                self.know_names()?;
            }
            self.batch(&format!("INSERT INTO jobmeter_schema VALUES ({at})"))?;
        }
        for (table, column, kind) in ADDED {
            let look =
                "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = CAST($2 AS TEXT)";
            if self.query(look, &[table.into(), column.into()])?.is_empty() {
                self.batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"))?;
            }
        }
        Ok(())
    }

    /// Whose each name is, of those that are there before the table of names.
    fn know_names(&mut self) -> Result<(), LedgerError> {
        let owners = self.query("SELECT owner FROM account WHERE owner <> '' ORDER BY owner", &[])?;
        let owners = owners.into_iter().map(|mut row| row.text()).collect::<Result<Vec<_>, _>>()?;
        let names = owners.iter().map(|owner| folded(owner)).collect();
        let sql = "INSERT INTO account_name (folded, owner) SELECT folded, owner FROM \
                   UNNEST(CAST($1 AS TEXT[]), CAST($2 AS TEXT[])) AS known (folded, owner) ON CONFLICT DO NOTHING";
        self.query(sql, &[Value::Texts(names), Value::Texts(owners)]).map(|_| ())
    }

    fn prepared(&mut self, sql: &str) -> Result<Statement, LedgerError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let Some(client) = &self.client else {
            return Err(LedgerError::Unavailable("the connection was lost".to_owned()));
        };
        let statement = self.runtime.block_on(client.prepare(sql))?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// One question for the begin, the time and whether the session is ours; on a connection that was closed while it was idle,
    /// again on a new one.
    fn begin_by(&mut self, begin: &str) -> Result<i64, LedgerError> {
        let time = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)";
        let sql = format!("{begin}; SELECT {time}, {}", SessionMark::ASKED);
        self.connected()?;
        let mut answer = self.simple(&sql);
        if answer.is_err() && self.client.as_ref().is_none_or(|client| client.is_closed()) {
            self.connected()?;
            answer = self.simple(&sql);
        }
        let answer = answer?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        if !row.is_some_and(|row| self.mark.is(row.get(1))) {
            self.client = None;
            return Err(no_session());
        }
        if let Some(clock) = &self.clock {
            return Ok(clock.realtime_us());
        }
        let time = row.and_then(|row| row.get(0)?.parse().ok());
        time.ok_or_else(|| LedgerError::Broken("PostgreSQL does not tell the time".to_owned()))
    }

    fn simple(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, LedgerError> {
        let Some(client) = &self.client else {
            return Err(LedgerError::Unavailable("there is no connection".to_owned()));
        };
        Ok(self.runtime.block_on(client.simple_query(sql))?)
    }
}

impl Store for Postgres {
    fn begin(&mut self) -> Result<i64, LedgerError> {
        loop {
            self.connected()?;
            if std::mem::take(&mut self.is_new) {
                let looked = self.look_where_we_are();
                self.is_new = looked.is_err();
                looked?;
            }
            let now_us = self.begin_by("BEGIN")?;
            // A connection that was made anew for it leads nobody knows where.
            if !self.is_new {
                return Ok(now_us);
            }
            self.rollback();
        }
    }

    fn monotonic(&self) -> Monotonic {
        let us = self.clock.as_ref().map_or_else(|| SystemClock.boottime_us(), |clock| clock.boottime_us());
        Monotonic { boot: boot_id(), us }
    }

    fn begin_reading(&mut self) -> Result<i64, LedgerError> {
        self.begin_by("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    }

    fn lock(&mut self, concerned: &Concerned<'_>) -> Result<Locked, LedgerError> {
        self.lock_accounts(concerned)
    }

    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, LedgerError> {
        self.wait_for_writes()?;
        // The one character that PostgreSQL has no text with. Asked, it would take the whole transaction down.
        if parameters.iter().any(Value::has_nul) {
            return Err(LedgerError::Refused("a text may hold no NUL character".to_owned()));
        }
        let statement = self.prepared(sql)?;
        let Some(client) = &self.client else {
            return Err(LedgerError::Unavailable("there is no connection".to_owned()));
        };
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|value| value as _).collect();
        let rows = self.runtime.block_on(client.query(&statement, &parameters))?;
        let read = |row: &tokio_postgres::Row| {
            let values = (0..row.len()).map(|at| row.try_get::<_, Read>(at).map(|read| read.0));
            Ok(Row::new(values.collect::<Result<_, _>>()?))
        };
        rows.iter().map(read).collect()
    }

    fn write(&mut self, table: &'static Table, rows: Vec<Vec<Value>>) -> Result<(), LedgerError> {
        self.send_rows(table, rows)
    }

    fn commit(&mut self) -> Result<(), LedgerError> {
        self.wait_for_writes()?;
        // A connection that was lost under way has rolled back, and must not be made anew for the commit.
        let Some(client) = &self.client else {
            return Err(LedgerError::Unavailable("there is no connection".to_owned()));
        };
        Ok(self.runtime.block_on(client.batch_execute("COMMIT"))?)
    }

    fn rollback(&mut self) {
        self.wait_for_writes().ok();
        let Some(client) = &self.client else { return };
        if self.runtime.block_on(client.batch_execute("ROLLBACK")).is_err() {
            self.client = None;
        }
    }

    fn interrupter(&self) -> Option<Interrupter> {
        let (token, target) = (self.client.as_ref()?.cancel_token(), Arc::clone(&self.target));
        Some(Arc::new(move || tls::cancel(&token, &target)))
    }

    fn job_stops(&mut self, id: &str) -> Result<Vec<JobStop>, LedgerError> {
        self.connected()?;
        let found = self.query(super::STOPPED, &[id.into()])?;
        let read = |mut row: Row| Ok(JobStop { owner: row.text()?, principal: row.text()?, is_stopped: row.flag()? });
        found.into_iter().map(read).collect()
    }

    fn check(&mut self) -> Result<Vec<String>, LedgerError> {
        // PostgreSQL looks after its own pages (data checksums, amcheck).
        Ok(Vec::new())
    }
}

#[cfg(test)]
pub(crate) mod tests;
