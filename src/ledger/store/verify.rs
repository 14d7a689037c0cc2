//! `ledger verify`: replays all entries and compares every balance and every sum that is kept beside them.
//!
//! It walks through the tables page by page, and keeps in memory what runs, which is little beside what has ended: however large the books
//! are, it takes no more.

mod replay;

use std::collections::BTreeMap;

use self::replay::{Held, PROBLEMS_MAX, replay};
use super::{Row, Store, Value, load};
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::book::rows::{AccountSums, Attempt, Hold, JobSums};
use crate::ledger::job_name::JobKey;
use crate::ledger::views::Verification;

/// Rows are compared so many at a time.
const PAGE: i64 = 1_000;

/// Sums that what runs says, against which those of the books are held.
#[derive(Default)]
struct Sums {
    accounts: BTreeMap<String, AccountSums>,
    /// Held by the reservations of each.
    jobs: BTreeMap<JobKey, Nanocredits>,
    /// By owner, period and source.
    held: Held,
}

/// Rows of each account, in the order of their names: those of `sql` are of the next so many (`$2`) accounts from `$1` on, whose name comes
/// first. At `{after}` stands whether that one itself is among them.
fn by_accounts(
    store: &mut dyn Store,
    sql: &str,
    mut each: impl FnMut(&str, Row) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let (mut last, mut after) = (String::new(), ">=");
    loop {
        let rows = store.query(&sql.replace("{after}", after), &[last.as_str().into(), PAGE.into()])?;
        if rows.is_empty() {
            return Ok(());
        }
        for mut row in rows {
            last = row.text()?;
            each(&last, row)?;
        }
        after = ">";
    }
}

impl Sums {
    fn hold(&mut self, owner: &str, holds: &[Hold]) {
        for hold in holds {
            // Grants are held whatever the period.
            let period = if hold.source.0 == 0 { hold.period } else { 0 };
            let sum = self.held.entry((owner.to_owned(), period, hold.source.0)).or_default();
            *sum = sum.saturating_add(hold.amount);
        }
    }
}

/// Compares.
pub(super) fn verify(store: &mut dyn Store) -> Result<Verification, LedgerError> {
    let mut found = Verification { problems: store.check()?, ..Verification::default() };
    entries(store, &mut found)?;
    days(store, &mut found)?;
    let mut sums = Sums::default();
    attempts(store, &mut found, &mut sums)?;
    reservations(store, &mut sums)?;
    replay(&mut |sql, parameters| store.query(sql, parameters), &mut found, &sums.held)?;
    accounts(store, &mut found, &sums)?;
    jobs(store, &mut found, &sums)?;
    Ok(found)
}

fn entries(store: &mut dyn Store, found: &mut Verification) -> Result<(), LedgerError> {
    let sql = "SELECT a.owner, a.entries, count(e.number), coalesce(max(e.number), 0) FROM (SELECT owner, entries FROM account WHERE owner \
               {after} $1 ORDER BY owner LIMIT $2) a LEFT JOIN entry e ON e.owner = a.owner GROUP BY a.owner, a.entries ORDER BY a.owner";
    by_accounts(store, sql, |owner, mut row| {
        let (last, count, highest) = (row.int()?, row.int()?, row.int()?);
        found.entries = found.entries.saturating_add(u64::try_from(count).unwrap_or(0));
        if count != last || highest != last {
            found.problems.push(format!("{owner:?} has {count} entries up to number {highest}, of {last}"));
        }
        Ok(())
    })?;
    let sql =
        "SELECT count(*) FROM entry WHERE kind IN ('charge', 'correct', 'tokens') AND cpu + gpu + token <> amount";
    for mut row in store.query(sql, &[])? {
        let wrong = row.int()?;
        if wrong > 0 {
            found.problems.push(format!("in {wrong} charges cpu + gpu + tokens is not the amount"));
        }
    }
    let sql = "SELECT e.owner, e.number, e.previous FROM entry e LEFT JOIN entry p ON p.owner = e.owner AND p.number = \
               e.previous WHERE e.previous IS NOT NULL AND (p.attempt IS NULL OR p.attempt <> e.attempt OR p.number >= \
               e.number) ORDER BY e.owner, e.number LIMIT 10";
    for mut row in store.query(sql, &[])? {
        let (owner, number, previous) = (row.text()?, row.int()?, row.int()?);
        found.problems.push(format!("{owner}: the entry {number} follows {previous}, which is none of its attempt"));
    }
    Ok(())
}

/// The sums by which reports are made.
fn days(store: &mut dyn Store, found: &mut Verification) -> Result<(), LedgerError> {
    let columns = ["amount", "cpu", "gpu", "token", "cpu_us", "gpu_us", "tokens"];
    let differs = columns.map(|column| format!("d.{column} <> e.{column}")).join(" OR ");
    let sums = columns.map(|column| format!("CAST(sum({column}) AS BIGINT) AS {column}")).join(", ");
    let of_entries = format!(
        "(SELECT owner, day, {sums} FROM entry WHERE kind IN ('charge', 'correct', 'tokens') GROUP BY owner, day)"
    );
    for sql in [
        format!(
            "SELECT e.owner, e.day, e.amount, d.amount FROM {of_entries} e LEFT JOIN usage_day d ON d.owner = e.owner \
                 AND d.day = e.day WHERE d.owner IS NULL OR {differs} LIMIT {PROBLEMS_MAX}"
        ),
        format!(
            "SELECT d.owner, d.day, 0, d.amount FROM usage_day d WHERE NOT EXISTS (SELECT 1 FROM entry e WHERE e.owner = \
             d.owner AND e.day = d.day AND e.kind IN ('charge', 'correct', 'tokens')) LIMIT {PROBLEMS_MAX}"
        ),
    ] {
        for mut row in store.query(&sql, &[])? {
            let (owner, day) = (row.text()?, row.int()?);
            let (said, kept) = (row.nanocredits()?, row.maybe_nanocredits()?.unwrap_or_default());
            found.problems.push(format!("{owner}, day {day}: {kept} credits are summed up, the entries say {said}"));
        }
    }
    Ok(())
}

fn attempts(store: &mut dyn Store, found: &mut Verification, sums: &mut Sums) -> Result<(), LedgerError> {
    let mut cards = load::Cards::default();
    let mut last = String::new();
    loop {
        let page = load::attempts_after(store, &last, PAGE, &mut cards)?;
        let Some(end) = page.last().filter(|_| found.problems.len() < PROBLEMS_MAX) else { return Ok(()) };
        last = end.id.to_string();
        for attempt in &page {
            found.attempts = found.attempts.saturating_add(1);
            compare(store, attempt, &mut found.problems)?;
            // One that has ended adds nothing.
            let (of_attempt, none) = (attempt.account_sums(), AccountSums::default());
            if of_attempt != none {
                let account = sums.accounts.entry(attempt.owner.clone()).or_default();
                *account = account.exchanged(&none, &of_attempt)?;
            }
            sums.hold(&attempt.owner, &attempt.holds);
        }
    }
}

fn reservations(store: &mut dyn Store, sums: &mut Sums) -> Result<(), LedgerError> {
    let mut cards = load::Cards::default();
    for reservation in load::open_reservations(store, &mut cards)? {
        sums.hold(&reservation.job.owner, &reservation.holds);
        let held = sums.jobs.entry(reservation.job).or_default();
        *held = held.saturating_add(Hold::sum(&reservation.holds));
    }
    Ok(())
}

fn compare(store: &mut dyn Store, attempt: &Attempt, problems: &mut Vec<String>) -> Result<(), LedgerError> {
    let mut wrong = |what: String| problems.push(format!("attempt {}: {what}", attempt.id));
    let replayed =
        load::paid(store, attempt)?.iter().fold(Nanocredits::ZERO, |sum, paid| sum.saturating_add(paid.amount));
    let charged = attempt.charged.total;
    if replayed != charged {
        wrong(format!("{charged} credits are booked as charged, the entries say {replayed}"));
    }
    let accounted = attempt.accounted.total;
    if charged.saturating_add(attempt.overshoot) != accounted {
        wrong(format!("charged {charged} and overshoot {} are not the {accounted} accounted for", attempt.overshoot));
    }
    let held = attempt.held(attempt.period);
    let unburned = if attempt.ended_us.is_some() {
        Nanocredits::ZERO
    } else {
        attempt.ceiling().saturating_sub(accounted).at_least_zero()
    };
    if held != unburned {
        wrong(format!("{held} credits are held, its ceiling leaves {unburned}"));
    }
    Ok(())
}

fn accounts(store: &mut dyn Store, found: &mut Verification, sums: &Sums) -> Result<(), LedgerError> {
    let sql = "SELECT owner, live, beyond, silent, rate FROM account WHERE owner {after} $1 ORDER BY owner LIMIT $2";
    by_accounts(store, sql, |owner, mut row| {
        let (live, beyond, silent, rate) = (row.int()?, row.nanocredits()?, row.nanocredits()?, row.nanocredits()?);
        let kept = AccountSums { live, beyond, silent, rate, waits_until_us: 0, silent_from_us: 0 };
        let said = sums.accounts.get(owner).copied().unwrap_or_default();
        if kept != said {
            found.problems.push(format!("{owner}: the sums over its attempts are {said:?}, and booked are {kept:?}"));
        }
        Ok(())
    })
}

/// The sums of jobs with a limit of their own, which are kept for them alone.
fn jobs(store: &mut dyn Store, found: &mut Verification, sums: &Sums) -> Result<(), LedgerError> {
    let mut cards = load::Cards::default();
    let sql = "SELECT owner, principal, id, charged, held, beyond FROM job WHERE credit_limit IS NOT NULL AND (owner, principal, id) > ($1, \
               $2, $3) ORDER BY owner, principal, id LIMIT $4";
    let mut last = JobKey { owner: String::new(), principal: String::new(), id: String::new() };
    loop {
        let after = [last.owner.as_str(), &last.principal, &last.id].map(Value::from);
        let rows = store.query(sql, &[after.as_slice(), &[PAGE.into()]].concat())?;
        if rows.is_empty() {
            return tokens(store, found);
        }
        for mut row in rows {
            last = JobKey { owner: row.text()?, principal: row.text()?, id: row.text()? };
            let kept = JobSums { charged: row.nanocredits()?, held: row.nanocredits()?, beyond: row.nanocredits()? };
            let held = sums.jobs.get(&last).copied().unwrap_or_default();
            let mut said = JobSums { held, ..JobSums::default() };
            for attempt in load::attempts_of(store, &last, &mut cards)? {
                said = said.exchanged(&JobSums::default(), &attempt.job_sums())?;
            }
            if kept != said {
                let JobKey { owner, id, .. } = &last;
                found.problems.push(format!(
                    "job {id} of {owner}: the sums over its attempts are {said:?}, and booked are {kept:?}"
                ));
            }
        }
    }
}

/// What an account paid for tokens of a job. An entry names it by its id: those of several principals are compared together.
fn tokens(store: &mut dyn Store, found: &mut Verification) -> Result<(), LedgerError> {
    let sql = format!(
        "SELECT owner, id, tokens, said FROM (SELECT j.owner, j.id, j.tokens, (SELECT CAST(coalesce(sum(amount), 0) AS BIGINT) FROM entry e \
         WHERE e.owner || '' = j.owner || '' AND e.job = j.id AND e.previous IS NULL AND e.kind = 'tokens') AS said FROM (SELECT owner, id, \
         CAST(sum(tokens_charged) AS BIGINT) AS tokens FROM job GROUP BY owner, id) j) compared WHERE tokens <> said ORDER BY owner, id \
         LIMIT {PROBLEMS_MAX}"
    );
    for mut row in store.query(&sql, &[])? {
        let (owner, id, tokens, replayed) = (row.text()?, row.text()?, row.nanocredits()?, row.nanocredits()?);
        found.problems.push(format!(
            "job {id} of {owner}: {tokens} credits are booked for its tokens, the entries say {replayed}"
        ));
    }
    Ok(())
}
