//! Names of users: each is written in one way, and no two look the same or differ by case alone.
//!
//! Accounts of before this rule keep their names: it is asked of new ones alone.

use std::fmt;

use unicode_normalization::UnicodeNormalization;

use super::printable::is_hidden;

/// No name is longer, in bytes.
const BYTES_MAX: usize = 1_024;

/// Why nobody new can have a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserNameError {
    /// It would name nobody at all.
    Empty,
    /// It would fill lists and logs; its length in bytes.
    TooLong(usize),
    /// It can look like the name of somebody else.
    Hidden(String),
    /// Another way to write it is the one that counts.
    NotCanonical {
        /// As somebody has written it.
        given: String,
        /// As it has to be written.
        meant: String,
    },
}

impl fmt::Display for UserNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the name of a user must not be empty"),
            Self::TooLong(bytes) => {
                write!(f, "the name of a user may have {BYTES_MAX} bytes at most, and this has {bytes}")
            }
            Self::Hidden(name) => write!(
                f,
                "the name of a user must hold no control character, none that turns the line and none that cannot be seen: {}",
                written_out(name)
            ),
            Self::NotCanonical { given, meant } => write!(
                f,
                "{given:?} is not how this name is written: use {meant:?} (Unicode NFC, without spaces at its ends)"
            ),
        }
    }
}

impl std::error::Error for UserNameError {}

/// Beside what is hidden anywhere: what scripts and pictures need, and names of accounts do not.
fn is_invisible(letter: char) -> bool {
    is_hidden(letter)
        || matches!(
            letter,
            '\u{34f}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200c}'..='\u{200d}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{ffa0}'
                | '\u{e0100}'..='\u{e01ef}'
        )
}

/// A name with what cannot be seen in it written out, `\u{200d}` for one.
fn written_out(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if is_invisible(letter) {
            text.extend(letter.escape_unicode());
        } else {
            text.push(letter);
        }
    }
    text
}

/// Whether somebody new may have this name.
///
/// # Errors
/// Why not, with the name that is meant where there is one.
pub fn check(name: &str) -> Result<(), UserNameError> {
    if name.trim().is_empty() {
        return Err(UserNameError::Empty);
    }
    if name.len() > BYTES_MAX {
        return Err(UserNameError::TooLong(name.len()));
    }
    if name.chars().any(is_invisible) {
        return Err(UserNameError::Hidden(name.to_owned()));
    }
    let meant: String = name.trim().nfc().collect();
    if meant == name { Ok(()) } else { Err(UserNameError::NotCanonical { given: name.to_owned(), meant }) }
}

/// What names have in common that differ by case, by form or by spaces at their ends alone.
#[must_use]
pub fn folded(name: &str) -> String {
    // By way of upper case, so that letters meet that have one capital: σ and ς, s and ſ.
    let lower = name.trim().nfc().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    lower.nfc().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_written_in_one_way() {
        for name in ["ann", "Łukasz_1", "o'brien", "machine$", "a.b+c@example.org", "Ann Smith", "é"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        let meant = |given: &str| match check(given) {
            Err(UserNameError::NotCanonical { meant, .. }) => meant,
            other => panic!("{given:?}: {other:?}"),
        };
        assert_eq!([meant("e\u{301}"), meant("ann "), meant(" ann\u{3000}")], ["é", "ann", "ann"]);
        for hidden in ["a\u{202e}b", "a\u{200b}", "a\u{200d}b", "a\nb", "a\u{fe0f}", "a\u{7f}", "\u{3164}"] {
            let told = check(hidden).unwrap_err();
            assert!(matches!(told, UserNameError::Hidden(_)) && !told.to_string().contains(hidden), "{told}");
        }
        assert_eq!([check(""), check("  ")], [Err(UserNameError::Empty), Err(UserNameError::Empty)]);
        assert_eq!(check(&"x".repeat(1_025)), Err(UserNameError::TooLong(1_025)));
    }

    #[test]
    fn names_meet_that_differ_by_case_form_or_spaces() {
        for (one, other) in [("Ann", "ANN "), ("É", "e\u{301}"), ("ΟΔΟΣ", "οδος"), ("Straße", "STRASSE"), ("ſ", "S")]
        {
            assert_eq!(folded(one), folded(other), "{one} {other}");
        }
        assert_ne!(folded("ann"), folded("anna"));
    }

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn what_is_meant_is_a_name_and_folding_ends(name in any::<String>()) {
            if let Err(UserNameError::NotCanonical { meant, .. }) = check(&name) {
                prop_assert_eq!(check(&meant), Ok(()));
                prop_assert_eq!(folded(&meant), folded(&name));
            }
            let once = folded(&name);
            prop_assert_eq!(folded(&once), once.clone());
        }
    }
}
