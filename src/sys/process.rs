//! Processes: the keeper's fork, pidfds, scheduling, and what a process may be asked about another one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid};

use super::poll::readable;
use super::proc;
use super::signals::SIGKILL;

/// A process, held so that its number cannot come to mean another one.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Holds the process `pid`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn open(pid: Pid) -> io::Result<Self> {
        // SAFETY: pidfd_open takes a pid and flags, and returns a new descriptor (pidfd_open(2)).
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        Self::from_raw(Errno::result(fd)?)
    }

    fn from_raw(fd: libc::c_long) -> io::Result<Self> {
        let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        // SAFETY: the kernel has just returned this descriptor; nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends a signal to that very process.
    ///
    /// # Errors
    /// Where it has gone or may not be signalled.
    pub fn send(&self, number: i32) -> io::Result<()> {
        let (fd, none) = (self.0.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: the descriptor is a pidfd and a null siginfo is allowed (pidfd_send_signal(2)).
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, none, 0) };
        Errno::result(sent)?;
        Ok(())
    }

    /// Waits until all of its threads have ended, at most that long: whether they have. Its number stays its own until its parent has
    /// waited for it.
    #[must_use]
    pub fn wait_for_end(&self, wait_max: Duration) -> bool {
        let [ended] = readable([self.as_fd()], Some(wait_max));
        ended
    }

    /// SIGKILL. That it has gone already, or may not be killed, the next look at what lives shows.
    pub fn kill(&self) {
        self.send(SIGKILL).ok();
    }

    /// Whether all of its threads have ended (pidfd_open(2)).
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.wait_for_end(Duration::ZERO)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What became of a child, as waitpid(2) tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildChange {
    /// Its number, which is its own still unless it has ended.
    pub pid: Pid,
    /// Ends are told once.
    pub change: Change,
}

/// What became of it, signals by their numbers: nix knows none of the real-time ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It ended with this status, and its number may come to mean another process.
    Exited(i32),
    /// It ended of this signal, and its number may come to mean another process.
    Signalled(i32),
    /// It was stopped by this signal.
    Stopped(i32),
    /// It was stopped, and runs again.
    Continued,
}

/// The next change of this child, or of any; `None` where none has changed, or there is none.
#[must_use]
pub fn child_changed(pid: Option<Pid>) -> Option<ChildChange> {
    let (mut status, flags) = (0, libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED);
    let pid = loop {
        // SAFETY: the status outlives the call.
        match unsafe { libc::waitpid(pid.map_or(-1, Pid::as_raw), &raw mut status, flags) } {
            changed @ 1.. => break Pid::from_raw(changed),
            0 => return None,
            _ if Errno::last() == Errno::EINTR => {}
            _ => return None,
        }
    };
    let change = if libc::WIFEXITED(status) {
        Change::Exited(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Change::Signalled(libc::WTERMSIG(status))
    } else if libc::WIFSTOPPED(status) {
        Change::Stopped(libc::WSTOPSIG(status))
    } else {
        Change::Continued
    };
    Some(ChildChange { pid, change })
}

/// Whether this process has children now, those aside that have ended: they are waited for. A program that `exec` has started
/// has those of the program before it, which are nothing of its own.
#[must_use]
pub fn has_children() -> bool {
    while let Some(ended) = child_changed(None) {
        if matches!(ended.change, Change::Stopped(_) | Change::Continued) {
            return true;
        }
    }
    nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) != Err(Errno::ECHILD)
}

/// Forks. The caller has one thread, so the child may do everything that the parent may.
///
/// # Errors
/// Where the kernel refuses (limits).
pub fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: jobmeter's front starts no thread, so no lock can be held by a thread that the child lacks.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Where they cannot be closed all at once: no machine lets more be open (fs.nr_open is 1 048 576 at first).
const OPEN_FILES_MAX: libc::c_int = 1 << 20;

/// What this process has open, but for standard input, output and error, stays closed to the programs that it becomes or starts. Of a
/// child that shares its memory as well: raw system calls on numbers.
pub fn keep_files_from_programs() {
    if !keep_files_from_programs_at_once() {
        for number in 3..OPEN_FILES_MAX {
            // SAFETY: it changes no memory.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// The same; whether the kernel can do it in one call (Linux 5.11).
#[must_use]
pub fn keep_files_from_programs_at_once() -> bool {
    // SAFETY: it changes no memory.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) == 0 }
}

/// Starts a program as a child of a process that has ended, so that it is given to whoever takes orphans here, and with nothing open of
/// what this one was started with. The caller has one thread.
///
/// # Errors
/// Those of fork(2) and waitpid(2). Whether the program could be started is not known.
pub fn spawn_orphan(command: &mut std::process::Command) -> io::Result<()> {
    match fork()? {
        Some(child) => nix::sys::wait::waitpid(child, None).map(|_| ()).map_err(Into::into),
        None => {
            keep_files_from_programs();
            exit_now(i32::from(command.spawn().is_err()))
        }
    }
}

/// A kind of namespace, of which a machine has a first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Of the numbers of processes.
    Pid,
    /// Of System V IPC and message queues.
    Ipc,
    /// Of what is the top of the control groups.
    Cgroup,
}

impl Namespace {
    /// Whether this process is in the machine's first one: their inodes are the same everywhere (`PROC_PID_INIT_INO` and so on,
    /// linux/proc_ns.h).
    ///
    /// # Errors
    /// Where it cannot be told; a kernel that has no such namespaces finds nothing.
    pub fn is_the_first(self) -> io::Result<bool> {
        let (kind, inode) = match self {
            Self::Pid => ("pid", 4_026_531_836_u64),
            Self::Ipc => ("ipc", 4_026_531_839),
            Self::Cgroup => ("cgroup", 4_026_531_835),
        };
        let link = std::fs::read_link(format!("/proc/self/ns/{kind}"))?;
        Ok(link.as_os_str() == format!("{kind}:[{inode}]").as_str())
    }
}

/// Whether this PID namespace is not the machine's first, whose inode is fixed (`PROC_PID_INIT_INO`, linux/proc_ns.h).
#[must_use]
pub fn in_own_pid_namespace() -> bool {
    Namespace::Pid.is_the_first().is_ok_and(|is_first| !is_first)
}

/// What a process may use of what it needs to go on: descriptors, memory, CPU time. Another process of the same user may
/// lower that, so that it starves (prlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits([u64; 3]);

impl Limits {
    /// Of a process; `None` once it has gone.
    #[must_use]
    pub fn of(pid: Pid) -> Option<Self> {
        let mut found = [0; 3];
        for (resource, found) in [libc::RLIMIT_NOFILE, libc::RLIMIT_AS, libc::RLIMIT_CPU].into_iter().zip(&mut found) {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: nothing is set, and the limit outlives the call.
            if unsafe { libc::prlimit(pid.as_raw(), resource, std::ptr::null(), &raw mut limit) } != 0 {
                return None;
            }
            *found = limit.rlim_cur;
        }
        Some(Self(found))
    }

    /// Whether one of them is lower than it was.
    #[must_use]
    pub fn are_below(&self, before: &Self) -> bool {
        self.0.iter().zip(before.0).any(|(now, before)| *now < before)
    }
}

/// Ends this process at once, without the destructors that belong to the process it was forked from.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit never returns and runs no handlers.
    unsafe { libc::_exit(status) }
}

/// Real-time scheduling for the calling thread, not inherited by its children. Measured: with it the keeper wakes
/// within 3–6 ms under 50 busy threads. Whether that was permitted;
/// where it was not, nothing changes.
#[expect(clippy::must_use_candidate, reason = "where it is not permitted, the caller goes on all the same")]
pub fn schedule_first() -> bool {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameters outlive the call; a refusal (EPERM) has no effect.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters) == 0 }
}

/// The calling thread has a processor when few others want it, for as long as it lives. Nothing refuses that.
pub fn yield_to_others() {
    // SAFETY: it takes numbers alone; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}

/// Scheduled as the machine's first process, not as whoever has started this one.
pub fn schedule_as_usual() {
    // SAFETY: a set of bits.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let (size, usual) = (size_of::<libc::cpu_set_t>(), libc::sched_param { sched_priority: 0 });
    // SAFETY: they read and write what is there; a refusal has no effect.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const usual);
        libc::setpriority(libc::PRIO_PROCESS, 0, 0);
        if libc::sched_getaffinity(1, size, &raw mut cpus) == 0 {
            libc::sched_setaffinity(0, size, &raw const cpus);
        }
    }
}

/// Makes this process the one to which orphans of the job are given.
///
/// # Errors
/// Never on Linux ≥ 3.4.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Keeps processes of the same user from tracing this one or reading its memory.
///
/// # Errors
/// Never with these arguments.
pub fn forbid_tracing() -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// This process dies with the thread that started it.
///
/// # Errors
/// Those of prctl(2).
pub fn die_with_parent() -> io::Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?)
}

/// What is printed from now on arrives nowhere.
///
/// # Errors
/// Where `/dev/null` cannot be opened.
pub fn silence_standard_output() -> io::Result<()> {
    Ok(nix::unistd::dup2_stdout(std::fs::File::options().write(true).open("/dev/null")?)?)
}

/// This process's `oom_score_adj` before it was lowered, so that the job can start with it; `None` where it could not
/// be lowered and so needs no reset.
#[must_use]
pub fn lower_oom_score() -> Option<String> {
    let before = std::fs::read_to_string("/proc/self/oom_score_adj").ok()?;
    std::fs::write("/proc/self/oom_score_adj", "-999").ok()?;
    Some(before.trim().to_owned())
}

/// Watches whether another process was stopped, by a file that is held open.
#[derive(Debug)]
pub struct StatFile(File);

impl StatFile {
    /// Opens `/proc/PID/stat`.
    ///
    /// # Errors
    /// Where there is no such process.
    pub fn open(pid: Pid) -> io::Result<Self> {
        proc::open_stat(pid.as_raw()).map(Self)
    }

    /// The state letter of proc(5), or `None` once the process has gone.
    #[must_use]
    pub fn state(&self) -> Option<char> {
        let mut buffer = [0_u8; 512];
        let length = self.0.read_at(&mut buffer, 0).ok()?;
        let text = String::from_utf8_lossy(buffer.get(..length)?);
        // The command stands in parentheses and may hold any character, also a closing parenthesis.
        text.rsplit_once(") ")?.1.chars().next()
    }

    /// Stopped by a signal or a tracer.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self.state(), Some('T' | 't'))
    }
}

/// CPU time of this process (front or keeper) so far, in µs.
#[must_use]
pub fn own_cpu_us() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID);
    time.map_or(0, |time| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000
    })
}

/// CPU time of another process so far, in µs; zero once it has gone.
#[must_use]
pub fn cpu_us_of(pid: Pid) -> u64 {
    let Ok(clock) = nix::time::clock_getcpuclockid(pid) else { return 0 };
    nix::time::clock_gettime(clock).map_or(0, |time| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000
    })
}

/// Whether a process lives that this one may not signal: it has become another user (kill(2)).
#[must_use]
pub fn is_beyond_reach(pid: i32) -> bool {
    nix::sys::signal::kill(Pid::from_raw(pid), None) == Err(Errno::EPERM)
}

/// Whether a process ignores the end of its children, which the kernel then removes with their times: proc(5), `SigIgn`.
/// One that sets `SA_NOCLDWAIT` beside a handler is not known by this.
#[must_use]
pub fn ignores_sigchld(pid: i32) -> bool {
    proc::signals(pid, "SigIgn:").contains(libc::SIGCHLD)
}

/// CPU time of all children that this process has waited for, and of theirs, in µs.
#[must_use]
pub fn reaped_cpu_us() -> u64 {
    let Ok(usage) = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN) else { return 0 };
    let us = |time: nix::sys::time::TimeVal| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec()).unwrap_or(0)
    };
    us(usage.user_time()) + us(usage.system_time())
}

/// The id of this boot of the machine. It is read once: later there may be no descriptor for it.
#[must_use]
pub fn boot_id() -> String {
    static ID: OnceLock<String> = OnceLock::new();
    let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    ID.get_or_init(read).clone()
}

/// A session of its own, away from the terminal, with nothing of the job's standard input and output held open.
///
/// # Errors
/// Where the caller leads a session already.
pub fn leave_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(())
}

/// Whether [`schedule_first`] would have its effect, tried on a thread that ends with the try.
#[must_use]
pub fn may_schedule_first() -> bool {
    std::thread::spawn(schedule_first).join().unwrap_or(false)
}

/// Whether [`lower_oom_score`] would have its effect.
#[must_use]
pub fn may_lower_oom_score() -> bool {
    lower_oom_score().is_some_and(|before| std::fs::write("/proc/self/oom_score_adj", before).is_ok())
}
