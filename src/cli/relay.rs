//! `jobmeter relay`: beside a container that is metered by the wrapper.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use super::output::Failure;
use super::settings::Settings;
use super::values::{self, MaybeName, Span};
use crate::domain::units::Nanocredits;
use crate::ledger::location::Location;
use crate::ledger::protocol::JobKind;
use crate::ledger::relay::Welcome;
use crate::runner::relay::{RelayOptions, relay as carry};

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
    /// No other job has the container's GPUs, so that all that they do is the job's; empty: false
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", value_parser = values::maybe_true())]
    pub(super) gpu_exclusive: bool,
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
        gpu_exclusive: relay.gpu_exclusive,
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
