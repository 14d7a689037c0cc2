//! The terminal that the user started jobmeter on: modes and foreground group, to be put back after a job that was
//! killed while it had changed them.

use std::fs::File;
use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// The controlling terminal, as it was found.
#[derive(Debug)]
pub struct Terminal {
    tty: File,
    modes: Option<Termios>,
}

impl Terminal {
    /// Opens the controlling terminal; `None` where there is none.
    #[must_use]
    pub fn controlling() -> Option<Self> {
        let tty = File::options().read(true).write(true).open("/dev/tty").ok()?;
        let modes = tcgetattr(tty.as_fd()).ok();
        Some(Self { tty, modes })
    }

    /// Which process group is in the foreground.
    #[must_use]
    pub fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(self.tty.as_fd()).ok()
    }

    /// Puts a group into the foreground. SIGTTOU is blocked for that, since a caller in the background would be
    /// stopped by it.
    pub fn set_foreground(&self, group: Pid) {
        let mut only = SigSet::empty();
        only.add(Signal::SIGTTOU);
        let mut before = SigSet::empty();
        if sigprocmask(SigmaskHow::SIG_BLOCK, Some(&only), Some(&mut before)).is_ok() {
            // A group that has gone cannot be put there (EPERM); then nothing is to be done.
            tcsetpgrp(self.tty.as_fd(), group).ok();
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None).ok();
        }
    }

    /// After the job: the foreground goes back to jobmeter's group if the job's, which is gone, still has it, and after
    /// a kill the modes go back to what they were.
    pub fn restore(&self, killed: bool) {
        let own = getpgrp();
        let gone = |group: Pid| nix::sys::signal::killpg(group, None).is_err();
        if self.foreground().is_some_and(|group| group != own && gone(group)) {
            self.set_foreground(own);
        }
        if killed
            && self.foreground() == Some(own)
            && let Some(modes) = &self.modes
        {
            tcsetattr(self.tty.as_fd(), SetArg::TCSADRAIN, modes).ok();
        }
    }
}
