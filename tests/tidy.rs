//! The borders of the house, as DESIGN and STYLE draw them.

#![allow(
    clippy::pedantic,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a test, not an interface"
)]

use std::path::{Path, PathBuf};

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Each source file below `directory`, relative to the package, with its text up to its tests.
fn sources(directory: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    files(&root.join(directory), &mut found);
    let relative = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
    found.iter().map(|path| (relative(path), std::fs::read_to_string(path).unwrap())).collect()
}

fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn none_has(directory: &str, words: &[&str], but: &[&str]) {
    for (path, text) in sources(directory) {
        if path.ends_with("tests.rs") || but.iter().any(|allowed| path.starts_with(allowed)) {
            continue;
        }
        let code = code(&text);
        for word in words {
            assert!(!code.contains(word), "{path} has {word:?}, which belongs to {but:?}");
        }
    }
}

#[test]
fn the_domain_depends_on_nothing() {
    none_has("src/domain", &["crate::sys", "crate::meter", "crate::runner", "crate::ledger", "crate::cli"], &[]);
}

#[test]
fn runner_knows_no_store_and_meters_no_ledger_rules() {
    none_has("src/runner", &["store::", "rusqlite", "crate::cli"], &[]);
    none_has("src", &["SELECT ", "INSERT INTO", "UPDATE "], &["src/ledger/store/"]);
    none_has("src/ledger/book", &["sqlite", "serde_json::from_value"], &[]);
    none_has("src/ledger", &["crate::runner", "crate::meter", "crate::cli"], &[]);
    none_has("src/sys", &["crate::runner", "crate::ledger", "crate::meter", "crate::cli"], &[]);
}

#[test]
fn each_power_has_one_room() {
    none_has("src", &["unsafe "], &["src/sys/"]);
    none_has("src", &["Instant::now", "SystemTime::now"], &["src/sys/clock.rs"]);
    none_has("src", &["println!", "print!(", "dbg!"], &["src/cli/output.rs"]);
    none_has("src", &["rusqlite"], &["src/ledger/store/"]);
}

#[test]
fn files_are_short_and_named_for_what_they_do() {
    for (path, text) in sources("src").into_iter().chain(sources("tests")) {
        let lines = text.lines().count();
        assert!(lines <= 500, "{path} has {lines} lines");
        let name = path.rsplit('/').next().unwrap();
        let vague = ["util", "utils", "helper", "helpers", "common", "misc"];
        assert!(!vague.iter().any(|word| name == format!("{word}.rs")), "{path} says nothing");
    }
}

#[test]
fn every_test_file_is_part_of_a_binary() {
    for group in ["it", "kernel", "sim"] {
        let main = std::fs::read_to_string(format!("{}/tests/{group}/main.rs", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for (path, _) in sources(&format!("tests/{group}")) {
            let name = path.rsplit('/').next().unwrap().trim_end_matches(".rs");
            assert!(name == "main" || main.contains(&format!("mod {name};")), "{path} is never run");
        }
    }
}

/// What is tracked, not what lies around: a scratch file that was added by mistake stands out here.
#[test]
fn the_top_level_is_what_the_design_lists() {
    let plan = [
        ".cargo",
        ".ci",
        ".clippy.toml",
        ".config",
        ".deny.toml",
        ".gitignore",
        ".rustfmt.toml",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "deploy",
        "src",
        "systemd",
        "tests",
    ];
    let root = env!("CARGO_MANIFEST_DIR");
    let mut list = std::process::Command::new("git");
    let listed = list.args(["-c", "safe.directory=*", "-C", root, "ls-files", "-z"]).output();
    // A copy without its history has no list to compare with.
    let Some(listed) = listed.ok().filter(|listed| listed.status.success()) else { return };
    for path in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
        let top = path.split('/').next().unwrap();
        assert!(plan.contains(&top), "{path} is not in the plan of the house: remove it, or change the plan");
    }
}
