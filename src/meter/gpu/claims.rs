//! Tasks of one job on one machine may have been given the same devices: each device that is the job's alone is charged by one of them, and
//! when that ends, by the next.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::sys::clock::{Clock, SystemClock};
use crate::sys::process::boot_id;

/// Of a job's name in the name of one folder, each byte of which can take three.
const PIECE_BYTES: usize = 80;
/// Nobody charges by one that is so old.
const KEPT_S: i64 = 7 * 24 * 3_600;

/// Those of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    folder: PathBuf,
    job: String,
}

/// One device is charged by this process, for as long as this lives.
#[derive(Debug)]
pub(super) struct Claim(Flock<File>);

impl Claims {
    /// Of this job, below a folder that all of its meters on this machine use, and nobody else can write.
    #[must_use]
    pub fn new(folder: &Path, job: &str) -> Self {
        Self { folder: folder.join("gpus"), job: job.to_owned() }
    }

    /// `None` while another process has it; else also until when (`CLOCK_BOOTTIME`, µs) that was charged by another one.
    ///
    /// # Errors
    /// Where no file can be made or locked.
    pub(super) fn claim(&self, uuid: &str) -> io::Result<Option<(Claim, Option<u64>)>> {
        let path = self.path(uuid);
        let folder = path.parent().unwrap_or(&self.folder);
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        purge(folder);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
        let file = options.open(&path)?;
        let mut locked = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => locked,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        let mut text = String::new();
        Read::by_ref(&mut *locked).take(256).read_to_string(&mut text)?;
        // A claim that is not released has no end to tell.
        locked.set_len(0)?;
        let until_us = text.strip_prefix(&boot_id()).and_then(|rest| rest.trim().parse().ok());
        Ok(Some((Claim(locked), until_us)))
    }

    /// A job may be called anything: its name is written in pieces that are names of folders.
    fn path(&self, uuid: &str) -> PathBuf {
        let mut path = self.folder.clone();
        for piece in self.job.as_bytes().chunks(PIECE_BYTES) {
            path.push(piece.iter().map(|byte| char::from(*byte)).map(escaped).collect::<String>());
        }
        path.join(format!("{uuid}.claim"))
    }
}

/// None of them begins with a dot or ends in `.claim`.
fn escaped(character: char) -> String {
    if character.is_ascii_alphanumeric() || "_-".contains(character) {
        character.to_string()
    } else {
        format!("%{:02X}", u32::from(character))
    }
}

fn purge(folder: &Path) {
    let before_s = SystemClock.realtime_us() / 1_000_000 - KEPT_S;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_old = entry.metadata().is_ok_and(|meta| meta.is_file() && meta.mtime() < before_s);
        if is_old && File::open(entry.path()).is_ok_and(is_free) {
            // Whoever comes next makes another.
            std::fs::remove_file(entry.path()).unwrap_or_default();
        }
    }
}

fn is_free(file: File) -> bool {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()
}

impl Claim {
    /// What comes after `until_us` is not charged by this process.
    ///
    /// # Errors
    /// Where that cannot be written: the next one charges from when it last saw that this one did.
    pub(super) fn release(mut self, until_us: u64) -> io::Result<()> {
        self.0.rewind()?;
        self.0.write_all(format!("{} {until_us}\n", boot_id()).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_task_at_a_time_charges_a_device() {
        let folder = tempfile::tempdir().unwrap();
        let [job, other] = ["j", "k"].map(|job| Claims::new(folder.path(), job));
        let (first, before) = job.claim("GPU-a").unwrap().unwrap();
        assert_eq!(before, None);
        assert!(job.claim("GPU-a").unwrap().is_none() && job.claim("GPU-b").unwrap().is_some());
        assert!(other.claim("GPU-a").unwrap().is_some());
        for name in ["../x", "", "a/b", &"é".repeat(300)] {
            assert!(Claims::new(folder.path(), name).claim("GPU-a").unwrap().is_some(), "{name}");
        }
        first.release(77).unwrap();
        let (second, before) = job.claim("GPU-a").unwrap().unwrap();
        assert_eq!(before, Some(77));
        // One that was killed says nothing.
        drop(second);
        assert_eq!(job.claim("GPU-a").unwrap().unwrap().1, None);
    }
}
