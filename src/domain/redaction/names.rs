//! Names of secrets, as options, variables, headers and keys are written: `--api-key`, `API_KEY`, `X-Api-Key`, `apiKey`.

/// Where no setting says others.
pub(super) const WORDS: [&str; 20] = [
    "apikey",
    "auth",
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "credentials",
    "jwt",
    "key",
    "pass",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "pw",
    "pwd",
    "secret",
    "sig",
    "signature",
    "token",
];

/// These say what something is only at the end of a name: an `api-key` is a secret, a `key-column` is not.
const LAST: [&str; 2] = ["key", "pass"];

/// What stands before those where they mean something else: a `sort-key`, a tokenizer's `eos_token`.
const OTHER: [&str; 22] = [
    "bos",
    "cache",
    "cls",
    "end",
    "eos",
    "foreign",
    "group",
    "index",
    "join",
    "mask",
    "order",
    "pad",
    "partition",
    "primary",
    "public",
    "sep",
    "sort",
    "special",
    "start",
    "stop",
    "unique",
    "unk",
];

/// What a name ends with that says something about a secret, and not the secret: `--auth-mode`, `--password-file`.
const ABOUT: [&str; 14] = [
    "column", "dir", "file", "id", "ids", "len", "length", "limit", "mode", "name", "path", "provider", "size", "type",
];

/// So long a word is known at the end of a longer one as well: `PGPASSWORD`.
const ENDING_CHARS_MIN: usize = 5;

/// The words whose names are those of secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretNames {
    /// Each as the parts of a name.
    words: Vec<Vec<String>>,
}

impl Default for SecretNames {
    fn default() -> Self {
        Self::new(WORDS)
    }
}

impl SecretNames {
    /// These and no others; without any, no name is that of a secret.
    pub fn new(words: impl IntoIterator<Item: AsRef<str>>) -> Self {
        let words = words.into_iter().map(|word| parts(word.as_ref()));
        Self { words: words.filter(|parts| !parts.is_empty()).collect() }
    }

    /// Whether the words are one or more parts of the name, in capitals or not.
    pub(super) fn has(&self, name: &str) -> bool {
        let parts = parts(name);
        let is_about = |parts: &[String]| parts.last().is_some_and(|last| ABOUT.contains(&last.as_str()));
        let is_other = |parts: &[String]| match parts {
            [.., before, last] => matches!(last.as_str(), "key" | "token") && OTHER.contains(&before.as_str()),
            _ => false,
        };
        let is_plain = (parts.len() > 1 && is_about(&parts)) || is_other(&parts);
        self.words.iter().any(|word| match word.as_slice() {
            [_] if is_plain => false,
            [only] if LAST.contains(&only.as_str()) => parts.last() == Some(only),
            [only] => {
                let may_end = only.chars().count() >= ENDING_CHARS_MIN;
                parts.iter().any(|part| part == only || (may_end && part.ends_with(only)))
            }
            several => parts.windows(several.len()).any(|window| window == several),
        })
    }

    /// Whether an option of this name takes a secret as its next argument. `--no-auth` takes none.
    pub(super) fn has_option(&self, name: &str) -> bool {
        name.starts_with('-') && self.has(name) && parts(name).first().is_none_or(|first| first != "no")
    }
}

/// `X-Api_keyName2` is x, api, key, name.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut before = '-';
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        let ends_capitals = before.is_uppercase() && letters.peek().is_some_and(|next| next.is_lowercase());
        let begins = letter.is_uppercase() && (!before.is_uppercase() || ends_capitals);
        if begins || matches!(letter, '-' | '_' | '.') {
            parts.push(String::new());
        }
        if let (true, Some(part)) = (is_letter(letter), parts.last_mut()) {
            part.extend(letter.to_lowercase());
        }
        before = letter;
    }
    let parts = parts.iter().map(|part| part.trim_end_matches(|letter: char| letter.is_numeric()));
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

pub(super) fn is_letter(letter: char) -> bool {
    letter.is_alphanumeric()
}
