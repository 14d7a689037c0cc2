//! The thread that asks the helper each second, and takes what it tells. Nothing else waits for NVML.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::unistd::Pid;

use super::child::Helper;
use super::declared::{Declared, Selection, declared, unseen};
use super::gpus::Gpus;
use super::identity::{DriverFiles, OpenFiles};
use super::place;
use super::wire::{Ask, Fault, Listed, Polled, Told};
use crate::sys::clock::{Clock, SystemClock, pause};
use crate::sys::containment::{Containment, ContainmentSpec, Reopened};
use crate::sys::process::cpu_us_of;

/// The ring of the driver holds 12 s.
const LOOK: Duration = Duration::from_secs(1);
/// Where little is left, so that less has to stay unburned; and where processes come and go, to know whose they are.
const LOOK_SOON: Duration = Duration::from_millis(200);
/// The first answer may have to wait for the driver to wake the devices; a job does not wait longer for it.
const LIST_WAIT_MAX: Duration = Duration::from_secs(5);
/// A helper that has not answered then hangs.
const POLL_WAIT_MAX: Duration = Duration::from_secs(2);
/// From the end of a job until its last samples are in the ring: two periods and some.
const LAST_LOOK: Duration = Duration::from_millis(400);
/// The end waits no longer.
pub const END_WAIT_MAX: Duration = Duration::from_millis(2_600);
/// A helper that failed is started again after this, then after twice that, and so on.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What a run says about GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuOptions {
    /// `--gpus`.
    pub selection: Option<Selection>,
    /// `--gpu-exclusive`.
    pub exclusive: bool,
    /// `--nvml-library`.
    pub library: Option<PathBuf>,
}

impl GpuOptions {
    /// Whether there could be anything to meter: without a sign of a device nothing is started.
    #[must_use]
    pub fn concern_a_gpu(&self) -> bool {
        self.library.is_some()
            || DriverFiles::default().show_a_gpu()
            || matches!(self.selection, Some(Selection::These(_)))
    }
}

/// How far the thread has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Starting,
    Looking,
    Ended,
}

#[derive(Debug, Default)]
struct Orders {
    stage: Stage,
    soon: bool,
    /// Look now.
    now: bool,
    last: bool,
    helper_pid: Option<u32>,
    /// CPU time of helpers that have ended.
    helpers_us: u64,
}

#[derive(Debug, Default)]
struct Shared {
    gpus: Mutex<Gpus>,
    orders: Mutex<Orders>,
    bell: Condvar,
}

/// The thread, as the keeper sees it.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Lists the devices and starts to look.
    ///
    /// # Errors
    /// Where `--gpus` names what is not there, for people.
    pub fn start(options: &GpuOptions, job: ContainmentSpec) -> Result<Self, String> {
        let shared = Arc::new(Shared::default());
        let first = first_listing(options)?;
        *locked(&shared.gpus) = first.gpus;
        locked(&shared.orders).helper_pid = first.helper.as_ref().map(Helper::pid);
        let (theirs, library) = (Arc::clone(&shared), options.library.clone());
        let thread = std::thread::Builder::new().name("gpus".to_owned());
        let thread = thread.spawn(move || {
            let fault = Fault::failed("NVML was not asked yet");
            let (retry, helper) = (RETRY_FIRST, first.helper);
            let shared = theirs;
            Watcher { shared, library, job, helper, retry, retry_at_us: 0, fault, helper_us: 0 }.run();
        });
        let thread = thread.map_err(|error| format!("no thread for the GPUs: {error}"))?;
        let watch = Self { shared, thread: Some(thread) };
        watch.wait_for(POLL_WAIT_MAX, |orders| orders.stage != Stage::Starting);
        Ok(watch)
    }

    fn wait_for(&self, wait_max: Duration, reached: impl Fn(&Orders) -> bool) {
        let orders = locked(&self.shared.orders);
        drop(self.shared.bell.wait_timeout_while(orders, wait_max, |orders| !reached(orders)));
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut locked(&self.shared.orders));
        self.shared.bell.notify_all();
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

    /// CPU time of the helpers so far.
    #[must_use]
    pub fn helper_cpu_us(&self) -> u64 {
        let orders = locked(&self.shared.orders);
        let pid = orders.helper_pid.and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        orders.helpers_us.saturating_add(pid.map_or(0, cpu_us_of))
    }
}

struct First {
    gpus: Gpus,
    helper: Option<Helper>,
}

/// Asks the library for the devices, or where that fails, the files of the driver.
fn first_listing(options: &GpuOptions) -> Result<First, String> {
    let asked = Helper::start(options.library.as_deref()).and_then(|mut helper| {
        let listed = list(&mut helper)?;
        Ok((helper, listed))
    });
    let now_us = SystemClock.boottime_us();
    let host_pids = place::has_host_pids();
    match asked {
        Ok((helper, listed)) => {
            let gpus = Gpus::new(&listed, resolve(options, &listed)?, host_pids, now_us);
            Ok(First { gpus, helper: Some(helper) })
        }
        Err(fault) => {
            let mut devices = DriverFiles::default().devices();
            devices.extend(unseen(options.selection.as_ref(), &|name| std::env::var(name).ok(), &devices));
            let listed = Listed { devices, ..Listed::default() };
            let gpus = Gpus::blind(&listed, resolve(options, &listed)?, host_pids, &fault, now_us);
            Ok(First { gpus, helper: None })
        }
    }
}

fn resolve(options: &GpuOptions, listed: &Listed) -> Result<Declared, String> {
    let environment = |name: &str| std::env::var(name).ok();
    let found =
        declared(options.selection.as_ref(), options.exclusive, &environment, &listed.devices, place::in_container());
    found.map_err(|why| format!("--gpus: {why}"))
}

/// Asks a helper for its devices.
///
/// # Errors
/// Where it does not answer, or NVML does not.
pub fn list(helper: &mut Helper) -> Result<Listed, Fault> {
    match helper.ask(&Ask::List, LIST_WAIT_MAX)? {
        Told::Listed(listed) => Ok(*listed),
        Told::Failed(fault) => Err(fault),
        Told::Polled(_) => Err(Fault::failed("the helper answered what it was not asked")),
    }
}

struct Watcher {
    shared: Arc<Shared>,
    library: Option<PathBuf>,
    job: ContainmentSpec,
    helper: Option<Helper>,
    retry: Duration,
    retry_at_us: u64,
    fault: Fault,
    helper_us: u64,
}

impl Watcher {
    fn run(&mut self) {
        let job = Containment::reopen(&self.job).ok().and_then(Reopened::found);
        loop {
            self.look(job.as_ref());
            self.set(|orders| orders.stage = Stage::Looking);
            if !self.wait() {
                break;
            }
        }
        if locked(&self.shared.gpus).is_read() {
            pause(LAST_LOOK);
            self.look(job.as_ref());
        }
        let ended_us = self.helper_us;
        self.set(|orders| {
            orders.stage = Stage::Ended;
            orders.helper_pid = None;
            orders.helpers_us = orders.helpers_us.saturating_add(ended_us);
        });
    }

    fn set(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut locked(&self.shared.orders));
        self.shared.bell.notify_all();
    }

    /// Until the next look; whether there is one.
    fn wait(&self) -> bool {
        let restless = locked(&self.shared.gpus).is_restless(SystemClock.boottime_us());
        let orders = locked(&self.shared.orders);
        let soon = orders.soon;
        let look = if soon || restless { LOOK_SOON } else { LOOK };
        let as_before = |orders: &mut Orders| !orders.now && !orders.last && orders.soon == soon;
        let waited = self.shared.bell.wait_timeout_while(orders, look, as_before);
        let mut orders = waited.map_or_else(|error| error.into_inner().0, |waited| waited.0);
        // What is wanted now is done before the end.
        std::mem::take(&mut orders.now) || !orders.last
    }

    fn look(&mut self, job: Option<&Containment>) {
        let polled = self.poll();
        let living = job.map(Containment::processes).unwrap_or_default();
        // Not under the lock, since the keeper looks meanwhile.
        let needs_files = polled.is_err() || locked(&self.shared.gpus).needs_files();
        let open = if needs_files { DriverFiles::default().open_by(&living) } else { OpenFiles::default() };
        let now_us = SystemClock.boottime_us();
        let mut gpus = locked(&self.shared.gpus);
        match polled {
            Ok(None) => {}
            Ok(Some(polled)) => gpus.take(&polled, &living, needs_files.then_some(&open), now_us),
            Err(fault) => gpus.fail(&fault, &open, now_us),
        }
    }

    /// Asks the helper; one that does not answer is abandoned.
    fn poll(&mut self) -> Result<Option<Box<Polled>>, Fault> {
        let now_us = SystemClock.boottime_us();
        let mut helper = match self.helper.take() {
            Some(helper) => helper,
            None if now_us < self.retry_at_us => return Err(self.fault.clone()),
            None => self.start_again().inspect_err(|fault| self.give_up(fault.clone()))?,
        };
        let Some(ask) = locked(&self.shared.gpus).ask(now_us) else {
            self.helper = Some(helper);
            return Ok(None);
        };
        let told = helper.ask(&ask, POLL_WAIT_MAX).and_then(|told| match told {
            Told::Polled(polled) => Ok(polled),
            Told::Failed(fault) => Err(fault),
            Told::Listed(_) => Err(Fault::failed("the helper answered what it was not asked")),
        });
        match told {
            Ok(polled) => {
                self.retry = RETRY_FIRST;
                self.helper_us = polled.cpu_us;
                self.helper = Some(helper);
                Ok(Some(polled))
            }
            Err(fault) => {
                self.give_up(fault.clone());
                Err(fault)
            }
        }
    }

    fn start_again(&mut self) -> Result<Helper, Fault> {
        let mut helper = Helper::start(self.library.as_deref())?;
        let listed = list(&mut helper)?;
        locked(&self.shared.gpus).add(&listed, SystemClock.boottime_us());
        self.set(|orders| orders.helper_pid = Some(helper.pid()));
        Ok(helper)
    }

    fn give_up(&mut self, fault: Fault) {
        self.fault = fault;
        let retry_us = u64::try_from(self.retry.as_micros()).unwrap_or(u64::MAX);
        self.retry_at_us = SystemClock.boottime_us().saturating_add(retry_us);
        self.retry = self.retry.saturating_mul(2).min(RETRY_MAX);
        let ended_us = std::mem::take(&mut self.helper_us);
        self.set(|orders| {
            orders.helper_pid = None;
            orders.helpers_us = orders.helpers_us.saturating_add(ended_us);
        });
    }
}
