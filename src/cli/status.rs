//! `jobmeter status`: what is left, at a glance.

use std::process::ExitCode;
use std::time::Duration;

use super::args::Status;
use super::chart::{bar, duration};
use super::output::{Failure, Output, Style, cleaned};
use super::settings::Settings;
use crate::domain::units::Nanocredits;
use crate::ledger::Ledger;
use crate::ledger::views::{AccountView, PeriodLength, Query, Standing};
use crate::runner::summary::credits;
use crate::sys::clock::{Clock, SystemClock, pause};

/// While it waits, the account is read this often.
const LOOK: Duration = Duration::from_secs(1);
/// EX_TEMPFAIL.
const TIMED_OUT: u8 = 75;

pub(super) fn status(status: &Status, settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    let mut ledger = settings.connect_to_read()?;
    let started_us = SystemClock.boottime_us();
    loop {
        let account = account_of(ledger.as_mut(), &settings.user)?;
        let enough = |wanted: Nanocredits| account.available.is_none_or(|free| free >= wanted) && !account.suspended;
        if status.wait_for.is_none_or(enough) {
            return out.print(&account, |style| if status.short { short(&account) } else { text(&account, style) });
        }
        let waited = Duration::from_micros(SystemClock.boottime_us().saturating_sub(started_us));
        if status.timeout.is_some_and(|timeout| waited >= timeout.0) {
            out.print(&account, |style| text(&account, style))?;
            return Ok(ExitCode::from(TIMED_OUT));
        }
        let rest = status.timeout.map_or(LOOK, |timeout| timeout.0.saturating_sub(waited));
        pause(LOOK.min(rest).min(Duration::from_millis(account.resets_in_ms.saturating_add(1))));
    }
}

pub(super) fn account_of(ledger: &mut dyn Ledger, user: &str) -> Result<AccountView, Failure> {
    Ok(ledger.read(&Query::Account { user: user.to_owned() })?.account()?)
}

/// What is left of what could be spent; without a limit, what was charged. What burns is marked.
pub(super) fn short(account: &AccountView) -> String {
    let burning = if account.running > 0 { "↓" } else { "" };
    match account.left.zip(account.limit) {
        Some((left, limit)) => format!("{}/{}{burning}\n", credits(left), credits(limit)),
        None => format!("{}{burning}\n", credits(account.current)),
    }
}

pub(super) fn text(account: &AccountView, style: &Style) -> String {
    let account = cleaned(account);
    let period = match account.period {
        PeriodLength::Day => "today",
        PeriodLength::Month => "this month",
    };
    let reset = duration(account.resets_in_ms / 1_000);
    let user = style.bold(&account.user);
    let mut text = match (account.left, account.limit) {
        (Some(left), Some(limit)) => {
            let number = credits(left);
            let number = if left <= Nanocredits::ZERO { style.bad(&number) } else { style.good(&number) };
            let limit = credits(limit);
            format!("{user}  {number} of {limit} credits left {period}, resets in {reset}\n{}", parts(&account, style))
        }
        _ => format!("{user}  no limit; {} credits charged {period}, resets in {reset}\n", credits(account.current)),
    };
    text.push_str(&notes(&account, style));
    if account.running > 0 {
        let jobs =
            if account.running == 1 { "1 task runs".to_owned() } else { format!("{} tasks run", account.running) };
        text.push_str(&format!("{jobs}, burning {} credits per second", credits(account.burn_per_second)));
        if let (Some(at), Some(left)) = (&account.exhausted_at, account.left) {
            let lasts = left.at_least_zero().0.checked_div(account.burn_per_second.0).unwrap_or(0);
            text.push_str(&format!(": zero in {} ({at})", duration(u64::try_from(lasts).unwrap_or(0))));
        }
        text.push('\n');
    }
    text
}

/// The bar, and what its parts are.
fn parts(account: &AccountView, style: &Style) -> String {
    let free = account.available.unwrap_or_default();
    let leased = Nanocredits(account.held.0.saturating_sub(account.provisional.0)).at_least_zero();
    let shown = [(charged(account), '█'), (leased, '▓'), (account.provisional, '▒'), (free, '░')];
    let mut text = format!("{}\n", bar(&shown, style.width.min(80)));
    text.push_str(&format!("█ charged {}  ▓ held {}", credits(charged(account)), credits(leased)));
    if account.provisional > Nanocredits::ZERO {
        text.push_str(&style.warning(&format!("  ▒ provisional {}", credits(account.provisional))));
    }
    text.push_str(&format!("  ░ free {}", credits(free)));
    let grants = account.grants.iter().fold(0_i128, |sum, grant| sum + i128::from(grant.left.0));
    if let Some(grants) = i64::try_from(grants).ok().filter(|grants| *grants > 0) {
        text.push_str(&format!("  (grants {})", credits(Nanocredits(grants))));
    }
    if account.corrected < Nanocredits::ZERO {
        text.push_str(&format!("  corrected {}", credits(account.corrected)));
    }
    text.push('\n');
    text
}

/// A service of before says it by `current` alone.
fn charged(account: &AccountView) -> Nanocredits {
    if account.charged == Nanocredits::ZERO && account.corrected == Nanocredits::ZERO {
        account.current.at_least_zero()
    } else {
        account.charged
    }
}

/// What stands in the way, and what is to come: a line each.
fn notes(account: &AccountView, style: &Style) -> String {
    let mut lines = Vec::new();
    match account.standing {
        Standing::Known => {}
        Standing::Unknown => lines.push("no such account yet: the first job makes it, with this limit".to_owned()),
        Standing::NotAdmitted => {
            lines.push(style.bad("no such account, and jobs of known users alone run here: an administrator adds it"));
        }
    }
    if account.suspended {
        lines.push(style.bad("suspended by an operator: nothing starts, and what runs stops"));
    }
    if account.debt > Nanocredits::ZERO {
        let debt = credits(account.debt);
        lines.push(style.warning(&format!("{debt} credits are owed: what becomes free next pays them")));
    }
    if let Some(pending) = &account.pending {
        let limit = pending.limit.map_or_else(|| "no limit".to_owned(), credits);
        let since = pending.since.split('T').next().unwrap_or_default();
        lines.push(format!("from {since} on: {limit} a {}", pending.period.as_str()));
    }
    if account.carries_over {
        lines.push("what a period leaves is carried over".to_owned());
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
