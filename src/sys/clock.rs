//! The one place where a clock is read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::poll::ppoll;
use nix::sys::time::TimeSpec;

/// Two clocks: one for durations, one for people and for the ledger's periods.
pub trait Clock: Send {
    /// µs of `CLOCK_BOOTTIME`: counts on through a suspend, is never set.
    fn boottime_us(&self) -> u64;
    /// µs since 1970-01-01 UTC: may be set, forward and back.
    fn realtime_us(&self) -> i64;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn boottime_us(&self) -> u64 {
        // CLOCK_BOOTTIME exists since Linux 2.6.39; it cannot fail with a valid id.
        let now =
            nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
        u64::try_from(now.tv_sec()).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0) / 1_000
    }

    fn realtime_us(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
    }
}

/// Waits, or less where a signal comes.
pub fn pause(time: Duration) {
    ppoll(&mut [], Some(TimeSpec::from_duration(time)), None).ok();
}
