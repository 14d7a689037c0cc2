//! What the command leaves behind: how long it may go on, and how its end is noticed.
//!
//! The end of the command is not the end of its helpers: the `tee` of `exec > >(tee log)` has lines to write, and Python's
//! resource tracker shared memory to remove. They are metered and charged within the lease as the command was, and end with
//! the lease as well: a grace is no credit.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::options::Grace;
use crate::domain::job::End;
use crate::sys::containment::Containment;
use crate::sys::population::Population;

/// Where nothing tells of the end, it is looked for: first after this, since most helpers end soon, then later and later.
const LOOK_FIRST_US: u64 = 1_000;
/// But no less often than this.
const LOOK_MAX_US: u64 = 50_000;

/// What the command has left behind, and goes on.
#[derive(Debug)]
pub(super) struct Remainder {
    /// `None` where only its credits end it.
    until_us: Option<u64>,
    /// `None` where no group tells of its end.
    population: Option<Population>,
    looked_at_us: u64,
    look_us: u64,
    has_overstayed: bool,
    is_out_of_credits: bool,
}

impl Remainder {
    /// `None` where nothing is left, or nothing may go on.
    pub(super) fn of(containment: &Containment, grace: Grace, now_us: u64) -> Option<Self> {
        let until_us = match grace {
            Grace::For(Duration::ZERO) => return None,
            Grace::For(time) => Some(now_us.saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))),
            Grace::Unlimited => None,
        };
        let population = Population::of(containment);
        let remainder = Self {
            until_us,
            population,
            looked_at_us: now_us,
            look_us: LOOK_FIRST_US,
            has_overstayed: false,
            is_out_of_credits: false,
        };
        remainder.lives(containment).then_some(remainder)
    }

    /// When to look at the latest; `None` where what happens is told and nothing else is waited for.
    pub(super) fn look_at_us(&self) -> Option<u64> {
        let by_looking = self.population.is_none().then(|| self.looked_at_us.saturating_add(self.look_us));
        by_looking.into_iter().chain(self.until_us).min()
    }

    /// What polls as POLLPRI when something has changed.
    pub(super) fn told_by(&self) -> Option<BorrowedFd<'_>> {
        self.population.as_ref().map(AsFd::as_fd)
    }

    /// Whether it has ended, or its time is over.
    pub(super) fn is_over(&mut self, containment: &Containment, now_us: u64) -> bool {
        if !self.lives(containment) {
            return true;
        }
        if now_us >= self.looked_at_us.saturating_add(self.look_us) {
            self.look_us = self.look_us.saturating_mul(2).min(LOOK_MAX_US);
            self.looked_at_us = now_us;
        }
        self.has_overstayed = self.until_us.is_some_and(|until_us| now_us >= until_us);
        self.has_overstayed
    }

    /// How the attempt ends where the state machine says `end`. The command has done its work: that what it left behind within its
    /// grace came to the end of the credits is no reason to run it again, as 75 would make a scheduler do. What is waited
    /// for is work as well.
    pub(super) fn outcome(&mut self, end: End) -> End {
        let is_credits = matches!(end, End::CreditsExhausted | End::JobLimit);
        self.is_out_of_credits = self.until_us.is_some() && is_credits;
        if self.is_out_of_credits { End::Exited } else { end }
    }

    /// Whether its credits were at an end before its time.
    pub(super) fn is_out_of_credits(&self) -> bool {
        self.is_out_of_credits
    }

    /// Whether it went on until its time was over.
    pub(super) fn has_overstayed(&self) -> bool {
        self.has_overstayed
    }

    fn lives(&self, containment: &Containment) -> bool {
        self.population.as_ref().map_or_else(|| containment.is_populated(), Population::lives)
    }
}
