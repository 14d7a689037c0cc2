//! `jobmeter attach`: meters and stops what something else has started.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::output::Failure;
use super::run::{Gpu, Run};
use super::settings::Settings;
use super::values::{self, MaybeName, Span};
use crate::domain::units::Nanocredits;
use crate::ledger::protocol::JobKind;
use crate::runner;
use crate::runner::options::{self, RunOptions};
use crate::sys::cgroup::{Group, group_path_of};
use crate::sys::clock::{Clock, SystemClock, pause};
use crate::sys::proc;
use crate::sys::process::in_own_pid_namespace;

const LOOK: Duration = Duration::from_millis(5);
/// A group goes away with its last process, and what it burned since the last look with it.
const INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
#[command(
    after_help = "Without --pid and --cgroup, in a container: the first other container of the pod, which needs \
                  shareProcessNamespace and the same user. `run` is more exact: what a group burns between the last look \
                  and its end is lost with it. If jobmeter is killed, the next one ends what it was attached to."
)]
pub(super) struct Attach {
    /// The group that this process is in
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// This cgroup v2 directory
    #[arg(long, value_name = "PATH", conflicts_with = "pid")]
    cgroup: Option<PathBuf>,
    /// Charge what was burned in it before, too
    #[arg(long)]
    from_start: bool,
    /// How long to wait for another container [default: 5min]
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    wait: Option<Span>,
    /// The job's id [default: a UUIDv7]
    #[arg(long, value_name = "ID", value_parser = values::name)]
    job: Option<String>,
    /// The task within the job; empty: 0
    #[arg(long, value_name = "ID", default_value = "", value_parser = values::maybe_name)]
    task: MaybeName,
    /// What the job is for [default: training]
    #[arg(long)]
    kind: Option<JobKind>,
    /// A name for people; empty: none
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = values::maybe_name)]
    name: MaybeName,
    /// A label; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    labels: Vec<(String, String)>,
    /// Stop this job, over all its tasks, at so many credits
    #[arg(long, value_name = "CREDITS", value_parser = values::amount_above_zero)]
    limit: Option<Nanocredits>,
    /// The longest time between two looks, 10ms to 1min [default: 100ms]
    #[arg(long, value_name = "TIME", value_parser = values::interval)]
    interval: Option<Span>,
    /// How long a job stays frozen at its ceiling when the ledger does not answer, up to 1h [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = values::hold)]
    hold: Option<Span>,
    #[command(flatten)]
    gpu: Gpu,
    /// Write the receipt, JSON, to this file
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// Exit status when credits are exhausted [default: 75]
    #[arg(long, value_name = "STATUS")]
    exhausted_status: Option<u8>,
    /// Print no summary
    #[arg(long, short)]
    quiet: bool,
}

impl Attach {
    /// The same options for a command that runs already.
    fn run_as_if(&self, command: Vec<OsString>) -> Run {
        Run {
            job: self.job.clone(),
            task: Some(self.task.0.clone().unwrap_or_else(|| "0".to_owned())),
            kind: self.kind,
            name: self.name.0.clone(),
            labels: self.labels.clone(),
            limit: self.limit,
            interval: None,
            hold: self.hold,
            notice: None,
            grace: None,
            wait_descendants: false,
            run_as: None,
            allow_new_privileges: false,
            chdir: None,
            cpu_source: None,
            gpu: self.gpu.clone(),
            receipt: self.receipt.clone(),
            exhausted_status: self.exhausted_status,
            quiet: self.quiet,
            dry_run: false,
            command,
        }
    }
}

pub(super) fn attach(attach: &Attach, settings: &Settings) -> Result<ExitCode, Failure> {
    let path = match (&attach.cgroup, attach.pid) {
        (Some(path), _) => std::path::absolute(path)
            .map_err(|error| Failure::new(format!("the path {}", path.display())).because(error))?,
        (None, Some(pid)) => group_of(pid)?,
        (None, None) => group_of(neighbour(attach.wait.as_ref().map_or(Duration::from_mins(5), |span| span.0))?)?,
    };
    let command = command_in(&path);
    let run = super::run::options(&attach.run_as_if(command), settings)?;
    let interval = attach.interval.as_ref().map_or(INTERVAL, |span| span.0);
    let attach = Some(options::Attach { path, from_start: attach.from_start });
    Ok(runner::run(&RunOptions { attach, interval, ..run }))
}

/// Where this machine shows the group of a process: by its own mount, or, where it has another, by that of the process.
fn group_of(pid: i32) -> Result<PathBuf, Failure> {
    let here =
        group_path_of(pid).ok().filter(|path| Group::open(path).is_ok_and(|group| group.processes().contains(&pid)));
    let there = || proc::path(pid, "root/sys/fs/cgroup").ok();
    let found = here.or_else(|| there().filter(|path| Group::open(path).is_ok()));
    found.ok_or_else(|| {
        Failure::new(format!("the group of process {pid} cannot be seen from here"))
            .hint("name it by --cgroup; in a pod, shareProcessNamespace and the same user are needed")
    })
}

/// The first process of the one other container with which this one shares its PID namespace. Elsewhere than in a pod every
/// container of the machine would be such a neighbour, and whose it is nobody has said.
fn neighbour(wait: Duration) -> Result<i32, Failure> {
    let named = "name what is to be metered by --pid or --cgroup";
    if !in_own_pid_namespace() {
        return Err(Failure::new("outside of a pod nothing says which container is meant").hint(named));
    }
    let space = |pid: i32| std::fs::read_link(proc::path(pid, "ns/cgroup").ok()?).ok();
    let (own, first) = (space(nix::unistd::getpid().as_raw()), space(1));
    let until_us = SystemClock.boottime_us().saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
    loop {
        let mut pids = proc::pids().map_err(|error| Failure::new("processes cannot be seen").because(error))?;
        pids.sort_unstable();
        let spaces = pids.into_iter().filter_map(|pid| Some((space(pid)?, pid)));
        let mut others: BTreeMap<PathBuf, i32> = BTreeMap::new();
        for (space, pid) in spaces.filter(|(space, _)| Some(space) != own.as_ref() && Some(space) != first.as_ref()) {
            others.entry(space).or_insert(pid);
        }
        match others.values().collect::<Vec<_>>().as_slice() {
            [] => {}
            [pid] => return Ok(**pid),
            several => {
                return Err(Failure::new(format!(
                    "several containers share this PID namespace: processes {several:?}"
                ))
                .hint(named));
            }
        }
        if SystemClock.boottime_us() >= until_us {
            return Err(Failure::new("no other container shares this PID namespace")
                .hint("set shareProcessNamespace and the same runAsUser, or name --pid or --cgroup"));
        }
        pause(LOOK);
    }
}

/// For people: what runs there.
fn command_in(path: &Path) -> Vec<OsString> {
    let first = Group::open(path).ok().and_then(|group| group.processes().first().copied());
    let line = first.and_then(|pid| std::fs::read(proc::path(pid, "cmdline").ok()?).ok()).unwrap_or_default();
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words: Vec<OsString> = words.map(|word| OsString::from_vec(word.to_vec())).collect();
    if words.is_empty() { vec![path.into()] } else { words }
}
