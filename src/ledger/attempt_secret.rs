//! The secret of an attempt: its sidecar makes it, and shows it whenever it opens, reports or finishes the attempt. A key
//! alone does not speak for the attempts of others, or for one's own behind its meter's back. Only a hash of it is kept.

use std::fmt::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// In which it travels over HTTP. A service of an earlier version, which refuses fields that it does not know, passes over a
/// header.
pub const HEADER: &str = "jobmeter-attempt-secret";

const BYTES: usize = 32;

/// The secret itself. As JSON it stands in a spool file and nowhere else, and it never shows itself in a message.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AttemptSecret([u8; BYTES]);

/// What the books keep of a secret, by which they know it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretHash([u8; BYTES]);

/// What was given is not shown: it may be a secret with a slip of the pen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid secret of an attempt: expected {} hexadecimal digits in lower case", 2 * BYTES)]
pub struct InvalidSecret;

impl AttemptSecret {
    /// A new one, out of the kernel's random numbers.
    #[must_use]
    pub fn new() -> Self {
        let mut bytes = [0; BYTES];
        for part in bytes.chunks_exact_mut(BYTES / 2) {
            part.copy_from_slice(Uuid::new_v4().as_bytes());
        }
        Self(bytes)
    }

    /// The whole of it, for who has to send it.
    #[must_use]
    pub fn text(&self) -> String {
        written(&self.0)
    }

    /// It has more than 200 random bits, so that one round of a plain hash is enough.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.0).into())
    }
}

impl Default for AttemptSecret {
    fn default() -> Self {
        Self::new()
    }
}

impl From<[u8; BYTES]> for AttemptSecret {
    fn from(bytes: [u8; BYTES]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for AttemptSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttemptSecret(…)")
    }
}

impl FromStr for AttemptSecret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        read(text).map(Self)
    }
}

impl TryFrom<String> for AttemptSecret {
    type Error = InvalidSecret;

    fn try_from(text: String) -> Result<Self, InvalidSecret> {
        text.parse()
    }
}

impl From<AttemptSecret> for String {
    fn from(secret: AttemptSecret) -> Self {
        secret.text()
    }
}

impl SecretHash {
    /// As it is stored.
    #[must_use]
    pub fn text(&self) -> String {
        written(&self.0)
    }
}

impl FromStr for SecretHash {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        read(text).map(Self)
    }
}

fn written(bytes: &[u8; BYTES]) -> String {
    bytes.iter().fold(String::with_capacity(2 * BYTES), |mut text, byte| {
        // Nothing that is written into a text can fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

/// Each has one spelling.
fn read(text: &str) -> Result<[u8; BYTES], InvalidSecret> {
    let digit = |letter: u8| match letter {
        b'0'..=b'9' => Ok(letter - b'0'),
        b'a'..=b'f' => Ok(letter - b'a' + 10),
        _ => Err(InvalidSecret),
    };
    let letters: &[u8; 2 * BYTES] = text.as_bytes().try_into().map_err(|_| InvalidSecret)?;
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(letters.chunks_exact(2)) {
        let [high, low] = pair else { return Err(InvalidSecret) };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_back_and_never_shown() {
        let secret = AttemptSecret::new();
        let text = secret.text();
        assert_eq!((text.len(), text.parse::<AttemptSecret>()), (64, Ok(secret)));
        assert_eq!(serde_json::from_str::<AttemptSecret>(&serde_json::to_string(&secret).unwrap()).unwrap(), secret);
        assert_ne!(secret, AttemptSecret::new());
        let hash = secret.hash();
        assert_eq!(hash.text().parse::<SecretHash>(), Ok(hash));
        assert_ne!(hash.text(), text);
        assert!(!format!("{secret:?}").contains(&text[..4]));
        assert_ne!(hash, AttemptSecret::new().hash());
    }

    #[test]
    fn a_secret_has_one_spelling() {
        let text = "0123456789abcdef".repeat(4);
        assert_eq!(text.parse::<AttemptSecret>().unwrap().text(), text);
        let (upper, short, long) = (text.to_uppercase(), text[1..].to_owned(), format!("{text}0"));
        for wrong in [upper, short, long, format!(" {}", &text[1..]), "g".repeat(64), "é".repeat(32), String::new()] {
            let error = wrong.parse::<AttemptSecret>().unwrap_err().to_string();
            assert!(wrong.is_empty() || !error.contains(&wrong), "{error}");
        }
    }

    /// Of the 32 bytes, not of their digits: the books of all versions know it again.
    #[test]
    fn the_hash_stays_as_it_is() {
        let hash = AttemptSecret::from([0; BYTES]).hash();
        assert_eq!(hash.text(), "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925");
    }
}
