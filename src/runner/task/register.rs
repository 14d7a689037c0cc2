//! What a guardian will have to remove, for whoever comes after one that was killed: a file for each, locked while it lives.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::meter::task_groups::remove_group;
use crate::runner::socket;
use crate::sys::trust;

/// No other user can put anything there.
const FOLDER: &str = "/run/jobmeter/tasks";

#[derive(Debug, Serialize, Deserialize)]
struct Left {
    groups: Vec<PathBuf>,
    socket: Option<PathBuf>,
}

impl Left {
    /// Whether all of it has gone. A group that is not empty stays.
    fn remove(&self) -> bool {
        self.socket.iter().for_each(|path| socket::remove(path));
        self.groups.iter().all(|group| remove_group(group).is_ok())
    }
}

/// One guardian's, for as long as it lives.
#[derive(Debug)]
pub(super) struct Entry {
    path: PathBuf,
    left: Left,
    /// Locked for as long as this process lives, or the keeper that was forked from it.
    _file: Flock<File>,
}

impl Entry {
    /// Before anything is made that would be left.
    pub(super) fn make(attempt: Uuid, groups: Vec<PathBuf>, socket: Option<PathBuf>) -> io::Result<Self> {
        let folder = folder()?;
        let path = folder.join(attempt.to_string());
        // Locked under another name, so that nobody takes it for left over.
        let hidden = folder.join(format!(".{attempt}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&hidden)?;
        let mut file =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| io::Error::from(errno))?;
        let left = Left { groups, socket };
        file.write_all(&serde_json::to_vec(&left)?)?;
        std::fs::rename(&hidden, &path)?;
        Ok(Self { path, left, _file: file })
    }

    /// Removes what it names, and itself; whether all has gone.
    pub(super) fn clear(&self) -> bool {
        self.left.remove() && std::fs::remove_file(&self.path).is_ok()
    }
}

fn folder() -> io::Result<PathBuf> {
    let path = PathBuf::from(FOLDER);
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o711).create(parent)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    Ok(trust::believe_folder(&path)?)
}

/// Removes what guardians have left that were killed. What is not empty stays for the next time.
///
/// # Errors
/// Where it cannot be looked for.
pub fn sweep() -> io::Result<()> {
    for entry in std::fs::read_dir(folder()?)?.flatten() {
        let is_whole = entry.file_name().to_string_lossy().parse::<Uuid>().is_ok();
        let Some(file) = File::open(entry.path()).ok().filter(|_| is_whole) else { continue };
        let Ok(file) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
        let Ok(left) = serde_json::from_reader::<_, Left>(&*file) else { continue };
        if left.remove() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
