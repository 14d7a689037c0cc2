//! The assistant's backend: reserves tokens and settles them, says each thing until it is answered, and remembers what it
//! has settled. Some turns end without a word.

use std::collections::BTreeMap;

use jobmeter::ledger::views::{Change, ChangeAnswer};
use uuid::Uuid;

use crate::network::Chance;

/// A turn of a chat.
#[derive(Debug)]
enum Turn {
    Reserving,
    Thinking { reservation: Uuid, until_us: u64 },
    Settling { reservation: Uuid },
    Over,
}

#[derive(Debug)]
pub(crate) struct Chat {
    job: String,
    number: u64,
    turn: Turn,
    most: u64,
    used: u64,
    pub next_us: u64,
    /// Tokens that were settled, by turn.
    settled: BTreeMap<u64, u64>,
}

/// What is not answered within this is said again.
const AGAIN_US: u64 = 2_000_000;

impl Chat {
    pub(crate) fn new(job: String, chance: &mut Chance) -> Self {
        let next_us = chance.below(60_000_000);
        Self { job, number: 0, turn: Turn::Over, most: 0, used: 0, next_us, settled: BTreeMap::new() }
    }

    fn key(&self, what: &str) -> String {
        format!("{what} {} of {}", self.number, self.job)
    }

    /// Tokens that it was told are settled.
    pub(crate) fn settled(&self) -> (String, u64) {
        (self.job.clone(), self.settled.values().sum())
    }

    /// Tokens of the turn whose settling may have arrived.
    pub(crate) fn unanswered(&self, job: &str) -> u64 {
        if self.job == job && matches!(self.turn, Turn::Settling { .. }) { self.used } else { 0 }
    }

    /// What it says now.
    pub(crate) fn wake(&mut self, now_us: u64, chance: &mut Chance) -> Option<Change> {
        self.next_us = now_us + AGAIN_US;
        if matches!(self.turn, Turn::Over) {
            self.number += 1;
            self.most = 1 + chance.below(400);
            // Some use more than they had reserved.
            self.used = chance.below(self.most * 11 / 10 + 1);
            self.turn = Turn::Reserving;
        }
        if let Turn::Thinking { reservation, until_us } = self.turn
            && now_us >= until_us
        {
            if chance.percent(10) {
                // It dies, and nobody settles.
                self.turn = Turn::Over;
                return None;
            }
            self.turn = Turn::Settling { reservation };
        }
        let (job, by) = (self.job.as_str().into(), "backend".to_owned());
        match self.turn {
            Turn::Reserving => {
                let (count, new_id) = (self.most, Uuid::from_u128(u128::from(chance.below(u64::MAX)) << 1 | 1));
                let key = self.key("reserve");
                Some(Change::ReserveTokens { job, count, lasts_ms: 5_000, new_id, by, key })
            }
            Turn::Thinking { until_us, .. } => {
                self.next_us = until_us;
                None
            }
            Turn::Settling { reservation } => {
                let (count, key) = (self.used, self.key("settle"));
                Some(Change::SettleTokens { job, reservation, count, by, key })
            }
            Turn::Over => None,
        }
    }

    /// What it is answered, perhaps late or for the second time.
    pub(crate) fn answered(
        &mut self,
        change: &Change,
        answer: Option<&ChangeAnswer>,
        now_us: u64,
        chance: &mut Chance,
    ) {
        match (change, &self.turn) {
            (Change::ReserveTokens { key, .. }, Turn::Reserving) if *key == self.key("reserve") => {
                let until_us = now_us + chance.below(8_000_000);
                self.turn = match answer.and_then(|answer| answer.reserved) {
                    Some(reserved) => Turn::Thinking { reservation: reserved.reservation, until_us },
                    None => Turn::Over,
                };
                self.next_us = until_us.max(now_us + 1);
            }
            (Change::SettleTokens { key, count, .. }, Turn::Settling { .. }) if *key == self.key("settle") => {
                if answer.is_some() {
                    self.settled.insert(self.number, *count);
                }
                self.turn = Turn::Over;
                self.next_us = now_us + chance.below(5_000_000);
            }
            _ => {}
        }
    }
}
