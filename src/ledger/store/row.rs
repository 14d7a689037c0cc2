//! Values and rows as they go into and come out of a database.

use std::str::FromStr;

use crate::domain::units::{Microseconds, Nanocredits};
use crate::ledger::LedgerError;

/// A value: all that the books need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A number.
    Int(i64),
    /// A text.
    Text(String),
    /// Several texts, for `column = ANY($1)`.
    Texts(Vec<String>),
}

/// One row; its values are taken in the order of the statement's columns.
#[derive(Debug)]
pub struct Row(std::vec::IntoIter<Value>);

impl Value {
    /// Whether a text holds a NUL character.
    #[must_use]
    pub fn has_nul(&self) -> bool {
        match self {
            Self::Text(text) => text.contains('\0'),
            Self::Texts(texts) => texts.iter().any(|text| text.contains('\0')),
            Self::Null | Self::Int(_) => false,
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(is_so: bool) -> Self {
        Self::Int(i64::from(is_so))
    }
}

impl From<Nanocredits> for Value {
    fn from(amount: Nanocredits) -> Self {
        Self::Int(amount.0)
    }
}

impl From<Microseconds> for Value {
    fn from(time: Microseconds) -> Self {
        time.0.into()
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<uuid::Uuid> for Value {
    fn from(id: uuid::Uuid) -> Self {
        Self::Text(id.to_string())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

fn damaged(what: &str) -> LedgerError {
    LedgerError::Broken(format!("the books are damaged: {what}"))
}

impl Row {
    /// From what a database gave.
    #[must_use]
    pub fn new(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }

    /// The next value, a number or nothing.
    ///
    /// # Errors
    /// Where it is a text.
    pub fn maybe_int(&mut self) -> Result<Option<i64>, LedgerError> {
        match self.0.next() {
            Some(Value::Int(number)) => Ok(Some(number)),
            Some(Value::Null) => Ok(None),
            other => Err(damaged(&format!("{other:?} is no number"))),
        }
    }

    /// The next value, a number.
    ///
    /// # Errors
    /// Where it is none.
    pub fn int(&mut self) -> Result<i64, LedgerError> {
        self.maybe_int()?.ok_or_else(|| damaged("a number is missing"))
    }

    /// The next value, a number that is not negative.
    ///
    /// # Errors
    /// Where it is none.
    pub fn count(&mut self) -> Result<u64, LedgerError> {
        self.maybe_count()?.ok_or_else(|| damaged("a number is missing"))
    }

    /// The next value, a number that is not negative, or nothing.
    ///
    /// # Errors
    /// Where it is neither.
    pub fn maybe_count(&mut self) -> Result<Option<u64>, LedgerError> {
        let number = self.maybe_int()?;
        number.map(|number| u64::try_from(number).map_err(|_| damaged(&format!("{number} is negative")))).transpose()
    }

    /// The next value, true or false.
    ///
    /// # Errors
    /// Where it is no number.
    pub fn flag(&mut self) -> Result<bool, LedgerError> {
        Ok(self.int()? != 0)
    }

    /// The next value, an amount.
    ///
    /// # Errors
    /// Where it is no number.
    pub fn nanocredits(&mut self) -> Result<Nanocredits, LedgerError> {
        self.int().map(Nanocredits)
    }

    /// The next value, an amount or nothing.
    ///
    /// # Errors
    /// Where it is a text.
    pub fn maybe_nanocredits(&mut self) -> Result<Option<Nanocredits>, LedgerError> {
        Ok(self.maybe_int()?.map(Nanocredits))
    }

    /// The next value, a time.
    ///
    /// # Errors
    /// Where it is no number that is not negative.
    pub fn microseconds(&mut self) -> Result<Microseconds, LedgerError> {
        self.count().map(Microseconds)
    }

    /// The next value, a text or nothing.
    ///
    /// # Errors
    /// Where it is a number.
    pub fn maybe_text(&mut self) -> Result<Option<String>, LedgerError> {
        match self.0.next() {
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Null) => Ok(None),
            other => Err(damaged(&format!("{other:?} is no text"))),
        }
    }

    /// The next value, a text.
    ///
    /// # Errors
    /// Where it is none.
    pub fn text(&mut self) -> Result<String, LedgerError> {
        self.maybe_text()?.ok_or_else(|| damaged("a text is missing"))
    }

    /// The next value, a text that means something.
    ///
    /// # Errors
    /// Where it does not.
    pub fn parsed<T: FromStr>(&mut self) -> Result<T, LedgerError> {
        let text = self.text()?;
        text.parse().map_err(|_| damaged(&format!("{text:?} cannot be read")))
    }

    /// The next value, a text of JSON.
    ///
    /// # Errors
    /// Where it is not.
    pub fn json<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, LedgerError> {
        let text = self.text()?;
        serde_json::from_str(&text).map_err(|error| damaged(&format!("{text:?}: {error}")))
    }
}
