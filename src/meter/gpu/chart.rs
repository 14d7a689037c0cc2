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
    columns: Vec<Column>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Column {
    busy_us: u64,
    /// Of that, what could not be read.
    estimated_us: u64,
}

/// How busy a device was, in equal columns of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// How long each is.
    pub column_us: u64,
    /// Of the time of each.
    pub percent: Vec<u64>,
    /// Of that, what could not be read and was taken as allocated; none where all was.
    pub estimated_percent: Vec<u64>,
}

impl Default for Chart {
    fn default() -> Self {
        Self { from_us: None, column_us: COLUMN_US, columns: Vec::new() }
    }
}

impl Chart {
    /// The first column begins now.
    pub fn begin(&mut self, now_us: u64) {
        self.from_us = Some(now_us);
    }

    /// So much, known at `at_us`.
    pub fn add(&mut self, at_us: u64, busy_us: u64) {
        self.add_to(at_us, Column { busy_us, estimated_us: 0 });
    }

    fn add_to(&mut self, at_us: u64, more: Column) {
        let Some(from_us) = self.from_us else { return };
        let after_us = at_us.saturating_sub(from_us).saturating_sub(1);
        while after_us / self.column_us >= COLUMNS_MAX as u64 {
            self.column_us *= 2;
            self.columns =
                self.columns.chunks(2).map(|pair| pair.iter().copied().fold(Column::default(), Column::with)).collect();
        }
        let column = usize::try_from(after_us / self.column_us).unwrap_or(0);
        if self.columns.len() <= column {
            self.columns.resize(column + 1, Column::default());
        }
        self.columns[column] = self.columns[column].with(more);
    }

    /// So much, evenly between two times.
    pub fn spread(&mut self, from_us: u64, until_us: u64, busy_us: u64) {
        self.spread_as(from_us, until_us, busy_us, |busy_us| Column { busy_us, estimated_us: 0 });
    }

    /// The same of what could not be read.
    pub fn estimate(&mut self, from_us: u64, until_us: u64, busy_us: u64) {
        self.spread_as(from_us, until_us, busy_us, |busy_us| Column { busy_us, estimated_us: busy_us });
    }

    fn spread_as(&mut self, from_us: u64, until_us: u64, busy_us: u64, column: fn(u64) -> Column) {
        let long_us = until_us.saturating_sub(from_us).max(1);
        let (mut at_us, mut left_us) = (from_us, busy_us);
        while at_us < until_us {
            let next_us = (at_us + self.column_us / 2).min(until_us);
            let part_us =
                u64::try_from(u128::from(busy_us) * u128::from(next_us - at_us) / u128::from(long_us)).unwrap_or(0);
            self.add_to(next_us, column(part_us.min(left_us)));
            (at_us, left_us) = (next_us, left_us.saturating_sub(part_us));
        }
    }

    /// As far as it is known.
    #[must_use]
    pub fn columns(&self) -> Columns {
        let percent = |us: u64| (us * 100 / self.column_us).min(100);
        let is_estimated = self.columns.iter().any(|column| column.estimated_us > 0);
        let estimated = self.columns.iter().filter(|_| is_estimated);
        Columns {
            column_us: self.column_us,
            percent: self.columns.iter().map(|column| percent(column.busy_us)).collect(),
            estimated_percent: estimated.map(|column| percent(column.estimated_us)).collect(),
        }
    }
}

impl Column {
    fn with(self, other: Self) -> Self {
        Self { busy_us: self.busy_us + other.busy_us, estimated_us: self.estimated_us + other.estimated_us }
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
        let Columns { column_us, percent, estimated_percent } = chart.columns();
        assert_eq!((column_us, percent.len(), estimated_percent.len()), (2_000_000, 45, 0));
        assert!(percent.iter().all(|percent| *percent == 50), "{percent:?}");
        chart.estimate(88_000_000, 89_000_000, 1_000_000);
        chart.add(130_000_000, 0);
        let Columns { column_us, percent, estimated_percent } = chart.columns();
        assert_eq!((column_us, percent.len()), (4_000_000, 33));
        assert_eq!((percent[21], percent[22], estimated_percent[22]), (50, 50, 25));
    }
}
