//! Rows are sent to PostgreSQL without waiting for its answer: it writes them while the next ones are put together.

use tokio::task::{JoinHandle, yield_now};
use tokio_postgres::types::ToSql;

use super::Postgres;
use crate::ledger::LedgerError;
use crate::ledger::store::table::Kind;
use crate::ledger::store::{Mode, Table, Value};

/// Rows under way.
pub(super) struct Writing {
    table: &'static str,
    count: u64,
    written: JoinHandle<Result<u64, tokio_postgres::Error>>,
}

/// All rows in one statement: a column is an array.
fn statement(table: &Table) -> String {
    let arrays = table.columns.iter().zip(1..).map(|((_, kind), at)| {
        let kind = if *kind == Kind::Int { "BIGINT" } else { "TEXT" };
        format!("CAST(${at} AS {kind}[])")
    });
    let (name, names, arrays) = (table.name, table.names(), arrays.collect::<Vec<_>>().join(", "));
    if table.mode != Mode::Update {
        return format!("INSERT INTO {name} ({names}) SELECT * FROM UNNEST({arrays}){}", table.on_conflict());
    }
    let mut pairs = table.columns.iter().map(|(column, _)| (*column, format!("new.{column}")));
    let key = |(column, new)| format!("{name}.{column} = {new}");
    let keys = pairs.by_ref().take(table.key_count).map(key).collect::<Vec<_>>().join(" AND ");
    let sets = pairs.map(|(column, new)| format!("{column} = {new}")).collect::<Vec<_>>().join(", ");
    format!("UPDATE {name} SET {sets} FROM UNNEST({arrays}) AS new ({names}) WHERE {keys}")
}

impl Postgres {
    /// Sends them. What becomes of them is told by [`Self::wait_for_writes`], before anything else is asked.
    pub(super) fn send_rows(&mut self, table: &'static Table, rows: Vec<Vec<Value>>) -> Result<(), LedgerError> {
        let statement = self.prepared(&statement(table))?;
        let mut columns: Vec<Vec<Value>> = table.columns.iter().map(|_| Vec::with_capacity(rows.len())).collect();
        let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        for row in rows {
            columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        }
        let Some(client) = self.client.clone() else {
            return Err(LedgerError::Unavailable("there is no connection".to_owned()));
        };
        let written = self.runtime.spawn(async move {
            let parameters: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as _).collect();
            client.execute(&statement, &parameters).await
        });
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
                Ok(Err(error)) => Err(error.into()),
                Err(error) => Err(LedgerError::Unavailable(format!("a statement came to no end: {error}"))),
            };
            all = all.and(told);
        }
        all
    }
}
