//! Which days a usage report is of.

use serde::{Deserialize, Serialize};

use super::views::PeriodLength;
use crate::domain::calendar::{day_start, month_end};

/// From a day up to another, which is not in it, by days or by months; all in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageRange {
    /// The start of the first day, in seconds since 1970.
    pub from_s: i64,
    /// The end of the last day, in seconds since 1970.
    pub to_s: i64,
    /// The length of a row.
    pub by: PeriodLength,
}

impl UsageRange {
    /// As people say it: a month (`2026-11`), or from a day up to another; without a length by days, without anything all
    /// months.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn new(
        month: Option<&str>,
        from: Option<&str>,
        to: Option<&str>,
        by: Option<PeriodLength>,
    ) -> Result<Self, String> {
        let narrowed = month.is_some() || from.is_some() || to.is_some();
        let by = by.unwrap_or(if narrowed { PeriodLength::Day } else { PeriodLength::Month });
        if let Some(month) = month {
            if from.is_some() || to.is_some() {
                return Err("say a month, or from and to".to_owned());
            }
            let from_s = day(&format!("{month}-01"))
                .filter(|_| month.len() == 7)
                .ok_or_else(|| format!("{month:?} is no month: write YYYY-MM, such as 2026-11"))?;
            return Ok(Self { from_s, to_s: month_end(from_s), by });
        }
        let of = |text: Option<&str>, open: i64| match text {
            Some(text) => day(text).ok_or_else(|| format!("{text:?} is no day: write YYYY-MM-DD, such as 2026-11-30")),
            None => Ok(open),
        };
        Ok(Self { from_s: of(from, i64::MIN)?, to_s: of(to, i64::MAX)?, by })
    }
}

/// The start of a day: a date, or a time of RFC 3339 within it.
fn day(text: &str) -> Option<i64> {
    let midnight = format!("{text}T00:00:00Z");
    let time = midnight.parse::<jiff::Timestamp>().or_else(|_| text.parse::<jiff::Timestamp>());
    time.ok().map(|time| day_start(time.as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_are_what_people_write() {
        let by = PeriodLength::Day;
        let november = UsageRange { from_s: 1_793_491_200, to_s: 1_796_083_200, by };
        assert_eq!(UsageRange::new(Some("2026-11"), None, None, None), Ok(november));
        assert_eq!(UsageRange::new(None, Some("2026-11-01"), Some("2026-12-01"), None), Ok(november));
        let from = Some("2026-11-01T12:00:00+01:00");
        assert_eq!(UsageRange::new(None, from, Some("2026-12-01"), None), Ok(november));
        let all = UsageRange { from_s: i64::MIN, to_s: i64::MAX, by: PeriodLength::Month };
        assert_eq!(UsageRange::new(None, None, None, None), Ok(all));
        for wrong in ["2026-13", "2026-1", "", "x", "2026-11-01", "-26-11", "2026-11-31"] {
            assert!(UsageRange::new(Some(wrong), None, None, None).is_err(), "{wrong}");
        }
        for wrong in ["2026-11", "2026-02-30", "", "yesterday", "1"] {
            assert!(UsageRange::new(None, Some(wrong), None, None).is_err(), "{wrong}");
        }
        assert!(UsageRange::new(Some("2026-11"), Some("2026-11-01"), None, None).is_err());
    }
}
