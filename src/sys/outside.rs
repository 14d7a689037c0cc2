//! Out of the groups of a scheduler, which ends, freezes and limits what is in them: a meter must outlive the job that it meters.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::cgroup::{Group, hierarchy};
use super::cgroup1::hierarchies;
use super::handshake::is_told;
use super::process::{exit_now, leave_session};
use super::spawn::fork_into;

/// The group of meters, below the top of the v2 hierarchy.
const METERS: &str = "jobmeter-meters";

/// The group of meters in the v2 hierarchy, where there is one; it is made by the first.
///
/// # Errors
/// Where it cannot be made.
pub fn meters() -> io::Result<Option<Group>> {
    let Some(top) = hierarchy()? else { return Ok(None) };
    let path = top.join(METERS);
    match std::fs::create_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(told(&path, &error)),
        _ => {}
    }
    Group::open(&path).map(Some).map_err(|error| told(&path, &error))
}

/// Out of all groups that this process was started in: to the top of each v1 hierarchy, and into the group of meters. It goes on as
/// another process, its own child. The caller has one thread.
///
/// # Errors
/// Where one cannot be left.
pub fn leave_groups(meters: Option<&Group>) -> io::Result<()> {
    for top in hierarchies()? {
        // The only thread of this process. To move a process by its number, the kernel waits for all forks on the machine.
        std::fs::write(top.join("tasks"), "0").map_err(|error| told(&top, &error))?;
    }
    let Some(meters) = meters else { return Ok(()) };
    go_on_in(meters).or_else(|_| meters.join(0)).map_err(|error| told(meters.path(), &error))
}

/// Out of all groups, to the top of each hierarchy, and out of the session: it goes with nobody.
///
/// # Errors
/// Where one cannot be left.
pub fn detach() -> io::Result<()> {
    leave_groups(None)?;
    if let Some(top) = hierarchy()? {
        Group::open(&top)?.join(0).map_err(|error| told(&top, &error))?;
    }
    leave_session()
}

/// A child made into a group that was killed once dies at birth (Linux 6.18), so that it says that it lives.
fn go_on_in(group: &Group) -> io::Result<()> {
    let (lives, says) = pipe2(OFlag::O_CLOEXEC)?;
    if fork_into(group.dir())?.is_none() {
        nix::unistd::write(&says, b"l")?;
        return Ok(());
    }
    drop(says);
    if is_told(lives.as_fd()) {
        exit_now(0);
    }
    Err(io::ErrorKind::BrokenPipe.into())
}

fn told(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
