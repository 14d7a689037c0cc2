//! The terminal's title shows what is left while a job runs. Never anything in the job's own output: nothing is written
//! unless standard error is a terminal and nobody asked for quiet.

use std::io::{IsTerminal, Write};

use super::options::RunOptions;
use crate::domain::job::AccountState;
use crate::domain::printable::printable;
use crate::ledger::protocol::Balance;

/// The title of the terminal, if there is one.
#[derive(Debug)]
pub(super) struct Title {
    terminal: Option<std::fs::File>,
    shown: String,
}

impl Title {
    pub(super) fn of_terminal(options: &RunOptions) -> Self {
        // A handle of its own that never blocks: a terminal stopped by Ctrl-S must not stop the meter.
        let terminal = Self::is_wanted(options).then(|| {
            use std::os::unix::fs::OpenOptionsExt;
            let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY | nix::libc::O_CLOEXEC;
            std::fs::OpenOptions::new().write(true).custom_flags(flags).open("/proc/self/fd/2").ok()
        });
        Self { terminal: terminal.flatten(), shown: String::new() }
    }

    /// Whether somebody watches who wants to be told more than what has to be.
    pub(super) fn is_wanted(options: &RunOptions) -> bool {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        !options.quiet && !is_dumb && std::io::stderr().is_terminal()
    }

    /// Shows what is left, as far as it is known between two answers of the ledger.
    pub(super) fn show(&mut self, balance: Balance, account: AccountState, now_us: u64) {
        let (Some(terminal), Some(left)) = (&mut self.terminal, balance.left) else { return };
        let burned = u128::from(account.burn_per_second.at_least_zero().0.unsigned_abs())
            * u128::from(now_us.saturating_sub(account.at_us))
            / 1_000_000;
        let left = left.0.saturating_sub(i64::try_from(burned).unwrap_or(i64::MAX)).max(0);
        let of = balance.limit.map(|limit| format!(" of {}", super::summary::credits(limit))).unwrap_or_default();
        let text = format!("{}{of} credits left", super::summary::credits(crate::domain::units::Nanocredits(left)));
        if text != self.shown {
            write!(terminal, "\x1b]0;{}\x07", printable(&text)).ok();
            self.shown = text;
        }
    }
}

impl Drop for Title {
    fn drop(&mut self) {
        if let (Some(terminal), false) = (&mut self.terminal, self.shown.is_empty()) {
            write!(terminal, "\x1b]0;\x07").ok();
        }
    }
}
