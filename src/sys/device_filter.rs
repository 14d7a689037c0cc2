//! Whether this process may use all devices of the machine, as far as its control groups decide.

use std::fs::File;
use std::os::fd::AsRawFd;

use super::cgroup::{hierarchy, own_group_path};
use super::cgroup1::own_group;

/// `BPF_PROG_QUERY`, `BPF_CGROUP_DEVICE` and `BPF_F_QUERY_EFFECTIVE` (linux/bpf.h).
const PROG_QUERY: libc::c_long = 16;
const CGROUP_DEVICE: u32 = 6;
const QUERY_EFFECTIVE: u32 = 1;

/// The part of `union bpf_attr` that asks for the programs of a group.
#[repr(C)]
#[derive(Debug, Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_count: u32,
    padding: u32,
}

/// Also where it cannot be told: it takes the right to look at programs of the kernel (CAP_BPF or CAP_SYS_ADMIN).
#[must_use]
pub fn may_be_filtered() -> bool {
    has_filter_of_v1() || has_program_of_v2().unwrap_or(true)
}

/// `a *:* rwm` is everything (cgroup-v1/devices.rst).
fn has_filter_of_v1() -> bool {
    match own_group("devices") {
        Ok(group) => !group.read("devices.list").is_ok_and(|list| list.starts_with("a ")),
        // Not mounted here.
        Err(_) => std::fs::read_to_string("/proc/self/cgroup").map_or(true, |groups| is_in_a_group_of_v1(&groups)),
    }
}

/// Its top has no filter.
fn is_in_a_group_of_v1(groups: &str) -> bool {
    let is_elsewhere = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        fields.next().is_some_and(|names| names.split(',').any(|name| name == "devices")) && fields.next() != Some("/")
    };
    groups.lines().any(is_elsewhere)
}

fn has_program_of_v2() -> std::io::Result<bool> {
    if hierarchy()?.is_none() {
        return Ok(false);
    }
    let group = File::open(own_group_path()?)?;
    let target_fd = u32::try_from(group.as_raw_fd()).map_err(std::io::Error::other)?;
    let mut query = Query { target_fd, attach_type: CGROUP_DEVICE, query_flags: QUERY_EFFECTIVE, ..Query::default() };
    // SAFETY: the kernel reads and writes no more of it than its size; without room for ids it tells their number alone.
    let told = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut query, size_of::<Query>()) };
    if told == 0 { Ok(query.prog_count > 0) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_v1_is_told_without_its_mount() {
        assert!(is_in_a_group_of_v1("5:cpu,devices:/a\n0::/\n"));
        assert!(!is_in_a_group_of_v1("5:devices:/\n4:cpu:/a\n0::/b\n"));
    }
}
