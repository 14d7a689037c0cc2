//! What all sidecars together have seen since it was asked for last.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jobmeter::domain::units::Nanocredits;
use jobmeter::sys::clock::{Clock, SystemClock};
use serde_json::{Value, json};

/// What an account's ended attempts have burned, and what they were told that it cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) burned: i64,
    pub(crate) charged: i64,
    pub(crate) overshoot: i64,
}

#[derive(Debug, Default)]
struct Counts {
    began_us: u64,
    /// When each answer came, and how long it took.
    answers: Vec<(u64, u32)>,
    unanswered: BTreeMap<String, u64>,
    frozen: u64,
    /// Why attempts ended.
    ended: BTreeMap<String, u64>,
    /// How long after an operator's stop its sidecar knew, in ms.
    stops: Vec<u32>,
    opened: u64,
    running: u64,
    settled: u64,
    accounts: BTreeMap<String, Sums>,
}

#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counts>);

fn share(sorted: &[u32], percent: usize) -> f64 {
    let at = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(at).map_or(0.0, |us| f64::from(*us) / 1_000.0)
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn opened(&self) {
        let mut counts = self.counts();
        counts.opened += 1;
        counts.running += 1;
    }

    pub(crate) fn answered(&self, took_us: u64) {
        let now_us = SystemClock.boottime_us();
        self.counts().answers.push((now_us, u32::try_from(took_us).unwrap_or(u32::MAX)));
    }

    pub(crate) fn unanswered(&self, why: &str) {
        // Texts with ids in them would be a line each.
        let why: String = why.chars().take(60).collect();
        *self.counts().unanswered.entry(why).or_default() += 1;
    }

    pub(crate) fn frozen(&self) {
        self.counts().frozen += 1;
    }

    pub(crate) fn stop_told(&self, took_us: u64) {
        self.counts().stops.push(u32::try_from(took_us).unwrap_or(u32::MAX));
    }

    pub(crate) fn stops_told(&self) -> usize {
        self.counts().stops.len()
    }

    pub(crate) fn ended(&self, why: &str) {
        let mut counts = self.counts();
        counts.running -= 1;
        *counts.ended.entry(why.to_owned()).or_default() += 1;
    }

    pub(crate) fn settled(&self, account: &str, burned: Nanocredits, charged: Nanocredits, overshoot: Nanocredits) {
        let mut counts = self.counts();
        counts.settled += 1;
        let sums = counts.accounts.entry(account.to_owned()).or_default();
        sums.burned += burned.0;
        sums.charged += charged.0;
        sums.overshoot += overshoot.0;
    }

    /// Whether all that were opened have said their last word.
    pub(crate) fn is_settled(&self) -> bool {
        let counts = self.counts();
        counts.running == 0 && counts.settled == counts.opened
    }

    pub(crate) fn opened_in_all(&self) -> u64 {
        self.counts().opened
    }

    /// Of each account, what its ended attempts have burned and were charged, in nanocredits.
    pub(crate) fn sums(&self) -> Value {
        let sums = self.counts().accounts.clone().into_iter();
        let told = |sums: Sums| json!({ "burned": sums.burned, "charged": sums.charged, "overshoot": sums.overshoot });
        sums.map(|(account, sums)| (account, told(sums))).collect::<serde_json::Map<_, _>>().into()
    }

    /// What has happened since this was called last.
    pub(crate) fn take(&self) -> Value {
        let mut counts = self.counts();
        let now_us = SystemClock.boottime_us();
        let began_us = std::mem::replace(&mut counts.began_us, now_us);
        let answers = std::mem::take(&mut counts.answers);
        let mut seconds = BTreeMap::<u64, Vec<u32>>::new();
        for (at_us, took_us) in &answers {
            seconds.entry(at_us.saturating_sub(began_us) / 1_000_000).or_default().push(*took_us);
        }
        let each_second = seconds.into_iter().map(|(second, mut took)| {
            took.sort_unstable();
            json!([second, took.len(), share(&took, 99)])
        });
        let mut took: Vec<u32> = answers.into_iter().map(|(_, took_us)| took_us).collect();
        took.sort_unstable();
        let mut stops = std::mem::take(&mut counts.stops);
        stops.sort_unstable();
        json!({
            "seconds": (now_us - began_us) as f64 / 1e6,
            "reports": took.len(),
            "p50_ms": share(&took, 50), "p99_ms": share(&took, 99), "most_ms": share(&took, 100),
            "each_second": each_second.collect::<Vec<_>>(),
            "unanswered": std::mem::take(&mut counts.unanswered),
            "frozen": std::mem::take(&mut counts.frozen),
            "ended": std::mem::take(&mut counts.ended),
            "running": counts.running,
            "stops": stops.len(), "stop_p50_ms": share(&stops, 50), "stop_most_ms": share(&stops, 100),
        })
    }
}
