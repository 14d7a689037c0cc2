//! One start of jobmeter for a task: its ids and when it began.

use uuid::Uuid;

use super::options::RunOptions;
use super::origin::Beginning;
use crate::domain::redaction::Cutter;
use crate::ledger::attempt_secret::AttemptSecret;
use crate::ledger::protocol::AttemptIdentity;
use crate::sys::clock::{Clock, SystemClock};

/// Who, and since when.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) identity: AttemptIdentity,
    /// That what is said of it comes from here. It is neither the job's nor anybody else's.
    pub(super) secret: AttemptSecret,
    pub(super) started_realtime_us: i64,
    pub(super) started_boottime_us: u64,
}

/// Command lines are kept for people: at most so many bytes of them, and without their secrets.
const COMMAND_BYTES_MAX: usize = 4096;

impl Attempt {
    pub(super) fn new(options: &RunOptions) -> Self {
        let mut room = COMMAND_BYTES_MAX;
        let mut cutter = Cutter::new(&options.secret_names);
        let mut command = Vec::new();
        for argument in &options.command {
            let argument = cutter.argument(&argument.to_string_lossy(), room);
            let end = argument.floor_char_boundary(room.min(argument.len()));
            command.push(argument[..end].to_owned());
            room = room.saturating_sub(end + 1);
            if room == 0 {
                break;
            }
        }
        let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self {
            identity: AttemptIdentity {
                attempt: Uuid::now_v7(),
                job: options.job.clone(),
                task: options.task.clone(),
                user: options.user.clone(),
                kind: options.kind,
                name: options.name.clone(),
                labels: options.labels.clone(),
                command,
                host,
            },
            secret: AttemptSecret::new(),
            started_realtime_us: SystemClock.realtime_us(),
            started_boottime_us: SystemClock.boottime_us(),
        }
    }

    pub(super) fn began(&self) -> Beginning {
        Beginning { realtime_us: self.started_realtime_us, boottime_us: Some(self.started_boottime_us) }
    }
}
