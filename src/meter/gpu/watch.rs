//! The thread that looks at the devices of a job, as the keeper sees it. Nothing but that thread waits for NVML.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::unistd::Pid;

use super::child::READY_WAIT_MAX;
use super::declared::Selection;
use super::gpus::Gpus;
use super::options::{Giver, GpuOptions};
use super::orders::{Orders, Shared, Stage, locked};
use super::watcher::{LOOK, LOOK_SOON, Watcher};
use crate::sys::bell::Bell;
use crate::sys::containment::ContainmentSpec;
use crate::sys::process::cpu_us_of;

/// A job waits no longer for NVML at its start. What it does not know by then is charged as allocated until it does.
const START_WAIT_MAX: Duration = Duration::from_millis(300);
/// Nor at its end: two periods of samples, and what a look takes.
pub const END_WAIT_MAX: Duration = Duration::from_millis(400);

/// `--gpus all` where nothing is.
pub const NO_GPU: &str = "--gpus all: there is no GPU here (`jobmeter doctor` says what is)";

/// The thread, as the keeper sees it.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to look, and waits for nothing: for devices that come while the job runs.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn spawn(options: &GpuOptions, job: ContainmentSpec) -> io::Result<Self> {
        let shared = Arc::new(Shared::new()?);
        let mut watcher = Watcher::new(Arc::clone(&shared), options.clone(), job);
        let thread = std::thread::Builder::new().name("gpus".to_owned()).spawn(move || watcher.run());
        Ok(Self { shared, thread: Some(thread?) })
    }

    /// Starts to look, and waits a little for the devices.
    ///
    /// # Errors
    /// Where `--gpus` names what is not there, for people.
    pub fn start(options: &GpuOptions, job: ContainmentSpec) -> Result<Self, String> {
        let watch = Self::spawn(options, job).map_err(|error| format!("no thread for the GPUs: {error}"))?;
        if options.giver == Giver::Container {
            // The command is not there before it.
            watch.wait_for(READY_WAIT_MAX * 2, |orders| orders.stage != Stage::Starting || orders.helper_pid.is_some());
        }
        watch.wait_for(START_WAIT_MAX, |orders| orders.stage != Stage::Starting);
        let is_known = locked(&watch.shared.orders).stage != Stage::Starting;
        let refusal = locked(&watch.shared.orders).refusal.take();
        let is_missed =
            is_known && options.selection == Some(Selection::All) && watch.with(|gpus| gpus.all().is_empty());
        match refusal.or(is_missed.then(|| NO_GPU.to_owned())) {
            None => Ok(watch),
            Some(why) => {
                watch.order(|orders| orders.last = true);
                Err(why)
            }
        }
    }

    fn wait_for(&self, wait_max: Duration, reached: impl Fn(&Orders) -> bool) {
        let orders = locked(&self.shared.orders);
        drop(self.shared.progress.wait_timeout_while(orders, wait_max, |orders| !reached(orders)));
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut locked(&self.shared.orders));
        self.shared.ordered.ring();
    }

    /// Rings when a device becomes the job's, of which the last bounds did not know.
    #[must_use]
    pub fn bell(&self) -> &Bell {
        &self.shared.joined
    }

    /// What is known now.
    pub fn with<T>(&self, read: impl FnOnce(&mut Gpus) -> T) -> T {
        read(&mut locked(&self.shared.gpus))
    }

    /// Little is left: look more often, or not any more.
    pub fn hurry(&self, soon: bool) {
        if locked(&self.shared.orders).soon != soon {
            self.order(|orders| orders.soon = soon);
        }
    }

    /// The highest age that a reading has between two looks.
    #[must_use]
    pub fn look_us(&self) -> u64 {
        let look = if locked(&self.shared.orders).soon { LOOK_SOON } else { LOOK };
        u64::try_from(look.as_micros()).unwrap_or(0)
    }

    /// The command's process exists. A look at this moment tells what was before it from what comes.
    pub fn begin(&self, child: i32, now_us: u64) {
        self.with(|gpus| gpus.begin(child, now_us));
        self.order(|orders| orders.now = true);
    }

    /// The job stands still or has ended: nothing after this is its own. The driver's clock is compared once more.
    pub fn cut(&self, now_us: u64) {
        self.with(|gpus| gpus.end(now_us));
        self.order(|orders| orders.now = true);
    }

    /// Waits for the last look, and ends the thread.
    pub fn finish(&mut self) {
        self.order(|orders| orders.last = true);
        self.wait_for(END_WAIT_MAX, |orders| orders.stage == Stage::Ended);
        self.with(Gpus::close);
        // A thread that waits for a helper that hangs is left behind.
        self.thread.take().filter(JoinHandle::is_finished).map(JoinHandle::join);
    }

    /// CPU time of its own helpers so far, in µs: they are where the keeper is.
    #[must_use]
    pub fn own_helpers_us(&self) -> u64 {
        let orders = locked(&self.shared.orders);
        let pid = orders.helper_pid.and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        orders.helpers_us.saturating_add(pid.map_or(0, cpu_us_of))
    }

    /// The same, and what the machine's helper has done for this meter.
    #[must_use]
    pub fn helper_cpu_us(&self) -> u64 {
        let shared_us = locked(&self.shared.orders).shared_us;
        self.own_helpers_us().saturating_add(shared_us)
    }
}
