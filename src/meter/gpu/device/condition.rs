//! What else a device tells: power, memory errors, why it is slow, and for how long it did nothing for the job.

use std::collections::BTreeMap;

use super::activity::MeanActivity;
use crate::meter::gpu::figures::Figures;
use crate::meter::gpu::wire::PolledDevice;

/// Two looks at the counter of energy that are closer than this tell no power: it is renewed some ten times a second.
const POWER_LEAST_US: u64 = 100_000;
/// One reason after the other, as nvml.h names them (`nvmlClocksEventReasonXxx`). That it is idle, or was set so, slows no job down.
const REASONS: [(u64, &str); 5] = [
    (0x4, "power cap"),
    (0x8, "hardware slowdown"),
    (0x20, "software thermal slowdown"),
    (0x40, "hardware thermal slowdown"),
    (0x80, "hardware power brake"),
];
const ERRORS_MAX: usize = 64;
/// A device that works makes samples at least so often, and tells them.
const SAMPLE_MAX_US: u64 = 900_000;

/// While it was the job's.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// When it was looked at, and what the counter of energy said.
    energy_at: Option<(u64, u64)>,
    energy_mj: u64,
    energy_us: u64,
    power_peak_mw: Option<u64>,
    slow_us: BTreeMap<&'static str, u64>,
    looked_at_us: u64,
    ecc: Increase,
    remapped: Increase,
    errors: Vec<u64>,
    errors_until_us: u64,
    activity: MeanActivity,
    idle_us: u64,
    /// Busy and allocated, and the end of the newest sample, at the last look that had a new one.
    figures_at: (u64, u64, u64),
}

/// By how much a counter of the device rose while it was the job's.
#[derive(Clone, Copy, Debug, Default)]
struct Increase {
    last: Option<u64>,
    sum: u64,
}

impl Increase {
    fn pass(&mut self, count: Option<u64>) {
        self.last = count;
    }

    fn take(&mut self, count: Option<u64>) {
        let Some(count) = count else { return };
        let before = self.last.replace(count).unwrap_or(count);
        // A counter of the driver begins anew with each load of it.
        let rise = count.checked_sub(before).unwrap_or(count);
        self.sum = self.sum.checked_add(rise).unwrap_or(self.sum);
    }
}

impl Condition {
    pub(super) fn begin(&mut self, now_us: u64) {
        (self.looked_at_us, self.errors_until_us) = (now_us, now_us);
    }

    /// One look at what was not the job's until `at_us`.
    pub(super) fn pass(&mut self, polled: &PolledDevice, at_us: u64) {
        self.looked_at_us = at_us;
        self.energy_at = polled.energy_mj.map(|mj| (polled.at_us, mj));
        self.ecc.pass(polled.ecc_uncorrected);
        self.remapped.pass(polled.remapped_rows);
        self.see_errors(polled);
    }

    /// Those that were told are known. The numbers of the new ones.
    fn see_errors(&mut self, polled: &PolledDevice) -> Vec<u64> {
        let known_us = self.errors_until_us;
        let new = polled.errors.iter().filter(|(at_us, _)| *at_us > known_us);
        let last_us = polled.errors.iter().map(|(at_us, _)| *at_us).max();
        self.errors_until_us = known_us.max(last_us.unwrap_or(0));
        new.map(|(_, xid)| *xid).collect()
    }

    /// One look at what was the job's until `at_us`.
    pub(super) fn take(&mut self, polled: &PolledDevice, at_us: u64) {
        let passed_us = at_us.saturating_sub(std::mem::replace(&mut self.looked_at_us, at_us));
        for (_, reason) in REASONS.into_iter().filter(|(bit, _)| polled.slowdown & bit != 0) {
            *self.slow_us.entry(reason).or_default() += passed_us;
        }
        self.take_energy(polled);
        if let Some(Ok(stretch)) = polled.instance.as_ref().or(polled.counted.as_ref()) {
            self.activity.take(stretch);
        }
        self.ecc.take(polled.ecc_uncorrected);
        self.remapped.take(polled.remapped_rows);
        let new = self.see_errors(polled);
        self.errors.extend(new);
        self.errors.truncate(ERRORS_MAX);
    }

    fn take_energy(&mut self, polled: &PolledDevice) {
        let Some(now_mj) = polled.energy_mj else { return };
        let Some((at_us, before_mj)) = self.energy_at else {
            self.energy_at = Some((polled.at_us, now_mj));
            return;
        };
        let passed_us = polled.at_us.saturating_sub(at_us);
        if passed_us < POWER_LEAST_US {
            return;
        }
        self.energy_at = Some((polled.at_us, now_mj));
        // It counts from the load of the driver on.
        let Some(more_mj) = now_mj.checked_sub(before_mj) else { return };
        self.energy_mj += more_mj;
        self.energy_us += passed_us;
        self.power_peak_mw = self.power_peak_mw.max(milliwatts(more_mj, passed_us));
    }

    /// What it did between this and the last look that had a new sample, which ends at `cursor`; an idle device may have none. After the
    /// job's end there is no further look.
    pub(super) fn take_figures(&mut self, figures: &Figures, cursor: u64, has_ended: bool) {
        let (busy_us, allocated_us, before) = self.figures_at;
        let passed_us = figures.allocated_us.saturating_sub(allocated_us);
        if cursor == before && passed_us < SAMPLE_MAX_US && !has_ended {
            return;
        }
        self.figures_at = (figures.busy_us, figures.allocated_us, cursor);
        if figures.busy_us == busy_us {
            self.idle_us += passed_us;
        }
    }

    /// What its parts did.
    #[must_use]
    pub fn activity(&self) -> &MeanActivity {
        &self.activity
    }

    /// On average; `None` where it does not tell.
    #[must_use]
    pub fn power_mean_mw(&self) -> Option<u64> {
        milliwatts(self.energy_mj, self.energy_us)
    }

    /// At most, on average between two looks; `None` where it does not tell.
    #[must_use]
    pub fn power_peak_mw(&self) -> Option<u64> {
        self.power_peak_mw
    }

    /// For how long its clocks were lowered, in µs, and why.
    #[must_use]
    pub fn slow_us(&self) -> &BTreeMap<&'static str, u64> {
        &self.slow_us
    }

    /// Errors of its memory that could not be corrected.
    #[must_use]
    pub fn ecc_errors(&self) -> u64 {
        self.ecc.sum
    }

    /// Rows of its memory that were replaced by spare ones.
    #[must_use]
    pub fn remapped_rows(&self) -> u64 {
        self.remapped.sum
    }

    /// Numbers of the driver's errors (XID), the first ones.
    #[must_use]
    pub fn errors(&self) -> &[u64] {
        &self.errors
    }

    /// Looks between which it did nothing for the job, in µs.
    #[must_use]
    pub fn idle_us(&self) -> u64 {
        self.idle_us
    }
}

fn milliwatts(mj: u64, us: u64) -> Option<u64> {
    let product = u128::from(mj) * 1_000_000;
    product.checked_div(us.into()).and_then(|mw| u64::try_from(mw).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_counts_what_came_since_the_one_before() {
        let mut condition = Condition::default();
        condition.begin(1_000_000);
        let look = |at_s: u64, energy_mj: u64, slowdown: u64, ecc: u64, errors: &[(u64, u64)]| PolledDevice {
            energy_mj: Some(energy_mj),
            slowdown,
            ecc_uncorrected: Some(ecc),
            errors: errors.to_vec(),
            ..PolledDevice::new("GPU".to_owned(), at_s * 1_000_000)
        };
        // What was before the job is not its own.
        condition.take(&look(2, 100_000, 0x5, 3, &[(900_000, 13)]), 2_000_000);
        condition.take(&look(3, 800_000, 0x44, 3, &[(900_000, 13), (2_500_000, 79)]), 3_000_000);
        condition.take(&look(4, 900_000, 0x1, 5, &[(2_500_000, 79)]), 4_000_000);
        // What it does and suffers for others is not told.
        condition.pass(&look(5, 5_000_000, 0xff, 7, &[(4_500_000, 48)]), 5_000_000);
        // The driver was loaded anew.
        condition.take(&look(6, 0, 0, 1, &[]), 6_000_000);
        assert_eq!((condition.power_mean_mw(), condition.power_peak_mw()), (Some(400_000), Some(700_000)));
        assert_eq!(condition.slow_us(), &[("hardware thermal slowdown", 1_000_000), ("power cap", 2_000_000)].into());
        assert_eq!((condition.ecc_errors(), condition.errors()), (3, [79].as_slice()));
    }
}
