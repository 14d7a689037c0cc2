//! Rows of the books out of a database.

pub(crate) mod silence;
pub(crate) mod whole;

use std::collections::HashMap;

use uuid::Uuid;

use super::parts::{capacity, price, read_ceilings, read_holds, virtual_time};
use super::table::{ACCOUNT, ATTEMPT, GRANT, JOB, KEY, PERIOD, RESERVATION};
pub(crate) use super::usage::{Ahead, booked_ahead};
use super::{Row, Store, Table, Value};
use crate::domain::book::Source;
use crate::domain::rating::RateCard;
use crate::domain::usage::Usage;
use crate::ledger::LedgerError;
use crate::ledger::book::Paid;
use crate::ledger::book::rows::{Account, AccountSums, Attempt, Grant, Job, JobSums, Key, Period, Reservation};
use crate::ledger::job_name::{JobKey, JobName};
use crate::ledger::protocol::{Pace, Reason};

type Loaded<T> = Result<T, LedgerError>;

/// Of those that a name may mean, so many are told.
const NAMED_MAX: i64 = 10;
/// People need to type no more of an id.
const BEGINNING_LETTERS_MIN: usize = 4;

/// Whole rows: what is read has the columns of what is written, in their order.
fn select(table: &Table, which: &str) -> String {
    format!("SELECT {} FROM {} {which}", table.names(), table.name)
}

/// Rows with these ids. A single one is asked for by itself: PostgreSQL goes by what it guesses of an array once it keeps a
/// plan, which may be to read the whole table.
pub(super) fn by_ids(store: &mut dyn Store, select: &str, ids: Vec<String>) -> Loaded<Vec<Row>> {
    match ids.as_slice() {
        [] => Ok(Vec::new()),
        [id] => store.query(&format!("{select} WHERE id = $1"), &[id.as_str().into()]),
        _ => store.query(&format!("{select} WHERE id = ANY($1)"), &[Value::Texts(ids)]),
    }
}

fn one<T>(rows: Vec<Row>, read: impl FnOnce(Row) -> Loaded<T>) -> Loaded<Option<T>> {
    rows.into_iter().next().map(read).transpose()
}

/// The account of an owner.
pub(crate) fn account(store: &mut dyn Store, owner: &str) -> Loaded<Option<Account>> {
    let sql = select(&ACCOUNT, "WHERE owner = $1");
    one(store.query(&sql, &[owner.into()])?, |mut row| {
        let (owner, limit, length) = (row.text()?, row.maybe_nanocredits()?, row.parsed()?);
        let (period, ends) = (row.int()?, row.int()?);
        let (next_set, next_limit, next_length) = (row.flag()?, row.maybe_nanocredits()?, row.maybe_text()?);
        let next_length = next_length.and_then(|length| length.parse().ok()).unwrap_or(length);
        Ok(Account {
            owner,
            limit,
            length,
            period,
            ends,
            next: next_set.then_some((next_limit, next_length)),
            entries: row.int()?,
            sums: AccountSums {
                live: row.int()?,
                beyond: row.nanocredits()?,
                silent: row.nanocredits()?,
                rate: row.nanocredits()?,
                waits_until_us: row.int()?,
                silent_from_us: row.int()?,
            },
            debt: row.nanocredits()?,
            suspended: row.flag()?,
            carries_over: row.flag()?,
            carried_grant: row.maybe_int()?,
            turnover: row.int()?,
            revision: row.int()?,
        })
    })
}

/// Whose a name is, as [`crate::domain::user_name::folded`] makes it.
pub(crate) fn owner_named(store: &mut dyn Store, folded: &str) -> Loaded<Option<String>> {
    one(store.query("SELECT owner FROM account_name WHERE folded = $1", &[folded.into()])?, |mut row| row.text())
}

/// One of its periods.
pub(crate) fn period(store: &mut dyn Store, owner: &str, start: i64) -> Loaded<Option<Period>> {
    let sql = select(&PERIOD, "WHERE owner = $1 AND start = $2");
    one(store.query(&sql, &[owner.into(), start.into()])?, |mut row| {
        Ok(Period {
            owner: row.text()?,
            start: row.int()?,
            ends: row.int()?,
            limit: row.maybe_nanocredits()?,
            taken: row.nanocredits()?,
            charged: row.nanocredits()?,
            held: row.nanocredits()?,
            spent: row.nanocredits()?,
            corrected: row.nanocredits()?,
            alerted: row.int()?,
        })
    })
}

/// From when to when the periods of an account last that overlap these seconds.
pub(crate) fn spans(store: &mut dyn Store, owner: &str, start: i64, ends: i64) -> Loaded<Vec<(i64, i64)>> {
    let sql = "SELECT start, ends FROM period WHERE owner = $1 AND ends > $2 AND start < $3 ORDER BY start";
    let rows = store.query(sql, &[owner.into(), start.into(), ends.into()])?;
    rows.into_iter().map(|mut row| Ok((row.int()?, row.int()?))).collect()
}

fn read_grant(mut row: Row) -> Loaded<Grant> {
    Ok(Grant {
        owner: row.text()?,
        id: row.int()?,
        amount: row.nanocredits()?,
        charged: row.nanocredits()?,
        taken: row.nanocredits()?,
        held: row.nanocredits()?,
        expires_s: row.maybe_int()?,
        revoked_s: row.maybe_int()?,
        why: row.text()?,
    })
}

/// Its grants of which something is held, or left at `now_s`, by their numbers. Each half has an index of its own, so that those that
/// expired or were used up cost nothing.
pub(crate) fn grants(store: &mut dyn Store, owner: &str, now_s: i64) -> Loaded<Vec<Grant>> {
    let held = select(&GRANT, "WHERE owner = $1 AND held > 0");
    let is_good = "charged + taken < amount AND revoked_s IS NULL AND coalesce(expires_s, 9223372036854775807) > $2";
    let good = select(&GRANT, &format!("WHERE owner = $1 AND {is_good}"));
    let sql = format!("{held} UNION {good} ORDER BY id");
    store.query(&sql, &[owner.into(), now_s.into()])?.into_iter().map(read_grant).collect()
}

/// One grant, used up or not.
pub(crate) fn grant(store: &mut dyn Store, owner: &str, id: i64) -> Loaded<Option<Grant>> {
    let sql = select(&GRANT, "WHERE owner = $1 AND id = $2");
    one(store.query(&sql, &[owner.into(), id.into()])?, read_grant)
}

/// A number that none of its grants has had.
pub(crate) fn new_grant_id(store: &mut dyn Store, owner: &str) -> Loaded<i64> {
    let sql = "SELECT coalesce(max(id), 0) FROM credit_grant WHERE owner = $1";
    let last = one(store.query(sql, &[owner.into()])?, |mut row| row.int())?;
    Ok(last.unwrap_or(0).saturating_add(1))
}

/// The values of a key, in the order of its columns.
fn values(JobKey { owner, principal, id }: &JobKey) -> [Value; 3] {
    [owner.as_str().into(), principal.as_str().into(), id.as_str().into()]
}

/// The job of this key, where it is in the books.
pub(crate) fn job(store: &mut dyn Store, key: &JobKey) -> Loaded<Option<Job>> {
    let sql = select(&JOB, "WHERE owner = $1 AND principal = $2 AND id = $3");
    one(store.query(&sql, &values(key))?, read_job)
}

/// Those of these jobs that there are, in no order.
pub(crate) fn jobs(store: &mut dyn Store, keys: &[JobKey]) -> Loaded<Vec<Job>> {
    match keys {
        [] => return Ok(Vec::new()),
        [key] => return Ok(job(store, key)?.into_iter().collect()),
        _ => {}
    }
    let texts = |of: fn(&JobKey) -> &String| {
        let mut texts: Vec<String> = keys.iter().map(of).cloned().collect();
        texts.sort_unstable();
        texts.dedup();
        Value::Texts(texts)
    };
    // By the index of ids, whatever a planner makes of the owners: one may have a hundred thousand jobs.
    let sql = select(&JOB, "WHERE id = ANY($1) AND owner || '' = ANY($2)");
    let rows = store.query(&sql, &[texts(|key| &key.id), texts(|key| &key.owner)])?;
    let found = rows.into_iter().map(read_job).collect::<Loaded<Vec<_>>>()?;
    Ok(found.into_iter().filter(|job| keys.contains(&job.key)).collect())
}

fn read_job(mut row: Row) -> Loaded<Job> {
    Ok(Job {
        key: JobKey { owner: row.text()?, principal: row.text()?, id: row.text()? },
        kind: row.parsed()?,
        name: row.maybe_text()?,
        limit: row.maybe_nanocredits()?,
        started_us: row.int()?,
        stopped: row.flag()?,
        tokens: row.count()?,
        tokens_charged: row.nanocredits()?,
        tokens_overshoot: row.nanocredits()?,
        sums: JobSums { charged: row.nanocredits()?, held: row.nanocredits()?, beyond: row.nanocredits()? },
    })
}

/// Jobs that are of the name's account and principal, and of which `condition` holds for the text `$1`.
fn keys_where(store: &mut dyn Store, name: &JobName, condition: &str, order: &str) -> Loaded<Vec<JobKey>> {
    let (mut conditions, mut parameters) = (vec![condition.to_owned()], vec![Value::from(name.id.as_str())]);
    for (column, value) in [("owner", &name.user), ("principal", &name.principal)] {
        if let Some(value) = value {
            parameters.push(value.as_str().into());
            conditions.push(format!("{column} = ${}", parameters.len()));
        }
    }
    parameters.push(NAMED_MAX.into());
    let (conditions, limit) = (conditions.join(" AND "), parameters.len());
    let sql = format!("SELECT owner, principal, id FROM job WHERE {conditions} ORDER BY {order} LIMIT ${limit}");
    let rows = store.query(&sql, &parameters)?;
    rows.into_iter().map(|mut row| Ok(JobKey { owner: row.text()?, principal: row.text()?, id: row.text()? })).collect()
}

/// Those that a name means by its whole id, in the order of their keys; of many the first ones.
pub(crate) fn jobs_named(store: &mut dyn Store, name: &JobName) -> Loaded<Vec<JobKey>> {
    keys_where(store, name, "id = $1", "owner, principal")
}

/// Those whose ids begin as the name's, if it has enough letters, in the order of their ids; of many the first ones.
pub(crate) fn jobs_beginning(store: &mut dyn Store, name: &JobName) -> Loaded<Vec<JobKey>> {
    if name.id.chars().count() < BEGINNING_LETTERS_MIN {
        return Ok(Vec::new());
    }
    keys_where(store, name, "substr(id, 1, length($1)) = $1", "id, owner, principal")
}

/// All but its card, of which the row has the version.
fn read_attempt(mut row: Row) -> Loaded<Attempt> {
    let row = &mut row;
    let damaged = |what: &str| LedgerError::Broken(format!("the books are damaged: {what} of an attempt"));
    let (id, job, owner) = (row.parsed()?, row.text()?, row.text()?);
    let (period, started_us, lease_until_us, live) = (row.int()?, row.int()?, row.int()?, row.flag()?);
    let (ended_us, reason, told, seq) = (row.maybe_int()?, row.maybe_text()?, row.flag()?, row.count()?);
    let rates = RateCard { version: row.count()?, ..RateCard::default() };
    let pace = Pace { cpus_ppm: row.count()?, gpus_ppm: row.count()?, stop_us: row.count()? };
    let (cpu_used_seconds, cpu_allocated_seconds) = (row.microseconds()?, row.microseconds()?);
    let gpus = match row.maybe_text()? {
        Some(text) => serde_json::from_str(&text).map_err(|_| damaged("the GPU usage"))?,
        None => std::collections::BTreeMap::new(),
    };
    let (tokens, told_tokens) = (row.count()?, row.count()?);
    let usage = Usage { cpu_used_seconds, cpu_allocated_seconds, gpus, tokens };
    let accounted = price(row)?;
    let accounted_time = virtual_time(row)?;
    let charged = price(row)?;
    let overshoot = row.nanocredits()?;
    let ceilings = read_ceilings(&row.text()?).ok_or_else(|| damaged("the ceilings"))?;
    let holds = read_holds(&row.text()?)?;
    let next = row.maybe_int()?.zip(row.maybe_nanocredits()?);
    Ok(Attempt {
        id,
        job,
        owner,
        period,
        started_us,
        lease_until_us,
        live,
        ended_us,
        reason: reason.as_deref().and_then(Reason::named),
        told,
        seq,
        rates,
        pace,
        usage,
        told_tokens,
        accounted,
        accounted_time,
        charged,
        overshoot,
        ceilings,
        holds,
        next,
        waits: row.flag()?,
        rate: row.nanocredits()?,
        rate_since_us: row.int()?,
        rate_from: row.nanocredits()?,
        last_entry: row.int()?,
        secret: row.maybe_text()?.map(|text| text.parse().map_err(|_| damaged("the secret"))).transpose()?,
        capacity: capacity(row)?,
        principal: row.text()?,
    })
}

fn read_attempts(store: &mut dyn Store, rows: Vec<Row>, cards: &mut Cards) -> Loaded<Vec<Attempt>> {
    let read = |row| {
        let attempt = read_attempt(row)?;
        Ok(Attempt { rates: cards.of(store, attempt.rates.version)?, ..attempt })
    };
    rows.into_iter().map(read).collect()
}

/// All attempts of a job, oldest first.
pub(crate) fn attempts_of(store: &mut dyn Store, job: &JobKey, cards: &mut Cards) -> Loaded<Vec<Attempt>> {
    let sql = select(&ATTEMPT, "WHERE owner = $1 AND principal = $2 AND job = $3 ORDER BY started_us, id");
    let rows = store.query(&sql, &values(job))?;
    read_attempts(store, rows, cards)
}

/// The ids of all attempts of a job.
pub(crate) fn attempt_ids_of(store: &mut dyn Store, job: &JobKey) -> Loaded<Vec<Uuid>> {
    let sql = "SELECT id FROM attempt WHERE owner = $1 AND principal = $2 AND job = $3";
    store.query(sql, &values(job))?.into_iter().map(|mut row| row.parsed()).collect()
}

/// Those of these attempts that there are, in no order.
pub(crate) fn attempts(store: &mut dyn Store, ids: &[Uuid], cards: &mut Cards) -> Loaded<Vec<Attempt>> {
    let rows = by_ids(store, &select(&ATTEMPT, ""), ids.iter().map(Uuid::to_string).collect())?;
    read_attempts(store, rows, cards)
}

/// So many, in the order of their ids, from behind this one on.
pub(crate) fn attempts_after(store: &mut dyn Store, id: &str, count: i64, cards: &mut Cards) -> Loaded<Vec<Attempt>> {
    let sql = select(&ATTEMPT, "WHERE id > $1 ORDER BY id LIMIT $2");
    let rows = store.query(&sql, &[id.into(), count.into()])?;
    read_attempts(store, rows, cards)
}

fn read_reservation(store: &mut dyn Store, mut row: Row, cards: &mut Cards) -> Loaded<Reservation> {
    let (id, job, owner) = (row.parsed()?, row.text()?, row.text()?);
    Ok(Reservation {
        id,
        job: JobKey { owner, principal: row.text()?, id: job },
        tokens: row.count()?,
        rates: cards.of(store, row.count()?)?,
        until_us: row.int()?,
        holds: read_holds(&row.text()?)?,
        open: row.flag()?,
        settled_us: row.maybe_int()?,
        used: row.count()?,
    })
}

/// A reservation of tokens, open or over.
pub(crate) fn reservation(store: &mut dyn Store, id: Uuid, cards: &mut Cards) -> Loaded<Option<Reservation>> {
    Ok(reservations(store, &[id], cards)?.pop())
}

/// Those of these reservations that there are, in no order.
pub(crate) fn reservations(store: &mut dyn Store, ids: &[Uuid], cards: &mut Cards) -> Loaded<Vec<Reservation>> {
    let rows = by_ids(store, &select(&RESERVATION, ""), ids.iter().map(Uuid::to_string).collect())?;
    rows.into_iter().map(|row| read_reservation(store, row, cards)).collect()
}

/// All that hold something.
pub(crate) fn open_reservations(store: &mut dyn Store, cards: &mut Cards) -> Loaded<Vec<Reservation>> {
    let sql = select(&RESERVATION, "WHERE open = 1 ORDER BY id");
    let rows = store.query(&sql, &[])?;
    rows.into_iter().map(|row| read_reservation(store, row, cards)).collect()
}

/// The ids of those reservations of a job that hold something.
pub(crate) fn open_reservations_of(store: &mut dyn Store, job: &JobKey) -> Loaded<Vec<Uuid>> {
    let sql = "SELECT id FROM reservation WHERE owner = $1 AND principal = $2 AND job = $3 AND open = 1";
    store.query(sql, &values(job))?.into_iter().map(|mut row| row.parsed()).collect()
}

/// What each entry of an attempt says, by `select`: of `number`, `at_us`, `kind`, `period`, `day`, `source`, `amount` of the
/// table `found`.
pub(crate) fn entries_of(store: &mut dyn Store, attempt: &Attempt, select: &str) -> Loaded<Vec<Row>> {
    // SQLite joins in this order where it is told to cross. The owner of entries of before stands as their index has it.
    let columns = "e.number, e.previous, e.at_us, e.kind, e.period, e.day, e.source, e.amount";
    let sql = format!(
        "WITH RECURSIVE chain (number, previous, at_us, kind, period, day, source, amount) AS (\
           SELECT {columns} FROM entry e WHERE e.owner = $1 AND e.number = $2 AND e.previous IS NOT NULL UNION ALL \
           SELECT {columns} FROM chain CROSS JOIN entry e \
           WHERE e.owner = $1 AND e.number = chain.previous AND e.previous IS NOT NULL), \
         found AS (SELECT * FROM chain UNION ALL \
           SELECT {columns} FROM entry e WHERE e.owner || '' = $1 AND e.job = $3 AND e.attempt = $4 AND e.previous IS NULL) \
         {select}"
    );
    let of_attempt = [attempt.owner.as_str().into(), attempt.last_entry.into()];
    let by_job = [attempt.job.as_str().into(), attempt.id.into()];
    store.query(&sql, &[of_attempt, by_job].concat())
}

/// What the entries say that an attempt paid, by period and source, the last that was paid first.
pub(crate) fn paid(store: &mut dyn Store, attempt: &Attempt) -> Loaded<Vec<Paid>> {
    let select = "SELECT period, source, CAST(sum(amount) AS BIGINT), max(day) FROM found WHERE kind IN ('charge', \
                  'correct') GROUP BY period, source ORDER BY max(number) DESC";
    let rows = entries_of(store, attempt, select)?;
    let read = |mut row: Row| {
        let (period, source) = (row.int()?, Source(row.int()?));
        Ok(Paid { period, source, amount: row.nanocredits()?, day: row.int()? })
    };
    rows.into_iter().map(read).collect()
}

/// The body and the answer under an idempotency key.
pub(crate) fn once(store: &mut dyn Store, key: &str) -> Loaded<Option<(String, String)>> {
    let found = store.query("SELECT body, answer FROM once WHERE key = $1", &[key.into()])?;
    one(found, |mut row| Ok((row.text()?, row.text()?)))
}

/// Versions of the rate card that were asked for, of which there may be thousands. None ever changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cards(HashMap<u64, RateCard>);

impl Cards {
    /// The one of this version; the first one is there before any was set.
    pub(crate) fn of(&mut self, store: &mut dyn Store, version: u64) -> Loaded<RateCard> {
        if let Some(card) = self.0.get(&version) {
            return Ok(card.clone());
        }
        let found = store.query("SELECT card FROM rates WHERE version = $1", &[version.into()])?;
        let card = one(found, |mut row| row.json::<RateCard>())?.unwrap_or_default();
        self.0.insert(version, card.clone());
        Ok(card)
    }
}

/// The card that counts for what starts now; the first one before any change.
pub(crate) fn newest_rates(store: &mut dyn Store) -> Loaded<RateCard> {
    let found = store.query("SELECT card FROM rates ORDER BY version DESC LIMIT 1", &[])?;
    Ok(one(found, |mut row| row.json())?.unwrap_or_default())
}

/// The newest version that was made before this time, in µs since 1970.
pub(crate) fn rates_version_before(store: &mut dyn Store, us: i64) -> Loaded<Option<u64>> {
    let sql = "SELECT version FROM rates WHERE since_us < $1 ORDER BY version DESC LIMIT 1";
    one(store.query(sql, &[us.into()])?, |mut row| row.count())
}

/// All keys, the newest first, or the one of this id.
pub(crate) fn keys(store: &mut dyn Store, id: Option<&str>) -> Loaded<Vec<Key>> {
    let rows = match id {
        Some(id) => store.query(&select(&KEY, "WHERE id = $1"), &[id.into()])?,
        None => store.query(&select(&KEY, "ORDER BY created_us DESC, id"), &[])?,
    };
    let read = |mut row: Row| {
        Ok(Key {
            id: row.text()?,
            hash: row.text()?,
            name: row.text()?,
            scope: row.parsed()?,
            user: row.maybe_text()?,
            created_us: row.int()?,
            revoked_us: row.maybe_int()?,
            principal: row.text()?,
            ends_us: row.maybe_int()?,
            used_us: row.maybe_int()?,
        })
    };
    rows.into_iter().map(read).collect()
}

/// The time that was believed last, in µs since 1970.
pub(crate) fn seen_us(store: &mut dyn Store) -> Loaded<Option<i64>> {
    one(store.query("SELECT seen_us FROM clock", &[])?, |mut row| row.int())
}
