//! The help of every verb, as it is typed and as it is asked for at length.

use std::collections::BTreeSet;
use std::process::Command;

use crate::kept::{Named, keep, keep_all, none_is_left_over};
use crate::placeholders::Placeholders;

/// Of a program that knows nothing but how wide the terminal is: variables that are set stand in the help.
fn told(path: &[String], option: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobmeter"));
    let output = command.args(path).arg(option).env_clear().env("COLUMNS", "100").output().expect("it starts");
    assert!(output.status.success(), "{path:?} {option}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The names under `Commands:`, each at the beginning of a line that is two spaces in.
fn below(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    names.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

/// This verb and all that are below it.
fn walk(path: &[String], found: &mut Vec<Named>) {
    let (short, long) = (told(path, "-h"), told(path, "--help"));
    let line = ["jobmeter".to_owned()].iter().chain(path).cloned().collect::<Vec<_>>().join(" ");
    let rest = if short == long { "the same\n".to_owned() } else { long.clone() };
    let text = format!("$ {line} -h\n{short}\n$ {line} --help\n{rest}");
    found.push((format!("help-{}", line.replace(' ', "-")), text));
    for name in below(&long) {
        walk(&[path, &[name]].concat(), found);
    }
}

#[test]
fn every_verb_says_what_it_is_for() {
    let mut texts = Vec::new();
    walk(&[], &mut texts);
    assert!(texts.len() > 30, "only {} were found", texts.len());
    none_is_left_over("help-", &texts);
    keep_all(&texts);
}

#[test]
fn the_version_is_told() {
    let mut known = Placeholders::default();
    known.learn(env!("CARGO_PKG_VERSION"), "<version>");
    keep("version", &known.in_text(&told(&[], "--version")));
}

/// A manual page for each verb: its name is all that differs from the help.
#[test]
fn every_verb_has_a_manual_page() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobmeter"));
    command.args(["man", "--dir"]).arg(directory.path()).env_clear().env("HOME", directory.path());
    assert!(command.output().expect("it starts").status.success());
    let files = std::fs::read_dir(directory.path()).expect("a directory").flatten();
    let pages: BTreeSet<String> = files.filter_map(|file| file.file_name().into_string().ok()).collect();
    keep("manual-pages", &pages.into_iter().collect::<Vec<_>>().join("\n"));
}
