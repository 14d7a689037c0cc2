//! Operations on accounts that another session of the database keeps locked: another replica, which is done in a moment, or a person. They
//! wait beside the writer, on a connection of their own, and each account waits for itself alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::posting::{GROUP_MAX, Posted, Posting};
use crate::ledger::LedgerError;
use crate::ledger::store::{Patience, Store, StoreLedger};
use crate::sys::clock::{Clock, SystemClock};

/// Operations that wait here; what comes on top is told to come again.
const LATE_MAX: usize = 4_096;
/// An operation waits no longer.
const WAIT_MAX_US: u64 = 10_000_000;
/// An account that was still locked is tried again after this, then after twice that, and so on.
const RETRY_FIRST_US: u64 = 20_000;
/// But no later than this.
const RETRY_MAX_US: u64 = 1_000_000;

struct Delayed {
    posted: Posted,
    owner: String,
}

/// Makes a connection of its own.
type Connect = Arc<dyn Fn() -> Result<Box<dyn Store>, LedgerError> + Send + Sync>;

/// The writer's end. The connection is made with the first that has to wait.
pub(super) struct Late {
    connect: Connect,
    posting: Posting,
    lane: Option<(SyncSender<Delayed>, JoinHandle<()>)>,
}

impl Late {
    /// Nothing is opened yet.
    pub(super) fn new(connect: Connect, posting: Posting) -> Self {
        Self { connect, posting, lane: None }
    }

    /// Takes an operation on the account of `owner`.
    pub(super) fn take(&mut self, posted: Posted, owner: String) {
        let delayed = Delayed { posted, owner };
        let running = self.lane.take().filter(|(_, thread)| !thread.is_finished());
        let lane = match running.map_or_else(|| start(Arc::clone(&self.connect), self.posting.clone()), Ok) {
            Ok(lane) => self.lane.insert(lane),
            Err(error) => return delayed.fail(&format!("no thread can be started: {error}")),
        };
        match lane.0.try_send(delayed) {
            Ok(()) => {}
            Err(TrySendError::Full(delayed) | TrySendError::Disconnected(delayed)) => {
                delayed.fail("too many requests wait for accounts that are locked: try again");
            }
        }
    }

    /// Those that still wait are told that the service stops.
    pub(super) fn end(self) {
        if let Some((sender, thread)) = self.lane {
            drop(sender);
            if thread.join().is_err() {
                tracing::error!("The thread for accounts that are locked failed.");
            }
        }
    }
}

impl Delayed {
    fn fail(self, why: &str) {
        self.posted.answer(Err(LedgerError::Unavailable(why.to_owned())));
    }
}

fn start(connect: Connect, posting: Posting) -> std::io::Result<(SyncSender<Delayed>, JoinHandle<()>)> {
    let (sender, receiver) = sync_channel(LATE_MAX);
    let lane = move || match connect() {
        Ok(store) => wait_for_accounts(&mut StoreLedger::new(store), &receiver, &posting),
        // The next one that has to wait tries it again.
        Err(error) => receiver.try_iter().for_each(|delayed| delayed.fail(&error.to_string())),
    };
    let thread = std::thread::Builder::new().name("late poster".to_owned()).spawn(lane)?;
    Ok((sender, thread))
}

/// What waits for one account.
#[derive(Default)]
struct Account {
    queue: Vec<Delayed>,
    tries: u32,
    next_us: u64,
}

/// Accounts for which something waits, by whose they are.
#[derive(Default)]
struct Accounts(HashMap<String, Account>);

impl Accounts {
    fn add(&mut self, delayed: Delayed) {
        let account = self.0.entry(delayed.owner.clone()).or_default();
        account.queue.push(delayed);
    }

    /// Of those that are due, the one that was tried least: who is locked for long keeps nobody waiting who is not.
    fn due(&self, now_us: u64) -> Option<String> {
        let due = self.0.iter().filter(|(_, account)| account.next_us <= now_us);
        due.min_by_key(|(_, account)| (account.tries, account.next_us)).map(|(owner, _)| owner.clone())
    }

    fn next_us(&self) -> Option<u64> {
        self.0.values().map(|account| account.next_us).min()
    }

    /// Takes a group of what waits for an account.
    fn group(&mut self, owner: &str) -> Vec<Delayed> {
        let Some(account) = self.0.get_mut(owner) else { return Vec::new() };
        let rest = account.queue.split_off(account.queue.len().min(GROUP_MAX));
        std::mem::replace(&mut account.queue, rest)
    }

    /// What is still locked goes on waiting, in front of what has come since, unless it has waited for long enough.
    fn again(&mut self, owner: &str, group: Vec<Delayed>, now_us: u64) {
        let (late, mut queue): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|delayed| now_us.saturating_sub(delayed.posted.asked_us) >= WAIT_MAX_US);
        for delayed in late {
            delayed.fail("the account is locked by another session of the database: try again");
        }
        if let Some(account) = self.0.get_mut(owner) {
            queue.append(&mut account.queue);
            account.queue = queue;
            let pause_us = RETRY_FIRST_US.saturating_mul(1 << account.tries.min(6)).min(RETRY_MAX_US);
            account.tries = account.tries.saturating_add(1);
            account.next_us = now_us.saturating_add(pause_us);
        }
        self.forget(owner);
    }

    fn posted(&mut self, owner: &str) {
        if let Some(account) = self.0.get_mut(owner) {
            account.tries = 0;
        }
        self.forget(owner);
    }

    fn forget(&mut self, owner: &str) {
        if self.0.get(owner).is_some_and(|account| account.queue.is_empty()) {
            self.0.remove(owner);
        }
    }
}

fn wait_for_accounts(ledger: &mut StoreLedger<Box<dyn Store>>, receiver: &Receiver<Delayed>, posting: &Posting) {
    let mut accounts = Accounts::default();
    loop {
        let now_us = SystemClock.boottime_us();
        let wait_us = accounts.next_us().map_or(WAIT_MAX_US, |next_us| next_us.saturating_sub(now_us));
        match receiver.recv_timeout(Duration::from_micros(wait_us)) {
            Ok(delayed) => accounts.add(delayed),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let waits = accounts.0.into_values().flat_map(|account| account.queue);
                return waits.for_each(|delayed| delayed.fail("the ledger is stopping"));
            }
        }
        for delayed in receiver.try_iter() {
            accounts.add(delayed);
        }
        if let Some(owner) = accounts.due(SystemClock.boottime_us()) {
            let mut group = accounts.group(&owner).into_iter().map(|delayed| delayed.posted).collect();
            let locked = posting.post(ledger, &mut group, Patience::Short);
            if locked.is_empty() {
                accounts.posted(&owner);
                continue;
            }
            let again = locked.into_iter().map(|(posted, _)| Delayed { posted, owner: owner.clone() }).collect();
            accounts.again(&owner, again, SystemClock.boottime_us());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::pedantic, clippy::print_stdout, reason = "a test, not an interface")]

    use super::super::metrics::Metrics;
    use super::super::poster::Poster;
    use super::super::posting::Work;
    use super::*;
    use crate::ledger::asker::DIRECT;
    use crate::ledger::location::Location;
    use crate::ledger::store::postgres;
    use crate::ledger::views::{Change, PeriodLength};

    fn limit_of(user: &str) -> Work {
        Work::Change(Box::new(Change::limit(user, "1".parse().ok(), PeriodLength::Day, "t")))
    }

    /// A person keeps the row of an account for a while: all others are posted meanwhile, and what concerns it is once it is free.
    #[tokio::test]
    async fn an_account_that_is_locked_keeps_no_other_waiting() {
        let made = tokio::task::spawn_blocking(postgres::tests::new_database);
        let (_place, url) = made.await.unwrap();
        let db: Location = url.parse().unwrap();
        let of = db.clone();
        let (poster, thread) = tokio::task::spawn_blocking(move || {
            let posting = Posting { metrics: Metrics::new(), freed: Arc::new(|_| {}) };
            let store = of.store().unwrap();
            let late = Late::new(Arc::new(move || of.existing_store()), posting.clone());
            Poster::start(store, posting, late).unwrap()
        })
        .await
        .unwrap();
        poster.ask(limit_of("locked"), DIRECT.clone()).await.unwrap();
        let hand = tokio::task::spawn_blocking(move || {
            let mut hand = db.store().unwrap();
            hand.begin().unwrap();
            hand.query("SELECT owner FROM account WHERE owner = 'locked' FOR UPDATE", &[]).unwrap();
            hand
        });
        let mut hand = hand.await.unwrap();
        let waits: Vec<_> = (0..8)
            .map(|_| {
                let poster = poster.clone();
                tokio::spawn(async move { poster.ask(limit_of("locked"), DIRECT.clone()).await })
            })
            .collect();
        let begun_us = SystemClock.boottime_us();
        for at in 0..40 {
            let both = [format!("user {at}"), "ann".to_owned()].map(|user| {
                let poster = poster.clone();
                async move { poster.ask(limit_of(&user), DIRECT.clone()).await }
            });
            for answered in both {
                answered.await.unwrap();
            }
        }
        let took_us = SystemClock.boottime_us() - begun_us;
        println!("80 operations beside an account that is locked took {took_us} us");
        assert!(waits.iter().all(|waits| !waits.is_finished()) && took_us < WAIT_MAX_US);
        tokio::task::spawn_blocking(move || hand.rollback()).await.unwrap();
        for waits in waits {
            waits.await.unwrap().unwrap();
        }
        drop(poster);
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    }
}
