//! `jobmeter slurm`: what the plugin of deploy/slurm starts, and nobody types.
//!
//! `slurm task` runs as root, beside a task: all that it is told comes from slurmstepd, and only what stands behind `--choose` from the
//! job's user. `slurm front` runs as that user, in the place of the task.

use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, Uid, User};

use super::config_file::{self, SYSTEM_FILE, SlurmFile};
use super::output::{Failure, RUN_FAILED, print_failure, print_help};
use super::run::{self, Run};
use super::settings::Settings;
use super::values;
use crate::ledger::location::Location;
use crate::runner::leftovers;
use crate::runner::options::{RunAs, RunOptions};
use crate::runner::task::{self, Handed};
use crate::sys::credentials::{Credentials, keep_the_right_to_kill};
use crate::sys::handshake::{inherited, receive_of_root};
use crate::sys::identity::FileIdentity;
use crate::sys::process::{exit_now, fork};
use crate::sys::trust;

/// As the plugin has it.
const DESCRIPTION_MAX_BYTES: usize = 65_536;
/// Whose the meter is, unless the settings say otherwise.
const METER_USER: &str = "jobmeter";
/// Where its spool is, unless they do.
const SPOOL_DIR: &str = "/var/spool/jobmeter/slurm";
/// What a user may choose: none of it changes what is metered, what is charged, or where that goes.
const CHOICES: [&str; 6] = ["limit", "kind", "name", "label", "notice", "grace"];

#[derive(Debug, Parser)]
#[command(name = "jobmeter slurm")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Meter a task that slurmstepd will start
    Task {
        /// The socket to it, over which slurmstepd says which task that is
        #[arg(long)]
        channel: RawFd,
    },
    /// As root: end what nobody meters any more, and settle it
    Flush,
    /// Stand in the place of a task
    Front {
        /// The socket to the meter
        #[arg(long)]
        channel: RawFd,
        /// The child that becomes the command
        #[arg(long)]
        command: i32,
    },
}

/// What slurmstepd says of a task once it has forked it, as the words of a call.
#[derive(Debug, Parser)]
#[command(name = "jobmeter slurm task", no_binary_name = true)]
struct Task {
    /// The process that Slurm knows it by
    #[arg(long)]
    pid: i32,
    /// The job's user, who pays
    #[arg(long)]
    uid: u32,
    /// The job's id, of an element its own
    #[arg(long)]
    job: u32,
    /// Of an array: its id
    #[arg(long, requires = "array_task")]
    array_job: Option<u32>,
    /// Of an array: which element
    #[arg(long)]
    array_task: Option<u32>,
    /// How many the step has
    #[arg(long)]
    tasks: u32,
    /// Others may have a part of its GPUs
    #[arg(long)]
    shares_gpus: bool,
    /// What its user calls the job
    #[arg(long)]
    job_name: Option<String>,
    /// What its user has chosen, NAME=VALUE; may be given more than once
    #[arg(long = "choose", value_name = "NAME=VALUE")]
    choices: Vec<String>,
    /// Its command, for people
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// As `jobmeter run` takes them.
#[derive(Debug, Parser)]
#[command(name = "jobmeter", disable_help_flag = true)]
struct Line {
    #[command(flatten)]
    run: Run,
}

pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    // The first word is the program's name.
    let parsed = Arguments::try_parse_from(arguments.iter().skip(1));
    match parsed.map(|arguments| arguments.verb) {
        Ok(Verb::Front { channel, command }) => match inherited(channel) {
            Ok(channel) => task::front::front(channel, Pid::from_raw(command)),
            Err(_) => ExitCode::from(RUN_FAILED),
        },
        Ok(Verb::Task { channel }) => watch(channel),
        Ok(Verb::Flush) => flush().unwrap_or_else(|failure| {
            print_failure(&failure);
            ExitCode::FAILURE
        }),
        Err(error) => {
            print_help(&error);
            ExitCode::from(RUN_FAILED)
        }
    }
}

fn watch(channel: RawFd) -> ExitCode {
    // The task sees that nobody is there.
    let Ok(channel) = inherited(channel) else { return ExitCode::from(RUN_FAILED) };
    match await_task(&channel) {
        Ok(Some((place, given, options, meter))) => {
            let (task, element, tasks) = (Pid::from_raw(given.pid), given.array_task, given.tasks);
            let shares_gpus = given.shares_gpus;
            task::watch(place, options, Handed { task, channel, meter, element, tasks, shares_gpus })
        }
        // slurmstepd has gone, or forks none.
        Ok(None) => ExitCode::SUCCESS,
        Err(failure) => task::refuse(channel, &failure.to_string()),
    }
}

type Awaited = (task::Place, Task, RunOptions, Credentials);

/// Much of what comes before a task takes its time while slurmstepd prepares it.
fn await_task(channel: &OwnedFd) -> Result<Option<Awaited>, Failure> {
    as_root_of_machine()?;
    let place = task::Place::make().map_err(|why| Failure::new(why.to_string()))?;
    let received = receive_of_root(channel.as_fd(), DESCRIPTION_MAX_BYTES);
    let Some(bytes) = received.map_err(|error| Failure::new("which task it is").because(error))? else {
        return Ok(None);
    };
    let words = bytes.strip_suffix(&[0]).unwrap_or(&bytes).split(|byte| *byte == 0).map(OsStr::from_bytes);
    let given =
        Task::try_parse_from(words).map_err(|error| Failure::new("which task it is").because(first_line(&error)))?;
    let (options, meter) = prepare(&given)?;
    Ok(Some((place, given, options, meter)))
}

fn first_line(error: &clap::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn as_root_of_machine() -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() && trust::is_in_first_user_namespace() {
        return Ok(());
    }
    Err(Failure::new("only Slurm's daemons and scripts start this, as root"))
}

/// Whose the meter is, and its settings for a task of `user`.
fn settings(user: &str) -> Result<(Settings, Credentials), Failure> {
    let file = config_file::of_machine()?.unwrap_or_default();
    let meter = meter_user(&file.slurm)?;
    let spool_dir = file.slurm.spool_dir.clone().unwrap_or_else(|| PathBuf::from(SPOOL_DIR));
    make_spool(&spool_dir, &meter)?;
    // Whatever stands in the place of its key, root does not read it.
    let _as_meter = FileIdentity::assume(&meter).map_err(|error| Failure::new("the meter's files").because(error))?;
    Ok((Settings::of_task(file, user, spool_dir)?, meter))
}

fn prepare(given: &Task) -> Result<(RunOptions, Credentials), Failure> {
    let user = User::from_uid(Uid::from_raw(given.uid)).ok().flatten();
    let user = user.ok_or_else(|| Failure::new(format!("the job's user {} has no name on this machine", given.uid)))?;
    let (settings, meter) = settings(&user.name)?;
    let line = Line::try_parse_from(words(given)?)
        .map_err(|error| Failure::new("the job's options").because(first_line(&error)))?;
    // Its groups play no part: nothing is started as that user here, and to look them up can take long.
    let run_as = RunAs {
        name: user.name,
        uid: given.uid,
        gid: user.gid.as_raw(),
        groups: vec![user.gid.as_raw()],
        home: user.dir,
        shell: user.shell,
        may_gain_privileges: true,
    };
    Ok((RunOptions { run_as: Some(run_as), ..run::options(&line.run, &settings)? }, meter))
}

/// What a crash has left over, of whichever job: settled as the meter's user, and removed as root.
fn flush() -> Result<ExitCode, Failure> {
    as_root_of_machine()?;
    let (settings, meter) = settings(METER_USER)?;
    let failed = |error: io::Error| Failure::new("what is left over cannot be settled").because(error);
    let status = match fork().map_err(failed)? {
        Some(child) => waitpid(child, None).map_err(|errno| failed(errno.into()))?,
        None => exit_now(i32::from(!flush_as_meter(&settings, &meter))),
    };
    task::register::sweep().map_err(|error| Failure::new("what is left over cannot be removed").because(error))?;
    let is_settled = matches!(status, WaitStatus::Exited(_, 0));
    Ok(if is_settled { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether all is settled; what is not is said.
fn flush_as_meter(settings: &Settings, meter: &Credentials) -> bool {
    let flushed = keep_the_right_to_kill(meter)
        .and_then(|()| leftovers::flush(&settings.spool_dir, &settings.ledger, Location::connect));
    match flushed {
        Ok(flushed) => {
            for kept in &flushed.kept {
                print_failure(&Failure::new(kept.path.display().to_string()).because(&kept.state));
            }
            flushed.kept.is_empty()
        }
        Err(error) => {
            print_failure(&Failure::new("what is left over cannot be looked through").because(error));
            false
        }
    }
}

/// Its own user, so that it can read its key and spool and nothing of anybody else's.
fn meter_user(file: &SlurmFile) -> Result<Credentials, Failure> {
    let name = file.user.as_deref().unwrap_or(METER_USER);
    let found = User::from_name(name).ok().flatten().filter(|user| !user.uid.is_root());
    let user = found.ok_or_else(|| {
        Failure::new(format!("the meter has no user {name:?} on this node"))
            .hint(format!("useradd --system {name}, or name another as slurm.user in {SYSTEM_FILE}"))
    })?;
    Ok(Credentials { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups: vec![user.gid.as_raw()] })
}

/// Where nobody but root could have put it.
fn make_spool(path: &Path, meter: &Credentials) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(format!("no spool at {}", path.display())).because(error);
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
    trust::believe_folder(parent).map_err(|why| failed(why.into()))?;
    // Under another name until it is the meter's, so that it is never there and somebody else's.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unready = parent.join(format!(".{name}.{}", std::process::id()));
    DirBuilder::new().recursive(true).mode(0o700).create(&unready).map_err(failed)?;
    chown(&unready, Some(meter.uid), Some(meter.gid)).map_err(failed)?;
    match std::fs::rename(&unready, path) {
        // Another task was quicker.
        Err(_) if path.is_dir() => std::fs::remove_dir(&unready).map_err(failed),
        renamed => renamed.map_err(failed),
    }
}

/// The call of `jobmeter run` that says the same.
fn words(given: &Task) -> Result<Vec<OsString>, Failure> {
    let job = given.array_job.unwrap_or(given.job);
    let mut words: Vec<OsString> = vec!["jobmeter".into()];
    words.extend([format!("--job={job}").into()]);
    for choice in &given.choices {
        let name = choice.split('=').next().unwrap_or_default();
        if !CHOICES.contains(&name) {
            return Err(Failure::new(format!("{name:?} is not for the job's user to choose")));
        }
        words.push(format!("--{choice}").into());
    }
    // Slurm takes names that are none here: the job runs without.
    let is_named = given.choices.iter().any(|choice| choice.starts_with("name="));
    let name = given.job_name.as_deref().filter(|_| !is_named).and_then(|name| values::name(name).ok());
    words.extend(name.map(|name| format!("--name={name}").into()));
    words.push("--".into());
    words.extend(given.command.iter().cloned());
    Ok(words)
}
