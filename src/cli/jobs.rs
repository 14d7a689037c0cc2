//! `jobmeter jobs`: lists, the time breakdown of one job, and an operator's stop.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::args::Jobs;
use super::chart;
use super::output::{Failure, Output, Style, cleaned};
use super::settings::Settings;
use crate::domain::printable::printable;
use crate::domain::units::{Microseconds, Nanocredits};
use crate::ledger::LedgerError;
use crate::ledger::job_name::JobName;
use crate::ledger::protocol::Reason;
use crate::ledger::views::{AttemptView, Change, ChangeAnswer, JobView, Query, View};
use crate::meter::gpu::device::processes::GpuProcess;
use crate::runner::gpu_part::GpuDevice;
use crate::runner::receipt::Receipt;
use crate::runner::summary::{credits, seconds};

pub(super) fn jobs(jobs: &Jobs, user: Option<&str>, settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    match jobs {
        Jobs::List { all, running, kind, count, before } => {
            let user = (!all).then(|| settings.user.clone());
            let query =
                Query::Jobs { user, kind: *kind, running_only: *running, count_max: *count, before: before.clone() };
            match settings.connect_to_read()?.read(&query)? {
                View::Jobs { jobs, cursor } => {
                    let page = serde_json::json!({ "jobs": jobs, "cursor": cursor });
                    out.print(&page, |style| list(&jobs, cursor.as_deref(), *all, style))
                }
                _ => Err(unasked()),
            }
        }
        Jobs::Show { job, of, brief } => match settings
            .connect_to_read()?
            .read(&Query::Job { job: of.named(job, user) })?
        {
            View::Job(Some(job)) if *brief => out.print(&job, |_| in_one_line(&job)),
            View::Job(Some(job)) => out.print(&job, |style| show(&cleaned(&job), style)),
            View::Job(None) => Err(Failure::new(format!("there is no job {job:?}")).hint("`jobmeter jobs list --all`")),
            _ => Err(unasked()),
        },
        Jobs::Stop { job, of, why } => {
            let (answer, id) = stop(settings, of.named(job, user), why)?;
            let job = printable(&id);
            let told = if answer.again {
                format!("job {job} had been stopped before\n")
            } else {
                format!("job {job} stops within a second, or with its next report\n")
            };
            out.print(&answer, |_| told)
        }
    }
}

/// The answer, and the id of what was stopped.
fn stop(settings: &Settings, job: JobName, why: &str) -> Result<(ChangeAnswer, String), Failure> {
    let mut ledger = settings.connect_existing()?;
    let stop = |job: JobName| Change::StopJob { job, by: settings.by.clone(), why: why.to_owned() };
    match ledger.change(&stop(job.clone())) {
        // People name jobs by the beginnings of their ids; what changes something takes the whole one.
        Err(LedgerError::Missing(_)) => {
            let View::Job(Some(found)) = ledger.read(&Query::Job { job })? else { return Err(unasked()) };
            Ok((ledger.change(&stop(found.key().into()))?, found.job))
        }
        answer => Ok((answer?, job.id)),
    }
}

fn unasked() -> Failure {
    LedgerError::unasked().into()
}

fn list(jobs: &[JobView], cursor: Option<&str>, all: bool, style: &Style) -> String {
    if jobs.is_empty() {
        return "no jobs\n".to_owned();
    }
    let mut header = vec!["JOB", "STATE", "KIND", "STARTED", "CREDITS", "VIRTUAL S", "NAME"];
    if all {
        header.extend(["USER", "PRINCIPAL"]);
    }
    let row = |job: &JobView| {
        let ended = job.attempts.last().and_then(|attempt| attempt.reason).map(Reason::as_str);
        let mut row = vec![
            job.job.clone(),
            ended.filter(|_| job.state == "ended").unwrap_or(&job.state).to_owned(),
            job.kind.to_string(),
            time(&job.started_at).to_owned(),
            credits(job.charged.total),
            seconds(job.virtual_time.total_seconds),
            job.name.clone().unwrap_or_default(),
        ];
        if all {
            row.extend([job.user.clone(), job.principal.clone()]);
        }
        row
    };
    let mut text = style.table(&header, &jobs.iter().map(row).collect::<Vec<_>>());
    if let Some(cursor) = cursor {
        let _ = writeln!(text, "{}", style.dim(&format!("more: --before {cursor}")));
    }
    text
}

/// RFC 3339 without its fraction.
fn time(text: &str) -> &str {
    text.split_once('.').map_or(text, |(whole, _)| whole)
}

fn in_one_line(job: &JobView) -> String {
    let (virtual_time, state) = (&job.virtual_time, printable(&job.state));
    format!(
        "{} credits, {} s CPU, {} s GPU, {} tokens, {state}\n",
        credits(job.charged.total),
        seconds(virtual_time.cpu_seconds),
        seconds(virtual_time.gpu_seconds),
        job.tokens
    )
}

fn show(job: &JobView, style: &Style) -> String {
    let mut text = String::new();
    let name = job.name.as_ref().map(|name| format!(" “{name}”")).unwrap_or_default();
    let by = Some(&job.principal).filter(|by| !by.is_empty()).map(|by| format!(" by {by}")).unwrap_or_default();
    let _ = writeln!(text, "{}{name}, {} of {}{by}: {}", style.bold(&job.job), job.kind, job.user, job.state);
    let limit = job.limit.map(|limit| format!(" of its limit of {}", credits(limit))).unwrap_or_default();
    let _ = writeln!(
        text,
        "charged   {} credits{limit} (CPU {}, GPU {}, tokens {})",
        credits(job.charged.total),
        credits(job.charged.cpu),
        credits(job.charged.gpu),
        credits(job.charged.tokens)
    );
    if job.overshoot > Nanocredits::ZERO {
        let _ = writeln!(text, "overshoot {} credits, not charged", credits(job.overshoot));
    }
    let virtual_time = &job.virtual_time;
    let _ = writeln!(
        text,
        "virtual   {} s CPU, {} s GPU; {} tokens",
        seconds(virtual_time.cpu_seconds),
        seconds(virtual_time.gpu_seconds),
        job.tokens
    );
    for attempt in &job.attempts {
        text.push('\n');
        show_attempt(&mut text, attempt, style);
    }
    text
}

fn show_attempt(text: &mut String, attempt: &AttemptView, style: &Style) {
    let identity = &attempt.identity;
    let _ = writeln!(text, "{} task {} on {}", style.bold("attempt"), identity.task, identity.host);
    let _ = writeln!(text, "  id        {}", identity.attempt);
    let _ = writeln!(text, "  command   {}", identity.command.join(" "));
    if !identity.labels.is_empty() {
        let labels: Vec<String> = identity.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let _ = writeln!(text, "  labels    {}", labels.join(", "));
    }
    let _ = writeln!(text, "  started   {}", time(&attempt.started_at));
    if let Some(ended) = &attempt.ended_at {
        let _ = writeln!(text, "  ended     {}", time(ended));
    }
    let receipt = attempt.receipt.clone().and_then(|receipt| serde_json::from_value::<Receipt>(receipt).ok());
    let _ = writeln!(text, "  why       {}", why(attempt, receipt.as_ref()));
    if attempt.held > Nanocredits::ZERO {
        let _ = writeln!(text, "  held      {} credits", credits(attempt.held));
    }
    match &receipt {
        Some(receipt) => {
            breakdown(text, receipt);
            gpus(text, receipt, style);
            remarks(text, receipt);
        }
        None => {
            let _ = writeln!(text, "  CPU       {} s so far", seconds(attempt.usage.cpu_used_seconds));
            for (uuid, gpu) in &attempt.usage.gpus {
                let (busy, allocated) = (seconds(gpu.busy_seconds), seconds(gpu.allocated_seconds));
                let _ = writeln!(text, "  GPU       {busy} s of {allocated} s so far, {} {uuid}", gpu.model);
            }
        }
    }
    if let Some((drawn, most)) = chart::burn(&attempt.burn, style.width.saturating_sub(12).min(60)) {
        let _ = writeln!(text, "  burn      {drawn}");
        let _ = writeln!(text, "            {}", style.dim(&format!("highest column: {} credits", credits(most))));
    }
}

fn why(attempt: &AttemptView, receipt: Option<&Receipt>) -> String {
    let Some(reason) = attempt.reason else {
        return match attempt.state.as_str() {
            "provisional" => "It fell silent: its lease is over and its hold waits to be settled.".to_owned(),
            _ => "It runs.".to_owned(),
        };
    };
    let outcome = receipt.map(|receipt| &receipt.outcome);
    reason.sentence(outcome.and_then(|outcome| outcome.exit_code), outcome.and_then(|outcome| outcome.signal))
}

fn breakdown(text: &mut String, receipt: &Receipt) {
    let (cpu, times) = (&receipt.cpu, &receipt.time);
    let bound = cpu.error_bound_seconds.map_or("no declared bound".to_owned(), |bound| format!("± {bound} s"));
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<9} {value}");
    };
    line("wall", format!("{} s", seconds(times.wall_seconds)));
    line("CPU", format!("{} s by {} ({bound})", seconds(cpu.total_seconds), cpu.source.as_str()));
    line("", format!("user {} s, system {} s", seconds(cpu.user_seconds), seconds(cpu.system_seconds)));
    line("allocated", format!("{} s", seconds(cpu.allocated_seconds)));
    if let Some(used) = efficiency(receipt) {
        line("used", used);
    }
    let waits = [
        ("throttled", cpu.throttled_seconds),
        ("pressure", cpu.pressure_seconds),
        ("steal", cpu.steal_seconds),
        ("frozen", times.frozen_seconds),
    ];
    for (name, value) in waits {
        if let Some(value) = value {
            line(name, format!("{} s", seconds(value)));
        }
    }
    line("held", format!("{} s", seconds(times.held_seconds)));
    line("teardown", format!("{} s, not charged", seconds(cpu.teardown_seconds)));
    if let Some(bytes) = receipt.memory.peak_bytes {
        line("memory", format!("{} MiB at most", bytes / 1_048_576));
    }
    if let (Some(read), Some(written)) = (receipt.io.read_bytes, receipt.io.written_bytes) {
        line("I/O", format!("{} KiB read, {} KiB written", read / 1_024, written / 1_024));
    }
    for process in &cpu.busiest {
        line("busiest", format!("{} s  {} ({})", seconds(process.cpu_seconds), process.command, process.pid));
    }
}

/// Each device, how its time is known, and when it was busy.
fn gpus(text: &mut String, receipt: &Receipt, style: &Style) {
    for device in &receipt.gpu.devices {
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<9} {value}");
        };
        let bound = device.error_bound_seconds.map_or("no declared bound".to_owned(), |bound| format!("± {bound} s"));
        let declared = if device.declared { "" } else { ", which was not declared" };
        line("GPU", format!("{} {}{declared}", device.name, device.uuid));
        let (busy, allocated) = (seconds(device.busy_seconds), seconds(device.allocated_seconds));
        let percent = percent(device.busy_seconds.0, device.allocated_seconds.0);
        let percent = percent.map(|percent| format!(" ({percent} %)")).unwrap_or_default();
        let (mode, weight) = (device.mode.as_str(), device.weight);
        line("", format!("busy {busy} s of {allocated} s{percent}, {mode} ({bound}), weight {weight}"));
        let apart = [
            ("taken as allocated", device.estimated_seconds),
            ("nobody's", device.unattributed_seconds),
            (if device.busy_seconds == Microseconds::ZERO { "never used" } else { "idle" }, device.idle_seconds),
        ];
        for (what, time) in apart.into_iter().filter(|(_, time)| *time > Microseconds::ZERO) {
            line("", format!("{} s {what}", seconds(time)));
        }
        if let Some(told) = activity_of(device) {
            line("", told);
        }
        [memory_of(device), power_of(device)].into_iter().chain(troubles(device)).for_each(|told| line("", told));
        device.processes.iter().for_each(|process| line("process", process_of(process)));
        if !device.utilization.percent.is_empty() {
            let (bars, estimated) =
                (chart::percent(&device.utilization.percent), &device.utilization.estimated_percent);
            let is_estimated = |at: usize| estimated.get(at).is_some_and(|percent| *percent > 0);
            let painted = |(at, bar): (usize, char)| {
                if is_estimated(at) { style.warning(&bar.to_string()) } else { bar.to_string() }
            };
            line("", bars.chars().enumerate().map(painted).collect());
            let columns = format!("a column is {} s, full height 100 %", seconds(device.utilization.column_seconds));
            line("", style.dim(&columns));
        }
        device.notes.iter().for_each(|note| line("note", note.clone()));
    }
}

fn percent(part: u64, whole: u64) -> Option<u128> {
    (u128::from(part) * 100).checked_div(whole.into())
}

/// What of it worked; `None` where it does not tell.
fn activity_of(device: &GpuDevice) -> Option<String> {
    let parts = [
        ("multiprocessors", device.sm_percent),
        ("tensor cores", device.tensor_percent),
        ("memory bandwidth", device.dram_percent),
    ];
    let told = parts.into_iter().filter_map(|(part, percent)| Some(format!("{part} {} %", percent?)));
    Some(told.collect::<Vec<_>>().join(", ")).filter(|told| !told.is_empty())
}

fn process_of(process: &GpuProcess) -> String {
    let busy = process.busy_seconds.map(|time| format!("{} s  ", seconds(time))).unwrap_or_default();
    format!("{busy}{} ({}), {} MiB", process.command, process.pid, process.memory_peak_bytes / 1_048_576)
}

fn memory_of(device: &GpuDevice) -> String {
    let used = device.memory_peak_bytes;
    let of = |total: u64| Some(format!(", {} % of {}", percent(used, total)?, total / 1_048_576));
    let total = device.memory_total_bytes.and_then(of).unwrap_or_default();
    format!("memory at most {} MiB{total}", used / 1_048_576)
}

fn power_of(device: &GpuDevice) -> String {
    let power = [("on average", device.power_mean_milliwatts), ("at most", device.power_peak_milliwatts)];
    let told = power.into_iter().filter_map(|(when, power)| Some(format!(", {} W {when}", power? / 1_000)));
    format!("{} J{}", device.energy_millijoules / 1_000, told.collect::<String>())
}

/// What of all that the job had it used.
fn efficiency(receipt: &Receipt) -> Option<String> {
    let (cpu, gpu) = (&receipt.cpu, &receipt.gpu);
    let memory = |device: &GpuDevice| Some((device.memory_peak_bytes, device.memory_total_bytes?));
    let memory = gpu
        .devices
        .iter()
        .filter_map(memory)
        .fold((0, 0), |sum: (u64, u64), (used, total)| (sum.0.saturating_add(used), sum.1.saturating_add(total)));
    let parts = [
        ("CPU", percent(cpu.total_seconds.0, cpu.allocated_seconds.0)),
        ("GPU", percent(gpu.busy_seconds.0, gpu.allocated_seconds.0)),
        ("GPU memory", percent(memory.0, memory.1)),
    ];
    let told: Vec<String> =
        parts.into_iter().filter_map(|(what, percent)| Some(format!("{what} {} %", percent?))).collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// Why it was slow, and what went wrong on it.
fn troubles(device: &GpuDevice) -> Vec<String> {
    let slow = device.slowdown_seconds.iter();
    let mut told: Vec<String> =
        slow.map(|(why, time)| format!("clocks lowered for {} s: {why}", seconds(*time))).collect();
    told.extend(device.xids.iter().map(|number| format!("the driver had an error of it: XID {number}")));
    if device.ecc_uncorrected_errors > 0 {
        told.push(format!("memory errors that could not be corrected: {}", device.ecc_uncorrected_errors));
    }
    if device.remapped_rows > 0 {
        told.push(format!("rows of its memory that were replaced by spare ones: {}", device.remapped_rows));
    }
    told
}

fn remarks(text: &mut String, receipt: &Receipt) {
    let _ = writeln!(text, "  {:<9} {}", "tamper", receipt.outcome.tamper);
    let notes = receipt.outcome.degraded.iter().cloned();
    for note in notes.chain(receipt.gpu.notes.iter().map(|note| format!("GPU: {note}"))) {
        let _ = writeln!(text, "  {:<9} {note}", "note");
    }
}
