//! The command line: one file a verb; [`output`] is the only place that prints.

mod account;
mod args;
mod attach;
mod chart;
mod config_file;
mod doctor;
mod enforced;
mod install;
mod jobs;
mod key;
mod ledger;
mod ledger_settings;
mod log;
mod manual;
mod output;
mod rates;
mod relay;
mod run;
mod serve;
mod settings;
mod slurm;
mod spool;
mod status;
mod tokens;
mod top;
mod usage;
mod values;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use self::args::{Arguments, Verb};
use self::enforced::Said;
use self::output::{Failure, Output, RUN_FAILED};
use self::settings::Settings;

/// Parses the arguments and does what they say.
#[must_use]
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    if arguments.get(1).is_some_and(|verb| verb == "slurm") {
        return slurm::main(&arguments);
    }
    if let Err(failure) = enforced::leave_the_users_environment(&arguments) {
        output::print_failure(&failure);
        return ExitCode::from(RUN_FAILED);
    }
    let parsed = Arguments::command().try_get_matches_from(&arguments);
    match parsed.and_then(|matches| Ok((Arguments::from_arg_matches(&matches)?, matches))) {
        Ok((parsed, matches)) => {
            // The service says it in its log.
            if !matches!(parsed.verb, Verb::Serve(_)) && settings::shows_password(arguments) {
                output::print_warning(settings::SHOWN_PASSWORD);
            }
            perform(parsed, &matches)
        }
        Err(error) => {
            output::print_help(&error);
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // A scheduler must tell a mistake in the call from the command's own status 2.
            let failed =
                if arguments.iter().any(|argument| argument == "run" || argument == "attach") { RUN_FAILED } else { 2 };
            ExitCode::from(if asked { 0 } else { failed })
        }
    }
}

fn perform(arguments: Arguments, matches: &ArgMatches) -> ExitCode {
    let is_run = matches!(arguments.verb, Verb::Run(_) | Verb::Attach(_));
    let out = Output::new(arguments.global.json);
    let asks_ledger =
        !matches!(arguments.verb, Verb::Serve(_) | Verb::Install { .. } | Verb::Completions { .. } | Verb::Man { .. });
    let said = Said::of_a_job(matches);
    // A job is looked for among those of an account where that is asked for now; a variable or a file says who pays for new ones.
    let is_said = matches.value_source("user") == Some(ValueSource::CommandLine);
    let said_user = arguments.global.user.as_deref().filter(|_| is_said);
    let done = Settings::new(&arguments.global, asks_ledger, said.as_ref()).and_then(|settings| match arguments.verb {
        Verb::Run(run) => run::run(&run, &settings, &out),
        Verb::Attach(attach) => attach::attach(&attach, &settings),
        Verb::Status(status) => status::status(&status, &settings, &out),
        Verb::Top { all } => top::top(all, &settings),
        Verb::Jobs(jobs) => jobs::jobs(&jobs, said_user, &settings, &out),
        Verb::Usage(usage) => usage::usage(&usage, &settings, &out),
        Verb::Tokens(tokens) => tokens::tokens(&tokens, said_user, &settings, &out),
        Verb::Account(account) => account::account(account, &settings, &out),
        Verb::Rates(rates) => rates::rates(&rates, &settings, &out),
        Verb::Ledger(ledger) => ledger::ledger(ledger, &settings, &out),
        Verb::Spool(spool) => spool::spool(&spool, &settings, &out),
        Verb::Key(key) => key::key(key, &settings, &out),
        Verb::Relay(relay) => relay::relay(&relay, &settings),
        Verb::Install { directory } => install::install(&directory, &out),
        Verb::Serve(serve) => serve::serve(&serve, &settings),
        Verb::Doctor { nvml_library } => doctor::doctor(nvml_library.as_deref(), &settings, &out),
        Verb::Completions { shell } => manual::completions(shell, &out),
        Verb::Man { dir } => manual::man(dir.as_deref(), &out),
    });
    done.unwrap_or_else(|failure: Failure| {
        output::print_failure(&failure);
        ExitCode::from(if is_run { RUN_FAILED } else { failure.status })
    })
}
