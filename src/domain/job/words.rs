//! What goes into the state machine and what comes out of it.

use crate::domain::rating::RateCard;
use crate::domain::units::Nanocredits;
use crate::domain::usage::Usage;

/// What never changes while the attempt lives.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Pinned prices.
    pub rates: RateCard,
    /// The longest time between two looks.
    pub interval_us: u64,
    /// How long the job may stay frozen.
    pub hold_us: u64,
    /// Whether there is a freezer. Without one there is no hold.
    pub can_hold: bool,
    /// The notice is due when the account would last this much longer.
    pub notice_before_us: Option<u64>,
    /// A number of the attempt's own, which spreads what many attempts would do at the same moment.
    pub spread: u64,
}

/// A lease as the state machine sees it: absolute in boot time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Increases.
    pub version: u64,
    /// On the cumulative price.
    pub ceiling: Nanocredits,
    /// Which period pays.
    pub period: i64,
    /// Until then.
    pub ends_us: u64,
    /// Report by then at the latest.
    pub report_at_us: u64,
    /// After this one, from its `starts_us` on.
    pub next: Option<NextGrant>,
    /// Nothing is left to raise the ceiling with, and this is why.
    pub last: Option<End>,
    /// No limit stands behind it: neither its ceiling nor its end stops the attempt while the ledger is silent.
    pub unbounded: bool,
}

/// A slice of the next period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextGrant {
    /// Which period pays.
    pub period: i64,
    /// From then.
    pub starts_us: u64,
    /// On top of the price at the start.
    pub amount: Nanocredits,
    /// Until then.
    pub ends_us: u64,
}

/// What the ledger said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Run to the ceiling.
    Lease(Grant),
    /// Stay frozen and ask again then.
    Wait {
        /// When; `None` at once, of a ledger that has kept the question waiting itself.
        ask_at_us: Option<u64>,
    },
    /// Stop, and why.
    Stop(End),
}

/// Why an attempt ends, as far as the machine decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The command has exited, and what it left behind too, or its grace is over.
    Exited,
    /// No credits.
    CreditsExhausted,
    /// The job's own limit.
    JobLimit,
    /// An operator.
    OperatorStop,
    /// The ledger was silent too long.
    LeaseExpired,
    /// Front or counter lost.
    MeterLost,
}

/// The account, as of the last answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountState {
    /// Not charged yet; `None` without a limit.
    pub left: Option<Nanocredits>,
    /// Over all its jobs.
    pub burn_per_second: Nanocredits,
    /// When that was said.
    pub at_us: u64,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A reading was taken.
    Looked,
    /// The ledger answered the report `seq`.
    Answered {
        /// Which report.
        seq: u64,
        /// What to do.
        verdict: Verdict,
        /// The account.
        account: AccountState,
    },
    /// The report `seq` did not get through.
    LedgerSilent {
        /// Which report.
        seq: u64,
    },
    /// An operator stopped the job.
    OperatorStop,
    /// Everything of the job that is waited for has ended.
    Exited,
    /// The front has died or was stopped, or the counter can no longer be read.
    MeterLost,
}

/// What must be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Freeze, then look again (which reports the settled figure).
    Freeze,
    /// Let it run on.
    Thaw,
    /// Send a report.
    Report(ReportDue),
    /// Send the notice's signal.
    Notice,
    /// Freeze, read, kill, settle.
    End(End),
}

/// The part of a report that the machine decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportDue {
    /// Echoed by the answer.
    pub seq: u64,
    /// In force.
    pub ceiling_version: u64,
    /// In force.
    pub period: i64,
    /// Not yet acknowledged.
    pub closed: Option<(i64, Usage)>,
    /// Frozen.
    pub waiting: bool,
}
