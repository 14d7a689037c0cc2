//! What is counted, and may only become less.

mod tests;

use std::ops::Range;

use crate::floors::{self, ROOMS};
use crate::graph::{self, Graph};
use crate::lengths;
use crate::scan::{self, line_of};
use crate::tree::{File, Tree};

/// One place that counts.
#[derive(Debug, PartialEq, Eq)]
pub struct Hit {
    /// A file, or a function in one.
    pub place: String,
    pub line: usize,
    pub count: usize,
    /// For whoever has to mend it.
    pub what: String,
}

pub struct Measure {
    pub name: &'static str,
    /// What to do instead.
    pub cure: &'static str,
    pub hits: Vec<Hit>,
}

/// All of them. Their names stand in `ratchet.txt`.
pub fn measured(tree: &Tree) -> Vec<Measure> {
    let graph = Graph::new(tree);
    let measure = |name, cure, hits| Measure { name, cure, hits };
    vec![
        measure("allow", "write #[expect(…, reason = …)], which tells when it is no longer needed", allows(tree)),
        measure("circles", "move what both files need into a third", graph::circles(&graph)),
        measure("circles: ties", "move what both files need into a third", graph::ties(&graph)),
        measure(
            "doc of 3 words",
            "say why, the unit, the range or the source, or make the item private",
            hollow_docs(tree),
        ),
        measure("dropped result", "log the error, or say in a comment why it may be dropped", dropped(tree)),
        measure("error as text", "make an error type that says what happened and with what", text_errors(tree)),
        measure(
            "floors",
            "a room imports only what is below it (tests/tidy/floors.rs)",
            floors::crossed(ROOMS, tree, &graph),
        ),
        measure("floors: crates", "leave the crate to the room it is for", floors::foreign_crates(ROOMS, tree, &graph)),
        measure("ignored test", "make it pass, or remove it", everywhere(tree, &["#[ignore"])),
        measure("is no …", "say what is expected: invalid X \"…\": expected Y", is_no(tree)),
        measure("long file", "split it by what it does", lengths::files(tree)),
        measure("long function", "split it by what it does", lengths::functions(tree)),
        measure("saturating", "check the sum: books that saturate are wrong in silence", saturating(tree)),
        measure("sleep in a test", "wait for the event itself", sleeps(tree)),
        measure("unasked()", "give the read an answer type of its own", shipped(tree, &["unasked("])),
        measure("unfinished", "finish it", everywhere(tree, &["todo!", "unimplemented!"])),
    ]
}

/// Where one of `pieces` stands in `code`, which is a view of the file.
fn hits<'a>(file: &File, code: &str, at: impl IntoIterator<Item = usize> + 'a) -> Vec<Hit> {
    let hit = |at| {
        let line = line_of(code, at);
        let what = file.source.line(line).trim().to_owned();
        Hit { place: file.path.clone(), line, count: 1, what }
    };
    at.into_iter().map(hit).collect()
}

fn shipped(tree: &Tree, pieces: &[&str]) -> Vec<Hit> {
    let of =
        |file: &File| hits(file, &file.shipped, pieces.iter().flat_map(|piece| scan::places(&file.shipped, piece)));
    tree.shipped().flat_map(of).collect()
}

fn everywhere(tree: &Tree, pieces: &[&str]) -> Vec<Hit> {
    let of = |file: &File| {
        let code = &file.source.code;
        hits(file, code, pieces.iter().flat_map(|piece| scan::places(code, piece)))
    };
    tree.files.iter().flat_map(of).collect()
}

/// Those in shipped code, and those anywhere that give no reason. A test binary allows at its head what only some of
/// its files do, and `expect` would fail in the others.
fn allows(tree: &Tree) -> Vec<Hit> {
    let of = |file: &File| {
        let code = &file.source.code;
        let is_shipped = |at: &usize| file.shipped.get(*at..).is_some_and(|rest| rest.starts_with("allow"));
        let has_reason = |at: &usize| {
            let end = scan::closed(code, at + "allow".len()).unwrap_or(code.len());
            code[*at..end].contains("reason =")
        };
        hits(file, code, allows_in(code).into_iter().filter(|at| is_shipped(at) || !has_reason(at)))
    };
    tree.files.iter().flat_map(of).collect()
}

fn allows_in(code: &str) -> Vec<usize> {
    let is_attribute = |at: &usize| {
        let before = &code[..*at];
        let attribute = &before[before.rfind('#').unwrap_or(*at)..];
        ["#[", "#![", "#[cfg_attr(", "#![cfg_attr("].iter().any(|start| attribute.starts_with(start))
            && before.trim_end().ends_with(['[', ','])
    };
    scan::places(code, "allow(").filter(is_attribute).collect()
}

fn text_errors(tree: &Tree) -> Vec<Hit> {
    tree.shipped().flat_map(|file| hits(file, &file.shipped, text_errors_in(&file.shipped))).collect()
}

/// `Result<…, String>`, on one line or on several.
fn text_errors_in(code: &str) -> Vec<usize> {
    let is_text = |at: &usize| arguments(&code[at + "Result".len()..]).get(1).is_some_and(|error| error == "String");
    scan::places(code, "Result<").filter(is_text).collect()
}

/// What stands between the angle brackets that `code` begins with.
fn arguments(code: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut depth = 0_usize;
    let mut before = ' ';
    for letter in code.chars() {
        match letter {
            // An arrow closes nothing.
            '>' if before == '-' => {}
            '<' | '(' | '[' => depth += 1,
            '>' | ')' | ']' => depth -= 1,
            _ => {}
        }
        before = letter;
        match (depth, letter) {
            (0, _) => break,
            (1, ',') => found.push(String::new()),
            (1, '<') => {}
            _ => found.last_mut().expect("there is a first").push(letter),
        }
    }
    found.iter().map(|argument| argument.trim().to_owned()).collect()
}

fn dropped(tree: &Tree) -> Vec<Hit> {
    let of = |file: &File| {
        let found = dropped_in(&file.shipped).into_iter().filter(|range| !file.source.is_explained(range.clone()));
        hits(file, &file.shipped, found.map(|range| range.end))
    };
    tree.shipped().flat_map(of).collect()
}

/// Statements whose result nobody looks at. `let _ = write!(…)` is left out: by custom it writes to a `String`, which
/// cannot fail. So is `drop(…?)`, which has looked.
fn dropped_in(code: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(".ok();") {
        let start = statement_start(code, at);
        let is_kept = scan::outside_brackets(code, start, b"=").is_some_and(|sign| sign < at);
        if !is_kept && !code[start..].starts_with("return ") {
            found.push(start..at);
        }
    }
    for at in scan::places(code, "_ =") {
        let start = statement_start(code, at);
        let value = code[at + "_ =".len()..].trim_start();
        let is_statement = start == at || code[start..at].trim() == "let";
        let end = scan::outside_brackets(code, at, b";").filter(|end| !code[at..*end].contains("=>"));
        if let (true, false, Some(_)) = (is_statement, value.starts_with("write"), end) {
            found.push(start..at);
        }
    }
    for at in scan::places(code, "drop(") {
        let open = at + "drop".len();
        let value = scan::closed(code, open).map_or("", |end| &code[open + 1..end - 1]).trim();
        let is_call = value.ends_with(')') && !value.starts_with('(');
        if is_call && statement_start(code, at) == at {
            found.push(at..at);
        }
    }
    found
}

/// Where the statement that `at` is in begins.
fn statement_start(code: &str, at: usize) -> usize {
    let bytes = code.as_bytes();
    let mut start = at;
    let mut depth = 0_usize;
    while start > 0 {
        let byte = bytes[start - 1];
        // A block that a chain goes on from is part of the statement, any other ends the one before.
        let is_goal = match byte {
            b';' => depth == 0,
            b'}' => depth == 0 && !code[start..].trim_start().starts_with(['.', '?']),
            b'{' | b'(' | b'[' => depth == 0,
            _ => false,
        };
        if is_goal {
            break;
        }
        match byte {
            b')' | b']' | b'}' => depth += 1,
            b'(' | b'[' | b'{' => depth -= 1,
            _ => {}
        }
        start -= 1;
    }
    start + (code[start..].len() - code[start..].trim_start().len())
}

fn saturating(tree: &Tree) -> Vec<Hit> {
    let books = |file: &&File| ["src/domain/", "src/ledger/"].iter().any(|room| file.path.starts_with(room));
    let of = |file: &File| hits(file, &file.shipped, file.shipped.match_indices("saturating_").map(|(at, _)| at));
    tree.shipped().filter(books).flat_map(of).collect()
}

fn is_no(tree: &Tree) -> Vec<Hit> {
    let of = |file: &File| {
        let literals = file.source.shipped_literals();
        hits(file, &literals, is_no_in(&literals))
    };
    tree.shipped().flat_map(of).collect()
}

/// "x is no URL", "the answer is none". "There is no x" is English.
fn is_no_in(literals: &str) -> Vec<usize> {
    let words: Vec<_> = scan::words(literals).collect();
    let text = |at: usize| words.get(at).map_or("", |word| &literals[word.clone()]);
    let is_hit = |at: &usize| {
        let is_near = words.get(at + 1).is_some_and(|next| &literals[words[*at].end..next.start] == " ");
        let there = at.checked_sub(1).is_some_and(|before| text(before).eq_ignore_ascii_case("there"));
        is_near && !there && ["is", "are"].contains(&text(*at)) && ["no", "none"].contains(&text(at + 1))
    };
    (0..words.len()).filter(is_hit).map(|at| words[at].start).collect()
}

fn hollow_docs(tree: &Tree) -> Vec<Hit> {
    let of = |file: &File| {
        let comments = file.source.shipped_comments();
        hits(file, &comments, hollow_docs_in(&comments))
    };
    tree.shipped().flat_map(of).collect()
}

/// Doc comments of three words or fewer, all their lines taken together.
fn hollow_docs_in(comments: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    // Where the comment began, and its words so far.
    let mut open: Option<(usize, usize)> = None;
    for line in comments.split_inclusive('\n').chain(["\n"]) {
        let said = line.trim().strip_prefix("///").filter(|said| !said.starts_with('/'));
        open = match (said, open) {
            (Some(said), before) => {
                let (start, words) = before.unwrap_or((at, 0));
                Some((start, words + said.split_whitespace().count()))
            }
            (None, Some((start, ..=3))) => {
                found.push(start);
                None
            }
            (None, _) => None,
        };
        at += line.len();
    }
    found
}

/// What may sleep: benchmarks, the jobs that tests run, and the driver that is slow on purpose.
const SLEEPERS: [&str; 5] =
    ["tests/bench/", "tests/fake-nvml/", "tests/gpu/spin.py", "tests/tidy/", "tests/workloads/"];

/// Those of Rust tests, and those of scripts that drive tests.
fn sleeps(tree: &Tree) -> Vec<Hit> {
    let may = |path: &str| SLEEPERS.iter().any(|sleeper| path.starts_with(sleeper));
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| !may(&file.path)) {
        let calls = ["sleep(", "pause("].into_iter().flat_map(|call| scan::places(&file.tests, call));
        let calls = calls.filter(|at| !file.tests[..*at].ends_with("fn "));
        found.extend(hits(file, &file.tests, calls));
    }
    for (path, text) in tree.texts.iter().filter(|(path, _)| path.starts_with("tests/") && !may(path)) {
        for (line, what) in text.lines().map(str::trim).enumerate() {
            if what.starts_with("sleep ") || (what.contains("time.sleep(") && !what.starts_with('#')) {
                found.push(Hit { place: path.clone(), line: line + 1, count: 1, what: what.to_owned() });
            }
        }
    }
    found
}
