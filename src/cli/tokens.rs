//! `jobmeter tokens`: charges, reserves and settles tokens of a job.

use std::process::ExitCode;

use uuid::Uuid;

use super::args;
use super::output::{Failure, Output};
use super::settings::Settings;
use crate::domain::units::Nanocredits;
use crate::ledger::views::{Change, ChangeAnswer, RESERVED_MS};
use crate::runner::summary::{credits, credits_or_none};

pub(super) fn tokens(
    tokens: &args::Tokens,
    user: Option<&str>,
    settings: &Settings,
    out: &Output,
) -> Result<ExitCode, Failure> {
    let answer = settings.connect()?.change(&change(tokens, user, settings))?;
    if answer.refused.is_some() {
        let left = answer.balance.and_then(|balance| balance.left);
        let message = format!("refused: {} tokens can cost more than is free", tokens.count);
        let failure =
            Failure::new(message).because(format!("{} credits are left, held ones included", credits_or_none(left)));
        return Err(Failure { status: 75, ..failure });
    }
    out.print(&answer, |_| told(tokens, &answer))
}

fn change(tokens: &args::Tokens, user: Option<&str>, settings: &Settings) -> Change {
    let (job, count, by) = (tokens.of.named(&tokens.job, user), tokens.count, settings.by.clone());
    let key = tokens.key.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
    if tokens.reserve {
        let lasts_ms = tokens.lasts.map_or(RESERVED_MS, |span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX));
        return Change::ReserveTokens { job, count, lasts_ms, new_id: Uuid::now_v7(), by, key };
    }
    match tokens.settle {
        Some(reservation) => Change::SettleTokens { job, reservation, count, by, key },
        None => Change::ChargeTokens { job, count, by, key },
    }
}

fn told(tokens: &args::Tokens, answer: &ChangeAnswer) -> String {
    let again = if answer.again { " (before: the key is known)" } else { "" };
    let left = credits_or_none(answer.balance.and_then(|balance| balance.left));
    let (count, job) = (tokens.count, &tokens.job);
    if let Some(reserved) = answer.reserved {
        let (held, id) = (credits(reserved.held), reserved.reservation);
        return format!("{count} tokens reserved for {job}: {held} credits{again}; settle by {id}\n");
    }
    let mut text = format!("{count} tokens charged to {job}: {} credits{again}", credits(answer.charged));
    if answer.overshoot > Nanocredits::ZERO {
        let overshoot = credits(answer.overshoot);
        text.push_str(&format!("; {overshoot} credits could not be covered and were not charged"));
    }
    format!("{text}; left: {left}\n")
}
