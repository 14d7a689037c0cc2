//! Waits for descriptors, also where somebody has left this process none.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::select::{FD_SETSIZE, FdSet, pselect};
use nix::sys::time::TimeSpec;

use super::clock::pause;

/// Between two looks where nothing can be waited for.
const LOOK: Duration = Duration::from_millis(1);

/// Waits until one of them can be read, at most `wait_max`, or less where a signal comes: which.
#[must_use]
pub fn readable<const N: usize>(fds: [BorrowedFd<'_>; N], wait_max: Option<Duration>) -> [bool; N] {
    let wait_max = wait_max.map(TimeSpec::from_duration);
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match ppoll(&mut polled, wait_max, None) {
        Ok(_) => polled.map(|fd| fd.any().unwrap_or(false)),
        // RLIMIT_NOFILE was lowered below their number, which another process of this user may do (poll(2)). select(2) looks at
        // the descriptors there are.
        Err(Errno::EINVAL) => selected(fds, wait_max),
        Err(_) => [false; N],
    }
}

fn selected<const N: usize>(fds: [BorrowedFd<'_>; N], wait_max: Option<TimeSpec>) -> [bool; N] {
    let fits = |fd: &BorrowedFd<'_>| usize::try_from(fd.as_raw_fd()).is_ok_and(|number| number < FD_SETSIZE);
    let mut set = FdSet::new();
    fds.iter().filter(|fd| fits(fd)).for_each(|fd| set.insert(*fd));
    if !fds.iter().all(fits) {
        pause(LOOK);
        return [false; N];
    }
    match pselect(None, &mut set, None, None, &wait_max, None) {
        Ok(_) => fds.map(|fd| set.contains(fd)),
        Err(_) => [false; N],
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn both_ways_tell_the_same() {
        let (empty, full) = (nix::unistd::pipe().unwrap(), nix::unistd::pipe().unwrap());
        nix::unistd::write(&full.1, b"x").unwrap();
        let fds = [empty.0.as_fd(), full.0.as_fd()];
        assert_eq!(readable(fds, Some(Duration::ZERO)), [false, true]);
        assert_eq!(selected(fds, Some(TimeSpec::from_duration(Duration::ZERO))), [false, true]);
        drop(empty.1);
        assert_eq!(selected([empty.0.as_fd(), full.0.as_fd()], None), [true, true], "an end is something to read");
    }
}
