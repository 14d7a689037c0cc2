//! Looks at attempts for many who ask at the same time: while one look is under way the next questions come together, and are one
//! question to the database.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::ledger::LedgerError;
use crate::ledger::store::AttemptStop;

/// Attempts of one look.
pub(super) const LOOKED_AT_MAX: usize = 1_000;

type Found = Result<Option<AttemptStop>, LedgerError>;
type Asked = (Uuid, oneshot::Sender<Found>);

/// Questions that wait for a look.
#[derive(Debug, Default)]
pub(super) struct Looks {
    asked: Mutex<Vec<Asked>>,
    turn: tokio::sync::Mutex<()>,
}

impl Looks {
    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, attempt: Uuid) -> oneshot::Receiver<Found> {
        let (tell, told) = oneshot::channel();
        self.asked().push((attempt, tell));
        told
    }

    /// What the books say of an attempt, by `look` at all that were asked about meanwhile; `None` where they do not know it.
    pub(super) async fn at<F>(&self, attempt: Uuid, look: impl Fn(Vec<Uuid>) -> F) -> Found
    where
        F: Future<Output = Result<Vec<AttemptStop>, LedgerError>>,
    {
        let mut told = self.ask(attempt);
        let _turn = self.turn.lock().await;
        loop {
            match told.try_recv() {
                Ok(found) => return found,
                Err(oneshot::error::TryRecvError::Empty) => {}
                // Whoever had the turn has gone in the middle of the look.
                Err(oneshot::error::TryRecvError::Closed) => told = self.ask(attempt),
            }
            let group: Vec<Asked> = {
                let mut asked = self.asked();
                let count = asked.len().min(LOOKED_AT_MAX);
                asked.drain(..count).filter(|(_, tell)| !tell.is_closed()).collect()
            };
            let found = look(group.iter().map(|(attempt, _)| *attempt).collect()).await;
            for (attempt, tell) in group {
                let of_it = match &found {
                    Ok(found) => Ok(found.iter().find(|stop| stop.attempt == attempt).cloned()),
                    Err(error) => Err(LedgerError::Unavailable(error.to_string())),
                };
                // Who has asked may have gone.
                _ = tell.send(of_it);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_at_the_same_time_share_a_look() {
        let (looks, count, let_go) =
            (Arc::new(Looks::default()), Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let ask = |attempt: u128| {
            let (looks, count, let_go) = (Arc::clone(&looks), Arc::clone(&count), Arc::clone(&let_go));
            let look = move |attempts: Vec<Uuid>| {
                let (count, let_go) = (Arc::clone(&count), Arc::clone(&let_go));
                async move {
                    count.fetch_add(1, Ordering::Relaxed);
                    let_go.acquire().await.unwrap().forget();
                    let stop = |attempt: Uuid| AttemptStop {
                        attempt,
                        owner: attempt.to_string(),
                        principal: String::new(),
                        is_stopped: false,
                    };
                    Ok(attempts.into_iter().filter(|attempt| *attempt != Uuid::nil()).map(stop).collect())
                }
            };
            tokio::spawn(async move { looks.at(Uuid::from_u128(attempt), look).await })
        };
        let first = ask(1);
        tokio::task::yield_now().await;
        let others: Vec<_> = (0..=LOOKED_AT_MAX as u128).map(&ask).collect();
        tokio::task::yield_now().await;
        // Who goes in the middle of his look leaves it to the next one.
        first.abort();
        let_go.add_permits(3);
        for (at, other) in others.into_iter().enumerate() {
            let found = other.await.unwrap().unwrap();
            assert_eq!(found.map(|stop| stop.attempt.as_u128()), (at > 0).then_some(at as u128));
        }
        // The one that was given up, and two for a thousand and one.
        assert_eq!(count.load(Ordering::Relaxed), 3);
        assert!(looks.asked().is_empty());
    }
}
