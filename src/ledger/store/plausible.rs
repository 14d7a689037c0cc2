//! Whether the ledger's clock can be believed. One that is years ahead for a moment would move each account that is looked at into a
//! period years ahead, and lock it there.
//!
//! A time is believed that is no more than a day and a half ahead of what a clock which nobody sets makes of the last one: a wrong time zone, or the
//! first step after a start without a battery, is less than that. Where the machine was started anew since, or another one asks, only a
//! time far beyond the last is not believed. A clock that was set back is believed: periods never move backwards.

use super::row::{Row, Value};
use crate::ledger::LedgerError;

/// So far ahead is believed, in µs: a day that was set wrong, and half of one more.
const AHEAD_US: i64 = 129_600_000_000;
/// And where no clock says how much time has passed: a hundred and fifty days.
const AHEAD_UNKNOWN_US: i64 = 100 * AHEAD_US;
/// What was seen is written so often at most, in µs.
const WRITE_US: i64 = 60_000_000;

/// A clock that nobody sets, since a start of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Monotonic {
    /// Which start of the machine.
    pub boot: String,
    /// How long ago it was, in µs.
    pub us: u64,
}

/// What was believed last.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    us: i64,
    at: Monotonic,
}

/// Judges each time that a store tells.
#[derive(Debug, Default)]
pub(super) struct Plausible {
    seen: Option<Seen>,
    /// As it is written in the books.
    written_us: i64,
}

/// What was believed last, as the books say it.
pub(super) const SEEN: &str = "SELECT seen_us, boot, boottime_us FROM clock";

impl Seen {
    pub(super) fn read(mut row: Row) -> Result<Self, LedgerError> {
        Ok(Self { us: row.int()?, at: Monotonic { boot: row.text()?, us: row.count()? } })
    }

    /// The latest time that is believed now.
    fn until_us(&self, now: &Monotonic) -> i64 {
        let passed = now.us.checked_sub(self.at.us).filter(|_| now.boot == self.at.boot);
        let passed_us = passed.and_then(|passed| i64::try_from(passed).ok());
        let ahead_us = passed_us.map_or(Some(AHEAD_UNKNOWN_US), |passed_us| passed_us.checked_add(AHEAD_US));
        ahead_us.and_then(|ahead_us| self.us.checked_add(ahead_us)).unwrap_or(i64::MAX)
    }
}

impl Plausible {
    /// An error where `now_us` is not believed. `written` reads what the books say was believed last, by whatever process.
    pub(super) fn check(
        &mut self,
        (now_us, at): (i64, Monotonic),
        written: impl FnOnce() -> Result<Option<Seen>, LedgerError>,
    ) -> Result<(), LedgerError> {
        // Another process may have been told since that the clock is right.
        if self.seen.as_ref().is_none_or(|seen| now_us > seen.until_us(&at))
            && let Some(seen) = written()?
        {
            self.written_us = seen.us;
            if now_us > seen.until_us(&at) {
                return Err(implausible(seen.us, now_us));
            }
        }
        self.seen = Some(Seen { us: now_us, at });
        Ok(())
    }

    /// The row that tells others what was believed last, where it is some time since they were told.
    pub(super) fn take_row(&mut self) -> Option<Vec<Value>> {
        let is_due = |seen: &&Seen| !(0..WRITE_US).contains(&(seen.us - self.written_us));
        let seen = self.seen.as_ref().filter(is_due)?;
        self.written_us = seen.us;
        Some(row(seen.us, &seen.at))
    }
}

/// Of the table of what was believed.
pub(super) fn row(now_us: i64, at: &Monotonic) -> Vec<Value> {
    vec![1_i64.into(), now_us.into(), at.boot.as_str().into(), at.us.into()]
}

fn implausible(seen_us: i64, now_us: i64) -> LedgerError {
    let told =
        |us: i64| jiff::Timestamp::from_microsecond(us).map_or_else(|_| format!("{us} µs"), |time| time.to_string());
    LedgerError::Unavailable(format!(
        "the ledger's clock says {}, and it was {} when it was last believed: set the clock right, or say that it is by `jobmeter \
         ledger trust-clock`",
        told(now_us),
        told(seen_us)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_US: i64 = AHEAD_US;

    fn at(boot: &str, us: i64) -> Monotonic {
        Monotonic { boot: boot.to_owned(), us: u64::try_from(us).unwrap() }
    }

    #[test]
    fn a_time_is_believed_that_the_other_clock_makes_possible() {
        let seen = Seen { us: 1_000 * DAY_US, at: at("a", DAY_US) };
        assert_eq!(seen.until_us(&at("a", DAY_US)), 1_001 * DAY_US);
        assert_eq!(seen.until_us(&at("a", 31 * DAY_US)), 1_031 * DAY_US);
        // Another start, another machine, or a clock that cannot be.
        for other in [at("b", 5 * DAY_US), at("a", 0)] {
            assert_eq!(seen.until_us(&other), 1_100 * DAY_US);
        }
    }
}
