//! The sidecar: front and keeper.
//!
//! ```text
//!  user's terminal ── front ──────── command and all that it starts (the job's group)
//!                       │ channel       ▲ reads, freezes, kills
//!                       └──────── keeper ┘──▶ spool ──▶ ledger
//!                                    └── signal-witness, in the front's process group
//! ```
//!
//! The front stays where the user started it; the keeper, forked from it, meters; the witness tells the front which signals came to
//! its whole group, and so to the command as well. Front and keeper each end the job when the other is lost. Neither lets the other's death lose a figure: what is not in the ledger is in the spool or in the kernel.

pub mod ask;
mod attempt;
mod beginning;
mod dry_run;
mod ending;
mod figures;
mod found;
mod front;
pub mod gpu_part;
mod grace;
mod keeper;
pub mod leases;
pub mod leftovers;
pub mod options;
pub mod origin;
pub mod receipt;
mod receipt_file;
pub mod relay;
mod socket;
pub mod spool;
mod stand_in;
mod stops;
pub mod summary;
pub mod task;
mod termination;
mod title;
mod uplink;
mod waiting;
mod wire;
pub mod wrapper;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::thread::JoinHandle;

use nix::sys::wait::{WaitPidFlag, waitpid};

use self::attempt::Attempt;
pub use self::dry_run::{DryRun, dry_run};
use self::front::{Front, Lost, Outcome};
use self::keeper::Keeper;
use self::options::{RunAs, RunOptions};
use self::receipt_file::ReceiptFile;
use self::socket::JobSocket;
use self::spool::{Header, Spool};
use self::wire::{Channel, Exit};
use crate::ledger::protocol::Resources;
use crate::meter::MeterError;
use crate::meter::gpu::child::start_for_all;
use crate::meter::select::Plan;
use crate::sys::clock::Alarm;
use crate::sys::environment::CARRIER;
use crate::sys::inherited::inherited;
use crate::sys::limits::{self, CommandLimits};
use crate::sys::process::{
    PidFd, become_subreaper, boot_id, exit_now, forbid_tracing, fork, has_children, leave_session, lower_oom_score,
    reaped_cpu_us,
};
use crate::sys::shared::SharedPage;
use crate::sys::signals::{OF_GLIBC, SignalSet, Signals, set_mask, take_pending};
use crate::sys::spawn::Command;
use crate::sys::witness::{Stand, Witness};

/// A path that the job can join to see under which ids it runs.
const JOB_VARIABLE: &str = "JOBMETER_JOB";
const ATTEMPT_VARIABLE: &str = "JOBMETER_ATTEMPT";
/// Where the ledger is, without a password, and whose credits: else a `jobmeter` within the job would ask the default
/// ledger, for its login name.
const LEDGER_VARIABLE: &str = "JOBMETER_LEDGER";
const USER_VARIABLE: &str = "JOBMETER_USER";
/// Never handed on to the job as they are: the ledger's key, its URL, which may hold a password, and the socket of an
/// outer job.
const KEPT_FROM_JOB: [&str; 4] = ["JOBMETER_KEY", LEDGER_VARIABLE, socket::VARIABLE, CARRIER];

/// Nor these to the job of another user, nor anything of jobmeter's own: they speak of the meter, its unit and who started it.
const KEPT_FROM_OTHERS: [&str; 22] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "CREDENTIALS_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "CACHE_DIRECTORY",
    "LOGS_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "SSH_AUTH_SOCK",
    "XAUTHORITY",
];

/// Runs a job to its end.
#[must_use]
pub fn run(options: &RunOptions) -> ExitCode {
    start_for_all(&options.gpus);
    let attempt = Attempt::new(options);
    // What was started by something else knows of no socket.
    let job_user = options.run_as.as_ref().map(RunAs::credentials);
    let bind = || JobSocket::bind(attempt.identity.attempt, job_user.as_ref());
    let mut socket = if options.attach.is_some() { None } else { bind() };
    match start(options, &attempt, &mut socket) {
        Ok(code) => code,
        Err(message) => {
            if let Some(socket) = socket {
                socket.remove();
            }
            termination::of_failure(options.termination_log.as_deref(), "error", &message);
            front::leave(&[format!("jobmeter: error: {message}")], Exit::Status(125))
        }
    }
}

fn start(options: &RunOptions, attempt: &Attempt, socket: &mut Option<JobSocket>) -> Result<ExitCode, String> {
    let signals = Signals::take(SignalSet::ALL).map_err(|error| format!("cannot take signals: {error}"))?;
    forbid_tracing().map_err(|error| format!("prctl(PR_SET_DUMPABLE): {error}"))?;
    become_subreaper().map_err(|error| format!("prctl(PR_SET_CHILD_SUBREAPER): {error}"))?;
    let oom_score = lower_oom_score();
    let limits = limits::raise_own();
    let command = match options.attach {
        Some(_) => None,
        None => Some(command(options, attempt, socket.as_ref(), limits, oom_score.as_deref())?),
    };
    let hint = if options.attach.is_some() { "" } else { ": see `jobmeter doctor`" };
    let plan = plan(options, attempt).map_err(|error| format!("{error}{hint}"))?;
    let receipt = receipt_file(options).map_err(told("the receipt cannot be written"))?;
    let header = header(options, attempt, &plan, socket.as_ref());
    let spool = spool(options, &header)?;
    let shared = SharedPage::map().map_err(told("no shared memory"))?;
    let (channel, to_front) = Channel::pair().map_err(told("no channel"))?;
    let own = nix::unistd::getpid();
    let (front_has_others, reaped_before_us) = (has_children(), reaped_cpu_us());
    let (alarm, keepers_alarm) = (Alarm::new().map_err(told("no timer"))?, Alarm::new().map_err(told("no timer"))?);
    let front_fd = PidFd::open(own).map_err(told("pidfd_open"))?;
    let Some(keeper) = fork().map_err(told("cannot fork the keeper"))? else {
        drop(channel);
        let witness = leave_front(options, shared);
        let (channel, front, alarm, shared, socket) = (to_front, own, keepers_alarm, &shared, socket.take());
        let (gate, leftovers) = (None, None);
        Keeper {
            options,
            attempt,
            shared,
            channel,
            front,
            front_fd,
            gate,
            front_has_others,
            alarm,
            plan,
            spool,
            socket,
            receipt,
            witness,
            leftovers,
        }
        .run();
        exit_now(0);
    };
    // Its file is the keeper's from now on.
    drop((to_front, front_fd, keepers_alarm, socket.take()));
    let mut front = Front { channel, shared: &shared, signals, alarm, keeper, reaped_before_us, plan: &plan, command };
    match front.run() {
        Outcome::Done { lines, exit } => Ok(front::leave(&lines, exit)),
        Outcome::KeeperLost(lost) => Ok(end_without_keeper(&lost, plan, spool, &header, options)),
    }
}

fn told(what: &'static str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{what}: {error}")
}

/// What is sent to the keeper ends no job, nor does what is sent to the front's group or from its terminal.
fn leave_front(options: &RunOptions, shared: SharedPage) -> Option<Witness> {
    let witness = options.attach.is_none().then(|| Witness::start(shared, Stand::InGroup).ok()).flatten();
    leave_session().ok();
    // Its threads need glibc's own; of those that came to the front's group before, one that is pending would end it.
    let of_glibc = OF_GLIBC.into_iter().fold(SignalSet::EMPTY, SignalSet::with);
    while take_pending(of_glibc).is_some() {}
    set_mask(OF_GLIBC.into_iter().fold(SignalSet::ALL, SignalSet::without));
    witness
}

fn plan(options: &RunOptions, attempt: &Attempt) -> Result<Plan, MeterError> {
    let job_uid = options.run_as.as_ref().map_or_else(|| nix::unistd::geteuid().as_raw(), |user| user.uid);
    let plan = match &options.attach {
        Some(attach) => Plan::attach(&attach.path, attach.from_start)?,
        None => Plan::prepare(options.cpu_source, attempt.identity.attempt, job_uid)?,
    };
    if let (Some(mode), false) = (plan.degraded().last(), options.quiet) {
        front::say(&format!("jobmeter: note: {mode} (`jobmeter doctor` says why)"));
    }
    Ok(plan)
}

fn spool(options: &RunOptions, header: &Header) -> Result<Spool, String> {
    match &options.spool_dir {
        Some(directory) => Spool::create(directory, header).map_err(|error| {
            format!("cannot write the spool directory {}: {error}: name another by --spool-dir", directory.display())
        }),
        None => Spool::in_memory(header).map_err(|error| format!("no memory for the spool: {error}")),
    }
}

fn receipt_file(options: &RunOptions) -> std::io::Result<Option<ReceiptFile>> {
    let job_user = options.run_as.as_ref().map(RunAs::credentials);
    options.receipt.as_ref().map(|path| ReceiptFile::prepare(path, job_user)).transpose()
}

/// The front does what the keeper cannot do any more: freeze, read, kill, and tell the ledger.
fn end_without_keeper(lost: &Lost, mut plan: Plan, spool: Spool, header: &Header, options: &RunOptions) -> ExitCode {
    let keeper_us = lost.keeper.end();
    let kept_in = spool.kept_in();
    let mut record = spool.newest().unwrap_or_default();
    if let Some(read) = plan.last_reading(keeper_us) {
        record.usage.cpu_used_seconds = record.usage.cpu_used_seconds.max(read);
    }
    let settled = leftovers::settle(spool, header, record, &options.ledger, options.connect);
    // Where it could not be found again, as without a descriptor, what holds it is open still.
    let is_over = settled.is_ok() || plan.containment().kill(ending::KILL_WAIT_MAX);
    if let Some(child) = lost.child {
        // The caller waits for it where it does not die.
        waitpid(child, Some(WaitPidFlag::WNOHANG)).ok();
    }
    let why = format!("the meter was lost: the keeper {}", lost.why);
    termination::of_failure(options.termination_log.as_deref(), "meter_lost", &why);
    let (job, attempt) = (&header.identity.job, header.identity.attempt);
    let mut lines = vec![format!("jobmeter: stopped: {why} (job {job}, attempt {attempt})")];
    if let Err((_, why)) = settled {
        lines.push(format!("jobmeter: warning: {why}\n{kept_in}"));
    }
    if !is_over {
        let left = plan.containment().processes();
        lines.push(format!("jobmeter: warning: process ids {left:?} of the job do not die of SIGKILL"));
    }
    front::leave(&lines, Exit::Status(125))
}

/// On a thread of its own, since the kill of what is left over may take long.
fn settle_leftovers(options: &RunOptions) -> Option<JoinHandle<()>> {
    let directory = options.spool_dir.as_ref()?;
    // The own file is always there.
    let files = std::fs::read_dir(directory).ok()?.flatten();
    let others = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "spool")).count() > 1;
    let (directory, known, connect, quiet) =
        (directory.clone(), options.ledger.clone(), options.connect, options.quiet);
    let settle = move || {
        let lines = match leftovers::flush(&directory, &known, connect) {
            Ok(flushed) => found::lines(&directory, &flushed),
            Err(error) => vec![format!("jobmeter: warning: the spool cannot be looked through: {error}")],
        };
        lines.iter().filter(|_| !quiet).for_each(|line| front::say(line));
    };
    others.then(|| std::thread::Builder::new().name("leftovers".to_owned()).spawn(settle).ok()).flatten()
}

fn header(options: &RunOptions, attempt: &Attempt, plan: &Plan, socket: Option<&JobSocket>) -> Header {
    Header {
        schema: "jobmeter.spool/1".to_owned(),
        identity: attempt.identity.clone(),
        ledger: options.ledger.to_string(),
        boot_id: boot_id(),
        containment: plan.specification(),
        started_at_us: attempt.started_realtime_us,
        started_boottime_us: Some(attempt.started_boottime_us),
        // A job that is told of again after a restore has ended: how fast it could burn plays no part any more.
        resources: Resources {
            cpus_ppm: plan.highest_rate().sustained_ppm(),
            stop_us: plan.stop_us(),
            ..Resources::default()
        },
        // A device can come later, and room that is not used is a hole.
        slot_bytes: spool::SLOT_BYTES_WITH_GPUS,
        limit: options.limit,
        socket: socket.map(|socket| socket.path().to_owned()),
        secret: Some(attempt.secret),
    }
}

fn command(
    options: &RunOptions,
    attempt: &Attempt,
    socket: Option<&JobSocket>,
    limits: CommandLimits,
    oom_score: Option<&str>,
) -> Result<Command, String> {
    let environment = environment(options, attempt, socket);
    let signals =
        inherited().ok_or("it is not known which signals are ignored: the loader did not call `.init_array`")?;
    let mut command = Command::new(&options.command, &environment, signals)
        .map_err(|error| format!("the command cannot be run: {error}"))?;
    command.set_limits(limits);
    if let Some(score) = oom_score {
        command.set_oom_score(score);
    }
    if let Some(user) = &options.run_as {
        command.set_credentials(user.credentials(), user.may_gain_privileges);
    }
    if let Some(directory) = &options.directory {
        command.set_directory(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    Ok(command)
}

/// By which what runs in the job finds it, its ledger and its meter.
fn variables_of_job(options: &RunOptions, attempt: &Attempt, socket: Option<&Path>) -> Vec<(&'static str, OsString)> {
    let mut variables = vec![
        (JOB_VARIABLE, options.job.clone().into()),
        (ATTEMPT_VARIABLE, attempt.identity.attempt.to_string().into()),
    ];
    if let Some(ledger) = options.ledger.without_secrets() {
        variables.push((LEDGER_VARIABLE, ledger));
        variables.push((USER_VARIABLE, options.user.clone().into()));
    }
    variables.extend(socket.map(|path| (socket::VARIABLE, path.into())));
    variables
}

fn environment(options: &RunOptions, attempt: &Attempt, socket: Option<&JobSocket>) -> Vec<(OsString, OsString)> {
    let of_others: &[&str] = if options.run_as.is_some() { &KEPT_FROM_OTHERS } else { &[] };
    let is_ours = |key: &OsString| options.run_as.is_some() && key.to_string_lossy().starts_with("JOBMETER_");
    let is_kept = |key: &OsString| is_ours(key) || KEPT_FROM_JOB.iter().chain(of_others).any(|kept| key == kept);
    let mut environment = options.environment.clone().unwrap_or_else(|| std::env::vars_os().collect());
    environment.retain(|(key, _)| !is_kept(key));
    let mut set = |key: &str, value: OsString| {
        environment.retain(|(known, _)| known != key);
        environment.push((key.into(), value));
    };
    for (key, value) in variables_of_job(options, attempt, socket.map(JobSocket::path)) {
        set(key, value);
    }
    if let Some(directory) = &options.directory {
        set("PWD", directory.into());
    }
    if let Some(RunAs { name, home, shell, .. }) = &options.run_as {
        set("USER", name.into());
        set("LOGNAME", name.into());
        set("HOME", home.into());
        set("SHELL", shell.into());
    }
    environment
}
