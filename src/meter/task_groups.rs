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

/// Where the groups around the job's are. Dropped, they go, if the job's have gone.
#[derive(Debug)]
pub struct OuterGroups(Vec<PathBuf>);

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

impl OuterGroups {
    /// For who has to remove them later.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.0
    }

    /// Removes them, each named for its attempt.
    ///
    /// # Errors
    /// Where one is not empty.
    pub fn remove(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|path| remove_group(path))
    }
}

impl Drop for OuterGroups {
    fn drop(&mut self) {
        // In one that is not empty something lives, which keeps it as it is.
        let _stays = self.remove();
    }
}

/// In the v2 hierarchy.
pub(super) fn make_v2(attempt: Uuid, task: &Task<'_>) -> io::Result<(Containment, OuterGroups)> {
    let around = group_path_of(task.pid)?;
    let group = Group::open(&around)?.create_below(&format!("jobmeter-{attempt}"))?;
    let outer = OuterGroups(vec![group.path().to_owned()]);
    chown(group.path(), Some(task.owner.uid), Some(task.owner.gid))?;
    let mut inner = {
        let _as_owner = FileIdentity::assume(task.owner)?;
        group.create_below(INNER)?
    };
    inner.keep_open();
    Ok((Containment::Cgroup2(inner), outer))
}

/// In the v1 hierarchies of cpuacct, which is returned as well, and of the freezer.
pub(super) fn make_v1(attempt: Uuid, task: &Task<'_>) -> io::Result<(Containment, V1Group, OuterGroups)> {
    let mut outer = OuterGroups(Vec::new());
    let mut make = |controller: &str| {
        let group = group_of_task(task.pid, controller)?.create_below(&format!("jobmeter-{attempt}"))?;
        outer.0.push(group.path().to_owned());
        chown(group.path(), Some(task.owner.uid), Some(task.owner.gid))?;
        let inner = {
            let _as_owner = FileIdentity::assume(task.owner)?;
            group.create_below(INNER)?
        };
        Ok::<V1Group, io::Error>(inner)
    };
    let (freezer, accounting) = (make("freezer")?, make("cpuacct")?);
    Ok((Containment::Cgroup1 { freezer, others: vec![accounting.clone()] }, accounting, outer))
}
