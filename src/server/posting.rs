//! A group of operations, posted in one transaction; each answer leaves after the commit that it was part of.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::metrics::Metrics;
use crate::ledger::LedgerError;
use crate::ledger::asker::Asker;
use crate::ledger::book::{Asked, Operation, Outcome};
use crate::ledger::protocol::{Finish, OpenRequest, Report};
use crate::ledger::store::{Patience, Store, StoreLedger};
use crate::ledger::views::Change;
use crate::sys::clock::{Clock, SystemClock};

/// No transaction has more.
pub(super) const GROUP_MAX: usize = 512;

/// An operation that owns what it says.
#[derive(Debug)]
pub(super) enum Work {
    Open(Box<OpenRequest>),
    Report(Box<Report>),
    Finish(Box<Finish>),
    Change(Box<Change>),
    /// The key of this id: see [`Operation::KeyUsed`].
    KeyUsed(String),
}

/// An operation, and who waits for its answer.
pub(super) struct Posted {
    work: Work,
    asker: Asker,
    /// When it came, by the clock that nobody sets.
    pub(super) asked_us: u64,
    answer: oneshot::Sender<Result<Outcome, LedgerError>>,
}

impl Posted {
    fn asked(&self) -> Asked<'_> {
        let operation = match &self.work {
            Work::Open(request) => Operation::Open(request),
            Work::Report(report) => Operation::Report(report),
            Work::Finish(finish) => Operation::Finish(finish),
            Work::Change(change) => Operation::Change(change),
            Work::KeyUsed(id) => Operation::KeyUsed(id),
        };
        Asked { operation, asker: &self.asker }
    }

    pub(super) fn new(work: Work, asker: Asker) -> (Self, oneshot::Receiver<Result<Outcome, LedgerError>>) {
        let (answer, answered) = oneshot::channel();
        (Self { work, asker, asked_us: SystemClock.boottime_us(), answer }, answered)
    }

    /// Who has asked may have gone; what was posted stays posted.
    pub(super) fn answer(self, outcome: Result<Outcome, LedgerError>) {
        self.answer.send(outcome).ok();
    }
}

/// Is told of the accounts in which something became free.
pub(super) type Freed = Arc<dyn Fn(&[String]) + Send + Sync>;

/// Whom what was posted concerns beside who has asked.
#[derive(Clone)]
pub(super) struct Posting {
    pub(super) metrics: Metrics,
    /// Those who wait for credits that others hold.
    pub(super) freed: Freed,
}

impl Posting {
    /// Posts a group, and empties it. One that no store can keep is found by halves: it costs the others a few commits more. What is
    /// locked by somebody else is given back, with whose it is.
    pub(super) fn post(
        &self,
        ledger: &mut StoreLedger<Box<dyn Store>>,
        group: &mut Vec<Posted>,
        patience: Patience,
    ) -> Vec<(Posted, String)> {
        let begun_us = SystemClock.boottime_us();
        let mut locked = Vec::new();
        post(ledger, group, patience, &mut locked);
        (self.freed)(&ledger.take_freed());
        self.metrics.posted(SystemClock.boottime_us().saturating_sub(begun_us));
        locked
    }
}

fn post(
    ledger: &mut StoreLedger<Box<dyn Store>>,
    group: &mut Vec<Posted>,
    patience: Patience,
    locked: &mut Vec<(Posted, String)>,
) {
    let asked: Vec<Asked<'_>> = group.iter().map(Posted::asked).collect();
    match ledger.post_with(&asked, patience) {
        Ok(outcomes) => {
            for (posted, outcome) in group.drain(..).zip(outcomes) {
                match outcome {
                    Err(LedgerError::Locked(owner)) => locked.push((posted, owner)),
                    outcome => posted.answer(outcome),
                }
            }
        }
        Err(LedgerError::Locked(why)) => locked.extend(group.drain(..).map(|posted| (posted, why.clone()))),
        Err(LedgerError::Unavailable(why)) => {
            for posted in group.drain(..) {
                posted.answer(Err(LedgerError::Unavailable(why.clone())));
            }
        }
        Err(error) if group.len() == 1 => {
            for posted in group.drain(..) {
                posted.answer(Err(match &error {
                    // No database has a text with that, which is the asker's fault.
                    LedgerError::Refused(why) => LedgerError::Refused(why.clone()),
                    broken => LedgerError::Broken(broken.to_string()),
                }));
            }
        }
        Err(_) => {
            let mut rest = group.split_off(group.len() / 2);
            post(ledger, group, patience, locked);
            post(ledger, &mut rest, patience, locked);
        }
    }
}
