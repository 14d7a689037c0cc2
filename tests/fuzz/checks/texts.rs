//! What people, jobs and the kernel say in words: amounts, times, keys, locations, days, questions by the socket, /proc.

use jobmeter::domain::units::{Microseconds, Nanocredits};
use jobmeter::ledger::keys::Secret;
use jobmeter::ledger::location::Location;
use jobmeter::ledger::usage_range::UsageRange;
use jobmeter::runner::ask::Ask;
use jobmeter::sys::tree::Stat;

pub fn check(text: &str) {
    if let Ok(amount) = text.parse::<Nanocredits>() {
        assert_eq!(amount.to_string().parse(), Ok(amount));
    }
    if let Ok(time) = text.parse::<Microseconds>() {
        assert_eq!(time.to_string().parse(), Ok(time));
    }
    if let Ok(secret) = text.parse::<Secret>() {
        assert!(!format!("{secret:?}").contains(secret.text()));
    }
    // What it says of itself holds no password.
    if let Some((_, rest)) = text.split_once("postgres://:secret@") {
        let shown = format!("postgres://:secret@{rest}")
            .parse::<Location>()
            .map(|location| location.to_string())
            .unwrap_or_default();
        assert!(rest.contains("secret") || !shown.contains("secret"));
    }
    let _ = text.parse::<Ask>();
    let _ = UsageRange::new(Some(text), None, None, None);
    let _ = UsageRange::new(None, Some(text), Some(text), None);
    let _ = Stat::parse(text);
}
