//! What a transaction changed, into a database.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::table::{
    ACCOUNT, ALERT, ATTEMPT, ATTEMPT_BURNS, ATTEMPT_GOES_ON, ENTRY, EPOCH, GRANT, IDENTITY, JOB, KEY, NAME, ONCE,
    PERIOD, RATES, RECEIPT, RESERVATION, SETTING, USAGE_DAY,
};
use super::{Store, Value};
use crate::domain::rating::{Price, VirtualTime};
use crate::domain::usage::Usage;
use crate::ledger::LedgerError;
use crate::ledger::book::rows::{Account, Attempt, Entry, Epoch, Grant, Hold, Job, Key, Period, Reservation};
use crate::ledger::book::{Changes, Extent};
use crate::ledger::protocol::Reason;
use crate::ledger::receipt_text::ReceiptText;
use crate::ledger::settings::KeptSettings;
use crate::ledger::views::PeriodLength;

/// Entries of these kinds are what an account used.
const USED: [&str; 3] = ["charge", "correct", "tokens"];

/// Writes everything.
pub(crate) fn save(store: &mut dyn Store, changes: &Changes) -> Result<(), LedgerError> {
    let now_us = changes.now_us;
    let mut write = |table, rows: Vec<Vec<Value>>| if rows.is_empty() { Ok(()) } else { store.write(table, rows) };
    write(&ACCOUNT, changes.accounts.iter().map(account).collect())?;
    let name = |(folded, owner): &(String, String)| vec![folded.as_str().into(), owner.as_str().into()];
    write(&NAME, changes.names.iter().map(name).collect())?;
    write(&PERIOD, changes.periods.iter().map(period).collect())?;
    write(&GRANT, changes.grants.iter().map(grant).collect())?;
    write(&JOB, changes.jobs.iter().map(|row| job(row)).collect())?;
    let as_far_as = |extent, row: fn(&Attempt) -> Vec<Value>| {
        changes.attempts.iter().filter(|(of, _)| *of == extent).map(|(_, attempt)| row(attempt)).collect()
    };
    write(&ATTEMPT, as_far_as(Extent::Whole, attempt))?;
    write(&ATTEMPT_GOES_ON, as_far_as(Extent::GoesOn, attempt))?;
    write(&ATTEMPT_BURNS, as_far_as(Extent::Burns, attempt_that_burns))?;
    write(&RESERVATION, changes.reservations.iter().map(reservation).collect())?;
    write(&ALERT, changes.alerts.iter().map(super::alerts::values).collect())?;
    write(&IDENTITY, changes.identities.iter().map(|(id, body)| vec![(*id).into(), body.as_str().into()]).collect())?;
    let receipt = |(id, receipt): &(uuid::Uuid, ReceiptText)| vec![(*id).into(), receipt.as_str().into()];
    write(&RECEIPT, changes.receipts.iter().map(receipt).collect())?;
    write(&ENTRY, changes.entries.iter().map(|(number, entry)| self::entry(*number, entry, now_us)).collect())?;
    write(&USAGE_DAY, days(&changes.entries))?;
    let text = |text: &String| Value::from(text.as_str());
    write(&ONCE, changes.once.iter().map(|(key, body, answer)| vec![text(key), text(body), text(answer)]).collect())?;
    let cards = changes
        .rate_cards
        .iter()
        .map(|(version, card, since_us, by)| vec![(*version).into(), text(card), (*since_us).into(), text(by)]);
    write(&RATES, cards.collect())?;
    write(&SETTING, changes.settings.iter().map(setting).collect())?;
    write(&KEY, changes.keys.iter().map(key).collect())?;
    let epoch = |epoch: &Epoch| vec![epoch.number.into(), epoch.settles_until_us.into(), epoch.known_us.into()];
    write(&EPOCH, changes.epoch.iter().map(epoch).collect())?;
    let is_stop = |(_, entry): &(i64, Entry)| matches!(entry.kind, "stop" | "suspend");
    if changes.entries.iter().any(is_stop) {
        count_stop(store)?;
    }
    keys_used(store, &changes.used_keys, now_us)
}

/// Something was stopped: see [`super::StoreLedger::stop_count`].
fn count_stop(store: &mut dyn Store) -> Result<(), LedgerError> {
    let sql = "INSERT INTO stop_count (one, count) VALUES (1, 1) ON CONFLICT (one) DO UPDATE SET count = stop_count.count + 1";
    store.query(sql, &[]).map(|_| ())
}

/// When these keys were used last. Nothing else of them is written, so that one that is revoked meanwhile stays revoked; and one that
/// is there no more is nobody's fault.
fn keys_used(store: &mut dyn Store, ids: &[String], now_us: i64) -> Result<(), LedgerError> {
    if ids.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE api_key SET used_us = $1 WHERE id = ANY($2)";
    store.query(sql, &[now_us.into(), Value::Texts(ids.to_vec())]).map(|_| ())
}

fn account(account: &Account) -> Vec<Value> {
    let (next_limit, next_length) = account.next.map_or((None, None), |(limit, length)| (limit, Some(length)));
    vec![
        account.owner.as_str().into(),
        account.limit.into(),
        account.length.as_str().into(),
        account.period.into(),
        account.ends.into(),
        account.next.is_some().into(),
        next_limit.into(),
        next_length.map(PeriodLength::as_str).into(),
        account.entries.into(),
        account.sums.live.into(),
        account.sums.beyond.into(),
        account.sums.silent.into(),
        account.sums.rate.into(),
        account.sums.waits_until_us.into(),
        account.sums.silent_from_us.into(),
        account.debt.into(),
        account.suspended.into(),
        account.carries_over.into(),
        account.carried_grant.into(),
        account.turnover.into(),
        account.revision.into(),
    ]
}

fn period(period: &Period) -> Vec<Value> {
    vec![
        period.owner.as_str().into(),
        period.start.into(),
        period.ends.into(),
        period.limit.into(),
        period.taken.into(),
        period.charged.into(),
        period.held.into(),
        period.spent.into(),
        period.corrected.into(),
        period.alerted.into(),
    ]
}

fn grant(grant: &Grant) -> Vec<Value> {
    vec![
        grant.owner.as_str().into(),
        grant.id.into(),
        grant.amount.into(),
        grant.charged.into(),
        grant.taken.into(),
        grant.held.into(),
        grant.expires_s.into(),
        grant.revoked_s.into(),
        grant.why.as_str().into(),
    ]
}

fn job(job: &Job) -> Vec<Value> {
    vec![
        job.key.owner.as_str().into(),
        job.key.principal.as_str().into(),
        job.key.id.as_str().into(),
        job.kind.as_str().into(),
        job.name.as_deref().into(),
        job.limit.into(),
        job.started_us.into(),
        job.stopped.into(),
        job.tokens.into(),
        job.tokens_charged.into(),
        job.tokens_overshoot.into(),
        job.sums.charged.into(),
        job.sums.held.into(),
        job.sums.beyond.into(),
    ]
}

fn key(key: &Key) -> Vec<Value> {
    vec![
        key.id.as_str().into(),
        key.hash.as_str().into(),
        key.name.as_str().into(),
        key.scope.as_str().into(),
        key.user.as_deref().into(),
        key.created_us.into(),
        key.revoked_us.into(),
        key.principal.as_str().into(),
        key.ends_us.into(),
        key.used_us.into(),
    ]
}

fn setting(kept: &KeptSettings) -> Vec<Value> {
    let KeptSettings { settings, outlasting_ms, since_us, by } = kept;
    vec![
        settings.version.into(),
        settings.lease_ms.into(),
        (*outlasting_ms).into(),
        settings.day_limit.into(),
        settings.month_limit.into(),
        settings.period.as_str().into(),
        settings.unknown_users.into(),
        (*since_us).into(),
        by.as_str().into(),
    ]
}

/// `1:25;2:50`.
fn joined<T>(items: &[T], mut write: impl FnMut(&mut String, &T)) -> Value {
    let mut text = String::new();
    for item in items {
        if !text.is_empty() {
            text.push(';');
        }
        write(&mut text, item);
    }
    text.into()
}

fn holds(holds: &[Hold]) -> Value {
    // Nothing that is written into a text can fail.
    joined(holds, |text, hold| write!(text, "{}:{}:{}", hold.period, hold.source.0, hold.amount.0).unwrap_or_default())
}

fn reservation(reservation: &Reservation) -> Vec<Value> {
    vec![
        reservation.id.into(),
        reservation.job.id.as_str().into(),
        reservation.job.owner.as_str().into(),
        reservation.job.principal.as_str().into(),
        reservation.tokens.into(),
        reservation.rates.version.into(),
        reservation.until_us.into(),
        holds(&reservation.holds),
        reservation.open.into(),
        reservation.settled_us.into(),
        reservation.used.into(),
    ]
}

fn ceilings(attempt: &Attempt) -> Value {
    joined(&attempt.ceilings, |text, (version, ceiling)| write!(text, "{version}:{}", ceiling.0).unwrap_or_default())
}

/// What a report of CPU time alone changes.
fn attempt_that_burns(attempt: &Attempt) -> Vec<Value> {
    vec![
        attempt.id.into(),
        attempt.lease_until_us.into(),
        attempt.live.into(),
        attempt.seq.into(),
        attempt.usage.cpu_used_seconds.into(),
        attempt.usage.cpu_allocated_seconds.into(),
        attempt.accounted.cpu.into(),
        attempt.accounted_time.cpu_seconds.into(),
        attempt.charged.cpu.into(),
        ceilings(attempt),
        holds(&attempt.holds),
        attempt.waits.into(),
        attempt.rate.into(),
        attempt.rate_since_us.into(),
        attempt.rate_from.into(),
        attempt.last_entry.into(),
        attempt.capacity.map(|capacity| capacity.cpu_us).into(),
        attempt.capacity.map(|capacity| capacity.alive_us).into(),
        attempt.capacity.map(|capacity| capacity.heard_us).into(),
    ]
}

fn gpus(usage: &Usage) -> Value {
    // A map of numbers has no key that JSON could not hold.
    (!usage.gpus.is_empty()).then(|| serde_json::to_string(&usage.gpus).unwrap_or_default()).into()
}

pub(super) fn attempt(attempt: &Attempt) -> Vec<Value> {
    let usage = &attempt.usage;
    vec![
        attempt.id.into(),
        attempt.job.as_str().into(),
        attempt.owner.as_str().into(),
        attempt.period.into(),
        attempt.started_us.into(),
        attempt.lease_until_us.into(),
        attempt.live.into(),
        attempt.ended_us.into(),
        attempt.reason.map(Reason::as_str).into(),
        attempt.told.into(),
        attempt.seq.into(),
        attempt.rates.version.into(),
        attempt.pace.cpus_ppm.into(),
        attempt.pace.gpus_ppm.into(),
        attempt.pace.stop_us.into(),
        usage.cpu_used_seconds.into(),
        usage.cpu_allocated_seconds.into(),
        gpus(usage),
        usage.tokens.into(),
        attempt.told_tokens.into(),
        attempt.accounted.cpu.into(),
        attempt.accounted.gpu.into(),
        attempt.accounted.tokens.into(),
        attempt.accounted_time.cpu_seconds.into(),
        attempt.accounted_time.gpu_seconds.into(),
        attempt.charged.cpu.into(),
        attempt.charged.gpu.into(),
        attempt.charged.tokens.into(),
        attempt.overshoot.into(),
        ceilings(attempt),
        holds(&attempt.holds),
        attempt.next.map(|(period, _)| period).into(),
        attempt.next.map(|(_, amount)| amount).into(),
        attempt.waits.into(),
        attempt.rate.into(),
        attempt.rate_since_us.into(),
        attempt.rate_from.into(),
        attempt.last_entry.into(),
        attempt.secret.map(|hash| hash.text()).into(),
        attempt.capacity.map(|capacity| capacity.cpu_us).into(),
        attempt.capacity.map(|capacity| capacity.alive_us).into(),
        attempt.capacity.map(|capacity| capacity.heard_us).into(),
        attempt.principal.as_str().into(),
    ]
}

/// What the entries add to each day of each account.
fn days(entries: &[(i64, Entry)]) -> Vec<Vec<Value>> {
    let mut days = BTreeMap::<(&str, i64), (Price, VirtualTime, u64)>::new();
    for (_, entry) in entries.iter().filter(|(_, entry)| USED.contains(&entry.kind)) {
        let (credits, time, tokens) = days.entry((&entry.owner, entry.day)).or_default();
        credits.cpu = credits.cpu.saturating_add(entry.parts.cpu);
        credits.gpu = credits.gpu.saturating_add(entry.parts.gpu);
        credits.tokens = credits.tokens.saturating_add(entry.parts.tokens);
        credits.total = credits.total.saturating_add(entry.amount);
        time.cpu_seconds = time.cpu_seconds.saturating_add(entry.time.cpu_seconds);
        time.gpu_seconds = time.gpu_seconds.saturating_add(entry.time.gpu_seconds);
        *tokens = tokens.saturating_add(entry.tokens);
    }
    let row = |((owner, day), (credits, time, tokens)): ((&str, i64), (Price, VirtualTime, u64))| {
        let credits = [credits.total, credits.cpu, credits.gpu, credits.tokens].map(Value::from);
        let counts = [time.cpu_seconds.into(), time.gpu_seconds.into(), tokens.into()];
        [owner.into(), day.into()].into_iter().chain(credits).chain(counts).collect()
    };
    days.into_iter().map(row).collect()
}

fn entry(number: i64, entry: &Entry, now_us: i64) -> Vec<Value> {
    vec![
        entry.owner.as_str().into(),
        number.into(),
        now_us.into(),
        entry.kind.into(),
        entry.period.into(),
        entry.day.into(),
        entry.source.into(),
        entry.amount.into(),
        entry.parts.cpu.into(),
        entry.parts.gpu.into(),
        entry.parts.tokens.into(),
        entry.time.cpu_seconds.into(),
        entry.time.gpu_seconds.into(),
        entry.tokens.into(),
        entry.job.as_deref().into(),
        entry.attempt.into(),
        entry.by.as_str().into(),
        entry.why.as_str().into(),
        entry.previous.into(),
    ]
}

#[cfg(test)]
mod tests;
