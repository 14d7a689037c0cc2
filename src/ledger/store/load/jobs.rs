//! Jobs out of a database, and what belongs to them.

use uuid::Uuid;

use super::{Loaded, one, read_attempt, select};
use crate::domain::rating::RateCard;
use crate::ledger::book::rows::{Attempt, Job, JobSums};
use crate::ledger::job_name::{JobKey, JobName};
use crate::ledger::store::table::{ATTEMPT, JOB};
use crate::ledger::store::{Row, Store, Value};

/// Of those that a name may mean, so many are told.
const NAMED_MAX: i64 = 10;
/// People need to type no more of an id.
const BEGINNING_LETTERS_MIN: usize = 4;

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

/// All attempts of a job, oldest first.
pub(crate) fn attempts_of(store: &mut dyn Store, job: &JobKey, cards: &[RateCard]) -> Loaded<Vec<Attempt>> {
    let sql = select(&ATTEMPT, "WHERE owner = $1 AND principal = $2 AND job = $3 ORDER BY started_us, id");
    let rows = store.query(&sql, &values(job))?;
    rows.into_iter().map(|row| read_attempt(row, cards)).collect()
}

/// The ids of all attempts of a job.
pub(crate) fn attempt_ids_of(store: &mut dyn Store, job: &JobKey) -> Loaded<Vec<Uuid>> {
    let sql = "SELECT id FROM attempt WHERE owner = $1 AND principal = $2 AND job = $3";
    store.query(sql, &values(job))?.into_iter().map(|mut row| row.parsed()).collect()
}

/// The ids of those reservations of a job that hold something.
pub(crate) fn open_reservations_of(store: &mut dyn Store, job: &JobKey) -> Loaded<Vec<Uuid>> {
    let sql = "SELECT id FROM reservation WHERE owner = $1 AND principal = $2 AND job = $3 AND open = 1";
    store.query(sql, &values(job))?.into_iter().map(|mut row| row.parsed()).collect()
}
