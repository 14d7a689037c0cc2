//! How busy a whole device was by its own counters (GPM `GRAPHICS_UTIL`, Hopper and newer): they are cumulative, so that nothing is cut off
//! or lost between two looks. The samples are taken beside them, and stand in where the counters are refused, or where both differ by more
//! than the samples can be wrong.

use crate::meter::gpu::wire::{FaultKind, Got, Stretch};

/// In so many samples of the longest period, and in so much of the time, the samples can be wrong.
const EDGES_US: u64 = 1_000_000;
const CUT_OFF_PARTS: u64 = 50;
/// A sample of the driver's ring is told so late at most. What the counters do not tell at the end of what the samples did is as what they
/// tell next.
const GAP_MAX_US: u64 = 500_000;

/// The counters of one device.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    /// They are refused, or not believed.
    given_up: bool,
    /// Something was read by them.
    used: bool,
    /// What was before is charged.
    charged_until_us: u64,
    /// By both, of the same time.
    counted_us: u64,
    sampled_us: u64,
    compared_us: u64,
}

/// What is charged of one look.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// From, to, and how busy; `None` where the samples are.
    pub(super) stretch: Option<(u64, u64, u64)>,
    pub(super) note: Option<String>,
}

impl Counters {
    pub(super) fn begin(&mut self, now_us: u64) {
        self.charged_until_us = now_us;
    }

    /// Until then all is charged otherwise.
    pub(super) fn pass(&mut self, until_us: u64) {
        self.charged_until_us = self.charged_until_us.max(until_us);
    }

    pub(super) fn are_asked(&self) -> bool {
        !self.given_up
    }

    /// Whether all that was read came from them.
    pub(super) fn are_used(&self) -> bool {
        self.used && !self.given_up
    }

    /// Until when it is known by them.
    pub(super) fn known_until_us(&self) -> u64 {
        self.charged_until_us
    }

    /// `counted` is what they tell of the time since the last look, and `sampled_us` what the samples do, until `sampled_until_us`.
    pub(super) fn take(
        &mut self,
        counted: Option<&Got<Stretch>>,
        (sampled_us, sampled_until_us): (u64, u64),
        at_us: u64,
        until_us: u64,
    ) -> Taken {
        match counted {
            // Who has been told nothing for a while (another helper, which has nothing to compare with) has the samples of that time.
            Some(Ok(stretch)) if !self.given_up && self.gap_us(stretch) > GAP_MAX_US => {
                self.used = true;
                self.pass(sampled_until_us.max(at_us.saturating_sub(GAP_MAX_US)).min(until_us));
                Taken::default()
            }
            Some(Ok(stretch)) if !self.given_up => self.take_stretch(*stretch, sampled_us, until_us),
            // Once is not for ever: the next look may tell.
            Some(Err(fault)) if fault.kind == FaultKind::Failed && self.used => {
                self.pass(at_us.min(until_us));
                Taken::default()
            }
            _ => {
                let note = self.are_used().then(|| "its counters tell no more: it is read by its samples".to_owned());
                self.given_up = true;
                Taken { stretch: None, note }
            }
        }
    }

    fn gap_us(&self, stretch: &Stretch) -> u64 {
        stretch.from_us.saturating_sub(self.charged_until_us)
    }

    fn take_stretch(&mut self, stretch: Stretch, sampled_us: u64, until_us: u64) -> Taken {
        self.used = true;
        self.sampled_us = self.sampled_us.saturating_add(sampled_us);
        if stretch.until_us.min(until_us) <= stretch.from_us.max(self.charged_until_us) {
            return Taken { stretch: Some((stretch.from_us, stretch.from_us, 0)), note: None };
        }
        let stretch = Stretch { from_us: stretch.from_us.min(self.charged_until_us), ..stretch };
        let (from_us, until_us, busy_us) = stretch.between(self.charged_until_us, until_us);
        let long_us = until_us.saturating_sub(from_us);
        self.charged_until_us = until_us;
        self.counted_us = self.counted_us.saturating_add(busy_us);
        self.compared_us = self.compared_us.saturating_add(long_us);
        let apart_us = self.counted_us.abs_diff(self.sampled_us);
        let is_believed = apart_us <= EDGES_US + self.compared_us / CUT_OFF_PARTS;
        self.given_up = !is_believed;
        let note = (!is_believed).then(|| "its counters and its samples differ: it is read by its samples".to_owned());
        Taken { stretch: Some((from_us, until_us, busy_us)), note }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::gpu::wire::Fault;

    fn stretch(from_us: u64, until_us: u64, busy_ppm: u32) -> Stretch {
        Stretch { from_us, until_us, busy_ppm, ..Stretch::default() }
    }

    #[test]
    fn what_is_charged_once_is_not_charged_again() {
        let mut counters = Counters::default();
        counters.begin(1_000_000);
        let first =
            counters.take(Some(&Ok(stretch(500_000, 2_000_000, 500_000))), (500_000, 2_000_000), 2_000_000, u64::MAX);
        assert_eq!(first.stretch, Some((1_000_000, 2_000_000, 500_000)));
        // A look that failed is read by its samples, and what the next one tells of it is not charged.
        let failed = Err(Fault::failed("busy"));
        assert_eq!(counters.take(Some(&failed), (500_000, 3_000_000), 3_000_000, u64::MAX).stretch, None);
        let next = counters.take(
            Some(&Ok(stretch(2_000_000, 4_000_000, 500_000))),
            (500_000, 4_000_000),
            4_000_000,
            3_500_000,
        );
        assert_eq!((next.stretch, counters.known_until_us()), (Some((3_000_000, 3_500_000, 250_000)), 3_500_000));
    }

    /// Another helper has nothing to compare its first sample with.
    #[test]
    fn what_no_counter_told_is_read_by_the_samples() {
        let mut counters = Counters::default();
        counters.begin(0);
        let mut take = |from_us: u64, until_us: u64, sampled_us: u64, sampled_until_us: u64| {
            let counted = Ok(stretch(from_us, until_us, 1_000_000));
            counters.take(Some(&counted), (sampled_us, sampled_until_us), until_us, u64::MAX).stretch
        };
        assert_eq!(take(0, 1_000_000, 800_000, 800_000), Some((0, 1_000_000, 1_000_000)));
        assert_eq!(take(4_000_000, 4_000_000, 3_000_000, 3_800_000), None);
        // From the end of the last sample on.
        assert_eq!(take(4_000_000, 5_000_000, 1_000_000, 4_800_000), Some((3_800_000, 5_000_000, 1_200_000)));
        assert_eq!(take(5_000_000, 6_000_000, 1_000_000, 5_800_000), Some((5_000_000, 6_000_000, 1_000_000)));
        assert!(counters.are_used());
    }

    #[test]
    fn counters_that_differ_from_the_samples_are_not_believed() {
        let mut counters = Counters::default();
        let mut second = 0;
        while counters.are_asked() {
            let (from_us, until_us) = (second * 1_000_000, (second + 1) * 1_000_000);
            let taken =
                counters.take(Some(&Ok(stretch(from_us, until_us, 100_000))), (900_000, until_us), until_us, u64::MAX);
            assert_eq!(taken.note.is_some(), !counters.are_asked());
            second += 1;
        }
        assert!((2..4).contains(&second) && !counters.are_used());
        assert_eq!(
            counters.take(Some(&Ok(stretch(0, 9_000_000, 100_000))), (900_000, 9_000_000), 9_000_000, u64::MAX).stretch,
            None
        );
    }

    #[test]
    fn a_device_without_counters_is_read_by_its_samples() {
        let mut counters = Counters::default();
        let taken = counters.take(None, (900_000, 1_000_000), 1_000_000, u64::MAX);
        assert!(taken.stretch.is_none() && taken.note.is_none() && !counters.are_asked());
    }
}
