//! Settings that hold whatever the user says: `enforced = true` in `/etc/jobmeter/config.toml`.
//!
//! What runs, charges or settles a job then takes the ledger, the key, the account, the spool and the way of metering from that
//! file alone, or, where it is silent, from the default that no user can move. Flags, variables and files of the user
//! may say what the job is, and no more. What root says is the launcher's, and is believed.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::config_file::{SYSTEM_FILE, is_enforced};
use super::output::Failure;
use crate::meter::gpu::{declared, others};
use crate::sys::{environment, trust};

/// Verbs that meter, charge or settle.
const OF_A_JOB: [&str; 4] = ["run", "attach", "relay", "spool"];

/// What a user may say of a run: none of it changes what is metered, what is charged, or where that goes. A limit of his own can
/// only be smaller.
const MAY_BE_SAID: [&str; 20] = [
    "command",
    "chdir",
    "name",
    "labels",
    "kind",
    "limit",
    "receipt",
    "job",
    "task",
    "notice",
    "run_grace",
    "wait_descendants",
    "exhausted_status",
    "quiet",
    "dry_run",
    "json",
    "acknowledged",
    "pid",
    "cgroup",
    "wait",
];

/// Where one may be said that says the same as the file.
const MAY_BE_REPEATED: [&str; 5] = ["ledger", "key_file", "user", "config", "spool_dir"];

/// Variables that the meter itself may see; all others are the command's alone. PATH is the system's.
const OF_THE_METER: [&str; 25] = [
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TERM",
    "NO_COLOR",
    "COLUMNS",
    "HOME",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "RUNTIME_DIRECTORY",
    "SLURM_JOB_ID",
    "SLURM_PROCID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_STEP_NUM_TASKS",
    "PBS_JOBID",
    "LSB_JOBID",
    "LSB_JOBINDEX",
    "AWS_BATCH_JOB_ID",
    "AWS_BATCH_JOB_ARRAY_INDEX",
    "JOB_ID",
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
    "JOB_COMPLETION_INDEX",
];
const OWN: &str = "JOBMETER_";
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What was said, and how.
#[derive(Debug)]
pub(super) struct Said<'a> {
    matches: &'a ArgMatches,
    verb: &'a ArgMatches,
    by_root: bool,
}

impl<'a> Said<'a> {
    /// `None` for a verb that runs, charges and settles nothing: there each may look at whatever ledger he likes.
    pub(super) fn of_a_job(matches: &'a ArgMatches) -> Option<Self> {
        let (name, verb) = matches.subcommand()?;
        // Root of a user namespace is an ordinary user's own.
        let by_root = nix::unistd::geteuid().is_root() && trust::is_in_first_user_namespace();
        OF_A_JOB.contains(&name).then_some(Self { matches, verb, by_root })
    }

    /// Whether it was said by somebody who may not decide it.
    fn is_the_users(&self, matches: &ArgMatches, id: &str) -> bool {
        match matches.value_source(id) {
            Some(ValueSource::CommandLine | ValueSource::EnvVariable) => !self.by_root,
            _ => false,
        }
    }

    /// What was said of `id` by the user, and is not what holds.
    pub(super) fn refuse_unless(&self, id: &str, is_the_same: bool) -> Result<(), Failure> {
        debug_assert!(MAY_BE_REPEATED.contains(&id));
        if self.is_the_users(self.matches, id) && !is_the_same { Err(refused(id)) } else { Ok(()) }
    }

    /// As whom the command runs.
    pub(super) fn job_user(&self) -> Option<&String> {
        self.verb.try_get_one::<String>("run_as").ok().flatten()
    }

    /// All that was said of the verb itself.
    pub(super) fn refuse_what_is_not_the_users(&self) -> Result<(), Failure> {
        let known = |id: &str| MAY_BE_SAID.contains(&id) || MAY_BE_REPEATED.contains(&id);
        let mut level = Some(self.verb);
        while let Some(matches) = level {
            let ids = matches.ids().map(clap::Id::as_str).filter(|id| matches.try_contains_id(id).is_ok_and(|is| is));
            for id in ids.filter(|id| !known(id)) {
                // Groups of arguments have no source.
                if self.is_the_users(matches, id) {
                    return Err(refused(id));
                }
            }
            level = matches.subcommand().map(|(_, matches)| matches);
        }
        Ok(())
    }
}

fn refused(id: &str) -> Failure {
    let flag = id.replace('_', "-");
    let variable = if MAY_BE_REPEATED.contains(&id) { ", or its variable," } else { "" };
    Failure::new(format!("--{flag}{variable} is refused: {SYSTEM_FILE} enforces its settings"))
}

/// What becomes of the variables that came with the call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Environment {
    /// What the meter may go on with.
    pub(super) kept: Vec<(OsString, OsString)>,
    /// Whether there were others, which the meter may not see.
    pub(super) is_foreign: bool,
}

/// Divides them into the meter's and the rest, which is the command's alone.
pub(super) fn divide(variables: impl Iterator<Item = (OsString, OsString)>) -> Environment {
    let mut found = Environment { kept: Vec::new(), is_foreign: false };
    for (name, value) in variables {
        let is_path = name == "PATH";
        let is_kept = |known: &&str| name == OsStr::new(*known);
        if is_path && value != SYSTEM_PATH {
            found.is_foreign = true;
        } else if OF_THE_METER
            .into_iter()
            .chain(declared::variables())
            .chain(others::variables())
            .any(|kept| is_kept(&kept))
            || name.to_string_lossy().starts_with(OWN)
        {
            found.kept.push((name, value));
        } else {
            found.is_foreign = true;
        }
    }
    if !found.kept.iter().any(|(name, _)| name == "PATH") {
        found.kept.push(("PATH".into(), SYSTEM_PATH.into()));
    }
    found
}

/// Where settings are enforced, the meter of a job starts anew without the user's environment, which is the command's alone: the
/// dynamic linker, the resolver and the TLS library obey it.
pub(super) fn leave_the_users_environment(arguments: &[OsString]) -> Result<(), Failure> {
    let is_a_jobs = arguments.iter().any(|argument| OF_A_JOB.iter().any(|verb| argument == verb));
    if !is_a_jobs || !is_enforced() {
        return Ok(());
    }
    let found = divide(std::env::vars_os());
    if !found.is_foreign {
        return Ok(());
    }
    let error = environment::start_anew(arguments, &found.kept, &std::env::vars_os().collect());
    Err(Failure::new("jobmeter cannot start anew without the user's environment").because(error))
}

/// Whether both name the same place.
pub(super) fn same_path(given: &Path, holds: &Path) -> bool {
    std::path::absolute(given).is_ok_and(|given| given == holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(pairs: &[(&str, &str)]) -> Environment {
        divide(pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    #[test]
    fn the_meter_sees_nothing_of_the_users() {
        let found = divided(&[
            ("LD_PRELOAD", "/tmp/x.so"),
            ("https_proxy", "http://x"),
            ("SSL_CERT_FILE", "/tmp/ca"),
            ("PATH", "/tmp:/bin"),
            ("JOBMETER_USER", "ann"),
            ("TERM", "xterm"),
        ]);
        let names: Vec<_> = found.kept.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(names, ["JOBMETER_USER", "TERM", "PATH"]);
        assert_eq!((found.is_foreign, &found.kept[2].1), (true, &OsString::from(SYSTEM_PATH)));
        // What was divided once has nothing foreign left: it is not done for ever.
        assert!(!divide(found.kept.into_iter()).is_foreign);
    }
}
