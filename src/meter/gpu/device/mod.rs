//! One device: what the job used of it, and how that is known.

pub mod activity;
pub mod condition;
mod counters;
mod listing;
pub mod processes;
mod reading;
mod sharing;

use std::collections::BTreeSet;

use self::condition::Condition;
use self::counters::Counters;
use self::processes::{GpuProcess, Processes};
use super::chart::{Chart, Columns};
use super::figures::{Figures, Mode, Sight};
use super::identity::OpenFiles;
use super::integral::Integral;
use super::pids::JobPids;
use super::tenants::Tenants;
use super::wire::{AskCounters, AskDevice, Fault, FaultKind, ListedDevice, PolledDevice};
use crate::domain::units::Microseconds;
use crate::domain::usage::GpuUsage;

/// What is not read for so long is charged as allocated: the driver's ring holds 12 s, so that what comes back sooner is
/// read from it without loss.
const STALE_US: u64 = 10_000_000;
/// A ring that has said nothing for so long is asked for all it has, which shows whether the driver was loaded anew.
const QUIET_US: u64 = 5_000_000;
/// Where nobody knows whose work it was, or one of several processes has gone, they may come and go between looks: so long
/// they are looked for more often.
const RESTLESS_US: u64 = 5_000_000;
/// Of the first and the last look at the counters.
const COUNTERS_BOUND_US: u64 = 100_000;
/// Between two looks further apart than this, others may have come and gone that nobody saw.
const ATTENTIVE_US: u64 = 2_000_000;

/// One device of the job, or one that it could open.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each says something of its own, and any of them may be so at once")]
pub struct Device {
    info: ListedDevice,
    figures: Figures,
    integral: Integral,
    counters: Counters,
    quiet_since_us: u64,
    /// Its processes have it open.
    present: bool,
    held: bool,
    /// It cannot be read at present.
    blind: bool,
    /// It has fallen off the bus, and is nobody's.
    lost: bool,
    /// Another task of the job charges it, as was known at this time.
    others_at_us: Option<u64>,
    /// Processes of others were seen on it.
    has_strangers: bool,
    counted_until_us: u64,
    read_at_us: u64,
    /// What was allocated then.
    allocated_at_read_us: u64,
    /// When it was last known whether the job has it open.
    looked_at_us: u64,
    energy_from_mj: Option<u64>,
    seen: BTreeSet<u32>,
    tenants: Tenants,
    processes: Processes,
    restless_until_us: u64,
    chart: Chart,
    condition: Condition,
    notes: BTreeSet<String>,
    /// What NVML calls it, where it was known by its number alone before.
    nvml_uuid: Option<String>,
    is_listed: bool,
    /// Its counters are to be read from the next look on.
    begins: bool,
    /// The driver keeps no samples of it.
    by_rate: bool,
    /// The driver does not list its processes.
    hides_processes: bool,
}

impl Device {
    /// Counted from `from_us` on. `exclusive` is what was declared.
    #[must_use]
    pub fn new(info: ListedDevice, declared: bool, exclusive: bool, from_us: u64) -> Self {
        let mut device = Self {
            info,
            figures: Figures::new(declared, exclusive),
            integral: Integral::new(from_us),
            counters: Counters::default(),
            quiet_since_us: from_us,
            present: false,
            held: false,
            blind: false,
            lost: false,
            others_at_us: None,
            has_strangers: false,
            counted_until_us: from_us,
            read_at_us: from_us,
            allocated_at_read_us: 0,
            looked_at_us: from_us,
            energy_from_mj: None,
            seen: BTreeSet::new(),
            tenants: Tenants::default(),
            processes: Processes::default(),
            restless_until_us: 0,
            chart: Chart::default(),
            condition: Condition::default(),
            notes: BTreeSet::new(),
            nvml_uuid: None,
            is_listed: true,
            begins: false,
            by_rate: false,
            hides_processes: false,
        };
        if let Some(mig) = device.info.mig.clone() {
            device.figures.mode = Mode::Mig;
            if let Some(why) = mig.untold {
                device.give_up(&why);
            } else if mig.shares_instance {
                device.give_up("other MIG devices share its GPU instance");
            }
        }
        device
    }

    /// From now on its wall time is charged.
    pub fn give_up(&mut self, why: &str) {
        self.figures.mode = Mode::Allocated;
        self.notes.insert(why.to_owned());
    }

    /// By this it is asked for.
    #[must_use]
    pub fn nvml_uuid(&self) -> &str {
        self.nvml_uuid.as_ref().unwrap_or(&self.info.uuid)
    }

    /// Whether what it did until then is known.
    #[must_use]
    pub fn is_known_until(&self, until_us: u64) -> bool {
        match self.figures.mode {
            Mode::Allocated => true,
            Mode::Mig => self.read_at_us >= until_us,
            Mode::Exclusive if self.counters.are_used() => self.counters.known_until_us() >= until_us,
            Mode::Exclusive | Mode::Shared => self.integral.known_until_us() >= until_us,
        }
    }

    /// Its wall time is charged until it can be read again.
    pub fn go_blind(&mut self, why: &str) {
        self.blind = true;
        self.notes.insert(format!("could not be read for a while, which is charged as allocated: {why}"));
    }

    fn is_charged_by_time(&self) -> bool {
        self.blind || self.figures.mode == Mode::Allocated
    }

    /// Nothing before `now_us` is counted.
    pub fn begin(&mut self, now_us: u64) {
        self.integral.begin(now_us);
        self.counters.begin(now_us);
        self.chart.begin(now_us);
        self.condition.begin(now_us);
        self.begins = true;
        (self.counted_until_us, self.read_at_us) = (now_us, now_us);
        (self.looked_at_us, self.quiet_since_us) = (now_us, now_us);
    }

    /// Takes what the driver knew before the start.
    pub fn seed(&mut self, polled: &PolledDevice) {
        if let Ok(samples) = &polled.samples {
            self.integral.seed(samples, polled.at_us);
        }
        self.energy_from_mj = polled.energy_mj;
    }

    /// What the helper is asked for.
    #[must_use]
    pub fn ask(&self, now_us: u64) -> AskDevice {
        let quiet = now_us.saturating_sub(self.quiet_since_us) > QUIET_US;
        AskDevice {
            uuid: self.nvml_uuid().to_owned(),
            after: self.integral.cursor(),
            whole_ring: quiet,
            by_process: self.figures.mode == Mode::Shared || self.has_strangers,
            counters: match self.figures.mode {
                Mode::Exclusive | Mode::Mig if self.begins => AskCounters::Anew,
                Mode::Exclusive if self.counters.are_asked() => AskCounters::Since,
                _ => AskCounters::No,
            },
        }
    }

    /// Whether it is the job's, was so, or may become so through one of these open files. Those of a MIG device do not tell.
    #[must_use]
    pub fn may_be_the_jobs(&self, minors: &BTreeSet<u32>) -> bool {
        let may_be_open = || self.info.mig.is_some() || self.info.minor.is_none_or(|minor| minors.contains(&minor));
        self.is_ours() || self.usage().is_some() || may_be_open()
    }

    /// Whether its time is the job's.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        (self.figures.declared || self.present) && !self.lost && self.others_at_us.is_none()
    }

    /// Time passes, while the job is frozen (`held`) or not.
    pub fn advance(&mut self, now_us: u64, held: bool) {
        let passed_us = now_us.saturating_sub(self.counted_until_us);
        self.counted_until_us = self.counted_until_us.max(now_us);
        if self.is_ours() && !self.held {
            self.figures.allocated_us += passed_us;
            if self.is_charged_by_time() {
                self.estimate(passed_us, now_us);
            }
        }
        self.held = held;
    }

    fn estimate(&mut self, us: u64, now_us: u64) {
        let room = self.figures.allocated_us.saturating_sub(self.figures.busy_us);
        let us = us.min(room);
        self.figures.busy_us += us;
        self.figures.estimated_us += us;
        self.chart.estimate(now_us.saturating_sub(us), now_us, us);
    }

    /// Takes one look of the helper's; what is after `until_us` is not the job's any more.
    pub fn take(&mut self, polled: &PolledDevice, pids: &JobPids, sight: Sight, until_us: u64) {
        let at_us = polled.at_us.min(until_us);
        let was_ours = self.is_ours();
        self.advance(at_us, self.held);
        self.take_presence(polled, pids, sight);
        self.appeared(was_ours, at_us);
        self.take_gauges(polled);
        let ours = was_ours || self.is_ours();
        let read_before_us = self.figures.read_us();
        match &polled.instance {
            Some(instance) => self.take_instance(instance, polled, pids, sight, ours, until_us),
            None => self.take_whole(polled, pids, sight, ours, until_us),
        }
        self.share_out(self.figures.read_us().saturating_sub(read_before_us), polled, pids, sight);
        if ours && polled.by_rate && !std::mem::replace(&mut self.by_rate, true) {
            self.notes.insert("the driver keeps no samples: how busy it was is asked five times a second".to_owned());
        }
        if ours {
            self.condition.take(polled, at_us);
            self.condition.take_figures(&self.figures, self.integral.cursor(), polled.at_us >= until_us);
        } else {
            self.condition.pass(polled, at_us);
        }
        self.begins = false;
    }

    /// It could not be read before, and can be now.
    fn sees_again(&mut self) -> bool {
        self.lost = false;
        std::mem::take(&mut self.blind)
    }

    /// What came since the last look may have had the device since then.
    fn appeared(&mut self, was_ours: bool, now_us: u64) {
        let passed_us = now_us.saturating_sub(std::mem::replace(&mut self.looked_at_us, now_us));
        if self.is_ours() && !was_ours && !self.held {
            self.figures.allocated_us += passed_us;
            if self.is_charged_by_time() {
                self.estimate(passed_us, now_us);
            }
        }
    }

    fn take_gauges(&mut self, polled: &PolledDevice) {
        if self.figures.mode == Mode::Exclusive || (self.figures.mode == Mode::Mig && self.figures.exclusive) {
            self.figures.memory_peak_bytes = self.figures.memory_peak_bytes.max(polled.memory_bytes.unwrap_or(0));
        }
        let Some(now_mj) = polled.energy_mj else { return };
        match self.energy_from_mj {
            // It counts from the load of the driver on.
            Some(before_mj) if now_mj < before_mj => self.integral.restart(),
            Some(before_mj) => self.figures.energy_mj = self.figures.energy_mj.saturating_add(now_mj - before_mj),
            None => {}
        }
        self.energy_from_mj = Some(now_mj);
    }

    /// None of the job's processes has it open.
    pub fn take_none_open(&mut self, now_us: u64) {
        self.present = false;
        (self.looked_at_us, self.read_at_us) = (now_us, now_us);
        // What it does for others is not read.
        self.integral.begin(now_us);
        self.counters.pass(now_us);
    }

    /// Where the driver cannot tell whether the job has it open, its files do.
    pub fn take_open_file(&mut self, open: &OpenFiles, now_us: u64) {
        let was_ours = self.is_ours();
        // Of a device that is cut into MIG devices the file does not tell which of them is used.
        if let (Some(minor), None) = (self.info.minor, &self.info.mig) {
            self.present = open.minors.contains(&minor) || (self.present && !open.complete);
        }
        self.appeared(was_ours, now_us);
    }

    /// It could not be read. What never works, and what fails for long, is charged as allocated until it works; what is lost is not the
    /// job's any more.
    pub fn take_fault(&mut self, fault: &Fault, now_us: u64) {
        let unread_us = now_us.saturating_sub(self.read_at_us);
        let is_for_now = fault.kind == FaultKind::Failed && unread_us <= STALE_US;
        if is_for_now || self.is_charged_by_time() {
            return self.lose(fault);
        }
        self.go_blind(&fault.why);
        if self.is_ours() {
            self.estimate(unread_us, now_us);
        }
        self.lose(fault);
    }

    fn lose(&mut self, fault: &Fault) {
        if fault.kind == FaultKind::Lost && !std::mem::replace(&mut self.lost, true) {
            self.notes.insert(format!("lost, and not charged from then on: {}", fault.why));
        }
    }

    /// Nobody reads it any more. What of its last time could not be read is charged as allocated.
    pub fn close(&mut self, until_us: u64) {
        let unread_us = until_us.saturating_sub(self.read_at_us);
        if self.is_read() && self.is_ours() && unread_us > 0 {
            self.notes.insert("its last seconds could not be read, and are charged as allocated".to_owned());
            self.estimate(unread_us, until_us);
        }
    }

    /// It is there since now; its past is not known.
    pub fn join(&mut self, now_us: u64) {
        self.begin(now_us);
        self.blind = true;
    }

    /// What it is, as far as that is known.
    #[must_use]
    pub fn info(&self) -> &ListedDevice {
        &self.info
    }

    /// As of the last [`Self::advance`].
    #[must_use]
    pub fn figures(&self) -> Figures {
        // One that could never be read was charged by its time alone.
        let never_read = self.figures.estimated_us > 0 && self.figures.estimated_us == self.figures.busy_us;
        Figures { mode: if never_read { Mode::Allocated } else { self.figures.mode }, ..self.figures }
    }

    /// What else it told while it was the job's.
    #[must_use]
    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// The job's processes that used most of it.
    #[must_use]
    pub fn processes(&self) -> Vec<GpuProcess> {
        self.processes.told()
    }

    /// How busy it was.
    #[must_use]
    pub fn utilization(&self) -> Columns {
        self.chart.columns()
    }

    /// What could not be done exactly, one sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.notes.iter().cloned().collect()
    }

    /// Whether it is the job's, and read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        !self.is_charged_by_time() && self.usage().is_some()
    }

    /// How much of the job's time on it is not known yet. What is not its own has no part in what it may burn.
    #[must_use]
    pub fn age_us(&self, now_us: u64) -> u64 {
        if !self.is_ours() || self.is_charged_by_time() {
            return 0;
        }
        let since_us = if self.held { 0 } else { now_us.saturating_sub(self.counted_until_us) };
        let unread_us = self.figures.allocated_us.saturating_sub(self.allocated_at_read_us).saturating_add(since_us);
        match self.figures.mode {
            Mode::Mig => unread_us,
            Mode::Exclusive | Mode::Shared | Mode::Allocated => unread_us.saturating_add(2 * self.integral.period_us()),
        }
    }

    /// As of the last [`Self::advance`]; `None` where it was not the job's at any time.
    #[must_use]
    pub fn usage(&self) -> Option<GpuUsage> {
        (self.figures.allocated_us > 0 || self.figures.declared).then(|| GpuUsage {
            model: self.info.model.clone(),
            busy_seconds: Microseconds(self.figures.busy_us.min(self.figures.allocated_us)),
            allocated_seconds: Microseconds(self.figures.allocated_us),
        })
    }

    /// How far the busy time can be from the truth, as far as a bound can be declared: two samples at the edges, and one
    /// percent of the wall time that the driver cuts off. The share of a shared device is a sample, with no bound.
    #[must_use]
    pub fn error_bound_us(&self) -> Option<u64> {
        match self.figures.mode {
            Mode::Allocated => Some(0),
            Mode::Exclusive if self.by_rate => None,
            Mode::Exclusive if self.counters.are_used() => {
                Some(COUNTERS_BOUND_US + self.figures.allocated_us * 3 / 1_000 + self.figures.estimated_us)
            }
            Mode::Exclusive => {
                Some(4 * self.integral.period_us() + self.figures.allocated_us / 100 + self.figures.estimated_us)
            }
            Mode::Mig | Mode::Shared => None,
        }
    }
}
