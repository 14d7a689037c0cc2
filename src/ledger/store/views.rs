//! What people and programs read.

use super::usage::{usage, usage_of_each};
use super::verify::verify;
use super::{Row, Store, Value, load};
use crate::domain::balance::Snapshot;
use crate::domain::book::plus;
use crate::domain::rating::{Price, RateCard, VirtualTime};
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::book::rows::{Account, Attempt, Job, Key};
use crate::ledger::book::{Books, Shown};
use crate::ledger::job_name::{JobKey, JobName};
use crate::ledger::keys::{KEY_USED_EACH_US, KeyView};
use crate::ledger::protocol::{AttemptIdentity, JobKind};
use crate::ledger::receipt::Credits;
use crate::ledger::receipt_text;
use crate::ledger::settings::KeptSettings;
use crate::ledger::views::{
    AccountView, AttemptView, BurnPoint, ENTRIES_MAX, EntryView, GrantView, JobView, PendingLimit, Query, RatesView,
    SettingsView, View,
};

/// No page is longer.
const ROWS_MAX: u32 = 1_000;
/// Before the whole key of a job, in hexadecimal digits of a list in JSON.
const CURSOR_OF_KEY: &str = "job:";
/// Points of the burn chart.
const BURN_POINTS_MAX: usize = 96;

pub(super) fn rfc3339(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| String::new(), |time| time.to_string())
}

pub(super) fn rfc3339_s(seconds: i64) -> String {
    rfc3339(seconds.saturating_mul(1_000_000))
}

/// Reads.
pub(super) fn read(store: &mut dyn Store, now_us: i64, query: &Query) -> Result<View, LedgerError> {
    Ok(match query {
        Query::Account { user } => View::Account(Box::new(account(store, now_us, user)?)),
        Query::Entries { user, count_max, before } => View::Entries(entries(store, user, *count_max, *before)?),
        Query::Jobs { user, kind, running_only, count_max, before } => {
            let page = Page { owner: user.as_deref(), count_max: *count_max, before: before.as_deref() };
            jobs(store, now_us, conditions(user.as_deref(), *kind, *running_only), &page)?
        }
        Query::Job { job } => View::Job(Some(Box::new(one_job(store, now_us, job)?))),
        Query::Usage { whose, range } => View::Usage(usage(store, whose, range)?),
        Query::UsageOfEach { range, after, count_max } => {
            let (rows, next) = usage_of_each(store, range, after.as_deref(), *count_max)?;
            View::UsagePage { rows, next }
        }
        Query::Rates => View::Rates(rates(store)?),
        Query::Settings => View::Settings(settings(store, now_us)?),
        Query::Keys { id } => View::Keys(keys(store, now_us, id.as_deref())?),
        Query::Figures => View::Figures(Box::new(super::figures::figures(store, now_us, snapshot)?)),
        Query::Verify => View::Verified(verify(store)?),
        Query::Stopped { .. } | Query::AttemptStop { .. } => return Err(LedgerError::unasked()),
    })
}

fn snapshot(store: &mut dyn Store, now_us: i64, owner: &str) -> Result<Snapshot, LedgerError> {
    Ok(Books::new(store, now_us).shown(owner)?.snapshot)
}

/// As of the last time that what fell silent was marked.
fn account(store: &mut dyn Store, now_us: i64, owner: &str) -> Result<AccountView, LedgerError> {
    let Shown { account, snapshot, grants, standing } = Books::new(store, now_us).shown(owner)?;
    let burn_per_second = account.sums.rate;
    let grants = grants.into_iter().map(|grant| {
        let left = grant.rest().plus(grant.held)?;
        Ok(GrantView {
            id: grant.id,
            amount: grant.amount,
            left,
            expires_at: grant.expires_s.map(rfc3339_s),
            why: grant.why,
        })
    });
    let since = || rfc3339_s(account.ends);
    let pending = account.next.map(|(limit, period)| PendingLimit { limit, period, since: since() });
    Ok(AccountView {
        user: owner.to_owned(),
        current: snapshot.charged.less(snapshot.corrected)?,
        limit: snapshot.limit,
        charged: snapshot.charged,
        corrected: snapshot.corrected,
        left: snapshot.left,
        free: snapshot.free,
        available: snapshot.free,
        held: snapshot.held,
        provisional: account.sums.silent.min(snapshot.held),
        debt: snapshot.debt,
        suspended: snapshot.suspended,
        allowance: account.limit,
        carries_over: account.carries_over,
        pending,
        grants: grants.collect::<Result<_, LedgerError>>()?,
        period: account.length,
        period_start: rfc3339_s(account.period),
        period_end: rfc3339_s(account.ends),
        resets_in_ms: account.resets_in_ms(now_us),
        burn_per_second,
        exhausted_at: exhausted_at(now_us, &account, snapshot.left, burn_per_second),
        running: u32::try_from(account.sums.live).unwrap_or(0),
        standing,
    })
}

fn exhausted_at(now_us: i64, account: &Account, left: Option<Nanocredits>, rate: Nanocredits) -> Option<String> {
    let left_us = i128::from(left?.at_least_zero().0).checked_mul(1_000_000)?.checked_div(i128::from(rate.0))?;
    let at_us = now_us.checked_add(i64::try_from(left_us).ok()?)?;
    (at_us < account.ends.saturating_mul(1_000_000)).then(|| rfc3339(at_us))
}

fn entries(
    store: &mut dyn Store,
    owner: &str,
    count_max: u32,
    before: Option<i64>,
) -> Result<Vec<EntryView>, LedgerError> {
    let sql = "SELECT number, at_us, kind, amount, job, attempt, by, why FROM entry WHERE owner = $1 AND number < $2 ORDER BY number \
               DESC LIMIT $3";
    let read = |mut row: Row| {
        Ok(EntryView {
            id: row.int()?,
            at: rfc3339(row.int()?),
            kind: row.text()?,
            amount: row.nanocredits()?,
            job: row.maybe_text()?,
            attempt: row.maybe_text()?.and_then(|id| id.parse().ok()),
            by: row.text()?,
            why: row.text()?,
        })
    };
    let (count, before) = (i64::from(count_max.min(ENTRIES_MAX)), before.unwrap_or(i64::MAX));
    store.query(sql, &[owner.into(), before.into(), count.into()])?.into_iter().map(read).collect()
}

fn settings(store: &mut dyn Store, now_us: i64) -> Result<SettingsView, LedgerError> {
    let KeptSettings { settings, since_us, by, .. } = Books::new(store, now_us).kept_settings()?;
    Ok(SettingsView { settings, since: (since_us > 0).then(|| rfc3339(since_us)), by })
}

/// Which page.
struct Page<'a> {
    /// Whose jobs alone: one of another is no cursor.
    owner: Option<&'a str>,
    count_max: u32,
    before: Option<&'a str>,
}

/// What jobs must be, and the values in it. Conditions are put together, so that each search has its index.
fn conditions(owner: Option<&str>, kind: Option<JobKind>, running_only: bool) -> (Vec<String>, Vec<Value>) {
    let (mut conditions, mut parameters) = (vec!["1 = 1".to_owned()], Vec::<Value>::new());
    let mut is = |column: &str, value: &str| {
        parameters.push(value.into());
        format!("{column} = ${}", parameters.len())
    };
    let of_owner = owner.map(|owner| is("owner", owner));
    conditions.extend(kind.map(|kind| is("kind", kind.as_str())));
    if running_only {
        // Few run, and an index has them: looking at each job of the account would take as long as there are jobs.
        let of_owner = of_owner.map(|of_owner| format!(" AND a.{of_owner}")).unwrap_or_default();
        let running = "SELECT a.owner, a.principal, a.job FROM attempt a WHERE a.ended_us IS NULL";
        conditions.push(format!("(owner, principal, id) IN ({running}{of_owner})"));
    } else {
        conditions.extend(of_owner);
    }
    (conditions, parameters)
}

fn jobs(
    store: &mut dyn Store,
    now_us: i64,
    (mut conditions, mut parameters): (Vec<String>, Vec<Value>),
    page: &Page<'_>,
) -> Result<View, LedgerError> {
    let count = page.count_max.clamp(1, ROWS_MAX);
    if let Some(before) = page.before {
        let last = job_at(store, page.owner, before)?;
        let JobKey { owner, principal, id } = last.key;
        parameters.extend([last.started_us.into(), id.into(), owner.into(), principal.into()]);
        let at = parameters.len();
        let places = format!("${}, ${}, ${}, ${at}", at - 3, at - 2, at - 1);
        conditions.push(format!("(started_us, id, owner, principal) < ({places})"));
    }
    parameters.push(i64::from(count.saturating_add(1)).into());
    let sql = format!(
        "SELECT owner, principal, id FROM job WHERE {} ORDER BY started_us DESC, id DESC, owner DESC, principal DESC LIMIT ${}",
        conditions.join(" AND "),
        parameters.len()
    );
    let read = |mut row: Row| Ok(JobKey { owner: row.text()?, principal: row.text()?, id: row.text()? });
    let found = store.query(&sql, &parameters)?;
    let mut keys = found.into_iter().map(read).collect::<Result<Vec<_>, LedgerError>>()?;
    let more = u32::try_from(keys.len()).is_ok_and(|found| found > count);
    if more {
        keys.pop();
    }
    let last = keys.last().filter(|_| more);
    let cursor = last.map(|key| cursor_of(store, page.owner, key)).transpose()?;
    let mut cards = load::Cards::default();
    let jobs = keys.iter().map(|key| job(store, now_us, key, &mut cards, false)).collect::<Result<_, _>>()?;
    Ok(View::Jobs { jobs, cursor })
}

fn of_page(owner: Option<&str>, id: &str) -> JobName {
    JobName { id: id.to_owned(), user: owner.map(str::to_owned), principal: None }
}

/// The cursor of the page that this job ends, of jobs of `owner` where one is given.
fn cursor_of(store: &mut dyn Store, owner: Option<&str>, last: &JobKey) -> Result<String, LedgerError> {
    let is_alone = load::jobs_named(store, &of_page(owner, &last.id))?.len() == 1;
    if is_alone && !last.id.starts_with(CURSOR_OF_KEY) {
        return Ok(last.id.clone());
    }
    let JobKey { owner, principal, id } = last;
    let parts = serde_json::Value::from(vec![owner.as_str(), principal, id]).to_string();
    Ok(parts.bytes().fold(CURSOR_OF_KEY.to_owned(), |text, byte| text + &format!("{byte:02x}")))
}

/// The job that a page ended with. One that is on none of these pages is no cursor, as one that there is not.
fn job_at(store: &mut dyn Store, owner: Option<&str>, cursor: &str) -> Result<Job, LedgerError> {
    let key = match cursor.strip_prefix(CURSOR_OF_KEY) {
        Some(digits) => key_of(digits).filter(|key| owner.is_none_or(|owner| owner == key.owner)),
        // One of before that is of several by now goes on behind the first of them.
        None => load::jobs_named(store, &of_page(owner, cursor))?.into_iter().next(),
    };
    let found = key.map(|key| load::job(store, &key)).transpose()?.flatten();
    found.ok_or_else(|| LedgerError::Missing(format!("{cursor:?} is no cursor of a page of jobs")))
}

fn key_of(digits: &str) -> Option<JobKey> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let bytes: Option<Vec<u8>> = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect();
    let [owner, principal, id] = serde_json::from_slice::<[String; 3]>(&bytes?).ok()?;
    Some(JobKey { owner, principal, id })
}

fn one_job(store: &mut dyn Store, now_us: i64, name: &JobName) -> Result<JobView, LedgerError> {
    let key = Books::new(store, now_us).job_named(name)?;
    let mut cards = load::Cards::default();
    job(store, now_us, &key, &mut cards, true)
}

fn job(
    store: &mut dyn Store,
    now_us: i64,
    key: &JobKey,
    cards: &mut load::Cards,
    whole: bool,
) -> Result<JobView, LedgerError> {
    let missing = || LedgerError::Broken(format!("the books have no job {}", key.id));
    let job = load::job(store, key)?.ok_or_else(missing)?;
    let attempts = load::attempts_of(store, key, cards)?;
    let tokens = job.tokens_charged;
    let mut view = JobView {
        job: job.key.id,
        user: job.key.owner,
        principal: job.key.principal,
        kind: job.kind,
        name: job.name,
        // Of a ledger of before, where a job joined the books before its first attempt did, which a refused one has not.
        state: if attempts.is_empty() { "refused" } else { "ended" }.to_owned(),
        started_at: rfc3339(job.started_us),
        ended_at: None,
        charged: Price { tokens, total: tokens, ..Price::default() },
        overshoot: job.tokens_overshoot,
        virtual_time: VirtualTime::default(),
        tokens: job.tokens,
        limit: job.limit,
        attempts: Vec::new(),
    };
    let ended = attempts.iter().filter_map(|attempt| attempt.ended_us).max();
    for attempt in &attempts {
        let of_attempt = self::attempt(store, now_us, attempt, whole)?;
        let time = attempt.rates.virtual_time(&attempt.usage);
        view.virtual_time.cpu_seconds = view.virtual_time.cpu_seconds.saturating_add(time.cpu_seconds);
        view.virtual_time.gpu_seconds = view.virtual_time.gpu_seconds.saturating_add(time.gpu_seconds);
        view.virtual_time.total_seconds = view.virtual_time.total_seconds.saturating_add(time.total_seconds);
        view.charged = plus(&view.charged, &of_attempt.charged);
        view.overshoot = view.overshoot.saturating_add(of_attempt.overshoot);
        view.tokens = view.tokens.saturating_add(of_attempt.usage.tokens);
        if view.state != "running" && of_attempt.state != "ended" {
            view.state.clone_from(&of_attempt.state);
        }
        view.attempts.push(of_attempt);
    }
    view.ended_at = ended.filter(|_| view.state == "ended").map(rfc3339);
    Ok(view)
}

fn attempt(store: &mut dyn Store, now_us: i64, attempt: &Attempt, whole: bool) -> Result<AttemptView, LedgerError> {
    let state = match attempt.ended_us {
        Some(_) => "ended",
        None if attempt.lease_until_us >= now_us => "running",
        None => "provisional",
    };
    let body = |store: &mut dyn Store, table: &str| {
        let sql = format!("SELECT body FROM {table} WHERE attempt = $1");
        let found = store.query(&sql, &[attempt.id.into()])?;
        found.into_iter().next().map(|mut row| row.text()).transpose()
    };
    let identity = body(store, "identity")?.unwrap_or_default();
    let identity: AttemptIdentity = serde_json::from_str(&identity)
        .map_err(|error| LedgerError::Broken(format!("the attempt {} is damaged: {error}", attempt.id)))?;
    let receipt = if whole { body(store, "receipt")? } else { None };
    Ok(AttemptView {
        identity,
        state: state.to_owned(),
        started_at: rfc3339(attempt.started_us),
        ended_at: attempt.ended_us.map(rfc3339),
        reason: attempt.reason,
        usage: attempt.usage.clone(),
        charged: attempt.charged,
        overshoot: attempt.overshoot,
        held: attempt.held(attempt.period),
        rates: attempt.rates.clone(),
        receipt: receipt.map(|text| completed(store, now_us, attempt, &text)).transpose()?,
        burn: if whole { burn(store, attempt)? } else { Vec::new() },
    })
}

/// The receipt with its `credits`, which the books know.
fn completed(
    store: &mut dyn Store,
    now_us: i64,
    attempt: &Attempt,
    text: &str,
) -> Result<serde_json::Value, LedgerError> {
    let balance = Books::new(store, now_us).shown(&attempt.owner)?.snapshot.into();
    let mut receipt = receipt_text::shown(text);
    let credits = Credits::new(&attempt.charged, attempt.overshoot, balance, &attempt.rates);
    if let (Some(fields), Ok(credits)) = (receipt.as_object_mut(), serde_json::to_value(credits)) {
        fields.insert("credits".to_owned(), credits);
    }
    Ok(receipt)
}

/// Cumulative charges over time, out of the entries; where there are many, evenly spread ones.
fn burn(store: &mut dyn Store, attempt: &Attempt) -> Result<Vec<BurnPoint>, LedgerError> {
    // The database chooses: an attempt of a year has millions.
    let select = format!(
        "SELECT at_us, charged FROM (SELECT at_us, CAST(sum(sum(amount)) OVER (ORDER BY at_us) AS BIGINT) AS charged, row_number() OVER \
         (ORDER BY at_us) - 1 AS place, count(*) OVER () AS places FROM found WHERE kind IN ('charge', 'finish') GROUP BY at_us) points \
         WHERE place % ((places + {BURN_POINTS_MAX} - 1) / {BURN_POINTS_MAX}) = 0 OR place = places - 1 ORDER BY at_us"
    );
    let read = |mut row: Row| {
        let after_us = row.int()?.saturating_sub(attempt.started_us);
        Ok(BurnPoint { after_ms: u64::try_from(after_us / 1_000).unwrap_or(0), charged: row.nanocredits()? })
    };
    load::entries_of(store, attempt, &select)?.into_iter().map(read).collect()
}

pub(super) fn keys(store: &mut dyn Store, now_us: i64, id: Option<&str>) -> Result<Vec<KeyView>, LedgerError> {
    let view = |key: Key| KeyView {
        is_over: key.revoked_us.is_some() || key.ends_us.is_some_and(|ends_us| ends_us <= now_us),
        // A clock that was set back is no reason to write at each look.
        is_due: key.used_us.is_none_or(|used_us| now_us.abs_diff(used_us) >= KEY_USED_EACH_US.unsigned_abs()),
        principal: key.principal,
        expires_at: key.ends_us.map(rfc3339),
        used_at: key.used_us.map(rfc3339),
        id: key.id,
        name: key.name,
        scope: key.scope,
        user: key.user,
        created_at: rfc3339(key.created_us),
        revoked_at: key.revoked_us.map(rfc3339),
        hash: key.hash,
    };
    Ok(load::keys(store, id)?.into_iter().map(view).collect())
}

fn rates(store: &mut dyn Store) -> Result<Vec<RatesView>, LedgerError> {
    let rows = store.query("SELECT card, since_us, by FROM rates ORDER BY version DESC", &[])?;
    let read = |mut row: Row| Ok(RatesView { rates: row.json()?, since: rfc3339(row.int()?), by: row.text()? });
    let mut views = rows.into_iter().map(read).collect::<Result<Vec<_>, LedgerError>>()?;
    if views.is_empty() {
        views.push(RatesView { rates: RateCard::default(), since: rfc3339(0), by: "jobmeter".to_owned() });
    }
    Ok(views)
}
