//! Rows are sent to PostgreSQL without waiting for its answer: it writes them while the next ones are put together.

use tokio::task::{JoinHandle, yield_now};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{self, IsNull, ToSql, Type, to_sql_checked};

use super::Postgres;
use super::errors::chain;
use crate::ledger::LedgerError;
use crate::ledger::store::{Mode, Table, Value};

/// Of what is null.
const NULL_LENGTH: [u8; 4] = (-1_i32).to_be_bytes();

/// Rows under way.
pub(super) struct Writing {
    table: &'static str,
    count: u64,
    written: JoinHandle<Result<u64, tokio_postgres::Error>>,
}

/// All rows in one statement, as one array of rows of the table's own type: an array for each column would be unpacked into
/// a set of its own.
fn statement(table: &Table) -> String {
    let name = table.name;
    let new = |column: &str| format!("new.{column}");
    let rows = format!("UNNEST(CAST($1 AS \"{name}\"[])) AS new");
    if table.mode != Mode::Update {
        let columns = table.columns.iter().map(|column| new(column)).collect::<Vec<_>>().join(", ");
        return format!("INSERT INTO {name} ({}) SELECT {columns} FROM {rows}{}", table.names(), table.on_conflict());
    }
    let (keys, others) = table.parts();
    let keys = keys.iter().map(|column| format!("{name}.{column} = {}", new(column))).collect::<Vec<_>>().join(" AND ");
    let sets = others.iter().map(|column| format!("{column} = {}", new(column))).collect::<Vec<_>>().join(", ");
    format!("UPDATE {name} SET {sets} FROM {rows} WHERE {keys}")
}

/// Rows as PostgreSQL takes an array of composites in its binary form: the header of the array, and of each row the number of
/// its fields, and of each field its type, its length and itself. Fields that the table does not write are null.
#[derive(Debug)]
struct Rows {
    table: &'static Table,
    rows: Vec<Vec<Value>>,
}

type Encoded = Result<IsNull, Box<dyn std::error::Error + Sync + Send>>;

/// A length, and what has it.
fn with_length(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> Encoded) -> Encoded {
    let at = out.len();
    out.extend_from_slice(&NULL_LENGTH);
    if let IsNull::No = write(out)? {
        let length = i32::try_from(out.len() - at - NULL_LENGTH.len())?;
        if let Some(place) = out.get_mut(at..at + NULL_LENGTH.len()) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }
    Ok(IsNull::No)
}

impl Rows {
    fn row(&self, fields: &[(&Type, Option<usize>)], row: &[Value], out: &mut BytesMut) -> Encoded {
        out.extend_from_slice(&i32::try_from(fields.len())?.to_be_bytes());
        for (kind, place) in fields {
            out.extend_from_slice(&kind.oid().to_be_bytes());
            let value = place.and_then(|place| row.get(place)).unwrap_or(&Value::Null);
            with_length(out, |out| value.to_sql(kind, out))?;
        }
        Ok(IsNull::No)
    }
}

impl ToSql for Rows {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Encoded {
        let row = if let types::Kind::Array(row) = kind.kind() { row } else { kind };
        let types::Kind::Composite(fields) = row.kind() else { return Err(format!("{kind} has no fields").into()) };
        let place = |name: &str| self.table.columns.iter().position(|column| *column == name);
        let fields: Vec<_> = fields.iter().map(|field| (field.type_(), place(field.name()))).collect();
        // One dimension, no row that is null, and the first of them is number one.
        let (dimensions, has_null, first) = (1_i32, 0_i32, 1_i32);
        for number in [dimensions, has_null, row.oid().cast_signed(), i32::try_from(self.rows.len())?, first] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        for values in &self.rows {
            with_length(out, |out| self.row(&fields, values, out))?;
        }
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        matches!(kind.kind(), types::Kind::Array(row) if matches!(row.kind(), types::Kind::Composite(_)))
    }

    to_sql_checked!();
}

impl Postgres {
    /// Sends them. What becomes of them is told by [`Self::wait_for_writes`], before anything else is asked.
    pub(super) fn send_rows(&mut self, table: &'static Table, rows: Vec<Vec<Value>>) -> Result<(), LedgerError> {
        let statement = self.prepared(&statement(table))?;
        let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        let rows = Rows { table, rows };
        let Some(client) = self.client.clone() else {
            return Err(LedgerError::Unavailable("there is no connection".to_owned()));
        };
        let written = self.runtime.spawn(async move { client.execute(&statement, &[&rows]).await });
        self.writing.push(Writing { table: table.name, count, written });
        // One turn for the statement, and one for the connection that sends it.
        self.runtime.block_on(async {
            yield_now().await;
            yield_now().await;
        });
        Ok(())
    }

    /// The answers to all that was sent; the first error is the one that made the others.
    pub(super) fn wait_for_writes(&mut self) -> Result<(), LedgerError> {
        let mut all = Ok(());
        for Writing { table, count, written } in std::mem::take(&mut self.writing) {
            let told = match self.runtime.block_on(written) {
                Ok(Ok(written)) if written == count => Ok(()),
                // Another transaction made the row for another account, after this one had looked.
                Ok(Ok(_)) => Err(LedgerError::Conflict(format!(
                    "a row of the table {table} was made by somebody else meanwhile"
                ))),
                Ok(Err(error)) if error.code() == Some(&SqlState::DATATYPE_MISMATCH) => {
                    // A newer jobmeter has added a column, and the next connection will be told of it.
                    self.client = None;
                    Err(LedgerError::Conflict(format!(
                        "the table {table} has other columns than it had: {}",
                        chain(&error)
                    )))
                }
                Ok(Err(error)) => Err(error.into()),
                Err(error) => Err(LedgerError::Unavailable(format!("a statement came to no end: {error}"))),
            };
            all = all.and(told);
        }
        all
    }
}
