//! What the parts of a device did while it was the job's, by its counters.

use crate::meter::gpu::wire::{Activity, Stretch};

/// Sums over stretches of time.
#[derive(Clone, Copy, Debug, Default)]
pub struct MeanActivity {
    sm: Mean,
    tensor: Mean,
    dram: Mean,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    active_ppm_us: u128,
    us: u64,
}

impl Mean {
    fn take(&mut self, ppm: Option<u32>, us: u64) {
        if let Some(ppm) = ppm {
            self.active_ppm_us += u128::from(ppm) * u128::from(us);
            self.us += us;
        }
    }

    fn percent(self) -> Option<u64> {
        let ppm = self.active_ppm_us.checked_div(self.us.into())?;
        u64::try_from(ppm / 10_000).ok()
    }
}

impl MeanActivity {
    pub(super) fn take(&mut self, stretch: &Stretch) {
        let us = stretch.until_us.saturating_sub(stretch.from_us);
        let Activity { sm_ppm, tensor_ppm, dram_ppm } = stretch.activity;
        self.sm.take(sm_ppm, us);
        self.tensor.take(tensor_ppm, us);
        self.dram.take(dram_ppm, us);
    }

    /// Of the time: the multiprocessors; `None` where the device does not tell.
    #[must_use]
    pub fn sm_percent(&self) -> Option<u64> {
        self.sm.percent()
    }

    /// Of the time: the tensor cores, whatever they multiply.
    #[must_use]
    pub fn tensor_percent(&self) -> Option<u64> {
        self.tensor.percent()
    }

    /// Of the memory's bandwidth.
    #[must_use]
    pub fn dram_percent(&self) -> Option<u64> {
        self.dram.percent()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_stretch_counts_more() {
        let mut mean = MeanActivity::default();
        for (from_us, until_us, sm_ppm) in [(0, 1_000_000, 900_000), (1_000_000, 4_000_000, 100_000)] {
            let activity = Activity { sm_ppm: Some(sm_ppm), ..Activity::default() };
            mean.take(&Stretch { from_us, until_us, activity, ..Stretch::default() });
        }
        assert_eq!((mean.sm_percent(), mean.tensor_percent()), (Some(30), None));
    }
}
