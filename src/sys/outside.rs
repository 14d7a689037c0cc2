//! Out of the groups of a scheduler, which ends, freezes and limits what is in them: a meter must outlive the job that it meters.

use std::io;
use std::path::{Path, PathBuf};

use super::cgroup::{Group, hierarchy};
use super::cgroup1::hierarchies;

/// The group of meters, below the top of the v2 hierarchy.
const METERS: &str = "jobmeter-meters";

/// Moves this process out of all groups that it was started in: to the top of each v1 hierarchy, and into a group of meters in the v2
/// one, which is returned where there is one.
///
/// # Errors
/// Where one cannot be left.
pub fn leave_groups() -> io::Result<Option<Group>> {
    for top in hierarchies()? {
        std::fs::write(top.join("cgroup.procs"), "0").map_err(|error| told(&top, &error))?;
    }
    let Some(top) = hierarchy()? else { return Ok(None) };
    let path = top.join(METERS);
    match std::fs::create_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(told(&path, &error)),
        _ => {}
    }
    let meters = Group::open(&path).map_err(|error| told(&path, &error))?;
    meters.join(0).map_err(|error| told(&path, &error))?;
    Ok(Some(meters))
}

fn told(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", PathBuf::from(path).display()))
}
