//! Chance, and messages on their way.

use std::collections::BTreeMap;

use jobmeter::ledger::protocol::{Finish, OpenAnswer, OpenRequest, Report, ReportAnswer};
use jobmeter::ledger::views::{Change, ChangeAnswer};

/// SplitMix64: the same seed is the same world on every machine.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Open(OpenRequest),
    Report(Report),
    Finish(Finish),
    Change(Change),
    Opened(OpenAnswer),
    Answered(ReportAnswer),
    Finished,
    /// What was asked; `None` where it was refused.
    Changed(Box<(Change, Option<ChangeAnswer>)>),
}

/// One message; `sent_us` of a question comes back with its answer. `attempt` is the sidecar's or the chat's number.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub attempt: usize,
    pub sent_us: u64,
    pub message: Message,
}

/// What is on its way, by the time of its arrival.
#[derive(Debug, Default)]
pub(crate) struct Network {
    flying: BTreeMap<(u64, u64), Packet>,
    count: u64,
    pub lost: u64,
    pub repeated: u64,
}

impl Network {
    pub(crate) fn send(&mut self, chance: &mut Chance, now_us: u64, packet: Packet) {
        if chance.percent(10) {
            self.lost += 1;
            return;
        }
        let copies = if chance.percent(30) { 2 } else { 1 };
        self.repeated += copies - 1;
        for _ in 0..copies {
            let delay_us = match chance.below(100) {
                0..=84 => 200 + chance.below(5_000),
                85..=96 => 10_000 + chance.below(1_000_000),
                _ => 1_000_000 + chance.below(44_000_000),
            };
            self.count += 1;
            self.flying.insert((now_us + delay_us, self.count), packet.clone());
        }
    }

    pub(crate) fn next_at_us(&self) -> Option<u64> {
        self.flying.keys().next().map(|(at_us, _)| *at_us)
    }

    pub(crate) fn arrived(&mut self, now_us: u64) -> Option<Packet> {
        let first = self.flying.first_entry()?;
        (first.key().0 <= now_us).then(|| first.remove())
    }
}
