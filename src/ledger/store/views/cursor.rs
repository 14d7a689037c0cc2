//! Where a page of jobs ends: the last of them, by its id where no other on these pages has that.

use crate::ledger::LedgerError;
use crate::ledger::book::rows::Job;
use crate::ledger::job_name::{JobKey, JobName};
use crate::ledger::store::{Store, load};

/// Before the whole key of a job, in hexadecimal digits of a list in JSON.
const WHOLE: &str = "job:";

fn named(owner: Option<&str>, id: &str) -> JobName {
    JobName { id: id.to_owned(), user: owner.map(str::to_owned), principal: None }
}

/// The cursor of the page that this job ends, of jobs of `owner` where one is given.
pub(super) fn of(store: &mut dyn Store, owner: Option<&str>, last: &JobKey) -> Result<String, LedgerError> {
    let is_alone = load::jobs_named(store, &named(owner, &last.id))?.len() == 1;
    if is_alone && !last.id.starts_with(WHOLE) {
        return Ok(last.id.clone());
    }
    let JobKey { owner, principal, id } = last;
    let parts = serde_json::Value::from(vec![owner.as_str(), principal, id]).to_string();
    Ok(parts.bytes().fold(WHOLE.to_owned(), |text, byte| text + &format!("{byte:02x}")))
}

/// The job that a page ended with. One that is on none of these pages is no cursor, as one that there is not.
pub(super) fn job_at(store: &mut dyn Store, owner: Option<&str>, cursor: &str) -> Result<Job, LedgerError> {
    let key = match cursor.strip_prefix(WHOLE) {
        Some(digits) => whole(digits).filter(|key| owner.is_none_or(|owner| owner == key.owner)),
        // One of before that is of several by now goes on behind the first of them.
        None => load::jobs_named(store, &named(owner, cursor))?.into_iter().next(),
    };
    let found = key.map(|key| load::job(store, &key)).transpose()?.flatten();
    found.ok_or_else(|| LedgerError::Missing(format!("{cursor:?} is no cursor of a page of jobs")))
}

fn whole(digits: &str) -> Option<JobKey> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let bytes: Option<Vec<u8>> = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect();
    let [owner, principal, id] = serde_json::from_slice::<[String; 3]>(&bytes?).ok()?;
    Some(JobKey { owner, principal, id })
}
