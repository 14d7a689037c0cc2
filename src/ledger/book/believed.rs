//! What an attempt says that it used is taken as far as its resources can have done it.

use super::rows::Attempt;
use crate::domain::usage::Usage;

impl Attempt {
    /// Time has passed at the pace that it declared last.
    pub(super) fn grow(&mut self, now_us: i64) {
        // Where the clock was set back nobody knows how much time has passed.
        let known = self.capacity.filter(|capacity| now_us >= capacity.heard_us);
        self.capacity = known.map(|capacity| capacity.grown(now_us, self.pace.cpus_ppm));
    }

    /// As much of a usage as it can have used.
    pub(super) fn believed(&self, usage: &Usage) -> Usage {
        self.capacity.map_or_else(|| usage.clone(), |capacity| capacity.bounded(usage, self.pace.cpus_ppm))
    }
}
