//! Days and months in UTC, as seconds since 1970-01-01.

/// Seconds of a day; UTC as POSIX counts it has no leap seconds.
pub const DAY_S: i64 = 86_400;

/// The start of the day that holds `at_s`.
#[must_use]
pub const fn day_start(at_s: i64) -> i64 {
    at_s.saturating_sub(at_s.rem_euclid(DAY_S))
}

/// The start of the next day.
#[must_use]
pub const fn day_end(at_s: i64) -> i64 {
    day_start(at_s).saturating_add(DAY_S)
}

/// The start of the month that holds `at_s`.
#[must_use]
pub fn month_start(at_s: i64) -> i64 {
    let (year, month, _) = civil(at_s);
    days_before(year, month).saturating_mul(DAY_S)
}

/// The start of the next month.
#[must_use]
pub fn month_end(at_s: i64) -> i64 {
    let (year, month, _) = civil(at_s);
    let (year, month) = if month == 12 { (year.saturating_add(1), 1) } else { (year, month.saturating_add(1)) };
    days_before(year, month).saturating_mul(DAY_S)
}

/// The day that holds `at_s`, as `2026-11-30`.
#[must_use]
pub fn date(at_s: i64) -> String {
    let (year, month, day) = civil(at_s);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day. Years are counted from March here, so that the leap day is a year's last.
#[must_use]
pub fn civil(at_s: i64) -> (i64, i64, i64) {
    let days = at_s.div_euclid(DAY_S).saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let leap_days =
        of_era.div_euclid(1_460).saturating_sub(of_era.div_euclid(36_524)).saturating_add(of_era.div_euclid(146_096));
    let year_of_era = of_era.saturating_sub(leap_days).div_euclid(365);
    let before = year_of_era
        .saturating_mul(365)
        .saturating_add(year_of_era.div_euclid(4))
        .saturating_sub(year_of_era.div_euclid(100));
    let of_year = of_era.saturating_sub(before);
    let shifted = of_year.saturating_mul(5).saturating_add(2).div_euclid(153);
    let day = of_year.saturating_sub(shifted.saturating_mul(153).saturating_add(2).div_euclid(5)).saturating_add(1);
    let month = if shifted < 10 { shifted.saturating_add(3) } else { shifted.saturating_sub(9) };
    let year = era.saturating_mul(400).saturating_add(year_of_era);
    (if month <= 2 { year.saturating_add(1) } else { year }, month, day)
}

/// Days from 1970-01-01 to the first of a month.
fn days_before(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year.saturating_sub(1) } else { year };
    let shifted = if month > 2 { month.saturating_sub(3) } else { month.saturating_add(9) };
    let year_of_era = year.rem_euclid(400);
    let of_year = shifted.saturating_mul(153).saturating_add(2).div_euclid(5);
    year.div_euclid(400)
        .saturating_mul(146_097)
        .saturating_add(year_of_era.saturating_mul(365))
        .saturating_add(year_of_era.div_euclid(4))
        .saturating_sub(year_of_era.div_euclid(100))
        .saturating_add(of_year)
        .saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn knows_leap_years_and_the_turn_of_a_year() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(951_782_400), (2000, 2, 29));
        assert_eq!((month_start(951_782_400), month_end(951_782_400)), (949_363_200, 951_868_800));
        assert_eq!(civil(4_107_542_399), (2100, 2, 28));
        assert_eq!(civil(4_107_542_400), (2100, 3, 1));
        assert_eq!(month_end(1_798_761_599), 1_798_761_600);
    }

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn periods_are_half_open_and_hold_their_time(at in 0..10_000_000_000i64) {
            prop_assert!(day_start(at) <= at && at < day_end(at));
            prop_assert!(month_start(at) <= at && at < month_end(at));
            prop_assert_eq!(month_start(month_end(at) - 1), month_start(at));
            let days = (month_end(at) - month_start(at)) / DAY_S;
            prop_assert!((28..=31).contains(&days));
        }
    }
}
