//! The thread that asks the helper each second, and takes what it tells. An answer that is late is taken when it comes; what was not read
//! meanwhile is not known yet.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::child::{Helper, wrong_answer};
use super::claims::Claim;
use super::declared::{Declared, declared, unseen};
use super::gpus::Gpus;
use super::identity::{DriverFiles, OpenFiles};
use super::need::{Asking, Need};
use super::options::{Giver, GpuOptions};
use super::orders::{Orders, Shared, Stage, locked};
use super::place;
use super::wire::{Ask, Fault, FaultKind, Listed, Polled, Told};
use crate::sys::clock::{Clock, SystemClock, after, is_before, pause};
use crate::sys::containment::{Containment, ContainmentSpec, Reopened};
use crate::sys::poll::readable;

/// The ring of the driver holds 12 s.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Where little is left, so that less has to stay unburned; and where processes come and go, to know whose they are.
pub(super) const LOOK_SOON: Duration = Duration::from_millis(200);
/// One look waits no longer for its answer.
const ANSWER_WAIT: Duration = Duration::from_millis(100);
/// The first answer may have to wait for the driver to wake all devices (persistence mode is off): such a helper does not hang yet.
const LIST_WAIT_MAX_US: u64 = 300_000_000;
/// One that has told its devices, and then does not answer for so long.
const POLL_WAIT_MAX_US: u64 = 30_000_000;
/// The same of the machine's helper, which may hang at a device that is not this job's.
const SHARED_LIST_WAIT_MAX_US: u64 = 20_000_000;
const SHARED_POLL_WAIT_MAX_US: u64 = 5_000_000;
/// For so long a meter that it did not answer has one of its own.
const PRIVATE_US: u64 = 300_000_000;
/// Those who look at the same time have the same look.
const LOOK_AGE_MAX_US: u64 = 100_000;
/// From the end of a job until its last samples are in the ring: two periods at most.
const LAST_SAMPLES_MAX: Duration = Duration::from_millis(370);
const LAST_LOOK: Duration = Duration::from_millis(40);
/// A helper that failed is started again after this, then after twice that, and so on.
const RETRY_FIRST_US: u64 = 500_000;
const RETRY_MAX_US: u64 = 30_000_000;

/// What has become of the helper.
#[derive(Debug)]
enum Line {
    /// There is none, and before this time there will be none.
    Down {
        until_us: u64,
    },
    /// It was asked at this time.
    Asked {
        helper: Helper,
        at_us: u64,
    },
    Ready(Helper),
}

#[derive(Debug)]
pub(super) struct Watcher {
    shared: Arc<Shared>,
    options: GpuOptions,
    job: ContainmentSpec,
    line: Line,
    /// The machine's helper, which lives as long as somebody holds it.
    held: Option<Helper>,
    /// The devices are known.
    is_listed: bool,
    need: Need,
    asking: Asking,
    /// By UUID, the devices that this task of the job charges.
    claims: BTreeMap<String, Claim>,
    retry_us: u64,
    private_until_us: u64,
    /// The helper is the machine's.
    is_shared: bool,
    /// What was before this moment will not do.
    fresh: bool,
    fault: Fault,
    helper_us: u64,
}

impl Watcher {
    /// What the driver's files tell is there from the beginning.
    pub(super) fn new(shared: Arc<Shared>, options: GpuOptions, job: ContainmentSpec) -> Self {
        let mut devices = DriverFiles::default().devices();
        devices.extend(unseen(options.selection.as_ref(), &|name| options.giver.variable(name), &devices));
        let listed = Listed { devices, ..Listed::default() };
        let fault = Fault::failed("NVML has not answered yet");
        // What cannot be found by the files is a name of NVML's.
        let declared = resolve(&options, &listed).unwrap_or_default();
        *locked(&shared.gpus) = Gpus::unlisted(&listed, declared, place::has_host_pids(), SystemClock.boottime_us());
        let line = Line::Down { until_us: 0 };
        let held = Helper::join(options.library.as_deref());
        let need = Need::new(&options, &job, held.is_some());
        Self {
            shared,
            options,
            job,
            line,
            held,
            is_listed: false,
            need,
            asking: Asking::All,
            claims: BTreeMap::new(),
            retry_us: RETRY_FIRST_US,
            private_until_us: 0,
            is_shared: false,
            fresh: true,
            fault,
            helper_us: 0,
        }
    }

    pub(super) fn run(&mut self) {
        let job = Containment::reopen(&self.job).ok().and_then(Reopened::found);
        loop {
            self.look(job.as_ref());
            // Nobody waits for a helper that has not told its devices yet, but for a little while.
            if self.is_listed || !matches!(self.line, Line::Asked { .. }) {
                self.set(|orders| orders.stage = Stage::Looking);
            }
            if !self.wait(job.as_ref()) {
                break;
            }
        }
        self.read_to_the_end(job.as_ref());
        let until_us = locked(&self.shared.gpus).until_us().unwrap_or_else(|| SystemClock.boottime_us());
        for claim in std::mem::take(&mut self.claims).into_values() {
            // The next one knows when it saw this one last.
            let _is_told = claim.release(until_us);
        }
        self.count_helper();
        self.set(|orders| orders.stage = Stage::Ended);
    }

    fn count(&mut self, helper: &Helper, cpu_us: u64) {
        let more_us = cpu_us.saturating_sub(std::mem::replace(&mut self.helper_us, cpu_us));
        if helper.is_shared() {
            self.set(|orders| orders.shared_us = orders.shared_us.saturating_add(more_us));
        }
    }

    /// The CPU time of one that has ended, or is about to.
    fn count_helper(&mut self) {
        let ended_us = std::mem::take(&mut self.helper_us);
        self.set(|orders| {
            if orders.helper_pid.take().is_some() {
                orders.helpers_us = orders.helpers_us.saturating_add(ended_us);
            }
        });
    }

    fn read_to_the_end(&mut self, job: Option<&Containment>) {
        let until_us = after(LAST_SAMPLES_MAX);
        while is_before(until_us) && locked(&self.shared.gpus).is_to_be_read_on() {
            pause(LAST_LOOK);
            self.look(job);
        }
    }

    fn set(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut locked(&self.shared.orders));
        self.shared.progress.notify_all();
    }

    /// Until the next look; whether there is one.
    fn wait(&mut self, job: Option<&Containment>) -> bool {
        let restless = locked(&self.shared.gpus).is_restless(SystemClock.boottime_us()) || self.need.is_soon();
        let soon = locked(&self.shared.orders).soon;
        let due_us = match &self.line {
            // The look itself waits.
            Line::Asked { .. } => 0,
            _ if soon || restless => next_of_all(LOOK_SOON),
            _ => next_of_all(LOOK),
        };
        self.fresh = false;
        loop {
            if let Some(is_there_one) = self.take_orders(soon) {
                return is_there_one;
            }
            if self.need.scan_at_us().is_some_and(|at_us| !is_before(at_us)) && self.need.scan(&processes(job)) {
                return true;
            }
            if !is_before(due_us) {
                return true;
            }
            self.sleep(self.need.scan_at_us().unwrap_or(due_us).min(due_us));
        }
    }

    /// Whether there is a look, where the keeper has said something of that since.
    fn take_orders(&mut self, soon: bool) -> Option<bool> {
        let _has_rung = self.shared.ordered.silence();
        let mut orders = locked(&self.shared.orders);
        // What is wanted now is done before the end.
        let now = std::mem::take(&mut orders.now);
        self.fresh = now || orders.last;
        if now {
            return Some(true);
        }
        if orders.last { Some(false) } else { (orders.soon != soon).then_some(true) }
    }

    fn sleep(&mut self, until_us: u64) {
        let left = Duration::from_micros(until_us.saturating_sub(SystemClock.boottime_us()));
        let ordered = self.shared.ordered.as_fd();
        // While a scan is due, what others open meanwhile is seen by that.
        let teller = if self.need.scan_at_us().is_some() { None } else { self.teller() };
        let is_awake = teller.is_some();
        let [_, told] = readable([ordered, teller.unwrap_or(ordered)], Some(left));
        if told && is_awake && self.hears_of_opening() {
            self.need.opened();
        }
    }

    /// What becomes readable when somebody opens a file of the driver.
    fn teller(&self) -> Option<BorrowedFd<'_>> {
        match (&self.line, &self.held) {
            (Line::Ready(helper), _) | (_, Some(helper)) if helper.is_shared() => Some(helper.as_fd()),
            _ => self.need.told_by(),
        }
    }

    fn hears_of_opening(&mut self) -> bool {
        let helper = match (&mut self.line, &mut self.held) {
            (Line::Ready(helper), _) | (_, Some(helper)) if helper.is_shared() => helper,
            _ => return self.need.told_by().is_some(),
        };
        helper.heard_of_opening().unwrap_or_else(|_| {
            // The next look has another helper.
            (self.line, self.held) = (Line::Down { until_us: 0 }, None);
            self.count_helper();
            self.need.watch_itself();
            true
        })
    }

    fn look(&mut self, job: Option<&Containment>) {
        let has_one = locked(&self.shared.gpus).has_one_of_the_job();
        self.asking = self.need.of(|| processes(job), has_one);
        if self.asking == Asking::Nothing {
            self.hang_up();
            return locked(&self.shared.gpus).take_none_open(SystemClock.boottime_us());
        }
        let polled = self.poll();
        self.claim_devices();
        // Those of now, which the answer is about.
        let living = processes(job);
        // Not under the lock, since the keeper looks meanwhile.
        let needs_files = polled.is_err() || locked(&self.shared.gpus).needs_files();
        let open = if needs_files { DriverFiles::default().open_by(&living) } else { OpenFiles::default() };
        let now_us = SystemClock.boottime_us();
        let mut gpus = locked(&self.shared.gpus);
        let before = gpus.models();
        match polled {
            // None of them is the job's.
            Ok(None) => gpus.take_none_open(now_us),
            Ok(Some(polled)) => gpus.take(&polled, &living, needs_files.then_some(&open), now_us),
            Err(fault) => gpus.fail(&fault, &open, now_us),
        }
        if gpus.models() != before {
            self.shared.joined.ring();
        }
    }

    /// Nothing has to be asked for now.
    fn hang_up(&mut self) {
        match std::mem::replace(&mut self.line, Line::Down { until_us: 0 }) {
            Line::Down { until_us } => self.line = Line::Down { until_us },
            Line::Ready(helper) if helper.is_shared() => self.held = Some(helper),
            Line::Ready(_) | Line::Asked { .. } => self.count_helper(),
        }
    }

    /// Each device that is the job's alone is charged by one of its tasks here.
    fn claim_devices(&mut self) {
        let Some(claims) = &self.options.claims else { return };
        let now_us = SystemClock.boottime_us();
        for device in locked(&self.shared.gpus).of_the_job_alone(now_us) {
            let uuid = device.claimed_name();
            if self.claims.contains_key(&uuid) {
                continue;
            }
            match claims.claim(&uuid) {
                Ok(Some((claim, until_us))) => {
                    self.claims.insert(uuid, claim);
                    device.take_over(until_us, now_us);
                }
                Ok(None) => device.is_others(now_us),
                // Charged twice rather than never.
                Err(_) => {}
            }
        }
    }

    /// Asks the helper, or waits for what it was asked before.
    fn poll(&mut self) -> Result<Option<Box<Polled>>, Fault> {
        let now_us = SystemClock.boottime_us();
        let line = std::mem::replace(&mut self.line, Line::Down { until_us: 0 });
        match self.advance(line, now_us) {
            Ok(polled) => Ok(polled),
            // What ails the machine's helper need not be anything of this job's.
            Err(_) if self.is_down() && std::mem::take(&mut self.is_shared) => {
                self.private_until_us = now_us.saturating_add(PRIVATE_US);
                self.count_helper();
                self.need.watch_itself();
                self.poll()
            }
            Err(fault) => {
                if self.is_down() {
                    self.give_up(fault.clone());
                }
                Err(fault)
            }
        }
    }

    /// After an error: it was the end of that helper.
    fn is_down(&self) -> bool {
        matches!(self.line, Line::Down { until_us: 0 })
    }

    /// An error with the line down is the end of that helper.
    fn advance(&mut self, line: Line, now_us: u64) -> Result<Option<Box<Polled>>, Fault> {
        let (mut helper, at_us) = match line {
            Line::Down { until_us } if now_us < until_us => {
                self.line = line;
                return Err(self.fault.clone());
            }
            Line::Down { .. } => (self.start()?, now_us),
            Line::Ready(mut helper) => {
                let since_us = now_us.saturating_sub(if self.fresh { 0 } else { LOOK_AGE_MAX_US });
                let Some(ask) = locked(&self.shared.gpus).ask(&self.asking, now_us, since_us) else {
                    self.line = Line::Ready(helper);
                    return Ok(None);
                };
                helper.send(&ask)?;
                (helper, now_us)
            }
            Line::Asked { helper, at_us } => (helper, at_us),
        };
        match helper.receive(ANSWER_WAIT)? {
            Some(Told::Listed(listed)) => {
                self.take_listing(&listed);
                // Its first look tells what was before the job.
                self.advance(Line::Ready(helper), now_us)
            }
            Some(Told::Polled(polled)) if self.is_listed => {
                self.retry_us = RETRY_FIRST_US;
                self.count(&helper, polled.cpu_us);
                self.line = Line::Ready(helper);
                Ok(Some(polled))
            }
            Some(Told::Failed(fault)) => Err(fault),
            Some(Told::Polled(_) | Told::Opened | Told::Ready) => Err(wrong_answer()),
            None => {
                let waited_us = now_us.saturating_sub(at_us);
                let wait_max_us = answer_wait_max_us(helper.is_shared(), self.is_listed);
                let fault = Fault::failed(format!("NVML has not answered for {} s", waited_us / 1_000_000));
                if waited_us < wait_max_us {
                    locked(&self.shared.gpus).await_listing();
                    self.line = Line::Asked { helper, at_us };
                }
                Err(fault)
            }
        }
    }

    /// A helper that was asked for its devices.
    fn start(&mut self) -> Result<Helper, Fault> {
        let is_of_container = self.options.giver == Giver::Container;
        let has_begun = is_of_container && locked(&self.shared.gpus).has_begun();
        if std::mem::replace(&mut self.options.no_helper, is_of_container) || has_begun {
            let why = "no helper is started beside a job whose user it has: the job could take it over".to_owned();
            return Err(Fault { kind: FaultKind::Unsupported, why });
        }
        let library = self.options.library.as_deref();
        let mut shared = || self.held.take().or_else(|| Helper::join(library));
        let joined = if is_before(self.private_until_us) { None } else { shared() };
        let mut helper = joined.map_or_else(|| Helper::start(&self.options), Ok)?;
        (self.is_listed, self.is_shared) = (false, helper.is_shared());
        let pid = helper.pid();
        self.set(|orders| orders.helper_pid = pid);
        helper.send(&Ask::List)?;
        Ok(helper)
    }

    fn take_listing(&mut self, listed: &Listed) {
        self.is_listed = true;
        let resolved = resolve(&self.options, listed);
        let mut gpus = locked(&self.shared.gpus);
        match resolved {
            Ok(declared) => gpus.take_listing(listed, declared, SystemClock.boottime_us()),
            Err(why) => {
                gpus.take_listing(listed, Declared::default(), SystemClock.boottime_us());
                gpus.note(&why);
                drop(gpus);
                self.set(|orders| orders.refusal = Some(why));
            }
        }
    }

    fn give_up(&mut self, fault: Fault) {
        locked(&self.shared.gpus).cannot_be_listed(&fault, SystemClock.boottime_us());
        self.fault = fault;
        self.line = Line::Down { until_us: SystemClock.boottime_us().saturating_add(self.retry_us) };
        self.retry_us = self.retry_us.saturating_mul(2).min(RETRY_MAX_US);
        self.count_helper();
    }
}

fn processes(job: Option<&Containment>) -> Vec<i32> {
    job.map(Containment::processes).unwrap_or_default()
}

fn answer_wait_max_us(is_shared: bool, is_listed: bool) -> u64 {
    match (is_shared, is_listed) {
        (false, false) => LIST_WAIT_MAX_US,
        (false, true) => POLL_WAIT_MAX_US,
        (true, false) => SHARED_LIST_WAIT_MAX_US,
        (true, true) => SHARED_POLL_WAIT_MAX_US,
    }
}

/// All meters of a machine look at the same times.
fn next_of_all(look: Duration) -> u64 {
    let (now_us, look_us) = (SystemClock.boottime_us(), u64::try_from(look.as_micros()).unwrap_or(u64::MAX));
    now_us.saturating_sub(now_us.checked_rem(look_us).unwrap_or(0)).saturating_add(look_us)
}

fn resolve(options: &GpuOptions, listed: &Listed) -> Result<Declared, String> {
    let (giver, selection) = (&options.giver, options.selection.as_ref());
    let variable = |name: &str| giver.variable(name);
    let found = declared(selection, options.exclusive, &variable, &listed.devices, giver.gives_all());
    found.map_err(|why| format!("--gpus: {why}"))
}
