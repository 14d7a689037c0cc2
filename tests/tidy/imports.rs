//! What a file names of other modules and of other crates: by `use`, and by paths in its code.

mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::scan;
use crate::tree::{File, Tree};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path from the root of its crate, as in `ledger::protocol::Report`.
    Inside(Vec<String>),
    /// Another crate.
    Outside(String),
}

/// One name that comes from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    pub at: usize,
    pub target: Target,
    /// A path that begins with an imported name, which is an import of its own: `views` in `views::Query`.
    pub is_repeated: bool,
}

/// A name within a `use`, with the name it has in this file.
#[derive(Debug, PartialEq, Eq)]
struct Leaf {
    path: Vec<String>,
    alias: Option<String>,
}

/// All that a file imports where it is shipped.
pub fn imports(tree: &Tree, modules: &BTreeSet<Vec<String>>, file: &File) -> Vec<Import> {
    let Some(module) = &file.module else { return Vec::new() };
    let code = &file.shipped;
    let scope = Scope { tree, modules, module, inner: inner_modules(code), names: BTreeMap::new() };
    let uses = uses(code);
    let mut leaves = Vec::new();
    for (at, range) in &uses {
        let mut found = Vec::new();
        split_use(&code[range.clone()], &[], &mut found);
        leaves.extend(found.into_iter().map(|leaf| (*at, leaf)));
    }
    let scope = scope.with_names(&leaves);
    let mut found = Vec::new();
    for (at, leaf) in &leaves {
        found.extend(scope.resolve(*at, &leaf.path));
    }
    for (at, path) in paths(code) {
        if !uses.iter().any(|(_, range)| range.contains(&at)) {
            found.extend(scope.resolve(at, &path));
        }
    }
    found
}

/// What names mean in one file.
struct Scope<'a> {
    tree: &'a Tree,
    modules: &'a BTreeSet<Vec<String>>,
    module: &'a [String],
    /// Modules in braces: where, and their names.
    inner: Vec<(Range<usize>, String)>,
    names: BTreeMap<String, Target>,
}

impl Scope<'_> {
    /// An imported module can stand at the head of another `use`, so that they are gone through twice.
    fn with_names(mut self, leaves: &[(usize, Leaf)]) -> Self {
        for _ in 0..2 {
            for (at, leaf) in leaves {
                let Some(alias) = leaf.alias.clone() else { continue };
                if let Some(import) = self.resolve(*at, &leaf.path) {
                    self.names.insert(alias, import.target);
                }
            }
        }
        self
    }

    fn resolve(&self, at: usize, path: &[String]) -> Option<Import> {
        let here = self.module_at(at);
        let mut rest = path;
        let mut base = match path.first()?.as_str() {
            "crate" => self.crate_root(),
            "self" | "super" => here,
            name => return self.resolve_name(at, here, name, path),
        };
        while let Some(first @ ("crate" | "self" | "super")) = rest.first().map(String::as_str) {
            if first == "super" {
                base.pop()?;
            }
            rest = &rest[1..];
        }
        base.extend_from_slice(rest);
        Some(Import { at, target: Target::Inside(base), is_repeated: false })
    }

    fn resolve_name(&self, at: usize, mut here: Vec<String>, name: &str, path: &[String]) -> Option<Import> {
        here.push(name.to_owned());
        if self.modules.contains(&here) {
            here.extend_from_slice(&path[1..]);
            return Some(Import { at, target: Target::Inside(here), is_repeated: false });
        }
        if name == "jobmeter" {
            return Some(Import { at, target: Target::Inside(path[1..].to_vec()), is_repeated: false });
        }
        match self.names.get(name) {
            Some(Target::Inside(module)) => {
                let target = Target::Inside([module, &path[1..]].concat());
                Some(Import { at, target, is_repeated: true })
            }
            Some(other) => Some(Import { at, target: other.clone(), is_repeated: true }),
            None if self.tree.dependencies.contains(name) => {
                Some(Import { at, target: Target::Outside(name.to_owned()), is_repeated: false })
            }
            None => None,
        }
    }

    fn module_at(&self, at: usize) -> Vec<String> {
        let inner = self.inner.iter().filter(|(range, _)| range.contains(&at)).map(|(_, name)| name.clone());
        self.module.iter().cloned().chain(inner).collect()
    }

    /// Helpers in `src/bin` have a root of their own.
    fn crate_root(&self) -> Vec<String> {
        match self.module.first().map(String::as_str) {
            Some("bin") => self.module[..2].to_vec(),
            Some("main") => self.module[..1].to_vec(),
            _ => Vec::new(),
        }
    }
}

fn inner_modules(code: &str) -> Vec<(Range<usize>, String)> {
    let mut found = Vec::new();
    for at in scan::places(code, "mod ") {
        let name = scan::word_at(code, at + "mod ".len());
        let open = at + "mod ".len() + name.len() + " ".len();
        if code.get(open..).is_some_and(|rest| rest.starts_with('{')) {
            found.extend(scan::closed(code, open).map(|end| (open..end, name.to_owned())));
        }
    }
    found
}

/// Each `use`: where the word stands, and the range of its tree. The `use<'a>` of an `impl Trait` is another word.
fn uses(code: &str) -> Vec<(usize, Range<usize>)> {
    let mut found = Vec::new();
    for at in scan::places(code, "use ") {
        let before = code[..at].trim_end();
        let is_item = before.is_empty() || before.ends_with([';', '}', '{', ']', ')']) || before.ends_with("pub");
        if let (true, Some(end)) = (is_item, code[at..].find(';')) {
            found.push((at, at + "use ".len()..at + end));
        }
    }
    found
}

/// The names of a `use`, whose braces can nest.
fn split_use(tree: &str, before: &[String], found: &mut Vec<Leaf>) {
    let (head, group) = match tree.trim().split_once('{') {
        Some((head, group)) => (head, group.strip_suffix('}')),
        None => (tree.trim(), None),
    };
    let (head, renamed) = head.split_once(" as ").map_or((head, None), |(head, name)| (head, Some(name.to_owned())));
    let names = head.split("::").map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned);
    let mut path: Vec<String> = before.iter().cloned().chain(names).collect();
    if let Some(group) = group {
        parts(group).into_iter().for_each(|part| split_use(part, &path, found));
        return;
    }
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let alias = renamed.or(path.last().cloned()).filter(|name| name != "*" && name != "_");
    found.push(Leaf { path, alias });
}

/// What commas outside of braces divide.
fn parts(list: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    while let Some(comma) = scan::outside_brackets(list, start, b",") {
        found.push(&list[start..comma]);
        start = comma + 1;
    }
    found.push(&list[start..]);
    found.retain(|part| !part.trim().is_empty());
    found
}

/// Each path of two names or more.
fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut words = scan::words(code).peekable();
    while let Some(word) = words.next() {
        let is_continued = code[..word.start].ends_with("::");
        let mut names = vec![code[word.clone()].to_owned()];
        let mut end = word.end;
        while let Some(next) = words.next_if(|next| next.start == end + 2 && &code[end..next.start] == "::") {
            names.push(code[next.clone()].to_owned());
            end = next.end;
        }
        if names.len() > 1 && !is_continued {
            found.push((word.start, names));
        }
    }
    found
}
