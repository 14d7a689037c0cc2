use super::{Counts, Verdict, compared, counted, explained, read, written};
use crate::measures::{Hit, Measure};

fn counts(places: &[(&str, &str, usize)]) -> Counts {
    let mut counts = Counts::new();
    for (measure, place, count) in places {
        let places = counts.entry((*measure).to_owned()).or_default();
        if !place.is_empty() {
            places.insert((*place).to_owned(), *count);
        }
    }
    counts
}

#[test]
fn what_is_written_is_read() {
    let all = counts(&[("long", "a.rs f", 60), ("long", "b.rs", 51), ("none left", "", 0)]);
    let text = written(&all);
    assert_eq!(read(&text).as_ref(), Ok(&all));
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, ["long\t*\t111", "long\ta.rs f\t60", "long\tb.rs\t51", "none left\t*\t0"]);
}

#[test]
fn a_badly_merged_file_is_not_read() {
    assert!(read("long\t*\t2\nlong\ta.rs\t1\n").unwrap_err().contains("is not the sum"));
    assert!(read("long\ta.rs\t1\n").unwrap_err().contains("is not the sum"));
    assert!(read("long\t*\t2\nlong\ta.rs\t1\nlong\ta.rs\t1\n").unwrap_err().contains("twice"));
    assert!(read("<<<<<<< HEAD\n").unwrap_err().contains("three columns"));
    assert!(read("long\t*\tmany\n").unwrap_err().contains("expected a number"));
}

#[test]
fn a_rise_is_a_rise_wherever_it_is() {
    let kept = counts(&[("x", "a.rs", 2), ("y", "", 0)]);
    let risen = |found: &Counts| compared(&kept, found).risen;
    assert_eq!(compared(&kept, &kept), Verdict::default());
    assert_eq!(risen(&counts(&[("x", "a.rs", 3), ("y", "", 0)])), ["x"]);
    assert_eq!(risen(&counts(&[("x", "a.rs", 2), ("x", "b.rs", 1), ("y", "", 0)])), ["x"]);
    // Nothing is left of it, which is kept as well.
    assert_eq!(risen(&counts(&[("x", "a.rs", 2), ("y", "a.rs", 1)])), ["y"]);
}

#[test]
fn a_fall_has_to_be_kept() {
    let kept = counts(&[("x", "a.rs", 2)]);
    let fallen = compared(&kept, &counts(&[("x", "a.rs", 1)]));
    assert_eq!((fallen.risen.len(), fallen.stale), (0, vec!["x: 2 → 1 (a.rs 2 → 1)".to_owned()]));
}

/// No rise: but the file has to name the new place.
#[test]
fn a_renamed_file_only_has_to_be_written_down() {
    let moved = compared(&counts(&[("x", "a.rs", 2)]), &counts(&[("x", "b.rs", 1), ("x", "c.rs", 1)]));
    assert_eq!((moved.risen.len(), moved.stale.len()), (0, 1));
}

#[test]
fn measures_come_and_go() {
    let verdict = compared(&counts(&[("old", "a.rs", 2)]), &counts(&[("new", "a.rs", 2)]));
    assert_eq!((verdict.risen.len(), verdict.stale.len()), (0, 2));
}

#[test]
fn who_broke_it_is_told_where_and_what_to_do() {
    let hit = |place: &str, line| Hit { place: place.to_owned(), line, count: 1, what: format!("line {line}") };
    let hits = vec![hit("a.rs", 1), hit("b.rs f", 2), hit("b.rs f", 3)];
    let measures = [Measure { name: "x", cure: "do not", hits }];
    let kept = counts(&[("x", "a.rs", 1), ("x", "b.rs f", 1)]);
    let text = explained(&measures[0], &kept, &counted(&measures));
    assert_eq!(text, "x rose from 2 to 3: do not\n  b.rs f 1 → 2\n    b.rs:2: line 2\n    b.rs:3: line 3\n");
}
