//! The helper that reads NVML for jobmeter: questions and answers over a socket, one JSON document a line
//! ([`jobmeter::meter::gpu::wire`]). It is a process of its own since a library that crashes takes its process along,
//! and one that hangs in the kernel keeps its process from exiting.
//!
//! Its standard input is the socket, of one meter, or of all that connect to it: then it is the machine's, and ends with the last of them.

mod clients;
mod errors;
mod fault;
mod library;
mod list;
mod poll;
mod rates;

use std::collections::HashMap;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use jobmeter::meter::gpu::identity::DriverFiles;
use jobmeter::meter::gpu::wire::{self, Ask, Fault, Told};
use jobmeter::sys::process::{exit_now, own_cpu_us};
use nvml_wrapper::Nvml;

use self::clients::{Answer, Clients, Question};
use self::poll::{Baselines, Poller};

fn main() -> ExitCode {
    let path = std::env::args_os().nth(1);
    let served = Clients::begin().and_then(|clients| {
        let is_shared = clients.are_many();
        clients.serve(move || Reader::new(path, is_shared))
    });
    served.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// Who answers.
struct Reader {
    path: Option<OsString>,
    is_shared: bool,
    /// From the first question on.
    loaded: Option<Loaded>,
    memories: HashMap<u64, Memory>,
}

/// What is kept of a client from one answer to the next.
#[derive(Default)]
struct Memory {
    baselines: Baselines,
    cpu_us: u64,
}

struct Loaded {
    nvml: &'static Nvml,
    poller: Poller,
    /// NVML tells of no device that came after this.
    minors: Vec<u32>,
}

impl Answer for Reader {
    fn pause(&self) -> Option<Duration> {
        self.loaded.as_ref()?.poller.pause()
    }

    fn wake(&mut self) {
        if let Some(loaded) = &mut self.loaded {
            loaded.poller.sample();
        }
    }

    fn answer(&mut self, question: Question) -> Option<Vec<u8>> {
        let (number, line) = match question {
            Question::Line(number, line) => (number, line),
            Question::Gone(number) => {
                self.memories.remove(&number);
                return None;
            }
        };
        let before_us = own_cpu_us();
        let mut memory = self.memories.remove(&number).unwrap_or_default();
        let mut told = match serde_json::from_slice(&line) {
            Ok(ask) => self.tell(&ask, &mut memory.baselines),
            Err(error) => Told::Failed(Fault::failed(format!("the question is none: {error}"))),
        };
        let now_us = own_cpu_us();
        memory.cpu_us += now_us.saturating_sub(before_us);
        if let Told::Polled(polled) = &mut told {
            polled.cpu_us = if self.is_shared { memory.cpu_us } else { now_us };
        }
        self.memories.insert(number, memory);
        wire::line(&told).ok()
    }
}

impl Reader {
    fn new(path: Option<OsString>, is_shared: bool) -> Self {
        Self { path, is_shared, loaded: None, memories: HashMap::new() }
    }

    fn tell(&mut self, ask: &Ask, baselines: &mut Baselines) -> Told {
        let minors = DriverFiles::default().minors();
        let loaded = match &mut self.loaded {
            // Its meters begin anew with others.
            Some(loaded) if loaded.minors != minors && matches!(ask, Ask::List) => exit_now(0),
            Some(loaded) => loaded,
            None => match library::load(self.path.as_deref()) {
                // It is used until this process ends.
                Ok(nvml) => {
                    let nvml: &'static Nvml = Box::leak(Box::new(nvml));
                    // To load it may make some.
                    let minors = DriverFiles::default().minors();
                    self.loaded.insert(Loaded { nvml, poller: Poller::new(nvml), minors })
                }
                // It may be there when it is asked again.
                Err(fault) => return Told::Failed(fault),
            },
        };
        match ask {
            Ask::List => match list::list(loaded.nvml) {
                Ok(listed) => Told::Listed(Box::new(listed)),
                Err(error) => Told::Failed(fault::of(&error)),
            },
            Ask::Poll { devices, since_us } => {
                Told::Polled(Box::new(loaded.poller.poll(devices, *since_us, baselines)))
            }
        }
    }
}
