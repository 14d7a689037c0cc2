//! What a run is asked to do, after flags, environment, file and defaults have been put together.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::domain::redaction::SecretNames;
use crate::domain::units::{Microseconds, Nanocredits};
use crate::ledger::location::{Connect, Location};
use crate::ledger::protocol::JobKind;
use crate::meter::CpuSource;
use crate::meter::gpu::options::GpuOptions;
use crate::sys::credentials::Credentials;

/// `--notice SIGTERM@30s`: a signal sent once, ahead of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Which.
    pub signal: Signal,
    /// How long the account's credits would last at its present rate.
    pub before: Duration,
}

/// `--as USER`: resolved before the fork, since name services may not be asked between fork and exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// For messages and `USER`.
    pub name: String,
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
    /// For `HOME`.
    pub home: PathBuf,
    /// For `SHELL`.
    pub shell: PathBuf,
    /// `--allow-new-privileges`: by set-uid programs and file capabilities.
    pub may_gain_privileges: bool,
}

impl RunAs {
    /// What the kernel has to know of this user.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        Credentials { uid: self.uid, gid: self.gid, groups: self.groups.clone() }
    }
}

/// A group that something else made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Its directory.
    pub path: PathBuf,
    /// What was burned in it before is charged as well.
    pub from_start: bool,
}

/// How long what the command leaves behind may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// `--grace`: then it is killed.
    For(Duration),
    /// `--wait-descendants`: until it ends by itself.
    Unlimited,
}

impl Default for Grace {
    /// Long enough to write the last lines of a log, short enough for a scheduler that waits.
    fn default() -> Self {
        Self::For(Duration::from_secs(2))
    }
}

/// The longest that can be asked for: what takes longer is waited for.
const GRACE_MAX: Duration = Duration::from_hours(24);

/// A time that is none, or too long for a grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraceError;

impl fmt::Display for GraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it must be 0 to {} seconds, such as 2 or 0.5", GRACE_MAX.as_secs())
    }
}

impl std::error::Error for GraceError {}

impl Grace {
    /// So long, at most a day.
    ///
    /// # Errors
    /// Where it is longer.
    pub fn of(time: Duration) -> Result<Self, GraceError> {
        if time > GRACE_MAX { Err(GraceError) } else { Ok(Self::For(time)) }
    }
}

/// As seconds, with up to six decimals.
impl FromStr for Grace {
    type Err = GraceError;

    fn from_str(text: &str) -> Result<Self, GraceError> {
        let Microseconds(us) = text.parse().map_err(|_| GraceError)?;
        Self::of(Duration::from_micros(us))
    }
}

/// Everything about one run. The command is not empty.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// `COMMAND [ARG]...`
    pub command: Vec<OsString>,
    /// The command's, where it is not this process's own.
    pub environment: Option<Vec<(OsString, OsString)>>,
    /// Nothing is started: this is metered, and the command is what runs in it.
    pub attach: Option<Attach>,
    /// Where the ledger is; absolute.
    pub ledger: Location,
    /// How it is opened.
    pub connect: Connect,
    /// Where spool files are kept; absolute. Without it they are kept in memory, for whom a relay keeps what was reported.
    pub spool_dir: Option<PathBuf>,
    /// Whose credits.
    pub user: String,
    /// `--job`, or the scheduler's, or a `UUIDv7`.
    pub job: String,
    /// `--task`, or the scheduler's, or "0".
    pub task: String,
    /// `--kind`.
    pub kind: JobKind,
    /// `--name`.
    pub name: Option<String>,
    /// `--label K=V`.
    pub labels: BTreeMap<String, String>,
    /// `--limit`.
    pub limit: Option<Nanocredits>,
    /// `--interval`: the longest time between two looks.
    pub interval: Duration,
    /// `--hold`: how long the job stays frozen at its ceiling when the ledger does not answer.
    pub hold: Duration,
    /// `--notice`.
    pub notice: Option<Notice>,
    /// How long what the command leaves behind may go on.
    pub grace: Grace,
    /// `--as`.
    pub run_as: Option<RunAs>,
    /// `--chdir`, absolute: where the command starts.
    pub directory: Option<PathBuf>,
    /// `--cpu-source`: this one or none.
    pub cpu_source: Option<CpuSource>,
    /// `--gpus`, `--gpu-exclusive`, `--nvml-library`.
    pub gpus: GpuOptions,
    /// `--receipt`; absolute.
    pub receipt: Option<PathBuf>,
    /// By whose names the secrets of the command line are known, which is kept without them.
    pub secret_names: SecretNames,
    /// Where the kubelet reads why a container ended.
    pub termination_log: Option<PathBuf>,
    /// `--quiet`: no summary.
    pub quiet: bool,
    /// `--exhausted-status`.
    pub exhausted_status: u8,
}
