//! What a job asks by its socket: a line of words.

use std::str::FromStr;

use uuid::Uuid;

use crate::ledger::views::RESERVED_MAX_MS;

/// No key has more bytes.
const KEY_MAX_BYTES: usize = 256;
/// 2^53: what every program reads as the same number.
const COUNT_MAX: u64 = 1 << 53;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are words of the design")]
pub enum Ask {
    /// How many credits are left.
    Left,
    /// Tokens were used.
    Charge { count: u64, key: Option<String> },
    /// Tokens are to be used.
    Reserve { count: u64, lasts_s: Option<u64>, key: Option<String> },
    /// Of those, so many were.
    Settle { reservation: Uuid, count: u64, key: Option<String> },
}

fn count(word: &str) -> Result<u64, String> {
    let found = word.parse().ok().filter(|count| *count <= COUNT_MAX);
    found.ok_or_else(|| format!("{word:?} is no number of tokens: use 0 to 2^53"))
}

fn seconds(word: &str) -> Result<u64, String> {
    let found = word.parse().ok().filter(|seconds| (1..=RESERVED_MAX_MS / 1_000).contains(seconds));
    found.ok_or_else(|| format!("{word:?} are no seconds: use 1 to {}", RESERVED_MAX_MS / 1_000))
}

fn key(word: &str) -> Result<String, String> {
    let fits = word.len() <= KEY_MAX_BYTES && !word.chars().any(char::is_control);
    if fits { Ok(word.to_owned()) } else { Err(format!("a key may have {KEY_MAX_BYTES} bytes at most")) }
}

impl FromStr for Ask {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let maybe_key = |word: Option<&&str>| word.map(|word| key(word)).transpose();
        match words.as_slice() {
            ["left"] => Ok(Self::Left),
            ["charge", tokens, rest @ ..] if rest.len() < 2 => {
                Ok(Self::Charge { count: count(tokens)?, key: maybe_key(rest.first())? })
            }
            ["reserve", tokens, rest @ ..] if rest.len() < 3 => Ok(Self::Reserve {
                count: count(tokens)?,
                lasts_s: rest.first().map(|word| seconds(word)).transpose()?,
                key: maybe_key(rest.get(1))?,
            }),
            ["settle", reservation, tokens, rest @ ..] if rest.len() < 2 => {
                let wrong = |_| format!("{reservation:?} is no reservation: use what reserve answered");
                let reservation = reservation.parse().map_err(wrong)?;
                Ok(Self::Settle { reservation, count: count(tokens)?, key: maybe_key(rest.first())? })
            }
            _ => Err("ask: left | charge COUNT [KEY] | reserve COUNT [SECONDS [KEY]] | settle RESERVATION COUNT [KEY]"
                .to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_mean_what_is_documented() {
        let key = Some("k".to_owned());
        assert_eq!("left".parse(), Ok(Ask::Left));
        assert_eq!("charge 12 k".parse(), Ok(Ask::Charge { count: 12, key: key.clone() }));
        assert_eq!("reserve 8000".parse(), Ok(Ask::Reserve { count: 8_000, lasts_s: None, key: None }));
        assert_eq!("reserve 8000 60 k".parse(), Ok(Ask::Reserve { count: 8_000, lasts_s: Some(60), key: key.clone() }));
        let reservation = Uuid::from_u128(7);
        assert_eq!(format!("settle {reservation} 3 k").parse(), Ok(Ask::Settle { reservation, count: 3, key }));
        for wrong in ["", "left 1", "charge", "charge -1", "charge 1 k k", "reserve 1 0", "settle x 1", "charge 1e3"] {
            assert!(wrong.parse::<Ask>().is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn what_is_said_is_what_is_taken(
            tokens in 0..=COUNT_MAX, lasts in 1..=86_400u64, key in "[!-~]{1,40}", id in any::<u128>(),
        ) {
            let (count, reservation, keyed) = (tokens, Uuid::from_u128(id), Some(key.clone()));
            let charge = Ask::Charge { count, key: keyed.clone() };
            prop_assert_eq!(format!(" charge  {tokens} {key}").parse(), Ok(charge));
            let reserve = Ask::Reserve { count, lasts_s: Some(lasts), key: keyed.clone() };
            prop_assert_eq!(format!("reserve {tokens} {lasts} {key}").parse(), Ok(reserve));
            let settle = Ask::Settle { reservation, count, key: keyed };
            prop_assert_eq!(format!("settle {reservation} {tokens} {key}").parse(), Ok(settle));
        }
    }
}
