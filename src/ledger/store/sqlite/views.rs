//! What people and programs read.

use super::Books;
use super::accounts::Account;
use super::entries::unsigned;
use super::holds::micros;
use super::row::Attempt;
use crate::domain::book::{plus, sum};
use crate::domain::calendar::{civil, day_end, month_end, month_start};
use crate::domain::rating::{Price, RateCard, VirtualTime};
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::views::{AccountView, AttemptView, EntryView, GrantView, JobView, Query, RatesView, UsageRow, View};

/// No page is longer.
const ROWS_MAX: u32 = 1_000;

fn rfc3339(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| String::new(), |time| time.to_string())
}

fn rfc3339_s(seconds: i64) -> String {
    rfc3339(seconds.saturating_mul(1_000_000))
}

impl Books<'_> {
    /// Reads.
    pub(super) fn read(&self, query: &Query) -> Result<View, LedgerError> {
        Ok(match query {
            Query::Account { user } => View::Account(self.account_view(user)?),
            Query::Entries { user, count_max } => View::Entries(self.entries(user, *count_max)?),
            Query::Jobs { user, running_only, count_max, before } => {
                self.jobs(user.as_deref(), *running_only, *count_max, before.as_deref())?
            }
            Query::Job { job } => View::Job(Some(Box::new(self.job(&self.job_id(job)?, true)?))),
            Query::Usage { user, month } => View::Usage(self.usage(user, month.as_deref())?),
            Query::Rates => View::Rates(self.rates()?),
            Query::Verify => View::Verified(self.verify()?),
            Query::Stopped { .. } => return Err(LedgerError::unasked()),
        })
    }

    fn account_view(&self, user: &str) -> Result<AccountView, LedgerError> {
        let account = self.account(user)?;
        self.post_silent(&account)?;
        let account = self.account(&account.user)?;
        let (mut held, mut provisional, mut running) = (Nanocredits::ZERO, Nanocredits::ZERO, 0_u32);
        for attempt in self.unended(user)? {
            let holds = self.held(&attempt, attempt.period)?;
            if self.is_live(&attempt) {
                running = running.saturating_add(1);
                held = held.saturating_add(holds);
            } else {
                provisional = provisional.saturating_add(holds);
            }
        }
        let balance = self.balance(&account)?;
        let burn_per_second = self.burn_per_second(&account)?;
        let grants = self.grants(user)?.into_iter().map(|grant| GrantView {
            amount: grant.amount,
            left: grant.amount.saturating_sub(grant.charged),
            expires_at: grant.expires_s.map(rfc3339_s),
            why: grant.why,
        });
        Ok(AccountView {
            user: user.to_owned(),
            current: self.charged(&account)?,
            limit: account.limit,
            left: balance.left,
            available: account.limit.is_some().then(|| self.free(&account)).transpose()?.map(|free| sum(&free)),
            held,
            provisional,
            grants: grants.collect(),
            period: account.length,
            period_start: rfc3339_s(account.period),
            period_end: rfc3339_s(account.ends),
            resets_in_ms: account.resets_in_ms(self.now_us),
            burn_per_second,
            exhausted_at: self.exhausted_at(&account, balance.left, burn_per_second),
            running,
        })
    }

    fn exhausted_at(&self, account: &Account, left: Option<Nanocredits>, rate: Nanocredits) -> Option<String> {
        let left_us = i128::from(left?.at_least_zero().0).checked_mul(1_000_000)?.checked_div(i128::from(rate.0))?;
        let at_us = self.now_us.checked_add(i64::try_from(left_us).ok()?)?;
        (at_us < account.ends.saturating_mul(1_000_000)).then(|| rfc3339(at_us))
    }

    fn entries(&self, user: &str, count_max: u32) -> Result<Vec<EntryView>, LedgerError> {
        let mut statement = self.tx.prepare_cached(
            "SELECT id, at_us, kind, amount, job, attempt, by, why FROM entry WHERE user = ?1 ORDER BY id DESC LIMIT ?2",
        )?;
        let rows = statement.query_map((user, count_max.min(ROWS_MAX)), |row| {
            Ok(EntryView {
                id: row.get(0)?,
                at: rfc3339(row.get(1)?),
                kind: row.get(2)?,
                amount: Nanocredits(row.get(3)?),
                job: row.get(4)?,
                attempt: row.get::<_, Option<String>>(5)?.and_then(|id| id.parse().ok()),
                by: row.get(6)?,
                why: row.get(7)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn jobs(
        &self,
        user: Option<&str>,
        running_only: bool,
        count_max: u32,
        before: Option<&str>,
    ) -> Result<View, LedgerError> {
        let count = count_max.clamp(1, ROWS_MAX);
        let mut statement = self.tx.prepare_cached(
            "SELECT id FROM job j WHERE (?1 IS NULL OR user = ?1) AND (?2 = 0 OR EXISTS (SELECT 1 FROM attempt a \
             WHERE a.job = j.id AND a.ended_us IS NULL)) AND (?3 IS NULL OR (started_us, id) < (SELECT started_us, id \
             FROM job WHERE id = ?3)) ORDER BY started_us DESC, id DESC LIMIT ?4",
        )?;
        let rows = statement.query_map((user, running_only, before, count.saturating_add(1)), |row| row.get(0))?;
        let mut ids: Vec<String> = rows.collect::<Result<_, _>>()?;
        let more = u32::try_from(ids.len()).is_ok_and(|found| found > count);
        if more {
            ids.pop();
        }
        let cursor = ids.last().filter(|_| more).cloned();
        let jobs = ids.iter().map(|id| self.job(id, false)).collect::<Result<_, _>>()?;
        Ok(View::Jobs { jobs, cursor })
    }

    fn job(&self, id: &str, whole: bool) -> Result<JobView, LedgerError> {
        let attempts = self.attempts("job = ?1", id)?;
        let mut statement = self.tx.prepare_cached(
            "SELECT user, kind, name, credit_limit, started_us, tokens, tokens_charged, tokens_overshoot FROM job \
             WHERE id = ?1",
        )?;
        let mut view = statement.query_row([id], |row| {
            let tokens = Nanocredits(row.get(6)?);
            Ok(JobView {
                job: id.to_owned(),
                user: row.get(0)?,
                kind: row.get::<_, String>(1)?.parse().unwrap_or_default(),
                name: row.get(2)?,
                state: "ended".to_owned(),
                started_at: rfc3339(row.get(4)?),
                ended_at: None,
                charged: Price { tokens, total: tokens, ..Price::default() },
                overshoot: Nanocredits(row.get(7)?),
                virtual_time: VirtualTime::default(),
                tokens: unsigned(row.get(5)?),
                limit: row.get::<_, Option<i64>>(3)?.map(Nanocredits),
                attempts: Vec::new(),
            })
        })?;
        let ended = attempts.iter().filter_map(|attempt| attempt.ended_us).max();
        for attempt in attempts {
            let of_attempt = self.attempt_view(&attempt, whole)?;
            let time = attempt.state.rates.virtual_time(&attempt.state.usage);
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

    fn attempt_view(&self, attempt: &Attempt, whole: bool) -> Result<AttemptView, LedgerError> {
        let state = match attempt.ended_us {
            Some(_) => "ended",
            None if self.is_live(attempt) => "running",
            None => "provisional",
        };
        let receipt = attempt.receipt.clone().filter(|_| whole).map(|receipt| self.completed(attempt, receipt));
        Ok(AttemptView {
            identity: attempt.state.identity.clone(),
            state: state.to_owned(),
            started_at: rfc3339(attempt.started_us),
            ended_at: attempt.ended_us.map(rfc3339),
            reason: attempt.reason,
            usage: attempt.state.usage.clone(),
            charged: attempt.state.charged,
            overshoot: attempt.state.overshoot,
            held: self.held(attempt, attempt.period)?,
            rates: attempt.state.rates,
            receipt: receipt.transpose()?,
            burn: if whole { attempt.state.burn.clone() } else { Vec::new() },
        })
    }

    fn completed(&self, attempt: &Attempt, mut receipt: serde_json::Value) -> Result<serde_json::Value, LedgerError> {
        let account = self.account(&attempt.user)?;
        let credits = crate::ledger::receipt::Credits::new(
            &attempt.state.charged,
            attempt.state.overshoot,
            self.balance(&account)?,
            &attempt.state.rates,
        );
        if let (Some(fields), Ok(credits)) = (receipt.as_object_mut(), serde_json::to_value(credits)) {
            fields.insert("credits".to_owned(), credits);
        }
        Ok(receipt)
    }

    /// Days of a month, or all months.
    fn usage(&self, user: &str, month: Option<&str>) -> Result<Vec<UsageRow>, LedgerError> {
        let (from, to) = match month {
            Some(month) => {
                let from = format!("{month}-01T00:00:00Z")
                    .parse::<jiff::Timestamp>()
                    .map_err(|_| LedgerError::Refused(format!("{month:?} is no month: write it as 2026-11")))?;
                (from.as_second(), month_end(from.as_second()))
            }
            None => (i64::MIN, i64::MAX),
        };
        let mut statement = self.tx.prepare_cached(
            "SELECT day, coalesce(sum(amount), 0), sum(cpu_us), sum(gpu_us), sum(tokens) FROM entry WHERE user = ?1 AND \
             kind IN ('charge', 'correct', 'tokens') AND day >= ?2 AND day < ?3 GROUP BY day ORDER BY day",
        )?;
        let days = statement.query_map((user, from, to), |row| {
            let day: i64 = row.get(0)?;
            Ok((
                day,
                UsageRow {
                    period_start: rfc3339_s(day),
                    period_end: rfc3339_s(day_end(day)),
                    total_credits: Nanocredits(row.get(1)?),
                    total_virtual_cpu_time: micros(row.get(2)?),
                    total_virtual_gpu_time: micros(row.get(3)?),
                    total_tokens_consumed: unsigned(row.get(4)?),
                },
            ))
        })?;
        let mut rows: Vec<UsageRow> = Vec::new();
        let mut last = None;
        for day in days {
            let (day, row) = day?;
            if month.is_some() {
                rows.push(row);
                continue;
            }
            let (year, month, _) = civil(day);
            match rows.last_mut().filter(|_| last == Some((year, month))) {
                Some(sum) => add(sum, &row),
                None => rows.push(UsageRow {
                    period_start: rfc3339_s(month_start(day)),
                    period_end: rfc3339_s(month_end(day)),
                    ..row
                }),
            }
            last = Some((year, month));
        }
        Ok(rows)
    }

    pub(super) fn rates(&self) -> Result<Vec<RatesView>, LedgerError> {
        let mut statement = self.tx.prepare_cached("SELECT card, since_us, by FROM rates ORDER BY version DESC")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))?;
        let mut views = Vec::new();
        for row in rows {
            let (card, since, by): (String, i64, String) = row?;
            let rates = serde_json::from_str(&card)
                .map_err(|error| LedgerError::Broken(format!("the rate card is damaged: {error}")))?;
            views.push(RatesView { rates, since: rfc3339(since), by });
        }
        if views.is_empty() {
            views.push(RatesView { rates: RateCard::default(), since: rfc3339(0), by: "jobmeter".to_owned() });
        }
        Ok(views)
    }
}

fn add(sum: &mut UsageRow, row: &UsageRow) {
    sum.total_credits = sum.total_credits.saturating_add(row.total_credits);
    sum.total_virtual_cpu_time = sum.total_virtual_cpu_time.saturating_add(row.total_virtual_cpu_time);
    sum.total_virtual_gpu_time = sum.total_virtual_gpu_time.saturating_add(row.total_virtual_gpu_time);
    sum.total_tokens_consumed = sum.total_tokens_consumed.saturating_add(row.total_tokens_consumed);
}
