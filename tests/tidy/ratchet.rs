//! The counts that may only fall, and the file that keeps them.
//!
//! Only the total of a measure may not rise. A file's own count tells where. If that count were held as well, a file
//! that is renamed or split would be an offence, and so would a function that moves to its neighbour.
//!
//! But the file must state every count as it is, and the test fails until it does. So a fall is kept at once, and
//! nothing can use it up later. And a fall that pays for a rise in the same commit shows in its diff, where a reviewer
//! sees it.

mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::measures::Measure;

/// Measure to place to number.
pub type Counts = BTreeMap<String, BTreeMap<String, usize>>;

/// In the column of places: the total of a measure. It is written even when nothing is left to count. A measure without
/// a total is a new one, and its counts are taken as they are.
const TOTAL: &str = "*";

const HEAD: &str = "\
# What is to become less: measure, place, count. The total is at *, and may not rise: see tests/tidy/ratchet.rs.
# Do not edit. When a count has fallen: RATCHET=lower cargo test --test tidy
";

pub fn counted(measures: &[Measure]) -> Counts {
    let mut counts = Counts::new();
    for measure in measures {
        let places = counts.entry(measure.name.to_owned()).or_default();
        for hit in &measure.hits {
            *places.entry(hit.place.clone()).or_default() += hit.count;
        }
    }
    counts
}

pub fn written(counts: &Counts) -> String {
    let mut text = HEAD.to_owned();
    for (measure, places) in counts {
        let _ = writeln!(text, "{measure}\t{TOTAL}\t{}", places.values().sum::<usize>());
        for (place, count) in places {
            let _ = writeln!(text, "{measure}\t{place}\t{count}");
        }
    }
    text
}

/// Reads what [`written`] wrote. Two branches that each lowered it, badly merged, leave a total that is not the sum.
pub fn read(text: &str) -> Result<Counts, String> {
    let mut counts = Counts::new();
    let mut totals = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [measure, place, count] = columns[..] else { return Err(format!("expected three columns: {line:?}")) };
        let count: usize = count.parse().map_err(|_| format!("expected a number in the third column: {line:?}"))?;
        let places = counts.entry(measure.to_owned()).or_default();
        if place == TOTAL {
            totals.insert(measure.to_owned(), count);
        } else if places.insert(place.to_owned(), count).is_some() {
            return Err(format!("{measure} has {place} twice"));
        }
    }
    for (measure, places) in &counts {
        if totals.get(measure) != Some(&places.values().sum()) {
            return Err(format!("the total of {measure} is not the sum of its lines"));
        }
    }
    Ok(counts)
}

/// What became of the counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Measures whose total rose.
    pub risen: Vec<String>,
    /// What the file does not say as it is, though nothing rose.
    pub stale: Vec<String>,
}

pub fn compared(kept: &Counts, found: &Counts) -> Verdict {
    let mut verdict = Verdict::default();
    for (measure, places) in found {
        let Some(before) = kept.get(measure) else {
            verdict.stale.push(format!("{measure}: is new"));
            continue;
        };
        let (was, is): (usize, usize) = (before.values().sum(), places.values().sum());
        if is > was {
            verdict.risen.push(measure.clone());
        } else if before != places {
            let moved: Vec<String> = changed(before, places).iter().map(ToString::to_string).collect();
            verdict.stale.push(format!("{measure}: {was} → {is} ({})", moved.join(", ")));
        }
    }
    let gone = kept.keys().filter(|measure| !found.contains_key(*measure));
    verdict.stale.extend(gone.map(|measure| format!("{measure}: is no longer measured")));
    verdict
}

#[derive(Debug, PartialEq, Eq)]
struct Change<'a> {
    place: &'a str,
    was: usize,
    is: usize,
}

impl std::fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} → {}", self.place, self.was, self.is)
    }
}

fn changed<'a>(before: &'a BTreeMap<String, usize>, now: &'a BTreeMap<String, usize>) -> Vec<Change<'a>> {
    let mut places: Vec<&String> = before.keys().chain(now.keys()).collect();
    places.sort();
    places.dedup();
    let of = |counts: &BTreeMap<String, usize>, place: &str| counts.get(place).copied().unwrap_or_default();
    let change = |place: &'a String| Change { place, was: of(before, place), is: of(now, place) };
    places.into_iter().map(change).filter(|change| change.was != change.is).collect()
}

/// Each place of a risen measure that has more than before, line by line.
pub fn explained(measure: &Measure, kept: &Counts, found: &Counts) -> String {
    let (before, now) = (&kept[measure.name], &found[measure.name]);
    let (was, is): (usize, usize) = (before.values().sum(), now.values().sum());
    let mut text = format!("{} rose from {was} to {is}: {}\n", measure.name, measure.cure);
    for change in changed(before, now).into_iter().filter(|change| change.is > change.was) {
        let _ = writeln!(text, "  {change}");
        for hit in measure.hits.iter().filter(|hit| hit.place == change.place) {
            let file = hit.place.split(' ').next().unwrap_or_default();
            let _ = writeln!(text, "    {file}:{}: {}", hit.line, hit.what);
        }
    }
    text
}
