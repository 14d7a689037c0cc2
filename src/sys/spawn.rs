//! The spawn of the job's command: in its group before its first instruction.
//!
//! `clone3(CLONE_INTO_CGROUP)` where the kernel allows it (0.35 ms), else fork and a write of `0` to `cgroup.procs`
//! (12–16 ms). Between clone and exec only raw system calls on memory that was made before: no allocation, no lock.
//!
//! Trap: once `cgroup.kill` was written to a group or an ancestor of it, or of the caller's, a `clone3` into it is
//! killed at birth (Linux 6.18). The child says that it lives before it execs; where it does not, the fork is used.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::credentials::{Credentials, become_user};
use super::inherited::Inherited;
use super::limits::CommandLimits;
use super::signals::{SignalSet, set_ignored, set_mask};

/// From `linux/sched.h`; the `libc` crate's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Everything a spawn needs, made before it.
#[derive(Debug)]
pub struct Command {
    argv: Vec<CString>,
    candidates: Vec<CString>,
    environment: Vec<CString>,
    credentials: Option<Credentials>,
    may_gain_privileges: bool,
    /// Which of the first three files are a terminal whose foreground is somebody else's.
    others_terminals: [bool; 3],
    directory: Option<CString>,
    oom_score: Option<CString>,
    signals: Inherited,
    limits: Option<CommandLimits>,
}

/// How far a child came that could not run the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// fork or clone3.
    Clone,
    /// Writing itself into a group.
    Join,
    /// setsid, setgroups, setgid, setuid, capset.
    Credentials,
    /// Entering the folder of `--chdir`.
    Directory,
    /// setrlimit, to what jobmeter was started with.
    Limits,
    /// execve.
    Exec,
}

/// Why the command did not start.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{errno} at {stage:?}")]
pub struct SpawnError {
    /// Where.
    pub stage: Stage,
    /// Why.
    pub errno: Errno,
}

/// Where the child goes before exec.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placement<'a> {
    /// Directory of a cgroup v2, for `clone3`.
    pub group: Option<BorrowedFd<'a>>,
    /// Files into which the child writes `0` to join, where `clone3` is not used: of the same group, or of v1 groups.
    pub joins: &'a [BorrowedFd<'a>],
    /// The child waits before exec for a byte in this pipe; it ends where there comes none.
    pub gate: Option<BorrowedFd<'a>>,
    /// The write end of that pipe, which the child closes first: the caller may close its own before `spawn` returns.
    pub gate_opener: Option<RawFd>,
}

impl Command {
    /// Resolves `program` against `PATH` of the environment that it will have, as execvp does.
    ///
    /// # Errors
    /// Where an argument holds a NUL byte.
    pub fn new(command: &[OsString], environment: &[(OsString, OsString)], signals: Inherited) -> io::Result<Self> {
        let c_string = |text: &OsStr| {
            let message = || format!("{} holds a NUL byte", text.to_string_lossy().replace('\0', "\\0"));
            CString::new(text.as_bytes()).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, message()))
        };
        let argv = command.iter().map(|argument| c_string(argument)).collect::<io::Result<Vec<_>>>()?;
        let program = command.first().map(OsString::as_os_str).unwrap_or_default();
        let path = environment.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.clone());
        let candidates =
            candidates(program, path.as_deref()).iter().map(|path| c_string(path)).collect::<Result<_, _>>()?;
        let environment = environment.iter().map(|(key, value)| {
            let mut pair = key.clone();
            pair.push("=");
            pair.push(value);
            c_string(&pair)
        });
        Ok(Self {
            argv,
            candidates,
            environment: environment.collect::<Result<_, _>>()?,
            credentials: None,
            may_gain_privileges: true,
            others_terminals: [false; 3],
            directory: None,
            oom_score: None,
            signals,
            limits: None,
        })
    }

    /// Runs it as somebody else: in a session of its own, so that it has no hold on the terminal of who started it (TIOCSTI),
    /// without a capability and without open files but the three that every program has. Unless it may gain privileges, set-uid
    /// programs give it none.
    pub fn set_credentials(&mut self, credentials: Credentials, may_gain_privileges: bool) {
        self.credentials = Some(credentials);
        self.others_terminals = [0, 1, 2].map(is_others_terminal);
        self.may_gain_privileges = may_gain_privileges;
    }

    /// As it was typed, for messages.
    #[must_use]
    pub fn program(&self) -> String {
        self.argv.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Whether it leads one: then the terminal's signals do not reach it by themselves.
    #[must_use]
    pub fn has_own_session(&self) -> bool {
        self.credentials.is_some()
    }

    /// Where it starts: what the command's user may not enter is no place for it.
    ///
    /// # Errors
    /// Where the path holds a NUL byte.
    pub fn set_directory(&mut self, directory: &Path) -> io::Result<()> {
        self.directory = Some(CString::new(directory.as_os_str().as_bytes())?);
        Ok(())
    }

    /// Gives it back what jobmeter raised for itself.
    pub fn set_limits(&mut self, limits: CommandLimits) {
        self.limits = Some(limits);
    }

    /// Gives it back the score that jobmeter had before it lowered its own.
    pub fn set_oom_score(&mut self, score: &str) {
        self.oom_score = CString::new(score).ok();
    }

    /// Starts it. `cloned` is called with its pid before it can run the command; where there is a gate, that is the
    /// place to open it.
    ///
    /// # Errors
    /// With the stage and the kernel's reason; no child is left then.
    pub fn spawn(&self, placement: Placement<'_>, cloned: &mut dyn FnMut(Pid)) -> Result<Pid, SpawnError> {
        if placement.group.is_some() {
            match self.spawn_once(placement, true, cloned) {
                Err(Attempted::BornDead) => {}
                Err(Attempted::Failed(error)) if error.stage == Stage::Clone => {}
                Err(Attempted::Failed(error)) => return Err(error),
                Ok(pid) => return Ok(pid),
            }
        }
        self.spawn_once(placement, false, cloned).map_err(|attempted| match attempted {
            Attempted::Failed(error) => error,
            Attempted::BornDead => SpawnError { stage: Stage::Clone, errno: Errno::EINTR },
        })
    }

    fn spawn_once(
        &self,
        placement: Placement<'_>,
        into_group: bool,
        cloned: &mut dyn FnMut(Pid),
    ) -> Result<Pid, Attempted> {
        let clone_failed = |errno| Attempted::Failed(SpawnError { stage: Stage::Clone, errno });
        let (status_read, status_write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(clone_failed)?;
        let raw = self.raw();
        let group = placement.group.filter(|_| into_group).map(|fd| fd.as_raw_fd());
        // SAFETY: the front has one thread; the child runs only `in_child`, which never returns.
        let pid = unsafe { clone_into(group) }.map_err(clone_failed)?;
        if pid == 0 {
            let joins: &[BorrowedFd<'_>] = if into_group { &[] } else { placement.joins };
            // SAFETY: we are the child of a single-threaded process; see `in_child`.
            unsafe { self.in_child(&raw, joins, placement, status_write.as_raw_fd()) }
        }
        drop(status_write);
        let pid = Pid::from_raw(pid);
        cloned(pid);
        await_exec(pid, &status_read)
    }

    fn raw(&self) -> RawCommand {
        let pointers = |strings: &[CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        // /bin/sh SCRIPT ARGS…, for a script without "#!" (ENOEXEC), as execvp does.
        let mut shell_argv = vec![c"/bin/sh".as_ptr(), std::ptr::null()];
        shell_argv.extend(self.argv.iter().skip(1).map(|string| string.as_ptr()));
        shell_argv.push(std::ptr::null());
        RawCommand { argv: pointers(&self.argv), environment: pointers(&self.environment), shell_argv }
    }

    /// What the child does: never returns, never allocates.
    ///
    /// # Safety
    /// Only in a child of a single-threaded process, between clone and exec.
    unsafe fn in_child(
        &self,
        raw: &RawCommand,
        joins: &[BorrowedFd<'_>],
        placement: Placement<'_>,
        status: RawFd,
    ) -> ! {
        // SAFETY: raw system calls on memory that the parent made before the clone.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            for join in joins {
                if libc::write(join.as_raw_fd(), b"0".as_ptr().cast(), 1) != 1 {
                    fail(status, Stage::Join);
                }
            }
            if let Some(gate) = placement.gate {
                if let Some(opener) = placement.gate_opener {
                    libc::close(opener);
                }
                let mut byte = 0_u8;
                if libc::read(gate.as_raw_fd(), (&raw mut byte).cast(), 1) != 1 {
                    libc::_exit(125);
                }
            }
            self.reset(status);
            if let Some(score) = &self.oom_score {
                let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                libc::write(file, score.as_ptr().cast(), score.count_bytes());
            }
            self.leave_terminals(status);
            if let Some(credentials) = &self.credentials {
                if !become_user(credentials, self.may_gain_privileges) {
                    fail(status, Stage::Credentials);
                }
                // A change of user clears it (prctl(2)).
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            }
            if let Some(directory) = &self.directory
                && libc::chdir(directory.as_ptr()) != 0
            {
                fail(status, Stage::Directory);
            }
            let alive = [0_u8; 8];
            libc::write(status, alive.as_ptr().cast(), alive.len());
            self.exec(raw);
            fail(status, Stage::Exec)
        }
    }

    /// In a session of its own nothing keeps it from reading what is typed for the foreground (SIGTTIN is for background groups of
    /// the terminal's session): there is nothing to read, and what it writes to can only be written.
    ///
    /// # Safety
    /// As [`Self::in_child`].
    unsafe fn leave_terminals(&self, status: RawFd) {
        let paths = [c"/dev/null", c"/proc/self/fd/1", c"/proc/self/fd/2"];
        for ((number, path), _) in (0..).zip(paths).zip(self.others_terminals).filter(|(_, is_others)| *is_others) {
            let access = if number == 0 { libc::O_RDONLY } else { libc::O_WRONLY | libc::O_NOCTTY };
            // SAFETY: raw system calls on strings that live for ever.
            unsafe {
                let file = libc::open(path.as_ptr(), access | libc::O_CLOEXEC);
                if file < 0 || libc::dup2(file, number) < 0 {
                    fail(status, Stage::Credentials);
                }
            }
        }
    }

    /// Dispositions, mask and limits as jobmeter found them.
    ///
    /// # Safety
    /// As [`Self::in_child`].
    unsafe fn reset(&self, status: RawFd) {
        for number in SignalSet::ALL.numbers() {
            set_ignored(number, self.signals.ignored.contains(number));
        }
        set_mask(self.signals.blocked);
        if self.limits.as_ref().is_some_and(|limits| !limits.set()) {
            // SAFETY: as the caller promised.
            unsafe { fail(status, Stage::Limits) }
        }
    }

    /// Tries each candidate as execvp(3) does: the last reason that is not "not here" is the one to report.
    ///
    /// # Safety
    /// As [`Self::in_child`].
    unsafe fn exec(&self, raw: &RawCommand) {
        let mut denied = false;
        for candidate in &self.candidates {
            // SAFETY: the arrays end with null and point to strings that live in `self`.
            unsafe { libc::execve(candidate.as_ptr(), raw.argv.as_ptr(), raw.environment.as_ptr()) };
            match Errno::last() {
                Errno::ENOEXEC => {
                    let shell_argv = raw.shell_argv.as_ptr().cast_mut();
                    // SAFETY: the second place of the array was kept free for the script's path.
                    unsafe {
                        shell_argv.add(1).write(candidate.as_ptr());
                        libc::execve(c"/bin/sh".as_ptr(), shell_argv, raw.environment.as_ptr());
                    }
                    return;
                }
                Errno::EACCES => denied = true,
                Errno::ENOENT | Errno::ENOTDIR => {}
                _ => return,
            }
        }
        if denied {
            Errno::EACCES.set();
        } else if self.candidates.is_empty() {
            Errno::ENOENT.set();
        }
    }
}

fn is_others_terminal(number: RawFd) -> bool {
    // SAFETY: the number may mean no open file, which is what is asked.
    unsafe { libc::isatty(number) == 1 && libc::tcgetpgrp(number) != libc::getpgrp() }
}

enum Attempted {
    BornDead,
    Failed(SpawnError),
}

struct RawCommand {
    argv: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    shell_argv: Vec<*const libc::c_char>,
}

/// A path with a slash stands for itself; a name is looked for along `PATH`.
fn candidates(program: &OsStr, path: Option<&OsStr>) -> Vec<OsString> {
    if program.is_empty() || program.as_bytes().contains(&b'/') {
        return vec![program.to_owned()];
    }
    let path = path.unwrap_or(OsStr::new("/usr/local/bin:/bin:/usr/bin"));
    let directories = path.as_bytes().split(|byte| *byte == b':');
    directories
        .map(|directory| {
            let mut full = if directory.is_empty() { b".".to_vec() } else { directory.to_vec() };
            full.push(b'/');
            full.extend_from_slice(program.as_bytes());
            OsString::from_vec(full)
        })
        .collect()
}

/// Waits until the child says that it lives, and then until exec closes the pipe or an error comes.
fn await_exec(pid: Pid, status: &OwnedFd) -> Result<Pid, Attempted> {
    let mut message = [0_u8; 16];
    let mut length = 0;
    while let Some(rest) = message.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match nix::unistd::read(status, rest) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(Errno::EINTR) => {}
            Err(_) => break,
        }
    }
    let alive = message.starts_with(&[0; 8]) && length >= 8;
    let error = message.get(if alive { 8 } else { 0 }..length).unwrap_or_default();
    if alive && error.is_empty() {
        return Ok(pid);
    }
    // It will not run the command: it is reaped here, so that nobody else takes it for the job.
    while nix::sys::wait::waitpid(pid, None) == Err(Errno::EINTR) {}
    match error {
        [stage, _, _, _, errno @ ..] => {
            let errno = errno.try_into().map_or(0, i32::from_ne_bytes);
            let stage = match stage {
                1 => Stage::Join,
                2 => Stage::Credentials,
                3 => Stage::Directory,
                4 => Stage::Limits,
                _ => Stage::Exec,
            };
            Err(Attempted::Failed(SpawnError { stage, errno: Errno::from_raw(errno) }))
        }
        _ => Err(Attempted::BornDead),
    }
}

/// `clone3` with no flag but the group, else `fork`: zero in the child.
///
/// # Safety
/// Only in a single-threaded process.
unsafe fn clone_into(group: Option<RawFd>) -> nix::Result<i32> {
    let Some(group) = group else {
        // SAFETY: as the caller promised.
        return Errno::result(unsafe { libc::fork() });
    };
    // SAFETY: an all-zero clone_args is valid: no flags, no stack, as fork.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = u64::try_from(group).unwrap_or(u64::MAX);
    // SAFETY: the arguments outlive the call; without CLONE_VM the child has its own copy of this memory.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    Errno::result(pid).map(|pid| i32::try_from(pid).unwrap_or(-1))
}

/// Forks into a group, which takes the kernel far less time than to move a process there (0.35 against some 10 ms, measured).
///
/// # Errors
/// Where the kernel refuses, or is older than Linux 5.7.
pub fn fork_into(group: BorrowedFd<'_>) -> io::Result<Option<Pid>> {
    // SAFETY: jobmeter's processes that fork have one thread.
    let pid = unsafe { clone_into(Some(group.as_raw_fd())) }?;
    Ok((pid > 0).then(|| Pid::from_raw(pid)))
}

/// Tells the parent why, and ends.
///
/// # Safety
/// As [`Command::in_child`].
unsafe fn fail(status: RawFd, stage: Stage) -> ! {
    let mut message = [0_u8; 8];
    message[0] = stage as u8;
    message[4..].copy_from_slice(&Errno::last_raw().to_ne_bytes());
    // SAFETY: eight bytes that are there; a pipe takes them whole (PIPE_BUF).
    unsafe {
        libc::write(status, message.as_ptr().cast(), message.len());
        libc::_exit(127)
    }
}
