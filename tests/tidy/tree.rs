//! The files of the house, and the modules that Rust makes of them.

mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::scan::{self, Source};

/// A Rust file.
#[derive(Debug)]
pub struct File {
    /// Relative to the root, as in `src/domain/lease.rs`.
    pub path: String,
    pub source: Source,
    /// The code that is shipped; empty for a file that only tests compile.
    pub shipped: String,
    /// What only tests compile.
    pub tests: String,
    /// The path of its module, such as `domain::lease`. Outside the library the name of the target stands first, as in
    /// `bin::jobmeter-nvml::poll`. `None` if no target leads to the file.
    pub module: Option<Vec<String>>,
}

#[derive(Debug)]
pub struct Tree {
    pub root: PathBuf,
    pub files: Vec<File>,
    /// The names of the crates in `[dependencies]`, as Rust code spells them.
    pub dependencies: BTreeSet<String>,
    /// Scripts and the like: path and text.
    pub texts: BTreeMap<String, String>,
}

/// The tree under test: this package, or the copy that `TIDY_ROOT` names, to see the checks fail.
pub fn tree() -> &'static Tree {
    static TREE: OnceLock<Tree> = OnceLock::new();
    TREE.get_or_init(|| Tree::read(&root()))
}

pub fn root() -> PathBuf {
    std::env::var_os("TIDY_ROOT").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

impl Tree {
    pub fn read(root: &Path) -> Self {
        let mut paths = Vec::new();
        for directory in [".ci", "src", "tests", "deploy", "systemd"] {
            list(&root.join(directory), &mut paths);
        }
        paths.sort();
        let mut rust = BTreeMap::new();
        let mut texts = BTreeMap::new();
        for path in paths {
            let name = path.strip_prefix(root).expect("it was found below").display().to_string();
            // A seed for the fuzzer, for one, is no text.
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            if name.ends_with(".rs") {
                rust.insert(name, text);
            } else if is_script(&name, &text) {
                texts.insert(name, text);
            }
        }
        let manifest = std::fs::read_to_string(root.join("Cargo.toml")).expect("a package has its Cargo.toml");
        let fuzz = std::fs::read_to_string(root.join("tests/fuzz/Cargo.toml")).unwrap_or_default();
        let mut targets = paths_in(&manifest, "");
        targets.extend(paths_in(&fuzz, "tests/fuzz/"));
        Self { root: root.to_owned(), files: files(rust, targets), dependencies: dependencies(&manifest), texts }
    }

    /// A tree of these files alone, whose target is `src/lib.rs`.
    pub fn of(texts: &[(&str, &str)]) -> Self {
        let rust = texts.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        let dependencies = ["clap", "serde"].map(str::to_owned).into();
        Self { root: PathBuf::new(), files: files(rust, Vec::new()), dependencies, texts: BTreeMap::new() }
    }

    /// The files that are shipped, at least in part.
    pub fn shipped(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| !file.shipped.trim().is_empty())
    }
}

fn list(directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if !path.is_dir() {
            found.push(path);
        } else if is_ours(&path) {
            list(&path, found);
        }
    }
}

/// Neither built nor written by an earlier version (`tests/compat`).
fn is_ours(directory: &Path) -> bool {
    let is_built = directory.file_name().is_some_and(|name| name == "target" || name == "__pycache__");
    !is_built && !directory.join("about.json").exists()
}

fn is_script(name: &str, text: &str) -> bool {
    let endings = ["py", "sh", "lua", "c", "js", "css", "html", "sql"];
    text.starts_with("#!") || name.rsplit_once('.').is_some_and(|(_, ending)| endings.contains(&ending))
}

/// What a manifest's targets name as `path`.
fn paths_in(manifest: &str, directory: &str) -> Vec<String> {
    let named = manifest.lines().filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix('"'));
    named.map(|path| format!("{directory}{path}")).collect()
}

fn dependencies(manifest: &str) -> BTreeSet<String> {
    let section = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let lines = section.take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.replace('-', "_")).collect()
}

/// The name that stands before the modules of a target. The library has none.
fn target_name(root: &str) -> Vec<String> {
    match root.trim_start_matches("src/").trim_end_matches(".rs") {
        "lib" => Vec::new(),
        name => name.trim_end_matches("/main").split('/').map(str::to_owned).collect(),
    }
}

fn files(rust: BTreeMap<String, String>, mut targets: Vec<String>) -> Vec<File> {
    let found_by_cargo = |path: &&String| {
        let bin = path.strip_prefix("src/bin/");
        *path == "src/lib.rs"
            || *path == "src/main.rs"
            || bin.is_some_and(|bin| !bin.contains('/') || bin.ends_with("/main.rs"))
    };
    targets.extend(rust.keys().filter(found_by_cargo).cloned());
    // What is shipped comes first: a file's module is the first that leads to it.
    targets.sort_by_key(|target| (target.starts_with("tests/"), target.clone()));
    let sources: BTreeMap<String, Source> = rust.into_iter().map(|(path, text)| (path, Source::new(&text))).collect();
    let mut modules = Modules { sources: &sources, shipped: BTreeMap::new(), tests: BTreeMap::new() };
    for target in targets {
        modules.enter(&target, target_name(&target), true, target.starts_with("tests/"));
    }
    let Modules { mut shipped, mut tests, .. } = modules;
    let file = |(path, source): (String, Source)| {
        let module = shipped.remove(&path);
        let is_shipped = module.is_some();
        File {
            shipped: if is_shipped { source.shipped() } else { String::new() },
            tests: if is_shipped { source.test_code() } else { source.code.clone() },
            module: module.or(tests.remove(&path)),
            path,
            source,
        }
    };
    sources.into_iter().map(file).collect()
}

/// The walk from each target along `mod x;`.
struct Modules<'a> {
    sources: &'a BTreeMap<String, Source>,
    shipped: BTreeMap<String, Vec<String>>,
    tests: BTreeMap<String, Vec<String>>,
}

impl Modules<'_> {
    /// `is_head`: the children lie beside the file, not in a directory of its name.
    fn enter(&mut self, path: &str, module: Vec<String>, is_head: bool, is_tested: bool) {
        let Some(source) = self.sources.get(path) else { return };
        let known = if is_tested { &mut self.tests } else { &mut self.shipped };
        if known.contains_key(path) {
            return;
        }
        known.insert(path.to_owned(), module.clone());
        let (directory, _) = path.rsplit_once('/').unwrap_or_default();
        for child in declared(source) {
            let mut module = module.clone();
            module.push(child.name.clone());
            let is_tested = is_tested || child.is_tested;
            if let Some(place) = &child.path {
                self.enter(&plain(&format!("{directory}/{place}")), module, true, is_tested);
                continue;
            }
            let beside = if is_head { directory } else { path.trim_end_matches(".rs") };
            self.enter(&format!("{beside}/{}.rs", child.name), module.clone(), false, is_tested);
            self.enter(&format!("{beside}/{}/mod.rs", child.name), module, true, is_tested);
        }
    }
}

/// A path without `..`.
fn plain(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

#[derive(Debug, PartialEq, Eq)]
pub struct Declared {
    pub name: String,
    /// From `#[path = "…"]`.
    pub path: Option<String>,
    pub is_tested: bool,
}

/// The modules that a file declares as files of their own.
pub fn declared(source: &Source) -> Vec<Declared> {
    let code = &source.code;
    let attributed = scan::attributed(code);
    let mut found = Vec::new();
    for at in scan::places(code, "mod ") {
        let name = scan::word_at(code, at + "mod ".len());
        if !code[at + "mod ".len() + name.len()..].starts_with(';') {
            continue;
        }
        let before = attributed.iter().rev().find(|item| item.item <= at);
        // Between the attributes and the word stands at most the visibility.
        let own = before.filter(|item| !code[item.item..at].contains([';', '}', '{']));
        let path = own.and_then(|item| item.attributes.iter().find_map(|range| path_of(source.raw(range.clone()))));
        let is_tested = source.test_items.iter().any(|item| item.contains(&at));
        found.push(Declared { name: name.to_owned(), path, is_tested });
    }
    found
}

fn path_of(attribute: &str) -> Option<String> {
    Some(attribute.strip_prefix("#[path = \"")?.strip_suffix("\"]")?.to_owned())
}
