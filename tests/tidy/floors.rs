//! The floors of the house: which room may import which, and which crates each room may use.
//!
//! What stands against the table today is counted, and may only fall (see `ratchet`).

mod tests;

use std::collections::BTreeSet;

use crate::graph::Graph;
use crate::imports::Target;
use crate::measures::Hit;
use crate::scan::line_of;
use crate::tree::{File, Tree};

/// A module with all that lies below it, but for what is below a longer name in the table.
#[derive(Debug)]
pub struct Room {
    pub name: &'static str,
    /// The rooms it may import, beside itself.
    pub imports: &'static [&'static str],
    /// The crates it may use, beside the standard library.
    pub crates: &'static [&'static str],
}

const fn room(name: &'static str, imports: &'static [&'static str], crates: &'static [&'static str]) -> Room {
    Room { name, imports, crates }
}

/// From the ground up, as DESIGN section 10 and the house's PLAN draw it. `ledger` is what travels, PLAN's `protocol`.
/// The three rooms behind the store are PLAN's `client`, and `server::pages` is its `web`.
#[rustfmt::skip]
pub const ROOMS: &[Room] = &[
    room("domain", &[], &["serde", "unicode_normalization"]),
    room("sys", &["domain"], &["libc", "nix", "nvml_wrapper", "nvml_wrapper_sys", "serde", "thiserror"]),
    room("meter", &["domain", "sys"], &["nix", "serde", "serde_json", "thiserror", "uuid"]),
    room("ledger", &["domain"], &["jiff", "serde", "serde_json", "sha2", "thiserror", "utoipa", "uuid"]),
    room("ledger::book", &["domain", "ledger"], &["hashbrown", "serde", "serde_json", "uuid"]),
    room("ledger::store", &["domain", "sys", "ledger", "ledger::book"],
        &["jiff", "nix", "rusqlite", "rustls", "rustls_native_certs", "serde", "serde_json", "tokio", "tokio_postgres",
            "tokio_postgres_rustls", "uuid"]),
    room("ledger::http", &["domain", "sys", "ledger"], &["jiff", "reqwest", "rustls", "serde", "serde_json"]),
    room("ledger::relay", &["domain", "sys", "ledger"], &["hmac", "serde", "serde_json", "sha2", "uuid"]),
    room("ledger::location", &["sys", "ledger", "ledger::http", "ledger::relay", "ledger::store"], &[]),
    room("runner", &["domain", "sys", "meter", "ledger", "ledger::location", "ledger::relay"],
        &["jiff", "nix", "serde", "serde_json", "tracing", "uuid"]),
    room("server", &["domain", "sys", "ledger", "ledger::book", "ledger::store"],
        &["axum", "base64", "futures_util", "hmac", "hyper", "hyper_util", "jiff", "prometheus_client", "reqwest", "rustls",
            "serde", "serde_json", "sha2", "tokio", "tokio_rustls", "tower", "tracing", "utoipa", "utoipa_axum", "uuid"]),
    room("server::pages", &["domain", "sys", "ledger", "ledger::book", "server"],
        &["askama", "axum", "jiff", "serde", "serde_json", "tracing", "uuid"]),
    room("cli",
        &["domain", "sys", "meter", "ledger", "ledger::location", "ledger::relay", "ledger::store", "runner", "server"],
        &["clap", "clap_complete", "clap_mangen", "jiff", "nix", "ratatui", "sd_notify", "serde", "serde_json",
            "sysinfo", "terminal_size", "tokio", "toml", "tracing", "tracing_subscriber", "uuid"]),
    room("main", &["cli"], &[]),
    room("bin::jobmeter-nvml", &["meter", "sys"], &["nvml_wrapper", "serde_json"]),
    room("bin::jobmeter-wrapper", &["runner"], &[]),
];

/// The longest name in the table that `path` begins with.
pub fn room_of<'a>(rooms: &'a [Room], path: &[String]) -> Option<&'a Room> {
    let holds = |room: &&Room| {
        let mut names = path.iter();
        room.name.split("::").all(|part| names.next().is_some_and(|name| name == part))
    };
    rooms.iter().filter(holds).max_by_key(|room| room.name.len())
}

/// What is wrong with the table itself: a room it does not know, or one that is no more.
pub fn misdrawn(rooms: &[Room], tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut lived_in = BTreeSet::new();
    for file in tree.shipped() {
        match file.module.as_deref().map(|module| (module, room_of(rooms, module))) {
            Some((_, Some(room))) => _ = lived_in.insert(room.name),
            // The root of the library is the drawing, not a room.
            Some(([], None)) => {}
            _ => wrong.push(format!("{} is in no room of the table in tests/tidy/floors.rs: give it one", file.path)),
        }
    }
    for room in rooms {
        if !lived_in.contains(room.name) {
            wrong.push(format!("{} has no file: take it out of the table in tests/tidy/floors.rs", room.name));
        }
        for name in room.imports.iter().filter(|name| !rooms.iter().any(|room| room.name == **name)) {
            wrong.push(format!("{} may import {name}, which is not in the table", room.name));
        }
    }
    wrong
}

/// Imports of a room that is not on a lower floor.
pub fn crossed(rooms: &[Room], tree: &Tree, graph: &Graph) -> Vec<Hit> {
    let mut hits = Vec::new();
    for (file, home) in homes(rooms, tree) {
        let mut direct = BTreeSet::new();
        for import in graph.imports(file) {
            let Target::Inside(path) = &import.target else { continue };
            let Some(other) = room_of(rooms, path) else { continue };
            if other.name == home.name || home.imports.contains(&other.name) {
                continue;
            }
            // Each use of a name is as wrong as its import, which has been counted.
            if import.is_repeated && direct.contains(other.name) {
                continue;
            }
            direct.insert(other.name);
            hits.push(Hit {
                place: file.path.clone(),
                line: line_of(&file.shipped, import.at),
                count: 1,
                what: format!("{} may not import {} ({})", home.name, other.name, path.join("::")),
            });
        }
    }
    hits
}

/// Uses of crates that are not the room's.
pub fn foreign_crates(rooms: &[Room], tree: &Tree, graph: &Graph) -> Vec<Hit> {
    let mut hits = Vec::new();
    for (file, home) in homes(rooms, tree) {
        for import in graph.imports(file) {
            let Target::Outside(name) = &import.target else { continue };
            if import.is_repeated || home.crates.contains(&name.as_str()) {
                continue;
            }
            hits.push(Hit {
                place: file.path.clone(),
                line: line_of(&file.shipped, import.at),
                count: 1,
                what: format!("{} may not use the crate {name}", home.name),
            });
        }
    }
    hits
}

fn homes<'a>(rooms: &'a [Room], tree: &'a Tree) -> impl Iterator<Item = (&'a File, &'a Room)> {
    tree.shipped().filter_map(|file| Some((file, room_of(rooms, file.module.as_deref()?)?)))
}
