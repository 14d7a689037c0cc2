//! The helper process: started, asked, abandoned when it hangs, and started anew.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::wire::{Ask, Fault, Told};
use crate::sys::clock::{Clock, SystemClock};

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

    /// Asks, and waits so long at most. After an error it is of no use any more.
    ///
    /// # Errors
    /// Where it died or does not answer in time.
    pub fn ask(&mut self, ask: &Ask, wait_max: Duration) -> Result<Told, Fault> {
        let mut line = serde_json::to_vec(ask).map_err(|error| Fault::failed(error.to_string()))?;
        line.push(b'\n');
        let stdin = self.child.stdin.as_mut().ok_or_else(|| Fault::failed("the helper has no input"))?;
        stdin.write_all(&line).map_err(|error| Fault::failed(format!("the helper died: {error}")))?;
        let answer = self.line(wait_max)?;
        serde_json::from_slice(&answer).map_err(|error| Fault::failed(format!("the helper's answer is none: {error}")))
    }

    fn line(&mut self, wait_max: Duration) -> Result<Vec<u8>, Fault> {
        let until_us =
            SystemClock.boottime_us().saturating_add(u64::try_from(wait_max.as_micros()).unwrap_or(u64::MAX));
        let mut chunk = vec![0_u8; 64 * 1024];
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let rest = self.unread.split_off(end + 1);
                return Ok(std::mem::replace(&mut self.unread, rest));
            }
            let left_us = until_us.saturating_sub(SystemClock.boottime_us());
            let stdout = self.child.stdout.as_mut().ok_or_else(|| Fault::failed("the helper has no output"))?;
            let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
            let wait = TimeSpec::from_duration(Duration::from_micros(left_us));
            if left_us == 0 || ppoll(&mut fds, Some(wait), None).is_ok_and(|ready| ready == 0) {
                return Err(Fault::failed(format!("NVML did not answer within {} ms", wait_max.as_millis())));
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

impl Drop for Helper {
    /// One that hangs in the kernel does not die of this at once; it is not waited for.
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.try_wait().ok();
    }
}
