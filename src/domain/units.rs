//! Credits and seconds as integers, written and read as exact decimals.
//!
//! In JSON both are numbers in decimal notation (`0.000250000`, `12.345678`): a program that needs the last digit
//! reads them as decimals, every other program as the numbers they are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The largest amount that is accepted from outside: one thousand million credits.
pub const NANOCREDITS_MAX: i64 = 1_000_000_000_000_000_000;

/// Credits in units of 10⁻⁹. Negative only where a balance may be (a lowered limit, a correction).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanocredits(pub i64);

/// A duration or an amount of CPU or GPU time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Microseconds(pub u64);

/// Why a text is not an amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not of the form `12`, `12.5` or `.5`.
    #[error("{text:?} is not a decimal number")]
    NotDecimal {
        /// What was given.
        text: String,
    },
    /// More fractional digits than the unit holds.
    #[error("{text:?} has more than {digits_max} digits after the point")]
    TooFine {
        /// What was given.
        text: String,
        /// How many fractional digits the unit holds.
        digits_max: usize,
    },
    /// Outside the range.
    #[error("{text:?} is too large")]
    TooLarge {
        /// What was given.
        text: String,
    },
}

/// A sum that no amount can hold. It is never kept as another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sum of credits would be larger than the books can hold")
    }
}

impl std::error::Error for OutOfRange {}

impl Nanocredits {
    /// No credits.
    pub const ZERO: Self = Self(0);

    /// The sum, held at the ends of the range.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, held at the ends of the range.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The exact sum.
    ///
    /// # Errors
    /// Where no amount can be that large.
    pub fn plus(self, other: Self) -> Result<Self, OutOfRange> {
        self.0.checked_add(other.0).map(Self).ok_or(OutOfRange)
    }

    /// The exact difference.
    ///
    /// # Errors
    /// Where no amount can be that large.
    pub fn less(self, other: Self) -> Result<Self, OutOfRange> {
        self.0.checked_sub(other.0).map(Self).ok_or(OutOfRange)
    }

    /// Four significant digits at least, no more zeros than that needs.
    #[must_use]
    pub fn for_people(self) -> String {
        let text = self.to_string();
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let first = fraction.find(|digit| digit != '0').unwrap_or(0);
        let digits = if whole.trim_start_matches('-') == "0" { first.saturating_add(4) } else { 4 };
        let fraction = fraction.get(..digits.min(fraction.len())).unwrap_or(fraction).trim_end_matches('0');
        if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
    }

    /// The amount, or zero where it is negative.
    #[must_use]
    pub fn at_least_zero(self) -> Self {
        self.max(Self::ZERO)
    }
}

impl Microseconds {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// To the millisecond.
    #[must_use]
    pub fn for_people(self) -> String {
        let text = self.to_string();
        text.get(..text.len().saturating_sub(3)).unwrap_or(&text).to_owned()
    }

    /// The sum, held at the end of the range.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, not below zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Reads `[digits][.digits]` as an integer of `digits_max` fractional digits. Exponents, signs, spaces and everything
/// else are refused, so that `1e3`, `NaN` and `-1` never become an amount by accident.
fn parse_decimal(text: &str, digits_max: usize, value_max: u64) -> Result<u64, AmountError> {
    let not_decimal = || AmountError::NotDecimal { text: text.to_owned() };
    let too_large = || AmountError::TooLarge { text: text.to_owned() };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(not_decimal());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > digits_max {
        return Err(AmountError::TooFine { text: text.to_owned(), digits_max });
    }
    let mut value: u64 = 0;
    let digits = whole
        .bytes()
        .chain(fraction.bytes())
        .chain(std::iter::repeat_n(b'0', digits_max.saturating_sub(fraction.len())));
    for digit in digits {
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(digit.saturating_sub(b'0'))))
            .ok_or_else(too_large)?;
    }
    if value > value_max { Err(too_large()) } else { Ok(value) }
}

impl FromStr for Nanocredits {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        signed(text, NANOCREDITS_MAX.unsigned_abs())
    }
}

/// An amount of at most `most` nanocredits, more or less.
fn signed(text: &str, most: u64) -> Result<Nanocredits, AmountError> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let value = parse_decimal(digits, 9, most)?;
    let value = i64::try_from(value).map_err(|_| AmountError::TooLarge { text: text.to_owned() })?;
    Ok(Nanocredits(if negative { value.saturating_neg() } else { value }))
}

/// An amount in the whole range of the books.
struct Whole(Nanocredits);

impl FromStr for Whole {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        signed(text, i64::MAX.unsigned_abs()).map(Self)
    }
}

impl FromStr for Microseconds {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        parse_decimal(text, 6, u64::MAX).map(Self)
    }
}

/// All nine digits, as programs want it: `0.000250000`.
impl fmt::Display for Nanocredits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Total(self.0.into()).fmt(f)
    }
}

/// A sum over all accounts in units of 10⁻⁹ credits, which 64 bits may not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Total(pub i128);

/// All nine digits, as of one amount.
impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let value = self.0.unsigned_abs();
        let (whole, fraction) =
            (value.checked_div(1_000_000_000).unwrap_or(0), value.checked_rem(1_000_000_000).unwrap_or(0));
        f.pad(&format!("{sign}{whole}.{fraction:09}"))
    }
}

/// All six digits: `12.345678`.
impl fmt::Display for Microseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) =
            (self.0.checked_div(1_000_000).unwrap_or(0), self.0.checked_rem(1_000_000).unwrap_or(0));
        f.pad(&format!("{whole}.{fraction:06}"))
    }
}

fn serialize_decimal<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    text.parse::<serde_json::Number>().map_err(serde::ser::Error::custom)?.serialize(serializer)
}

fn deserialize_decimal<'de, D: Deserializer<'de>, T: FromStr<Err = AmountError>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = serde_json::Number::deserialize(deserializer)?.to_string();
    let plain = without_exponent(&text).unwrap_or(text);
    plain.parse().map_err(serde::de::Error::custom)
}

/// JSON may write a small number as `1e-6`, and programs do; `None` where the text has no exponent or one beyond every
/// amount.
fn without_exponent(text: &str) -> Option<String> {
    let (mantissa, exponent) = text.split_once(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok().filter(|exponent| (-40..=40).contains(exponent))?;
    let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let padding = "0".repeat(usize::try_from(exponent.unsigned_abs()).ok()?);
    Some(if exponent < 0 {
        let all = format!("{padding}{whole}");
        let (whole, moved) = all.split_at(all.len().saturating_sub(padding.len()));
        format!("{sign}{whole}.{moved}{fraction}")
    } else {
        let all = format!("{fraction}{padding}");
        let (moved, fraction) = all.split_at(padding.len());
        format!("{sign}{whole}{moved}.{fraction}")
    })
}

impl Serialize for Nanocredits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_decimal(&self.to_string(), serializer)
    }
}

/// Reads whatever the books can say: sums are beyond the largest amount that people may give, which is asked where they give it.
impl<'de> Deserialize<'de> for Nanocredits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_decimal::<D, Whole>(deserializer).map(|whole| whole.0)
    }
}

impl Serialize for Microseconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_decimal(&self.to_string(), serializer)
    }
}

impl<'de> Deserialize<'de> for Microseconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_decimal(deserializer)
    }
}

/// In an OpenAPI document both are numbers.
fn number(title: &str, description: &str) -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
    let number = utoipa::openapi::schema::SchemaType::new(utoipa::openapi::schema::Type::Number);
    let object = utoipa::openapi::ObjectBuilder::new().schema_type(number);
    object.title(Some(title)).description(Some(description)).build().into()
}

impl utoipa::PartialSchema for Nanocredits {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        number("Credits", "An exact decimal with nine fractional digits, within a thousand million.")
    }
}

impl utoipa::ToSchema for Nanocredits {
    fn name() -> std::borrow::Cow<'static, str> {
        "Credits".into()
    }
}

impl utoipa::PartialSchema for Microseconds {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        number("Seconds", "An exact decimal with six fractional digits, not negative.")
    }
}

impl utoipa::ToSchema for Microseconds {
    fn name() -> std::borrow::Cow<'static, str> {
        "Seconds".into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_not_a_plain_decimal() {
        for text in ["", ".", "1e3", "NaN", "inf", "+1", " 1", "1_000", "0x1", "1.2.3", "--1"] {
            assert!(matches!(text.parse::<Nanocredits>(), Err(AmountError::NotDecimal { .. })), "{text}");
        }
        assert!(matches!("0.0000000001".parse::<Nanocredits>(), Err(AmountError::TooFine { .. })));
        assert!(matches!("99999999999".parse::<Nanocredits>(), Err(AmountError::TooLarge { .. })));
        assert!("-1".parse::<Microseconds>().is_err());
    }

    #[test]
    fn json_is_an_exact_decimal_number() {
        assert_eq!(serde_json::to_string(&Nanocredits(5_000_000_001)).unwrap(), "5.000000001");
        assert_eq!(serde_json::from_str::<Nanocredits>("-0.5").unwrap(), Nanocredits(-500_000_000));
        assert_eq!(serde_json::to_string(&Microseconds(1)).unwrap(), "0.000001");
        for (text, micros) in [("1e-6", 1), ("1.5e-5", 15), ("12.5E3", 12_500_000_000), ("2e0", 2_000_000)] {
            assert_eq!(serde_json::from_str::<Microseconds>(text).unwrap(), Microseconds(micros), "{text}");
        }
        assert!(serde_json::from_str::<Microseconds>("1e-7").is_err());
        assert!(serde_json::from_str::<Microseconds>("1e99").is_err());
        let through_value = serde_json::to_value(Microseconds(1)).unwrap();
        assert_eq!(serde_json::from_value::<Microseconds>(through_value).unwrap(), Microseconds(1));
    }

    #[test]
    fn programs_read_sums_that_people_may_not_give() {
        for text in ["9223372036.854775807", "-9223372036.854775807", "1000000000.000000001"] {
            assert!(text.parse::<Nanocredits>().is_err(), "{text}");
            assert_eq!(serde_json::from_str::<Nanocredits>(text).unwrap().to_string(), text);
        }
        assert!(serde_json::from_str::<Nanocredits>("9223372036.854775808").is_err());
        assert_eq!(Total(i128::from(i64::MAX) * -3).to_string(), "-27670116110.564327421");
        assert_eq!(Total(5).to_string(), Nanocredits(5).to_string());
    }

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn credits_print_and_parse_as_the_same_value(value in -NANOCREDITS_MAX..=NANOCREDITS_MAX) {
            let credits = Nanocredits(value);
            prop_assert_eq!(credits.to_string().parse::<Nanocredits>().unwrap(), credits);
            let json = serde_json::to_string(&credits).unwrap();
            prop_assert_eq!(serde_json::from_str::<Nanocredits>(&json).unwrap(), credits);
        }

        #[test]
        fn seconds_print_and_parse_as_the_same_value(value: u64) {
            prop_assert_eq!(Microseconds(value).to_string().parse::<Microseconds>().unwrap(), Microseconds(value));
        }
    }
}
