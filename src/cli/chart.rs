//! Bars, charts and durations of text. Integers all through.

use crate::domain::units::Nanocredits;
use crate::ledger::views::BurnPoint;

/// A bar of `width` characters, cut in proportion to the amounts; what is not zero gets at least one.
pub(super) fn bar(parts: &[(Nanocredits, char)], width: usize) -> String {
    let amount = |part: &Nanocredits| u128::from(part.at_least_zero().0.unsigned_abs());
    let total: u128 = parts.iter().map(|(part, _)| amount(part)).sum();
    let mut text = String::new();
    let (mut before, mut drawn) = (0_u128, 0_usize);
    for (part, mark) in parts {
        before += amount(part);
        let end = usize::try_from(before * width as u128 / total.max(1)).unwrap_or(width);
        let least = if amount(part) > 0 { drawn + 1 } else { drawn };
        let end = end.max(least).min(width);
        text.extend(std::iter::repeat_n(*mark, end - drawn));
        drawn = end;
    }
    text.extend(std::iter::repeat_n(' ', width - drawn));
    text
}

/// Credits burned per stretch of time, as eight heights of blocks, and the largest of them.
pub(super) fn burn(points: &[BurnPoint], width: usize) -> Option<(String, Nanocredits)> {
    let last = points.last().filter(|last| last.after_ms > 0)?;
    let mut bins = vec![0_u128; width];
    let mut before = BurnPoint { after_ms: 0, charged: Nanocredits::ZERO };
    for point in points {
        spread(&mut bins, &before, point, last.after_ms);
        before = *point;
    }
    let most = bins.iter().max().copied().filter(|most| *most > 0)?;
    let draw = |bin: &u128| block(*bin, most);
    // A bin holds 1/1000 nanocredits.
    let most = i64::try_from(most / 1_000).unwrap_or(i64::MAX);
    Some((bins.iter().map(draw).collect(), Nanocredits(most)))
}

/// Percentages, at full height for 100.
pub(super) fn percent(columns: &[u64]) -> String {
    columns.iter().map(|percent| block(u128::from(*percent), 100)).collect()
}

/// One of eight heights, and none for nothing.
fn block(height: u128, most: u128) -> char {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    if height == 0 {
        return ' ';
    }
    let eighth = (height * 8).div_ceil(most.max(1)).saturating_sub(1);
    usize::try_from(eighth).ok().and_then(|eighth| BLOCKS.get(eighth)).copied().unwrap_or('█')
}

/// What was burned between two points, over the bins between them.
fn spread(bins: &mut [u128], from: &BurnPoint, to: &BurnPoint, end_ms: u64) {
    let burned = u128::from(to.charged.saturating_sub(from.charged).at_least_zero().0.unsigned_abs()) * 1_000;
    let at = |ms: u64| usize::try_from(u128::from(ms) * bins.len() as u128 / u128::from(end_ms.max(1))).unwrap_or(0);
    let last = bins.len().saturating_sub(1);
    let (first, until) = (at(from.after_ms).min(last), at(to.after_ms).min(last));
    let count = (until.saturating_sub(first) + 1) as u128;
    for bin in bins.iter_mut().take(until + 1).skip(first) {
        *bin += burned / count;
    }
}

/// `2 d 3 h`, `7 h 12 min`, `12 min`, `42 s`.
pub(super) fn duration(total_s: u64) -> String {
    let (days, hours, minutes) = (total_s / 86_400, total_s / 3_600 % 24, total_s / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{total_s} s"),
        (0, 0, minutes) => format!("{minutes} min {:02} s", total_s % 60),
        (0, hours, minutes) => format!("{hours} h {minutes:02} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_wide_as_asked_and_hides_nothing() {
        let parts = [(Nanocredits(1), 'c'), (Nanocredits(1_000), 'h'), (Nanocredits(0), 'p'), (Nanocredits(999), 'f')];
        let text = bar(&parts, 20);
        assert_eq!((text.chars().count(), text.contains('c'), text.contains('p')), (20, true, false));
        assert_eq!(bar(&[(Nanocredits(0), 'x')], 5), "     ");
    }

    #[test]
    fn a_chart_shows_when_it_burned() {
        let point = |after_ms, charged| BurnPoint { after_ms, charged: Nanocredits(charged) };
        let (text, most) = burn(&[point(500, 1_000), point(1_000, 1_000)], 10).unwrap();
        assert!(text.starts_with('█') && text.ends_with(' '), "{text}");
        assert!(most.0 > 100 && most.0 < 500, "{most}");
        assert_eq!(burn(&[], 10), None);
    }

    #[test]
    fn durations_are_short() {
        let cases = [(0, "0 s"), (75, "1 min 15 s"), (25_920, "7 h 12 min"), (180_000, "2 d 2 h")];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }
}
