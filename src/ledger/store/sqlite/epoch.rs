//! The ledger's epoch: changed when a copy takes the ledger's place, since what was acknowledged after the copy was made
//! is forgotten then.
//!
//! For as long as a lease can last that the forgotten books had granted, nothing new is leased, while running attempts
//! report their totals and the ceilings that they obey. Versions of ceilings begin anew above all that were ever given,
//! so that a sidecar takes what the restored books say for newer than what it has.

use rusqlite::OptionalExtension;
use uuid::Uuid;

use super::Books;
use super::accounts::Account;
use super::attempts::ms_to_us;
use super::entries::{Entry, unsigned};
use super::row::Attempt;
use crate::domain::calendar::{day_end, day_start};
use crate::domain::lease::LEASE_MS;
use crate::domain::rating::RateCard;
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::protocol::{OpenAnswer, OpenRequest, Report, Resume};

/// Versions of one epoch begin at its number times this; an epoch's number is the second of the restore.
const VERSIONS_PER_EPOCH: u64 = 1_000_000;

/// Since when the books are as they are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Epoch {
    /// Zero for a ledger that was never restored.
    pub(super) number: u64,
    settles_until_us: i64,
}

/// How long a lease that is out may last yet. One that was granted near a period's end, which is always an end of a UTC
/// day, goes on for a second time with the slice of the next period.
fn longest_lease_us(now_us: i64) -> i64 {
    let lease_us = ms_to_us(LEASE_MS);
    let seconds = |us: i64| us.div_euclid(1_000_000);
    let near_midnight = day_start(seconds(now_us - lease_us)) != day_start(seconds(now_us))
        || day_end(seconds(now_us)) != day_end(seconds(now_us + lease_us));
    if near_midnight { 2 * lease_us } else { lease_us }
}

impl Books<'_> {
    pub(super) fn epoch(&self) -> Result<Epoch, LedgerError> {
        let mut statement =
            self.tx.prepare_cached("SELECT number, settles_until_us FROM epoch ORDER BY number DESC LIMIT 1")?;
        let epoch =
            statement.query_row([], |row| Ok(Epoch { number: unsigned(row.get(0)?), settles_until_us: row.get(1)? }));
        Ok(epoch.optional()?.unwrap_or_default())
    }

    /// Begins one, after `before`.
    pub(super) fn begin_epoch(&self, before: u64, by: &str, why: &str) -> Result<(), LedgerError> {
        let number = unsigned(self.now_s()).max(before.max(self.epoch()?.number).saturating_add(1));
        self.tx.execute(
            "INSERT INTO epoch (number, settles_until_us) VALUES (?1, ?2)",
            (super::entries::signed(number), self.now_us.saturating_add(longest_lease_us(self.now_us))),
        )?;
        let day = day_start(self.now_s());
        self.append(&Entry { kind: "restore", user: "", period: day, day, by, why, ..Entry::default() })
    }

    /// How long nothing new may be leased yet; zero where it may.
    pub(super) fn settles_in_ms(&self) -> Result<u64, LedgerError> {
        Ok(unsigned(self.epoch()?.settles_until_us.saturating_sub(self.now_us)).div_ceil(1_000))
    }

    /// The version of an attempt's next ceiling.
    pub(super) fn next_version(&self, attempt: &Attempt) -> Result<u64, LedgerError> {
        let base = self.epoch()?.number.saturating_mul(VERSIONS_PER_EPOCH);
        Ok(attempt.newest().0.max(base).saturating_add(1))
    }

    /// An attempt that obeys a ceiling which the books forgot: they hold it again, as far as something is free.
    pub(super) fn remember_ceiling(
        &self,
        attempt: &mut Attempt,
        account: &Account,
        report: &Report,
    ) -> Result<(), LedgerError> {
        let version = report.ceiling_version;
        let known = attempt.state.ceilings.iter().any(|(known, _)| *known == version);
        let of_earlier_epoch = version < self.epoch()?.number.saturating_mul(VERSIONS_PER_EPOCH);
        if known || !of_earlier_epoch {
            return Ok(());
        }
        self.obeys(attempt, account, version, report.ceiling)
    }

    /// It obeys this ceiling; where that cannot be held in full, it is told a lower one.
    fn obeys(
        &self,
        attempt: &mut Attempt,
        account: &Account,
        version: u64,
        ceiling: Nanocredits,
    ) -> Result<(), LedgerError> {
        self.cover(attempt, account, ceiling)?;
        let held = attempt.ceiling();
        attempt.state.ceilings.insert(0, (version, ceiling.min(held)));
        attempt.state.ceilings.retain(|(known, _)| *known >= version);
        if attempt.newest().0 == version && held < ceiling {
            let next = self.next_version(attempt)?;
            attempt.state.ceilings.push((next, held));
        }
        Ok(())
    }

    /// Opens an attempt that the books forgot. It runs, or has run: nothing is refused, and what it obeys is held as far as
    /// something is free.
    pub(super) fn reopen(
        &self,
        request: &OpenRequest,
        resume: &Resume,
        account: &Account,
    ) -> Result<OpenAnswer, LedgerError> {
        let identity = &request.identity;
        if self.epoch()?.number == 0 {
            return Err(never_opened(identity.attempt));
        }
        self.join_job(request)?;
        let mut attempt = self.new_attempt(request, account)?;
        attempt.state.rates = self.rates_of(resume.rates_version)?;
        attempt.started_us = self.now_us.saturating_sub(ms_to_us(resume.started_ms_ago));
        attempt.period = self.period_of_resumed(account, resume.period)?;
        self.keep(&attempt)?;
        self.obeys(&mut attempt, account, resume.ceiling_version, resume.ceiling)?;
        self.append(&self.note("open", account, &attempt, "forgotten by a restore, and opened again"))?;
        let lease = self.lease(&mut attempt, account, crate::domain::lease::REPORT_SOON_MS)?;
        self.keep(&attempt)?;
        let balance = self.balance(account)?;
        Ok(OpenAnswer::Opened { rates: attempt.state.rates, lease, balance, again: true })
    }

    /// The card that the attempt was opened with, or today's where the restore forgot that as well.
    fn rates_of(&self, version: u64) -> Result<RateCard, LedgerError> {
        let known = self.rates()?.into_iter().map(|known| known.rates).find(|rates| rates.version == version);
        known.map_or_else(|| self.rate_card(), Ok)
    }

    /// The period that the attempt says, which the books may have forgotten; never one after the account's.
    fn period_of_resumed(&self, account: &Account, period: i64) -> Result<i64, LedgerError> {
        if period >= account.period {
            return Ok(account.period);
        }
        self.insert_past_period(account, period)?;
        Ok(if self.has_period(&account.user, period)? { period } else { account.period })
    }
}

pub(super) fn never_opened(attempt: Uuid) -> LedgerError {
    LedgerError::Unknown(format!("the attempt {attempt} was never opened here"))
}
