//! What the keeper and the thread that looks at the devices tell each other.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::gpus::Gpus;
use crate::sys::bell::Bell;

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
    /// CPU time of its own helpers that have ended.
    pub(super) helpers_us: u64,
    /// What the machine's helper has done for this meter, in µs.
    pub(super) shared_us: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) gpus: Mutex<Gpus>,
    pub(super) orders: Mutex<Orders>,
    /// How far the thread has come has changed.
    pub(super) progress: Condvar,
    /// There are new orders.
    pub(super) ordered: Bell,
    /// A device has become the job's.
    pub(super) joined: Bell,
}

impl Shared {
    pub(super) fn new() -> io::Result<Self> {
        let (gpus, orders, progress) = <(Mutex<Gpus>, Mutex<Orders>, Condvar)>::default();
        Ok(Self { gpus, orders, progress, ordered: Bell::new()?, joined: Bell::new()? })
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
