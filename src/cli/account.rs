//! `jobmeter account`: limits, grants and corrections.

use std::process::ExitCode;

use uuid::Uuid;

use super::args::{Account, Reasoned};
use super::output::{Failure, Output, Style, cleaned};
use super::settings::Settings;
use super::status::{account_of, text};
use crate::ledger::views::{AccountView, Change, ENTRIES_MAX, EntryView, Query, View};
use crate::ledger::{Ledger, LedgerError};
use crate::runner::summary::credits;

pub(super) fn account(account: Account, settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    let (user, by) = (settings.user.clone(), settings.by.clone());
    let change = match account {
        Account::Show { entries } => return show(entries, settings, out),
        Account::Limit { limit, period, since, carry_over, why } => {
            let carry_over = carry_over.map(|carried| carried == super::values::Whether::Yes);
            Change::SetLimit { user, limit: limit.0, period, since: since.map(Into::into), carry_over, by, why }
        }
        Account::Suspend { why } => Change::Suspend { user, by, why },
        Account::Repair { why } => Change::RepairPeriod { user, by, why },
        Account::Resume { why } => Change::Resume { user, by, why },
        Account::Revoke { grant, why } => Change::RevokeGrant { user, grant, by, why },
        Account::Grant { credits, expires_in, reason } => {
            let expires_at = expires_in.map(super::values::Span::after_now_s);
            let Reasoned { why, key } = keyed(reason);
            Change::Grant { user, amount: credits, expires_at, by, why, key: key.unwrap_or_default() }
        }
        Account::Adjust { credits, grant, expires_in, reason } => {
            let expires_at = expires_in.map(super::values::Span::after_now_s);
            let Reasoned { why, key } = keyed(reason);
            Change::Adjust { user, amount: credits, grant, expires_at, by, why, key: key.unwrap_or_default() }
        }
    };
    let mut ledger = settings.connect()?;
    let answer = ledger.change(&change)?;
    let account = account_of(ledger.as_mut(), &settings.user)?;
    out.print(&answer, |style| {
        let again = if answer.again { "nothing changed: this key was posted before\n" } else { "" };
        format!("{again}{}", text(&account, style))
    })
}

fn keyed(reason: Reasoned) -> Reasoned {
    Reasoned { key: reason.key.or_else(|| Some(Uuid::now_v7().to_string())), ..reason }
}

fn show(entries: u32, settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    let mut ledger = settings.connect_to_read()?;
    let account = account_of(ledger.as_mut(), &settings.user)?;
    let listed = newest_entries(ledger.as_mut(), &settings.user, entries)?;
    let both = serde_json::json!({ "account": account, "entries": listed });
    out.print(&both, |style| show_text(&account, &listed, style))
}

/// So many of them, or all that there are; a service tells them page by page.
fn newest_entries(ledger: &mut dyn Ledger, user: &str, count: u32) -> Result<Vec<EntryView>, LedgerError> {
    let (mut listed, mut missing) = (Vec::<EntryView>::new(), count);
    loop {
        let (count_max, before) = (missing.min(ENTRIES_MAX), listed.last().map(|entry| entry.id));
        let View::Entries(page) = ledger.read(&Query::Entries { user: user.to_owned(), count_max, before })? else {
            return Err(LedgerError::unasked());
        };
        let found = u32::try_from(page.len()).unwrap_or(u32::MAX);
        listed.extend(page);
        missing = match missing.checked_sub(found) {
            // A service of before knows no second page, and is asked for none where this was all.
            None | Some(0) => return Ok(listed),
            _ if found < count_max => return Ok(listed),
            Some(missing) => missing,
        };
    }
}

fn show_text(account: &AccountView, entries: &[EntryView], style: &Style) -> String {
    let mut shown = text(account, style);
    for grant in cleaned(account).grants {
        let until = grant.expires_at.as_ref().map_or("no expiry".to_owned(), |at| format!("until {at}"));
        shown.push_str(&format!(
            "grant {}: {} of {} left, {until}: {}\n",
            grant.id,
            credits(grant.left),
            credits(grant.amount),
            grant.why
        ));
    }
    if entries.is_empty() {
        return shown;
    }
    let row = |entry: &EntryView| {
        let at = entry.at.split_once('.').map_or(entry.at.as_str(), |(whole, _)| whole);
        vec![
            entry.id.to_string(),
            at.to_owned(),
            entry.kind.clone(),
            entry.amount.to_string(),
            entry.job.clone().unwrap_or_default(),
            entry.by.clone(),
            entry.why.clone(),
        ]
    };
    shown.push('\n');
    let rows: Vec<_> = entries.iter().map(row).collect();
    shown.push_str(&style.table(&["ENTRY", "AT", "KIND", "CREDITS", "JOB", "BY", "WHY"], &rows));
    shown
}
