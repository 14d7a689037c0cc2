//! A browser's session: a token of its own, which stands for the key that it was made with, for a while. Only its hash is kept.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::keys::{KeyView, hash_of};

/// A session ends so long after it was made, in µs: 12 hours, a working day.
pub const SESSION_MAX_US: i64 = 12 * 3_600 * 1_000_000;
/// And so long after it was last used, in µs: an hour, as NIST SP 800-63B-4 has it for AAL2.
pub const SESSION_IDLE_MAX_US: i64 = 3_600 * 1_000_000;
/// That it was used is written down once in this time, in µs: as much earlier it may end. No page waits for more than one write a
/// minute.
pub const SESSION_SEEN_EACH_US: i64 = 60 * 1_000_000;

const DIGITS: usize = 64;

/// What the browser has in its cookie. It never shows itself in a message.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken(String);

/// What was given is not shown: it may be a token with a slip of the pen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid session: expected {DIGITS} hexadecimal digits in lower case")]
pub struct InvalidToken;

/// A session that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// With which it was made: it may do what this key may.
    pub key: KeyView,
    /// It was used [`SESSION_SEEN_EACH_US`] ago or before that: a use is to be written down.
    pub is_due: bool,
}

impl SessionToken {
    /// A new one, out of the kernel's random numbers.
    #[must_use]
    pub fn new() -> Self {
        Self(format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()))
    }

    /// The whole of it, for the cookie.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What the ledger keeps of it. It has more than 200 random bits, so that one round of a plain hash is enough.
    #[must_use]
    pub fn hash(&self) -> String {
        hash_of(&self.0)
    }
}

impl Default for SessionToken {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(…)")
    }
}

impl FromStr for SessionToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_token = text.len() == DIGITS && text.bytes().all(is_digit);
        is_token.then(|| Self(text.to_owned())).ok_or(InvalidToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_back_and_never_shown() {
        let token = SessionToken::new();
        assert_eq!(token.text().parse::<SessionToken>(), Ok(token.clone()));
        assert_ne!(token, SessionToken::new());
        assert!(!format!("{token:?}").contains(&token.text()[..4]) && token.hash() != token.text());
        for wrong in [String::new(), token.text().to_uppercase() + "A", token.text()[1..].to_owned(), "g".repeat(64)] {
            assert_eq!(wrong.parse::<SessionToken>(), Err(InvalidToken), "{wrong}");
        }
    }
}
