//! How much of the books one principal may take up: attempts that run, reservations that last, and what is kept of it for ever.
//! None of it harms what runs: reports, last words, settlements and whoever comes back are never refused for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::pool::Sessions;
use super::problem::Problem;
use crate::ledger::asker::Asker;
use crate::sys::clock::{Clock, SystemClock};

/// What was counted is believed so long; where a quota seems to be reached, for the first of these times.
const RECOUNT_US: u64 = 1_000_000;
const STALE_US: u64 = 60_000_000;
const DAY_US: u64 = 86_400_000_000;
/// What an opening, a refusal or a reservation takes beside what was sent, in bytes: rows, and what finds them.
const ROW_BYTES: u64 = 1_024;
const MIB: u64 = 1 << 20;

/// Of each principal, with what raises it.
#[derive(Clone, Copy, Debug)]
pub struct Quotas {
    /// Attempts that have not ended.
    pub attempts: u64,
    /// Reservations that have not ended.
    pub reservations: u64,
    /// Kept of what is asked of one service in a day.
    pub kept_mib: u64,
}

/// What there is of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Attempts,
    Reservations,
}

/// What each principal has taken up, as far as it is known.
#[derive(Debug)]
pub(super) struct Taken {
    quotas: Quotas,
    of: Mutex<HashMap<String, Principal>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Principal {
    attempts: Counted,
    reservations: Counted,
    day_from_us: u64,
    kept_bytes: u64,
}

/// What the books said, and what was added since.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    at_us: Option<u64>,
    found: u64,
    since: u64,
}

/// What is to be done about one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    There,
    /// The books have to be counted first.
    Unknown,
    /// So many are there.
    None(u64),
}

impl Taken {
    pub(super) fn new(quotas: Quotas) -> Self {
        Self { quotas, of: Mutex::default() }
    }

    fn of(&self) -> MutexGuard<'_, HashMap<String, Principal>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// More is never counted.
    pub(super) fn most(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Attempts => self.quotas.attempts,
            Kind::Reservations => self.quotas.reservations,
        }
    }

    /// Whether there is room for one more, which is counted then.
    pub(super) fn take(&self, principal: &str, kind: Kind, now_us: u64) -> Room {
        let most = self.most(kind);
        let mut of = self.of();
        let counted = of.entry(principal.to_owned()).or_default().counted(kind);
        let age_us = counted.at_us.map_or(u64::MAX, |at_us| now_us.abs_diff(at_us));
        let count = counted.found + counted.since;
        if age_us > STALE_US || (count >= most && age_us > RECOUNT_US) {
            // Who asks meanwhile need not count as well.
            counted.at_us = Some(now_us);
            return Room::Unknown;
        }
        if count >= most {
            return Room::None(count);
        }
        counted.since += 1;
        Room::There
    }

    /// What the books say.
    pub(super) fn found(&self, principal: &str, kind: Kind, found: u64, now_us: u64) {
        let counted = Counted { at_us: Some(now_us), found, since: 0 };
        *self.of().entry(principal.to_owned()).or_default().counted(kind) = counted;
    }

    /// So many bytes more are kept of what this principal asks.
    pub(super) fn keep(&self, principal: &str, bytes: usize, now_us: u64) {
        let mut of = self.of();
        let of = of.entry(principal.to_owned()).or_default();
        if now_us.abs_diff(of.day_from_us) >= DAY_US {
            (of.day_from_us, of.kept_bytes) = (now_us, 0);
        }
        of.kept_bytes += u64::try_from(bytes).unwrap_or(0) + ROW_BYTES;
    }

    /// Whether more may be kept.
    pub(super) fn may_keep(&self, principal: &str, now_us: u64) -> Result<(), Problem> {
        let of = self.of().get(principal).copied().unwrap_or_default();
        let most = self.quotas.kept_mib;
        let left_us = DAY_US.checked_sub(now_us.abs_diff(of.day_from_us)).filter(|left_us| *left_us > 0);
        let Some(left_us) = left_us else { return Ok(()) };
        if of.kept_bytes / MIB < most {
            return Ok(());
        }
        let hours = left_us.div_ceil(DAY_US / 24);
        Err(Problem::quota(format!(
            "this service has kept {} MiB of what the principal {principal:?} has asked for today, and its quota is {most}: wait {hours} h, \
             or have who runs the service raise --quota-kept-mib",
            of.kept_bytes / MIB
        )))
    }

    /// Why there is no room.
    pub(super) fn refused(&self, principal: &str, kind: Kind, count: u64) -> Problem {
        let most = self.most(kind);
        let (what, option) = match kind {
            Kind::Attempts => ("attempts that have not ended", "--quota-attempts"),
            Kind::Reservations => ("reservations of tokens that have not ended", "--quota-reservations"),
        };
        Problem::quota(format!(
            "the principal {principal:?} has {count} {what}, and its quota is {most}: end some of them, or have who runs the service raise \
             {option}"
        ))
    }
}

impl Taken {
    /// Whether an attempt may be opened for this asker; one that is there already may always. `bytes` were sent.
    pub(super) async fn may_open(
        &self,
        pool: &Arc<Sessions>,
        asker: &Asker,
        attempt: Uuid,
        bytes: usize,
    ) -> Result<(), Problem> {
        let now_us = SystemClock.boottime_us();
        let room = match self.may_keep(&asker.principal, now_us) {
            Ok(()) => self.room(pool, &asker.principal, Kind::Attempts, now_us).await,
            refused => refused,
        };
        if let Err(problem) = room
            && pool.with(move |ledger| ledger.attempt_stops(&[attempt])).await?.is_empty()
        {
            return Err(problem);
        }
        self.keep(&asker.principal, bytes, now_us);
        Ok(())
    }

    /// Whether tokens may be reserved for this asker.
    pub(super) async fn may_reserve(&self, pool: &Arc<Sessions>, asker: &Asker) -> Result<(), Problem> {
        let now_us = SystemClock.boottime_us();
        self.may_keep(&asker.principal, now_us)?;
        self.room(pool, &asker.principal, Kind::Reservations, now_us).await
    }

    async fn room(&self, pool: &Arc<Sessions>, principal: &str, kind: Kind, now_us: u64) -> Result<(), Problem> {
        let mut room = self.take(principal, kind, now_us);
        if room == Room::Unknown {
            let (of, most) = (principal.to_owned(), self.most(kind));
            let found = pool.with(move |ledger| match kind {
                Kind::Attempts => ledger.attempts_of_principal(&of, most),
                Kind::Reservations => ledger.reservations_of_principal(&of, most),
            });
            self.found(principal, kind, found.await?, now_us);
            room = self.take(principal, kind, now_us);
        }
        if let Room::None(count) = room { Err(self.refused(principal, kind, count)) } else { Ok(()) }
    }
}

impl Principal {
    fn counted(&mut self, kind: Kind) -> &mut Counted {
        match kind {
            Kind::Attempts => &mut self.attempts,
            Kind::Reservations => &mut self.reservations,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTAS: Quotas = Quotas { attempts: 3, reservations: 1, kept_mib: 1 };

    #[test]
    fn the_books_are_counted_where_a_quota_seems_to_be_reached() {
        let taken = Taken::new(QUOTAS);
        let take = |now_us| taken.take("a", Kind::Attempts, now_us);
        assert_eq!(take(5), Room::Unknown);
        taken.found("a", Kind::Attempts, 1, 5);
        assert_eq!([take(5), take(6), take(7)], [Room::There, Room::There, Room::None(3)]);
        assert_eq!(take(7 + RECOUNT_US), Room::Unknown, "some may have ended");
        assert_eq!(take(7 + RECOUNT_US), Room::None(3), "one of those who ask counts");
        taken.found("a", Kind::Attempts, 2, 7 + RECOUNT_US);
        assert_eq!(take(8 + RECOUNT_US), Room::There);
        taken.found("a", Kind::Attempts, 0, 9);
        assert_eq!(take(9 + STALE_US + 1), Room::Unknown, "other services open some as well");
        taken.found("b", Kind::Attempts, 0, 9);
        assert_eq!(taken.take("b", Kind::Attempts, 9), Room::There);
        assert_eq!(taken.take("a", Kind::Reservations, 9), Room::Unknown);
    }

    #[test]
    fn what_is_kept_of_a_day_is_bounded() {
        let (taken, now_us) = (Taken::new(QUOTAS), 3 * DAY_US);
        for _ in 0..MIB / ROW_BYTES / 2 {
            assert!(taken.may_keep("a", now_us).is_ok());
            taken.keep("a", 1_024, now_us + 1);
        }
        let (status, _, detail) = taken.may_keep("a", now_us + DAY_US / 2).unwrap_err().told();
        assert!(status.as_u16() == 429 && detail.contains("wait 13 h") && detail.contains("\"a\""), "{detail}");
        assert!(taken.may_keep("b", now_us).is_ok());
        assert!(taken.may_keep("a", now_us + DAY_US + 1).is_ok());
        taken.keep("a", 1, now_us + DAY_US + 1);
        assert!(taken.may_keep("a", now_us + DAY_US + 2).is_ok());
    }
}
