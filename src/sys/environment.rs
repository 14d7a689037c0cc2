//! The environment of the command, where the meter must not have it as well: the dynamic linker and the C library obey variables
//! before the first line of a program runs, so that the meter starts itself anew without them.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::inherited::inherited;
use super::signals::set_ignored;

/// Names the descriptor of a file that holds the command's environment, each variable ended by a NUL byte.
pub const CARRIER: &str = "JOBMETER_COMMAND_ENVIRONMENT";

type Variables = Vec<(OsString, OsString)>;

/// Starts this program anew, with `kept` alone, and what it had before carried along for the command. Returns only where that
/// fails.
///
/// # Errors
/// Where there is no memory, or this program cannot be executed any more.
#[must_use]
pub fn start_anew(arguments: &[OsString], kept: &Variables, all: &Variables) -> io::Error {
    let started = || -> io::Result<std::convert::Infallible> {
        let mut carrier = File::from(memfd_create(c"environment", MFdFlags::empty())?);
        let mut text = Vec::new();
        for pair in all.iter().filter(|(name, _)| name != CARRIER).map(joined) {
            text.extend_from_slice(&pair);
            text.push(0);
        }
        carrier.write_all(&text)?;
        let mut environment = kept.iter().filter(|(name, _)| name != CARRIER).map(joined).collect::<Vec<_>>();
        environment.push(format!("{CARRIER}={}", carrier.as_raw_fd()).into_bytes());
        let c_strings = |texts: Vec<Vec<u8>>| texts.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
        let environment = c_strings(environment)?;
        let arguments = c_strings(arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect())?;
        let program = CString::new(std::env::current_exe()?.into_os_string().into_vec())?;
        // What is started reads anew what it inherits; Rust's runtime ignores SIGPIPE here.
        let ignored = inherited().is_some_and(|inherited| inherited.ignored.contains(libc::SIGPIPE));
        set_ignored(libc::SIGPIPE, ignored);
        let never = nix::unistd::execve(&program, &arguments, &environment);
        set_ignored(libc::SIGPIPE, true);
        Ok(never?)
    };
    match started() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn joined((name, value): &(OsString, OsString)) -> Vec<u8> {
    [name.as_bytes(), b"=", value.as_bytes()].concat()
}

/// What was carried along; `None` where nothing was. Whoever else names a descriptor there chooses the command's environment, as he
/// may.
///
/// # Errors
/// Where it cannot be read.
pub fn carried() -> io::Result<Option<Variables>> {
    let Some(number) = std::env::var(CARRIER).ok().and_then(|text| text.parse::<RawFd>().ok()) else { return Ok(None) };
    if number <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: nothing else in this process, which has just started, knows of this descriptor.
    let mut carrier = unsafe { File::from_raw_fd(number) };
    fcntl(&carrier, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    carrier.rewind()?;
    let mut text = Vec::new();
    carrier.read_to_end(&mut text)?;
    let pairs = text.split(|byte| *byte == 0).filter_map(|pair| {
        // A name may begin with "=", as some shells have it.
        let equals = pair.iter().skip(1).position(|byte| *byte == b'=')? + 1;
        let (name, value) = (pair.get(..equals)?, pair.get(equals + 1..)?);
        Some((OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec())))
    });
    Ok(Some(pairs.collect()))
}
