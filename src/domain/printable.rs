//! Text that came from outside, as a terminal, a log or a page may show it: names of processes, jobs and users, command
//! lines, reasons, what a service or a settings file says.
//!
//! What would be obeyed, or would hide or reorder what stands around it, is written as Rust writes it (`\u{202e}`) and not
//! as U+FFFD: whoever has to find the name, or asks why it looks odd, sees which character it was.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether this is a control character (C0, DEL, C1), or one that reorders lines, breaks them, or cannot be seen.
///
/// The joiners U+200C and U+200D and the variation selectors are left: scripts and pictures are written with them.
#[must_use]
pub fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// One line: of a name or a reason, which may begin no line of its own.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    replaced(text, is_hidden, |out, letter| out.extend(letter.escape_default()))
}

/// Text whose lines are ours: line breaks and tabs stay.
#[must_use]
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    let is_theirs = |letter| is_hidden(letter) && !matches!(letter, '\n' | '\t');
    replaced(text, is_theirs, |out, letter| out.extend(letter.escape_default()))
}

/// A JSON document, by JSON's own escapes: programs read the same values. Outside strings, JSON has nothing but line
/// breaks that is hidden, and inside them no line break.
#[must_use]
pub fn printable_json(document: &str) -> Cow<'_, str> {
    let is_in_string = |letter| is_hidden(letter) && !matches!(letter, '\n' | '\r' | '\t');
    replaced(document, is_in_string, |out, letter| {
        for unit in letter.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

fn replaced(text: &str, is_bad: impl Fn(char) -> bool, write: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if !text.chars().any(&is_bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_bad(letter) { write(&mut out, letter) } else { out.push(letter) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_would_be_obeyed_is_written_out() {
        for (text, shown) in [
            ("\u{1b}]0;owned\u{7}", "\\u{1b}]0;owned\\u{7}"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("one\ntwo\r\tthree", "one\\ntwo\\r\\tthree"),
            ("a\u{200b}b\u{feff}\u{e0041}", "a\\u{200b}b\\u{feff}\\u{e0041}"),
            ("\u{2028}", "\\u{2028}"),
        ] {
            assert_eq!(printable(text), shown);
        }
        assert_eq!(printable_lines("one\n\ttwo\r\n"), "one\n\ttwo\\r\n");
    }

    #[test]
    fn what_people_write_stays() {
        // Joiners are part of Persian and of pictures of families.
        for text in ["", "O'Brien", "Łukasz", "می\u{200c}خواهم", "👩\u{200d}👧\u{fe0f}", "שלום", "\\u{1b}"]
        {
            assert!(matches!(printable(text), Cow::Borrowed(_)), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn nothing_hidden_is_left(text in any::<String>(), mark in "[\u{0}-\u{9f}\u{2028}-\u{202e}\u{2060}-\u{206f}\u{e0000}-\u{e007f}]*") {
            let text = text + &mark;
            let shown = printable(&text);
            prop_assert!(!shown.chars().any(is_hidden));
            prop_assert!(matches!(printable(&shown), Cow::Borrowed(_)));
            let lines = printable_lines(&text);
            prop_assert_eq!(lines.matches('\n').count(), text.matches('\n').count());
            prop_assert_eq!(printable(&lines), shown);
        }

        #[test]
        fn programs_read_the_same_value(text in any::<String>(), mark in "[\u{0}-\u{9f}\u{2028}-\u{202e}\u{e0000}-\u{e007f}]*") {
            let value = serde_json::json!({ &mark: [text, mark] });
            let document = serde_json::to_string_pretty(&value).unwrap();
            let shown = printable_json(&document);
            prop_assert!(!shown.chars().any(|letter| is_hidden(letter) && letter != '\n'));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }
}
