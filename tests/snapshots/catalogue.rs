//! Every text of the source that people can meet: errors, notes, hints, logs. A test that provokes each of them cannot be
//! written, and a changed word must not go by unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::kept::keep;
use crate::source::{Literal, literals};

/// Before a text of one word that is an error.
const ERRORS: [&str; 6] = ["#[error(", "Err(", "Failure::new(", ".hint(", "ok_or(", "Problem::"];
/// With what the texts for a database begin.
const SQL: [&str; 17] = [
    "ALTER ",
    "BEGIN",
    "CREATE ",
    "DELETE ",
    "DROP ",
    "INSERT ",
    "LOCK ",
    "NOTIFY ",
    "ON CONFLICT",
    "ORDER ",
    "PRAGMA ",
    "SELECT ",
    "SET ",
    "SHOW ",
    "UPDATE ",
    "WHERE ",
    "WITH ",
];
/// And what others of them hold.
const OF_SQL: [&str; 8] = [" FROM ", " WHERE ", " VALUES ", "CAST(", " = ", " <> ", " < (", "/*"];

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Those are compiled for tests alone.
fn is_of_tests(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.contains("/suite/")
}

fn is_sql(text: &str) -> bool {
    let text = text.trim_start_matches("\\n").trim_start();
    let is_list = text.split(' ').rev().skip(1).all(|word| word.ends_with(',') && !word.contains('{'));
    is_list || SQL.iter().any(|word| text.starts_with(word)) || OF_SQL.iter().any(|part| text.contains(part))
}

/// Two words or more, or one that is an error.
fn is_for_people(path: &str, literal: &Literal) -> bool {
    let Literal { text, before } = literal;
    let is_word = |word: &str| word.chars().any(char::is_lowercase);
    let words = text.split_whitespace().filter(|word| is_word(word)).count();
    let is_one = words > 0 && ERRORS.iter().any(|error| before.ends_with(error));
    (words > 1 && text.contains(' ') || is_one) && !(path.contains("/store/") && is_sql(text))
}

/// By files, and within a file by the alphabet: code that only moves changes nothing.
#[test]
fn every_text_that_people_can_meet_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    files(&root.join("src"), &mut found);
    let mut by_file: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in found {
        let name = path.strip_prefix(root).expect("below the root").display().to_string();
        let source = std::fs::read_to_string(&path).expect("a file");
        let texts =
            literals(&source).into_iter().filter(|literal| is_for_people(&name, literal)).map(|literal| literal.text);
        let texts = texts.collect();
        by_file.insert(name, texts);
    }
    by_file.retain(|file, texts| !is_of_tests(file) && !texts.is_empty());
    let mut text = String::new();
    for (file, texts) in &by_file {
        text.push_str(&format!("{file}\n"));
        for line in texts {
            text.push_str(&format!("    {line}\n"));
        }
    }
    assert!(by_file.len() > 50, "only {} files have texts", by_file.len());
    keep("catalogue", &text);
}
