//! The groups of a task that a scheduler starts. They are made by root below the scheduler's own, whose limits hold on; the
//! job's group belongs to the meter, which is not root, and the one around it is root's to remove.

use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::sys::cgroup::{Group, group_path_of};
use crate::sys::cgroup1::{V1Group, group_of_task};
use crate::sys::containment::Containment;
use crate::sys::credentials::Credentials;
use crate::sys::identity::FileIdentity;

/// The job's own, within an outer one.
const INNER: &str = "job";

/// Which task, and whose its groups are.
#[derive(Debug)]
pub struct Task<'a> {
    /// The process that the scheduler has put into its own groups.
    pub pid: i32,
    /// The meter's user, whose the job's own groups are.
    pub owner: &'a Credentials,
}

/// Removes a group and those below it, of either version, which are empty.
///
/// # Errors
/// Where one is not.
pub fn remove_group(path: &Path) -> io::Result<()> {
    V1Group::at(path).remove()
}

fn name_of(attempt: Uuid) -> String {
    format!("jobmeter-{attempt}")
}

/// Where a task's groups will be, or would be if they were made: what has to be removed at its end.
#[must_use]
pub fn places(attempt: Uuid, task: &Task<'_>) -> Vec<PathBuf> {
    let of_v1 =
        ["freezer", "cpuacct"].map(|controller| Some(group_of_task(task.pid, controller).ok()?.path().to_owned()));
    let around = of_v1.into_iter().chain([group_path_of(task.pid).ok()]);
    around.flatten().map(|path| path.join(name_of(attempt))).collect()
}

/// In the v2 hierarchy.
pub(super) fn make_v2(attempt: Uuid, task: &Task<'_>) -> io::Result<Containment> {
    let group = Group::open(&group_path_of(task.pid)?)?.create_below(&name_of(attempt))?;
    chown(group.path(), Some(task.owner.uid), Some(task.owner.gid))?;
    let mut inner = {
        let _as_owner = FileIdentity::assume(task.owner)?;
        group.create_below(INNER)?
    };
    inner.keep_open();
    Ok(Containment::Cgroup2(inner))
}

/// In the v1 hierarchies of cpuacct, which is returned as well, and of the freezer.
pub(super) fn make_v1(attempt: Uuid, task: &Task<'_>) -> io::Result<(Containment, V1Group)> {
    let make = |controller: &str| {
        let group = group_of_task(task.pid, controller)?.create_below(&name_of(attempt))?;
        chown(group.path(), Some(task.owner.uid), Some(task.owner.gid))?;
        let _as_owner = FileIdentity::assume(task.owner)?;
        group.create_below(INNER)
    };
    let (freezer, accounting) = (make("freezer")?, make("cpuacct")?);
    Ok((Containment::Cgroup1 { freezer, others: vec![accounting.clone()] }, accounting))
}
