//! What people change; each change is an entry with who and why. Limits and grants have files of their own.

use serde::Serialize;
use serde_json::Value;

use super::Books;
use super::grants::Correction;
use super::limits::NewLimit;
use super::rows::{Account, Entry, Job, Key};
use crate::domain::rating::RateCard;
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::asker::Reach;
use crate::ledger::job_name::{JobKey, JobName};
use crate::ledger::views::{Change, ChangeAnswer, NewKey};

/// PostgreSQL's index holds 2 700.
const KEY_KEPT_MAX_BYTES: usize = 1_024;

/// Whose a key of a repeat is. Each has keys of its own: what another one's were used for is told to nobody.
#[derive(Clone, Copy, Debug)]
pub(super) enum Once<'a> {
    OfAccount(&'a str),
    OfJob(&'a JobKey),
}

impl Once<'_> {
    /// How every key begins as it is kept.
    const KEPT: &'static str = "[\"";

    /// A key as it is kept: a list in JSON, in which no part can reach into the next.
    fn kept(self, key: &str) -> String {
        let parts = match self {
            Self::OfAccount(owner) => vec![owner, key],
            Self::OfJob(JobKey { owner, principal, id }) => vec![owner, principal, id, key],
        };
        let text = Value::from(parts).to_string();
        // An index takes no text of any length. A digest begins as no list does.
        if text.len() <= KEY_KEPT_MAX_BYTES { text } else { format!("sha256:{}", crate::ledger::keys::hash_of(&text)) }
    }

    /// Whether a change of before, which stands under its key alone, was one of this account or job.
    fn was_of(self, change: &Value) -> bool {
        let fields = change.as_object().and_then(|variant| variant.values().next());
        let field = |name: &str| fields.and_then(|fields| fields.get(name)?.as_str());
        match self {
            Self::OfAccount(owner) => field("user") == Some(owner),
            // Ids were one among all of them.
            Self::OfJob(job) => job.principal.is_empty() && field("user").is_none() && field("job") == Some(&*job.id),
        }
    }

    /// The same however the job was named: a repeat may say more, or less, than the first one.
    fn same(self, mut change: Value) -> Value {
        if let Self::OfJob(job) = self {
            for fields in change.as_object_mut().into_iter().flat_map(|variant| variant.values_mut()) {
                fields.as_object_mut().map(|fields| fields.insert("job".to_owned(), job.id.as_str().into()));
            }
        }
        change
    }
}

impl Books<'_> {
    /// Makes a change.
    pub(super) fn change(&mut self, change: &Change) -> Result<ChangeAnswer, LedgerError> {
        // The service asks for the right scope as well; this holds whatever the way in.
        if !change.is_of_a_job() && self.asker.reach != Reach::All {
            return Err(LedgerError::Missing("nothing of that kind may be changed by this key".to_owned()));
        }
        match change {
            Change::SetLimit { user, limit, period, since, carry_over, by, why } => {
                let limit = NewLimit { limit: *limit, length: *period, since: *since, carry_over: *carry_over };
                self.set_limit(user, &limit, (by, why))
            }
            Change::Suspend { user, by, why } => self.suspend(user, true, (by, why)),
            Change::Resume { user, by, why } => self.suspend(user, false, (by, why)),
            Change::RepairPeriod { user, by, why } => self.repair_period(user, (by, why)),
            Change::RevokeGrant { user, grant, by, why } => self.revoke_grant(user, *grant, (by, why)),
            Change::Grant { user, amount, expires_at, by, why, key } => {
                self.once(Once::OfAccount(user), key, change, |books| {
                    books.grant(user, *amount, *expires_at, (by, why))
                })
            }
            Change::Adjust { user, amount, grant, expires_at, by, why, key } => {
                let correction = Correction { amount: *amount, grant: *grant, expires_s: *expires_at };
                self.once(Once::OfAccount(user), key, change, |books| books.adjust(user, &correction, (by, why)))
            }
            Change::SetRates { rates, by } => self.set_rates(rates, by),
            Change::SetSettings { settings, by } => self.set_settings(settings, by),
            Change::StopJob { job, by, why } => self.stop_job(job, by, why),
            Change::ChargeTokens { job, count, by, key } => {
                let job = self.known_job(job)?.key;
                self.once(Once::OfJob(&job), key, change, |books| books.charge_tokens(&job, *count, by))
            }
            Change::ReserveTokens { job, count, lasts_ms, new_id, by, key } => {
                let job = self.known_job(job)?.key;
                let reserve = |books: &mut Self| books.reserve_tokens(&job, *count, *lasts_ms, *new_id, by);
                self.once(Once::OfJob(&job), key, change, reserve)
            }
            Change::SettleTokens { job, reservation, count, by, key } => {
                let job = self.known_job(job)?.key;
                let settle = |books: &mut Self| books.settle_tokens(&job, *reservation, *count, by);
                self.once(Once::OfJob(&job), key, change, settle)
            }
            Change::CreateKey { id, hash, key } => self.create_key(id, hash, key),
            Change::RevokeKey { id, by } => self.revoke_key(id, by),
            Change::Settle { attempt, usage, by, why } => self.settle(*attempt, usage.as_ref(), by, why),
        }
    }

    /// Makes a change once for its key; again, it answers what it answered.
    pub(super) fn once(
        &mut self,
        of: Once<'_>,
        key: &str,
        body: &impl Serialize,
        act: impl FnOnce(&mut Self) -> Result<ChangeAnswer, LedgerError>,
    ) -> Result<ChangeAnswer, LedgerError> {
        let text = |error: serde_json::Error| LedgerError::Broken(error.to_string());
        let body = of.same(serde_json::to_value(body).map_err(text)?);
        if let Some((before, answer)) = self.done_before(of, key)? {
            if without_who(before) != without_who(body) {
                return Err(LedgerError::Refused(format!(
                    "the key {key:?} was used before for something else: take a new one by --key"
                )));
            }
            let answer: ChangeAnswer = serde_json::from_str(&answer).map_err(text)?;
            return Ok(ChangeAnswer { again: true, ..answer });
        }
        let answer = act(self)?;
        if answer.refused.is_some() {
            // The same may be asked for again, when more is left.
            return Ok(answer);
        }
        let kept = serde_json::to_string(&answer).map_err(text)?;
        self.shelf.put_once(of.kept(key), body.to_string(), kept);
        Ok(answer)
    }

    /// The change that was made under this key, and its answer. Those of before stand under the key alone, whoever's they are, and say
    /// whom or which job they concern.
    fn done_before(&mut self, of: Once<'_>, key: &str) -> Result<Option<(Value, String)>, LedgerError> {
        let read = |(body, answer): (String, String)| {
            let body = serde_json::from_str(&body).map_err(|error| LedgerError::Broken(error.to_string()))?;
            Ok::<(Value, String), LedgerError>((body, answer))
        };
        if let Some(found) = self.shelf.once(&of.kept(key))? {
            return read(found).map(Some);
        }
        if key.starts_with(Once::KEPT) {
            // It would be found as what somebody else's is kept as.
            return Ok(None);
        }
        let found = self.shelf.once(key)?.map(read).transpose()?;
        Ok(found.filter(|(change, _)| of.was_of(change)))
    }

    pub(super) fn answer(&mut self, account: &Account) -> Result<ChangeAnswer, LedgerError> {
        let balance = Some(self.balance(account)?);
        Ok(ChangeAnswer { balance, ..ChangeAnswer::nothing(false) })
    }

    /// The card names the version that it changes, so that of two who change it at once none undoes what the other did.
    fn set_rates(&mut self, rates: &RateCard, by: &str) -> Result<ChangeAnswer, LedgerError> {
        let before = self.rate_card()?;
        if rates.version != before.version {
            return Err(LedgerError::outdated_rates(before.version, rates.version));
        }
        if *rates == before {
            return Ok(ChangeAnswer::nothing(true));
        }
        let prices = [rates.cpu_per_second, rates.gpu_per_second, rates.per_million_tokens];
        if prices.iter().any(|price| *price < Nanocredits::ZERO) {
            return Err(LedgerError::Refused("a price cannot be negative".to_owned()));
        }
        let rates = RateCard { version: before.version.saturating_add(1), ..rates.clone() };
        let card = serde_json::to_string(&rates).map_err(|error| LedgerError::Broken(error.to_string()))?;
        self.shelf.put_rate_card(rates, by);
        self.of_ledger("rates", by, &card)?;
        Ok(ChangeAnswer::nothing(false))
    }

    /// A key of which only the hash is told. One that follows another of its name works for the same principal.
    fn create_key(&mut self, id: &str, hash: &str, new: &NewKey) -> Result<ChangeAnswer, LedgerError> {
        let NewKey { name, scope, user, principal, expires_at, by } = new.clone();
        user.as_deref().map_or(Ok(()), |user| self.check_user(user))?;
        let principal = principal.unwrap_or_else(|| name.clone());
        if principal.is_empty() {
            return Err(LedgerError::Refused("invalid principal \"\": expected a name that is not empty".to_owned()));
        }
        let too_late =
            |at_s: i64| LedgerError::Refused(format!("invalid end {at_s}: expected seconds since 1970 to come"));
        let ends_us =
            |at_s: i64| at_s.checked_mul(1_000_000).filter(|us| *us > self.now_us).ok_or_else(|| too_late(at_s));
        let ends_us = expires_at.map(ends_us).transpose()?;
        self.of_ledger("key", &by, &format!("{id} ({name}), {}, of {principal}", scope.as_str()))?;
        let (id, hash, created_us) = (id.to_owned(), hash.to_owned(), self.now_us);
        let (revoked_us, used_us) = (None, None);
        self.shelf.put_key(Key { id, hash, name, scope, user, principal, created_us, revoked_us, ends_us, used_us });
        Ok(ChangeAnswer::nothing(false))
    }

    fn revoke_key(&mut self, id: &str, by: &str) -> Result<ChangeAnswer, LedgerError> {
        let unknown = || LedgerError::Missing(format!("no key {id:?} is known: `jobmeter key list` shows them"));
        let key = self.shelf.key(id)?.ok_or_else(unknown)?;
        let again = key.revoked_us.is_some();
        if !again {
            self.of_ledger("key", by, &format!("{id} ({}) revoked", key.name))?;
            self.shelf.put_key(Key { revoked_us: Some(self.now_us), ..key });
        }
        Ok(ChangeAnswer::nothing(again))
    }

    fn stop_job(&mut self, job: &JobName, by: &str, why: &str) -> Result<ChangeAnswer, LedgerError> {
        let job = self.known_job(job)?;
        self.free_up(&job.key.owner);
        let account = self.account(&job.key.owner)?;
        let again = job.stopped;
        if !again {
            let entry = self.of_account("stop", &account, by, why);
            self.shelf.append(Entry { job: Some(job.key.id.clone()), ..entry });
            self.shelf.put_job(Job { stopped: true, ..job });
        }
        Ok(ChangeAnswer { again, ..self.answer(&account)? })
    }

    /// The one job of this name that the asker may change. The beginning of an id is for people who look: what changes something must
    /// not hit `job-12` where `job-1` is not known yet.
    pub(super) fn known_job(&mut self, name: &JobName) -> Result<Job, LedgerError> {
        let missing = || LedgerError::Missing(name.missing());
        let reached = name.clone().within(&self.asker).ok_or_else(missing)?;
        match self.shelf.jobs_named(&reached)?.as_slice() {
            [] => Err(missing()),
            [one] => self.shelf.job(one)?.cloned().ok_or_else(missing),
            several => Err(LedgerError::Refused(name.ambiguous(several))),
        }
    }
}

/// A repeat is the same whoever sends it, since the key with which a service is asked may have been exchanged in between;
/// and whatever id was thought of for what it makes.
fn without_who(mut change: Value) -> Value {
    for fields in change.as_object_mut().into_iter().flat_map(|variant| variant.values_mut()) {
        for who in ["by", "new_id"] {
            fields.as_object_mut().map(|fields| fields.remove(who));
        }
    }
    change
}
