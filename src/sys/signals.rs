//! Signals of the front: taken from a descriptor, so that none interrupts anything, and told apart by who sent them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Everything that a user, a shell or a scheduler may send and that means something to the command.
const PASSED: [Signal; 12] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGWINCH,
    Signal::SIGXCPU,
    Signal::SIGPROF,
];

/// The signals that the front waits for.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    mask_before: SigSet,
    ignored_before: Vec<Signal>,
}

/// One that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Which.
    pub signal: Signal,
    /// Made by the kernel, as the terminal's: the command's group has got it as well.
    pub by_kernel: bool,
}

impl Signals {
    /// Blocks the signals and opens the descriptor. SIGTTOU and SIGTTIN are ignored, so that the front may speak to the
    /// terminal from the background.
    ///
    /// # Errors
    /// Where the kernel has no descriptor left.
    pub fn take() -> io::Result<Self> {
        let mut set: SigSet = PASSED.into_iter().collect();
        set.add(Signal::SIGCHLD);
        let mut mask_before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut mask_before))?;
        let ignored_before = [Signal::SIGTTOU, Signal::SIGTTIN].into_iter().filter(|signal| ignore(*signal)).collect();
        // A parent that ignores SIGCHLD would make the kernel reap the job's processes before they are seen.
        set_disposition(Signal::SIGCHLD, SigHandler::SigDfl);
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { fd, mask_before, ignored_before })
    }

    /// The mask with which jobmeter was started.
    #[must_use]
    pub fn mask_before(&self) -> SigSet {
        self.mask_before
    }

    /// What was ignored when jobmeter was started.
    #[must_use]
    pub fn ignored_before(&self) -> Vec<Signal> {
        self.ignored_before.clone()
    }

    /// The next one that has come.
    pub fn arrived(&mut self) -> Option<Arrived> {
        loop {
            let info = self.fd.read_signal().ok().flatten()?;
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            if let Some(signal) = signal {
                return Some(Arrived { signal, by_kernel: info.ssi_code == libc::SI_KERNEL });
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn set_disposition(signal: Signal, handler: SigHandler) -> Option<SigAction> {
    // SAFETY: ignore and default run no code of ours.
    unsafe { sigaction(signal, &SigAction::new(handler, SaFlags::empty(), SigSet::empty())) }.ok()
}

/// Ignores it; whether it was ignored before.
fn ignore(signal: Signal) -> bool {
    set_disposition(signal, SigHandler::SigIgn).is_some_and(|before| matches!(before.handler(), SigHandler::SigIgn))
}

/// Ends this process by `signal`, without a second core dump; returns where that signal does not end a process.
pub fn die_of(signal: Signal) {
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0).ok();
    set_disposition(signal, SigHandler::SigDfl);
    nix::sys::signal::raise(signal).ok();
    let only: SigSet = [signal].into_iter().collect();
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&only), None).ok();
}

/// Stops this process by `signal`, so that its shell sees the same as from the command itself; returns once it is
/// continued.
pub fn stop_by(signal: Signal) {
    if signal == Signal::SIGSTOP {
        nix::sys::signal::raise(signal).ok();
        return;
    }
    let only: SigSet = [signal].into_iter().collect();
    let handler = set_disposition(signal, SigHandler::SigDfl);
    let mut mask = SigSet::empty();
    nix::sys::signal::raise(signal).ok();
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&only), Some(&mut mask)).ok();
    // Here it stands still, until SIGCONT.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None).ok();
    if let Some(before) = handler {
        set_disposition(signal, before.handler());
    }
}
