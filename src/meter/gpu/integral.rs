//! The integral of a device's utilisation over the driver's own timestamps.
//!
//! The driver keeps one ring of samples for each device: 72 of about 167 ms, or of 200 ms (an H200 under driver 580). A
//! sample says how busy the device was from the end of the sample before it to its own end. The ring runs dry while the device idles, its clock is unspecified,
//! and its values are now and then garbage (`research/gpu.md`). So only differences of timestamps count, a gap is idle,
//! and what is above 100 % is no value.

/// Before any was seen. Measured by others on several devices: 167.4 ms; 200 ms on an H200 under driver 580.159.04.
const PERIOD_DEFAULT_US: u64 = 166_700;
/// `nvml.h`: "1 second to 1/6 second depending on the product"; shorter ones are not known.
const PERIOD_RANGE_US: (u64, u64) = (50_000, 1_000_000);
/// How many samples the ring of today's drivers holds; one that was seen to hold fewer may have lost some earlier.
const RING_SAMPLES: usize = 72;
/// Samples that end so soon after the start may have begun before it: the longest period there is, and its delay.
const EDGE_US: u64 = 2_000_000;
/// A clock that stands so much before the cursor belongs to a driver that was loaded anew.
const RESTART_US: u64 = 1_000_000;

/// The driver cuts percents to whole ones (an H200 under driver 580): what is neither idle nor always busy was half a percent more on
/// average.
fn halves(percent: u32) -> u64 {
    u64::from(percent) * 2 + u64::from((1..99).contains(&percent))
}

/// How busy one device was.
#[derive(Clone, Debug)]
pub struct Integral {
    /// End of the newest sample, by the driver's clock.
    cursor: u64,
    /// End of the newest sample that had a value.
    valued: Option<u64>,
    period_us: u64,
    measured: bool,
    ring_samples: usize,
    /// From the driver's clock to `CLOCK_BOOTTIME`: the smallest that was seen, which the delay of a sample makes too large
    /// by at most that delay.
    offset_us: Option<i128>,
    from_us: u64,
    read_at_us: u64,
    /// Half percent × µs that make no whole µs yet; below zero where too much was counted at the start.
    rest: i128,
    /// The samples at the start: end, length and percent. How much of them was the job's is known better with each look.
    first: Vec<(u64, u64, u32)>,
    /// The driver was loaded anew: what it has next is a new beginning.
    anew: bool,
}

/// What was new since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Busy time.
    pub busy_us: u64,
    /// The same by samples: their ends in `CLOCK_BOOTTIME`, and busy time.
    pub samples: Vec<(u64, u64)>,
    /// The same as percents: the sum of the samples, and how many they were.
    pub percents: (u64, u64),
    /// Samples that were garbage.
    pub dropped: u32,
    /// Overwritten before they were read; not credited.
    pub lost_us: u64,
    /// The driver was loaded anew meanwhile; what was before is not known.
    pub restarted: bool,
}

impl Integral {
    /// Counts from `from_us` of `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn new(from_us: u64) -> Self {
        Self {
            cursor: 0,
            valued: None,
            period_us: PERIOD_DEFAULT_US,
            measured: false,
            ring_samples: RING_SAMPLES,
            offset_us: None,
            from_us,
            read_at_us: from_us,
            rest: 0,
            first: Vec::new(),
            anew: false,
        }
    }

    /// What the driver is asked for: samples after this.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// How long a sample is.
    #[must_use]
    pub fn period_us(&self) -> u64 {
        self.period_us
    }

    /// When it was last read.
    #[must_use]
    pub fn read_at_us(&self) -> u64 {
        self.read_at_us
    }

    /// Until when it is known how busy the device was.
    #[must_use]
    pub fn known_until_us(&self) -> u64 {
        let end = i128::from(self.cursor) + self.offset_us.unwrap_or_default();
        self.offset_us.and_then(|_| u64::try_from(end).ok()).unwrap_or(0)
    }

    /// What the ring has of the time since `from_us` is counted once more: it was another's before.
    pub fn take_over(&mut self, from_us: u64) {
        (self.cursor, self.valued, self.from_us, self.read_at_us, self.rest) = (0, None, from_us, from_us, 0);
        self.first.clear();
    }

    /// Nothing before `from_us` is counted.
    pub fn begin(&mut self, from_us: u64) {
        self.from_us = from_us;
    }

    /// Takes the whole ring as what was before, and counts none of it.
    pub fn seed(&mut self, samples: &[(u64, u32)], at_us: u64) {
        let mut ends: Vec<u64> = samples.iter().map(|(end, _)| *end).collect();
        ends.sort_unstable();
        self.measure_period(&ends);
        if ends.len() > RING_SAMPLES {
            self.ring_samples = ends.len();
        }
        if let Some(newest) = ends.last() {
            self.cursor = *newest;
            self.valued = Some(*newest);
            self.map(*newest, at_us);
        }
        (self.read_at_us, self.anew) = (at_us, false);
    }

    /// Counts the samples that are new, read at `at_us`, up to `until_us` of `CLOCK_BOOTTIME`.
    pub fn take(&mut self, samples: &[(u64, u32)], at_us: u64, until_us: u64) -> Window {
        let newest = samples.iter().map(|(end, _)| *end).max();
        let backwards = newest.is_some_and(|newest| newest.saturating_add(RESTART_US) < self.cursor);
        if backwards || self.anew {
            self.restart();
            self.seed(samples, at_us);
            return Window { restarted: true, ..Window::default() };
        }
        let mut new: Vec<(u64, u32)> = samples.iter().copied().filter(|(end, _)| *end > self.cursor).collect();
        new.sort_unstable();
        new.dedup_by_key(|(end, _)| *end);
        let mut ends: Vec<u64> = self.valued.into_iter().chain(new.iter().map(|(end, _)| *end)).collect();
        self.measure_period(&ends);
        if let Some(newest) = ends.pop().filter(|_| !new.is_empty()) {
            self.map(newest, at_us);
        }
        let mut window = Window { lost_us: self.lost_us(&new), ..Window::default() };
        let mut weighed = self.rest;
        for (end, percent) in new {
            self.cursor = end;
            if percent > 100 {
                window.dropped += 1;
                continue;
            }
            let long = self.length_us(end);
            self.valued = Some(end);
            window.percents = (window.percents.0 + u64::from(percent), window.percents.1 + 1);
            let (at_us, counted_us) = self.within(end, long, until_us);
            if counted_us > 0 {
                if at_us < self.from_us.saturating_add(EDGE_US) {
                    self.first.push((end, long, percent));
                }
                weighed += i128::from(counted_us) * i128::from(halves(percent));
                window.samples.push((at_us, counted_us * halves(percent) / 200));
            }
        }
        // No clock of a driver makes a device busier than the time that has passed.
        let at_most = at_us.saturating_sub(self.read_at_us) + 2 * self.period_us;
        self.read_at_us = at_us;
        // What was counted too much is taken from what comes.
        let busy_us = u64::try_from(weighed / 200).unwrap_or(0);
        self.rest = weighed - i128::from(busy_us) * 200;
        window.busy_us = busy_us.min(at_most);
        window
    }

    /// The driver was loaded anew: its clock and its ring are others.
    pub fn restart(&mut self) {
        (self.cursor, self.valued, self.offset_us, self.rest, self.anew) = (0, None, None, 0, true);
        self.first.clear();
    }

    /// From the end of the sample before it; after a gap, one period.
    fn length_us(&self, end: u64) -> u64 {
        let since = self.valued.map_or(self.period_us, |before| end.saturating_sub(before));
        if since > 2 * self.period_us { self.period_us } else { since }
    }

    /// When a sample ended, and how much of it lies between the start and the end of what is counted.
    fn within(&self, end: u64, long: u64, until_us: u64) -> (u64, u64) {
        let end = i128::from(end) + self.offset_us.unwrap_or_default();
        let (from, until) = ((end - i128::from(long)).max(i128::from(self.from_us)), end.min(i128::from(until_us)));
        (u64::try_from(end).unwrap_or(0), u64::try_from(until - from).unwrap_or(0))
    }

    fn map(&mut self, end: u64, at_us: u64) {
        let offset = i128::from(at_us) - i128::from(end);
        if self.offset_us.is_some_and(|known| known <= offset) {
            return;
        }
        let before = self.counted_at_start();
        self.offset_us = Some(offset);
        self.rest -= before - self.counted_at_start();
    }

    fn counted_at_start(&self) -> i128 {
        let of = |(end, long, percent): &(u64, u64, u32)| {
            i128::from(self.within(*end, *long, u64::MAX).1) * i128::from(halves(*percent))
        };
        self.first.iter().map(of).sum()
    }

    /// The first quarter, since gaps and lost samples only make longer ones; and the shortest that was found so.
    fn measure_period(&mut self, ends: &[u64]) {
        let mut long: Vec<u64> = ends.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        long.sort_unstable();
        let (least, most) = PERIOD_RANGE_US;
        let Some(found) = long.get(long.len() / 4).map(|us| (*us).clamp(least, most)) else { return };
        // What is longer than usual may be gaps, unless many say so and none says otherwise.
        let is_longer = found > PERIOD_DEFAULT_US * 6 / 5;
        let says_otherwise = is_longer && long.first().is_some_and(|shortest| *shortest < found / 4 * 3);
        if long.len() < if is_longer { 12 } else { 3 } || says_otherwise {
            return;
        }
        self.period_us = if self.measured { self.period_us.min(found) } else { found };
        self.measured = true;
    }

    /// A full ring that begins after a gap was written over.
    fn lost_us(&self, new: &[(u64, u32)]) -> u64 {
        let Some((first, _)) = new.first().filter(|_| new.len() >= self.ring_samples) else { return 0 };
        let gap = first.saturating_sub(self.cursor);
        if self.cursor == 0 || gap <= 2 * self.period_us { 0 } else { gap - self.period_us }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: u64 = 167_000;
    const OFFSET: u64 = 1_700_000_000_000_000;

    /// What a driver would have in its ring at `at_us`: values by the sample's number, `None` where it idled.
    fn ring(values: &[Option<u32>], at_us: u64, after: u64) -> Vec<(u64, u32)> {
        let ended = usize::try_from(at_us / PERIOD).unwrap().min(values.len());
        let from = ended.saturating_sub(RING_SAMPLES);
        let all = values[..ended].iter().enumerate().skip(from);
        let end = |at: usize| OFFSET + (at as u64 + 1) * PERIOD;
        all.filter_map(|(at, value)| value.map(|value| (end(at), value))).filter(|(end, _)| *end > after).collect()
    }

    fn total(values: &[Option<u32>], looks_us: &[u64], until_us: u64) -> (u64, u64) {
        let mut integral = Integral::new(0);
        integral.seed(&[], 0);
        let (mut busy, mut lost) = (0, 0);
        for at_us in looks_us {
            let window = integral.take(&ring(values, *at_us, integral.cursor()), *at_us, until_us);
            busy += window.busy_us;
            lost += window.lost_us;
        }
        (busy, lost)
    }

    fn truth(values: &[Option<u32>]) -> u64 {
        values.iter().flatten().map(|value| halves((*value).min(100)) * PERIOD / 200).sum()
    }

    #[test]
    fn garbage_is_dropped_and_its_time_goes_to_the_next_sample() {
        let values: Vec<_> = (0..60).map(|at| Some(if at == 30 { 808_334_905 } else { 50 })).collect();
        let looks: Vec<u64> = (1..=11).map(|second| second * 1_000_000).collect();
        let (busy, _) = total(&values, &looks, u64::MAX);
        assert_eq!(busy, 60 * PERIOD * 101 / 200);
    }

    #[test]
    fn a_stall_longer_than_the_ring_is_told_and_never_credited() {
        let values = vec![Some(100); 400];
        let (busy, lost) = total(&values, &[1_000_000, 40_000_000, 41_000_000], u64::MAX);
        assert_eq!(busy, (5 + 72 + 6) * PERIOD);
        assert!(lost > 27_000_000 && lost < 28_000_000, "{lost}");
    }

    #[test]
    fn a_driver_that_was_loaded_anew_is_a_new_beginning() {
        let mut integral = Integral::new(0);
        integral.seed(&ring(&[Some(100); 12], 2_004_000, 0), 2_004_000);
        let window = integral.take(&[(1_000, 100), (168_000, 100)], 3_000_000, u64::MAX);
        assert_eq!(window, Window { restarted: true, ..Window::default() });
        let window = integral.take(&[(335_000, 100)], 3_200_000, u64::MAX);
        assert_eq!(window.busy_us, PERIOD);
    }

    #[test]
    fn nothing_before_the_start_or_after_the_end_counts() {
        let values = vec![Some(100); 200];
        let mut integral = Integral::new(0);
        integral.seed(&ring(&values, 5_010_000, 0), 5_010_000);
        integral.begin(6_000_000);
        let mut busy = 0;
        for at_us in [7_014_000, 8_016_000, 9_018_000, 9_418_000] {
            busy += integral.take(&ring(&values, at_us, integral.cursor()), at_us, 9_000_000).busy_us;
        }
        assert!(busy.abs_diff(3_000_000) <= 10_000, "{busy}");
    }

    #[test]
    fn many_gaps_are_no_longer_period() {
        // Every other sample is idle, but for one.
        let gaps = (0..30).map(|at| (at % 2 == 0 || at == 9).then_some(0));
        let values: Vec<_> = gaps.chain([Some(0), None, None, Some(100)]).collect();
        let (busy, _) = total(&values, &[30 * PERIOD, 40 * PERIOD], u64::MAX);
        assert!(busy.abs_diff(PERIOD) < 1_000, "{busy}");
    }

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn the_total_is_the_same_however_often_it_is_read(
            values in proptest::collection::vec(proptest::option::weighted(0.8, 0..=100u32), 100..400),
            steps in proptest::collection::vec(100_000..11_000_000u64, 1..60),
        ) {
            let end_us = values.len() as u64 * PERIOD + 1;
            let mut looks: Vec<u64> = steps.iter().scan(0, |at, step| { *at += step; Some(*at) }).collect();
            let mut last = looks.last().copied().unwrap_or(0);
            while last < end_us {
                last += 5_000_000;
                looks.push(last);
            }
            let (busy, lost) = total(&values, &looks, u64::MAX);
            let truth = truth(&values);
            // A single idle sample between two busy ones cannot be told from a late one: at most a period each.
            let single = values.windows(3).filter(|three| three[0].is_some() && three[1].is_none() && three[2].is_some());
            let slack = single.map(|three| halves(three[2].unwrap()) * PERIOD / 200).sum::<u64>() + looks.len() as u64;
            prop_assert!(busy + looks.len() as u64 >= truth && busy <= truth + slack, "{busy} of {truth} + {slack}");
            prop_assert!(busy <= end_us + PERIOD, "{busy} in {end_us}");
            prop_assert_eq!(lost, 0);
        }
    }
}
