//! What an attempt says that it used is taken as far as its resources can have done it.

use super::rows::Attempt;
use crate::domain::usage::Usage;

impl Attempt {
    /// Time has passed at the pace that it declared last.
    pub(super) fn grow(&mut self, now_us: i64) {
        self.capacity = self.capacity.map(|capacity| capacity.grown(now_us, self.pace.cpus_ppm));
    }

    /// Takes a usage as far as it can be.
    pub(super) fn believe(&mut self, usage: &Usage) {
        let bounded = self.capacity.map(|capacity| capacity.bounded(usage, self.pace.cpus_ppm));
        self.usage = self.usage.merged(bounded.as_ref().unwrap_or(usage));
    }
}
