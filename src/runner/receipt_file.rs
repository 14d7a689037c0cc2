//! The receipt as a file: a reader finds the old one or the whole new one, never half of one; and a meter with privileges
//! writes it nowhere that the job's user could not have written himself.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use uuid::Uuid;

use crate::sys::credentials::Credentials;
use crate::sys::identity::{FileIdentity, writer_into};

/// Where the receipt goes, and as whom it is written there.
#[derive(Debug)]
pub(super) struct ReceiptFile {
    path: PathBuf,
    name: OsString,
    /// Its folder, opened before the job could put another in its place. `None` where the meter has no privilege, and the
    /// folder need not be there yet.
    folder: Option<OwnedFd>,
    /// As whom it is written where somebody else than root can write on the way to it.
    writer: Option<Credentials>,
}

impl ReceiptFile {
    /// `job_user` is the user of `--as`.
    ///
    /// # Errors
    /// Where root can write it as nobody, or its folder cannot be opened.
    pub(super) fn prepare(path: &Path, job_user: Option<Credentials>) -> io::Result<Self> {
        let unnamed = || io::Error::other(format!("{}: expected the path of a file", path.display()));
        let name = path.file_name().ok_or_else(unnamed)?.to_owned();
        let mut receipt = Self { path: path.to_owned(), name, folder: None, writer: None };
        if !geteuid().is_root() {
            return Ok(receipt);
        }
        receipt.writer = match (writer_into(receipt.parent()), job_user) {
            (Ok(None), _) => None,
            (Err(why), None) if why.is_missing() => return Ok(receipt),
            (Ok(Some(_)) | Err(_), Some(user)) => Some(user),
            (owner, None) => owner?,
        };
        let _as_writer = receipt.assume()?;
        let told = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", receipt.parent().display()));
        receipt.folder = Some(open_folder(receipt.parent()).map_err(told)?);
        Ok(receipt)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn assume(&self) -> io::Result<Option<FileIdentity>> {
        self.writer.as_ref().map(FileIdentity::assume).transpose()
    }

    /// Writes `json`: beside it and renamed where it is or will be a plain file, else (a pipe, `/dev/stdout`) straight into it.
    pub(super) fn write(&self, json: &[u8]) -> io::Result<()> {
        let _as_writer = self.assume()?;
        let opened = if self.folder.is_none() { Some(open_folder(self.parent())?) } else { None };
        let Some(folder) = self.folder.as_ref().or(opened.as_ref()) else { return Err(Errno::EBADF.into()) };
        if self.stays(folder)? {
            let found = fstatat(folder, self.name.as_os_str(), AtFlags::empty())?;
            let truncate = if is_a(&found, SFlag::S_IFREG) { OFlag::O_TRUNC } else { OFlag::empty() };
            // A pipe that nobody reads keeps the meter of somebody else's job from nothing.
            let wait = if self.writer.is_some() { OFlag::O_NONBLOCK } else { OFlag::empty() };
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC | truncate | wait;
            return File::from(openat(folder, self.name.as_os_str(), flags, Mode::empty())?).write_all(json);
        }
        replace(folder, &self.name, json)
    }

    /// Whether what is there is written into, and not replaced: a link or a pipe, which root follows only where root has made
    /// it.
    fn stays(&self, folder: &OwnedFd) -> io::Result<bool> {
        let found = match fstatat(folder, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(false),
            found => found?,
        };
        let is_special = !is_a(&found, SFlag::S_IFREG);
        let is_root = geteuid().is_root() && self.writer.is_none();
        Ok(is_special && (!is_root || found.st_uid == 0))
    }
}

fn is_a(found: &FileStat, kind: SFlag) -> bool {
    found.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(File::options().read(true).custom_flags(nix::libc::O_PATH | nix::libc::O_DIRECTORY).open(path)?.into())
}

fn replace(folder: &OwnedFd, name: &OsStr, json: &[u8]) -> io::Result<()> {
    let mut part = name.to_owned();
    // Nobody can have put a file of that name there.
    part.push(format!(".{}.part", Uuid::new_v4().simple()));
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o666);
    let written = File::from(openat(folder.as_fd(), part.as_os_str(), flags, mode)?)
        .write_all(json)
        .and_then(|()| Ok(renameat(folder, part.as_os_str(), folder, name)?));
    if written.is_err() {
        unlinkat(folder, part.as_os_str(), UnlinkatFlags::NoRemoveDir).ok();
    }
    written
}
