//! The string literals of Rust source, without those of its tests, its comments and its attributes.

/// A literal, and the code that stands right before it, without spaces.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Literal {
    pub(crate) text: String,
    pub(crate) before: String,
}

enum Token {
    Code(char),
    Text(String),
}

/// How much code before a literal is kept.
const BEFORE: usize = 32;

/// All of them, in the order of the file.
pub(crate) fn literals(source: &str) -> Vec<Literal> {
    let tokens = tokens(source);
    let (mut found, mut before, mut at) = (Vec::new(), String::new(), 0);
    while let Some(token) = tokens.get(at) {
        if let Some(end) = attribute_end(&tokens, at) {
            let attribute = &tokens[at..end];
            let code: String = attribute.iter().filter_map(code).collect();
            if code.contains("[error(") {
                let first = attribute.iter().find_map(text);
                found.extend(first.map(|text| Literal { text: text.to_owned(), before: "#[error(".to_owned() }));
            }
            at = if code == "#[cfg(test)]" { item_end(&tokens, end) } else { end };
            continue;
        }
        match token {
            Token::Code(c) => before.push(*c),
            Token::Text(text) => {
                let tail = before.len().saturating_sub(BEFORE);
                let tail = (tail..=before.len()).find(|at| before.is_char_boundary(*at)).unwrap_or_default();
                found.push(Literal { text: text.clone(), before: before[tail..].to_owned() });
            }
        }
        at += 1;
    }
    found
}

fn code(token: &Token) -> Option<char> {
    if let Token::Code(c) = token { Some(*c) } else { None }
}

fn text(token: &Token) -> Option<&str> {
    if let Token::Text(text) = token { Some(text) } else { None }
}

/// Behind the `]` of an attribute that begins here.
fn attribute_end(tokens: &[Token], at: usize) -> Option<usize> {
    let is = |at: usize, c: char| tokens.get(at).and_then(code) == Some(c);
    let open = if is(at + 1, '!') { at + 2 } else { at + 1 };
    (is(at, '#') && is(open, '[')).then(|| closed(tokens, open, '[', ']'))
}

/// Behind the item that begins here: its block, or its semicolon.
fn item_end(tokens: &[Token], from: usize) -> usize {
    let mut depth = 0;
    for at in from..tokens.len() {
        match code(&tokens[at]) {
            Some('{') if depth == 0 => return closed(tokens, at, '{', '}'),
            Some(';') if depth == 0 => return at + 1,
            Some('(' | '[') => depth += 1,
            Some(')' | ']') => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

/// Behind what closes the bracket at `open`.
fn closed(tokens: &[Token], open: usize, opening: char, closing: char) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        depth += i32::from(code(token) == Some(opening)) - i32::from(code(token) == Some(closing));
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        let rest = &chars[at..];
        at += match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['\'', '\\', ..] => 3 + rest[3..].iter().position(|c| *c == '\'').unwrap_or(0),
            ['\'', _, '\'', ..] => 2,
            ['"', ..] => {
                let (text, length) = plain(rest);
                tokens.push(Token::Text(text));
                length - 1
            }
            ['r', '"' | '#', ..] if !ends_word(&tokens) => raw(rest).map_or(0, |(text, length)| {
                tokens.push(Token::Text(text));
                length - 1
            }),
            [c, ..] => {
                tokens.extend((!c.is_whitespace()).then_some(Token::Code(*c)));
                0
            }
            [] => 0,
        } + 1;
    }
    tokens
}

/// Whether a word goes on here, so that an `r` is a letter of it; a `b` may stand before.
fn ends_word(tokens: &[Token]) -> bool {
    let last = tokens.last().and_then(code);
    last.is_some_and(|c| (c.is_alphanumeric() && c != 'b') || c == '_')
}

/// They may be nested.
fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at + 1 < rest.len() {
        match (rest[at], rest[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 1),
            ('*', '/') if depth == 1 => return at + 1,
            ('*', '/') => (depth, at) = (depth - 1, at + 1),
            _ => {}
        }
        at += 1;
    }
    rest.len()
}

/// A literal in plain quotes as one line, and how long it is. A line that goes on goes on without a break.
fn plain(rest: &[char]) -> (String, usize) {
    let (mut text, mut at) = (String::new(), 1);
    while at < rest.len() && rest[at] != '"' {
        match (rest[at], rest.get(at + 1)) {
            ('\\', Some('\n')) => {
                at += rest[at + 1..].iter().position(|c| !c.is_whitespace()).unwrap_or(0);
            }
            ('\\', Some('"')) => {
                text.push('"');
                at += 1;
            }
            ('\\', Some(escaped)) => {
                text.extend(['\\', *escaped]);
                at += 1;
            }
            ('\n', _) => text.push_str("\\n"),
            (c, _) => text.push(c),
        }
        at += 1;
    }
    (text, at + 1)
}

/// `r"…"` or `r#"…"#`, with any number of `#`.
fn raw(rest: &[char]) -> Option<(String, usize)> {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    let from = 1 + hashes;
    (rest.get(from) == Some(&'"')).then_some(())?;
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let length = rest[from + 1..].windows(end.len()).position(|window| window == end)?;
    let text: String = rest[from + 1..from + 1 + length].iter().collect();
    Some((text.replace('\n', "\\n"), from + 1 + length + end.len()))
}

#[test]
fn literals_of_code_are_found_and_no_others() {
    let source = r##"
        //! "a comment"
        #[error("{x} is wrong")] #[expect(dead, reason = "none")]
        fn f<'a>() { Err('"', '\'', "one \
            line, \"quoted\"", r#"a "raw" one"#, b"bytes") /* "x" /* "y" */ */ }
        #[cfg(test)] mod tests { const X: &str = "not }this"; }
        const LAST: &str = "last";
    "##;
    let found = literals(source);
    let texts: Vec<&str> = found.iter().map(|literal| literal.text.as_str()).collect();
    assert_eq!(texts, ["{x} is wrong", "one line, \"quoted\"", "a \"raw\" one", "bytes", "last"]);
    assert!(found[4].before.ends_with("=") && found[1].before.contains("Err("), "{found:?}");
}
