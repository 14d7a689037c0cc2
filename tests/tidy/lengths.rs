//! Lines per file and per function.

mod tests;

use crate::measures::Hit;
use crate::scan::{self, line_of};
use crate::tree::Tree;

const FILE_LINES_MAX: usize = 450;
/// From the line of `fn` to the closing brace: a signature that wraps is to be read, too.
const FUNCTION_LINES_MAX: usize = 50;

/// Rust files, scripts and pages. A listed one counts with all its lines, not with those over the limit: so one that is
/// shortened to the limit pays for at most one other, not for several that are a little too long.
pub fn files(tree: &Tree) -> Vec<Hit> {
    let rust = tree.files.iter().map(|file| (&file.path, file.source.lines()));
    let others = tree.texts.iter().map(|(path, text)| (path, text.lines().count()));
    let hit = |(path, lines): (&String, usize)| Hit {
        place: path.clone(),
        line: 1,
        count: lines,
        what: format!("{lines} lines, the limit is {FILE_LINES_MAX}"),
    };
    rust.chain(others).filter(|(_, lines)| *lines > FILE_LINES_MAX).map(hit).collect()
}

pub fn functions(tree: &Tree) -> Vec<Hit> {
    let mut hits = Vec::new();
    for file in &tree.files {
        for Function { name, line, lines } in functions_of(&file.source.code) {
            if lines > FUNCTION_LINES_MAX {
                let what = format!("{name} has {lines} lines, the limit is {FUNCTION_LINES_MAX}");
                hits.push(Hit { place: format!("{} {name}", file.path), line, count: lines, what });
            }
        }
    }
    hits
}

#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// Every function with a body.
pub fn functions_of(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for at in scan::places(code, "fn ") {
        let name = scan::word_at(code, at + "fn ".len()).to_owned();
        let body = scan::outside_brackets(code, at, b"{;").filter(|at| code.as_bytes()[*at] == b'{');
        if let Some(end) = body.and_then(|open| scan::closed(code, open)) {
            let lines = code[at..end].lines().count();
            found.push(Function { name, line: line_of(code, at), lines });
        }
    }
    found
}
