//! Keys of the ledger service: what they may do, and how they are told apart. Only a hash of a key is kept.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything.
    Admin,
    /// Open, report and finish attempts, charge tokens, and read.
    Report,
    /// Read.
    Read,
}

impl Scope {
    /// The word for it everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Report => "report",
            Self::Read => "read",
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Admin, Self::Report, Self::Read].into_iter().find(|scope| scope.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is no scope: use admin, report or read"))
    }
}

/// A key as its holder has it: `jm_` and two words of hexadecimal digits, the first of which names it. It never shows
/// itself in a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret(jm_{}_…)", self.id())
    }
}

impl Secret {
    /// A new one, out of the kernel's random numbers.
    #[must_use]
    pub fn new() -> Self {
        let word = || Uuid::new_v4().simple().to_string();
        let id: String = word().chars().take(12).collect();
        Self(format!("jm_{id}_{}{}", word(), word()))
    }

    /// What names it in lists and messages.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.split('_').nth(1).unwrap_or_default()
    }

    /// The whole of it, for who has to send or keep it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What the ledger keeps of it. A key has more than 200 random bits, so that one round of a plain hash is enough.
    #[must_use]
    pub fn hash(&self) -> String {
        hash_of(&self.0)
    }
}

/// SHA-256, in hexadecimal digits.
pub(super) fn hash_of(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

impl Default for Secret {
    fn default() -> Self {
        Self::new()
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let is_hex = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut words = text.split('_');
        let is_key = words.next() == Some("jm")
            && words.next().is_some_and(is_hex)
            && words.next().is_some_and(is_hex)
            && words.next().is_none()
            && text.len() <= 128;
        // What was given is not shown: it may be a key with a slip of the pen.
        if is_key { Ok(Self(text.to_owned())) } else { Err("this is no key of a jobmeter ledger".to_owned()) }
    }
}

/// A key as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyView {
    /// Names it.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// Whose account alone; `None` for all.
    pub user: Option<String>,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// RFC 3339, UTC; `None` while it is valid.
    pub revoked_at: Option<String>,
    /// The node, cluster or service that it works for.
    #[serde(default)]
    pub principal: String,
    /// Until when it is good: RFC 3339, UTC; `None` for ever.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// When it was used last, to the hour: RFC 3339, UTC; `None` where nobody has.
    #[serde(default)]
    pub used_at: Option<String>,
    /// Of the key.
    #[serde(skip)]
    pub hash: String,
    /// It was revoked, or has come to its end, when it was looked up.
    #[serde(skip)]
    pub is_over: bool,
    /// That it is used was last written down [`KEY_USED_EACH_US`] ago or before that.
    #[serde(skip)]
    pub is_due: bool,
}

/// That a key is used is written down once in this time, in µs: an hour tells whether anybody has it still.
pub const KEY_USED_EACH_US: i64 = 3_600 * 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_and_never_shown() {
        let key = Secret::new();
        assert_eq!(key.text().parse::<Secret>(), Ok(key.clone()));
        assert_ne!(key, Secret::new());
        let secret = key.text().rsplit('_').next().unwrap().to_owned();
        assert!(!format!("{key:?}").contains(&secret) && !key.hash().contains(&secret));
        for text in ["", "jm_", "jm_12_", "jm_12_zz", "xx_12_ab", "jm_12_ab_cd"] {
            assert!(text.parse::<Secret>().is_err(), "{text}");
        }
    }
}
