//! The ledger's epoch: changed when a copy takes the ledger's place, since what was acknowledged after the copy was made
//! is forgotten then.
//!
//! For as long as a lease can last that the forgotten books had granted, nothing new is leased, while running attempts
//! report their totals and the ceilings that they obey. Versions of ceilings begin anew above all that were ever given,
//! so that a sidecar takes what the restored books say for newer than what it has.

use uuid::Uuid;

use super::rows::{Account, Attempt, Before, Entry, Epoch, Period};
use super::{Books, ms_to_us, unsigned};
use crate::domain::calendar::{DAY_S, day_end, day_start};
use crate::domain::capacity::Capacity;
use crate::domain::rating::RateCard;
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::protocol::{OpenAnswer, OpenRequest, Report, Resume};
use crate::ledger::views::PeriodLength;

/// Versions of one epoch begin at its number times this; an epoch's number is the second of the restore.
const VERSIONS_PER_EPOCH: u64 = 1_000_000;

/// Spools keep what was acknowledged for seven days, and no reservation lasts longer than one.
const FORGOTTEN_FOR_US: i64 = 8 * DAY_S * 1_000_000;
/// The newest time that a copy knows is written so often.
const SEEN_STALE_US: i64 = 120_000_000;

/// How long a lease that is out may last yet. One that was granted near a period's end, which is always an end of a UTC
/// day, goes on for a second time with the slice of the next period.
fn longest_lease_us(now_us: i64, lease_us: i64) -> i64 {
    let seconds = |us: i64| us.div_euclid(1_000_000);
    let near_midnight = day_start(seconds(now_us - lease_us)) != day_start(seconds(now_us))
        || day_end(seconds(now_us)) != day_end(seconds(now_us + lease_us));
    if near_midnight { 2 * lease_us } else { lease_us }
}

impl Books<'_> {
    /// Zero for a ledger that was never restored.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn epoch_number(&mut self) -> Result<u64, LedgerError> {
        Ok(self.shelf.epoch()?.number)
    }

    /// Whether a lease that was out when the books were put back can have held a slice of the period that begins at `start_s`.
    pub(super) fn may_have_been_promised(&mut self, start_s: i64) -> Result<bool, LedgerError> {
        let Epoch { number, settles_until_us, .. } = self.shelf.epoch()?;
        Ok(number > 0 && start_s <= settles_until_us.div_euclid(1_000_000))
    }

    /// Whether something may still turn up that a restore forgot: until no spool keeps it, and no reservation lasts, any longer.
    pub(super) fn may_have_forgotten(&mut self) -> Result<bool, LedgerError> {
        let number = self.epoch_number()?;
        Ok(number > 0 && self.now_us <= ms_to_us(number * 1_000) + FORGOTTEN_FOR_US)
    }

    /// The newest time that the copy knew; where it does not say so, a day before it took the ledger's place.
    fn known_us(&mut self) -> Result<i64, LedgerError> {
        let Epoch { number, known_us, .. } = self.shelf.epoch()?;
        let day_before_us = ms_to_us(number * 1_000) - DAY_S * 1_000_000;
        Ok(if known_us > 0 { known_us - SEEN_STALE_US } else { day_before_us })
    }

    /// Begins one, after `before`.
    pub(super) fn begin_epoch(&mut self, before: Before, by: &str, why: &str) -> Result<(), LedgerError> {
        let number = unsigned(self.now_s()).max(before.epoch.max(self.epoch_number()?).saturating_add(1));
        let lease_us = ms_to_us(self.longest_lease_ms()?.max(before.lease_ms));
        let settles_until_us = self.now_us.saturating_add(longest_lease_us(self.now_us, lease_us));
        let known_us = self.shelf.seen_us()?.unwrap_or(0);
        self.shelf.put_epoch(Epoch { number, settles_until_us, known_us });
        self.of_ledger("restore", by, why)
    }

    /// An entry about the ledger as a whole, in the account of nobody.
    pub(super) fn of_ledger(&mut self, kind: &'static str, by: &str, why: &str) -> Result<(), LedgerError> {
        let day = day_start(self.now_s());
        if self.shelf.account("")?.is_none() {
            let limit = Some(Nanocredits::ZERO);
            self.shelf.put_account(Account { limit, ..Account::new("", PeriodLength::Day, (day, day_end(day))) });
        }
        let (by, why) = (by.to_owned(), why.to_owned());
        self.shelf.append(Entry { kind, period: day, day, by, why, ..Entry::default() });
        Ok(())
    }

    /// How long nothing new may be leased yet; zero where it may.
    pub(super) fn settles_in_ms(&mut self) -> Result<u64, LedgerError> {
        let until_us = self.shelf.epoch()?.settles_until_us;
        Ok(unsigned(until_us.saturating_sub(self.now_us)).div_ceil(1_000))
    }

    /// The version of an attempt's next ceiling.
    pub(super) fn next_version(&mut self, attempt: &Attempt) -> Result<u64, LedgerError> {
        let base = self.epoch_number()?.saturating_mul(VERSIONS_PER_EPOCH);
        Ok(attempt.newest().0.max(base).saturating_add(1))
    }

    /// An attempt that obeys a ceiling which the books forgot: they hold it again, as far as something is free.
    pub(super) fn remember_ceiling(
        &mut self,
        attempt: &mut Attempt,
        account: &Account,
        report: &Report,
    ) -> Result<(), LedgerError> {
        let version = report.ceiling_version;
        let known = attempt.ceilings.iter().any(|(known, _)| *known == version);
        let of_earlier_epoch = version < self.epoch_number()?.saturating_mul(VERSIONS_PER_EPOCH);
        // Nobody obeys one that was forgotten who began after that, or for ever.
        let began_later = attempt.started_us >= ms_to_us(self.epoch_number()? * 1_000);
        if known || !of_earlier_epoch || began_later || !self.may_have_forgotten()? {
            return Ok(());
        }
        self.obeys(attempt, account, version, report.ceiling)
    }

    /// It obeys this ceiling; where that cannot be held in full, it is told a lower one.
    fn obeys(
        &mut self,
        attempt: &mut Attempt,
        account: &Account,
        version: u64,
        ceiling: Nanocredits,
    ) -> Result<(), LedgerError> {
        self.cover(attempt, account, ceiling)?;
        let held = attempt.ceiling();
        attempt.ceilings.insert(0, (version, ceiling.min(held)));
        attempt.ceilings.retain(|(known, _)| *known >= version);
        if attempt.newest().0 == version && held < ceiling {
            let next = self.next_version(attempt)?;
            attempt.ceilings.push((next, held));
        }
        Ok(())
    }

    /// Opens an attempt that the books forgot. It runs, or has run: nothing is refused, and what it obeys is held as far as
    /// something is free.
    pub(super) fn reopen(
        &mut self,
        request: &OpenRequest,
        resume: &Resume,
        account: &Account,
    ) -> Result<OpenAnswer, LedgerError> {
        if !self.may_have_forgotten()? {
            return Err(never_opened(request.identity.attempt));
        }
        let job = self.joined_job(request)?;
        self.shelf.put_job(job);
        let rates = self.rates_of_resumed(resume.rates_version)?;
        let mut attempt = self.new_attempt(request, account, rates);
        // It was opened after the copy was made, or the copy would know it.
        let started_us = self.now_us.saturating_sub(ms_to_us(resume.started_ms_ago)).max(self.known_us()?);
        attempt.started_us = started_us.min(self.now_us);
        // Where the clock was set back since the copy was made, nobody knows how long it has run.
        let is_known = started_us <= self.now_us;
        attempt.capacity = is_known.then(|| Capacity::since(started_us, self.now_us, attempt.pace.cpus_ppm));
        attempt.period = self.period_of_resumed(account, resume.period)?;
        self.obeys(&mut attempt, account, resume.ceiling_version, resume.ceiling)?;
        self.opened(request, attempt, account, "forgotten by a restore, and opened again", true)
    }

    /// What the books forgot was opened after the copy was made, and so by the newest card that the copy has, or by one that was forgotten
    /// as well: today's stands for that. An older one is not for the attempt to choose.
    fn rates_of_resumed(&mut self, version: u64) -> Result<RateCard, LedgerError> {
        let restored_us = ms_to_us(self.epoch_number()? * 1_000);
        let known = self.shelf.rates_version_before(restored_us)?;
        match known.filter(|known| version <= *known) {
            Some(known) => self.shelf.rates_of(known),
            None => self.rate_card(),
        }
    }

    /// The period that the attempt says, which the books may have forgotten; never one after the account's.
    fn period_of_resumed(&mut self, account: &Account, period: i64) -> Result<i64, LedgerError> {
        if period >= account.period {
            return Ok(account.period);
        }
        let (_, ends) = Period::bounds(account.length, period);
        let was_over = ends <= self.known_us()?.div_euclid(1_000_000);
        // What days that nobody saw gave was carried over.
        if !was_over && !account.carries_over && !self.has_period(&account.owner, period)? {
            self.ensure_past_period(account, period)?;
        }
        Ok(if self.has_period(&account.owner, period)? { period } else { account.period })
    }
}

pub(super) fn never_opened(attempt: Uuid) -> LedgerError {
    LedgerError::Unknown(format!("the attempt {attempt} was never opened here"))
}
