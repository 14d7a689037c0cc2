//! The wrapper: the first process of a container, that runs the container's command under the meter. It holds no key: a
//! relay in another container carries its reports, and says whose job this is. What it may be told stands in its
//! arguments alone, since the environment is the workload's.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::front::say;
use super::keeper::micros;
use super::options::{Grace, RunOptions};
use super::termination;
use crate::domain::redaction::SecretNames;
use crate::ledger::location::Location;
use crate::ledger::relay::{self, RelayLedger, Session, Welcome};
use crate::ledger::{Ledger, LedgerError};
use crate::meter::gpu::options::{Giver, GpuOptions};
use crate::sys::clock::{Clock, SystemClock, pause};
use crate::sys::process::{forbid_tracing, in_own_pid_namespace};

/// EX_TEMPFAIL: try again later.
const EXHAUSTED_STATUS: u8 = 75;
/// jobmeter itself failed.
const FAILED: u8 = 125;
const RELAY_LOOK: Duration = Duration::from_millis(5);
const USAGE: &str = "usage: jobmeter-wrapper [--relay SOCKET] [--wait SECONDS] [--termination-log FILE] [--quiet] [--grace SECONDS | \
                     --wait-descendants] [--gpu-exclusive] [--] COMMAND [ARG]...\nRuns COMMAND as the first process of a container, under a meter that a `jobmeter relay` \
                     speaks for.";

/// What stands in the arguments.
#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    relay: PathBuf,
    /// For a relay that starts beside it.
    wait: Duration,
    termination_log: PathBuf,
    quiet: bool,
    grace: Grace,
    gpu_exclusive: bool,
    command: Vec<OsString>,
}

fn parsed(arguments: impl Iterator<Item = OsString>) -> Result<Arguments, String> {
    let mut parsed = Arguments {
        relay: PathBuf::from("/run/jobmeter/relay.sock"),
        wait: Duration::from_mins(1),
        termination_log: PathBuf::from("/dev/termination-log"),
        quiet: false,
        grace: Grace::default(),
        gpu_exclusive: false,
        command: Vec::new(),
    };
    let mut arguments = arguments.peekable();
    while let Some(flag) = arguments.next_if(|argument| argument.to_string_lossy().starts_with("--")) {
        let flag = flag.into_string().map_err(|flag| format!("{} is no option", flag.to_string_lossy()))?;
        let (flag, joined) = match flag.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(OsString::from(value))),
            None => (flag, None),
        };
        let mut value = || joined.clone().or_else(|| arguments.next()).ok_or_else(|| format!("{flag} wants a value"));
        match flag.as_str() {
            "--relay" => parsed.relay = value()?.into(),
            "--termination-log" => parsed.termination_log = value()?.into(),
            "--wait" => {
                let text = value()?;
                let seconds = text.to_str().and_then(|text| text.parse().ok()).filter(|seconds| *seconds <= 3_600);
                parsed.wait = Duration::from_secs(seconds.ok_or("--wait wants 0 to 3600 seconds")?);
            }
            "--quiet" => parsed.quiet = true,
            "--grace" => {
                let grace = value()?.to_string_lossy().parse::<Grace>();
                parsed.grace = grace.map_err(|error| format!("--grace: {error}"))?;
            }
            "--gpu-exclusive" => parsed.gpu_exclusive = true,
            "--wait-descendants" => parsed.grace = Grace::Unlimited,
            "--" => break,
            _ => return Err(format!("{flag} is no option")),
        }
    }
    parsed.command = arguments.collect();
    if parsed.command.is_empty() { Err("there is no command".to_owned()) } else { Ok(parsed) }
}

/// Runs the command of `arguments`, the program's own name left out.
#[must_use]
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match parsed(arguments) {
        Ok(arguments) => arguments,
        Err(why) => {
            say(&format!("jobmeter: error: {why}"));
            USAGE.lines().for_each(say);
            return ExitCode::from(FAILED);
        }
    };
    let begun = forbid_tracing()
        .map_err(|error| format!("prctl(PR_SET_DUMPABLE): {error}"))
        .and_then(|()| alone())
        .and_then(|()| begin(&arguments).map_err(|error| error.to_string()));
    match begun {
        Ok((session, welcome)) => super::run(&options(arguments, session, welcome)),
        Err(why) => {
            say(&format!("jobmeter: error: {why}"));
            termination::of_failure(Some(&arguments.termination_log), "error", &why);
            ExitCode::from(FAILED)
        }
    }
}

/// Only the first process of a PID namespace cannot be killed or stopped from within (pid_namespaces(7)).
fn alone() -> Result<(), String> {
    if std::process::id() == 1 && in_own_pid_namespace() {
        return Ok(());
    }
    Err("the wrapper must be the first process of its container: it cannot be used with shareProcessNamespace, hostPID or \
         a shell around it"
        .to_owned())
}

fn begin(arguments: &Arguments) -> Result<(Session, Welcome), LedgerError> {
    let until_us = SystemClock.boottime_us().saturating_add(micros(arguments.wait));
    loop {
        match relay::begin(&arguments.relay) {
            Err(LedgerError::Unavailable(_)) if SystemClock.boottime_us() < until_us => pause(RELAY_LOOK),
            Err(error) => {
                let socket = arguments.relay.display();
                return Err(LedgerError::Unavailable(format!("no session with the relay at {socket}: {error}")));
            }
            begun => return begun,
        }
    }
}

fn options(arguments: Arguments, session: Session, welcome: Welcome) -> RunOptions {
    let Welcome { user, job, task, kind, name, limit, gpu_exclusive, .. } = welcome;
    let exclusive = gpu_exclusive || arguments.gpu_exclusive;
    RunOptions {
        command: arguments.command,
        ledger: Location::Relay(arguments.relay, session),
        attach: None,
        connect,
        spool_dir: None,
        user,
        job,
        task,
        kind,
        name,
        labels: std::collections::BTreeMap::new(),
        limit,
        interval: Duration::from_secs(1),
        hold: Duration::from_secs(30),
        notice: None,
        grace: arguments.grace,
        environment: None,
        run_as: None,
        directory: None,
        cpu_source: None,
        gpus: GpuOptions { exclusive, giver: Giver::Container, ..GpuOptions::default() },
        receipt: None,
        secret_names: SecretNames::default(),
        termination_log: Some(arguments.termination_log),
        quiet: arguments.quiet,
        exhausted_status: EXHAUSTED_STATUS,
    }
}

/// Nothing else is linked into the wrapper.
fn connect(location: &Location) -> Result<Box<dyn Ledger>, LedgerError> {
    match location {
        Location::Relay(socket, session) => Ok(Box::new(RelayLedger::resume(socket, session)?)),
        other => Err(LedgerError::Refused(format!("the wrapper reaches relays alone, and not {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Arguments, String> {
        parsed(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn what_follows_its_own_options_is_the_commands() {
        let plain = of("sh -c --quiet").unwrap();
        assert_eq!((plain.command.len(), plain.quiet), (3, false));
        let all = of("--relay=/r --wait 5 --termination-log /t --quiet --gpu-exclusive -- --odd name").unwrap();
        assert!(all.gpu_exclusive && !plain.gpu_exclusive);
        assert_eq!((all.relay, all.wait.as_secs(), all.command.len()), (PathBuf::from("/r"), 5, 2));
        assert_eq!(plain.grace, Grace::For(Duration::from_secs(2)));
        for (options, grace) in [
            ("--grace 0", Grace::For(Duration::ZERO)),
            ("--grace=0.25", Grace::For(Duration::from_millis(250))),
            ("--wait-descendants", Grace::Unlimited),
        ] {
            assert_eq!(of(&format!("{options} -- a")).unwrap().grace, grace, "{options}");
        }
        for wrong in [
            "",
            "--",
            "--quiet",
            "--relay",
            "--wait x -- a",
            "--wait 9999 -- a",
            "--unknown a",
            "--grace",
            "--grace -1 -- a",
            "--grace 2s -- a",
            "--grace 86401 -- a",
            "--wait-descendants",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
