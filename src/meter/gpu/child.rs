//! The helper process: started or joined, asked, abandoned when it hangs, and started anew.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use super::declared::Selection;
use super::node;
use super::options::{Giver, GpuOptions};
use super::program;
use super::wire::{Ask, Fault, Listed, Told, line};
use crate::sys::clock::{Clock, SystemClock, after, is_before};
use crate::sys::poll::readable;
use crate::sys::process::spawn_orphan;

/// No answer is longer: 112 MIG devices with full rings.
const ANSWER_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Every process of a job has it.
const ATTEMPT_VARIABLE: &str = "JOBMETER_ATTEMPT";
/// Until a helper runs.
pub(super) const READY_WAIT_MAX: Duration = Duration::from_secs(5);
/// No question waits longer for a helper that does not read: it is a few lines, and the kernel keeps them for it.
const WRITE_WAIT_MAX: Duration = Duration::from_millis(100);

/// A running helper.
#[derive(Debug)]
pub struct Helper {
    link: UnixStream,
    /// `None` where it is the machine's.
    child: Option<Child>,
    unread: Vec<u8>,
    /// It has told of an opening.
    opened: bool,
}

impl Helper {
    /// Starts one, with the library that the operator has named or the system's.
    ///
    /// # Errors
    /// Where it is not there or cannot be started, for people.
    pub fn start(options: &GpuOptions) -> Result<Self, Fault> {
        let failed = |error: io::Error| Fault::failed(format!("the helper cannot be started: {error}"));
        let (link, end) = UnixStream::pair().map_err(failed)?;
        let mut command = program::command(options, end.into())?;
        let mut helper = command.spawn().and_then(|child| Self::of(link, Some(child))).map_err(failed)?;
        if options.giver == Giver::Container {
            helper.await_ready()?;
        }
        Ok(helper)
    }

    /// A process of the same user could take it over before that.
    fn await_ready(&mut self) -> Result<(), Fault> {
        let line = self.line(after(READY_WAIT_MAX))?.unwrap_or_default();
        match serde_json::from_slice(&line) {
            Ok(Told::Ready) => Ok(()),
            _ => Err(Fault::failed("the helper did not begin")),
        }
    }

    /// The one that all meters of this machine share; `None` where there is none.
    #[must_use]
    pub fn join(library: Option<&Path>) -> Option<Self> {
        let link = node::connect(&program::path().ok()?, program::absolute(library).as_deref()).ok()??;
        let mut helper = Self::of(link, None).ok()?;
        // By an empty line it knows a meter, with the last of which it ends.
        helper.link.write_all(b"\n").ok()?;
        Some(helper)
    }

    fn of(link: UnixStream, child: Option<Child>) -> io::Result<Self> {
        link.set_write_timeout(Some(WRITE_WAIT_MAX))?;
        Ok(Self { link, child, unread: Vec::new(), opened: false })
    }

    /// Its process id; `None` where it is not this process's own.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether others ask it as well.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.child.is_none()
    }

    /// Asks for the devices, and waits so long at most.
    ///
    /// # Errors
    /// Where it died or does not answer in time, or NVML tells nothing.
    pub fn list(&mut self, wait_max: Duration) -> Result<Listed, Fault> {
        self.send(&Ask::List)?;
        match self.receive(wait_max)? {
            Some(Told::Listed(listed)) => Ok(*listed),
            Some(Told::Failed(fault)) => Err(fault),
            Some(Told::Polled(_) | Told::Opened | Told::Ready) => Err(wrong_answer()),
            None => Err(Fault::failed(format!("NVML did not answer within {} ms", wait_max.as_millis()))),
        }
    }

    /// Asks one thing. Its answer has to be received before the next is asked.
    ///
    /// # Errors
    /// Where it died.
    pub fn send(&mut self, ask: &Ask) -> Result<(), Fault> {
        let line = line(ask).map_err(|error| Fault::failed(error.to_string()))?;
        self.link.write_all(&line).map_err(|error| Fault::failed(format!("the helper died: {error}")))
    }

    /// Its answer, or `None` where it has not answered within `wait_max`. After an error it is of no use any more.
    ///
    /// # Errors
    /// Where it died, or answers what is no answer.
    pub fn receive(&mut self, wait_max: Duration) -> Result<Option<Told>, Fault> {
        let until_us = after(wait_max);
        loop {
            let Some(line) = self.line(until_us)? else { return Ok(None) };
            match serde_json::from_slice(&line) {
                Ok(Told::Opened) => self.opened = true,
                Ok(Told::Ready) => {}
                Ok(told) => return Ok(Some(told)),
                Err(error) => return Err(Fault::failed(format!("the helper's answer is none: {error}"))),
            }
        }
    }

    /// Whether it has told of an opening since, while it is asked nothing.
    ///
    /// # Errors
    /// Where it died, or answers what it was not asked.
    pub fn heard_of_opening(&mut self) -> Result<bool, Fault> {
        match self.receive(Duration::ZERO)? {
            None => Ok(std::mem::take(&mut self.opened)),
            Some(_) => Err(wrong_answer()),
        }
    }

    fn line(&mut self, until_us: u64) -> Result<Option<Vec<u8>>, Fault> {
        let mut chunk = vec![0_u8; 64 * 1024];
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let rest = self.unread.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.unread, rest)));
            }
            let left = Duration::from_micros(until_us.saturating_sub(SystemClock.boottime_us()));
            let [answers] = readable([self.link.as_fd()], Some(left));
            if !answers {
                if is_before(until_us) {
                    continue;
                }
                return Ok(None);
            }
            match self.link.read(&mut chunk) {
                Ok(0) => return Err(Fault::failed("the helper died")),
                Ok(length) => self.unread.extend_from_slice(chunk.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::failed(format!("the helper's output: {error}"))),
            }
            if self.unread.len() > ANSWER_MAX_BYTES {
                return Err(Fault::failed("the helper's answer is too long"));
            }
        }
    }
}

/// Where the machine has no helper, one is started now, so that it is nobody's child: from a process that orphans are not given to yet,
/// and that has one thread. It loads the library when it is asked first, and ends with the last meter that is connected to it.
pub fn start_for_all(options: &GpuOptions) {
    // Within a job it would be a part of that.
    let is_in_job = std::env::var_os(ATTEMPT_VARIABLE).is_some();
    if is_in_job || !options.concern_a_gpu() || options.selection == Some(Selection::None) {
        return;
    }
    let start = || {
        let path = program::path().map_err(io::Error::other)?;
        let library = program::absolute(options.library.as_deref());
        let Some(listener) = node::listen(&path, library.as_deref())? else { return Ok(()) };
        let mut command = program::command(options, listener.into()).map_err(|fault| io::Error::other(fault.why))?;
        command.env_clear().envs(node::environment()).current_dir("/");
        spawn_orphan(&mut command)
    };
    // Without it, each meter has a helper of its own.
    let _started: io::Result<()> = start();
}

/// What is answered is not what was asked.
#[must_use]
pub fn wrong_answer() -> Fault {
    Fault::failed("the helper answered what it was not asked")
}

impl AsFd for Helper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

impl Drop for Helper {
    /// One that hangs in the kernel does not die of this at once; it is not waited for.
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.try_wait().ok();
        }
    }
}
