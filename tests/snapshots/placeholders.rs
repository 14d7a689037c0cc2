//! What differs from run to run and from machine to machine, and what stands in its place.

use serde_json::Value;

/// Ids that begin so are a test's own, and stay.
pub(crate) const OWN_IDS: &str = "00000000-0000-7000-8000-";
/// No time of a run is before this year; fixed dates in tests are.
const FIRST_YEAR: u32 = 2026;

/// Keys of JSON whose values differ, with that of the object around where it matters, and what stands for the values.
pub(crate) type Keys = &'static [(&'static str, &'static str)];

/// Of books that a test has written itself: only what comes from the clock.
pub(crate) const OF_CLOCK: Keys = &[
    ("resetsInMs", "<ms>"),
    ("resets_in_ms", "<ms>"),
    ("burn", "<points>"),
    ("burnPerSecond", "<credits>"),
    ("burn_per_second", "<credits>"),
];

/// Of what a meter has measured.
pub(crate) const OF_METER: Keys = &[
    ("resetsInMs", "<ms>"),
    ("burn", "<points>"),
    ("burnPerSecond", "<credits>"),
    ("burn_per_second", "<credits>"),
    ("exhaustedAt", "<time or null>"),
    ("total_seconds", "<seconds>"),
    ("user_seconds", "<seconds>"),
    ("system_seconds", "<seconds>"),
    ("cpu.allocated_seconds", "<seconds>"),
    ("wall_seconds", "<seconds>"),
    ("held_seconds", "<seconds>"),
    ("steal_seconds", "<seconds>"),
    ("teardown_seconds", "<seconds>"),
    ("cpu_seconds", "<seconds>"),
    ("cpuSeconds", "<seconds>"),
    ("cpu_used_seconds", "<seconds>"),
    ("cpu_allocated_seconds", "<seconds>"),
    ("max_seconds", "<seconds>"),
    ("wake_lateness_max_seconds", "<seconds>"),
    ("below_ms", "<counts>"),
    ("busiest", "<processes>"),
    ("readings", "<count>"),
    ("reports", "<count>"),
    ("cpu", "<credits>"),
    ("total", "<credits>"),
    ("balance", "<credits>"),
    ("charged", "<credits>"),
    ("held", "<credits>"),
    ("left", "<credits>"),
    ("available", "<credits>"),
    ("current", "<credits>"),
    ("overshoot", "<credits>"),
];

/// Those whose value goes as a whole, whatever it is.
const WHOLE: [&str; 5] = ["<points>", "<counts>", "<processes>", "<percent>", "<time or null>"];

/// What a test knows to differ: paths, addresses, keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placeholders(Vec<(String, String)>);

impl Placeholders {
    /// From now on `placeholder` stands for `text`.
    pub(crate) fn learn(&mut self, text: impl Into<String>, placeholder: &str) {
        self.0.push((text.into(), placeholder.to_owned()));
        // The longer one may hold the shorter one.
        self.0.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    }

    /// A text with its placeholders. Characters that nobody sees are shown: a snapshot must not hide them.
    pub(crate) fn in_text(&self, text: &str) -> String {
        let known = self.0.iter().fold(text.to_owned(), |text, (known, placeholder)| text.replace(known, placeholder));
        let is_hidden = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
        let shown = |c: char| if is_hidden(c) { c.escape_unicode().to_string() } else { c.to_string() };
        scanned(&known).chars().map(shown).collect()
    }

    /// A document with its placeholders, its keys in the order of the alphabet.
    pub(crate) fn in_json(&self, document: &Value, keys: Keys) -> String {
        let mut document = document.clone();
        replace(&mut document, keys, "");
        self.in_text(&serde_json::to_string_pretty(&document).expect("JSON"))
    }
}

/// The name of this machine, which jobs carry.
pub(crate) fn host() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

fn replace(value: &mut Value, keys: Keys, around: &str) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| replace(value, keys, around)),
        Value::Object(object) => {
            for (key, value) in object {
                let whole = format!("{around}.{key}");
                let found = keys.iter().find(|(known, _)| known == key || *known == whole);
                let found = found.map(|(_, placeholder)| *placeholder);
                match found {
                    Some(placeholder) if value.is_number() || WHOLE.contains(&placeholder) => {
                        *value = Value::from(placeholder);
                    }
                    _ if key == "host" && value.as_str() == Some(host().as_str()) => *value = Value::from("<host>"),
                    _ => replace(value, keys, key),
                }
            }
        }
        _ => {}
    }
}

/// How many bytes of the beginning of a text fit a pattern, and what stands for them.
type Pattern = fn(&str) -> Option<(usize, &'static str)>;

const PATTERNS: [Pattern; 9] = [kept_at, id, key, hexadecimal, id_of_key, time, month, duration, start];

fn scanned(text: &str) -> String {
    let (mut plain, mut rest, mut in_word) = (String::new(), text, false);
    while let Some(next) = rest.chars().next() {
        let found = PATTERNS.iter().filter(|_| !in_word).find_map(|pattern| pattern(rest));
        if let Some((length, placeholder)) = found {
            let (own, after) = rest.split_at(length);
            plain.push_str(if placeholder.is_empty() { own } else { placeholder });
            rest = after;
            continue;
        }
        in_word = next.is_ascii_alphanumeric();
        plain.push(next);
        rest = &rest[next.len_utf8()..];
    }
    plain
}

/// The end of the name of a file that a restore kept, in microseconds.
fn kept_at(text: &str) -> Option<(usize, &'static str)> {
    let rest = text.strip_prefix("replaced-")?;
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    (length > 0).then_some((text.len() - rest.len() + length, "replaced-<microseconds>"))
}

/// A UUID; nothing stands for one of a test's own.
fn id(text: &str) -> Option<(usize, &'static str)> {
    let word = text.get(..36)?;
    let fits = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    let is_id = word.bytes().enumerate().all(fits) && word != "00000000-0000-0000-0000-000000000000";
    is_id.then_some((36, if word.starts_with(OWN_IDS) { "" } else { "<id>" }))
}

/// A key of the ledger service. One that a test made up has a short secret, and stays.
fn key(text: &str) -> Option<(usize, &'static str)> {
    let rest = text.strip_prefix("jm_")?;
    let length = rest.bytes().take_while(|byte| byte.is_ascii_hexdigit() || *byte == b'_').count();
    (length > 40).then_some((3 + length, "<key>"))
}

/// Hashes, proofs and nonces.
fn hexadecimal(text: &str) -> Option<(usize, &'static str)> {
    let length = text.bytes().take_while(u8::is_ascii_hexdigit).count();
    (length >= 32).then_some((length, "<hexadecimal>"))
}

/// Of a key that no test has made up: a word of 12 digits.
fn id_of_key(text: &str) -> Option<(usize, &'static str)> {
    let length = text.bytes().take_while(u8::is_ascii_alphanumeric).count();
    let is_id = length == 12 && text[..12].bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_id && !text.starts_with("0123456789ab")).then_some((12, "<id of a key>"))
}

fn digits(text: &str, count: usize) -> Option<u32> {
    let digits = text.get(..count)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// `2026-11-29`, with the time of day after a `T` or a space, or without.
fn time(text: &str) -> Option<(usize, &'static str)> {
    let year = digits(text, 4).filter(|year| *year >= FIRST_YEAR)?;
    let date = year > 0 && text.get(4..5)? == "-" && text.get(7..8)? == "-";
    (date && digits(&text[5..], 2).is_some() && digits(text.get(8..)?, 2).is_some()).then_some(())?;
    let rest = &text[10..];
    let (separator, of_day) = rest.split_at_checked(1).unwrap_or_default();
    let is_time = digits(of_day, 2).is_some() && of_day.get(2..3) == Some(":");
    if !is_time || !["T", " "].contains(&separator) {
        return Some((10, "<day>"));
    }
    let length = of_day.bytes().take_while(|byte| byte.is_ascii_digit() || b":.".contains(byte)).count();
    let zone = ["Z", " UTC"].into_iter().find(|zone| of_day[length..].starts_with(zone)).unwrap_or_default();
    Some((11 + length + zone.len(), "<time>"))
}

/// `2026-11`.
fn month(text: &str) -> Option<(usize, &'static str)> {
    let is_month = digits(text, 4).is_some_and(|year| year >= FIRST_YEAR) && text.get(4..5) == Some("-");
    let ends = !text.get(7..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
    (is_month && ends && digits(&text[5..], 2).is_some()).then_some((7, "<month>"))
}

/// How long it is until a reset.
fn duration(text: &str) -> Option<(usize, &'static str)> {
    let rest = text.strip_prefix("resets in ")?;
    let end = rest.find(['\n', ';', ')']).unwrap_or(rest.len());
    Some((10 + end, "resets in <duration>"))
}

/// When a period starts, in seconds since 1970.
fn start(text: &str) -> Option<(usize, &'static str)> {
    let rest = text.strip_prefix("period ")?;
    (digits(rest, 10)? >= 1_700_000_000).then_some((17, "period <start>"))
}

/// Columns two spaces apart: how wide they are follows from what was measured.
pub(crate) fn narrow(text: &str) -> String {
    let line = |line: &str| {
        let indented = line.len() - line.trim_start().len();
        let (mut narrow, mut spaces) = (line[..indented].to_owned(), 0);
        for c in line[indented..].chars() {
            spaces = if c == ' ' { spaces + 1 } else { 0 };
            if spaces < 3 {
                narrow.push(c);
            }
        }
        narrow.trim_end().to_owned()
    };
    let lines: Vec<String> = text.split('\n').map(line).collect();
    lines.join("\n")
}

/// Each number of a text but those of `kept`: for people's texts about what was measured.
pub(crate) fn without_figures(text: &str, kept: &[&str]) -> String {
    let (mut plain, mut rest, mut in_word) = (String::new(), text, false);
    while let Some(next) = rest.chars().next() {
        let length = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let number = rest[..length].trim_end_matches('.');
        if !in_word && next.is_ascii_digit() && !kept.contains(&number) {
            plain.push_str("<n>");
            rest = &rest[number.len()..];
            continue;
        }
        in_word = next.is_ascii_alphanumeric() || (in_word && next == '.');
        plain.push(next);
        rest = &rest[next.len_utf8()..];
    }
    plain
}
