//! `jobmeter run`.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use super::config_file::{RunFile, SYSTEM_FILE};
use super::output::{Failure, Output};
use super::settings::Settings;
use super::values::{self, Span};
use crate::domain::printable::printable;
use crate::domain::redaction::SecretNames;
use crate::domain::units::Nanocredits;
use crate::ledger::location::Location;
use crate::ledger::protocol::JobKind;
use crate::meter::CpuSource;
use crate::meter::gpu::claims::Claims;
use crate::meter::gpu::declared::Selection;
use crate::meter::gpu::options::{Giver, GpuOptions};
use crate::runner::options::{Grace, Notice, RunAs, RunOptions};
use crate::runner::summary::{credits, credits_or_none, seconds};
use crate::runner::{self, DryRun};
use crate::sys::{environment, trust};

/// EX_TEMPFAIL: try again later.
const EXHAUSTED_STATUS: u8 = 75;

/// Where schedulers say which job this is.
const JOB_VARIABLES: [&str; 5] = ["SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "AWS_BATCH_JOB_ID", "JOB_ID"];
/// Where schedulers and launchers say which task of it.
const TASK_VARIABLES: [&str; 6] = [
    "SLURM_PROCID",
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
    "JOB_COMPLETION_INDEX",
    "AWS_BATCH_JOB_ARRAY_INDEX",
    "LSB_JOBINDEX",
];

#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: the command's own; 128+N if it died of signal N; 75 if credits are exhausted; 125 if \
                  jobmeter failed; 126 if the command cannot be executed; 127 if it was not found.\n\nExamples:\n  \
                  jobmeter run -- python3 train.py\n  jobmeter run --limit 0.5 --notice SIGTERM@30s -- ./train.sh\n  \
                  jobmeter run --as alice --receipt r.json -- ./generate --rows 1000"
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Run {
    /// The job's id [default: the scheduler's (Slurm, PBS, LSF, Grid Engine, AWS Batch), else a UUIDv7]
    #[arg(long, value_name = "ID", value_parser = values::name)]
    pub(super) job: Option<String>,
    /// The task within the job [default: the scheduler's rank or index, else 0]
    #[arg(long, value_name = "ID", value_parser = values::name)]
    pub(super) task: Option<String>,
    /// What the job is for [default: training]
    #[arg(long)]
    pub(super) kind: Option<JobKind>,
    /// A name for people
    #[arg(long, value_name = "TEXT", value_parser = values::name)]
    pub(super) name: Option<String>,
    /// A label; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    pub(super) labels: Vec<(String, String)>,
    /// Stop this job, over all its tasks, at so many credits
    #[arg(long, value_name = "CREDITS", value_parser = values::amount_above_zero)]
    pub(super) limit: Option<Nanocredits>,
    /// The longest time between two looks, 10ms to 1min [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = values::interval)]
    pub(super) interval: Option<Span>,
    /// How long a job stays frozen at its ceiling when the ledger does not answer, up to 1h [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = values::hold)]
    pub(super) hold: Option<Span>,
    /// Send this signal once, when the account's credits would last so much longer, such as SIGTERM@30s
    #[arg(long, value_name = "SIGNAL@TIME", value_parser = values::notice)]
    pub(super) notice: Option<Notice>,
    /// When the command has ended, how long what it left behind may go on before it is killed, in seconds or with a unit;
    /// 0 kills at once [default: 2s]
    #[arg(long, id = "run_grace", value_name = "SECONDS", value_parser = values::grace)]
    pub(super) grace: Option<Grace>,
    /// When the command has ended, wait for what it left behind instead of killing it
    #[arg(long, alias = "linger", conflicts_with = "run_grace")]
    pub(super) wait_descendants: bool,
    /// Run the command as this user, who also pays where no --user is named (only root may). It has a session of its own, so
    /// that it cannot write to this terminal's input: the terminal's signals are passed on, but Ctrl-Z does not stop it. Open
    /// files, capabilities and what set-uid programs would give it are taken away
    #[arg(long = "as", value_name = "USER", value_parser = values::name)]
    pub(super) run_as: Option<String>,
    /// Let set-uid programs, such as sudo, give the command of --as what they give others
    #[arg(long, requires = "run_as")]
    pub(super) allow_new_privileges: bool,
    /// Run the command in this folder, which the user of the command must be able to enter
    #[arg(long, value_name = "DIR")]
    pub(super) chdir: Option<PathBuf>,
    /// Meter CPU time by this source or not at all [default: the best one that works]
    #[arg(long, value_name = "SOURCE")]
    pub(super) cpu_source: Option<CpuSource>,
    #[command(flatten)]
    pub(super) gpu: Gpu,
    /// Write the receipt, JSON, to this file
    #[arg(long, value_name = "FILE")]
    pub(super) receipt: Option<PathBuf>,
    /// Exit status when credits are exhausted [default: 75]
    #[arg(long, value_name = "STATUS")]
    pub(super) exhausted_status: Option<u8>,
    /// Print no summary, and no note
    #[arg(long, short)]
    pub(super) quiet: bool,
    /// Say source, bounds, price per second and what is left; start nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Gpu {
    /// Which GPUs are the job's from its start: all, none, or UUIDs and indexes such as 0,1 or GPU-8932f937 or 0:1 for a
    /// MIG device [default: CUDA_VISIBLE_DEVICES, else what Slurm, HTCondor or Grid Engine has set, else those of the container]. Others are charged from
    /// the moment at which the job uses them
    #[arg(long, value_name = "GPUS", allow_hyphen_values = true)]
    pub(super) gpus: Option<Selection>,
    /// No other job has these GPUs, so that all that they do is the job's
    #[arg(long)]
    pub(super) gpu_exclusive: bool,
    /// The NVML library [default: libnvidia-ml.so.1 of the system]
    #[arg(long, value_name = "PATH")]
    pub(super) nvml_library: Option<PathBuf>,
}

/// An option that is misspelt is no command: it would run, under limits that nobody has set.
fn refuse_option_as_command(command: &[OsString], said: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let Some(first) = command.first().filter(|first| first.as_encoded_bytes().starts_with(b"-")) else { return Ok(()) };
    let before: Vec<OsString> = said.take_while(|word| word != first).collect();
    if before.iter().any(|word| word == "--") {
        return Ok(());
    }
    Err(Failure::new(format!("unexpected option {}", first.display()))
        .hint("`jobmeter run --help` shows those there are; a command that begins with a hyphen stands behind --"))
}

pub(super) fn run(run: &Run, settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    refuse_option_as_command(&run.command, std::env::args_os())?;
    let options = options(run, settings)?;
    if run.dry_run {
        let found = runner::dry_run(&options)
            .map_err(|why| Failure::new(why).hint("`jobmeter doctor` says what can be metered here"))?;
        return out.print(&found, |_| dry_run_text(&options.user, &found));
    }
    Ok(runner::run(&options))
}

fn from_file<T, E: Display>(
    what: &str,
    text: Option<&String>,
    parse: fn(&str) -> Result<T, E>,
) -> Result<Option<T>, Failure> {
    let wrong = |why| Failure::new(format!("the setting run.{what} of the settings file")).because(why);
    text.map(|text| parse(text).map_err(wrong)).transpose()
}

pub(super) fn options(run: &Run, settings: &Settings) -> Result<RunOptions, Failure> {
    let file = &settings.run;
    let span =
        |given: Option<Span>, filed: Option<Span>, default: Duration| given.or(filed).map_or(default, |span| span.0);
    let (array_job, array_task) = ids(&|variable| std::env::var(variable).ok());
    let job = run.job.clone().or(array_job).unwrap_or_else(|| Uuid::now_v7().to_string());
    let run_as = run.run_as.as_deref().map(|name| resolve_user(name, run.allow_new_privileges)).transpose()?;
    // Whose command it is pays, not the scheduler that starts it.
    let user = run_as.as_ref().filter(|_| settings.user_is_default).map_or(&settings.user, |user| &user.name).clone();
    let receipt = run.receipt.as_ref().map(std::path::absolute).transpose();
    let directory = run.chdir.as_ref().map(std::path::absolute).transpose();
    let environment = environment::carried()
        .map_err(|error| Failure::new("the command's environment cannot be read").because(error))?;
    Ok(RunOptions {
        command: run.command.clone(),
        environment,
        ledger: settings.ledger.clone(),
        attach: None,
        connect: Location::connect,
        spool_dir: Some(settings.spool_dir.clone()),
        user,
        gpus: GpuOptions { claims: Some(Claims::new(&settings.spool_dir, &job)), ..gpus(run, file)? },
        job,
        task: run.task.clone().or(array_task).unwrap_or_else(|| "0".to_owned()),
        kind: run.kind.or(file.kind).unwrap_or(JobKind::Training),
        name: run.name.clone(),
        labels: run.labels.iter().cloned().collect(),
        limit: limit(run, settings)?,
        interval: span(
            run.interval,
            from_file("interval", file.interval.as_ref(), values::interval)?,
            Duration::from_secs(1),
        ),
        hold: span(run.hold, from_file("hold", file.hold.as_ref(), values::hold)?, Duration::from_secs(30)),
        notice: run.notice.or(from_file("notice", file.notice.as_ref(), values::notice)?),
        grace: grace(run, file)?,
        run_as,
        directory: directory.map_err(|error| Failure::new("the folder of --chdir cannot be found").because(error))?,
        cpu_source: run.cpu_source.or(file.cpu_source),
        receipt: receipt.map_err(|error| Failure::new("the receipt's path cannot be found").because(error))?,
        secret_names: secret_names(file)?,
        termination_log: None,
        quiet: run.quiet || file.quiet,
        exhausted_status: run.exhausted_status.or(file.exhausted_status).unwrap_or(EXHAUSTED_STATUS),
    })
}

/// What is said of this run counts before what the file says.
fn grace(run: &Run, file: &RunFile) -> Result<Grace, Failure> {
    let filed = from_file("grace", file.grace.as_ref(), values::grace)?;
    Ok(match run.grace {
        _ if run.wait_descendants => Grace::Unlimited,
        Some(grace) => grace,
        None if file.wait_descendants || file.linger => Grace::Unlimited,
        None => filed.unwrap_or_default(),
    })
}

fn limit(run: &Run, settings: &Settings) -> Result<Option<Nanocredits>, Failure> {
    let filed = from_file("limit", settings.run.limit.as_ref(), values::amount_above_zero)?;
    match (run.limit, filed) {
        (Some(given), Some(most)) if settings.enforced && given > most => {
            let most = credits(most);
            Err(Failure::new(format!("--limit may be {most} credits at most: {SYSTEM_FILE} enforces its settings")))
        }
        (given, filed) => Ok(given.or(filed)),
    }
}

fn secret_names(file: &RunFile) -> Result<SecretNames, Failure> {
    let Some(words) = &file.secret_names else { return Ok(SecretNames::default()) };
    // One that can be in no name would be there for nothing, and nobody would see that it does not work.
    match words.iter().find(|word| !word.chars().any(char::is_alphanumeric)) {
        Some(word) => Err(Failure::new("the setting run.secret_names of the settings file")
            .because(format!("{word:?}: expected a word such as \"token\""))),
        None => Ok(SecretNames::new(words)),
    }
}

/// By a process of root's, where this is root; one that is not there cannot be.
pub(super) fn may_be_loaded(library: &Path) -> Result<(), Failure> {
    match trust::believe(library) {
        Err(why) if nix::unistd::geteuid().is_root() && !why.is_missing() => {
            Err(Failure::new(format!("root does not load {}", library.display())).because(why))
        }
        _ => Ok(()),
    }
}

fn gpus(run: &Run, file: &RunFile) -> Result<GpuOptions, Failure> {
    let library = run.gpu.nvml_library.as_ref().or(file.nvml_library.as_ref());
    library.map(|library| may_be_loaded(library)).transpose()?;
    let library = library.map(std::path::absolute).transpose();
    Ok(GpuOptions {
        selection: run.gpu.gpus.clone().or(from_file("gpus", file.gpus.as_ref(), str::parse::<Selection>)?),
        exclusive: run.gpu.gpu_exclusive || file.gpu_exclusive,
        library: library
            .map_err(|error| Failure::new("the path of the NVML library cannot be found").because(error))?,
        giver: Giver::Environment,
        no_helper: false,
        refuses_uncharged: file.refuse_uncharged_gpus,
        claims: None,
    })
}

/// Job and task, as the scheduler's variables say them. The first of them counts that is set to something that may be an
/// id; Grid Engine says "undefined" where there is no array. The elements of an array of Slurm's are tasks of one job, and
/// where an element has several tasks, `ELEMENT.RANK`.
fn ids(variable: &dyn Fn(&str) -> Option<String>) -> (Option<String>, Option<String>) {
    let named = |name: &str| variable(name).filter(|value| value != "undefined").and_then(|id| values::name(&id).ok());
    let first = |names: &[&str]| names.iter().find_map(|name| named(name));
    let (job, task) = (first(&JOB_VARIABLES), first(&TASK_VARIABLES));
    let Some((array, element)) = named("SLURM_ARRAY_JOB_ID").zip(named("SLURM_ARRAY_TASK_ID")) else {
        return (job, task);
    };
    let has_many = named("SLURM_STEP_NUM_TASKS").is_some_and(|count| count != "1");
    let rank = named("SLURM_PROCID").filter(|_| has_many);
    (Some(array), Some(rank.map_or(element.clone(), |rank| format!("{element}.{rank}"))))
}

fn resolve_user(name: &str, may_gain_privileges: bool) -> Result<RunAs, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new("--as: only root may run a command as another user").hint("start jobmeter as root"));
    }
    let unknown = || Failure::new(format!("--as: there is no user {name:?} on this machine"));
    let user = nix::unistd::User::from_name(name).ok().flatten().ok_or_else(unknown)?;
    let c_name = std::ffi::CString::new(name).map_err(|_| unknown())?;
    let groups = nix::unistd::getgrouplist(&c_name, user.gid)
        .map_err(|errno| Failure::new(format!("--as: the groups of {name:?} cannot be read")).because(errno.desc()))?;
    Ok(RunAs {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        home: user.dir,
        shell: user.shell,
        may_gain_privileges,
    })
}

fn dry_run_text(user: &str, found: &DryRun) -> String {
    let bound = found.error_bound_seconds.map_or("not declared".to_owned(), |bound| format!("± {bound} s"));
    let lasts = found.lasts_seconds.map_or(String::new(), |lasts| format!(", {} s at that rate", seconds(lasts)));
    let gpus = match found.gpus.len() {
        0 => String::new(),
        1 => " and 1 GPU".to_owned(),
        count => format!(" and {count} GPUs"),
    };
    let mut text = format!(
        "CPU source     {} (error bound {bound})\nhighest rate   {} CPUs{gpus} = {} credits per second\nprice          {} \
         credits per CPU second, {} per GPU second\nguard          {} credits stay unburned at a stop\ntamper         {}\nleft           \
         {} credits for {user}{lasts}\n",
        found.source,
        seconds(crate::domain::units::Microseconds(found.highest_cpus_ppm)),
        credits(found.highest_rate_per_second),
        credits(found.price_per_cpu_second),
        credits(found.price_per_gpu_second),
        credits(found.guard),
        found.tamper,
        credits_or_none(found.balance.left),
    );
    for (model, count) in &found.gpus_openable {
        let model = if model.is_empty() { "of a name that is not known" } else { model };
        text.push_str(&format!("GPUs           {count} × {} can be opened\n", printable(model)));
    }
    for device in &found.gpus {
        let (mode, weight) = (device.mode.as_str(), device.weight);
        text.push_str(&format!(
            "GPU            {} {}: {mode}, weight {weight}\n",
            printable(&device.name),
            device.uuid
        ));
        if let Some(how) = found.gpus_measured.get(&device.uuid) {
            text.push_str(&format!("               measured {}\n", printable(how)));
        }
    }
    for degraded in &found.degraded {
        text.push_str(&format!("note           {}\n", printable(degraded)));
    }
    text.push_str("nothing was started\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_option_is_no_command() {
        let is_refused = |said: &str, command: &str| {
            let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
            refuse_option_as_command(&words(command), words(said).into_iter()).is_err()
        };
        assert!(is_refused("jobmeter run --limt 5 -- true", "--limt 5 -- true"));
        assert!(!is_refused("jobmeter run -- --odd a", "--odd a"));
        assert!(!is_refused("jobmeter run -q sh -c --", "sh -c --"));
    }

    #[test]
    fn schedulers_say_which_job_and_task_it_is() {
        for (set, job, task) in [
            ("", None, None),
            ("SLURM_JOB_ID=7 SLURM_PROCID=2", Some("7"), Some("2")),
            ("SLURM_JOB_ID=9 SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=2 SLURM_PROCID=0", Some("7"), Some("2")),
            (
                "SLURM_JOB_ID=9 SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=2 SLURM_PROCID=3 SLURM_STEP_NUM_TASKS=4",
                Some("7"),
                Some("2.3"),
            ),
            ("JOB_ID=5 SGE_TASK_ID=undefined JOB_COMPLETION_INDEX=1", Some("5"), Some("1")),
        ] {
            let value = |name: &str| {
                let pairs = set.split(' ').filter_map(|pair| pair.split_once('='));
                pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
            };
            assert_eq!(ids(&value), (job.map(str::to_owned), task.map(str::to_owned)), "{set}");
        }
    }
}
