//! What an attempt says that it used is taken as far as its resources can have done it.

use super::rows::Attempt;
use crate::domain::capacity::Capacity;
use crate::domain::usage::Usage;

impl Attempt {
    /// Time has passed at the pace that it declared last.
    pub(super) fn grow(&mut self, now_us: i64) {
        // Where the clock was set back nobody knows how much time has passed.
        let known = self.capacity.filter(|capacity| now_us >= capacity.heard_us);
        self.capacity = known.map(|capacity| capacity.grown(now_us, self.pace.speed()));
    }

    /// As much of a usage as it can have used.
    pub(super) fn believed(&self, usage: &Usage) -> Usage {
        let weight_ppm = |model: &str| self.rates.gpu_weight_ppm_of(model);
        let bounded = |capacity: Capacity| capacity.bounded(&self.usage, usage, self.pace.speed(), weight_ppm);
        self.capacity.map_or_else(|| usage.clone(), bounded)
    }
}
