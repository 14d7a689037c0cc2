//! When the jobs of a watched account report. Whoever watches an account wants to see it move, so that its jobs report once a second;
//! all of these reports together are bounded, so that no watcher can keep the ledger busy.

use std::sync::{Mutex, PoisonError};

use crate::domain::lease::REPORT_SOON_MS;

/// The time between two reports that come sooner for a watcher's sake, in µs: 100 of them a second on a replica, over all accounts.
const BETWEEN_US: u64 = 10_000;

/// When the next of these reports may come, in µs of the time since boot.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<u64>);

impl Pace {
    /// In how many ms an attempt of a watched account is to report, when it would report in `usual_ms`. Each call takes a place in one
    /// row for all attempts: where there are more than 100, each of them comes less often than once a second. Who would have to wait
    /// longer than usual takes no place.
    pub(super) fn report_in_ms(&self, now_us: u64, usual_ms: u64) -> u64 {
        let mut free_us = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let soon_us = now_us.saturating_add(REPORT_SOON_MS.saturating_mul(1_000));
        let at_us = soon_us.max(*free_us);
        let in_ms = at_us.saturating_sub(now_us) / 1_000;
        if in_ms >= usual_ms {
            return usual_ms;
        }
        *free_us = at_us.saturating_add(BETWEEN_US);
        in_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lease::REPORT_MS;

    const SECOND_US: u64 = 1_000_000;

    /// How many reports come in `seconds` of so many attempts, each of which reports when it was told to.
    fn reports_of(attempts: u64, seconds: u64) -> (u64, u64) {
        let (pace, mut due) = (Pace::default(), std::collections::BTreeSet::new());
        due.extend((0..attempts).map(|attempt| (attempt, attempt)));
        let (mut all, mut of_first) = (0, 0);
        while let Some((now_us, attempt)) = due.pop_first() {
            if now_us >= seconds * SECOND_US {
                break;
            }
            all += 1;
            of_first += u64::from(attempt == 0);
            due.insert((now_us + pace.report_in_ms(now_us, REPORT_MS) * 1_000, attempt));
        }
        (all, of_first)
    }

    #[test]
    fn few_attempts_report_each_second() {
        let (all, of_one) = reports_of(10, 60);
        assert!((580..=600).contains(&all) && (58..=60).contains(&of_one), "{all} {of_one}");
    }

    #[test]
    fn many_attempts_share_a_hundred_reports_a_second() {
        let (all, of_one) = reports_of(400, 60);
        // The first report of each is none that was asked for.
        assert!((5_900..=6_400).contains(&all), "{all}");
        assert!((13..=16).contains(&of_one), "each comes as often as the others: {of_one}");
    }

    #[test]
    fn nobody_reports_later_than_usual() {
        let (all, of_one) = reports_of(5_000, 60);
        assert!((30_000..=36_500).contains(&all) && (6..=8).contains(&of_one), "{all} {of_one}");
        assert_eq!(Pace::default().report_in_ms(0, 500), 500);
    }
}
