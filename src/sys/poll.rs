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
    readable_or_told(fds, None, wait_max).0
}

/// The same, or until `told` has something to tell beside what can always be read there (POLLPRI): whether it has.
#[must_use]
pub fn readable_or_told<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    told: Option<BorrowedFd<'_>>,
    wait_max: Option<Duration>,
) -> ([bool; N], bool) {
    let wait_max = wait_max.map(TimeSpec::from_duration);
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    polled.extend(told.map(|told| PollFd::new(told, PollFlags::POLLPRI)));
    match ppoll(&mut polled, wait_max, None) {
        Ok(_) => {
            let mut found = polled.iter().map(|fd| fd.any().unwrap_or(false));
            (fds.map(|_| found.next().unwrap_or(false)), found.next().unwrap_or(false))
        }
        // RLIMIT_NOFILE was lowered below their number, which another process of this user may do (poll(2)). select(2) looks at
        // the descriptors there are.
        Err(Errno::EINVAL) => selected(fds, told, wait_max),
        Err(_) => ([false; N], false),
    }
}

/// The same of any number: which, in their order. None where nothing came within `wait_max`.
#[must_use]
pub fn readable_of(fds: &[BorrowedFd<'_>], wait_max: Option<Duration>) -> Vec<bool> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match ppoll(&mut polled, wait_max.map(TimeSpec::from_duration), None) {
        Ok(_) => polled.iter().map(|fd| fd.any().unwrap_or(false)).collect(),
        Err(_) => {
            pause(LOOK);
            vec![false; fds.len()]
        }
    }
}

/// Whether the other side of a socket has closed it.
#[must_use]
pub fn has_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    let at_once = Some(TimeSpec::from_duration(Duration::ZERO));
    let [told] = if ppoll(&mut polled, at_once, None).is_ok() { polled } else { return false };
    told.revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

fn selected<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    told: Option<BorrowedFd<'_>>,
    wait_max: Option<TimeSpec>,
) -> ([bool; N], bool) {
    let fits = |fd: &BorrowedFd<'_>| usize::try_from(fd.as_raw_fd()).is_ok_and(|number| number < FD_SETSIZE);
    if !fds.iter().chain(&told).all(fits) {
        pause(LOOK);
        return ([false; N], false);
    }
    let (mut read, mut except) = (FdSet::new(), FdSet::new());
    for fd in fds {
        read.insert(fd);
    }
    if let Some(fd) = told {
        except.insert(fd);
    }
    match pselect(None, &mut read, None, &mut except, &wait_max, None) {
        Ok(_) => (fds.map(|fd| read.contains(fd)), told.is_some_and(|fd| except.contains(fd))),
        Err(_) => ([false; N], false),
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
        assert_eq!(selected(fds, None, Some(TimeSpec::from_duration(Duration::ZERO))).0, [false, true]);
        drop(empty.1);
        assert_eq!(
            selected([empty.0.as_fd(), full.0.as_fd()], None, None).0,
            [true, true],
            "an end is something to read"
        );
    }
}
