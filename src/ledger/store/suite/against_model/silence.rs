//! How long attempts may be silent, and what becomes of those that stay so.

use super::super::{Change, DAY_S, Ledger, Query, View};
use super::Play;
use crate::ledger::settings::LedgerSettings;

impl Play<'_> {
    pub(super) fn set_lease(&mut self, lease_ms: u64) {
        let View::Settings(before) = self.world.ledger.read(&Query::Settings).unwrap() else { panic!() };
        let settings = LedgerSettings { lease_ms, ..before.settings };
        self.change(Change::SetSettings { settings, by: "t".into() }).unwrap();
        self.lease_us = i64::try_from(lease_ms).unwrap() * 1_000;
    }

    /// A day after its period; without a limit a week.
    pub(super) fn post_silent(&mut self) {
        let now_us = self.now_us();
        let days = if self.model.snapshot().limit.is_some() { 2 } else { 8 };
        // The books go through them by their ids.
        self.runs.sort_by_key(|run| run.number);
        for run in &mut self.runs {
            let is_over = run.until_us < now_us && now_us / 1_000_000 >= run.period + days * DAY_S;
            if is_over && !run.is_posted {
                let (held, owed) = (run.held(), i128::from(run.burned) - run.charged);
                run.charged += self.model.charge(run.number, held.max(owed), 0);
                self.model.release(run.number, run.period, held);
                if let Some((next, amount)) = run.next.take() {
                    self.model.release(run.number, next, amount);
                }
                run.is_posted = true;
            }
        }
    }
}
