//! `jobmeter run`.

use std::process::ExitCode;
use std::time::Duration;

use uuid::Uuid;

use super::args::Run;
use super::output::{Failure, Output};
use super::settings::{RunFile, Settings};
use super::values;
use crate::domain::printable::printable;
use crate::domain::redaction::SecretNames;
use crate::ledger::location::Location;
use crate::ledger::protocol::JobKind;
use crate::meter::gpu::declared::Selection;
use crate::meter::gpu::watch::GpuOptions;
use crate::runner::options::{RunAs, RunOptions};
use crate::runner::summary::{credits, credits_or_none, seconds};
use crate::runner::{self, DryRun};

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

pub(super) fn run(run: &Run, settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    let options = options(run, settings)?;
    if run.dry_run {
        let found = runner::dry_run(&options)
            .map_err(|why| Failure::new(why).hint("`jobmeter doctor` says what can be metered here"))?;
        return out.print(&found, |_| dry_run_text(&options.user, &found));
    }
    Ok(runner::run(&options))
}

fn from_file<T>(what: &str, text: Option<&String>, parse: fn(&str) -> Result<T, String>) -> Result<Option<T>, Failure> {
    let wrong = |why| Failure::new(format!("the setting run.{what} of the settings file")).because(why);
    text.map(|text| parse(text).map_err(wrong)).transpose()
}

pub(super) fn options(run: &Run, settings: &Settings) -> Result<RunOptions, Failure> {
    let file = &settings.run;
    let span = |given: Option<values::Span>, filed: Option<values::Span>, default: Duration| {
        given.or(filed).map_or(default, |span| span.0)
    };
    let (array_job, array_task) = ids(&|variable| std::env::var(variable).ok());
    let run_as = run.run_as.as_deref().map(resolve_user).transpose()?;
    // Whose command it is pays, not the scheduler that starts it.
    let user = run_as.as_ref().filter(|_| settings.user_is_default).map_or(&settings.user, |user| &user.name).clone();
    let receipt = run.receipt.as_ref().map(std::path::absolute).transpose();
    Ok(RunOptions {
        command: run.command.clone(),
        ledger: settings.ledger.clone(),
        attach: None,
        connect: Location::connect,
        spool_dir: Some(settings.spool_dir.clone()),
        user,
        job: run.job.clone().or(array_job).unwrap_or_else(|| Uuid::now_v7().to_string()),
        task: run.task.clone().or(array_task).unwrap_or_else(|| "0".to_owned()),
        kind: run.kind.or(file.kind).unwrap_or(JobKind::Training),
        name: run.name.clone(),
        labels: run.labels.iter().cloned().collect(),
        limit: run.limit,
        interval: span(
            run.interval,
            from_file("interval", file.interval.as_ref(), values::interval)?,
            Duration::from_secs(1),
        ),
        hold: span(run.hold, from_file("hold", file.hold.as_ref(), values::hold)?, Duration::from_secs(30)),
        notice: run.notice.or(from_file("notice", file.notice.as_ref(), values::notice)?),
        linger: run.linger || file.linger,
        run_as,
        cpu_source: run.cpu_source.or(file.cpu_source),
        gpus: gpus(run, file)?,
        receipt: receipt.map_err(|error| Failure::new("the receipt's path cannot be found").because(error))?,
        secret_names: secret_names(file)?,
        termination_log: None,
        quiet: run.quiet || file.quiet,
        exhausted_status: run.exhausted_status.or(file.exhausted_status).unwrap_or(EXHAUSTED_STATUS),
    })
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

fn gpus(run: &Run, file: &RunFile) -> Result<GpuOptions, Failure> {
    let library = run.gpu.nvml_library.as_ref().or(file.nvml_library.as_ref());
    let library = library.map(std::path::absolute).transpose();
    Ok(GpuOptions {
        selection: run.gpu.gpus.clone().or(from_file("gpus", file.gpus.as_ref(), str::parse::<Selection>)?),
        exclusive: run.gpu.gpu_exclusive || file.gpu_exclusive,
        library: library
            .map_err(|error| Failure::new("the path of the NVML library cannot be found").because(error))?,
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

fn resolve_user(name: &str) -> Result<RunAs, Failure> {
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
    })
}

fn dry_run_text(user: &str, found: &DryRun) -> String {
    let bound = found.error_bound_seconds.map_or("not declared".to_owned(), |bound| format!("± {bound} s"));
    let lasts = found.lasts_seconds.map_or(String::new(), |lasts| format!(", {} s at that rate", seconds(lasts)));
    let count: u64 = found.gpus_openable.values().sum();
    let gpus = if count > 0 { format!(" and {count} GPUs") } else { String::new() };
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
