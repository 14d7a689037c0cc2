//! `jobmeter ledger show` and `jobmeter ledger set`: what holds for the ledger as a whole.

use std::process::ExitCode;

use super::args::LedgerSet;
use super::output::{Failure, Output};
use super::settings::Settings;
use super::values::{Span, Whether};
use crate::domain::printable::printable;
use crate::domain::units::{Microseconds, Nanocredits};
use crate::ledger::settings::LedgerSettings;
use crate::ledger::views::{Change, Query, SettingsView};
use crate::ledger::{Ledger, LedgerError};
use crate::runner::summary::credits;

pub(super) fn show(settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    let view = view_of(settings.connect_to_read()?.as_mut())?;
    out.print(&view, |_| text(&view))
}

pub(super) fn set(set: &LedgerSet, settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    let mut ledger = settings.connect()?;
    let before = view_of(ledger.as_mut())?.settings;
    let changed = changed(before, set);
    changed.check().map_err(LedgerError::from)?;
    ledger.change(&Change::SetSettings { settings: changed, by: settings.by.clone() })?;
    let view = view_of(ledger.as_mut())?;
    out.print(&view, |_| text(&view))
}

fn view_of(ledger: &mut dyn Ledger) -> Result<SettingsView, Failure> {
    Ok(ledger.read(&Query::Settings)?.settings()?)
}

/// What was not named stays as it is.
fn changed(before: LedgerSettings, set: &LedgerSet) -> LedgerSettings {
    LedgerSettings {
        version: before.version,
        lease_ms: set.lease.map_or(before.lease_ms, Span::ms),
        day_limit: set.day_limit.map_or(before.day_limit, |limit| limit.0),
        month_limit: set.month_limit.map_or(before.month_limit, |limit| limit.0),
        period: set.period.unwrap_or(before.period),
        unknown_users: set.unknown_users.map_or(before.unknown_users, |whether| whether == Whether::Yes),
    }
}

fn text(view: &SettingsView) -> String {
    let SettingsView { settings, since, by } = view;
    let told = |limit: Option<Nanocredits>| limit.map_or_else(|| "no limit".to_owned(), credits);
    let lease = Microseconds(settings.lease_ms.saturating_mul(1_000)).to_string();
    let lease = lease.trim_end_matches('0').trim_end_matches('.');
    let mut text = format!("lease: {lease} s\n");
    text.push_str(&format!("limit of a new account: {} a {}", told(settings.limit()), settings.period.as_str()));
    text.push_str(&format!(" (a day: {}, a month: {})\n", told(settings.day_limit), told(settings.month_limit)));
    let runs = if settings.unknown_users { "may run jobs" } else { "may not run jobs" };
    text.push_str(&format!("users without an account: {runs}\n"));
    match since {
        Some(since) => text.push_str(&format!("version {}, since {since}, by {}\n", settings.version, printable(by))),
        None => text.push_str("as every ledger begins\n"),
    }
    text
}
