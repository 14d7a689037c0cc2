//! One page shared by front and keeper: what each must know when the other does not answer any more.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

use crate::domain::units::Microseconds;

/// What stands in the page. All of it is plain counters; no field depends on another being written first.
#[derive(Debug, Default)]
struct Page {
    trusted_until_us: AtomicU64,
    stop_at_us: AtomicU64,
    lease_ends_us: AtomicU64,
    front_paused: AtomicBool,
    settled: AtomicBool,
    reaped_us: AtomicU64,
    witness_asked: AtomicU32,
    witness_answered: AtomicU32,
}

/// The mapping. It is never unmapped: both processes need it to their end.
#[derive(Clone, Copy, Debug)]
pub struct SharedPage(NonNull<Page>);

impl SharedPage {
    /// Maps a page that a later fork shares.
    ///
    /// # Errors
    /// Where the kernel has no memory.
    pub fn map() -> io::Result<Self> {
        let size = NonZeroUsize::new(size_of::<Page>()).unwrap_or(NonZeroUsize::MIN);
        // SAFETY: a new anonymous mapping touches no existing memory.
        let address =
            unsafe { mmap_anonymous(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED) }?;
        let page = address.cast::<Page>();
        // SAFETY: the mapping is large enough, page-aligned and writable.
        unsafe { page.write(Page::default()) };
        Ok(Self(page))
    }

    fn page(&self) -> &Page {
        // SAFETY: the mapping lives until the process ends, and all its fields are atomics.
        unsafe { self.0.as_ref() }
    }

    /// Until when (`CLOCK_BOOTTIME`, µs) the front may trust that the keeper looks in time. Zero: not begun.
    #[must_use]
    pub fn trusted_until_us(&self) -> u64 {
        self.page().trusted_until_us.load(Ordering::Acquire)
    }

    /// Renews that.
    pub fn trust_until_us(&self, until_us: u64) {
        self.page().trusted_until_us.store(until_us, Ordering::Release);
    }

    /// At which reading of the job's CPU time it has to be stopped, and until when (`CLOCK_BOOTTIME`, µs) it may run at all.
    pub fn set_bounds(&self, stop_at: Option<Microseconds>, lease_ends_us: u64) {
        // One more, so that zero stands for none.
        let stop_at_us = stop_at.map_or(0, |at| at.0.saturating_add(1));
        self.page().stop_at_us.store(stop_at_us, Ordering::Release);
        self.page().lease_ends_us.store(lease_ends_us, Ordering::Release);
    }

    /// The first of them; `None` where CPU time alone does not say when.
    #[must_use]
    pub fn stop_at(&self) -> Option<Microseconds> {
        self.page().stop_at_us.load(Ordering::Acquire).checked_sub(1).map(Microseconds)
    }

    /// The second of them.
    #[must_use]
    pub fn lease_ends_us(&self) -> u64 {
        self.page().lease_ends_us.load(Ordering::Acquire)
    }

    /// Whether the front stopped itself, since the command was stopped by job control.
    #[must_use]
    pub fn front_paused(&self) -> bool {
        self.page().front_paused.load(Ordering::Acquire)
    }

    /// Says so.
    pub fn set_front_paused(&self, paused: bool) {
        self.page().front_paused.store(paused, Ordering::Release);
    }

    /// CPU time, in µs, of everything that the front has waited for: the job's orphans come to it as well.
    #[must_use]
    pub fn reaped_us(&self) -> u64 {
        self.page().reaped_us.load(Ordering::Acquire)
    }

    /// Says so, after a wait.
    pub fn set_reaped_us(&self, us: u64) {
        self.page().reaped_us.store(us, Ordering::Release);
    }

    /// What the front asks its witness.
    #[must_use]
    pub(super) fn witness_asked(&self) -> &AtomicU32 {
        &self.page().witness_asked
    }

    /// What the witness answered last.
    #[must_use]
    pub(super) fn witness_answered(&self) -> &AtomicU32 {
        &self.page().witness_answered
    }

    /// Whether the keeper has killed, settled and written everything.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.page().settled.load(Ordering::Acquire)
    }

    /// Says so.
    pub fn set_settled(&self) {
        self.page().settled.store(true, Ordering::Release);
    }
}
