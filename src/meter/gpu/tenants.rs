//! Who had a shared device, and which part of its time was the job's.
//!
//! The driver gives each sample (five or six a second) to the one process that was active when it was taken, and tells of each
//! process that lives its part of those samples that living processes have. What a process did that has ended since the last
//! look is told of nobody, or as its neighbours' (measured on an H200 under driver 580.159.04). So whose processes have ended
//! counts, and while some come and go the device is looked at as often as it makes samples.

use std::collections::BTreeMap;

/// Parts of a percent, so that a rest is not lost in rounding.
const SCALE: u64 = 1_000;

/// Who was not seen for so long does not count as somebody who may have been there.
const KEPT_US: u64 = 5_000_000;

/// The processes that were seen on a device.
#[derive(Clone, Debug, Default)]
pub(super) struct Tenants {
    /// At the last look; whether each is the job's.
    here: BTreeMap<u32, bool>,
    /// Since when they are not there any more.
    gone: BTreeMap<u32, (bool, u64)>,
    /// What ended before this has nothing in the samples that are told now.
    since_us: u64,
    /// When the last look was.
    seen_us: u64,
}

/// How the time of a window is divided: `mine` and `nobodys` of `whole`, which is never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) mine: u64,
    pub(super) nobodys: u64,
    pub(super) whole: u64,
}

impl Parts {
    pub(super) const ALL_MINE: Self = Self { mine: 1, nobodys: 0, whole: 1 };
    pub(super) const ALL_NOBODYS: Self = Self { mine: 0, nobodys: 1, whole: 1 };

    /// So much of a window's time.
    pub(super) fn of(self, part: u64, us: u64) -> u64 {
        u64::try_from(u128::from(us) * u128::from(part) / u128::from(self.whole.max(1))).unwrap_or(0)
    }
}

impl Tenants {
    /// These are there now.
    pub(super) fn see(&mut self, now: impl Iterator<Item = (u32, bool)>, now_us: u64, since_us: u64) {
        let before = std::mem::replace(&mut self.here, now.collect());
        let left = before.into_iter().filter(|(pid, _)| !self.here.contains_key(pid));
        self.gone.extend(left.map(|(pid, mine)| (pid, (mine, now_us))));
        self.gone.retain(|pid, (_, gone_us)| now_us <= *gone_us + KEPT_US && !self.here.contains_key(pid));
        (self.since_us, self.seen_us) = (since_us, now_us);
    }

    /// Whether somebody has gone in the last seconds, and others than the job's were there.
    pub(super) fn come_and_go(&self) -> bool {
        !self.gone.is_empty() && !self.are_all_mine()
    }

    /// Whether there were some in the last seconds, and none but the job's.
    pub(super) fn are_all_mine(&self) -> bool {
        let mut whose = self.here.values().copied().chain(self.gone.values().map(|(mine, _)| *mine)).peekable();
        whose.peek().is_some() && whose.all(|mine| mine)
    }

    /// How many have gone that `samples` samples can be of: of the job, and in all. Of those that had gone before the last look,
    /// only the first sample can be.
    fn gone(&self, samples: u64) -> (u64, u64) {
        let since_us = if samples > 1 { self.seen_us } else { self.since_us };
        let lately = || self.gone.values().filter(|(_, gone_us)| *gone_us >= since_us);
        let count = |all: bool| lately().filter(|(mine, _)| all || *mine).count() as u64;
        (count(false), count(true))
    }

    /// Divides a window. `records` are the percents of the processes of which there is a record, and whether each is the job's;
    /// `percents` are the sum and the number of the device's samples. Without `everybody` others
    /// may be there that nobody sees, and others may have come and gone unseen where the last look was not `lately`.
    pub(super) fn divide(&self, records: &[(u64, bool)], percents: (u64, u64), everybody: bool, lately: bool) -> Parts {
        let sum = |all: bool| records.iter().filter(|(_, mine)| all || *mine).map(|(percent, _)| percent * SCALE).sum();
        let (mine, told): (u64, u64) = (sum(false), sum(true));
        if everybody && lately && self.are_all_mine() && mine == told {
            return Parts::ALL_MINE;
        }
        let (my_gone, all_gone) = self.gone(percents.1);
        if all_gone > 0 && !lately {
            return Parts::ALL_NOBODYS;
        }
        if all_gone > 0 && everybody && percents.1 > 1 {
            // The records tell nothing of those that have gone. The driver gives those that work at once equal slices of time.
            let at_work =
                |all: bool| records.iter().filter(|(percent, mine)| *percent > 0 && (all || *mine)).count() as u64;
            return Parts { mine: my_gone + at_work(false), nobodys: 0, whole: all_gone + at_work(true) };
        }
        let rest = (percents.0 * SCALE).checked_div(percents.1).unwrap_or(0).saturating_sub(told);
        if all_gone > 0 && everybody && rest + told > 0 {
            return Parts { mine: mine + rest * my_gone / all_gone, nobodys: 0, whole: told + rest };
        }
        if told == 0 {
            return Parts::ALL_NOBODYS;
        }
        // The driver rounds each record to a whole percent, and the device's samples too.
        let rounding = (records.len() as u64 + 1) * SCALE;
        let rest = if rest > rounding { rest } else { 0 };
        Parts { mine, nobodys: rest, whole: told + rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants(before: &[(u32, bool)], now: &[(u32, bool)]) -> Tenants {
        let mut tenants = Tenants::default();
        tenants.see(before.iter().copied(), 1_000_000, 0);
        tenants.see(now.iter().copied(), 2_000_000, 600_000);
        tenants
    }

    fn percent_mine(tenants: &Tenants, records: &[(u64, bool)], percents: &[u64]) -> (u64, u64) {
        let parts = tenants.divide(records, (percents.iter().sum(), percents.len() as u64), true, true);
        (parts.of(parts.mine, 100), parts.of(parts.nobodys, 100))
    }

    #[test]
    fn a_sample_that_is_told_of_nobody_is_of_those_that_have_gone() {
        let mine_left = tenants(&[(7, true), (8, false)], &[(8, false)]);
        assert_eq!(percent_mine(&mine_left, &[], &[99]), (100, 0));
        assert_eq!(percent_mine(&mine_left, &[(99, false)], &[99]), (0, 0));
        let other_left = tenants(&[(7, true), (8, false)], &[(7, true)]);
        assert_eq!(percent_mine(&other_left, &[], &[99]), (0, 0));
        assert_eq!(percent_mine(&other_left, &[(99, true)], &[99]), (100, 0));
    }

    #[test]
    fn of_several_samples_those_that_have_gone_have_equal_parts_with_those_that_work() {
        let mine_left = tenants(&[(7, true), (8, false)], &[(8, false)]);
        assert_eq!(percent_mine(&mine_left, &[(99, false)], &[99; 5]), (50, 0));
        assert_eq!(percent_mine(&mine_left, &[], &[99; 5]), (100, 0));
        let both_left = tenants(&[(7, true), (8, false)], &[]);
        assert_eq!(percent_mine(&both_left, &[], &[99, 99, 24]), (50, 0));
    }

    #[test]
    fn what_nobody_can_have_done_is_nobodys() {
        let stay = tenants(&[(7, true), (8, false)], &[(7, true), (8, false)]);
        assert_eq!(percent_mine(&stay, &[(66, true), (13, false)], &[0, 0, 37, 99, 99]), (83, 0));
        assert_eq!(percent_mine(&stay, &[(50, true), (49, false)], &[100; 5]), (50, 0));
        // A third one came and went between two looks.
        assert_eq!(percent_mine(&stay, &[(40, true), (20, false)], &[100; 5]), (40, 40));
        assert_eq!(percent_mine(&Tenants::default(), &[], &[50]), (0, 100));
    }

    #[test]
    fn a_job_that_was_alone_did_all_of_it() {
        let alone = tenants(&[(7, true)], &[(9, true)]);
        assert_eq!(percent_mine(&alone, &[], &[99, 5]), (100, 0));
        assert_eq!(percent_mine(&alone, &[(30, true)], &[99, 99, 5]), (100, 0));
        // Where others may be there that nobody sees, only what is told is the job's.
        let parts = alone.divide(&[(30, true)], (297, 3), false, true);
        assert_eq!((parts.of(parts.mine, 99), parts.of(parts.nobodys, 99)), (30, 69));
    }

    #[test]
    fn who_went_long_ago_is_forgotten() {
        let mut tenants = tenants(&[(7, true), (8, false)], &[(8, false)]);
        assert_eq!((tenants.gone(1), tenants.gone(5)), ((1, 1), (1, 1)));
        tenants.see([(8, false)].into_iter(), 3_000_000, 1_600_000);
        assert_eq!((tenants.gone(1), tenants.gone(5), tenants.come_and_go()), ((1, 1), (0, 0), true));
        tenants.see([(8, false)].into_iter(), 4_000_000, 2_600_000);
        assert_eq!((tenants.gone(1), tenants.come_and_go()), ((0, 0), true));
        tenants.see([(8, false)].into_iter(), 8_000_000, 6_600_000);
        assert!(!tenants.come_and_go());
    }
}
