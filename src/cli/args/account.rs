//! What can be changed in an account.

use clap::{Args, Subcommand};

use crate::cli::values::{self, Span};
use crate::domain::units::Nanocredits;
use crate::ledger::views::PeriodLength;

#[derive(Debug, Subcommand)]
pub(crate) enum Account {
    /// Balance, grants and the newest entries
    Show {
        /// At most so many entries
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=10_000))]
        entries: u32,
    },
    /// Set the limit of a period: credits, or "none"
    Limit {
        /// Credits, or none
        #[arg(value_name = "CREDITS|none", value_parser = values::limit)]
        limit: values::Limit,
        /// For how long it counts, in UTC
        #[arg(long, default_value = "day")]
        period: PeriodLength,
        /// From when on [default: at once if it rises or nothing was spent yet, else from the next period on]
        #[arg(long, value_name = "WHEN", value_enum)]
        since: Option<values::Since>,
        /// Whether what a period leaves is kept in a grant
        #[arg(long, value_name = "yes|no", value_enum, hide_possible_values = true)]
        carry_over: Option<values::Whether>,
        /// For the books
        #[arg(long, value_name = "TEXT", default_value = "", value_parser = values::text)]
        why: String,
    },
    /// Give extra credits
    Grant {
        /// Credits
        #[arg(value_parser = values::amount_above_zero)]
        credits: Nanocredits,
        /// They expire after so long [default: never]
        #[arg(long, value_name = "TIME", value_parser = values::span)]
        expires_in: Option<Span>,
        #[command(flatten)]
        reason: Reasoned,
    },
    /// End what is free of a grant; what jobs hold of it stays good
    Revoke {
        /// Its number, as `account show` tells it
        #[arg(value_name = "GRANT", value_parser = clap::value_parser!(i64).range(1..))]
        grant: i64,
        /// Why, as the books tell it
        #[arg(long, value_name = "TEXT", value_parser = values::text)]
        why: String,
    },
    /// Correct the balance: a positive amount is a grant for this period, a negative one is taken of what is free, and else owed
    Adjust {
        /// Credits
        #[arg(allow_negative_numbers = true, allow_hyphen_values = true)]
        credits: Nanocredits,
        /// Take of this grant alone
        #[arg(long, value_name = "GRANT", value_parser = clap::value_parser!(i64).range(1..))]
        grant: Option<i64>,
        /// What is given expires after so long [default: with the period]
        #[arg(long, value_name = "TIME", value_parser = values::span)]
        expires_in: Option<Span>,
        #[command(flatten)]
        reason: Reasoned,
    },
    /// Stop what runs and start nothing, until it is resumed
    Suspend {
        /// Why, as the books tell it
        #[arg(long, value_name = "TEXT", value_parser = values::text)]
        why: String,
    },
    /// Put the account back into the period of now, after a clock was years ahead
    Repair {
        /// Why, as the books tell it
        #[arg(long, value_name = "TEXT", value_parser = values::text)]
        why: String,
    },
    /// Let a suspended account start jobs again
    Resume {
        /// Why, as the books tell it
        #[arg(long, value_name = "TEXT", default_value = "", value_parser = values::text)]
        why: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Reasoned {
    /// For the books
    #[arg(long, value_name = "TEXT", value_parser = values::text)]
    pub(crate) why: String,
    /// Makes a repeat harmless: the same key is posted once
    #[arg(long, value_name = "KEY", value_parser = values::name)]
    pub(crate) key: Option<String>,
}
