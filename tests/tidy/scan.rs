//! Takes Rust text apart: code, what stands in quotes, comments, and what only tests compile.
//!
//! Every view is as long as the text, with blanks for what it leaves out. So a place in a view is the same place in the
//! file. A parser would know more, but `syn` takes longer to build than all tests here take to run.

mod tests;

use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Code,
    /// What stands between the quotes of a string or a character, without the quotes.
    Quoted,
    Comment,
}

/// A Rust file.
#[derive(Debug)]
pub struct Source {
    text: String,
    /// The whole text, in pieces of one kind.
    pieces: Vec<(Kind, Range<usize>)>,
    /// Code without comments and without what stands in quotes.
    pub code: String,
    /// What is annotated `#[cfg(test)]`.
    pub test_items: Vec<Range<usize>>,
}

impl Source {
    pub fn new(text: &str) -> Self {
        let pieces = pieces(text.as_bytes());
        let code = view(text, &pieces, &[Kind::Code]);
        let test_items = test_items(&code);
        Self { text: text.to_owned(), pieces, code, test_items }
    }

    /// The code that is shipped.
    pub fn shipped(&self) -> String {
        self.without_tests(&[Kind::Code])
    }

    /// The code that is shipped, with its literals: for words that stand in quotes, such as those of SQL.
    pub fn shipped_with_literals(&self) -> String {
        self.without_tests(&[Kind::Code, Kind::Quoted])
    }

    /// Nothing but the literals of what is shipped.
    pub fn shipped_literals(&self) -> String {
        self.without_tests(&[Kind::Quoted])
    }

    /// Nothing but the comments of what is shipped.
    pub fn shipped_comments(&self) -> String {
        self.without_tests(&[Kind::Comment])
    }

    /// The code that only tests compile.
    pub fn test_code(&self) -> String {
        let mut code = " ".repeat(self.code.len()).into_bytes();
        for item in &self.test_items {
            code[item.clone()].copy_from_slice(&self.code.as_bytes()[item.clone()]);
        }
        kept_lines(code, &self.code)
    }

    /// Whether a comment stands on the lines of `range`, or on the one above.
    pub fn is_explained(&self, range: Range<usize>) -> bool {
        let above = self.text[..range.start].rfind('\n').unwrap_or(0);
        let start = self.text[..above].rfind('\n').unwrap_or(0);
        let end = self.text[range.end..].find('\n').map_or(self.text.len(), |length| range.end + length);
        self.pieces.iter().any(|(kind, piece)| *kind == Kind::Comment && piece.start < end && piece.end > start)
    }

    pub fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// A line as it stands in the file, from 1.
    pub fn line(&self, number: usize) -> &str {
        self.text.lines().nth(number - 1).unwrap_or_default()
    }

    /// A piece as it stands in the file, for a place found in one of the views.
    pub fn raw(&self, range: Range<usize>) -> &str {
        &self.text[range]
    }

    fn without_tests(&self, wanted: &[Kind]) -> String {
        let mut shipped = view(&self.text, &self.pieces, wanted).into_bytes();
        for item in &self.test_items {
            shipped[item.clone()].fill(b' ');
        }
        kept_lines(shipped, &self.text)
    }
}

/// The number of the line of a place, from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The pieces that are wanted, with blanks for the others.
fn view(text: &str, pieces: &[(Kind, Range<usize>)], wanted: &[Kind]) -> String {
    let mut view = text.as_bytes().to_vec();
    for (_, piece) in pieces.iter().filter(|(kind, _)| !wanted.contains(kind)) {
        view[piece.clone()].fill(b' ');
    }
    kept_lines(view, text)
}

/// Puts the line breaks back that blanks have hidden.
fn kept_lines(mut view: Vec<u8>, text: &str) -> String {
    for (at, _) in text.match_indices('\n') {
        view[at] = b'\n';
    }
    String::from_utf8(view).expect("whole characters are kept or left out")
}

pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The word that begins at `at`.
pub fn word_at(code: &str, at: usize) -> &str {
    let length = code.as_bytes()[at..].iter().take_while(|byte| is_word(**byte)).count();
    &code[at..at + length]
}

/// The words of code, in their order. A lifetime counts as one.
pub fn words(code: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let bytes = code.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + bytes[at..].iter().position(|byte| is_word(*byte))?;
        at = start + bytes[start..].iter().position(|byte| !is_word(*byte)).unwrap_or(bytes.len() - start);
        Some(start..at)
    })
}

/// The places of a word or of a piece of code that begins with one, where it does not go on as a longer word.
pub fn places<'a>(code: &'a str, piece: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(piece).map(|(at, _)| at).filter(move |at| {
        let after = bytes.get(at + piece.len()).is_some_and(|byte| is_word(*byte));
        let goes_on = after && piece.bytes().next_back().is_some_and(is_word);
        !goes_on && (*at == 0 || !is_word(bytes[at - 1]))
    })
}

/// The place behind the bracket that closes the one at `open`. Wants code without quotes and comments.
pub fn closed(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// The first place from `start` on, outside all brackets, that holds one of `wanted`.
pub fn outside_brackets(code: &str, start: usize, wanted: &[u8]) -> Option<usize> {
    let mut at = start;
    loop {
        let byte = *code.as_bytes().get(at)?;
        match byte {
            _ if wanted.contains(&byte) => return Some(at),
            b'(' | b'[' | b'{' => at = closed(code, at)?,
            b')' | b']' | b'}' => return None,
            _ => at += 1,
        }
    }
}

fn pieces(text: &[u8]) -> Vec<(Kind, Range<usize>)> {
    let mut pieces = Vec::new();
    let (mut code, mut at) = (0, 0);
    while let Some(next) = text[at..].iter().position(|byte| b"/\"'r".contains(byte)).map(|offset| at + offset) {
        let rest = &text[next..];
        let (kind, inside, end) = if rest.starts_with(b"//") {
            let end = next + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            (Kind::Comment, next..end, end)
        } else if rest.starts_with(b"/*") {
            let end = block_comment_end(text, next);
            (Kind::Comment, next..end, end)
        } else if let Some(inside) = literal(text, next) {
            let end = (inside.end + 1).min(text.len());
            (Kind::Quoted, inside, end)
        } else {
            at = next + 1;
            continue;
        };
        pieces.push((Kind::Code, code..inside.start));
        code = inside.end;
        pieces.push((kind, inside));
        at = end;
    }
    pieces.push((Kind::Code, code..text.len()));
    pieces
}

/// Comments nest.
fn block_comment_end(text: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while at < text.len() {
        if text[at..].starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if text[at..].starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// What stands between the quotes of the string or character that begins at `at`. The hashes behind a raw string count
/// as code, where nothing reads them.
fn literal(text: &[u8], at: usize) -> Option<Range<usize>> {
    match text[at] {
        b'"' => Some(at + 1..escaped_end(text, at + 1, b'"')),
        b'\'' => character(text, at),
        b'r' if begins_raw(text, at) => raw_string(text, at + 1),
        _ => None,
    }
}

/// An `r` that begins a raw string is no part of a word, but for the `b` or `c` before it.
fn begins_raw(text: &[u8], at: usize) -> bool {
    match at.checked_sub(1).map(|before| (before, text[before])) {
        Some((before, b'b' | b'c')) => before == 0 || !is_word(text[before - 1]),
        Some((_, byte)) => !is_word(byte),
        None => true,
    }
}

fn raw_string(text: &[u8], start: usize) -> Option<Range<usize>> {
    let hashes = text[start..].iter().take_while(|byte| **byte == b'#').count();
    let inside = start + hashes + 1;
    if text.get(inside - 1) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(hashes + 1, b'#');
    let length = text[inside..].windows(close.len()).position(|piece| piece == close)?;
    Some(inside..inside + length)
}

fn escaped_end(text: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start;
    while at < text.len() && text[at] != quote {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at.min(text.len())
}

/// A quote that is followed by one character and another quote; all else is a lifetime.
fn character(text: &[u8], at: usize) -> Option<Range<usize>> {
    let first = *text.get(at + 1)?;
    if first == b'\\' {
        return Some(at + 1..escaped_end(text, at + 1, b'\''));
    }
    let length = match first {
        ..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (text.get(at + 1 + length) == Some(&b'\'')).then_some(at + 1..at + 1 + length)
}

/// The attributes in front of an item, and where the item begins.
pub struct Attributed {
    pub attributes: Vec<Range<usize>>,
    pub item: usize,
}

pub fn attributed(code: &str) -> Vec<Attributed> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = code[at..].find("#[").map(|offset| at + offset) {
        let mut attributes = Vec::new();
        at = start;
        while code[at..].starts_with("#[") {
            let Some(end) = closed(code, at + 1) else { return found };
            attributes.push(at..end);
            at = end + (code[end..].len() - code[end..].trim_start().len());
        }
        found.push(Attributed { attributes, item: at });
    }
    found
}

fn test_items(code: &str) -> Vec<Range<usize>> {
    if is_for_tests_as_a_whole(code) {
        return std::iter::once(0..code.len()).collect();
    }
    let mut items = Vec::new();
    for Attributed { attributes, item } in attributed(code) {
        let start = attributes[0].start;
        if attributes.into_iter().any(|attribute| is_for_tests(&code[attribute])) {
            items.extend(item_end(code, item).map(|end| start..end));
        }
    }
    items
}

/// The attributes of a file stand before everything else in it.
fn is_for_tests_as_a_whole(code: &str) -> bool {
    let mut rest = code.trim_start();
    while rest.starts_with("#![") && !rest.starts_with("#![cfg(test)]") {
        let Some(end) = closed(rest, 2) else { return false };
        rest = rest[end..].trim_start();
    }
    rest.starts_with("#![cfg(test)]")
}

/// `cfg(test)`, alone or with other conditions that must hold, too.
fn is_for_tests(attribute: &str) -> bool {
    let plain: String = attribute.split_whitespace().collect();
    let all = plain.strip_prefix("#[cfg(all(").and_then(|rest| rest.strip_suffix("))]"));
    plain == "#[cfg(test)]" || all.is_some_and(|conditions| conditions.split(',').any(|condition| condition == "test"))
}

/// Where the item ends that begins at `start`. `None` for what is no item, such as a field or an arm. That counts as
/// shipped: to check too much is loud, to check too little is silent.
fn item_end(code: &str, start: usize) -> Option<usize> {
    let mut words = words(&code[start..]).map(|word| start + word.start..start + word.end);
    let mut word = words.next()?;
    while ["pub", "unsafe", "async", "extern", "default"].contains(&&code[word.clone()]) {
        let after = word.end;
        word = words.next()?;
        if code[after..].starts_with('(') {
            let inside = closed(code, after)?;
            while word.start < inside {
                word = words.next()?;
            }
        }
    }
    let keyword = match &code[word] {
        "const" if ["fn", "unsafe", "async", "extern"].contains(&&code[words.next()?]) => "fn",
        other => other,
    };
    match keyword {
        "use" | "const" | "static" | "type" | "let" | "crate" => outside_brackets(code, start, b";").map(|at| at + 1),
        "fn" | "mod" | "impl" | "struct" | "enum" | "union" | "trait" | "macro_rules" => {
            let at = outside_brackets(code, start, b";{")?;
            if code.as_bytes()[at] == b';' { Some(at + 1) } else { closed(code, at) }
        }
        _ => None,
    }
}
