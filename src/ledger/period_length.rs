//! Kinds of periods.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How long a limit counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeriodLength {
    /// A day in UTC.
    #[default]
    Day,
    /// A month in UTC.
    Month,
}

impl PeriodLength {
    /// The word for it everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

impl std::str::FromStr for PeriodLength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Day, Self::Month].into_iter().find(|length| length.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is no period: use day or month"))
    }
}
