//! What an account may come to over all time, so that each sum over its entries, attempts, jobs and days can be made.
//!
//! Whatever is used is counted once, when it is taken in: its price four times, and its weighted time in µs and its tokens once. All
//! of it together is at most 2^62 in each account. What an entry, a day, a job or an attempt says of any one of them is a part of
//! that, and so is every sum of such parts, in whatever order it is made: no sum of credits is above 2^60 nanocredits, a thousand
//! million credits, no sum of time above 146 000 years, and none leaves 64 bits. Four times, since a rate is measured over a fifth of a
//! second at least: the rates of all attempts together are below 5 · 2^60 nanocredits a second.

use super::Books;
use super::rows::{AccountSums, Attempt, JobSums};
use crate::domain::rating::RateCard;
use crate::domain::units::{Nanocredits, OutOfRange};
use crate::domain::usage::Usage;
use crate::ledger::LedgerError;

/// No account comes to more.
const TURNOVER_MAX: i64 = 1 << 62;
/// How often credits count in it.
const CREDITS_COUNT: i128 = 4;

/// What a usage comes to. A price or a time that ends at the end of its range is more than any account may come to.
fn extent(card: &RateCard, usage: &Usage) -> i128 {
    let (price, time) = (card.price(usage).total, card.virtual_time(usage));
    let counts = [time.cpu_seconds.0, time.gpu_seconds.0, usage.tokens].map(i128::from);
    i128::from(price.0) * CREDITS_COUNT + counts.iter().sum::<i128>()
}

/// Whether the columns have room for it, whatever its weight is.
fn is_kept_whole(usage: &Usage) -> bool {
    let counts = [usage.cpu_used_seconds.0, usage.cpu_allocated_seconds.0, usage.tokens];
    counts.iter().all(|count| i64::try_from(*count).is_ok())
}

impl Books<'_> {
    /// The attempt has used so much by now.
    ///
    /// # Errors
    /// Where its account would come to more than any may.
    pub(super) fn take_in(&mut self, attempt: &mut Attempt, usage: &Usage) -> Result<(), LedgerError> {
        let merged = attempt.usage.merged(usage);
        if merged == attempt.usage {
            return Ok(());
        }
        if !is_kept_whole(&merged) {
            return Err(too_much(&attempt.owner));
        }
        let more = extent(&attempt.rates, &merged) - extent(&attempt.rates, &attempt.usage);
        self.turn_over(&attempt.owner, more)?;
        attempt.usage = merged;
        Ok(())
    }

    /// So many credits and tokens more, beside what attempts used.
    ///
    /// # Errors
    /// Where the account would come to more than any may.
    pub(super) fn take_in_credits(
        &mut self,
        owner: &str,
        credits: Nanocredits,
        tokens: u64,
    ) -> Result<(), LedgerError> {
        self.turn_over(owner, i128::from(credits.0) * CREDITS_COUNT + i128::from(tokens))
    }

    /// So many credits the account may come to yet.
    pub(super) fn room_to_use(&mut self, owner: &str) -> Result<Nanocredits, LedgerError> {
        let turnover = self.shelf.account(owner)?.map_or(0, |account| account.turnover);
        Ok(Nanocredits((TURNOVER_MAX - turnover.clamp(0, TURNOVER_MAX)) / 4))
    }

    fn turn_over(&mut self, owner: &str, more: i128) -> Result<(), LedgerError> {
        if more <= 0 {
            return Ok(());
        }
        let before = self.shelf.account(owner)?.map_or(0, |account| account.turnover);
        let turnover = i64::try_from(i128::from(before) + more).ok().filter(|turnover| *turnover <= TURNOVER_MAX);
        let turnover = turnover.ok_or_else(|| too_much(owner))?;
        self.shelf.change_account(owner, |account| account.turnover = turnover);
        Ok(())
    }
}

fn too_much(owner: &str) -> LedgerError {
    LedgerError::Refused(format!(
        "the account {owner:?} would come to more than its sums can hold, a thousand million credits, 146 000 years or as many tokens: \
         look for a meter or a price that is wrong"
    ))
}

fn exchanged(sum: Nanocredits, before: Nanocredits, after: Nanocredits) -> Result<Nanocredits, OutOfRange> {
    sum.less(before)?.plus(after)
}

impl AccountSums {
    /// With one attempt's part exchanged.
    ///
    /// # Errors
    /// Where no amount can be that large.
    pub fn exchanged(self, before: &Self, after: &Self) -> Result<Self, OutOfRange> {
        Ok(Self {
            live: self.live - before.live + after.live,
            beyond: exchanged(self.beyond, before.beyond, after.beyond)?,
            silent: exchanged(self.silent, before.silent, after.silent)?,
            rate: exchanged(self.rate, before.rate, after.rate)?,
            ..self
        })
    }
}

impl JobSums {
    /// Of what is set aside for tokens.
    #[must_use]
    pub fn held(amount: Nanocredits) -> Self {
        Self { held: amount, ..Self::default() }
    }

    /// With one attempt's part exchanged.
    ///
    /// # Errors
    /// Where no amount can be that large.
    pub fn exchanged(self, before: &Self, after: &Self) -> Result<Self, OutOfRange> {
        Ok(Self {
            charged: exchanged(self.charged, before.charged, after.charged)?,
            held: exchanged(self.held, before.held, after.held)?,
            beyond: exchanged(self.beyond, before.beyond, after.beyond)?,
        })
    }
}
