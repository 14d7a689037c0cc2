//! The one writer of a replica: operations that arrive together are posted together, whatever their accounts, and each
//! answer leaves after the commit that it was part of.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::metrics::Metrics;
use super::waiting::Waiting;
use crate::ledger::LedgerError;
use crate::ledger::asker::{Asker, DIRECT};
use crate::ledger::book::{Asked, Operation, Outcome};
use crate::ledger::protocol::{Finish, OpenRequest, Report};
use crate::ledger::store::{Store, StoreLedger};
use crate::ledger::views::Change;
use crate::sys::clock::{Clock, SystemClock};

/// Operations that wait for the writer; what comes on top is told to come again.
const QUEUE_MAX: usize = 16_384;
/// No transaction has more.
const GROUP_MAX: usize = 512;

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

struct Posted {
    work: Work,
    asker: Asker,
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
}

/// Its end for those who ask.
#[derive(Clone, Debug)]
pub(super) struct Poster(mpsc::Sender<Posted>);

impl Poster {
    /// Starts the writer's thread, which ends when all who ask have gone.
    pub(super) fn start(
        store: Box<dyn Store>,
        metrics: Metrics,
        waiting: Arc<Waiting>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("poster".to_owned())
            .spawn(move || post_all(&mut StoreLedger::new(store), queue, &metrics, &waiting))?;
        Ok((Self(sender), thread))
    }

    /// Has it written down that a key is used, with whatever is posted next. Nobody waits for that, and nothing fails by it.
    pub(super) fn note_use(&self, id: &str) {
        let (answer, _nobody_waits) = oneshot::channel();
        let posted = Posted { work: Work::KeyUsed(id.to_owned()), asker: DIRECT.clone(), answer };
        if self.0.try_send(posted).is_err() {
            tracing::debug!(id, "The use of a key is not written down: too many requests wait.");
        }
    }

    /// Asks, and waits for the commit.
    pub(super) async fn ask(&self, work: Work, asker: Asker) -> Result<Outcome, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let busy = |_| LedgerError::Unavailable("too many requests wait for the ledger: try again".to_owned());
        self.0.try_send(Posted { work, asker, answer }).map_err(busy)?;
        answered.await.unwrap_or_else(|_| Err(LedgerError::Unavailable("the ledger is stopping".to_owned())))
    }
}

fn post_all(
    ledger: &mut StoreLedger<Box<dyn Store>>,
    mut queue: mpsc::Receiver<Posted>,
    metrics: &Metrics,
    waiting: &Waiting,
) {
    let mut group = Vec::with_capacity(GROUP_MAX);
    while let Some(first) = queue.blocking_recv() {
        group.push(first);
        while group.len() < GROUP_MAX
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
        let begun_us = SystemClock.boottime_us();
        post(ledger, &mut group);
        waiting.wake(&ledger.take_freed());
        metrics.posted(SystemClock.boottime_us().saturating_sub(begun_us));
    }
}

/// Posts a group, and empties it. One that no store can keep is found by halves: it costs the others a few commits more.
fn post(ledger: &mut StoreLedger<Box<dyn Store>>, group: &mut Vec<Posted>) {
    let asked: Vec<Asked<'_>> = group.iter().map(Posted::asked).collect();
    match ledger.post(&asked) {
        Ok(outcomes) => {
            for (posted, outcome) in group.drain(..).zip(outcomes) {
                // Who has asked may have gone; what was posted stays posted.
                posted.answer.send(outcome).ok();
            }
        }
        Err(LedgerError::Unavailable(why)) => {
            for posted in group.drain(..) {
                posted.answer.send(Err(LedgerError::Unavailable(why.clone()))).ok();
            }
        }
        Err(error) if group.len() == 1 => {
            for posted in group.drain(..) {
                let told = match &error {
                    // No database has a text with that, which is the asker's fault.
                    LedgerError::Refused(why) => LedgerError::Refused(why.clone()),
                    broken => LedgerError::Broken(broken.to_string()),
                };
                posted.answer.send(Err(told)).ok();
            }
        }
        Err(_) => {
            let mut rest = group.split_off(group.len() / 2);
            post(ledger, group);
            post(ledger, &mut rest);
        }
    }
}
