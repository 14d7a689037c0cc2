//! The one writer of a replica: operations that arrive together are posted together, whatever their accounts, and each
//! answer leaves after the commit that it was part of.

use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use super::late::Late;
use super::posting::{GROUP_MAX, Posted, Posting, Work};
use crate::ledger::LedgerError;
use crate::ledger::asker::{Asker, DIRECT};
use crate::ledger::book::Outcome;
use crate::ledger::store::{Patience, Store, StoreLedger};
use crate::sys::clock::{Clock, SystemClock, pause};

/// Operations that wait for the writer; what comes on top is told to come again.
const QUEUE_MAX: usize = 16_384;
/// Where so many operations come with each other, the writer waits for more of them.
const BUSY_LEAST: usize = 4;
/// With each other is within so long.
const BUSY_WITHIN_US: u64 = 20_000;
/// It waits 5 ms at most, and looks for them so often.
const FILL_LOOKS: u32 = 5;
const FILL_LOOK: Duration = Duration::from_millis(1);

/// Its end for those who ask.
#[derive(Clone, Debug)]
pub(super) struct Poster(mpsc::Sender<Posted>);

impl Poster {
    /// Starts the writer's thread, which ends when all who ask have gone. `late` takes what has to wait for somebody else.
    pub(super) fn start(
        store: Box<dyn Store>,
        posting: Posting,
        late: Late,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("poster".to_owned())
            .spawn(move || post_all(&mut StoreLedger::new(store), queue, &posting, late))?;
        Ok((Self(sender), thread))
    }

    /// Has it written down that a key is used, with whatever is posted next. Nobody waits for that, and nothing fails by it.
    pub(super) fn note_use(&self, id: &str) {
        let (posted, _nobody_waits) = Posted::new(Work::KeyUsed(id.to_owned()), DIRECT.clone());
        if self.0.try_send(posted).is_err() {
            tracing::debug!(id, "The use of a key is not written down: too many requests wait.");
        }
    }

    /// Asks, and waits for the commit.
    pub(super) async fn ask(&self, work: Work, asker: Asker) -> Result<Outcome, LedgerError> {
        let (posted, answered) = Posted::new(work, asker);
        let busy = |_| LedgerError::Unavailable("too many requests wait for the ledger: try again".to_owned());
        self.0.try_send(posted).map_err(busy)?;
        answered.await.unwrap_or_else(|_| Err(LedgerError::Unavailable("the ledger is stopping".to_owned())))
    }
}

fn post_all(
    ledger: &mut StoreLedger<Box<dyn Store>>,
    mut queue: mpsc::Receiver<Posted>,
    posting: &Posting,
    mut late: Late,
) {
    let mut group = Vec::with_capacity(GROUP_MAX);
    let mut filling = Filling::default();
    while let Some(first) = queue.blocking_recv() {
        group.push(first);
        take_what_is_there(&mut queue, &mut group);
        for _ in 0..filling.looks(SystemClock.boottime_us(), group.len()) {
            if group.len() >= GROUP_MAX {
                break;
            }
            pause(FILL_LOOK);
            take_what_is_there(&mut queue, &mut group);
        }
        filling.posts(SystemClock.boottime_us(), group.len());
        for (posted, owner) in posting.post(ledger, &mut group, Patience::None) {
            late.take(posted, owner);
        }
    }
    late.end();
}

fn take_what_is_there(queue: &mut mpsc::Receiver<Posted>, group: &mut Vec<Posted>) {
    while group.len() < GROUP_MAX
        && let Ok(next) = queue.try_recv()
    {
        group.push(next);
    }
}

/// Whether a group is worth waiting for. Where a few operations come in each few milliseconds, a transaction for each of them costs more
/// than the wait does; whoever is alone waits for nobody.
#[derive(Debug, Default)]
struct Filling {
    posted_us: u64,
    count: usize,
}

impl Filling {
    /// How often to look for more, where so many are there.
    fn looks(&self, now_us: u64, here: usize) -> u32 {
        let is_lately = now_us.saturating_sub(self.posted_us) < BUSY_WITHIN_US;
        if is_lately && self.count + here >= BUSY_LEAST { FILL_LOOKS } else { 0 }
    }

    fn posts(&mut self, now_us: u64, count: usize) {
        (self.posted_us, self.count) = (now_us, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_alone_waits_for_nobody() {
        let mut filling = Filling::default();
        assert_eq!(filling.looks(1_000_000, 1), 0);
        filling.posts(1_000_000, 1);
        // The end of a short job, behind its beginning.
        assert_eq!(filling.looks(1_003_000, 1), 0);
        filling.posts(1_003_000, 3);
        assert_eq!((filling.looks(1_005_000, 1), filling.looks(1_103_000, 1)), (FILL_LOOKS, 0));
    }
}
