//! `jobmeter relay` and `jobmeter install`: beside a container that is metered by the wrapper.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use super::output::{Failure, Output};
use super::settings::Settings;
use super::values::{self, MaybeName, Span};
use crate::domain::units::Nanocredits;
use crate::ledger::location::Location;
use crate::ledger::protocol::JobKind;
use crate::ledger::relay::Welcome;
use crate::runner::relay::{RelayOptions, relay as carry};
use crate::sys::identity::FileIdentity;

/// What the wrapper's container needs.
const INSTALLED: [&str; 2] = ["jobmeter-wrapper", "jobmeter-nvml"];

#[derive(Debug, Args)]
#[command(
    after_help = "The container that is metered runs `jobmeter-wrapper --relay SOCKET -- COMMAND` as its first process."
)]
pub(super) struct Relay {
    /// The job's id
    #[arg(long, value_name = "ID", value_parser = values::name)]
    pub(super) job: String,
    /// The task within the job; empty: 0
    #[arg(long, value_name = "ID", default_value = "", value_parser = values::maybe_name)]
    pub(super) task: MaybeName,
    /// What the job is for [default: training]
    #[arg(long)]
    pub(super) kind: Option<JobKind>,
    /// A name for people; empty: none
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = values::maybe_name)]
    pub(super) name: MaybeName,
    /// Stop this job, over all its tasks, at so many credits
    #[arg(long, value_name = "CREDITS", value_parser = values::amount_above_zero)]
    pub(super) limit: Option<Nanocredits>,
    /// Where the wrapper finds it
    #[arg(long, value_name = "PATH", default_value = "/run/jobmeter/relay.sock")]
    pub(super) socket: PathBuf,
    /// How long a wrapper may be away before its attempt is settled without it [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub(super) lost_after: Option<Span>,
    /// At SIGTERM, how long to wait for a wrapper that is still there [default: 20s]
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub(super) grace: Option<Span>,
}

pub(super) fn relay(relay: &Relay, settings: &Settings) -> Result<ExitCode, Failure> {
    super::log::start();
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|error| Failure::new(format!("the path {}", path.display())).because(error))
    };
    let welcome = Welcome {
        session: Uuid::nil(),
        user: settings.user.clone(),
        job: relay.job.clone(),
        task: relay.task.0.clone().unwrap_or_else(|| "0".to_owned()),
        kind: relay.kind.unwrap_or(JobKind::Training),
        name: relay.name.0.clone(),
        limit: relay.limit,
    };
    let span = |given: Option<Span>, default: u64| given.map_or(Duration::from_secs(default), |span| span.0);
    let options = RelayOptions {
        socket: absolute(&relay.socket)?,
        state_dir: settings.spool_dir.clone(),
        ledger: settings.ledger.clone(),
        connect: Location::connect,
        welcome,
        lost_after: span(relay.lost_after, 10),
        grace: span(relay.grace, 20),
    };
    carry(options).map_err(Failure::new)?;
    Ok(ExitCode::SUCCESS)
}

/// In the place of an older one at once, whatever stands there; nobody's link is followed.
fn put(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", Uuid::new_v4().simple()));
    let part = to.with_file_name(name);
    let mut from = std::fs::File::open(from)?;
    let _as_owner = FileIdentity::of_folder_of(to)?;
    let written = std::fs::File::create_new(&part)
        .and_then(|mut new| std::io::copy(&mut from, &mut new))
        // Whatever the image's umask: whoever the container runs as must be able to execute it.
        .and_then(|_| std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o755)))
        .and_then(|()| std::fs::rename(&part, to));
    written.inspect_err(|_| drop(std::fs::remove_file(&part)))
}

/// Copies the wrapper, and the helper for GPUs where it is there, to where another container finds them.
pub(super) fn install(directory: &Path, out: &Output) -> Result<ExitCode, Failure> {
    let failed =
        |path: &Path, error: std::io::Error| Failure::new(format!("cannot install {}", path.display())).because(error);
    let own = std::env::current_exe()
        .map_err(|error| Failure::new("where this program is cannot be found").because(error))?;
    let mut installed = Vec::new();
    for name in INSTALLED {
        let from = own.with_file_name(name);
        let beside =
            [from.clone(), Path::new("/usr/libexec/jobmeter").join(name)].into_iter().find(|path| path.exists());
        let Some(from) = beside else {
            if name == INSTALLED[0] {
                return Err(Failure::new(format!("there is no {}", from.display())).hint("it is built with crt-static"));
            }
            continue;
        };
        let to = directory.join(name);
        put(&from, &to).map_err(|error| failed(&to, error))?;
        installed.push(to.display().to_string());
    }
    out.print(&installed, |_| format!("installed {}\n", installed.join(" and ")))
}
