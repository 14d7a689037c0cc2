//! The list of jobs, and the page of one.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query as Parameters, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::Value;

use super::super::App;
use super::super::api::change;
use super::super::named_job::NamedJob;
use super::super::problem::Problem;
use super::super::reads::{job_for, page_of_jobs};
use super::super::sent::{self, Filled};
use super::session::Visitor;
use super::{Page, encoded, page_or, rendered};
use crate::domain::units::{Microseconds, Nanocredits};
use crate::ledger::job_name::{JobKey, JobName};
use crate::ledger::protocol::{JobKind, Reason};
use crate::ledger::views::{AttemptView, BurnPoint, Change, JobView, Query};

/// Width and height of a chart.
const CHART: (u64, u64) = (600, 80);
const PAGE_OF: u32 = 50;

#[derive(Deserialize)]
pub(super) struct ListOf {
    user: Option<String>,
    /// Empty: every kind.
    kind: Option<String>,
    #[serde(default)]
    running: bool,
    before: Option<String>,
}

struct Row {
    id: String,
    url: String,
    title: String,
    kind: String,
    user: String,
    state: String,
    started: String,
    started_at: String,
    time: String,
    tokens: u64,
    credits: String,
}

#[derive(Template)]
#[template(path = "jobs.html", config = "src/server/pages/askama.toml")]
struct Jobs {
    page: Page,
    of_user: String,
    kinds: [(&'static str, bool); 3],
    running: bool,
    jobs: Vec<Row>,
    next: Option<String>,
}

/// `2026-11-26 11:18 UTC`.
pub(super) fn minute(rfc3339: &str) -> String {
    rfc3339.get(..16).map_or_else(|| rfc3339.to_owned(), |text| format!("{} UTC", text.replace('T', " ")))
}

fn title(job: &JobView) -> String {
    job.name.clone().unwrap_or_else(|| job.job.clone())
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Parameters(of): Parameters<ListOf>,
) -> Response {
    let made = listed(&app, &visitor, of).await;
    page_or(&app, &visitor, made).await
}

async fn listed(app: &Arc<App>, visitor: &Visitor, of: ListOf) -> Result<Response, Problem> {
    let user = of.user.filter(|user| !user.is_empty()).or_else(|| visitor.caller.only());
    if let Some(user) = &user {
        visitor.caller.may_see(user)?;
    }
    let kind = of.kind.filter(|kind| !kind.is_empty()).map(|kind| kind.parse::<JobKind>());
    let kind = kind.transpose().map_err(Problem::malformed)?;
    let (user_of, before) = (user.clone(), of.before.clone());
    let query = Query::Jobs { user: user_of, kind, running_only: of.running, count_max: PAGE_OF, before };
    let (jobs, cursor) = page_of_jobs(app, query).await?;
    let url = |before: Option<&str>| {
        let mut url = format!("/jobs?running={}", of.running);
        url.extend(kind.iter().map(|kind| format!("&kind={kind}")));
        url.extend(user.iter().map(|user| format!("&user={}", encoded(user))));
        url.extend(before.map(|before| format!("&before={}", encoded(before))));
        url
    };
    let row = |job: JobView| Row {
        url: url_of(&job, ""),
        title: title(&job),
        id: url_of(&job, ""),
        kind: job.kind.to_string(),
        state: ended_as(&job).to_owned(),
        started: minute(&job.started_at),
        started_at: job.started_at,
        time: job.virtual_time.total_seconds.for_people(),
        tokens: job.tokens,
        credits: job.charged.total.for_people(),
        user: job.user,
    };
    let page = Page::new(app, visitor, "jobs", true).await?;
    let (of_user, next) = (user.clone().unwrap_or_default(), cursor.map(|cursor| url(Some(&cursor))));
    let kinds =
        [JobKind::Training, JobKind::Generation, JobKind::PythonSession].map(|one| (one.as_str(), kind == Some(one)));
    Ok(rendered(&Jobs { page, of_user, kinds, running: of.running, jobs: jobs.into_iter().map(row).collect(), next }))
}

fn ended_as(job: &JobView) -> &str {
    let reason = job.attempts.last().and_then(|attempt| attempt.reason).map(Reason::as_str);
    reason.filter(|_| job.state == "ended").unwrap_or(&job.state)
}

struct Gpu {
    name: String,
    facts: Vec<(&'static str, String)>,
    bars: Vec<Bar>,
    /// Of the bars, what could not be read.
    estimated: Vec<Bar>,
}

pub(super) struct Bar {
    pub(super) x: u64,
    pub(super) y: u64,
    pub(super) width: u64,
    pub(super) height: u64,
    pub(super) title: String,
}

struct Attempt {
    task: String,
    host: String,
    why: String,
    burn: Option<String>,
    credits: String,
    wall: String,
    facts: Vec<(&'static str, String)>,
    gpus: Vec<Gpu>,
    /// By samples of `/proc`: id, command, CPU time.
    busiest: Vec<(u64, String, String)>,
    notes: Vec<String>,
}

#[derive(Template)]
#[template(path = "job.html", config = "src/server/pages/askama.toml")]
struct Job {
    page: Page,
    title: String,
    kind: String,
    user: String,
    state: String,
    why: String,
    section: &'static str,
    facts: Vec<(&'static str, String)>,
    stop_url: String,
    attempts: Vec<Attempt>,
}

/// Where a job is shown, or `what` is done with it. Its id alone may be that of several.
fn url_of(job: &JobView, what: &str) -> String {
    let JobKey { owner, principal, id } = job.key();
    format!("/jobs/{}{what}?user={}&principal={}", encoded(&id), encoded(&owner), encoded(&principal))
}

pub(super) async fn one(State(app): State<Arc<App>>, visitor: Visitor, NamedJob(job): NamedJob) -> Response {
    let made = shown(&app, &visitor, job).await;
    page_or(&app, &visitor, made).await
}

async fn shown(app: &Arc<App>, visitor: &Visitor, job: JobName) -> Result<Response, Problem> {
    let found = job_for(app, &visitor.caller, job).await?;
    let page = Page::new(app, visitor, "jobs", !matches!(found.state.as_str(), "ended" | "refused")).await?;
    Ok(rendered(&page_of(page, &found)))
}

pub(super) fn page_of(page: Page, job: &JobView) -> impl Template {
    Job {
        title: title(job),
        kind: job.kind.to_string(),
        user: job.user.clone(),
        state: job.state.clone(),
        why: job.attempts.last().map(why).unwrap_or_default(),
        section: match job.kind {
            JobKind::Training => "Training status",
            JobKind::Generation => "Generation status",
            JobKind::PythonSession => "Python session status",
        },
        facts: facts(job),
        stop_url: url_of(job, "/stop"),
        attempts: job.attempts.iter().map(attempt).collect(),
        // Whoever sees every account watches the job's.
        page: Page { watch: job.user.clone(), ..page },
    }
}

fn facts(job: &JobView) -> Vec<(&'static str, String)> {
    let time = &job.virtual_time;
    let seconds = |time: Microseconds| format!("{} s", time.for_people());
    let mut facts = vec![("Credits", job.charged.total.for_people())];
    if job.kind == JobKind::PythonSession || job.tokens > 0 {
        facts.push(("Total tokens", job.tokens.to_string()));
    }
    facts.push(("Total virtual CPU time", seconds(time.cpu_seconds)));
    if job.attempts.iter().any(|attempt| !attempt.usage.gpus.is_empty()) {
        facts.push(("Total virtual GPU time", seconds(time.gpu_seconds)));
        facts.push(("Total virtual time", seconds(time.total_seconds)));
    }
    facts.extend(job.limit.map(|limit| ("Its own limit", limit.for_people())));
    if job.overshoot > Nanocredits::ZERO {
        facts.push(("Burned, not charged", job.overshoot.for_people()));
    }
    facts.extend(Some(&job.principal).filter(|by| !by.is_empty()).map(|by| ("Run by", by.clone())));
    facts.push(("Started", minute(&job.started_at)));
    facts.extend(job.ended_at.as_deref().map(|at| ("Ended", minute(at))));
    facts
}

/// One plain sentence.
fn why(attempt: &AttemptView) -> String {
    match attempt.reason {
        Some(reason) => {
            let of = |field: &str| attempt.receipt.as_ref()?["outcome"][field].as_i64()?.try_into().ok();
            reason.sentence(of("exit_code"), of("signal"))
        }
        None if attempt.state == "provisional" => "It fell silent; what it held waits to be settled.".to_owned(),
        None => "It runs.".to_owned(),
    }
}

fn attempt(attempt: &AttemptView) -> Attempt {
    let receipt = attempt.receipt.clone().unwrap_or_default();
    let mut facts = vec![("Credits", attempt.charged.total.for_people())];
    let seconds = |part: &str, field: &str| number(&receipt[part][field]).map(|text| format!("{text} s"));
    let lines = [
        ("Wall time", seconds("time", "wall_seconds")),
        ("CPU time", seconds("cpu", "total_seconds")),
        ("user", seconds("cpu", "user_seconds")),
        ("system", seconds("cpu", "system_seconds")),
        ("CPU allocated", seconds("cpu", "allocated_seconds")),
        ("CPU source", receipt["cpu"]["source"].as_str().map(str::to_owned)),
        ("Error bound", bound(&receipt["cpu"])),
        ("Throttled", seconds("cpu", "throttled_seconds")),
        ("Pressure", seconds("cpu", "pressure_seconds")),
        ("Steal", seconds("cpu", "steal_seconds")),
        ("Frozen, waiting for credits", seconds("time", "held_seconds")),
        ("Teardown, not charged", seconds("cpu", "teardown_seconds")),
        ("Memory at most", receipt["memory"]["peak_bytes"].as_u64().map(mebibytes)),
        ("Tampering", receipt["outcome"]["tamper"].as_str().map(str::to_owned)),
    ];
    facts.extend(lines.into_iter().filter_map(|(name, value)| Some((name, value?))));
    if receipt.is_null() {
        facts.push(("CPU time so far", format!("{} s", attempt.usage.cpu_used_seconds.for_people())));
        for (uuid, gpu) in &attempt.usage.gpus {
            facts.push(("GPU time so far", format!("{} s on {uuid}", gpu.busy_seconds.for_people())));
        }
    }
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let notes = [texts(&receipt["outcome"]["degraded"]), texts(&receipt["gpu"]["notes"])].concat();
    Attempt {
        task: attempt.identity.task.clone(),
        host: attempt.identity.host.clone(),
        why: why(attempt),
        burn: chart(&attempt.burn),
        credits: attempt.charged.total.for_people(),
        wall: seconds("time", "wall_seconds").unwrap_or_else(|| "the time so far".to_owned()),
        facts,
        busiest: receipt["cpu"]["busiest"].as_array().into_iter().flatten().filter_map(process).collect(),
        gpus: receipt["gpu"]["devices"].as_array().into_iter().flatten().map(gpu).collect(),
        notes,
    }
}

fn process(sample: &Value) -> Option<(u64, String, String)> {
    let command = sample["command"].as_str()?.to_owned();
    Some((sample["pid"].as_u64()?, command, number(&sample["cpu_seconds"])?))
}

/// How long it used a device where that is known, and at most how much of its memory.
fn gpu_process(sample: &Value) -> Option<String> {
    let busy = number(&sample["busy_seconds"]).map(|text| format!(", {text} s")).unwrap_or_default();
    let memory = sample["memory_peak_bytes"].as_u64().map(mebibytes)?;
    Some(format!("{} ({}){busy}, {memory}", sample["command"].as_str()?, sample["pid"].as_u64()?))
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / 1_048_576)
}

/// Seconds of a receipt, for people.
fn number(value: &Value) -> Option<String> {
    value.is_number().then(|| value.to_string().parse::<Microseconds>().ok()).flatten().map(Microseconds::for_people)
}

/// To the last digit.
fn bound(part: &Value) -> Option<String> {
    let value = &part["error_bound_seconds"];
    value.is_number().then(|| format!("± {value} s"))
}

fn gpu(device: &Value) -> Gpu {
    let seconds = |field: &str| number(&device[field]).map(|text| format!("{text} s"));
    let text = |field: &str| device[field].as_str().unwrap_or_default().to_owned();
    let percent = |field: &str| device[field].as_u64().map(|percent| format!("{percent} %"));
    let watts = |field: &str| device[field].as_u64().map(|mw| format!("{} W", mw / 1_000));
    let count = |field: &str| device[field].as_u64().filter(|count| *count > 0).map(|count| count.to_string());
    let slow = device["slowdown_seconds"].as_object().into_iter().flatten();
    let slow: Vec<String> = slow.filter_map(|(why, time)| Some(format!("{} s: {why}", number(time)?))).collect();
    let xids: Vec<String> = device["xids"].as_array().into_iter().flatten().map(Value::to_string).collect();
    let lines = [
        ("UUID", Some(text("uuid"))),
        ("Measured as", Some(text("mode"))),
        ("Weight", number(&device["weight"])),
        ("Busy", seconds("busy_seconds")),
        ("Allocated", seconds("allocated_seconds")),
        ("Nobody's", seconds("unattributed_seconds")),
        ("Taken as allocated", seconds("estimated_seconds")),
        ("Error bound", bound(device)),
        ("Idle", seconds("idle_seconds")),
        ("Multiprocessors", percent("sm_percent")),
        ("Tensor cores", percent("tensor_percent")),
        ("Memory bandwidth", percent("dram_percent")),
        ("Memory at most", device["memory_peak_bytes"].as_u64().map(mebibytes)),
        ("Memory", device["memory_total_bytes"].as_u64().map(mebibytes)),
        ("Energy", device["energy_millijoules"].as_u64().map(|mj| format!("{} J", mj / 1_000))),
        ("Power on average", watts("power_mean_milliwatts")),
        ("Power at most", watts("power_peak_milliwatts")),
        ("Clocks lowered", Some(slow.join(", ")).filter(|text| !text.is_empty())),
        ("Errors (XID)", Some(xids.join(", ")).filter(|text| !text.is_empty())),
        ("Memory errors", count("ecc_uncorrected_errors")),
        ("Memory rows replaced", count("remapped_rows")),
    ];
    let columns = |field: &str| -> Vec<(u64, String)> {
        let columns = device["utilization"][field].as_array().into_iter().flatten().filter_map(Value::as_u64);
        columns.map(|percent| (percent, String::new())).collect()
    };
    let processes =
        device["processes"].as_array().into_iter().flatten().map(|process| ("Process", gpu_process(process)));
    let facts = lines.into_iter().chain(processes).filter_map(|(name, value)| Some((name, value?))).collect();
    let drawn = |field: &str| bars(&columns(field), 100, CHART);
    Gpu { name: text("name"), facts, bars: drawn("percent"), estimated: drawn("estimated_percent") }
}

/// Bars side by side, `most` as high as the chart.
pub(super) fn bars(values: &[(u64, String)], most: u64, (width, height): (u64, u64)) -> Vec<Bar> {
    let each = width.checked_div(values.len() as u64).unwrap_or(0).max(1);
    let bar = |(at, (value, title)): (u64, &(u64, String))| {
        let high = u64::try_from(u128::from(*value) * u128::from(height) / u128::from(most.max(1)))
            .unwrap_or(height)
            .min(height);
        Bar { x: at * each, y: height - high, width: each.saturating_sub(1).max(1), height: high, title: title.clone() }
    };
    (0..).zip(values).map(bar).collect()
}

/// Cumulative credits as the points of a line.
fn chart(points: &[BurnPoint]) -> Option<String> {
    let last = points.last().filter(|last| last.after_ms > 0 && last.charged > Nanocredits::ZERO)?;
    let (width, height) = CHART;
    let scaled =
        |value: u128, of: u128, to: u64| u64::try_from(value * u128::from(to) / of.max(1)).unwrap_or(to).min(to);
    let point = |point: &BurnPoint| {
        let x = scaled(point.after_ms.into(), last.after_ms.into(), width);
        let charged = u128::from(point.charged.at_least_zero().0.unsigned_abs());
        let y = height - scaled(charged, u128::from(last.charged.0.unsigned_abs()), height);
        format!("{x},{y}")
    };
    let all: Vec<String> = points.iter().map(point).collect();
    Some(format!("0,{height} {}", all.join(" ")))
}

#[derive(Deserialize)]
pub(super) struct Why {
    why: String,
}

pub(super) async fn stop(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    NamedJob(job): NamedJob,
    Filled(why): Filled<Why, { sent::CHANGE }>,
) -> Response {
    let made = stopped(&app, &visitor, job, why.why).await;
    page_or(&app, &visitor, made).await
}

async fn stopped(app: &Arc<App>, visitor: &Visitor, job: JobName, why: String) -> Result<Response, Problem> {
    visitor.caller.may_administer()?;
    super::super::bounds::name("why", &why)?;
    let url = url_of(&*job_for(app, &visitor.caller, job.clone()).await?, "");
    let _answer = change(app, &visitor.caller, Change::StopJob { job, by: visitor.caller.name(), why }).await?;
    Ok(Redirect::to(&url).into_response())
}
