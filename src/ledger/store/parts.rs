//! What is put together out of several columns of a row, or out of a text of several parts.

use super::row::Row;
use crate::domain::book::Source;
use crate::domain::capacity::Capacity;
use crate::domain::rating::{Price, VirtualTime};
use crate::domain::units::{Microseconds, Nanocredits};
use crate::ledger::LedgerError;
use crate::ledger::book::rows::Hold;

/// `1:25;2:50`: pairs, as ceilings and holds are kept.
fn pairs(text: &str) -> Option<Vec<Vec<i64>>> {
    let items = text.split(';').filter(|item| !item.is_empty());
    items.map(|item| item.split(':').map(|number| number.parse().ok()).collect()).collect()
}

pub(super) fn read_holds(text: &str) -> Result<Vec<Hold>, LedgerError> {
    let damaged = || LedgerError::Broken(format!("the books are damaged: {text:?} are no holds"));
    let holds = pairs(text).ok_or_else(damaged)?;
    let hold = |triple: Vec<i64>| match triple[..] {
        [period, source, amount] => Ok(Hold { period, source: Source(source), amount: Nanocredits(amount) }),
        _ => Err(damaged()),
    };
    holds.into_iter().map(hold).collect()
}

pub(super) fn read_ceilings(text: &str) -> Option<Vec<(u64, Nanocredits)>> {
    let ceiling = |pair: Vec<i64>| match pair[..] {
        [version, ceiling] => Some((u64::try_from(version).unwrap_or(0), Nanocredits(ceiling))),
        _ => None,
    };
    pairs(text)?.into_iter().map(ceiling).collect()
}

pub(super) fn price(row: &mut Row) -> Result<Price, LedgerError> {
    let (cpu, gpu, tokens) = (row.nanocredits()?, row.nanocredits()?, row.nanocredits()?);
    Ok(Price { cpu, gpu, tokens, total: cpu.saturating_add(gpu).saturating_add(tokens) })
}

pub(super) fn virtual_time(row: &mut Row) -> Result<VirtualTime, LedgerError> {
    let (cpu_seconds, gpu_seconds): (Microseconds, Microseconds) = (row.microseconds()?, row.microseconds()?);
    Ok(VirtualTime { cpu_seconds, gpu_seconds, total_seconds: cpu_seconds.saturating_add(gpu_seconds) })
}

pub(super) fn capacity(row: &mut Row) -> Result<Option<Capacity>, LedgerError> {
    let (cpu_us, alive_us, heard_us) = (row.maybe_int()?, row.maybe_int()?, row.maybe_int()?);
    let count = |us: Option<i64>| us.and_then(|us| u64::try_from(us).ok());
    let known = count(cpu_us).zip(count(alive_us)).zip(heard_us);
    Ok(known.map(|((cpu_us, alive_us), heard_us)| Capacity { cpu_us, alive_us, heard_us }))
}
