//! `jobmeter ledger`: audit, settling and copies.

use std::path::Path;
use std::process::ExitCode;

use super::args::Ledger;
use super::output::{Failure, Output};
use super::settings::Settings;
use super::spool::unreadable;
use super::values::Span;
use crate::domain::printable::printable;
use crate::domain::usage::Usage;
use crate::ledger::LedgerError;
use crate::ledger::location::Location;
use crate::ledger::store::sqlite::{Restoring, backup, restore};
use crate::ledger::views::{Change, Query, View};
use crate::runner::leftovers;
use crate::runner::summary::credits;
use crate::sys::clock::SystemClock;

pub(super) fn ledger(ledger: Ledger, settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    match ledger {
        Ledger::Verify => verify(settings, out),
        Ledger::Show => super::ledger_settings::show(settings, out),
        Ledger::Set(set) => super::ledger_settings::set(&set, settings, out),
        Ledger::Settle { attempt, cpu_seconds, why } => {
            let usage = cpu_seconds.map(|cpu| Usage { cpu_used_seconds: cpu, ..Usage::default() });
            let change = Change::Settle { attempt, usage, by: settings.by.clone(), why };
            let answer = settings.connect_existing()?.change(&change)?;
            out.print(&answer, |_| {
                format!("attempt {attempt} is settled: {} credits charged\n", credits(answer.charged))
            })
        }
        Ledger::TrustClock { why } => {
            settings.ledger.trust_clock(&settings.by, &why)?;
            out.print(&serde_json::json!({ "trusted": true }), |_| {
                format!("{}: its clock is believed from now on\n", settings.ledger)
            })
        }
        Ledger::Backup { to } => {
            backup(settings.ledger.file()?, &to)?;
            out.print(&serde_json::json!({ "backup": to }), |_| {
                format!("{} copied to {}\n", settings.ledger, to.display())
            })
        }
        Ledger::Restore { from, lease, incomplete, why } => {
            put_back(from.as_deref(), lease, incomplete, &why, settings, out)
        }
    }
}

fn put_back(
    from: Option<&Path>,
    lease: Option<Span>,
    takes_incomplete: bool,
    why: &str,
    settings: &Settings,
    out: &Output,
) -> Result<ExitCode, Failure> {
    let before = match from {
        Some(from) => {
            let (how, for_the_books) = (Restoring { takes_incomplete }, (settings.by.as_str(), why));
            restore(settings.ledger.file()?, from, how, for_the_books, Box::new(SystemClock))?
        }
        None => {
            settings.ledger.restored(lease.map_or(0, Span::ms), &settings.by, why)?;
            None
        }
    };
    let again = leftovers::resend(&settings.spool_dir, &settings.ledger, Location::connect).map_err(unreadable)?;
    let (sent, kept) = (again.settled.len(), again.kept.len());
    out.print(&serde_json::json!({ "restored": from, "before": before, "sentAgain": again }), |style| {
        let what = from.map_or_else(
            || "knows that it was put back".to_owned(),
            |from| format!("now holds what {} held", from.display()),
        );
        let mut text = format!("{} {what}\n", settings.ledger);
        if let Some(before) = &before {
            text.push_str(&format!("what it held before is kept in {}\n", before.display()));
        }
        text.push_str(&format!("{sent} ended attempts sent again from {}", settings.spool_dir.display()));
        if kept > 0 {
            text.push_str(&style.warning(&format!(", {kept} not taken")));
        }
        text.push('\n');
        text
    })
}

fn verify(settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    let found = match settings.connect_existing()?.read(&Query::Verify)? {
        View::Verified(found) => found,
        _ => return Err(LedgerError::unasked().into()),
    };
    let wrong = found.problems.len();
    out.print(&found, |style| {
        let mut text = format!("{} entries, {} accounts, {} attempts: ", found.entries, found.accounts, found.attempts);
        text.push_str(&if wrong == 0 {
            style.good("the books are right")
        } else {
            style.bad(&format!("{wrong} problems"))
        });
        text.push('\n');
        for problem in &found.problems {
            text.push_str(&format!("  {}\n", printable(problem)));
        }
        text
    })?;
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
