//! Which files a process with privileges may believe: those that root or its own user owns, at the end of a path on which
//! nobody else can write. Whoever can write a directory can put another file, or a link, in the place of what was checked.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use nix::sys::statvfs::{FsFlags, fstatvfs, statvfs};
use nix::unistd::{Gid, Uid, User, getegid, geteuid};

/// As many as the kernel follows on one path (path_resolution(7)).
const LINKS_MAX: usize = 40;
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o002;
const WRITABLE_BY_GROUP: u32 = 0o020;

/// Why a path is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// Somebody else's: he can change it at any time.
    #[error("{} belongs to {}, not to {}", path.display(), name_of(*uid), own_name())]
    Owner {
        /// The first on the way that is his.
        path: PathBuf,
        /// Neither root's nor this process's.
        uid: u32,
    },
    /// Everybody, or a group, can change it.
    #[error("{} can be written by {who}", path.display())]
    Writable {
        /// What can be written.
        path: PathBuf,
        /// "everybody" or the group.
        who: String,
    },
    /// It is not there, or cannot be looked at.
    #[error("{}{error}", path.as_ref().map_or_else(String::new, |path| format!("{}: ", path.display())))]
    Unreadable {
        /// The first on the way of which that is so; `None` where that is the path itself.
        path: Option<PathBuf>,
        /// As the kernel has it.
        error: io::Error,
    },
}

impl Distrust {
    /// Whose it is, where that is the reason.
    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        match self {
            Self::Owner { uid, .. } => Some(*uid),
            Self::Writable { .. } | Self::Unreadable { .. } => None,
        }
    }

    /// What is wrong is that nothing is there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Unreadable { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

impl From<Distrust> for io::Error {
    fn from(why: Distrust) -> Self {
        let kind = match &why {
            Distrust::Unreadable { error, .. } => error.kind(),
            Distrust::Owner { .. } | Distrust::Writable { .. } => io::ErrorKind::PermissionDenied,
        };
        Self::new(kind, why.to_string())
    }
}

fn name_of(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("the user {}", user.name),
        _ => format!("the user {uid}"),
    }
}

fn own_name() -> String {
    if geteuid().is_root() { "root".to_owned() } else { format!("root or {}", name_of(geteuid().as_raw())) }
}

/// Whom this process believes: root, and its own user and group.
#[derive(Debug)]
struct Believed {
    uids: [u32; 3],
    gid: u32,
}

impl Believed {
    /// As it began: who becomes somebody else later believes no more than before.
    fn by_this_process() -> &'static Self {
        static BELIEVED: OnceLock<Believed> = OnceLock::new();
        BELIEVED.get_or_init(|| {
            let own = geteuid().as_raw();
            // In a user namespace what belongs to the machine's root is shown as nobody's.
            let unmapped = if is_mapped(overflow_uid()) { own } else { overflow_uid() };
            Self { uids: [0, own, unmapped], gid: getegid().as_raw() }
        })
    }

    /// `is_last` says whether the path ends here: into a sticky directory on the way others can put files, but cannot
    /// replace those that are believed.
    fn judge(&self, path: &Path, meta: &std::fs::Metadata, is_last: bool) -> Result<(), Distrust> {
        let path = path.to_owned();
        if !self.uids.contains(&meta.uid()) {
            return Err(Distrust::Owner { path, uid: meta.uid() });
        }
        let (mode, is_link) = (meta.mode(), meta.file_type().is_symlink());
        // The mode of a link says nothing, nor does that of a device or a pipe on what it stands for.
        if is_link || (meta.is_dir() && mode & STICKY != 0 && !is_last) || meta.file_type().is_char_device() {
            return Ok(());
        }
        if mode & WRITABLE_BY_OTHERS != 0 {
            return Err(Distrust::Writable { path, who: "everybody".to_owned() });
        }
        if mode & WRITABLE_BY_GROUP != 0 && meta.gid() != self.gid && meta.gid() != 0 {
            return Err(Distrust::Writable { path, who: group_name(meta.gid()) });
        }
        Ok(())
    }
}

fn group_name(gid: u32) -> String {
    match nix::unistd::Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) => format!("the group {}", group.name),
        _ => format!("the group {gid}"),
    }
}

/// Whether root here is the machine's.
#[must_use]
pub fn is_in_first_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Whether somebody in this user namespace has this id (user_namespaces(7)).
fn is_mapped(uid: u32) -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let ranges = map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (first, _, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some((first, count))
    });
    ranges.into_iter().any(|(first, count)| uid >= first && uid - first < count)
}

/// Whether nobody here can write what lies there.
#[must_use]
pub fn is_on_read_only_mount(path: &Path) -> bool {
    statvfs(path).is_ok_and(|mount| mount.flags().contains(FsFlags::ST_RDONLY))
}

/// The same of what is open.
///
/// # Errors
/// Where the kernel does not tell.
pub fn is_mounted_read_only(file: &File) -> io::Result<bool> {
    Ok(fstatvfs(file)?.flags().contains(FsFlags::ST_RDONLY))
}

/// Opens what may be anything, and waits for nobody.
///
/// # Errors
/// Where it cannot be opened.
pub fn open_at_once(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY).open(path)
}

/// Whose files are whose owner has no number in this user namespace (user_namespaces(7)).
#[must_use]
pub fn overflow_uid() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    text.trim().parse().unwrap_or(65_534)
}

/// Follows `path` from the root, one name at a time, and judges each directory, link and file on the way: the path
/// without its links, which stays what it is, since nobody else can change it.
///
/// # Errors
/// With the first thing on the way that is not believed.
pub fn believe(path: &Path) -> Result<PathBuf, Distrust> {
    believe_as(Believed::by_this_process(), path, Judged::All)
}

/// The same for a folder in which something new is made: in a sticky one, such as `/tmp`, others can put what they like, but not in
/// the place of what is not theirs.
///
/// # Errors
/// As [`believe`].
pub fn believe_folder(path: &Path) -> Result<PathBuf, Distrust> {
    believe_as(Believed::by_this_process(), path, Judged::Folder)
}

/// Follows links of those who are believed, and no others, whoever can write on the way: where a place is somebody else's on
/// purpose, as a volume of a container is, but shall not be led elsewhere.
///
/// # Errors
/// With the first link that somebody else made.
pub fn resolve(path: &Path) -> Result<PathBuf, Distrust> {
    believe_as(Believed::by_this_process(), path, Judged::Links)
}

/// What has to be out of others' reach on a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judged {
    All,
    /// All of it, and what comes next is made anew.
    Folder,
    Links,
}

fn believe_as(believed: &Believed, path: &Path, judged: Judged) -> Result<PathBuf, Distrust> {
    let unreadable = |path: &Path, is_last: bool| {
        let path = Some(path.to_owned()).filter(|_| !is_last);
        move |error| Distrust::Unreadable { path, error }
    };
    let mut resolved = PathBuf::from("/");
    let mut names: VecDeque<OsString> = names_of(&std::path::absolute(path).map_err(unreadable(path, true))?);
    let mut links = 0;
    let root = std::fs::symlink_metadata(&resolved).map_err(unreadable(&resolved, names.is_empty()))?;
    let judge = |path: &Path, meta: &std::fs::Metadata, is_last: bool| {
        let is_left_out = judged == Judged::Links && !meta.file_type().is_symlink();
        if is_left_out { Ok(()) } else { believed.judge(path, meta, is_last && judged != Judged::Folder) }
    };
    judge(&resolved, &root, names.is_empty())?;
    while let Some(name) = names.pop_front() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(&name);
        let meta = std::fs::symlink_metadata(&next).map_err(unreadable(&next, names.is_empty()))?;
        judge(&next, &meta, names.is_empty())?;
        if !meta.file_type().is_symlink() {
            resolved = next;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(unreadable(&next, names.is_empty())(nix::errno::Errno::ELOOP.into()));
        }
        let target = std::fs::read_link(&next).map_err(unreadable(&next, names.is_empty()))?;
        if target.is_absolute() {
            resolved = PathBuf::from("/");
        }
        for name in names_of(&target).into_iter().rev() {
            names.push_front(name);
        }
    }
    Ok(resolved)
}

fn names_of(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

/// Reads a file that this process acts upon for others: settings, a key. One that somebody else could have written is not read:
/// the file itself has to be believed, and for root each folder on the way to it. (A service in a container finds its files
/// in volumes that everybody there may write; what anybody put there would be his own.)
///
/// # Errors
/// Where it is not believed or cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, Distrust> {
    let unreadable = |error| Distrust::Unreadable { path: None, error };
    if path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd") {
        // Whoever started this process has opened it.
        return std::fs::read(path).map_err(unreadable);
    }
    let real = if geteuid().is_root() { believe(path)? } else { path.to_owned() };
    let mut options = std::fs::OpenOptions::new();
    // A pipe in its place keeps nobody waiting.
    let mut file = options.read(true).custom_flags(nix::libc::O_NONBLOCK).open(real).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    Believed::by_this_process().judge(path, &meta, true)?;
    if !meta.is_file() {
        return Err(unreadable(io::Error::other("expected a plain file")));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// The same, for text.
///
/// # Errors
/// As [`read`], or where it is no UTF-8.
pub fn read_to_string(path: &Path) -> Result<String, Distrust> {
    String::from_utf8(read(path)?)
        .map_err(|_| Distrust::Unreadable { path: None, error: io::Error::other("expected text in UTF-8") })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_can_write_is_not_believed() {
        let top = tempfile::tempdir().unwrap();
        let (inner, file) = (top.path().join("inner"), top.path().join("inner/file"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(&file, "x").unwrap();
        chmod(&inner, 0o755);
        chmod(&file, 0o644);
        assert_eq!(read_to_string(&file).unwrap(), "x");
        chmod(&file, 0o646);
        assert!(believe(&file).unwrap_err().to_string().ends_with("inner/file can be written by everybody"));
        chmod(&file, 0o644);
        chmod(&inner, 0o757);
        assert!(believe(&file).unwrap_err().to_string().ends_with("inner can be written by everybody"));
        // Nobody but its owner can replace a file in a sticky directory; but anybody can make one.
        chmod(&inner, 0o1757);
        believe(&file).unwrap();
        believe(&inner).unwrap_err();
        believe_folder(&inner).unwrap();
        chmod(&inner, 0o755);
        assert!(believe(&inner.join("none")).unwrap_err().is_missing());
    }

    #[test]
    fn links_are_followed_where_their_owner_is_believed() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(top.path().join("a/b")).unwrap();
        std::fs::write(top.path().join("a/file"), "").unwrap();
        symlink("a/b/..", top.path().join("link")).unwrap();
        let real = std::fs::canonicalize(top.path().join("a/file")).unwrap();
        assert_eq!(believe(&top.path().join("link/file")).unwrap(), real);
        symlink("loop", top.path().join("loop")).unwrap();
        assert!(believe(&top.path().join("loop")).is_err());
    }

    #[test]
    fn what_belongs_to_somebody_else_is_named() {
        let own = geteuid().as_raw();
        let other = Believed { uids: [own.wrapping_add(7); 3], gid: 0 };
        let error = believe_as(&other, Path::new("/"), Judged::All).unwrap_err();
        assert_eq!(error.owner(), Some(std::fs::metadata("/").unwrap().uid()));
        assert!(error.to_string().starts_with("/ belongs to the user "), "{error}");
    }
}
