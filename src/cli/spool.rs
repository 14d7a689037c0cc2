//! `jobmeter spool`: burn that the ledger has not taken.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::args::Spool;
use super::output::{Failure, Output, Style};
use super::settings::Settings;
use crate::ledger::finish_only::FinishOnly;
use crate::ledger::location::{Connect, Location};
use crate::runner::leftovers::{self, LeftOver};
use crate::runner::summary::seconds;
use crate::sys::credentials::Credentials;
use crate::sys::identity;
use crate::sys::trust::{self, Distrust};

/// As its owner a directory is flushed within this: he may have stopped the process that does it.
const OWNER_MAX: Duration = Duration::from_mins(5);

pub(super) fn unreadable(error: std::io::Error) -> Failure {
    Failure::new("the spool directory cannot be read").because(error)
}

pub(super) fn spool(spool: &Spool, settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    let directory = &settings.spool_dir;
    let Some(owner) = Owner::to_be(directory)? else {
        return perform(spool, directory, settings, out, Location::connect);
    };
    let status = identity::run_as(&owner.credentials, OWNER_MAX, || owner.perform(spool, settings, out));
    let status = status.map_err(|error| {
        Failure::new(format!("{} is flushed as its owner, and was not", directory.display())).because(error)
    })?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
}

/// Whom the files of a spool directory are believed of: root reads those of another user as that user, so that what he wrote there
/// moves nothing that is not his.
struct Owner {
    credentials: Credentials,
    /// Held where he might not come to it by its path.
    held: Option<File>,
}

impl Owner {
    /// `None` where they may be read as they are.
    fn to_be(directory: &Path) -> Result<Option<Self>, Failure> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(None);
        }
        let (path, uid) = match trust::believe(directory) {
            Ok(_) => return Ok(None),
            Err(error) if error.is_missing() => return Ok(None),
            Err(Distrust::Owner { path, uid }) => (path, uid),
            Err(error) => return Err(refused(directory).because(error)),
        };
        // Nobody else can put something in its place: what is above it is root's.
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_DIRECTORY;
        let held = File::options().read(true).custom_flags(flags).open(&path).map_err(unreadable)?;
        let meta = held.metadata().map_err(unreadable)?;
        if meta.uid() != uid {
            return Err(refused(directory).because(Distrust::Owner { path, uid: meta.uid() }));
        }
        let credentials = Credentials::of(uid, meta.gid()).map_err(unreadable)?;
        let is_it = std::fs::canonicalize(directory).is_ok_and(|real| real == path);
        Ok(Some(Self { credentials, held: is_it.then_some(held) }))
    }

    fn perform(&self, spool: &Spool, settings: &Settings, out: &Output) -> i32 {
        let here = self.held.as_ref().is_some_and(|held| nix::unistd::fchdir(held).is_ok());
        let directory = if here { Path::new(".") } else { &settings.spool_dir };
        // The key is root's, and good for every account.
        let connect: Connect = |location| Ok(Box::new(FinishOnly(location.connect()?)));
        let status = match perform(spool, directory, settings, out, connect) {
            Ok(status) => i32::from(status != ExitCode::SUCCESS),
            Err(failure) => {
                super::output::print_failure(&failure);
                1
            }
        };
        super::output::flush().map_or(1, |()| status)
    }
}

fn refused(directory: &Path) -> Failure {
    Failure::new(format!("root does not read the spool directory {}", directory.display()))
        .hint("it has to belong to root or to the jobs' user, in directories that nobody else can write")
}

fn perform(
    spool: &Spool,
    directory: &Path,
    settings: &Settings,
    out: &Output,
    connect: Connect,
) -> Result<ExitCode, Failure> {
    match spool {
        Spool::List => {
            let files = leftovers::list(directory).map_err(unreadable)?;
            out.print(&files, |style| text(&files, "nothing is in the spool\n", style))
        }
        Spool::Flush { acknowledged } => {
            let mut flushed = leftovers::flush(directory, &settings.ledger, connect).map_err(unreadable)?;
            if *acknowledged {
                let again = leftovers::resend(directory, &settings.ledger, connect).map_err(unreadable)?;
                flushed.settled.extend(again.settled);
                flushed.kept.extend(again.kept);
            }
            out.print(&flushed, |style| {
                let mut shown = text(&flushed.settled, "", style);
                shown.push_str(&text(&flushed.kept, "", style));
                let (settled, kept) = (flushed.settled.len(), flushed.kept.len());
                shown.push_str(&format!("{settled} settled, {kept} kept, {} in use\n", flushed.in_use));
                shown
            })?;
            Ok(if flushed.kept.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn text(files: &[LeftOver], none: &str, style: &Style) -> String {
    if files.is_empty() {
        return none.to_owned();
    }
    let row = |file: &LeftOver| {
        vec![
            file.attempt.map_or_else(|| file.path.display().to_string(), |attempt| attempt.to_string()),
            file.job.clone().unwrap_or_default(),
            file.user.clone().unwrap_or_default(),
            file.cpu_seconds.map(seconds).unwrap_or_default(),
            file.ledger.clone().unwrap_or_default(),
            file.state.clone(),
        ]
    };
    style.table(&["ATTEMPT", "JOB", "USER", "CPU S", "LEDGER", "STATE"], &files.iter().map(row).collect::<Vec<_>>())
}
