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
use crate::ledger::views::{Change, ChangeAnswer};

impl Books<'_> {
    /// Makes a change.
    pub(super) fn change(&mut self, change: &Change) -> Result<ChangeAnswer, LedgerError> {
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
                self.once(user, key, change, |books| books.grant(user, *amount, *expires_at, (by, why)))
            }
            Change::Adjust { user, amount, grant, expires_at, by, why, key } => {
                let correction = Correction { amount: *amount, grant: *grant, expires_s: *expires_at };
                self.once(user, key, change, |books| books.adjust(user, &correction, (by, why)))
            }
            Change::SetRates { rates, by } => self.set_rates(rates, by),
            Change::StopJob { job, by, why } => self.stop_job(job, by, why),
            Change::ChargeTokens { job, count, by, key } => {
                let owner = self.known_job(job)?.owner;
                self.once(&owner, key, change, |books| books.charge_tokens(job, *count, by))
            }
            Change::ReserveTokens { job, count, lasts_ms, new_id, by, key } => {
                let owner = self.known_job(job)?.owner;
                self.once(&owner, key, change, |books| books.reserve_tokens(job, *count, *lasts_ms, *new_id, by))
            }
            Change::SettleTokens { job, reservation, count, by, key } => {
                let owner = self.known_job(job)?.owner;
                self.once(&owner, key, change, |books| books.settle_tokens(job, *reservation, *count, by))
            }
            Change::CreateKey { id, hash, name, scope, user, by } => {
                user.as_deref().map_or(Ok(()), |user| self.check_user(user))?;
                let user = user.clone();
                let (created_us, revoked_us) = (self.now_us, None);
                let (id, hash, name) = (id.clone(), hash.clone(), name.clone());
                self.of_ledger("key", by, &format!("{id} ({name}), {}", scope.as_str()))?;
                self.shelf.put_key(Key { id, hash, name, scope: *scope, user, created_us, revoked_us });
                Ok(ChangeAnswer::nothing(false))
            }
            Change::RevokeKey { id, by } => self.revoke_key(id, by),
            Change::Settle { attempt, usage, by, why } => self.settle(*attempt, usage.as_ref(), by, why),
        }
    }

    /// Makes a change of an account once for its key; again, it answers what it answered. Each account has keys of its own: what
    /// another one's were used for is told to nobody.
    pub(super) fn once(
        &mut self,
        owner: &str,
        key: &str,
        body: &impl Serialize,
        act: impl FnOnce(&mut Self) -> Result<ChangeAnswer, LedgerError>,
    ) -> Result<ChangeAnswer, LedgerError> {
        if !self.may(owner) {
            return Err(LedgerError::Missing(format!("no account {owner:?} is known to this key")));
        }
        let text = |error: serde_json::Error| LedgerError::Broken(error.to_string());
        let body = serde_json::to_value(body).map_err(text)?;
        if let Some((before, answer)) = self.done_before(owner, key)? {
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
        self.shelf.put_once(key_of(owner, key), body.to_string(), kept);
        Ok(answer)
    }

    /// The change that was made under this key of an account, and its answer. Those of before stand under the key alone, whoever's
    /// they are, and say whom or which job they concern.
    fn done_before(&mut self, owner: &str, key: &str) -> Result<Option<(Value, String)>, LedgerError> {
        let read = |(body, answer): (String, String)| {
            let body = serde_json::from_str(&body).map_err(|error| LedgerError::Broken(error.to_string()))?;
            Ok::<(Value, String), LedgerError>((body, answer))
        };
        if let Some(found) = self.shelf.once(&key_of(owner, key))? {
            return read(found).map(Some);
        }
        let Some(found) = self.shelf.once(key)?.map(read).transpose()? else { return Ok(None) };
        let fields = found.0.as_object().and_then(|variant| variant.values().next());
        let field = |name: &str| fields.and_then(|fields| fields.get(name)?.as_str());
        let is_owners = match (field("user"), field("job")) {
            (Some(user), _) => user == owner,
            (None, Some(job)) => self.shelf.job(job)?.is_some_and(|job| job.owner == owner),
            (None, None) => false,
        };
        Ok(Some(found).filter(|_| is_owners))
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

    fn stop_job(&mut self, job: &str, by: &str, why: &str) -> Result<ChangeAnswer, LedgerError> {
        let job = self.known_job(job)?;
        self.free_up(&job.owner);
        let account = self.account(&job.owner)?;
        let again = job.stopped;
        if !again {
            let entry = self.of_account("stop", &account, by, why);
            self.shelf.append(Entry { job: Some(job.id.clone()), ..entry });
            self.shelf.put_job(Job { stopped: true, ..job });
        }
        Ok(ChangeAnswer { again, ..self.answer(&account)? })
    }

    /// The job of this id. The beginning of an id is for people who look: what changes something must not hit `job-12` where
    /// `job-1` is not known yet.
    pub(super) fn known_job(&mut self, id: &str) -> Result<Job, LedgerError> {
        let missing = || LedgerError::Missing(format!("no job {id:?} is known: `jobmeter jobs list` shows them"));
        self.shelf.job(id)?.cloned().filter(|job| self.may(&job.owner)).ok_or_else(missing)
    }
}

/// A key as it is kept: with whose it is. No key that a service or a command takes begins with a control character.
fn key_of(owner: &str, key: &str) -> String {
    format!("\u{1f}{owner}\u{1f}{key}")
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
