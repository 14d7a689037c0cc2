//! What strangers may ask for: however many do, it is found out once a second.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::ledger::LedgerError;

/// What was found out is told for so long, in µs.
const FRESH_US: u64 = 1_000_000;

/// All who ask meanwhile are told the same.
type Told<T> = Result<T, Arc<LedgerError>>;

/// With when it was found out, and what came of it.
#[derive(Debug)]
pub(super) struct OnceASecond<T>(Mutex<Option<(u64, Told<T>)>>);

impl<T> Default for OnceASecond<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> OnceASecond<T> {
    /// By `find`, unless that was done just now. Whoever asks meanwhile waits for the same.
    pub(super) async fn ask<F>(&self, now_us: u64, find: impl FnOnce() -> F) -> Told<T>
    where
        F: Future<Output = Result<T, LedgerError>>,
    {
        let mut last = self.0.lock().await;
        if let Some((at_us, told)) = &*last
            && now_us.checked_sub(*at_us).is_none_or(|since_us| since_us < FRESH_US)
        {
            return told.clone();
        }
        let told = find().await.map_err(Arc::new);
        *last = Some((now_us, told.clone()));
        told
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn it_is_tried_once_a_second() {
        let (readiness, tries) = (OnceASecond::default(), AtomicUsize::new(0));
        let tried = |answer: Result<(), LedgerError>| {
            let tries = &tries;
            move || async move {
                tries.fetch_add(1, Ordering::Relaxed);
                answer
            }
        };
        let full = || Err(LedgerError::Unavailable("the disk is full".to_owned()));
        assert!(readiness.ask(5, tried(full())).await.is_err());
        assert!(readiness.ask(FRESH_US, tried(Ok(()))).await.is_err());
        assert!(readiness.ask(FRESH_US + 5, tried(Ok(()))).await.is_ok());
        assert_eq!(tries.into_inner(), 2);
    }
}
