//! One argument, which may be a value, a URL, a header, JSON or a whole script with quotes of its own.
//!
//! No shell, JSON or Python is parsed here: a name is followed by what looks like its value in any of them. Where a name
//! stands directly behind a quote, as in `-H "X-Api-Key: a b"`, its value ends with that quote; an argument as a whole is
//! as good as quoted.

use super::names::{SecretNames, is_letter};

/// What stands where a secret stood.
pub(super) const CUT: &str = "***";

const QUOTES: [char; 3] = ['"', '\'', '`'];
/// What stands in `Authorization` before the secret.
const SCHEMES: [&str; 6] = ["basic", "bearer", "digest", "negotiate", "token", "apikey"];

/// What is left to look at, and what it has become.
#[derive(Debug)]
pub(super) struct Text<'t> {
    rest: &'t str,
    pub(super) out: String,
    names: &'t SecretNames,
    /// It is run by a shell, so that a value ends with its word.
    is_script: bool,
    /// The quote that is open here.
    quote: Option<char>,
    /// The quote that stands directly before, with the backslashes before it.
    opening: Option<&'t str>,
    pub(super) has_curl: bool,
}

/// A name, and what stands between it and its value.
struct Name<'t> {
    name: &'t str,
    /// The quote that is open since directly before the name.
    opening: Option<&'t str>,
    /// The same where it ends directly behind the name, as in JSON.
    closing: Option<&'t str>,
    is_first: bool,
}

pub(super) fn is_of_name(letter: char) -> bool {
    is_letter(letter) || matches!(letter, '-' | '_' | '.')
}

/// Of curl: `USER:PASSWORD` comes next.
pub(super) fn is_user_option(name: &str) -> bool {
    matches!(name, "-u" | "--user" | "-U" | "--proxy-user")
}

fn is_header(name: &str) -> bool {
    name.to_lowercase().ends_with("authorization")
}

/// Where a word of a shell ends that is not quoted.
fn ends_word(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, ';' | '&' | '|' | '<' | '>' | ')')
}

/// Whether a word, or a value of JSON, is over where `rest` follows.
fn is_over(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(|letter| ends_word(letter) || matches!(letter, ',' | ']' | '}' | ':'))
}

/// A value seldom begins as a long option does, or is as short as a short one.
pub(super) fn is_option(word: &str) -> bool {
    word.starts_with("--") || (word.starts_with('-') && word.chars().nth(2).is_none())
}

/// What `wanted` holds for, and the rest.
fn taken(text: &str, wanted: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|letter| !wanted(letter)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// What stands before `rest`, the end of `text`.
fn before<'t>(text: &'t str, rest: &str) -> &'t str {
    text.len().checked_sub(rest.len()).and_then(|end| text.get(..end)).unwrap_or_default()
}

/// Blanks, and line breaks that a backslash takes back.
fn without_blanks(text: &str) -> &str {
    let mut rest = text;
    loop {
        let next = rest.trim_start_matches([' ', '\t']);
        let next = next.strip_prefix("\\\n").unwrap_or(next);
        if next.len() == rest.len() {
            return rest;
        }
        rest = next;
    }
}

/// A quote and the backslashes before it.
fn quote_at(text: &str) -> Option<(&str, &str)> {
    let (_, after) = taken(text, |letter| letter == '\\');
    let rest = after.strip_prefix(QUOTES)?;
    Some((before(text, rest), rest))
}

/// What stands before the next `quote` that no backslash takes back, and the rest from that quote on.
fn until<'t>(text: &'t str, quote: &str) -> Option<(&'t str, &'t str)> {
    let is_taken_back = |at: usize| text.get(..at).is_some_and(|before| before.ends_with('\\'));
    let (at, _) = text.match_indices(quote).find(|(at, _)| !is_taken_back(*at))?;
    text.split_at_checked(at)
}

impl<'t> Text<'t> {
    pub(super) fn new(argument: &'t str, is_script: bool, names: &'t SecretNames, has_curl: bool) -> Self {
        Self { rest: argument, out: String::new(), names, is_script, quote: None, opening: None, has_curl }
    }

    pub(super) fn cut(&mut self, bytes_max: usize) {
        while let Some(letter) = self.rest.chars().next()
            && self.out.len() < bytes_max
        {
            if is_of_name(letter) { self.name() } else { self.mark(letter) }
        }
    }

    /// Goes on at `rest`, and keeps what stands before it.
    fn keep_to(&mut self, rest: &'t str) {
        self.out.push_str(before(self.rest, rest));
        self.rest = rest;
    }

    /// Goes on at `rest`; what stands before it is secret, if it is anything.
    fn cut_to(&mut self, rest: &'t str) {
        if rest.len() < self.rest.len() {
            self.out.push_str(CUT);
        }
        self.rest = rest;
    }

    fn mark(&mut self, letter: char) {
        let Some((mark, rest)) = quote_at(self.rest) else {
            self.opening = None;
            self.keep_to(self.rest.strip_prefix(letter).unwrap_or_default());
            return;
        };
        self.pass_quote(mark);
        self.opening = Some(mark);
        self.keep_to(rest);
    }

    fn pass_quote(&mut self, mark: &str) {
        let quote = mark.chars().next_back();
        // An even number of backslashes takes each other back.
        if mark.chars().filter(|letter| *letter == '\\').count().is_multiple_of(2) {
            match self.quote {
                None => self.quote = quote,
                open if open == quote => self.quote = None,
                // A quote of another kind means itself.
                Some(_) => {}
            }
        }
    }

    fn name(&mut self) {
        let is_first = self.out.is_empty() && !self.is_script;
        let (name, rest) = taken(self.rest, is_of_name);
        let name = Name { name, opening: self.opening.take(), closing: None, is_first };
        self.has_curl |= name.name == "curl";
        self.keep_to(rest);
        if let Some(rest) = rest.strip_prefix("://") {
            self.keep_to(rest);
            self.url();
            return;
        }
        let is_done = self.has_curl && self.credentials(&name);
        if !is_done && (is_header(name.name) || self.names.has(name.name)) {
            self.value_of(name);
        }
    }

    /// A name of a secret was kept: cuts its value, where one follows.
    fn value_of(&mut self, name: Name<'t>) {
        let closed = name.opening.and_then(|quote| Some((quote, self.rest.strip_prefix(quote)?)));
        let after = closed.map_or(self.rest, |(_, rest)| rest.strip_prefix(']').unwrap_or(rest));
        let signs = without_blanks(after);
        let (sign, rest) = taken(signs, |letter| matches!(letter, ':' | '='));
        let rest = rest.strip_prefix('>').filter(|_| sign.ends_with('=')).unwrap_or(rest);
        let opening = name.opening.filter(|_| closed.is_none());
        let name = Name { opening, closing: closed.map(|(quote, _)| quote), ..name };
        if sign.is_empty() {
            return self.next_word_of(&name, after);
        }
        let value = without_blanks(rest);
        // `NAME= program` is an empty value in a shell.
        let is_apart = signs.len() < after.len() || sign.starts_with(':') || quote_at(value).is_some();
        self.pass_name(&name, if is_apart || name.is_first || name.opening.is_some() { value } else { rest });
        if is_header(name.name) { self.header(&name) } else { self.value(&name) }
    }

    /// `--token X`, and `"--token", "X"` of a list.
    fn next_word_of(&mut self, name: &Name<'t>, after: &'t str) {
        let rest = without_blanks(after);
        let rest = without_blanks(rest.strip_prefix(',').unwrap_or(rest));
        let word = quote_at(rest).map_or(rest, |(_, inside)| inside);
        let (word, _) = taken(word, |letter| !ends_word(letter) && !QUOTES.contains(&letter));
        let is_value = !rest.starts_with(ends_word) && !is_option(word);
        if rest.len() < after.len() && is_value && self.names.has_option(name.name) {
            self.pass_name(name, rest);
            self.value(&Name { is_first: false, ..*name });
        }
    }

    /// Goes on at the value.
    fn pass_name(&mut self, name: &Name<'t>, value: &'t str) {
        if let Some(quote) = name.closing {
            self.pass_quote(quote);
        }
        self.keep_to(value);
    }

    fn value(&mut self, name: &Name<'t>) {
        if name.is_first {
            self.cut_to("");
        } else if let Some(quote) = name.opening {
            self.cut_to(until(self.rest, quote).map_or("", |(_, rest)| rest));
        } else if let Some((quote, inside)) = quote_at(self.rest).filter(|_| !self.closes(self.rest)) {
            self.keep_to(inside);
            self.quoted(quote);
        } else {
            self.cut_to(self.after_word(self.rest));
        }
    }

    /// A value that begins with this quote, and goes on behind it where a shell's word does.
    fn quoted(&mut self, quote: &'t str) {
        let closing = until(self.rest, quote).map_or("", |(_, rest)| rest);
        let is_empty = closing.len() == self.rest.len();
        self.cut_to(closing);
        let rest = closing.strip_prefix(quote).unwrap_or_default();
        self.keep_to(rest);
        if !is_over(rest) && !self.closes(rest) {
            let after = self.after_word(rest);
            if is_empty { self.cut_to(after) } else { self.rest = after }
        }
    }

    /// Whether the quote that is open ends here, and with it the word.
    fn closes(&self, text: &str) -> bool {
        self.quote.and_then(|quote| text.strip_prefix(quote)).is_some_and(is_over)
    }

    /// What follows the word of a shell that `text` begins with.
    fn after_word(&self, text: &'t str) -> &'t str {
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            if ends_word(letter) || self.closes(rest) {
                return rest;
            }
            let next = rest.strip_prefix(letter).unwrap_or_default();
            rest = match letter {
                '\\' => next.strip_prefix(|_: char| true).unwrap_or_default(),
                '$' => next.strip_prefix('(').map_or(next, after_parenthesis),
                quote if QUOTES.contains(&quote) => self.after_quote(next, quote),
                _ => next,
            };
        }
        rest
    }

    /// What follows a quoted part of a word, which ends at the latest where the quote around the word does.
    fn after_quote(&self, text: &'t str, quote: char) -> &'t str {
        let around = self.quote.filter(|around| *around != quote);
        let (within, rest) =
            around.and_then(|around| until(text, around.encode_utf8(&mut [0; 4]))).unwrap_or((text, ""));
        let closing = until(within, quote.encode_utf8(&mut [0; 4]));
        match closing.and_then(|(_, closing)| closing.strip_prefix(quote)) {
            Some(after) => text.get(before(within, after).len()..).unwrap_or_default(),
            None => rest,
        }
    }

    /// `Authorization: Bearer X`: the scheme stays.
    fn header(&mut self, name: &Name<'t>) {
        let mut end = if name.is_first { "" } else { self.after_line() };
        let mut closing = name.opening;
        if let Some((quote, inside)) = quote_at(self.rest).filter(|_| closing.is_none() && !name.is_first) {
            self.keep_to(inside);
            closing = Some(quote);
        }
        if let Some(quote) = closing {
            end = until(self.rest, quote).map_or("", |(_, rest)| rest);
        }
        let (scheme, rest) = taken(self.rest, is_of_name);
        let rest = without_blanks(rest);
        if SCHEMES.contains(&scheme.to_lowercase().as_str()) && end.len() < rest.len() {
            self.keep_to(rest);
        }
        self.cut_to(end);
        if let Some(rest) = closing.filter(|_| name.opening.is_none()).and_then(|quote| end.strip_prefix(quote)) {
            self.keep_to(rest);
        }
    }

    /// What follows the line, or the quote that is open.
    fn after_line(&self) -> &'t str {
        let quoted = self.quote.and_then(|quote| until(self.rest, quote.encode_utf8(&mut [0; 4])));
        match quoted {
            Some((_, rest)) => rest,
            None => taken(self.rest, |letter| letter != '\n').1,
        }
    }

    /// `-u USER:PASSWORD` of curl: cuts the password. Whether it was that.
    fn credentials(&mut self, name: &Name<'t>) -> bool {
        // `-uUSER:PASSWORD`, and all other forms.
        let is_joined = name.name.starts_with("-u") && self.rest.starts_with(':');
        if !is_joined && !is_user_option(name.name) {
            return false;
        }
        let value = without_blanks(self.rest.strip_prefix('=').unwrap_or(self.rest));
        let (quote, inside) = quote_at(value).filter(|_| !is_joined).unwrap_or(("", value));
        let (_, password) = taken(inside, |letter| letter != ':' && !ends_word(letter) && !QUOTES.contains(&letter));
        let Some(password) = password.strip_prefix(':') else { return false };
        self.keep_to(password);
        if quote.is_empty() {
            self.value(name);
        } else {
            self.quoted(quote);
        }
        true
    }

    /// Behind `://`: cuts the password before the host.
    fn url(&mut self) {
        let is_quoted = self.quote == Some('\'');
        let ends_url = |letter: char| {
            letter.is_whitespace() || matches!(letter, '"' | '<' | '>' | '`') || (letter == '\'' && is_quoted)
        };
        let ends_authority = |letter: char| ends_url(letter) || matches!(letter, '/' | '?' | '#');
        let (authority, _) = taken(self.rest, |letter| !ends_authority(letter));
        let in_authority = authority.rsplit_once('@').map(|(user, _)| user);
        let wide = || may_go_on(authority).then(|| taken(self.rest, |letter| !ends_url(letter)).0.rsplit_once('@'));
        let Some(user) = in_authority.or_else(|| Some(wide()??.0)) else { return };
        let after = self.rest.strip_prefix(user).unwrap_or_default();
        if let Some((_, password)) = user.split_once(':').filter(|(_, password)| !password.is_empty()) {
            let password = self.rest.get(before(user, password).len()..).unwrap_or_default();
            self.keep_to(password);
            self.cut_to(after);
        }
    }
}

/// A password may hold a `/` that nobody escaped. What is the number of a port begins none.
fn may_go_on(authority: &str) -> bool {
    let port = authority.split_once(':').filter(|_| !authority.starts_with('['));
    port.is_some_and(|(_, port)| !port.chars().all(|letter| letter.is_ascii_digit()))
}

/// What follows the parenthesis that closes the one before `text`.
fn after_parenthesis(text: &str) -> &str {
    let mut depth = 1_usize;
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        rest = rest.strip_prefix(letter).unwrap_or_default();
        let change = match letter {
            '(' => depth.checked_add(1),
            ')' => depth.checked_sub(1),
            _ => Some(depth),
        };
        depth = change.unwrap_or_default();
        if depth == 0 {
            break;
        }
    }
    rest
}
