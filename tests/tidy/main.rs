//! The borders of the house, as DESIGN and STYLE draw them.

#![allow(
    clippy::pedantic,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a test, not an interface"
)]

mod floors;
mod graph;
mod imports;
mod lengths;
mod measures;
mod ratchet;
mod scan;
mod tree;

use tree::{File, tree};

/// Fails where shipped code in `directory` has one of `words`, but in the rooms that may.
fn none_has(directory: &str, words: &[&str], but: &[&str]) {
    none_of(directory, words, but, |file| file.shipped.clone());
}

fn none_of(directory: &str, words: &[&str], but: &[&str], view: impl Fn(&File) -> String) {
    let mut found = Vec::new();
    for file in tree().shipped().filter(|file| file.path.starts_with(directory)) {
        if but.iter().any(|allowed| file.path.starts_with(allowed)) {
            continue;
        }
        let view = view(file);
        let places = words.iter().flat_map(|word| view.match_indices(word));
        found.extend(places.map(|(at, word)| format!("{}:{} has {word:?}", file.path, scan::line_of(&view, at))));
    }
    assert!(found.is_empty(), "these words belong to {but:?}:\n{}", found.join("\n"));
}

#[test]
fn the_floors_are_drawn_for_the_rooms_there_are() {
    let wrong = floors::misdrawn(floors::ROOMS, tree());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_power_has_one_room() {
    none_has("src/", &["unsafe "], &["src/sys/"]);
    none_has("src/", &["Instant::now", "SystemTime::now"], &["src/sys/clock.rs"]);
    none_has("src/", &["println!", "print!(", "dbg!"], &["src/cli/output.rs"]);
    // Whatever else printed would print what came from outside as it is: see src/domain/printable.rs. `title` and `top` ask
    // whether it is a terminal, and NVML's helper speaks to jobmeter.
    let printers = [
        "src/cli/output.rs",
        "src/cli/log.rs",
        "src/cli/top.rs",
        "src/runner/front.rs",
        "src/runner/title.rs",
        "src/bin/jobmeter-nvml/clients.rs",
    ];
    none_has("src/", &["io::stdout", "io::stderr", "stdout()", "stderr()", "error.print("], &printers);
    none_has("src/", &["rusqlite", "tokio_postgres"], &["src/ledger/store/"]);
    none_has("src/ledger/book/", &["sqlite", "serde_json::from_value"], &[]);
    // Which namespace's `/proc` it is, one room knows; `/proc/self` is right everywhere.
    none_of("src/", &["\"/proc/{p"], &["src/sys/proc.rs"], |file| file.source.shipped_with_literals());
    // These stand in quotes.
    let sql = ["SELECT ", "INSERT INTO", "UPDATE ", "DELETE FROM"];
    none_of("src/", &sql, &["src/ledger/store/"], |file| file.source.shipped_with_literals());
}

#[test]
fn files_are_named_for_what_they_do() {
    for file in &tree().files {
        let name = file.path.rsplit('/').next().unwrap();
        let vague = ["util", "utils", "helper", "helpers", "common", "misc"];
        assert!(!vague.iter().any(|word| name == format!("{word}.rs")), "{} says nothing", file.path);
    }
}

/// A file whose `mod` is missing, or whose target is missing in `Cargo.toml`, is never compiled.
#[test]
fn every_file_is_part_of_a_target() {
    let lost = tree().files.iter().filter(|file| file.module.is_none()).map(|file| file.path.as_str());
    let lost: Vec<&str> = lost.collect();
    assert!(lost.is_empty(), "no target in Cargo.toml leads to {}", lost.join(", "));
}

/// Counts that may only fall. When one has fallen, `RATCHET=lower` writes it down. Nothing writes down a rise.
#[test]
fn the_ratchet_holds() {
    let file = tree().root.join("tests/tidy/ratchet.txt");
    let kept = ratchet::read(&std::fs::read_to_string(&file).unwrap_or_default()).unwrap();
    let measures = measures::measured(tree());
    let found = ratchet::counted(&measures);
    let verdict = ratchet::compared(&kept, &found);
    let risen = measures.iter().filter(|measure| verdict.risen.iter().any(|name| name == measure.name));
    let risen: Vec<String> = risen.map(|measure| ratchet::explained(measure, &kept, &found)).collect();
    assert!(risen.is_empty(), "what may only fall has risen:\n{}", risen.join("\n"));
    if std::env::var_os("RATCHET").is_some_and(|order| order == "lower") {
        std::fs::write(&file, ratchet::written(&found)).unwrap();
        return;
    }
    let stale = verdict.stale.join("\n");
    assert!(stale.is_empty(), "lower it: RATCHET=lower cargo test --test tidy\n{stale}");
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
        ".github",
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
    let mut list = std::process::Command::new("git");
    let listed = list.args(["-c", "safe.directory=*", "ls-files", "-z"]).current_dir(tree::root()).output();
    // A copy without its history has no list to compare with.
    let Some(listed) = listed.ok().filter(|listed| listed.status.success()) else {
        println!("skipped: git does not list what is tracked here: the top level is not compared with the plan");
        return;
    };
    for path in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
        let top = path.split('/').next().unwrap();
        assert!(plan.contains(&top), "{path} is not in the plan of the house: remove it, or change the plan");
    }
}
