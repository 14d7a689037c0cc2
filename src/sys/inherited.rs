//! What this process was started with and hands on to the command: which signals it ignores and blocks. Read before `main`, since
//! Rust's runtime ignores SIGPIPE from then on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::signals::{SignalSet, is_ignored, mask};

static IGNORED: AtomicU64 = AtomicU64::new(0);
static BLOCKED: AtomicU64 = AtomicU64::new(0);
static IS_READ: AtomicBool = AtomicBool::new(false);

/// The loader calls what stands in this section before `main` (System V ABI, gABI chapter 5).
#[used]
#[unsafe(link_section = ".init_array")]
static READ: extern "C" fn() = read;

extern "C" fn read() {
    let ignored = SignalSet::ALL.numbers().filter(|number| is_ignored(*number)).fold(SignalSet::EMPTY, SignalSet::with);
    IGNORED.store(ignored.bits(), Ordering::Relaxed);
    BLOCKED.store(mask().bits(), Ordering::Relaxed);
    IS_READ.store(true, Ordering::Release);
}

/// Dispositions that a new program inherits: handlers never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// Stay ignored in the command as well (nohup).
    pub ignored: SignalSet,
    /// Stay blocked in the command as well.
    pub blocked: SignalSet,
}

/// As it was at the start; `None` where the loader did not call us.
#[must_use]
pub fn inherited() -> Option<Inherited> {
    IS_READ.load(Ordering::Acquire).then(|| Inherited {
        ignored: SignalSet::of_bits(IGNORED.load(Ordering::Relaxed)),
        blocked: SignalSet::of_bits(BLOCKED.load(Ordering::Relaxed)),
    })
}
