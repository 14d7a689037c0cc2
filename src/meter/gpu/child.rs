//! The helper process: started, asked, abandoned when it hangs, and started anew.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::wire::{Ask, Fault, Listed, Told};
use crate::sys::clock::{Clock, SystemClock, after, is_before};
use crate::sys::poll::readable;

/// Beside jobmeter itself, or where packages put what is not for users.
const NAME: &str = "jobmeter-nvml";
const LIBEXEC: &str = "/usr/libexec/jobmeter";
/// What could make the loader take another library than the system's.
const LOADER_VARIABLES: [&str; 4] = ["LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT", "JOBMETER_KEY"];
/// No answer is longer: 112 MIG devices with full rings.
const ANSWER_MAX_BYTES: usize = 8 * 1024 * 1024;

/// A running helper.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    unread: Vec<u8>,
}

/// Where the helper is.
///
/// # Errors
/// Where it is not, for people.
pub fn path() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("it cannot be told where jobmeter lies: {error}"))?;
    let beside = own.with_file_name(NAME);
    // Test binaries of cargo lie one directory below.
    let above = own.parent().and_then(Path::parent).map(|directory| directory.join(NAME));
    let places = [Some(beside.clone()), above, Some(Path::new(LIBEXEC).join(NAME))];
    let found = places.into_iter().flatten().find(|path| path.is_file());
    found.ok_or_else(|| format!("{} is not there", beside.display()))
}

impl Helper {
    /// Starts one, with the library that the operator has named or the system's.
    ///
    /// # Errors
    /// Where it is not there or cannot be started, for people.
    pub fn start(library: Option<&Path>) -> Result<Self, Fault> {
        let path = path().map_err(Fault::failed)?;
        let mut command = Command::new(&path);
        command.args(library).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        for variable in LOADER_VARIABLES {
            command.env_remove(variable);
        }
        let child = command.spawn().map_err(|error| Fault::failed(format!("{}: {error}", path.display())))?;
        Ok(Self { child, unread: Vec::new() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
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
            Some(Told::Polled(_)) => Err(wrong_answer()),
            None => Err(Fault::failed(format!("NVML did not answer within {} ms", wait_max.as_millis()))),
        }
    }

    /// Asks one thing. Its answer has to be received before the next is asked.
    ///
    /// # Errors
    /// Where it died.
    pub fn send(&mut self, ask: &Ask) -> Result<(), Fault> {
        let mut line = serde_json::to_vec(ask).map_err(|error| Fault::failed(error.to_string()))?;
        line.push(b'\n');
        let stdin = self.child.stdin.as_mut().ok_or_else(|| Fault::failed("the helper has no input"))?;
        stdin.write_all(&line).map_err(|error| Fault::failed(format!("the helper died: {error}")))
    }

    /// Its answer, or `None` where it has not answered within `wait_max`. After an error it is of no use any more.
    ///
    /// # Errors
    /// Where it died, or answers what is no answer.
    pub fn receive(&mut self, wait_max: Duration) -> Result<Option<Told>, Fault> {
        let Some(line) = self.line(wait_max)? else { return Ok(None) };
        let told = serde_json::from_slice(&line);
        told.map(Some).map_err(|error| Fault::failed(format!("the helper's answer is none: {error}")))
    }

    fn line(&mut self, wait_max: Duration) -> Result<Option<Vec<u8>>, Fault> {
        let until_us = after(wait_max);
        let mut chunk = vec![0_u8; 64 * 1024];
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let rest = self.unread.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.unread, rest)));
            }
            let stdout = self.child.stdout.as_mut().ok_or_else(|| Fault::failed("the helper has no output"))?;
            let left = Duration::from_micros(until_us.saturating_sub(SystemClock.boottime_us()));
            let [answers] = readable([stdout.as_fd()], Some(left));
            if !answers {
                if is_before(until_us) {
                    continue;
                }
                return Ok(None);
            }
            match stdout.read(&mut chunk) {
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

/// What is answered is not what was asked.
#[must_use]
pub fn wrong_answer() -> Fault {
    Fault::failed("the helper answered what it was not asked")
}

impl Drop for Helper {
    /// One that hangs in the kernel does not die of this at once; it is not waited for.
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.try_wait().ok();
    }
}
