//! How busy a device was over the time of the job, in at most 60 columns.

/// No more columns; when they are full, two become one.
const COLUMNS_MAX: usize = 60;
/// A column is so long at first.
const COLUMN_US: u64 = 1_000_000;

/// Busy time by columns of time.
#[derive(Clone, Debug)]
pub struct Chart {
    from_us: Option<u64>,
    column_us: u64,
    busy_us: Vec<u64>,
}

impl Default for Chart {
    fn default() -> Self {
        Self { from_us: None, column_us: COLUMN_US, busy_us: Vec::new() }
    }
}

impl Chart {
    /// The first column begins now.
    pub fn begin(&mut self, now_us: u64) {
        self.from_us = Some(now_us);
    }

    /// So much, known at `at_us`.
    pub fn add(&mut self, at_us: u64, busy_us: u64) {
        let Some(from_us) = self.from_us else { return };
        let after_us = at_us.saturating_sub(from_us).saturating_sub(1);
        while after_us / self.column_us >= COLUMNS_MAX as u64 {
            self.column_us *= 2;
            self.busy_us = self.busy_us.chunks(2).map(|pair| pair.iter().sum()).collect();
        }
        let column = usize::try_from(after_us / self.column_us).unwrap_or(0);
        if self.busy_us.len() <= column {
            self.busy_us.resize(column + 1, 0);
        }
        self.busy_us[column] += busy_us;
    }

    /// So much, evenly between two times.
    pub fn spread(&mut self, from_us: u64, until_us: u64, busy_us: u64) {
        let long_us = until_us.saturating_sub(from_us).max(1);
        let (mut at_us, mut left_us) = (from_us, busy_us);
        while at_us < until_us {
            let next_us = (at_us + self.column_us / 2).min(until_us);
            let part_us =
                u64::try_from(u128::from(busy_us) * u128::from(next_us - at_us) / u128::from(long_us)).unwrap_or(0);
            self.add(next_us, part_us.min(left_us));
            (at_us, left_us) = (next_us, left_us.saturating_sub(part_us));
        }
    }

    /// How long a column is, and percent of each.
    #[must_use]
    pub fn columns(&self) -> (u64, Vec<u64>) {
        (self.column_us, self.busy_us.iter().map(|us| (us * 100 / self.column_us).min(100)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_grow_with_the_job() {
        let mut chart = Chart::default();
        chart.begin(0);
        (1..=90).for_each(|second| chart.add(second * 1_000_000, 500_000));
        let (column_us, percent) = chart.columns();
        assert_eq!((column_us, percent.len()), (2_000_000, 45));
        assert!(percent.iter().all(|percent| *percent == 50), "{percent:?}");
    }
}
