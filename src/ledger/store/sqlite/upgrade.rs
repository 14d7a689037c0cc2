//! Ledger files of the first two versions, whose attempts were JSON documents and whose holds were rows.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Transaction, params_from_iter};
use serde::Deserialize;

use crate::domain::book::Source;
use crate::domain::rating::{Price, RateCard, VirtualTime};
use crate::domain::units::Nanocredits;
use crate::domain::usage::Usage;
use crate::ledger::LedgerError;
use crate::ledger::book::rows::{AccountSums, Attempt, Hold, JobSums};
use crate::ledger::protocol::{AttemptIdentity, Reason, Resources};
use crate::ledger::store::save;
use crate::ledger::store::table::ATTEMPT;

const OLD_TABLES: [&str; 10] =
    ["account", "period", "credit_grant", "hold", "rates", "attempt", "job", "entry", "once", "epoch"];

/// What stands elsewhere is the same but for its name.
const COPIES: [&str; 8] = [
    "INSERT INTO account SELECT user, credit_limit, length, period, ends, next_set, next_limit, next_length, \
     (SELECT count(*) FROM old_entry e WHERE e.user = a.user), 0, 0, 0, 0, 0, 0 FROM old_account a",
    // What concerned no user is the account of nobody.
    "INSERT INTO account SELECT '', 0, 'day', min(period), min(period) + 86400, 0, NULL, NULL, count(*), 0, 0, 0, 0, 0, 0 \
     FROM old_entry WHERE user = '' HAVING count(*) > 0",
    "INSERT INTO period SELECT user, start, ends, credit_limit, adjusted, charged, (SELECT coalesce(sum(amount), 0) FROM \
     old_hold h WHERE h.user = p.user AND h.period = p.start AND h.source = 0) FROM old_period p",
    "INSERT INTO credit_grant SELECT user, id, amount, charged, (SELECT coalesce(sum(amount), 0) FROM old_hold h WHERE \
     h.user = g.user AND h.source = g.id), expires_s, why FROM old_credit_grant g",
    "INSERT INTO job SELECT id, user, kind, name, credit_limit, started_us, stopped, tokens, tokens_charged, \
     tokens_overshoot, 0, 0, 0 FROM old_job",
    "INSERT INTO entry SELECT user, row_number() OVER (PARTITION BY user ORDER BY id), at_us, kind, period, day, source, \
     amount, cpu, gpu, token, cpu_us, gpu_us, tokens, job, attempt, by, why FROM old_entry",
    "INSERT INTO once SELECT key, body, answer FROM old_once",
    "INSERT INTO rates SELECT version, card, since_us, by FROM old_rates",
];

/// The JSON document of an attempt.
#[derive(Deserialize)]
struct State {
    identity: AttemptIdentity,
    rates: RateCard,
    resources: Resources,
    usage: Usage,
    accounted: Price,
    accounted_time: VirtualTime,
    charged: Price,
    overshoot: Nanocredits,
    ceilings: Vec<(u64, Nanocredits)>,
    next: Option<(i64, Nanocredits)>,
    seq: u64,
    waits: bool,
    rate: Nanocredits,
    rate_since_us: i64,
    rate_from: Nanocredits,
}

/// Gives the old tables other names, so that the new ones can be made.
pub(super) fn put_aside(tx: &Transaction<'_>) -> Result<(), LedgerError> {
    let names = |kind: &str| -> Result<Vec<String>, LedgerError> {
        let mut statement =
            tx.prepare("SELECT name FROM sqlite_schema WHERE type = ?1 AND name NOT LIKE 'sqlite_%'")?;
        let rows = statement.query_map([kind], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    for kind in ["trigger", "index"] {
        for name in names(kind)? {
            tx.execute_batch(&format!("DROP {kind} {name}"))?;
        }
    }
    let there = names("table")?;
    for table in OLD_TABLES.iter().filter(|table| there.iter().any(|name| name == *table)) {
        tx.execute_batch(&format!("ALTER TABLE {table} RENAME TO old_{table}"))?;
    }
    Ok(())
}

/// Fills the new tables out of the old ones, which go.
pub(super) fn take_over(tx: &Transaction<'_>) -> Result<(), LedgerError> {
    for copy in COPIES {
        tx.execute_batch(copy)?;
    }
    let has_epochs: bool =
        tx.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'old_epoch')", [], |row| row.get(0))?;
    if has_epochs {
        tx.execute_batch("INSERT INTO epoch SELECT number, settles_until_us FROM old_epoch")?;
    }
    attempts(tx)?;
    for table in OLD_TABLES {
        tx.execute_batch(&format!("DROP TABLE IF EXISTS old_{table}"))?;
    }
    Ok(())
}

fn attempts(tx: &Transaction<'_>) -> Result<(), LedgerError> {
    let mut statement =
        tx.prepare("SELECT id, period, started_us, lease_until_us, ended_us, reason, receipt, state FROM old_attempt")?;
    // The last columns come with later versions.
    let names: Vec<_> = ATTEMPT.columns.iter().copied().take_while(|name| *name != "last_entry").collect();
    let places: Vec<String> = (1..=names.len()).map(|at| format!("?{at}")).collect();
    let insert = format!("INSERT INTO attempt ({}) VALUES ({})", names.join(", "), places.join(", "));
    let (mut accounts, mut jobs) = (BTreeMap::<String, AccountSums>::new(), HashMap::<String, JobSums>::new());
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, receipt, text): (String, Option<String>, String) = (row.get(0)?, row.get(6)?, row.get(7)?);
        let state: State = serde_json::from_str(&text)
            .map_err(|error| LedgerError::Broken(format!("the attempt {id} is damaged: {error}")))?;
        let identity =
            serde_json::to_string(&state.identity).map_err(|error| LedgerError::Broken(error.to_string()))?;
        let holds = holds(tx, &id)?;
        let ended_us: Option<i64> = row.get(4)?;
        let attempt = Attempt {
            id: state.identity.attempt,
            job: state.identity.job,
            owner: state.identity.user,
            period: row.get(1)?,
            started_us: row.get(2)?,
            lease_until_us: row.get(3)?,
            // Those whose lease is over are marked when their account is looked at next.
            live: ended_us.is_none(),
            ended_us,
            reason: row.get::<_, Option<String>>(5)?.as_deref().and_then(Reason::named),
            told: receipt.is_some(),
            seq: state.seq,
            pace: state.resources.pace(&state.rates),
            rates: state.rates,
            told_tokens: state.usage.tokens,
            usage: state.usage,
            accounted: state.accounted,
            accounted_time: state.accounted_time,
            charged: state.charged,
            overshoot: state.overshoot,
            ceilings: state.ceilings,
            holds,
            next: state.next,
            waits: state.waits,
            rate: state.rate,
            rate_since_us: state.rate_since_us,
            rate_from: state.rate_from,
            ..Attempt::default()
        };
        tx.prepare_cached(&insert)?.execute(params_from_iter(save::attempt(&attempt).into_iter().take(names.len())))?;
        tx.execute("INSERT INTO identity (attempt, body) VALUES (?1, ?2)", (&id, identity))?;
        if let Some(receipt) = receipt {
            tx.execute("INSERT INTO receipt (attempt, body) VALUES (?1, ?2)", (&id, receipt))?;
        }
        let account = accounts.entry(attempt.owner.clone()).or_default();
        *account = account.exchanged(&AccountSums::default(), &attempt.account_sums())?;
        let job = jobs.entry(attempt.job.clone()).or_default();
        *job = job.exchanged(&JobSums::default(), &attempt.job_sums())?;
    }
    for (owner, sums) in accounts {
        tx.execute(
            "UPDATE account SET live = ?2, beyond = ?3, silent = ?4, rate = ?5 WHERE owner = ?1",
            (owner, sums.live, sums.beyond.0, sums.silent.0, sums.rate.0),
        )?;
    }
    for (id, sums) in jobs {
        tx.execute(
            "UPDATE job SET charged = ?2, held = ?3, beyond = ?4 WHERE id = ?1",
            (id, sums.charged.0, sums.held.0, sums.beyond.0),
        )?;
    }
    Ok(())
}

fn holds(tx: &Transaction<'_>, attempt: &str) -> Result<Vec<Hold>, LedgerError> {
    let mut statement = tx.prepare_cached(
        "SELECT h.period, h.source, h.amount FROM old_hold h LEFT JOIN old_credit_grant g ON g.id = h.source WHERE \
         h.attempt = ?1 ORDER BY h.source > 0, g.expires_s IS NULL, g.expires_s, h.source",
    )?;
    let rows = statement.query_map([attempt], |row| {
        Ok(Hold { period: row.get(0)?, source: Source(row.get(1)?), amount: Nanocredits(row.get(2)?) })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
