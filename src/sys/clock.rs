//! The one place where a clock is read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::poll::ppoll;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

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

/// A timer on `CLOCK_BOOTTIME`: a suspend of the machine does not stop it, and where its time has passed meanwhile it rings
/// at once.
#[derive(Debug)]
pub struct Alarm(TimerFd);

impl Alarm {
    /// Not set.
    ///
    /// # Errors
    /// Where the kernel has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?))
    }

    /// Makes it readable from `at_us` of `CLOCK_BOOTTIME` on, or never.
    pub fn set(&self, at_us: Option<u64>) {
        // A time of zero would unset it.
        let left = |us: u64| Duration::from_micros(us.saturating_sub(SystemClock.boottime_us()).max(1));
        let once = |us: u64| Expiration::OneShot(TimeSpec::from_duration(left(us)));
        // Neither call can fail on a timer of ours with a time in range (timerfd_settime(2)).
        match at_us {
            Some(us) => self.0.set(once(us), TimerSetTimeFlags::empty()),
            None => self.0.unset(),
        }
        .ok();
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// When so much time will have passed, in µs of `CLOCK_BOOTTIME`.
#[must_use]
pub fn after(wait: Duration) -> u64 {
    SystemClock.boottime_us().saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX))
}

/// Whether that time has not come yet.
#[must_use]
pub fn is_before(until_us: u64) -> bool {
    SystemClock.boottime_us() < until_us
}

/// Waits, or less where a signal comes.
pub fn pause(time: Duration) {
    ppoll(&mut [], Some(TimeSpec::from_duration(time)), None).ok();
}
/// Whoever suspends or continues several processes, one after the other, is done within this time.
const SUSPEND_WAIT: Duration = Duration::from_millis(50);

/// Waits for what is suspended or continued together with this process: whether it has been. Not where this process was itself
/// suspended meanwhile.
#[must_use]
pub fn outwaited_a_suspend() -> bool {
    let since_us = SystemClock.boottime_us();
    pause(SUSPEND_WAIT);
    is_before(since_us.saturating_add(2 * u64::try_from(SUSPEND_WAIT.as_micros()).unwrap_or(u64::MAX)))
}
