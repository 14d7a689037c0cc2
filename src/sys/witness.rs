//! Whether a signal came to the front alone or to its whole process group: `siginfo` does not tell.
//!
//! The witness is a process of the front's group that blocks every signal and reads none. It was made before the command, and the
//! kernel signals the newest process of a group first (attach_pid, kernel/pid.c): when the front reads a signal to the group, the
//! witness has it pending already, and the command has got it. It is a child of the keeper, so that it is no descendant of the
//! front's that a meter would count. What the keeper has pending as well, which is in no such group, was sent to processes one by one
//! (`pkill -f jobmeter`).
//!
//! Under a scheduler, which sends to all processes of a job, one by one or by their group, the front has two of its own: one where the job
//! is, one where only the front is.
//!
//! It shares its maker's memory (CLONE_VM): a fork would cost a short job 3 % more CPU time. So it has a stack and thread-local
//! storage of its own, for `errno`, and does nothing but system calls and atomics.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::clock::{Clock, SystemClock};
use super::proc;
use super::process::exit_now;
use super::shared::SharedPage;
use super::signals::{self, SignalSet, set_mask, take_pending};

/// A witness that does not answer within this time was stopped or killed.
const ANSWER_WAIT_MAX_US: u64 = 500_000;
/// A signal that was sent to each process by itself may reach the witness after the front: it is forgotten after this time, lest a
/// later one to the front alone be taken for one to the group.
const DOUBT: Duration = Duration::from_secs(1);

/// An answer: the question's number, and one of these.
const ANSWER_BITS: u32 = 8;
/// What stands in the place of a question once there is somebody to ask.
const UNASKED: u32 = 1 << ANSWER_BITS;
const NO: u32 = 1;
const YES: u32 = 2;

/// Its stack grows down from the middle of this; its thread-local storage lies around the middle of the other half.
const MEMORY_BYTES: usize = 256 * 1_024;

/// Its maker's hold on it: dropped, it ends.
#[derive(Debug)]
pub struct Witness(Pid);

/// Where a witness stands.
#[derive(Clone, Copy, Debug)]
pub enum Stand<'a> {
    /// In its maker's process group.
    InGroup,
    /// In the same, and it says so first, by one byte over this socket, so that somebody may move it to where the job is.
    WithJob(BorrowedFd<'a>),
    /// In a process group of its own, so that only what is sent to all processes around its maker reaches it.
    Apart,
}

/// The byte that a witness says first.
pub const WITNESS_BYTE: u8 = b'w';

/// What it is given.
struct Start {
    page: SharedPage,
    maker: Pid,
    greets: Option<RawFd>,
    is_apart: bool,
}

impl Witness {
    /// Makes it, a child of the caller.
    ///
    /// # Errors
    /// Where the kernel refuses another process; each signal is passed on then.
    pub fn start(page: SharedPage, stand: Stand<'_>) -> io::Result<Self> {
        let size = NonZeroUsize::new(MEMORY_BYTES).unwrap_or(NonZeroUsize::MIN);
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping touches no existing memory. It is never unmapped.
        let memory = unsafe { mmap_anonymous(None, size, access, MapFlags::MAP_PRIVATE) }?.as_ptr().cast::<u8>();
        let greets = if let Stand::WithJob(socket) = stand { Some(socket.as_raw_fd()) } else { None };
        let is_apart = matches!(stand, Stand::Apart);
        let start = Box::leak(Box::new(Start { page, maker: nix::unistd::getpid(), greets, is_apart }));
        // SAFETY: both lie within the mapping, aligned. On x86-64 the thread pointer points to itself (its psABI for TLS).
        let (stack, local) = unsafe {
            let local = memory.add(MEMORY_BYTES / 4 * 3);
            std::ptr::copy_nonoverlapping(std::ptr::from_ref(&local).cast::<u8>(), local, size_of::<*mut u8>());
            (memory.add(MEMORY_BYTES / 2), local)
        };
        let flags = libc::CLONE_VM | libc::CLONE_SETTLS | libc::SIGCHLD;
        let argument = std::ptr::from_mut(start).cast::<libc::c_void>();
        let none = std::ptr::null_mut::<libc::pid_t>();
        // SAFETY: stack, storage and argument live as long as the process; `watch` never returns and shares only atomics.
        let cloned = || Errno::result(unsafe { libc::clone(watch, stack.cast(), flags, argument, none, local, none) });
        // It begins with what stands there now: what the front asks before it looks is not missed.
        page.witness_asked().store(UNASKED, Ordering::Release);
        match cloned() {
            Ok(pid) => Ok(Self(Pid::from_raw(pid))),
            Err(error) => {
                page.witness_asked().store(0, Ordering::Release);
                Err(error.into())
            }
        }
    }
}

impl Witness {
    /// By which it is told from the job's processes.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.0
    }

    /// Ends it, and waits until it has ended: nothing of it is where the job is any more.
    pub fn end(self) {
        // It is the caller's child and not waited for yet.
        let _is_sent = signals::send(self.0, libc::SIGKILL);
        while waitpid(self.0, Some(WaitPidFlag::__WALL)) == Err(Errno::EINTR) {}
        std::mem::forget(self);
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // It is the caller's child and not waited for yet: the number is its own. It dies beside what the caller does next.
        signals::send(self.0, libc::SIGKILL).ok();
        waitpid(self.0, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)).ok();
    }
}

/// The front's side: what it asks its witness.
#[derive(Debug)]
pub struct Testimony {
    page: SharedPage,
    /// A process that is in no such group, if there is one.
    bystander: Option<Pid>,
    is_lost: bool,
}

impl Testimony {
    /// Of the witness behind this page.
    #[must_use]
    pub fn new(page: SharedPage, bystander: Option<Pid>) -> Self {
        Self { page, bystander, is_lost: false }
    }

    /// Whether a signal that has just been read came to the whole group. Where there is no witness any more: no.
    pub fn came_to_group(&mut self, number: i32) -> bool {
        let (asked, answered) = (self.page.witness_asked(), self.page.witness_answered());
        let last = asked.load(Ordering::Acquire) >> ANSWER_BITS;
        // Zero where none was made.
        let (false, Ok(asked_for), 1..) = (self.is_lost, u32::try_from(number), last) else { return false };
        let question = last.wrapping_add(1).max(1) << ANSWER_BITS;
        asked.store(question | asked_for, Ordering::Release);
        wake(asked);
        let answer = answer(answered, question);
        self.is_lost = answer.is_none();
        let has_bystander = |pid: Pid| proc::signals(pid.as_raw(), "ShdPnd:").contains(number);
        answer == Some(YES) && !self.bystander.is_some_and(has_bystander)
    }
}

fn answer(word: &AtomicU32, question: u32) -> Option<u32> {
    let until_us = SystemClock.boottime_us().saturating_add(ANSWER_WAIT_MAX_US);
    loop {
        let known = word.load(Ordering::Acquire);
        if known & !0xff == question {
            return Some(known & 0xff);
        }
        let left_us = until_us.checked_sub(SystemClock.boottime_us()).filter(|left_us| *left_us > 0)?;
        wait_for_change(word, known, Some(Duration::from_micros(left_us)));
    }
}

/// What the witness does, to its end.
extern "C" fn watch(start: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `start` was leaked by its maker for this; system calls on constants.
    let Start { page, maker, greets, is_apart } = unsafe { &*start.cast::<Start>() };
    // SAFETY: as above; nothing here uses a file after this.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, c"signal-witness".as_ptr());
        if let Some(socket) = greets {
            libc::send(*socket, [WITNESS_BYTE].as_ptr().cast(), 1, libc::MSG_NOSIGNAL);
        }
        if *is_apart {
            libc::setpgid(0, 0);
        }
        close_all_files();
    }
    if nix::unistd::getppid() != *maker {
        exit_now(0);
    }
    set_mask(SignalSet::ALL);
    let (asked, answered) = (page.witness_asked(), page.witness_answered());
    let (mut known, mut doubted) = (UNASKED, SignalSet::EMPTY);
    loop {
        let wait_max = (doubted != SignalSet::EMPTY).then_some(DOUBT);
        if !wait_for_change(asked, known, wait_max) {
            while take_pending(doubted).is_some() {}
            doubted = SignalSet::EMPTY;
        }
        let question = asked.load(Ordering::Acquire);
        if question == known {
            continue;
        }
        known = question;
        let Ok(number) = i32::try_from(question & 0xff) else { continue };
        let has_it = has_got(number);
        if !has_it {
            doubted = doubted.with(number);
        }
        answered.store((question & !0xff) | if has_it { YES } else { NO }, Ordering::Release);
        wake(answered);
    }
}

/// Whether it is pending here, or was: SIGCONT takes back what would stop, and the other way around (signal(7)). A stop that was taken
/// back need not be passed on; a SIGCONT that was is, since one too many does no harm.
fn has_got(number: i32) -> bool {
    let of_stop = matches!(number, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
    let one = |number| take_pending(SignalSet::EMPTY.with(number)).is_some();
    one(number) || (of_stop && one(libc::SIGCONT))
}

/// # Safety
/// Nothing of this process may use a file any more.
unsafe fn close_all_files() {
    // SAFETY: as the caller promised.
    unsafe {
        if libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) != 0 {
            // Linux before 5.9.
            for number in 0..4_096 {
                libc::syscall(libc::SYS_close, number);
            }
        }
    }
}

/// Waits until a word that processes share is not `known` any more (futex(2)), or something else wakes this one: `false` where the time
/// was over.
fn wait_for_change(word: &AtomicU32, known: u32, wait_max: Option<Duration>) -> bool {
    let time = wait_max.map(|wait| libc::timespec {
        tv_sec: libc::time_t::try_from(wait.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(wait.subsec_nanos()),
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: word and time outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, known, time) };
    done == 0 || Errno::last() != Errno::ETIMEDOUT
}

fn wake(word: &AtomicU32) {
    // SAFETY: the word outlives the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}
