//! The helper that reads NVML for jobmeter: questions on standard input, answers on standard output, one JSON document a
//! line ([`jobmeter::meter::gpu::wire`]). It is a process of its own since a library that crashes takes its process along,
//! and one that hangs in the kernel keeps its process from exiting.

mod library;
mod list;
mod poll;

use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use jobmeter::meter::gpu::wire::{Ask, Fault, FaultKind, Told};
use jobmeter::sys::process::{die_with_parent, forbid_tracing, silence_standard_output};
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use self::poll::Poller;

fn main() -> ExitCode {
    let path = std::env::args_os().nth(1);
    let answered = begin().and_then(|out| match library::load(path.as_deref()) {
        Ok(nvml) => answer_all(&mut Answers { nvml: &nvml, named: path.is_some(), poller: Poller::new(&nvml) }, out),
        Err(error) => answer_all(&mut fault(&error), out),
    });
    answered.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// Before the library is there: where the answers go.
fn begin() -> std::io::Result<File> {
    // One that hangs in the library sees no end of its standard input.
    die_with_parent()?;
    // A job of the same user may not change what is told.
    forbid_tracing()?;
    let out = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    // What a library prints is no answer.
    silence_standard_output()?;
    Ok(out)
}

/// Whoever answers.
trait Answer {
    fn answer(&mut self, ask: &Ask) -> Told;
}

/// The library was loaded.
struct Answers<'nvml> {
    nvml: &'nvml Nvml,
    named: bool,
    poller: Poller<'nvml>,
}

impl Answer for Answers<'_> {
    fn answer(&mut self, ask: &Ask) -> Told {
        match ask {
            Ask::List => match list::list(self.nvml, self.named) {
                Ok(listed) => Told::Listed(Box::new(listed)),
                Err(error) => Told::Failed(fault(&error)),
            },
            Ask::Poll { devices } => Told::Polled(Box::new(self.poller.poll(devices))),
        }
    }
}

/// It was not, and that is the answer to everything.
impl Answer for Fault {
    fn answer(&mut self, _ask: &Ask) -> Told {
        Told::Failed(self.clone())
    }
}

/// Until standard input ends, which is the end of jobmeter.
fn answer_all(answers: &mut dyn Answer, out: File) -> std::io::Result<()> {
    let mut out = BufWriter::new(out);
    for line in std::io::stdin().lock().lines() {
        let told = match serde_json::from_str(&line?) {
            Ok(ask) => answers.answer(&ask),
            Err(error) => Told::Failed(Fault::failed(format!("the question is none: {error}"))),
        };
        serde_json::to_writer(&mut out, &told)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

/// What follows from an error of NVML.
fn fault(error: &NvmlError) -> Fault {
    let kind = match error {
        NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => {
            FaultKind::Unsupported
        }
        NvmlError::NoPermission => FaultKind::Denied,
        NvmlError::GpuLost | NvmlError::ResetRequired => FaultKind::Lost,
        _ => FaultKind::Failed,
    };
    Fault { kind, why: error.to_string() }
}
