//! Which file imports which, and the circles in that.

mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::imports::{self, Import, Target};
use crate::measures::Hit;
use crate::tree::{File, Tree};

#[derive(Debug)]
pub struct Graph {
    imports: BTreeMap<String, Vec<Import>>,
    /// Path to paths.
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    pub fn new(tree: &Tree) -> Self {
        let owner = |file: &File| Some((file.module.clone()?, file.path.clone()));
        let owners: BTreeMap<Vec<String>, String> = tree.shipped().filter_map(owner).collect();
        let modules = owners.keys().cloned().collect();
        let mut graph = Self { imports: BTreeMap::new(), edges: BTreeMap::new() };
        for file in tree.shipped() {
            let imports = imports::imports(tree, &modules, file);
            let edges = imports.iter().filter_map(|import| match &import.target {
                Target::Inside(path) => (0..=path.len()).rev().find_map(|length| owners.get(&path[..length])),
                Target::Outside(_) => None,
            });
            let others = edges.filter(|other| **other != file.path).cloned().collect();
            graph.edges.insert(file.path.clone(), others);
            graph.imports.insert(file.path.clone(), imports);
        }
        graph
    }

    pub fn imports(&self, file: &File) -> &[Import] {
        self.imports.get(&file.path).map_or(&[], Vec::as_slice)
    }

    /// Sets of files that all import each other, directly or through others of the set.
    pub fn circles(&self) -> Vec<BTreeSet<&str>> {
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            self.edges.keys().map(|file| (file.as_str(), self.reached(file))).collect();
        let mut found: Vec<BTreeSet<&str>> = Vec::new();
        for (file, others) in &reached {
            if others.contains(file) && !found.iter().any(|circle| circle.contains(file)) {
                found.push(others.iter().copied().filter(|other| reached[other].contains(file)).collect());
            }
        }
        found
    }

    fn reached(&self, file: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut next = vec![file];
        while let Some(from) = next.pop() {
            for to in &self.edges[from] {
                if reached.insert(to.as_str()) {
                    next.push(to);
                }
            }
        }
        reached
    }

    /// The shortest way from a file back to it.
    fn way_back<'a>(&'a self, file: &'a str) -> Vec<&'a str> {
        let mut ways = VecDeque::from([vec![file]]);
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop_front() {
            for to in &self.edges[*way.last().expect("a way begins somewhere")] {
                let longer = [way.as_slice(), &[to.as_str()]].concat();
                if to == file {
                    return longer;
                }
                if seen.insert(to) {
                    ways.push_back(longer);
                }
            }
        }
        Vec::new()
    }
}

pub fn circles(graph: &Graph) -> Vec<Hit> {
    let hit = |circle: BTreeSet<&str>| Hit {
        place: (*circle.first().expect("a circle has files")).to_owned(),
        line: 1,
        count: 1,
        what: format!("{} files import each other: {}", circle.len(), Vec::from_iter(circle).join(", ")),
    };
    graph.circles().into_iter().map(hit).collect()
}

/// For each file, the number of files it shares a circle with. The number of circles falls when two of them are joined;
/// this one rises then, and also when a circle takes in another file.
pub fn ties(graph: &Graph) -> Vec<Hit> {
    let mut hits = Vec::new();
    for circle in graph.circles() {
        hits.extend(circle.iter().map(|file| Hit {
            place: (*file).to_owned(),
            line: 1,
            count: circle.len() - 1,
            what: format!("the shortest circle is {}", graph.way_back(file).join(" → ")),
        }));
    }
    hits
}
