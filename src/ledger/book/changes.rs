//! What people change: limits, grants, corrections, rates and stops; each is an entry with who and why.

use serde::Serialize;

use super::Books;
use super::alerts::Touched;
use super::rows::{Account, Entry, Grant, Job, Key, Period};
use crate::domain::rating::RateCard;
use crate::domain::units::{NANOCREDITS_MAX, Nanocredits};
use crate::ledger::LedgerError;
use crate::ledger::views::{Change, ChangeAnswer, PeriodLength};

impl Books<'_> {
    /// Makes a change.
    pub(super) fn change(&mut self, change: &Change) -> Result<ChangeAnswer, LedgerError> {
        match change {
            Change::SetLimit { user, limit, period, by, why } => self.set_limit(user, *limit, *period, by, why),
            Change::Grant { user, amount, expires_at, by, why, key } => {
                self.once(key, change, |books| books.grant(user, *amount, *expires_at, by, why))
            }
            Change::Adjust { user, amount, by, why, key } => {
                self.once(key, change, |books| books.adjust(user, *amount, by, why))
            }
            Change::SetRates { rates, by } => self.set_rates(rates, by),
            Change::StopJob { job, by, why } => self.stop_job(job, by, why),
            Change::ChargeTokens { job, count, by, key } => {
                self.once(key, change, |books| books.charge_tokens(job, *count, by))
            }
            Change::ReserveTokens { job, count, lasts_ms, new_id, by, key } => {
                self.once(key, change, |books| books.reserve_tokens(job, *count, *lasts_ms, *new_id, by))
            }
            Change::SettleTokens { job, reservation, count, by, key } => {
                self.once(key, change, |books| books.settle_tokens(job, *reservation, *count, by))
            }
            Change::CreateKey { id, hash, name, scope, user, by } => {
                let user = user.clone();
                let (created_us, revoked_us) = (self.now_us, None);
                let (id, hash, name) = (id.clone(), hash.clone(), name.clone());
                self.of_ledger("key", by, &format!("{id} ({name}), {}", scope.as_str()))?;
                self.shelf.put_key(Key { id, hash, name, scope: *scope, user, created_us, revoked_us });
                Ok(nothing_moved(false))
            }
            Change::RevokeKey { id, by } => self.revoke_key(id, by),
            Change::Settle { attempt, usage, by, why } => self.settle(*attempt, usage.as_ref(), by, why),
        }
    }

    /// Makes a change once for its key; again, it answers what it answered.
    pub(super) fn once(
        &mut self,
        key: &str,
        body: &impl Serialize,
        act: impl FnOnce(&mut Self) -> Result<ChangeAnswer, LedgerError>,
    ) -> Result<ChangeAnswer, LedgerError> {
        let text = |error: serde_json::Error| LedgerError::Broken(error.to_string());
        let body = serde_json::to_value(body).map_err(text)?;
        if let Some((before, answer)) = self.shelf.once(key)? {
            let before: serde_json::Value = serde_json::from_str(&before).map_err(text)?;
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
        self.shelf.put_once(key.to_owned(), body.to_string(), kept);
        Ok(answer)
    }

    pub(super) fn answer(&mut self, account: &Account) -> Result<ChangeAnswer, LedgerError> {
        let balance = Some(self.balance(account)?);
        Ok(ChangeAnswer { balance, ..nothing_moved(false) })
    }

    fn set_limit(
        &mut self,
        user: &str,
        limit: Option<Nanocredits>,
        length: PeriodLength,
        by: &str,
        why: &str,
    ) -> Result<ChangeAnswer, LedgerError> {
        if limit.is_some_and(|limit| limit < Nanocredits::ZERO) {
            return Err(LedgerError::Refused("a limit cannot be negative".to_owned()));
        }
        self.free_up(user);
        self.touch(Touched::Changed(user.to_owned()));
        let account = self.account(user)?;
        self.check_given(&account, limit.unwrap_or_default(), Nanocredits::ZERO)?;
        let period = self.period(user, account.period)?;
        let unused = period.charged == Nanocredits::ZERO && period.held == Nanocredits::ZERO;
        let falls = match (account.limit, limit) {
            (Some(before), Some(now)) => now < before,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let at_once = length == account.length && (!falls || unused);
        self.shelf.change_account(user, |account| {
            if at_once {
                (account.limit, account.next) = (limit, None);
            } else {
                account.next = Some((limit, length));
            }
        });
        if at_once {
            self.shelf.change_period(user, account.period, |period| period.limit = limit);
        }
        let since = if at_once { "at once" } else { "from the next period on" };
        let told = limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        let why = format!("{told} a {} {since}: {why}", length.as_str());
        let amount = limit.unwrap_or(Nanocredits(-1));
        let entry = self.of_account("limit", &account, by, &why);
        self.shelf.append(Entry { amount, source: i64::from(at_once), ..entry });
        self.answer(&account)
    }

    fn grant(
        &mut self,
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
        self.free_up(user);
        self.touch(Touched::Changed(user.to_owned()));
        let account = self.account(user)?;
        self.check_given(&account, amount, Nanocredits::ZERO)?;
        let id = self.shelf.new_grant_id(user)?;
        let (charged, held) = (Nanocredits::ZERO, Nanocredits::ZERO);
        let owner = user.to_owned();
        self.shelf.put_grant(Grant { id, owner, amount, charged, held, expires_s, why: why.to_owned() });
        let entry = self.of_account("grant", &account, by, why);
        self.shelf.append(Entry { source: id, amount, ..entry });
        self.answer(&account)
    }

    fn adjust(&mut self, user: &str, amount: Nanocredits, by: &str, why: &str) -> Result<ChangeAnswer, LedgerError> {
        if amount == Nanocredits::ZERO {
            return Err(LedgerError::Refused("a correction by zero changes nothing".to_owned()));
        }
        self.free_up(user);
        self.touch(Touched::Changed(user.to_owned()));
        let account = self.account(user)?;
        self.check_given(&account, Nanocredits::ZERO, amount)?;
        let add = |period: &mut Period| period.adjusted = period.adjusted.saturating_add(amount);
        self.shelf.change_period(user, account.period, add);
        let entry = self.of_account("adjust", &account, by, why);
        self.shelf.append(Entry { amount, ..entry });
        self.answer(&account)
    }

    /// What an account is given, and what it is corrected by, stays where every reader can sum it: nothing ends at the end of a range.
    fn check_given(
        &mut self,
        account: &Account,
        given: Nanocredits,
        corrected: Nanocredits,
    ) -> Result<(), LedgerError> {
        let adjusted = self.period(&account.owner, account.period)?.adjusted;
        let grants = self.shelf.grants(&account.owner)?;
        let granted: i128 = grants.iter().map(|grant| i128::from(grant.amount.0)).sum();
        let (given, corrected) = (granted + i128::from(given.0), i128::from(adjusted.0) + i128::from(corrected.0));
        let most = i128::from(NANOCREDITS_MAX);
        if given <= most && (-most..=most).contains(&corrected) {
            return Ok(());
        }
        let why = "an account is given a thousand million credits at most, and corrected by as much";
        Err(LedgerError::Refused(why.to_owned()))
    }

    /// The card names the version that it changes, so that of two who change it at once none undoes what the other did.
    fn set_rates(&mut self, rates: &RateCard, by: &str) -> Result<ChangeAnswer, LedgerError> {
        let before = self.rate_card()?;
        if rates.version != before.version {
            return Err(LedgerError::Refused(format!(
                "the rate card is at version {} by now, and this changes version {}: read it again",
                before.version, rates.version
            )));
        }
        if *rates == before {
            return Ok(nothing_moved(true));
        }
        let prices = [rates.cpu_per_second, rates.gpu_per_second, rates.per_million_tokens];
        if prices.iter().any(|price| *price < Nanocredits::ZERO) {
            return Err(LedgerError::Refused("a price cannot be negative".to_owned()));
        }
        let rates = RateCard { version: before.version.saturating_add(1), ..rates.clone() };
        let card = serde_json::to_string(&rates).map_err(|error| LedgerError::Broken(error.to_string()))?;
        self.shelf.put_rate_card(rates, by);
        self.of_ledger("rates", by, &card)?;
        Ok(nothing_moved(false))
    }

    fn revoke_key(&mut self, id: &str, by: &str) -> Result<ChangeAnswer, LedgerError> {
        let unknown = || LedgerError::Missing(format!("no key {id:?} is known: `jobmeter key list` shows them"));
        let key = self.shelf.key(id)?.ok_or_else(unknown)?;
        let again = key.revoked_us.is_some();
        if !again {
            self.of_ledger("key", by, &format!("{id} ({}) revoked", key.name))?;
            self.shelf.put_key(Key { revoked_us: Some(self.now_us), ..key });
        }
        Ok(nothing_moved(again))
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

/// The answer to what concerns no account.
const fn nothing_moved(again: bool) -> ChangeAnswer {
    let (charged, overshoot) = (Nanocredits::ZERO, Nanocredits::ZERO);
    ChangeAnswer { again, balance: None, charged, overshoot, reserved: None, refused: None }
}

/// A repeat is the same whoever sends it, since the key with which a service is asked may have been exchanged in between;
/// and whatever id was thought of for what it makes.
fn without_who(mut change: serde_json::Value) -> serde_json::Value {
    for fields in change.as_object_mut().into_iter().flat_map(|variant| variant.values_mut()) {
        for who in ["by", "new_id"] {
            fields.as_object_mut().map(|fields| fields.remove(who));
        }
    }
    change
}
