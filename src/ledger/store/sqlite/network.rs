//! Network file systems: locks and the shared memory of SQLite's log do not work across machines, so that two of them
//! would spend the same credits.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::ledger::LedgerError;

/// Numbers from `linux/magic.h`, statfs(2) and the file systems' own sources.
const KINDS: [(i64, &str); 13] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0102_1997, "9P"),
    (0x5346_414f, "AFS"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0xaad7_aaea, "PanFS"),
];
/// FUSE has one number for everything; the mount's type says which one it is.
const FUSE: i64 = 0x6573_5546;
const FUSE_KINDS: [&str; 12] = [
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.ceph",
    "fuse.ceph-fuse",
    "fuse.s3fs",
    "fuse.rclone",
    "fuse.juicefs",
    "fuse.mfs",
    "fuse.lizardfs",
    "fuse.seaweedfs",
    "fuse.gcsfuse",
    "fuse.davfs",
];

/// Refuses where the locks of other machines would not be seen.
pub(super) fn refuse(directory: &Path) -> Result<(), LedgerError> {
    let Ok(statfs) = nix::sys::statfs::statfs(directory) else { return Ok(()) };
    let number = statfs.filesystem_type().0;
    let kind = if number == FUSE {
        mount_type(directory).filter(|kind| FUSE_KINDS.contains(&kind.as_str()))
    } else {
        KINDS.iter().find(|(known, _)| *known == number).map(|(_, name)| (*name).to_owned())
    };
    match kind {
        Some(kind) => Err(LedgerError::Refused(format!(
            "{}: a ledger file cannot be kept on a network file system ({kind}), where locks of other machines are not \
             seen: use a local disk",
            directory.display()
        ))),
        None => Ok(()),
    }
}

/// The type of the mount that a directory is on, by its device number (proc_pid_mountinfo(5)).
fn mount_type(directory: &Path) -> Option<String> {
    let device = std::fs::metadata(directory).ok()?.dev();
    let device = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device.as_str()))?;
    Some(mount.split_once(" - ")?.1.split(' ').next()?.to_owned())
}
