//! Signals by their numbers, 1 to 64: neither nix nor glibc let one name the real-time ones, or the two that glibc keeps for itself
//! (32 and 33). The front takes them from a descriptor, so that none interrupts anything.

use std::fs::File;
use std::io::{self, Read};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

pub use libc::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGURG, SIGWINCH};

/// The highest number (`_NSIG`, asm/signal.h).
const NUMBER_MAX: i32 = 64;
/// Bytes of the kernel's set of signals.
const SET_BYTES: usize = 8;

/// A set of signals, as the kernel has it: signal N is bit N - 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(u64);

impl SignalSet {
    /// The set of none.
    pub const EMPTY: Self = Self(0);
    /// All of them; the kernel leaves KILL and STOP out by itself.
    pub const ALL: Self = Self(u64::MAX);

    /// From the kernel's bits.
    #[must_use]
    pub const fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As the kernel and `/proc/PID/status` write it.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    const fn bit(number: i32) -> u64 {
        if 1 <= number && number <= NUMBER_MAX { 1 << (number - 1) } else { 0 }
    }

    /// With this one; a number that is no signal changes nothing.
    #[must_use]
    pub const fn with(self, number: i32) -> Self {
        Self(self.0 | Self::bit(number))
    }

    /// Without this one; a number that is no signal changes nothing.
    #[must_use]
    pub const fn without(self, number: i32) -> Self {
        Self(self.0 & !Self::bit(number))
    }

    /// Whether it is in it.
    #[must_use]
    pub const fn contains(self, number: i32) -> bool {
        self.0 & Self::bit(number) != 0
    }

    /// Which are in it.
    pub fn numbers(self) -> impl Iterator<Item = i32> {
        (1..=NUMBER_MAX).filter(move |number| self.contains(*number))
    }
}

/// `rt_sigprocmask(2)` as it is: glibc's leaves 32 and 33 as they are. Safe between fork and exec.
fn change_mask(how: libc::c_int, set: Option<SignalSet>) -> SignalSet {
    let mut before = 0_u64;
    let set = set.map(SignalSet::bits);
    let new = set.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both sets are of the size that is named, and outlive the call; it fails only on a wrong argument.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, new, &raw mut before, SET_BYTES) };
    SignalSet(before)
}

/// What this thread blocks.
#[must_use]
pub fn mask() -> SignalSet {
    change_mask(libc::SIG_BLOCK, None)
}

/// Blocks exactly these. Safe between fork and exec.
pub fn set_mask(set: SignalSet) {
    change_mask(libc::SIG_SETMASK, Some(set));
}

/// What glibc needs to go on between threads (`SIGCANCEL`, `SIGSETXID`, nptl), for a process that has some.
pub const OF_GLIBC: [i32; 2] = [32, 33];

/// The kernel's `struct sigaction` begins with the handler on every architecture that Linux has; no more is needed to ignore.
type RawAction = [usize; 8];

fn action(number: i32, new: Option<usize>) -> Option<usize> {
    let mut before: RawAction = [0; 8];
    let new = new.map(|handler| [handler, 0, 0, 0, 0, 0, 0, 0]);
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both are longer than the kernel's struct, whose other fields are zero: no flags, no mask, no handler of ours.
    let done = unsafe { libc::syscall(libc::SYS_rt_sigaction, number, new, &raw mut before, SET_BYTES) };
    (done == 0).then_some(before[0])
}

/// Whether this process ignores it.
#[must_use]
pub fn is_ignored(number: i32) -> bool {
    action(number, None) == Some(libc::SIG_IGN)
}

/// Ignores it, or gives it its default action. Safe between fork and exec.
pub fn set_ignored(number: i32, ignored: bool) {
    action(number, Some(if ignored { libc::SIG_IGN } else { libc::SIG_DFL }));
}

/// One of `set` that is pending, taken without waiting. Safe between fork and exec.
#[must_use]
pub fn take_pending(set: SignalSet) -> Option<i32> {
    let (bits, at_once) = (set.bits(), libc::timespec { tv_sec: 0, tv_nsec: 0 });
    let no_info = std::ptr::null_mut::<libc::siginfo_t>();
    // SAFETY: set and time outlive the call, and no information is asked for.
    let taken =
        unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, &raw const bits, no_info, &raw const at_once, SET_BYTES) };
    i32::try_from(taken).ok().filter(|number| *number > 0)
}

/// What people and schedulers send to end something, and most commands end of.
pub const ENDING: SignalSet = SignalSet::EMPTY.with(SIGINT).with(SIGTERM).with(SIGHUP).with(SIGQUIT);

/// Signals that are waited for.
#[derive(Debug)]
pub struct Signals(File);

/// One that came from outside this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// From 1 to 64.
    pub number: i32,
    /// What came with it, where it was queued (sigqueue(3)).
    value: Option<u64>,
}

impl Signals {
    /// Blocks them and opens the descriptor. What is blocked neither ends nor stops this process, and SIGTTOU among them lets it
    /// speak to the terminal from the background.
    ///
    /// # Errors
    /// Where the kernel has no descriptor left.
    pub fn take(set: SignalSet) -> io::Result<Self> {
        let bits = set.bits();
        change_mask(libc::SIG_BLOCK, Some(set));
        // A parent that ignores SIGCHLD would make the kernel reap the job's processes before they are seen.
        if set.contains(libc::SIGCHLD) {
            set_ignored(libc::SIGCHLD, false);
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the set outlives the call, which returns a new descriptor.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const bits, SET_BYTES, flags) })?;
        let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        // SAFETY: the kernel has just returned this descriptor; nothing else owns it.
        Ok(Self(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// The next one that has come from outside: what this process causes itself (SIGPIPE) is not for the command.
    pub fn arrived(&mut self) -> Option<Arrived> {
        let own = std::process::id();
        loop {
            let mut bytes = [0_u8; size_of::<libc::signalfd_siginfo>()];
            (&self.0).read_exact(&mut bytes).ok()?;
            // SAFETY: a record of plain numbers, of which every pattern of bits is one.
            let info: libc::signalfd_siginfo = unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) };
            let is_word = info.ssi_signo == SIGCONT.cast_unsigned() && OF_DESCRIPTOR.contains(&info.ssi_code);
            let is_own = is_word || (info.ssi_pid == own && info.ssi_code != libc::SI_KERNEL);
            if let (Ok(number), false) = (i32::try_from(info.ssi_signo), is_own) {
                let value = (info.ssi_code == libc::SI_QUEUE).then_some(info.ssi_ptr);
                return Some(Arrived { number, value });
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Arrived {
    /// Sends the same to a process that the caller has not waited for yet.
    ///
    /// # Errors
    /// Where it may not be signalled.
    pub fn send_to(self, pid: Pid) -> io::Result<()> {
        let Some(value) = self.value else { return send(pid, self.number) };
        let queued = Queued { number: self.number, code: libc::SI_QUEUE, value, ..Queued::default() };
        // SAFETY: the record is as long as the kernel's siginfo, and outlives the call.
        let sent = unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, pid.as_raw(), self.number, &raw const queued) };
        Errno::result(sent)?;
        Ok(())
    }
}

/// `siginfo_t` of a queued signal on 64-bit Linux (asm-generic/siginfo.h).
#[repr(C)]
#[derive(Default)]
struct Queued {
    number: i32,
    errno: i32,
    code: i32,
    padding: i32,
    pid: i32,
    uid: u32,
    value: u64,
    rest: [u64; 12],
}

/// kill(2) by number, to one process.
///
/// # Errors
/// Where it may not be signalled, or `pid` is none: 0 and -1 would mean whole groups.
pub fn send(pid: Pid, number: i32) -> io::Result<()> {
    if pid.as_raw() <= 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: kill takes two numbers.
    Errno::result(unsafe { libc::kill(pid.as_raw(), number) })?;
    Ok(())
}

/// killpg(3) by number.
///
/// # Errors
/// Where the group may not be signalled, or is none.
pub fn send_to_group(group: Pid, number: i32) -> io::Result<()> {
    if group.as_raw() <= 1 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: killpg takes two numbers.
    Errno::result(unsafe { libc::killpg(group.as_raw(), number) })?;
    Ok(())
}

/// Nothing else of this process gets it.
fn raise(number: i32) {
    // SAFETY: numbers alone.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::syscall(libc::SYS_gettid), number) };
}

/// Ends this process by a signal, without a second core dump; returns where that signal does not end a process.
pub fn die_of(number: i32) {
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0).ok();
    set_ignored(number, false);
    raise(number);
    change_mask(libc::SIG_UNBLOCK, Some(SignalSet::EMPTY.with(number)));
}

/// Those that stop a process which neither blocks nor ignores them.
const STOPPING: [i32; 4] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// Stops this process by a signal, so that its shell sees the same as from the command itself; returns once it is continued. A
/// command that lets its parent trace it (PTRACE_TRACEME) stops at any signal, which would end this process: SIGSTOP does not.
pub fn stop_by(number: i32) {
    let number = if STOPPING.contains(&number) { number } else { libc::SIGSTOP };
    let was_ignored = is_ignored(number);
    if was_ignored {
        set_ignored(number, false);
    }
    raise(number);
    let before = change_mask(libc::SIG_UNBLOCK, Some(SignalSet::EMPTY.with(number)));
    // Here it has stood still, until SIGCONT.
    set_mask(before);
    if was_ignored {
        set_ignored(number, true);
    }
}

/// `F_SETSIG` of fcntl(2), which the libc crate lacks: which signal a descriptor sends instead of SIGIO.
const SET_SIGNAL: libc::c_int = 10;
/// The reasons that come with a signal of a descriptor (POLL_IN to POLL_HUP, asm-generic/siginfo.h).
const OF_DESCRIPTOR: std::ops::RangeInclusive<i32> = 1..=6;

/// From now on SIGCONT comes to this process from the kernel when the other side of this socket says something or closes it, so that
/// it goes on where it was stopped; or no more. Nothing refuses that for a socket of one's own (fcntl(2)).
pub fn continue_at_word(socket: BorrowedFd<'_>, comes: bool) {
    let fd = socket.as_raw_fd();
    let own = if comes { libc::pid_t::try_from(std::process::id()).unwrap_or(0) } else { 0 };
    // SAFETY: fcntl takes and returns numbers here, and the descriptor is open.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        let flags = if comes { flags | libc::O_ASYNC } else { flags & !libc::O_ASYNC };
        libc::fcntl(fd, SET_SIGNAL, if comes { SIGCONT } else { 0 });
        libc::fcntl(fd, libc::F_SETOWN, own);
        libc::fcntl(fd, libc::F_SETFL, flags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_the_kernel_calls_by_these_numbers() {
        let set = SignalSet::EMPTY.with(1).with(33).with(64).with(0).with(65).with(-1);
        assert_eq!(set.numbers().collect::<Vec<_>>(), [1, 33, 64]);
        assert_eq!(set.bits(), 1 | 1 << 32 | 1 << 63);
        assert!(!set.without(33).contains(33) && set.contains(64) && !set.contains(0));
        assert_eq!(SignalSet::ALL.numbers().count(), 64);
    }

    #[test]
    fn nothing_but_one_process_or_one_group_is_signalled() {
        for pid in [0, -1, -2] {
            assert!(send(Pid::from_raw(pid), 0).is_err() && send_to_group(Pid::from_raw(pid), 0).is_err(), "{pid}");
        }
        assert!(send_to_group(Pid::from_raw(1), 0).is_err());
    }
}
