//! Figures of the books for Prometheus, beside what this process counts: read when they are asked for, and written as exact
//! decimals.

use std::fmt::{Display, Write};

use crate::domain::units::{Microseconds, Nanocredits};
use crate::ledger::views::{AccountFigures, Figures};

type Of = fn(&AccountFigures) -> Option<String>;

/// In the text format of OpenMetrics, without its end; figures of accounts where they are wanted.
pub(super) fn text(figures: &Figures, with_accounts: bool) -> String {
    let mut text = String::new();
    let plain: [(&str, &str, &dyn Display); 7] = [
        ("attempts_running", "Attempts with a live lease", &figures.running),
        ("attempts_provisional", "Attempts that fell silent and hold credits", &figures.provisional),
        (
            "provisional_oldest_seconds",
            "How long the oldest of them has been silent, in seconds",
            &Microseconds(figures.provisional_oldest_us),
        ),
        ("accounts_overspent", "Accounts that have charged and hold more than they could spend", &figures.overspent),
        ("debt_credits", "Owed by all accounts together", &figures.debt),
        ("overshoot_credits", "Used by all attempts and charged to nobody", &figures.overshoot),
        ("alerts_unsent", "Alerts that wait for the webhook", &figures.alerts_unsent),
    ];
    for (name, help, value) in plain {
        head(&mut text, name, help);
        // Writing into a string cannot fail.
        let _ = writeln!(text, "jobmeter_{name} {value}");
    }
    let of_accounts: [(&str, &str, Of); 8] = [
        ("account_running", "Attempts of an account with a live lease", |of| Some(of.running.to_string())),
        ("account_burn_credits_per_second", "What an account burns, in credits a second", |of| {
            Some(of.burn_per_second.to_string())
        }),
        ("account_charged_credits", "Charged to an account in its period", |of| Some(of.charged.to_string())),
        ("account_held_credits", "Held by its leases and reservations", |of| Some(of.held.to_string())),
        ("account_provisional_credits", "How much of that for attempts that fell silent", |of| {
            Some(of.provisional.to_string())
        }),
        ("account_debt_credits", "What it owes", |of| Some(of.debt.to_string())),
        ("account_left_credits", "Free and held, less what it owes; none without a limit", |of| {
            of.left.map(|left| left.to_string())
        }),
        ("account_zero_seconds", "When it has nothing left at its present rate, in seconds", seconds_to_zero),
    ];
    let accounts = if with_accounts { figures.accounts.as_slice() } else { &[] };
    for (name, help, of) in of_accounts {
        if !accounts.is_empty() {
            head(&mut text, name, help);
        }
        for account in accounts {
            if let Some(value) = of(account) {
                let _ = writeln!(text, "jobmeter_{name}{{user=\"{}\"}} {value}", escaped(&account.user));
            }
        }
    }
    text
}

fn head(text: &mut String, name: &str, help: &str) {
    let _ = write!(text, "# HELP jobmeter_{name} {help}.\n# TYPE jobmeter_{name} gauge\n");
}

fn seconds_to_zero(of: &AccountFigures) -> Option<String> {
    let (left, rate) = (of.left?.at_least_zero(), of.burn_per_second);
    let us = i128::from(left.0).checked_mul(1_000_000)?.checked_div(i128::from(rate.0))?;
    (rate > Nanocredits::ZERO).then(|| Microseconds(u64::try_from(us).unwrap_or(u64::MAX)).to_string())
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_exact_and_labels_escaped() {
        let account = AccountFigures {
            user: "a\"b\\\n".to_owned(),
            running: 2,
            charged: Nanocredits(1),
            held: Nanocredits(2_500_000_000),
            provisional: Nanocredits::ZERO,
            left: Some(Nanocredits(3)),
            debt: Nanocredits::ZERO,
            burn_per_second: Nanocredits(2),
        };
        let idle = AccountFigures {
            user: "idle".to_owned(),
            left: None,
            debt: Nanocredits::ZERO,
            burn_per_second: Nanocredits::ZERO,
            ..account.clone()
        };
        let figures = Figures { provisional_oldest_us: 1_500_000, accounts: vec![account, idle], ..Figures::default() };
        let text = text(&figures, true);
        for line in [
            "jobmeter_provisional_oldest_seconds 1.500000",
            "jobmeter_account_charged_credits{user=\"a\\\"b\\\\\\n\"} 0.000000001",
            "jobmeter_account_held_credits{user=\"idle\"} 2.500000000",
            "jobmeter_account_zero_seconds{user=\"a\\\"b\\\\\\n\"} 1.500000",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(
            !text.contains("zero_seconds{user=\"idle\"}") && !text.contains("left_credits{user=\"idle\"}"),
            "{text}"
        );
    }
}
