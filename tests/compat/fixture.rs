//! The versions that left something behind, their files, and how what is said today is held against what they said.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::station::{Called, Station};

/// The ledger of whichever directory a process runs in: the path that the records of the fixtures name.
pub(crate) const LEDGER: &str = "/proc/self/cwd/ledger.db";

/// A version whose files lie in a directory beside this one.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) name: String,
    directory: PathBuf,
}

/// What it printed, and when it was asked what.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) arguments: Vec<String>,
    pub(crate) answer: Value,
}

/// All of them: a new one needs no change here.
pub(crate) fn versions() -> Vec<Version> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat");
    let entries = std::fs::read_dir(&beside).unwrap().flatten();
    let found = entries.filter(|entry| entry.path().join("about.json").exists()).map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        Version { name, directory: entry.path() }
    });
    let mut found: Vec<Version> = found.collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(!found.is_empty(), "no fixtures in {}", beside.display());
    found
}

impl Version {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.text(name)).unwrap_or_else(|error| panic!("{} {name}: {error}", self.name))
    }

    /// A file with a document on each line.
    pub(crate) fn lines(&self, name: &str) -> Vec<Value> {
        let text = self.text(name);
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
    }

    pub(crate) fn answers(&self, name: &str) -> Vec<Answer> {
        let of = |line: Value| Answer { arguments: texts(&line["arguments"]), answer: line["answer"].clone() };
        self.lines(name).into_iter().map(of).collect()
    }

    /// A directory of the fixture is never written: this is a copy of it.
    pub(crate) fn copied(&self, name: &str) -> Station {
        let station = Station::new();
        copy(&self.path(name), station.directory.path());
        station
    }
}

pub(crate) fn texts(array: &Value) -> Vec<String> {
    array.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

/// Today's jobmeter in the directory of a copy, whose records name [`LEDGER`].
pub(crate) fn call_in(station: &Station, arguments: &[&str]) -> Called {
    let mut command = station.command(arguments);
    command.current_dir(station.directory.path()).env("JOBMETER_LEDGER", LEDGER);
    command.output().unwrap().into()
}

pub(crate) fn json_in(station: &Station, arguments: &[&str]) -> Value {
    let called = call_in(station, &[&["--json"], arguments].concat());
    assert_eq!(called.status, 0, "{arguments:?}: {called:?}");
    serde_json::from_str(&called.out).unwrap()
}

/// The books are right, or what is wrong with them is said.
pub(crate) fn assert_verified(station: &Station, what: &str) {
    let verified = call_in(station, &["ledger", "verify"]);
    assert_eq!(verified.status, 0, "{what} {verified:?}");
}

/// Asks the same as an earlier version was asked, and finds all that it answered. Of the fields named in `of_now` only the
/// type is compared.
pub(crate) fn assert_answered(ask: &dyn Fn(&[&str]) -> Value, asked: &Answer, of_now: &[&str]) {
    let arguments: Vec<&str> = asked.arguments.iter().map(String::as_str).collect();
    assert_same(&asked.answer, &ask(&arguments), of_now, &format!("{arguments:?}"));
}

/// `new` has all that `old` has, with the same values; it may have more.
pub(crate) fn assert_same(old: &Value, new: &Value, of_now: &[&str], what: &str) {
    let mut found = Vec::new();
    differences(old, new, of_now, &mut String::new(), &mut found);
    assert!(found.is_empty(), "{what}:\n{}\nthen: {old}\nnow:  {new}", found.join("\n"));
}

fn differences(old: &Value, new: &Value, of_now: &[&str], path: &mut String, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(fields), Value::Object(others)) => {
            for (name, field) in fields {
                let length = path.len();
                path.push_str(&format!(".{name}"));
                match others.get(name) {
                    None => found.push(format!("{path} is missing")),
                    Some(other) if is_of_now(path, of_now) => {
                        let has_type = field.is_null() || kind(field) == kind(other) || other.is_null();
                        found.extend((!has_type).then(|| format!("{path} was {field} and is {other}")));
                    }
                    Some(other) => differences(field, other, of_now, path, found),
                }
                path.truncate(length);
            }
        }
        (Value::Array(items), Value::Array(others)) => {
            if items.len() != others.len() {
                found.push(format!("{path} had {} items and has {}", items.len(), others.len()));
            }
            for (at, (item, other)) in items.iter().zip(others).enumerate() {
                let length = path.len();
                path.push_str(&format!("[{at}]"));
                differences(item, other, of_now, path, found);
                path.truncate(length);
            }
        }
        (Value::Number(number), Value::Number(other)) if decimal(number) == decimal(other) => {}
        (old, new) if old == new => {}
        (old, new) => found.push(format!("{path} was {old} and is {new}")),
    }
}

/// By its name, or where that is not enough by its parent's and its own: `lease.version`.
fn is_of_now(path: &str, of_now: &[&str]) -> bool {
    of_now.iter().any(|name| path.strip_suffix(name).is_some_and(|before| before.ends_with('.')))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// 0.5 and 0.500 are the same number.
fn decimal(number: &serde_json::Number) -> String {
    let text = number.to_string();
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A refusal is one line of one sentence, after which at most a cause and a hint follow; it names each of these.
pub(crate) fn assert_refused(called: &Called, names: &[&str]) {
    assert_ne!(called.status, 0, "{called:?}");
    assert!(called.out.is_empty(), "{called:?}");
    let mut lines = called.err.lines();
    let first = lines.next().unwrap_or_default();
    assert!(first.starts_with("jobmeter: error: ") && !first.contains(". "), "one sentence: {called:?}");
    let rest: Vec<&str> = lines.collect();
    let known = |line: &&str| line.starts_with("  caused by: ") || line.starts_with("  hint: ");
    assert!(rest.len() <= 2 && rest.iter().all(known), "{called:?}");
    for name in names {
        assert!(called.err.contains(name), "{name:?} is not in {called:?}");
    }
}

#[test]
fn what_was_said_is_missed_and_what_is_more_is_not() {
    let differ = |old: &str, new: &str| {
        let (old, new) = (serde_json::from_str(old).unwrap(), serde_json::from_str(new).unwrap());
        let mut found = Vec::new();
        differences(&old, &new, &["at"], &mut String::new(), &mut found);
        found.len()
    };
    for (old, new, expected) in [
        (r#"{"a":1}"#, r#"{"a":1,"b":2}"#, 0),
        (r#"{"a":1,"b":[{"c":2}]}"#, r#"{"a":1.0,"b":[{"c":3}]}"#, 1),
        (r#"{"a":1}"#, r#"{}"#, 1),
        (r#"{"a":[1,2]}"#, r#"{"a":[1]}"#, 1),
        (r#"{"at":"x"}"#, r#"{"at":"y"}"#, 0),
        (r#"{"at":"x"}"#, r#"{"at":7}"#, 1),
        (r#"{"a":0.50}"#, r#"{"a":"0.5"}"#, 1),
    ] {
        assert_eq!(differ(old, new), expected, "{old} {new}");
    }
}
