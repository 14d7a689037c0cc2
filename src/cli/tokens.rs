//! `jobmeter tokens`: charges tokens to a job.

use std::process::ExitCode;

use uuid::Uuid;

use super::args;
use super::output::{Failure, Output};
use super::settings::Settings;
use crate::domain::units::Nanocredits;
use crate::ledger::views::Change;
use crate::runner::summary::{credits, credits_or_none};

pub(super) fn tokens(tokens: &args::Tokens, settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    let change = Change::ChargeTokens {
        job: tokens.job.clone(),
        count: tokens.count,
        by: settings.by.clone(),
        key: tokens.key.clone().unwrap_or_else(|| Uuid::now_v7().to_string()),
    };
    let answer = settings.connect()?.change(&change)?;
    out.print(&answer, |_| {
        let again = if answer.again { " (before: the key is known)" } else { "" };
        let mut text =
            format!("{} tokens charged to {}: {} credits{again}", tokens.count, tokens.job, credits(answer.charged));
        if answer.overshoot > Nanocredits::ZERO {
            text.push_str(&format!(
                "; {} credits could not be covered and were not charged",
                credits(answer.overshoot)
            ));
        }
        let left = answer.balance.and_then(|balance| balance.left);
        format!("{text}; left: {}\n", credits_or_none(left))
    })
}
