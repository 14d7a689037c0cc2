//! The life of one attempt: a pure state machine.
//!
//! ```text
//!            ceiling − guard reached, or lease over
//!   Running ───────────────────────────────────────▶ Held (frozen, asking)
//!      │  ◀─────────────────────────────────────────   │
//!      │            a newer lease                      │ ledger: stop, or the hold is over
//!      │ command exited, operator, front lost          ▼
//!      └─────────────────────────────────────────▶  Ending(reason)
//! ```
//!
//! Running: the ceiling is not reached at the last look, and cannot be before the next. Held: nothing burns; only a
//! newer lease lets it run. Ending: no way back. The keeper feeds events in the order in which they happened and
//! performs the actions in the order in which they are given.
//!
//! Architecture Invariant: no time is read here. `now_us` is `CLOCK_BOOTTIME` in µs.

mod burning;
mod notice;
mod retries;
mod words;

pub use self::words::{AccountState, Action, End, Event, Grant, NextGrant, ReportDue, Rules, Verdict};
use super::deadline::Bounds;
use super::lease::QUESTION_LOOK_US;
use super::units::Nanocredits;
use super::usage::Usage;

/// The shortest time between two looks.
pub const LOOK_FLOOR_US: u64 = 1_000;
/// A held job that has to wait asks again after this, then after twice that, and so on.
const WAIT_FIRST_US: u64 = 250_000;
/// But no later than this.
const WAIT_MAX_US: u64 = 1_000_000;
/// One whose question the ledger kept waiting asks again within this.
const WAIT_AGAIN_MAX_US: u64 = 20_000;

/// Retries of a failed report start here and double.
const RETRY_FIRST_US: u64 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Held { until_us: u64, ledger_said_wait: bool },
    Ending,
}

/// One attempt.
#[derive(Debug)]
pub struct Job {
    rules: Rules,
    state: State,
    grant: Grant,
    usage: Usage,
    price: Nanocredits,
    bounds: Bounds,
    seq: u64,
    outstanding: Option<u64>,
    waiting: bool,
    report_at_us: u64,
    retry_us: u64,
    wait_us: u64,
    looked_at_us: u64,
    slice: Nanocredits,
    /// At which ceiling more was asked for, and what had to be left then.
    asked_for: Option<(Nanocredits, Nanocredits)>,
    closed: Option<(i64, Usage)>,
    closed_seq: u64,
    account: AccountState,
    /// What the job had burned when that was said.
    price_at_account: Nanocredits,
    noticed: bool,
}

impl Job {
    /// An attempt with its first lease.
    #[must_use]
    pub fn new(rules: Rules, grant: Grant, bounds: Bounds, account: AccountState, now_us: u64) -> Self {
        Self {
            rules,
            state: State::Running,
            grant,
            usage: Usage::default(),
            price: Nanocredits::ZERO,
            bounds,
            seq: 0,
            outstanding: None,
            waiting: false,
            report_at_us: grant.report_at_us,
            retry_us: RETRY_FIRST_US,
            wait_us: WAIT_FIRST_US,
            looked_at_us: now_us,
            slice: grant.ceiling,
            asked_for: None,
            closed: None,
            closed_seq: 0,
            account,
            price_at_account: Nanocredits::ZERO,
            noticed: false,
        }
    }

    /// What never changes.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Usage at the last look.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Which period pays now, and what an earlier one still has to be told.
    #[must_use]
    pub fn period(&self) -> (i64, Option<&(i64, Usage)>) {
        (self.grant.period, self.closed.as_ref())
    }

    /// The account as of the last answer.
    #[must_use]
    pub fn account(&self) -> AccountState {
        self.account
    }

    /// The lease in force.
    #[must_use]
    pub fn grant(&self) -> Grant {
        self.grant
    }

    /// Whether it is frozen.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self.state, State::Held { .. })
    }

    /// By which it decides: what it declares to the ledger.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// How much may still be burned as of the last look.
    #[must_use]
    pub fn left(&self) -> Nanocredits {
        self.grant.ceiling.saturating_sub(self.price)
    }

    /// Whether nothing more can be had: what is left is burned to the end.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.grant.last.is_some()
    }

    /// Takes new figures of how fast it can burn and how long it takes to stop.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// The final reading, after everything stands still.
    pub fn settle(&mut self, usage: &Usage) {
        self.usage = self.usage.merged(usage);
        self.price = self.rules.rates.price(&self.usage).total;
        self.state = State::Ending;
    }

    /// One step. `usage` is a reading not older than `now_us`.
    #[must_use]
    pub fn step(&mut self, now_us: u64, usage: &Usage, event: Event) -> Vec<Action> {
        if self.state == State::Ending {
            return Vec::new();
        }
        self.usage = self.usage.merged(usage);
        self.price = self.rules.rates.price(&self.usage).total;
        self.looked_at_us = now_us;
        self.cross_period(now_us);
        match event {
            Event::Looked => {}
            Event::Exited => return self.end(End::Exited),
            Event::MeterLost => return self.end(End::MeterLost),
            Event::OperatorStop => return self.end(End::OperatorStop),
            Event::LedgerSilent { seq } => self.retry_later(now_us, seq),
            Event::Answered { seq, verdict, account } => {
                self.take_account(account);
                let was_waiting = self.outstanding == Some(seq) && self.waiting;
                if let Some(end) = self.take_verdict(now_us, seq, verdict) {
                    return self.end(end);
                }
                self.ask_again_if_held(now_us, was_waiting, verdict);
                self.cross_period(now_us);
            }
        }
        self.decide(now_us)
    }

    /// When the next look is due: counted from the last one, since what was burned after it is not known.
    #[must_use]
    pub fn look_at_us(&self) -> u64 {
        let now_us = self.looked_at_us;
        let at_latest = now_us.saturating_add(self.rules.interval_us);
        match self.state {
            State::Ending => at_latest,
            State::Held { until_us, .. } => self.wake_at_us(until_us).min(at_latest),
            State::Running => {
                let left = self.left().saturating_sub(self.guard());
                let by_ceiling = now_us.saturating_add(self.earliest_us(left.at_least_zero()));
                let by_ceiling = if self.grant.unbounded { at_latest } else { by_ceiling };
                let by_lease = match self.grant.next {
                    Some(next) => next.starts_us,
                    None if self.grant.unbounded => at_latest,
                    None => self.grant.ends_us.saturating_sub(self.bounds.stop_us),
                };
                let due = by_ceiling
                    .min(self.question_at_us().unwrap_or(at_latest))
                    .min(self.last_call_at_us().unwrap_or(at_latest))
                    .min(by_lease)
                    .min(self.wake_at_us(at_latest));
                due.max(now_us.saturating_add(LOOK_FLOOR_US)).min(at_latest)
            }
        }
    }

    /// When more may have to be asked for by a job that cannot be frozen meanwhile.
    fn question_at_us(&self) -> Option<u64> {
        let asks_at = self.asks_at().filter(|_| !self.rules.can_hold && self.outstanding.is_none())?;
        let earliest_us = self.earliest_us(self.left().saturating_sub(asks_at).at_least_zero());
        Some(self.looked_at_us.saturating_add(earliest_us.max(QUESTION_LOOK_US)))
    }

    /// A report may be due before `limit_us`; with one outstanding there is nothing to wake for.
    fn wake_at_us(&self, limit_us: u64) -> u64 {
        if self.outstanding.is_some() { limit_us } else { limit_us.min(self.report_at_us) }
    }

    fn end(&mut self, end: End) -> Vec<Action> {
        self.state = State::Ending;
        vec![Action::End(end)]
    }

    /// At the end of a period the next one begins to pay, from this reading on.
    fn cross_period(&mut self, now_us: u64) {
        let Some(next) = self.grant.next.filter(|next| now_us >= next.starts_us) else { return };
        self.closed = Some((self.grant.period, self.usage.clone()));
        self.closed_seq = self.seq.saturating_add(1);
        self.grant.period = next.period;
        self.grant.ceiling = self.price.saturating_add(next.amount);
        self.grant.ends_us = next.ends_us;
        self.grant.next = None;
        self.grant.last = None;
        self.slice = next.amount;
        self.asked_for = None;
        self.report_at_us = now_us;
    }

    fn take_verdict(&mut self, now_us: u64, seq: u64, verdict: Verdict) -> Option<End> {
        let current = self.outstanding == Some(seq);
        if current {
            self.outstanding = None;
            self.retry_us = RETRY_FIRST_US;
        }
        if self.closed.is_some() && seq >= self.closed_seq {
            self.closed = None;
        }
        match verdict {
            Verdict::Stop(End::OperatorStop) => return Some(End::OperatorStop),
            // "Nothing is left" is true only until the next lease or period: an answer that comes late ends nothing.
            Verdict::Stop(end) if current && self.is_held() && self.is_over(now_us) => return Some(end),
            Verdict::Wait { ask_at_us } if current => {
                // A ledger that has kept the question waiting is asked again at once, and waits for us.
                self.report_at_us = match ask_at_us {
                    Some(ask_at_us) => ask_at_us.max(self.wait_until_us(now_us)),
                    None => now_us.saturating_add(self.spread_over(WAIT_AGAIN_MAX_US)),
                };
                if let State::Held { ledger_said_wait, .. } = &mut self.state {
                    *ledger_said_wait = true;
                }
            }
            Verdict::Lease(grant) => self.take_grant(grant),
            Verdict::Stop(_) | Verdict::Wait { .. } => {}
        }
        None
    }

    /// A lease that does not let a frozen job run on is like `wait`, unless it answers a report that was sent before
    /// the freeze: then the question is still to be asked.
    fn ask_again_if_held(&mut self, now_us: u64, was_waiting: bool, verdict: Verdict) {
        if !matches!(verdict, Verdict::Lease(_)) {
            return;
        }
        if let State::Held { ledger_said_wait, .. } = &mut self.state {
            *ledger_said_wait |= was_waiting;
            self.report_at_us = if was_waiting { self.wait_until_us(now_us) } else { now_us };
        }
    }

    /// A time below `us` that is another one for each attempt and each question (the mixing of SplitMix64).
    fn spread_over(&self, us: u64) -> u64 {
        let mixed = self.rules.spread.wrapping_add(self.seq.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mixed = (mixed ^ mixed.wrapping_shr(30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed.wrapping_shr(31)).checked_rem(us.max(1)).unwrap_or(0)
    }

    /// When to ask again, a little later each time, and not all that wait together.
    fn wait_until_us(&mut self, now_us: u64) -> u64 {
        let jitter_us = self.spread_over(self.wait_us.checked_div(4).unwrap_or(1));
        let until_us = now_us.saturating_add(self.wait_us).saturating_add(jitter_us);
        self.wait_us = self.wait_us.saturating_mul(2).min(WAIT_MAX_US);
        until_us
    }

    fn take_grant(&mut self, grant: Grant) {
        // The ledger enters a period only after this attempt has said that it did.
        if grant.version < self.grant.version || grant.period != self.grant.period {
            return;
        }
        self.report_at_us = grant.report_at_us;
        let lowered_too_far =
            grant.ceiling < self.grant.ceiling && grant.ceiling < self.price.saturating_add(self.guard());
        if grant.version > self.grant.version && lowered_too_far {
            // Not confirmed, so the books go on holding the higher one; only its time is renewed.
            self.grant.ends_us = self.grant.ends_us.max(grant.ends_us);
            return;
        }
        if grant.ceiling != self.grant.ceiling {
            self.slice = grant.ceiling.saturating_sub(self.price).at_least_zero();
        }
        self.grant = grant;
    }

    fn decide(&mut self, now_us: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        let left = self.left();
        let over = self.is_over(now_us);
        match self.state {
            State::Ending => return actions,
            State::Running if over && !self.rules.can_hold => return self.end(self.end_without_hold(left)),
            State::Running if over => {
                let until_us = now_us.saturating_add(self.rules.hold_us);
                self.state = State::Held { until_us, ledger_said_wait: false };
                self.report_at_us = now_us;
                // The reading after the freeze is the settled one: it is what gets reported.
                return vec![Action::Freeze];
            }
            State::Held { .. } if !over => {
                self.state = State::Running;
                self.wait_us = WAIT_FIRST_US;
                actions.push(Action::Thaw);
            }
            State::Held { until_us, ledger_said_wait } if now_us >= until_us => {
                return self.end(if ledger_said_wait { End::CreditsExhausted } else { End::LeaseExpired });
            }
            State::Running | State::Held { .. } => {}
        }
        if self.notice_is_due(now_us) {
            self.noticed = true;
            actions.push(Action::Notice);
        }
        if let Some(report) = self.report_due(now_us, left) {
            actions.push(Action::Report(report));
        }
        actions
    }

    /// Whether nothing may burn now: the ceiling is reached, less the guard band, or the lease is over.
    fn is_over(&self, now_us: u64) -> bool {
        if self.grant.unbounded {
            return false;
        }
        let left = self.left();
        left <= self.guard() || now_us.saturating_add(self.bounds.stop_us) >= self.lease_ends_us()
    }

    fn lease_ends_us(&self) -> u64 {
        self.grant.next.map_or(self.grant.ends_us, |next| next.ends_us)
    }

    fn end_without_hold(&self, left: Nanocredits) -> End {
        // Unless the ledger has said that nothing is left, there was more, and its answer did not come in time.
        self.grant.last.filter(|_| left <= self.guard()).unwrap_or(End::LeaseExpired)
    }

    /// More is asked for when this is left: once for each ceiling, and again where much more has to be left than then.
    fn asks_at(&self) -> Option<Nanocredits> {
        let third = Nanocredits(self.slice.0.checked_div(3).unwrap_or(0));
        let asks_at = third.max(self.reserve());
        let is_asked = self.asked_for.is_some_and(|(ceiling, then)| {
            let much = Nanocredits(then.0.checked_div(8).unwrap_or(0));
            ceiling == self.grant.ceiling && asks_at <= then.saturating_add(much)
        });
        (!is_asked).then_some(asks_at)
    }

    fn report_due(&mut self, now_us: u64, left: Nanocredits) -> Option<ReportDue> {
        if self.outstanding.is_some() {
            return None;
        }
        let low = self.asks_at().filter(|asks_at| left < *asks_at);
        if low.is_none() && now_us < self.report_at_us {
            return None;
        }
        if let Some(asks_at) = low {
            self.asked_for = Some((self.grant.ceiling, asks_at));
        }
        self.seq = self.seq.saturating_add(1);
        self.outstanding = Some(self.seq);
        self.waiting = self.is_held();
        Some(ReportDue {
            seq: self.seq,
            ceiling_version: self.grant.version,
            period: self.grant.period,
            closed: self.closed.clone(),
            waiting: self.waiting,
        })
    }
}

#[cfg(test)]
mod tests;
