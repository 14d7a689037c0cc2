//! Out of the groups of a scheduler, which ends, freezes and limits what is in them: a meter must outlive the job that it meters.

use std::io;
use std::path::Path;

use super::cgroup::{Group, hierarchy};
use super::cgroup1::hierarchies;

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

/// Moves processes out of all groups that this one is in, itself last: to the top of each v1 hierarchy, and into the group of meters.
///
/// # Errors
/// Where one cannot be left.
pub fn leave_groups(others: &[i32], meters: Option<&Group>) -> io::Result<()> {
    let all = || others.iter().copied().chain([0]);
    let tops = hierarchies()?;
    for top in &tops {
        for pid in all() {
            std::fs::write(top.join("cgroup.procs"), pid.to_string()).map_err(|error| told(top, &error))?;
        }
    }
    let Some(meters) = meters else { return Ok(()) };
    all().try_for_each(|pid| meters.join(pid).map_err(|error| told(meters.path(), &error)))
}

fn told(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
