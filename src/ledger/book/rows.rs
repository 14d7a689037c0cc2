//! The rows of the books, as the rules see them.

use uuid::Uuid;

use crate::domain::book::{Source, sum};
use crate::domain::capacity::Capacity;
use crate::domain::lease::{burned_in, minimum_slice};
use crate::domain::rating::{Price, RateCard, VirtualTime};
use crate::domain::units::Nanocredits;
use crate::domain::usage::Usage;
use crate::ledger::attempt_secret::SecretHash;
use crate::ledger::job_name::JobKey;
use crate::ledger::keys::Scope;
use crate::ledger::protocol::{JobKind, Pace, Reason};
use crate::ledger::views::PeriodLength;

/// An account in its current period, and sums over its attempts that save a look at each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Whose.
    pub owner: String,
    /// Per period; `None` without one.
    pub limit: Option<Nanocredits>,
    /// Of a period.
    pub length: PeriodLength,
    /// The current one's start, in seconds since 1970.
    pub period: i64,
    /// And its end.
    pub ends: i64,
    /// From the next period on.
    pub next: Option<(Option<Nanocredits>, PeriodLength)>,
    /// Entries so far: their numbers are gapless.
    pub entries: i64,
    /// Sums over its attempts.
    pub sums: AccountSums,
    /// Taken by corrections, or used late, where nothing was free. What becomes free next pays it.
    pub debt: Nanocredits,
    /// Nothing starts, and what runs stops, until an operator resumes it.
    pub suspended: bool,
    /// What a period's allowance leaves is kept in a grant.
    pub carries_over: bool,
    /// That grant's number, once there was something to keep.
    pub carried_grant: Option<i64>,
    /// Counts up with all that is used, so that its sums stay within their range: see `turnover.rs`.
    pub turnover: i64,
    /// Counts up with each transaction that changes the account, one of its attempts or one of its jobs.
    pub revision: i64,
}

/// What the rules want to know of all attempts of an account. None of it decides whether something may be held: that is
/// what periods and grants say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountSums {
    /// Attempts with a live lease.
    pub live: i64,
    /// What those hold beyond their minimum slices, if they do not wait.
    pub beyond: Nanocredits,
    /// What attempts hold that fell silent.
    pub silent: Nanocredits,
    /// The burn per second of those that do not wait.
    pub rate: Nanocredits,
    /// Somebody waits until then, in µs since 1970, unless they ask again.
    pub waits_until_us: i64,
    /// Before this, in µs since 1970, no lease that is marked live is over: no attempt has to be looked at.
    pub silent_from_us: i64,
}

/// A period: half-open, never moved, never overlapping another of its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period {
    /// Whose.
    pub owner: String,
    /// In seconds since 1970.
    pub start: i64,
    /// In seconds since 1970.
    pub ends: i64,
    /// The allowance.
    pub limit: Option<Nanocredits>,
    /// Of the allowance, by corrections, for debt, or carried over. Less than zero where a correction of jobmeter before version 6 of the
    /// tables gave to it.
    pub taken: Nanocredits,
    /// To the allowance.
    pub charged: Nanocredits,
    /// Of the allowance.
    pub held: Nanocredits,
    /// Charged for what was used in it, whatever paid.
    pub spent: Nanocredits,
    /// Less the debt that was brought into it, or made in it by late usage, and less what corrections took: zero at most.
    pub corrected: Nanocredits,
    /// How far of what can be spent was told, in percent; zero where nothing was.
    pub alerted: i64,
}

/// That an account has come so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Whose.
    pub owner: String,
    /// In which period, seconds since 1970.
    pub period: i64,
    /// Of what can be spent; 100 for exhausted.
    pub percent: i64,
    /// When, µs since 1970.
    pub at_us: i64,
    /// So much was.
    pub spent: Nanocredits,
    /// Allowance, corrections and grants.
    pub spendable: Nanocredits,
    /// Told to who wants to know, µs since 1970.
    pub sent_us: Option<i64>,
    /// So often it was tried.
    pub tries: i64,
    /// µs since 1970.
    pub next_try_us: i64,
}

/// Extra credits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its number, above zero.
    pub id: i64,
    /// Whose.
    pub owner: String,
    /// Granted.
    pub amount: Nanocredits,
    /// To it.
    pub charged: Nanocredits,
    /// Of it, by corrections or for debt.
    pub taken: Nanocredits,
    /// Of it.
    pub held: Nanocredits,
    /// In seconds since 1970; it is live before that.
    pub expires_s: Option<i64>,
    /// By an operator, in seconds since 1970.
    pub revoked_s: Option<i64>,
    /// For the books.
    pub why: String,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Which.
    pub key: JobKey,
    /// What for.
    pub kind: JobKind,
    /// For people.
    pub name: Option<String>,
    /// Its own.
    pub limit: Option<Nanocredits>,
    /// µs since 1970.
    pub started_us: i64,
    /// By an operator.
    pub stopped: bool,
    /// Charged to the job itself.
    pub tokens: u64,
    /// What they cost.
    pub tokens_charged: Nanocredits,
    /// What of that could not be paid.
    pub tokens_overshoot: Nanocredits,
    /// Where it has a limit of its own; nobody asks for them otherwise, and they say nothing.
    pub sums: JobSums,
}

/// Sums over the attempts of a job, and what is set aside for its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobSums {
    /// Charged.
    pub charged: Nanocredits,
    /// Held, in all periods.
    pub held: Nanocredits,
    /// Held by live ones beyond their minimum slices, if they do not wait.
    pub beyond: Nanocredits,
}

/// A part of a hold: it goes back to where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The period for which it is held.
    pub period: i64,
    /// Its allowance, or a grant.
    pub source: Source,
    /// Above zero.
    pub amount: Nanocredits,
}

/// An attempt, as far as it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// Which.
    pub id: Uuid,
    /// Of which job.
    pub job: String,
    /// Whose.
    pub owner: String,
    /// Who opened it; empty without a service.
    pub principal: String,
    /// The period that pays.
    pub period: i64,
    /// µs since 1970.
    pub started_us: i64,
    /// µs since 1970.
    pub lease_until_us: i64,
    /// Its lease was not over when that was last looked at.
    pub live: bool,
    /// µs since 1970.
    pub ended_us: Option<i64>,
    /// Why.
    pub reason: Option<Reason>,
    /// Its own last word was taken.
    pub told: bool,
    /// Of the newest report.
    pub seq: u64,
    /// Pinned.
    pub rates: RateCard,
    /// How fast at most, as last declared.
    pub pace: Pace,
    /// What it can have used at most; `None` where it was opened by a jobmeter that did not know.
    pub capacity: Option<Capacity>,
    /// Merged.
    pub usage: Usage,
    /// What the usage so far was priced at: charged or given up.
    pub accounted: Price,
    /// Tokens that entries have told.
    pub told_tokens: u64,
    /// Virtual time that entries have told.
    pub accounted_time: VirtualTime,
    /// Paid.
    pub charged: Price,
    /// Given up.
    pub overshoot: Nanocredits,
    /// Versions not older than the confirmed one, oldest first; the books hold the highest of them.
    pub ceilings: Vec<(u64, Nanocredits)>,
    /// In the order in which they are spent.
    pub holds: Vec<Hold>,
    /// A slice of the next period: its start and the amount.
    pub next: Option<(i64, Nanocredits)>,
    /// Frozen at its ceiling.
    pub waits: bool,
    /// Per second, over the last seconds.
    pub rate: Nanocredits,
    /// Since when that is measured, in µs since 1970.
    pub rate_since_us: i64,
    /// And from which sum.
    pub rate_from: Nanocredits,
    /// The number of its newest entry, from which each names the one before it; as it is stored. Zero where none does.
    pub last_entry: i64,
    /// Of the secret that its sidecar shows; `None` until one was shown.
    pub secret: Option<SecretHash>,
}

/// Credits set aside for tokens of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Which.
    pub id: Uuid,
    /// Of which job.
    pub job: JobKey,
    /// At most.
    pub tokens: u64,
    /// Pinned.
    pub rates: RateCard,
    /// µs since 1970.
    pub until_us: i64,
    /// In the order in which they are spent; none once it is over.
    pub holds: Vec<Hold>,
    /// Neither settled nor expired.
    pub open: bool,
    /// µs since 1970.
    pub settled_us: Option<i64>,
    /// Tokens at which it was settled.
    pub used: u64,
}

/// The ledger's epoch, which a restore begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch {
    /// The second of the restore; zero for a ledger that was never restored.
    pub number: u64,
    /// Nothing new is leased until then, in µs since 1970.
    pub settles_until_us: i64,
    /// The newest time that the copy knew, in µs since 1970; zero where nobody knows.
    pub known_us: i64,
}

/// What is known of the books whose place a copy takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// The number of their epoch.
    pub epoch: u64,
    /// The longest lease that they may have given, in ms, which the copy need not know.
    pub lease_ms: u64,
}

/// A key of the ledger service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Names it.
    pub id: String,
    /// Of the key.
    pub hash: String,
    /// For people.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// Whose account alone.
    pub user: Option<String>,
    /// For whom it works.
    pub principal: String,
    /// µs since 1970.
    pub created_us: i64,
    /// µs since 1970.
    pub revoked_us: Option<i64>,
    /// Until when it is good, in µs since 1970; `None` for ever.
    pub ends_us: Option<i64>,
    /// When it was used last, to the hour, in µs since 1970.
    pub used_us: Option<i64>,
}

/// What is written; owner's number and time come by themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// `charge`, `grant`, `adjust`, …
    pub kind: &'static str,
    /// Whose; empty for what concerns the whole ledger.
    pub owner: String,
    /// Which period.
    pub period: i64,
    /// In which UTC day it was burned.
    pub day: i64,
    /// From where.
    pub source: i64,
    /// The sum.
    pub amount: Nanocredits,
    /// Of which.
    pub parts: Price,
    /// Of which.
    pub time: VirtualTime,
    /// Of which.
    pub tokens: u64,
    /// Where one is concerned.
    pub job: Option<String>,
    /// Where one is concerned.
    pub attempt: Option<Uuid>,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// The number of the attempt's entry before it; the books set it.
    pub previous: Option<i64>,
}

impl Hold {
    /// What they come to.
    #[must_use]
    pub fn sum(holds: &[Self]) -> Nanocredits {
        holds.iter().fold(Nanocredits::ZERO, |sum, hold| sum.saturating_add(hold.amount))
    }
}

impl Attempt {
    /// That of its job.
    #[must_use]
    pub fn job_key(&self) -> JobKey {
        JobKey { owner: self.owner.clone(), principal: self.principal.clone(), id: self.job.clone() }
    }

    /// The highest ceiling that it may obey.
    #[must_use]
    pub fn ceiling(&self) -> Nanocredits {
        self.ceilings.iter().map(|(_, ceiling)| *ceiling).max().unwrap_or_default()
    }

    /// The newest ceiling.
    #[must_use]
    pub fn newest(&self) -> (u64, Nanocredits) {
        self.ceilings.last().copied().unwrap_or_default()
    }

    /// Its highest rate by its pinned prices.
    #[must_use]
    pub fn highest_rate(&self) -> Nanocredits {
        self.rates.highest_rate_per_second(self.pace.cpus_ppm, self.pace.gpus_ppm)
    }

    /// G.
    #[must_use]
    pub fn guard(&self) -> Nanocredits {
        burned_in(self.highest_rate(), self.pace.stop_us)
    }

    /// m.
    #[must_use]
    pub fn minimum(&self) -> Nanocredits {
        minimum_slice(self.highest_rate(), self.guard())
    }

    /// What it holds for a period, in the order in which it is spent.
    #[must_use]
    pub fn held_parts(&self, period: i64) -> Vec<(Source, Nanocredits)> {
        let of_period = self.holds.iter().filter(|hold| hold.period == period);
        of_period.map(|hold| (hold.source, hold.amount)).collect()
    }

    /// The sum of that.
    #[must_use]
    pub fn held(&self, period: i64) -> Nanocredits {
        sum(&self.held_parts(period))
    }

    /// In all periods.
    #[must_use]
    pub fn held_in_all(&self) -> Nanocredits {
        Hold::sum(&self.holds)
    }

    fn runs(&self) -> bool {
        self.live && self.ended_us.is_none() && !self.waits
    }

    fn beyond(&self) -> Nanocredits {
        if self.runs() {
            self.held(self.period).saturating_sub(self.minimum()).at_least_zero()
        } else {
            Nanocredits::ZERO
        }
    }

    /// What it adds to the sums of its account.
    #[must_use]
    pub fn account_sums(&self) -> AccountSums {
        let is_silent = !self.live && self.ended_us.is_none();
        AccountSums {
            live: i64::from(self.live && self.ended_us.is_none()),
            beyond: self.beyond(),
            silent: if is_silent { self.held(self.period) } else { Nanocredits::ZERO },
            rate: if self.runs() { self.rate } else { Nanocredits::ZERO },
            waits_until_us: 0,
            silent_from_us: 0,
        }
    }

    /// What it adds to the sums of its job.
    #[must_use]
    pub fn job_sums(&self) -> JobSums {
        JobSums { charged: self.charged.total, held: self.held_in_all(), beyond: self.beyond() }
    }
}
