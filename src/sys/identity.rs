//! Acting as somebody else: for one file, by this thread, or for all that a child does.

use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Uid, User, getgrouplist, setfsgid, setfsuid};

use super::credentials::{Credentials, set_ids};
use super::process::{PidFd, exit_now, forbid_tracing, fork};
use super::signals::SIGKILL;
use super::trust;

/// From SIGKILL to the end of a process that does not hang.
const KILL_WAIT_MAX: Duration = Duration::from_secs(5);
/// Of a user without a name there is no other to be had: that of nobody.
const NO_GROUP: u32 = 65_534;

impl Credentials {
    /// Those that this user would log in with; a user without a name (one of systemd's, whose unit does not run) has the group
    /// `gid` alone.
    ///
    /// # Errors
    /// Where the user database cannot be read.
    pub fn of(uid: u32, gid: u32) -> io::Result<Self> {
        let Some(user) = User::from_uid(Uid::from_raw(uid))? else {
            return Ok(Self { uid, gid, groups: vec![gid] });
        };
        let name = CString::new(user.name)?;
        let groups = getgrouplist(&name, user.gid)?.into_iter().map(Gid::as_raw).collect();
        Ok(Self { uid, gid: user.gid.as_raw(), groups })
    }
}

/// While it lives, this thread opens and makes files as somebody else (`setfsuid(2)`): what he could not do himself is
/// refused, and what is made is his. Everything else it does as before, and nobody can signal or trace it who could not before.
#[derive(Debug)]
pub struct FileIdentity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    /// It is this thread's.
    stays: PhantomData<*const ()>,
}

impl FileIdentity {
    /// Takes it on.
    ///
    /// # Errors
    /// Where this process may not (it needs CAP_SETUID and CAP_SETGID).
    pub fn assume(of: &Credentials) -> io::Result<Self> {
        let groups = nix::unistd::getgroups()?;
        set_groups(&of.groups)?;
        let gid = setfsgid(Gid::from_raw(of.gid));
        let uid = setfsuid(Uid::from_raw(of.uid));
        let before = Self { uid, gid, groups, stays: PhantomData };
        // Both calls tell who it was before, and nothing else.
        let unknown = u32::MAX;
        let now = (setfsuid(Uid::from_raw(unknown)).as_raw(), setfsgid(Gid::from_raw(unknown)).as_raw());
        // A change of these ids resets it to what the machine says (fs.suid_dumpable).
        forbid_tracing()?;
        if now == (of.uid, of.gid) { Ok(before) } else { Err(Errno::EPERM.into()) }
    }

    /// For new files beside `file`: as its folder's owner where root would else write where somebody else can put a link or another
    /// folder in the way; `None` where this process writes as itself.
    ///
    /// # Errors
    /// Where a group or everybody can write on the way there, so that there is nobody as whom to write.
    pub fn of_folder_of(file: &Path) -> io::Result<Option<Self>> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(None);
        }
        let path = std::path::absolute(file)?;
        match writer_into(path.parent().unwrap_or(Path::new("/")))? {
            Some(owner) => Self::assume(&owner).map(Some),
            None => Ok(None),
        }
    }
}

/// As whom root may make files in this folder: as somebody who could have made them himself. `None`: as root.
///
/// # Errors
/// As [`FileIdentity::of_folder_of`].
pub fn writer_into(folder: &Path) -> Result<Option<Credentials>, trust::Distrust> {
    match trust::believe_folder(folder) {
        Ok(_) => Ok(None),
        Err(why) => {
            let Some(uid) = why.owner() else { return Err(why) };
            let unreadable = |error| trust::Distrust::Unreadable { path: None, error };
            Credentials::of(uid, NO_GROUP).map(Some).map_err(unreadable)
        }
    }
}

impl Drop for FileIdentity {
    fn drop(&mut self) {
        setfsuid(self.uid);
        setfsgid(self.gid);
        let groups: Vec<u32> = self.groups.iter().map(|group| group.as_raw()).collect();
        // With somebody else's groups, or open to be traced, nothing of this process is right any more.
        if set_groups(&groups).and_then(|()| forbid_tracing()).is_err() {
            exit_now(125);
        }
    }
}

/// Of this thread alone: the call of the C library sets those of all threads.
fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the kernel reads as many ids as it is told, from memory that outlives the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    Ok(())
}

/// Becomes this user for good, and cannot be traced by him.
fn become_user(of: &Credentials) -> io::Result<()> {
    // SAFETY: this is the child of a process with one thread.
    if !unsafe { set_ids(of) } {
        return Err(Errno::last().into());
    }
    // The change of user has reset it to what the machine says (fs.suid_dumpable).
    forbid_tracing()
}

/// Does something in a child that is this user: its exit status. The user can stop or kill the child, so that it is waited
/// for so long at most and killed then. The caller has one thread.
///
/// # Errors
/// Where there is no child, or it did not end in time or of itself.
pub fn run_as(of: &Credentials, wait_max: Duration, action: impl FnOnce() -> i32) -> io::Result<i32> {
    let Some(child) = fork()? else {
        match become_user(of) {
            Ok(()) => exit_now(action()),
            Err(_) => exit_now(125),
        }
    };
    let held = PidFd::open(child)?;
    let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&held), PollFlags::POLLIN)];
    let in_time = ppoll(&mut fds, Some(TimeSpec::from_duration(wait_max)), None)? > 0;
    if !in_time {
        held.send(SIGKILL)?;
        // One that hangs in a file system of the user's does not die of that, and is left to him.
        if ppoll(&mut fds, Some(TimeSpec::from_duration(KILL_WAIT_MAX)), None)? == 0 {
            return Err(too_late(wait_max));
        }
    }
    match waitpid(child, None)? {
        WaitStatus::Exited(_, status) if in_time => Ok(status),
        WaitStatus::Signaled(_, signal, _) if in_time => {
            Err(io::Error::other(format!("it was killed by {signal} before it was done")))
        }
        _ => Err(too_late(wait_max)),
    }
}

fn too_late(wait_max: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("it did not end within {} s", wait_max.as_secs()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn files_are_made_as_somebody_else_and_back() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let somebody = Credentials { uid: 12_345, gid: 12_346, groups: vec![12_346] };
        let top = tempfile::tempdir().unwrap();
        let (theirs, ours) = (top.path().join("theirs"), top.path().join("ours"));
        {
            let _as_them = FileIdentity::assume(&somebody).unwrap();
            assert!(std::fs::write(&theirs, "").is_err(), "the folder is root's");
        }
        std::os::unix::fs::chown(top.path(), Some(12_345), None).unwrap();
        {
            let _as_them = FileIdentity::assume(&somebody).unwrap();
            std::fs::write(&theirs, "").unwrap();
        }
        std::fs::write(&ours, "").unwrap();
        let owner = |path| std::fs::metadata(path).map(|meta| (meta.uid(), meta.gid())).unwrap();
        assert_eq!((owner(&theirs), owner(&ours).0), ((12_345, 12_346), 0));
    }
}
