//! The thread that asks the helper each second, and takes what it tells. An answer that is late is taken when it comes; what was not read
//! meanwhile is not known yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::child::{Helper, wrong_answer};
use super::claims::Claim;
use super::declared::{Declared, Selection, declared, unseen};
use super::gpus::Gpus;
use super::identity::{DriverFiles, OpenFiles};
use super::openings::Openings;
use super::options::GpuOptions;
use super::orders::{Orders, Shared, Stage, locked};
use super::place;
use super::wire::{Ask, Fault, Listed, Polled, Told};
use crate::sys::clock::{Clock, SystemClock, after, is_before, pause};
use crate::sys::containment::{Containment, ContainmentSpec, Reopened};

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
    /// The devices are known.
    is_listed: bool,
    is_asking: bool,
    openings: Openings,
    /// By UUID, the devices that this task of the job charges.
    claims: BTreeMap<String, Claim>,
    retry_us: u64,
    fault: Fault,
    helper_us: u64,
}

impl Watcher {
    /// What the driver's files tell is there from the beginning.
    pub(super) fn new(shared: Arc<Shared>, options: GpuOptions, job: ContainmentSpec) -> Self {
        let mut devices = DriverFiles::default().devices();
        devices.extend(unseen(options.selection.as_ref(), &variable, &devices));
        let listed = Listed { devices, ..Listed::default() };
        let fault = Fault::failed("NVML has not answered yet");
        // What cannot be found by the files is a name of NVML's.
        let declared = resolve(&options, &listed).unwrap_or_default();
        *locked(&shared.gpus) = Gpus::unlisted(&listed, declared, place::has_host_pids(), SystemClock.boottime_us());
        let line = Line::Down { until_us: 0 };
        // Whoever names a library wants it to be asked.
        let is_named = matches!(options.selection, Some(Selection::All | Selection::These(_)));
        // Whose namespace is another's may have other files of the same devices.
        let is_attached = matches!(job, ContainmentSpec::Attached { .. });
        let is_asking =
            options.library.is_some() || is_named || is_attached || DriverFiles::default().tell_too_little();
        Self {
            shared,
            options,
            job,
            line,
            is_listed: false,
            is_asking,
            openings: Openings::watch(&DriverFiles::default()),
            claims: BTreeMap::new(),
            retry_us: RETRY_FIRST_US,
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
            if !self.wait() {
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

    /// The CPU time of one that has ended, or is about to.
    fn count_helper(&mut self) {
        let ended_us = std::mem::take(&mut self.helper_us);
        self.set(|orders| {
            orders.helper_pid = None;
            orders.helpers_us = orders.helpers_us.saturating_add(ended_us);
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
        self.shared.bell.notify_all();
    }

    /// Until the next look; whether there is one.
    fn wait(&self) -> bool {
        let restless = locked(&self.shared.gpus).is_restless(SystemClock.boottime_us());
        let orders = locked(&self.shared.orders);
        let soon = orders.soon;
        let look = match &self.line {
            // The look itself waits.
            Line::Asked { .. } => Duration::ZERO,
            _ if soon || restless => LOOK_SOON,
            _ => LOOK,
        };
        let as_before = |orders: &mut Orders| !orders.now && !orders.last && orders.soon == soon;
        let waited = self.shared.bell.wait_timeout_while(orders, look, as_before);
        let mut orders = waited.map_or_else(|error| error.into_inner().0, |waited| waited.0);
        // What is wanted now is done before the end.
        std::mem::take(&mut orders.now) || !orders.last
    }

    fn look(&mut self, job: Option<&Containment>) {
        let processes = || job.map(Containment::processes).unwrap_or_default();
        if !self.is_asking && !self.has_something_to_ask(&processes()) {
            return locked(&self.shared.gpus).take_none_open(SystemClock.boottime_us());
        }
        self.is_asking = true;
        let polled = self.poll();
        self.claim_devices();
        // Those of now, which the answer is about.
        let living = processes();
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

    /// Each device that is the job's alone is charged by one of its tasks here.
    fn claim_devices(&mut self) {
        let Some(claims) = &self.options.claims else { return };
        let now_us = SystemClock.boottime_us();
        for device in locked(&self.shared.gpus).of_the_job_alone(now_us) {
            let uuid = device.nvml_uuid().to_owned();
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

    /// A job that has no device from its start on asks for nothing until one of its processes has one open, so that neither helper nor
    /// device works for it.
    fn has_something_to_ask(&self, living: &[i32]) -> bool {
        // What was opened and closed between two looks is known to NVML alone, and what was inherited is not opened.
        let open = DriverFiles::default().open_by(living);
        let is_one_open = self.openings.may_have_come() || !open.complete || !open.minors.is_empty();
        is_one_open || locked(&self.shared.gpus).has_one_of_the_job()
    }

    /// Asks the helper, or waits for what it was asked before.
    fn poll(&mut self) -> Result<Option<Box<Polled>>, Fault> {
        let now_us = SystemClock.boottime_us();
        let line = std::mem::replace(&mut self.line, Line::Down { until_us: 0 });
        match self.advance(line, now_us) {
            Ok(polled) => Ok(polled),
            Err(fault) => {
                if matches!(self.line, Line::Down { until_us: 0 }) {
                    self.give_up(fault.clone());
                }
                Err(fault)
            }
        }
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
                let Some(ask) = locked(&self.shared.gpus).ask(now_us) else {
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
                self.helper_us = polled.cpu_us;
                self.line = Line::Ready(helper);
                Ok(Some(polled))
            }
            Some(Told::Failed(fault)) => Err(fault),
            Some(Told::Polled(_)) => Err(wrong_answer()),
            None => {
                let wait_max_us = if self.is_listed { POLL_WAIT_MAX_US } else { LIST_WAIT_MAX_US };
                let waited_us = now_us.saturating_sub(at_us);
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
        let mut helper = Helper::start(self.options.library.as_deref())?;
        self.is_listed = false;
        let pid = helper.pid();
        self.set(|orders| orders.helper_pid = Some(pid));
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

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn resolve(options: &GpuOptions, listed: &Listed) -> Result<Declared, String> {
    let found =
        declared(options.selection.as_ref(), options.exclusive, &variable, &listed.devices, place::in_container());
    found.map_err(|why| format!("--gpus: {why}"))
}
