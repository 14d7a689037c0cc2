//! Whether somebody has opened a file of the driver lately. The kernel tells of each opening by the file's inode (inotify(7)), so that no
//! other path to it, and no opening that is shorter than the time between two looks, stays unseen.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::identity::DriverFiles;

/// Openings since this was made.
#[derive(Debug)]
pub struct Openings(Option<Inotify>);

impl Openings {
    /// Of the files that are there now.
    #[must_use]
    pub fn watch(files: &DriverFiles) -> Self {
        let watch = || {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            for path in files.paths() {
                inotify.add_watch(&path, AddWatchFlags::IN_OPEN)?;
            }
            Ok::<Inotify, nix::Error>(inotify)
        };
        // A user has so many of them (fs.inotify.max_user_instances).
        Self(watch().ok())
    }

    /// Of no file: somebody else tells.
    #[must_use]
    pub fn of_none() -> Self {
        Self(None)
    }

    /// Readable when there was one; `None` where the kernel does not tell.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(Inotify::as_fd)
    }

    /// Those that it has told of are known. Whether there was one.
    #[must_use]
    pub fn forget(&self) -> bool {
        let told = || self.0.as_ref().is_some_and(|inotify| inotify.read_events().is_ok());
        let had_one = told();
        while told() {}
        had_one
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn an_opening_is_seen_however_short_and_by_whatever_path() {
        let root = tempfile::tempdir().unwrap();
        let [device, other] = ["nvidia0", "other"].map(|name| root.path().join(name));
        for path in [&device, &root.path().join("nvidiactl"), &root.path().join("null")] {
            std::fs::write(path, "").unwrap();
        }
        std::fs::hard_link(&device, &other).unwrap();
        let openings = Openings::watch(&DriverFiles::at(root.path(), root.path()));
        assert!(!openings.forget());
        drop(std::fs::File::open(root.path().join("null")).unwrap());
        std::fs::metadata(&device).unwrap();
        assert!(!openings.forget(), "neither another file nor a look at it is an opening");
        drop(std::fs::File::open(other).unwrap());
        assert!(openings.forget() && !openings.forget());
        assert!(Openings(None).fd().is_none() && openings.fd().is_some());
    }

    /// The driver's are no regular files; a terminal is none either, and this one is nobody else's.
    #[test]
    fn an_opening_of_a_device_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let terminal = nix::pty::openpty(None, None).unwrap();
        let device = nix::unistd::ttyname(&terminal.slave).unwrap();
        std::os::unix::fs::symlink(&device, root.path().join("nvidia0")).unwrap();
        let files = DriverFiles::at(root.path(), root.path());
        let openings = Openings::watch(&files);
        assert!(!openings.forget());
        // A session's leader would have it as its terminal from then on, and end with it.
        let no_terminal = nix::libc::O_NOCTTY;
        let open = std::fs::File::options().read(true).custom_flags(no_terminal).open(&device).unwrap();
        assert!(openings.forget());
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(files.open_by(&[own]).minors, [0].into());
        drop(open);
    }
}
