//! What operators do to accounts meanwhile: limits, grants, corrections, suspensions; and a clock that is years ahead for a moment.

use std::sync::atomic::Ordering;

use jobmeter::domain::units::Nanocredits;
use jobmeter::ledger::views::{Change, LimitSince, PeriodLength};
use jobmeter::ledger::{Ledger, LedgerError};
use jobmeter::sys::clock::Clock;

use crate::world::{USERS, World, set_lease, user};

/// Ten years, in µs.
const AHEAD_US: i64 = 3_650 * 86_400_000_000;

impl World {
    /// Whether the ledger's clock is years ahead just now.
    pub(crate) fn is_ahead(&self) -> bool {
        self.ahead_until_us > 0
    }

    pub(crate) fn jump_ahead(&mut self) {
        if self.is_ahead() && self.now_us >= self.ahead_until_us {
            self.wall.0.fetch_sub(AHEAD_US, Ordering::Relaxed);
            self.ahead_until_us = 0;
        } else if !self.is_ahead() && self.chance.below(3_000) == 0 {
            self.wall.0.fetch_add(AHEAD_US, Ordering::Relaxed);
            self.ahead_until_us = self.now_us + 1 + self.chance.below(5_000_000);
        }
    }

    /// An operator does something, as a rule what makes sense.
    pub(crate) fn operate(&mut self) {
        if self.chance.below(200) > 0 {
            return;
        }
        if self.chance.percent(10) {
            let lease_ms = 5_000 + self.chance.below(100_000);
            return set_lease(&mut self.ledger, lease_ms);
        }
        let change = self.any_change();
        match self.ledger.change(&change) {
            Ok(_) | Err(LedgerError::Refused(_) | LedgerError::Missing(_)) => {}
            Err(error) => panic!("seed {}: {change:?} is answered by {error}", self.seed),
        }
    }

    fn amount(&mut self, most: u64) -> Nanocredits {
        Nanocredits(1 + i64::try_from(self.chance.below(most)).unwrap())
    }

    fn any_change(&mut self) -> Change {
        let (by, why) = ("sim".to_owned(), String::new());
        let user = user(self.chance.below(USERS as u64) as usize);
        self.changes += 1;
        let key = format!("change {}", self.changes);
        let now_s = self.wall.realtime_us().div_euclid(1_000_000);
        let lasts_s = 1 + self.chance.below(200) as i64;
        match self.chance.below(8) {
            0 | 1 => {
                let expires_at = self.chance.percent(50).then_some(now_s + lasts_s);
                Change::Grant { user, amount: self.amount(10_000_000), expires_at, by, why, key }
            }
            2 => {
                let grant = i64::try_from(1 + self.chance.below(5)).unwrap();
                Change::RevokeGrant { user, grant, by, why }
            }
            3 | 4 => {
                let gives = self.chance.percent(30);
                let Nanocredits(amount) = self.amount(10_000_000);
                let amount = Nanocredits(if gives { amount } else { -amount });
                Change::Adjust { user, amount, grant: None, expires_at: None, by, why, key }
            }
            5 => Change::Suspend { user, by, why },
            6 => Change::Resume { user, by, why },
            _ => {
                let since = [None, Some(LimitSince::Now), Some(LimitSince::NextPeriod)][self.chance.below(3) as usize];
                let limit = (!self.chance.percent(5)).then(|| self.amount(60_000_000));
                let carry_over = [None, Some(true), Some(false)][self.chance.below(3) as usize];
                Change::SetLimit { user, limit, period: PeriodLength::Day, since, carry_over, by, why }
            }
        }
    }
}
