//! Command and front of a task say who they are, and the command is put into the job's group.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};

use super::handed::{Handed, NoMeter, told};
use crate::meter::select::Plan;
use crate::sys::clock::{Clock, SystemClock, after, is_before};
use crate::sys::handshake::{self, FirstWord};
use crate::sys::poll::readable;
use crate::sys::proc;
use crate::sys::process::{PidFd, exit_now, fork};
use crate::sys::tree::Stat;
use crate::sys::witness::WITNESS_BYTE;

/// What the command says first.
const COMMAND_BYTE: u8 = b'c';
/// What a front without a witness says first.
pub(super) const FRONT_BYTE: u8 = b'f';
/// How long both have to say their first word.
const FIRST_WORD_WAIT_MAX: Duration = Duration::from_mins(1);

/// Who has spoken by now.
pub(super) struct Arrivals<'a> {
    handed: &'a Handed,
    /// The job's user, whose both are.
    uid: u32,
    command: Option<FirstWord>,
    front: Option<FirstWord>,
    until_us: u64,
}

impl<'a> Arrivals<'a> {
    pub(super) fn new(handed: &'a Handed, uid: u32) -> Self {
        Self { handed, uid, command: None, front: None, until_us: after(FIRST_WORD_WAIT_MAX) }
    }

    /// Which process waits to become the command, as the kernel says. It speaks before the front has been executed.
    pub(super) fn await_command(&mut self) -> Result<FirstWord, NoMeter> {
        loop {
            if let Some(command) = self.command.take() {
                if self.is_child(&command) && command.handed.is_some() {
                    return Ok(command);
                }
                return Err(NoMeter(format!(
                    "process {} is not the command of task {}",
                    command.pid, self.handed.task
                )));
            }
            self.listen()?;
        }
    }

    /// The front's witness; `None` where it has none, and then each signal is handed on.
    pub(super) fn await_front(mut self) -> Result<Option<FirstWord>, NoMeter> {
        loop {
            if let Some(front) = self.front.take() {
                is_out_of_reach(self.handed.task)?;
                let is_witness = front.byte == WITNESS_BYTE && self.is_child(&front);
                return Ok(is_witness.then_some(front));
            }
            self.listen()?;
        }
    }

    fn is_child(&self, word: &FirstWord) -> bool {
        word.uid == self.uid && Stat::read(word.pid).is_some_and(|stat| stat.parent == self.handed.task.as_raw())
    }

    fn listen(&mut self) -> Result<(), NoMeter> {
        if !is_before(self.until_us) {
            return Err(NoMeter("the task did not say that it was there".to_owned()));
        }
        let left = Duration::from_micros(self.until_us.saturating_sub(SystemClock.boottime_us()));
        let [spoken] = readable([self.handed.channel.as_fd()], Some(left));
        if !spoken {
            return Ok(());
        }
        let received = handshake::receive(self.handed.channel.as_fd()).map_err(told("the task's first word"))?;
        let word = received.ok_or_else(|| NoMeter("the task ended before it began".to_owned()))?;
        match word.byte {
            COMMAND_BYTE => self.command = Some(word),
            WITNESS_BYTE => self.front = Some(word),
            FRONT_BYTE if word.pid == self.handed.task.as_raw() => self.front = Some(word),
            // What else the front says by now is for a keeper.
            _ => {}
        }
        Ok(())
    }
}

/// A program that its user can read can be traced by him until it says otherwise, and what a traced front starts is in no job's group
/// (ptrace(2), `would_dump` in fs/exec.c).
fn is_out_of_reach(front: Pid) -> Result<(), NoMeter> {
    let link = proc::path(front.as_raw(), "exe").map_err(told("the front's program"))?;
    let mode = std::fs::metadata(&link).map_err(told("the front's program"))?.permissions().mode();
    if mode & 0o044 == 0 {
        return Ok(());
    }
    Err(NoMeter("the front's program can be read by the job's user, who could take it over: chmod 711".to_owned()))
}

/// Puts a process into the job's group; whether it is there.
pub(super) fn take_in(plan: &Plan, word: &FirstWord) -> bool {
    // A number is a process's own while that lives.
    let Ok(held) = PidFd::open(Pid::from_raw(word.pid)) else { return false };
    !held.has_ended() && plan.containment().take_in(word.pid) && !held.has_ended()
}

/// A process that puts the command into the job's group. The kernel waits some milliseconds before it moves a process by its number (a
/// grace period of RCU, `percpu_down_write`), and much else can be done meanwhile.
pub(super) struct Mover {
    process: Pid,
    says: OwnedFd,
}

impl Mover {
    /// The caller has one thread.
    pub(super) fn start(plan: &Plan, command: &FirstWord) -> io::Result<Self> {
        let (says, is_in) = pipe2(OFlag::O_CLOEXEC)?;
        let Some(process) = fork()? else {
            let is_told = take_in(plan, command) && nix::unistd::write(&is_in, b"i").is_ok();
            exit_now(i32::from(!is_told));
        };
        Ok(Self { process, says })
    }

    /// Waits for it; whether the command is there.
    pub(super) fn has_moved(self) -> bool {
        let is_in = handshake::is_told(self.says.as_fd());
        while waitpid(self.process, None) == Err(Errno::EINTR) {}
        is_in
    }
}
