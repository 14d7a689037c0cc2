//! `jobmeter spool`: burn that the ledger has not taken.

use std::process::ExitCode;

use super::args::Spool;
use super::output::{Failure, Output, Style};
use super::settings::Settings;
use crate::runner::leftovers::{self, LeftOver};
use crate::runner::summary::seconds;

pub(super) fn unreadable(error: std::io::Error) -> Failure {
    Failure::new("the spool directory cannot be read").because(error)
}

pub(super) fn spool(spool: &Spool, settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    match spool {
        Spool::List => {
            let files = leftovers::list(&settings.spool_dir).map_err(unreadable)?;
            out.print(&files, |style| text(&files, "nothing is in the spool\n", style))
        }
        Spool::Flush { acknowledged } => {
            let mut flushed =
                leftovers::flush(&settings.spool_dir, &settings.ledger, crate::ledger::location::Location::connect)
                    .map_err(unreadable)?;
            if *acknowledged {
                let again = leftovers::resend(&settings.spool_dir, &settings.ledger).map_err(unreadable)?;
                flushed.settled.extend(again.settled);
                flushed.kept.extend(again.kept);
            }
            out.print(&flushed, |style| {
                let mut shown = text(&flushed.settled, "", style);
                shown.push_str(&text(&flushed.kept, "", style));
                let (settled, kept) = (flushed.settled.len(), flushed.kept.len());
                shown.push_str(&format!("{settled} settled, {kept} kept, {} in use\n", flushed.in_use));
                shown
            })?;
            Ok(if flushed.kept.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn text(files: &[LeftOver], none: &str, style: &Style) -> String {
    if files.is_empty() {
        return none.to_owned();
    }
    let row = |file: &LeftOver| {
        vec![
            file.attempt.map_or_else(|| file.path.display().to_string(), |attempt| attempt.to_string()),
            file.job.clone().unwrap_or_default(),
            file.user.clone().unwrap_or_default(),
            file.cpu_seconds.map(seconds).unwrap_or_default(),
            file.ledger.clone().unwrap_or_default(),
            file.state.clone(),
        ]
    };
    style.table(&["ATTEMPT", "JOB", "USER", "CPU S", "LEDGER", "STATE"], &files.iter().map(row).collect::<Vec<_>>())
}
