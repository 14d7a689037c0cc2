//! What the keeper and the thread that looks at the devices tell each other.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::gpus::Gpus;

/// How far the thread has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Starting,
    Looking,
    Ended,
}

#[derive(Debug, Default)]
pub(super) struct Orders {
    pub(super) stage: Stage,
    pub(super) soon: bool,
    /// Look now.
    pub(super) now: bool,
    pub(super) last: bool,
    /// What `--gpus` names is not there.
    pub(super) refusal: Option<String>,
    pub(super) helper_pid: Option<u32>,
    /// CPU time of helpers that have ended.
    pub(super) helpers_us: u64,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) gpus: Mutex<Gpus>,
    pub(super) orders: Mutex<Orders>,
    pub(super) bell: Condvar,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
