//! One thread wakes another one that waits for descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Readable from a ring on until it is silenced.
#[derive(Debug)]
pub struct Bell(EventFd);

impl Bell {
    /// A silent one.
    ///
    /// # Errors
    /// Where this process may open no more files.
    pub fn new() -> io::Result<Self> {
        Ok(Self(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
    }

    /// Wakes whoever waits for it, now or later.
    pub fn ring(&self) {
        // It fails only where it has rung 2^64 - 2 times, which is heard as well.
        let _rang = self.0.write(1);
    }

    /// Whether it had rung.
    #[must_use]
    pub fn silence(&self) -> bool {
        self.0.read().is_ok()
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
