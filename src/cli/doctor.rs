//! `jobmeter doctor`: what can be metered and enforced here, and how exactly.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use uuid::Uuid;

use super::output::{Failure, Output, Style};
use super::settings::Settings;
use crate::domain::printable::printable;
use crate::domain::units::Microseconds;
use crate::ledger::views::Query;
use crate::meter::CpuSource;
use crate::meter::gpu::identity::DriverFiles;
use crate::meter::gpu::prospect::{self, Prospect};
use crate::meter::gpu::{others, place};
use crate::meter::proof::prove_kill;
use crate::meter::select::Plan;
use crate::runner::summary::seconds;
use crate::sys::cgroup::{Group, own_group_path};
use crate::sys::proc;
use crate::sys::process::{may_lower_oom_score, may_schedule_first};

/// One thing that was tried.
#[derive(Debug, Serialize)]
struct Check {
    what: String,
    /// Whether it works; `None` where it is only said.
    works: Option<bool>,
    found: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Diagnosis {
    /// Whether a job can be metered and stopped here at all.
    can_run: bool,
    checks: Vec<Check>,
}

pub(super) fn doctor(library: Option<&Path>, settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    let mut checks = host();
    let (best, sources) = sources();
    checks.extend(sources);
    checks.push(processes());
    checks.push(kill_path());
    checks.extend(rights());
    let library = library.or(settings.run.nvml_library.as_deref());
    library.map(super::run::may_be_loaded).transpose()?;
    checks.extend(gpus(library));
    let ledger = ledger(settings);
    let ledger_works = ledger.works == Some(true);
    checks.push(ledger);
    checks.push(spool(settings));
    let diagnosis = Diagnosis { can_run: best.is_some() && ledger_works, checks };
    out.print(&diagnosis, |style| text(&diagnosis, best, style))?;
    Ok(if diagnosis.can_run { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn host() -> Vec<Check> {
    let said = |what: &str, found: String| Check { what: what.to_owned(), works: None, found };
    let kernel = sysinfo::System::kernel_version().unwrap_or_else(|_| "unknown".to_owned());
    let os = sysinfo::System::long_os_version().unwrap_or_else(|_| "unknown".to_owned());
    let group = own_group_path().map_or_else(|error| error.to_string(), |path| path.display().to_string());
    vec![said("system", format!("{os}, Linux {kernel}")), said("own cgroup v2", group)]
}

/// Each source is prepared as for a job, and put away.
fn sources() -> (Option<CpuSource>, Vec<Check>) {
    let uid = nix::unistd::geteuid().as_raw();
    let mut best = None;
    let check = |source: CpuSource| {
        let what = format!("source {}", source.as_str());
        match Plan::prepare(Some(source), Uuid::now_v7(), uid) {
            Ok(plan) => {
                plan.discard();
                best.get_or_insert(source);
                let bound = plan.error_bound().map_or("no declared bound".to_owned(), |bound| format!("± {bound} s"));
                let cpus = Microseconds(plan.highest_rate().sustained_ppm());
                let notes = plan.degraded().join("; ");
                let found = format!(
                    "{bound}, at most {} CPUs, tick {} s{}{notes}",
                    seconds(cpus),
                    Microseconds(plan.tick_us()),
                    if notes.is_empty() { "" } else { "; " }
                );
                Check { what, works: Some(true), found }
            }
            Err(error) => Check { what, works: Some(false), found: error.to_string() },
        }
    };
    let checks = CpuSource::BEST_FIRST.into_iter().map(check).collect();
    (best, checks)
}

/// In the way in which they are looked at while a job runs.
fn processes() -> Check {
    let found = match proc::prove() {
        Err(blind) => Err(blind.to_string()),
        Ok(()) if proc::is_private() => {
            Ok("a procfs of this PID namespace's own is used, since /proc shows another one")
        }
        Ok(()) if proc::hides() => Ok("/proc shows this PID namespace; hidepid hides what cannot be traced"),
        Ok(()) => Ok("/proc shows this PID namespace"),
    };
    let works = Some(found.is_ok());
    Check { what: "processes".to_owned(), works, found: found.map_or_else(|why| why, str::to_owned) }
}

/// Never from the cache: this is the command that is asked when something is wrong.
fn kill_path() -> Check {
    let proved = own_group_path()
        .and_then(|path| Group::open(&path))
        .map_err(|error| error.to_string())
        .and_then(|parent| prove_kill(&parent));
    match proved {
        Ok(()) => Check {
            what: "kill path".to_owned(),
            works: Some(true),
            found: "a process in a new group was frozen and killed".to_owned(),
        },
        Err(why) => Check { what: "kill path".to_owned(), works: Some(false), found: why },
    }
}

fn rights() -> [Check; 2] {
    let check = |what: &str, works: bool, yes: &str, no: &str| Check {
        what: what.to_owned(),
        works: Some(works),
        found: if works { yes } else { no }.to_owned(),
    };
    [
        check(
            "real-time keeper",
            may_schedule_first(),
            "SCHED_FIFO is permitted",
            "SCHED_FIFO is not permitted: under load the guard band grows (CAP_SYS_NICE, or ulimit -r 1)",
        ),
        check(
            "OOM protection",
            may_lower_oom_score(),
            "oom_score_adj can be lowered",
            "oom_score_adj cannot be lowered (CAP_SYS_RESOURCE): the meter may be killed before the job",
        ),
    ]
}

/// The driver, and how each device can be measured by a job that declares nothing.
fn gpus(library: Option<&Path>) -> Vec<Check> {
    let check = |what: &str, works: Option<bool>, found: String| Check { what: what.to_owned(), works, found };
    let of_others = others::count().into_iter().map(|(model, count)| {
        let how = "not metered here; charged by the time for which a job has it, if the rate card has a weight for it";
        check("other GPUs", Some(false), format!("{model} ({count}): {how}"))
    });
    let files = DriverFiles::default();
    if library.is_none() && !files.show_a_gpu() {
        let none = check("GPUs", None, "no sign of an NVIDIA GPU: /dev/nvidia* is not there".to_owned());
        return [none].into_iter().chain(of_others).collect();
    }
    let place = if place::in_container() { "in a container" } else { "on the host" };
    let (listed, prospects) = match prospect::ask(library) {
        Ok(told) => told,
        Err(fault) => {
            let count = files.devices().len();
            let found = format!("{}; {count} devices by the driver's files are charged as allocated", fault.why);
            return [check("NVML", Some(false), found)].into_iter().chain(of_others).collect();
        }
    };
    let mut checks = vec![check("NVML", Some(true), format!("driver {}, {}, {place}", listed.driver, listed.library))];
    for Prospect { info, how, is_read } in prospects {
        checks.push(check(
            &format!("GPU {}", info.index),
            Some(is_read),
            format!("{} {}: {how}", info.model, info.uuid),
        ));
    }
    checks.extend(listed.refused.iter().map(|why| check("GPU", Some(false), why.clone())));
    checks.extend(of_others);
    checks
}

fn ledger(settings: &Settings) -> Check {
    let opened = settings.ledger.connect_to_read().and_then(|mut ledger| ledger.read(&Query::Rates));
    match opened {
        Ok(_) => Check { what: "ledger".to_owned(), works: Some(true), found: settings.ledger.to_string() },
        Err(error) => Check { what: "ledger".to_owned(), works: Some(false), found: error.to_string() },
    }
}

fn spool(settings: &Settings) -> Check {
    let directory = &settings.spool_dir;
    match crate::runner::leftovers::list(directory) {
        Ok(files) => {
            let left = files.iter().filter(|file| file.state != "metered").count();
            let found = match left {
                0 => directory.display().to_string(),
                left => format!("{}: {left} left over, `jobmeter spool flush` settles them", directory.display()),
            };
            Check { what: "spool".to_owned(), works: Some(left == 0), found }
        }
        Err(error) => Check { what: "spool".to_owned(), works: Some(false), found: error.to_string() },
    }
}

fn text(diagnosis: &Diagnosis, best: Option<CpuSource>, style: &Style) -> String {
    let mut text = String::new();
    for check in &diagnosis.checks {
        let mark = match check.works {
            Some(true) => style.good("✓"),
            Some(false) => style.warning("✗"),
            None => style.dim("·"),
        };
        text.push_str(&format!("{mark} {:<17} {}\n", check.what, printable(&check.found)));
    }
    let verdict = match best {
        Some(source) if diagnosis.can_run => style.good(&format!("jobs run here, metered by {}", source.as_str())),
        Some(_) => style.bad("no job can run here: the ledger does not open"),
        None => style.bad("no job can run here: nothing can be metered"),
    };
    text.push_str(&format!("\n{verdict}\n"));
    text
}
