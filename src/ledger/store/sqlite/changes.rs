//! What people change: limits, grants, corrections, rates, stops, tokens; each is an entry with who and why.

use rusqlite::OptionalExtension;
use serde::Serialize;
use uuid::Uuid;

use super::Books;
use super::accounts::{Account, length_text};
use super::entries::{Entry, signed};
use super::row::Attempt;
use crate::domain::book::{Source, sum, take};
use crate::domain::calendar::{DAY_S, day_start};
use crate::domain::rating::{Price, RateCard};
use crate::domain::units::Nanocredits;
use crate::domain::usage::Usage;
use crate::ledger::LedgerError;
use crate::ledger::protocol::Reason;
use crate::ledger::views::{Change, ChangeAnswer, PeriodLength};

impl Books<'_> {
    /// Makes a change.
    pub(super) fn change(&self, change: &Change) -> Result<ChangeAnswer, LedgerError> {
        match change {
            Change::SetLimit { user, limit, period, by, why } => self.set_limit(user, *limit, *period, by, why),
            Change::Grant { user, amount, expires_at, by, why, key } => {
                self.once(key, change, || self.grant(user, *amount, *expires_at, by, why))
            }
            Change::Adjust { user, amount, by, why, key } => {
                self.once(key, change, || self.adjust(user, *amount, by, why))
            }
            Change::SetRates { rates, by } => self.set_rates(rates, by),
            Change::StopJob { job, by, why } => self.stop_job(job, by, why),
            Change::ChargeTokens { job, count, by, key } => {
                self.once(key, change, || self.charge_tokens(job, *count, by))
            }
            Change::Settle { attempt, usage, by, why } => self.settle(*attempt, usage.as_ref(), by, why),
        }
    }

    /// Makes a change once for its key; again, it answers what it answered.
    fn once(
        &self,
        key: &str,
        body: &impl Serialize,
        act: impl FnOnce() -> Result<ChangeAnswer, LedgerError>,
    ) -> Result<ChangeAnswer, LedgerError> {
        let text = |error: serde_json::Error| LedgerError::Broken(error.to_string());
        let body = serde_json::to_string(body).map_err(text)?;
        let known: Option<(String, String)> = self
            .tx
            .query_row("SELECT body, answer FROM once WHERE key = ?1", [key], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((before, answer)) = known {
            if before != body {
                return Err(LedgerError::Refused(format!(
                    "the key {key:?} was used before for something else: take a new one by --key"
                )));
            }
            let answer: ChangeAnswer = serde_json::from_str(&answer).map_err(text)?;
            return Ok(ChangeAnswer { again: true, ..answer });
        }
        let answer = act()?;
        let kept = serde_json::to_string(&answer).map_err(text)?;
        self.tx.execute("INSERT INTO once (key, body, answer) VALUES (?1, ?2, ?3)", (key, body, kept))?;
        Ok(answer)
    }

    fn of_account<'b>(&self, kind: &'b str, account: &'b Account, by: &'b str, why: &'b str) -> Entry<'b> {
        let (user, period) = (account.user.as_str(), account.period);
        Entry { kind, user, period, day: day_start(self.now_s().max(period)), by, why, ..Entry::default() }
    }

    fn answer(&self, account: &Account) -> Result<ChangeAnswer, LedgerError> {
        let balance = Some(self.balance(account)?);
        Ok(ChangeAnswer { again: false, balance, charged: Nanocredits::ZERO, overshoot: Nanocredits::ZERO })
    }

    fn set_limit(
        &self,
        user: &str,
        limit: Option<Nanocredits>,
        length: PeriodLength,
        by: &str,
        why: &str,
    ) -> Result<ChangeAnswer, LedgerError> {
        if limit.is_some_and(|limit| limit < Nanocredits::ZERO) {
            return Err(LedgerError::Refused("a limit cannot be negative".to_owned()));
        }
        let mut account = self.account(user)?;
        let falls = match (account.limit, limit) {
            (Some(before), Some(now)) => now < before,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let unused = self.charged(&account)? == Nanocredits::ZERO
            && self.allowance_held(user, account.period)? == Nanocredits::ZERO;
        let at_once = length == account.length && (!falls || unused);
        if at_once {
            account.limit = limit;
            account.next = None;
        } else {
            account.next = Some((limit, length));
        }
        self.keep_account(&account)?;
        let since = if at_once { "at once" } else { "from the next period on" };
        let told = limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        let why = format!("{told} a {} {since}: {why}", length_text(length));
        let amount = limit.unwrap_or(Nanocredits(-1));
        self.append(&Entry { amount, source: i64::from(at_once), ..self.of_account("limit", &account, by, &why) })?;
        self.answer(&account)
    }

    fn grant(
        &self,
        user: &str,
        amount: Nanocredits,
        expires_s: Option<i64>,
        by: &str,
        why: &str,
    ) -> Result<ChangeAnswer, LedgerError> {
        if amount <= Nanocredits::ZERO {
            return Err(LedgerError::Refused("a grant must be more than zero".to_owned()));
        }
        if expires_s.is_some_and(|expires| expires <= self.now_s()) {
            return Err(LedgerError::Refused("the grant would have expired already".to_owned()));
        }
        let account = self.account(user)?;
        self.tx.execute(
            "INSERT INTO credit_grant (user, amount, expires_s, why) VALUES (?1, ?2, ?3, ?4)",
            (user, amount.0, expires_s, why),
        )?;
        let source = self.tx.last_insert_rowid();
        self.append(&Entry { source, amount, ..self.of_account("grant", &account, by, why) })?;
        self.answer(&account)
    }

    fn adjust(&self, user: &str, amount: Nanocredits, by: &str, why: &str) -> Result<ChangeAnswer, LedgerError> {
        if amount == Nanocredits::ZERO {
            return Err(LedgerError::Refused("a correction by zero changes nothing".to_owned()));
        }
        let mut account = self.account(user)?;
        account.adjusted = account.adjusted.saturating_add(amount);
        self.tx.execute(
            "UPDATE period SET adjusted = adjusted + ?3 WHERE user = ?1 AND start = ?2",
            (&account.user, account.period, amount.0),
        )?;
        self.append(&Entry { amount, ..self.of_account("adjust", &account, by, why) })?;
        self.answer(&account)
    }

    fn set_rates(&self, rates: &RateCard, by: &str) -> Result<ChangeAnswer, LedgerError> {
        let prices = [rates.cpu_per_second, rates.gpu_per_second, rates.per_million_tokens];
        if prices.iter().any(|price| *price < Nanocredits::ZERO) {
            return Err(LedgerError::Refused("a price cannot be negative".to_owned()));
        }
        let rates = RateCard { version: self.rate_card()?.version.saturating_add(1), ..*rates };
        let card = serde_json::to_string(&rates).map_err(|error| LedgerError::Broken(error.to_string()))?;
        // The card that a ledger starts with becomes a row of its own with the first change.
        let first = RateCard::default();
        let first_card = serde_json::to_string(&first).map_err(|error| LedgerError::Broken(error.to_string()))?;
        let insert = "INSERT OR IGNORE INTO rates (version, card, since_us, by) VALUES (?1, ?2, ?3, ?4)";
        self.tx.execute(insert, (signed(first.version), first_card, 0, "jobmeter"))?;
        self.tx.execute(insert, (signed(rates.version), &card, self.now_us, by))?;
        let day = day_start(self.now_s());
        self.append(&Entry { kind: "rates", user: "", period: day, day, by, why: &card, ..Entry::default() })?;
        Ok(ChangeAnswer { again: false, balance: None, charged: Nanocredits::ZERO, overshoot: Nanocredits::ZERO })
    }

    fn stop_job(&self, job: &str, by: &str, why: &str) -> Result<ChangeAnswer, LedgerError> {
        let job = self.job_id(job)?;
        let user: String = self.tx.query_row("SELECT user FROM job WHERE id = ?1", [&job], |row| row.get(0))?;
        let account = self.account(&user)?;
        let again = self.tx.execute("UPDATE job SET stopped = 1 WHERE id = ?1 AND stopped = 0", [&job])? == 0;
        if !again {
            self.append(&Entry { job: Some(&job), ..self.of_account("stop", &account, by, why) })?;
        }
        Ok(ChangeAnswer { again, ..self.answer(&account)? })
    }

    /// The one job that the text names: its id, or a beginning of at least four characters that no other has.
    pub(super) fn job_id(&self, text: &str) -> Result<String, LedgerError> {
        let mut statement = self.tx.prepare_cached(
            "SELECT id FROM job WHERE id = ?1 OR (length(?1) >= 4 AND substr(id, 1, length(?1)) = ?1) \
             ORDER BY id <> ?1, id LIMIT 3",
        )?;
        let found = statement.query_map([text], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        match found.as_slice() {
            [] => Err(LedgerError::Refused(format!("no job {text:?} is known: `jobmeter jobs list` shows them"))),
            [first, ..] if first == text || found.len() == 1 => Ok(first.clone()),
            _ => Err(LedgerError::Refused(format!("{text:?} is the beginning of several jobs: {}", found.join(", ")))),
        }
    }

    fn charge_tokens(&self, job: &str, count: u64, by: &str) -> Result<ChangeAnswer, LedgerError> {
        let job = self.job_id(job)?;
        let (user, before, charged_before, given_up): (String, i64, i64, i64) = self.tx.query_row(
            "SELECT user, tokens, tokens_charged, tokens_overshoot FROM job WHERE id = ?1",
            [&job],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )?;
        let account = self.account(&user)?;
        let total = super::entries::unsigned(before)
            .checked_add(count)
            .filter(|total| i64::try_from(*total).is_ok())
            .ok_or_else(|| LedgerError::Refused(format!("{count} tokens are too many for one job")))?;
        // Priced on the job's total, so that rounding never accumulates; a dearer card does not reprice what was paid.
        let card = self.rate_card()?;
        let price_of = |tokens: u64| card.price(&Usage { tokens, ..Usage::default() }).total;
        let cost = price_of(total).saturating_sub(price_of(super::entries::unsigned(before))).at_least_zero();
        let free = self.free(&account)?;
        let charged = cost.min(sum(&free)).min(self.job_free(&job, None)?);
        let mut tokens = count;
        let parts = take(&free, charged);
        let none = [(Source::ALLOWANCE, Nanocredits::ZERO)];
        for (source, amount) in if parts.is_empty() { none.as_slice() } else { parts.as_slice() } {
            self.pay(&user, account.period, *source, *amount)?;
            let (amount, source) = (*amount, source.0);
            let parts = Price { tokens: amount, total: amount, ..Price::default() };
            let job = Some(job.as_str());
            self.append(&Entry { source, amount, parts, tokens, job, ..self.of_account("tokens", &account, by, "") })?;
            tokens = 0;
        }
        let overshoot = cost.saturating_sub(charged);
        self.tx.execute(
            "UPDATE job SET tokens = ?2, tokens_charged = ?3, tokens_overshoot = ?4 WHERE id = ?1",
            (&job, signed(total), charged_before.saturating_add(charged.0), given_up.saturating_add(overshoot.0)),
        )?;
        let account = self.account(&user)?;
        Ok(ChangeAnswer { charged, overshoot, ..self.answer(&account)? })
    }

    fn settle(&self, id: Uuid, usage: Option<&Usage>, by: &str, why: &str) -> Result<ChangeAnswer, LedgerError> {
        let mut attempt = self.attempt(id)?.ok_or_else(|| LedgerError::Refused(format!("no attempt {id} is known")))?;
        let account = self.account(&attempt.user)?;
        if attempt.ended_us.is_some() {
            return Ok(ChangeAnswer { again: true, ..self.answer(&account)? });
        }
        if self.is_live(&attempt) {
            return Err(LedgerError::Refused(format!(
                "the attempt {id} has a live lease: stop its job by `jobmeter jobs stop {}`",
                attempt.job
            )));
        }
        self.append(&Entry { by, ..self.note("settle", &account, &attempt, why) })?;
        let before = attempt.state.charged.total;
        self.settle_at(&mut attempt, &account, usage)?;
        let charged = attempt.state.charged.total.saturating_sub(before);
        let account = self.account(&attempt.user)?;
        Ok(ChangeAnswer { charged, overshoot: attempt.state.overshoot, ..self.answer(&account)? })
    }

    /// Ends a silent attempt: at a usage, or at all that it holds.
    fn settle_at(&self, attempt: &mut Attempt, account: &Account, usage: Option<&Usage>) -> Result<(), LedgerError> {
        if let Some(usage) = usage {
            attempt.state.usage = attempt.state.usage.merged(usage);
            let price = attempt.state.rates.price(&attempt.state.usage);
            let level = price.total.min(attempt.ceiling());
            self.charge_to(attempt, attempt.period, &price, level)?;
        } else {
            let accounted = attempt.state.accounted;
            let level = accounted.total.saturating_add(self.held(attempt, attempt.period)?);
            // All of the hold counts as CPU time, which is what a silent attempt can have burned.
            let more = level.saturating_sub(accounted.total);
            let price = Price { cpu: accounted.cpu.saturating_add(more), total: level, ..accounted };
            self.charge_to(attempt, attempt.period, &price, level)?;
        }
        self.end(attempt, account, Reason::MeterLost)
    }

    /// What is silent a day after its period is posted as charged; a later report of its spool corrects that.
    pub(super) fn post_silent(&self, account: &Account) -> Result<(), LedgerError> {
        for mut attempt in self.unended(&account.user)? {
            if self.is_live(&attempt) || attempt.period >= account.period {
                continue;
            }
            let ends: i64 = self.tx.query_row(
                "SELECT ends FROM period WHERE user = ?1 AND start = ?2",
                (&attempt.user, attempt.period),
                |row| row.get(0),
            )?;
            if self.now_s() >= ends.saturating_add(DAY_S) {
                self.append(&self.note("settle", account, &attempt, "silent for a day after its period"))?;
                self.settle_at(&mut attempt, account, None)?;
            }
        }
        Ok(())
    }
}
