//! One device: what the job used of it, and how that is known.

use std::collections::BTreeSet;

use super::chart::Chart;
use super::figures::{Figures, Mode, Sight};
use super::identity::OpenFiles;
use super::integral::{Integral, Window};
use super::pids::JobPids;
use super::tenants::{Parts, Tenants};
use super::wire::{AskDevice, Fault, FaultKind, Got, ListedDevice, PolledDevice, Stretch};
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
/// Between two looks further apart than this, others may have come and gone that nobody saw.
const ATTENTIVE_US: u64 = 2_000_000;

/// One device of the job, or one that it could open.
#[derive(Clone, Debug)]
pub struct Device {
    info: ListedDevice,
    figures: Figures,
    integral: Integral,
    quiet_since_us: u64,
    /// Its processes have it open.
    present: bool,
    held: bool,
    /// It cannot be read at present.
    blind: bool,
    counted_until_us: u64,
    read_at_us: u64,
    /// When it was last known whether the job has it open.
    looked_at_us: u64,
    energy_from_mj: Option<u64>,
    seen: BTreeSet<u32>,
    tenants: Tenants,
    restless_until_us: u64,
    chart: Chart,
    notes: BTreeSet<String>,
    /// Written over in the driver's ring before it was read.
    lost_us: u64,
}

impl Device {
    /// Counted from `from_us` on. `exclusive` is what was declared.
    #[must_use]
    pub fn new(info: ListedDevice, declared: bool, exclusive: bool, from_us: u64) -> Self {
        let mut device = Self {
            info,
            figures: Figures {
                mode: if exclusive && declared { Mode::Exclusive } else { Mode::Shared },
                declared,
                exclusive,
                allocated_us: 0,
                busy_us: 0,
                unattributed_us: 0,
                estimated_us: 0,
                memory_peak_bytes: 0,
                energy_mj: 0,
            },
            integral: Integral::new(from_us),
            quiet_since_us: from_us,
            present: false,
            held: false,
            blind: false,
            counted_until_us: from_us,
            read_at_us: from_us,
            looked_at_us: from_us,
            energy_from_mj: None,
            seen: BTreeSet::new(),
            tenants: Tenants::default(),
            restless_until_us: 0,
            chart: Chart::default(),
            notes: BTreeSet::new(),
            lost_us: 0,
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
        self.chart.begin(now_us);
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
            uuid: self.info.uuid.clone(),
            after: self.integral.cursor(),
            whole_ring: quiet,
            by_process: self.figures.mode == Mode::Shared,
        }
    }

    /// Whether its time is the job's.
    fn is_ours(&self) -> bool {
        self.figures.declared || self.present
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
        self.chart.spread(now_us.saturating_sub(us), now_us, us);
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
        match &polled.instance {
            Some(instance) => self.take_instance(instance, polled, pids, sight, ours, until_us),
            None => self.take_samples(polled, pids, sight, ours, until_us),
        }
    }

    /// What came since the last look may have had the device since then.
    fn appeared(&mut self, was_ours: bool, now_us: u64) {
        let passed_us = now_us.saturating_sub(std::mem::replace(&mut self.looked_at_us, now_us));
        if self.present && !was_ours && !self.held {
            self.figures.allocated_us += passed_us;
            if self.is_charged_by_time() {
                self.estimate(passed_us, now_us);
            }
        }
    }

    fn take_presence(&mut self, polled: &PolledDevice, pids: &JobPids, sight: Sight) {
        if let (true, Ok(running)) = (sight.running, &polled.running) {
            // A sample is told only a period or two after its time.
            let since_us = self.read_at_us.saturating_sub(2 * self.integral.period_us());
            self.tenants.see(running.iter().map(|(pid, _)| (*pid, pids.has(*pid))), polled.at_us, since_us);
            let mine = running.iter().filter(|(pid, _)| pids.has(*pid));
            let mine: Vec<_> = mine.copied().collect();
            self.seen.retain(|pid| pids.has(*pid));
            self.seen.extend(mine.iter().map(|(pid, _)| *pid));
            self.present = !mine.is_empty();
            let bytes = mine.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
            self.figures.memory_peak_bytes = self.figures.memory_peak_bytes.max(bytes);
        }
        // A process that came and went between two looks is only in the records of use.
        if let Ok(used) = &polled.used {
            self.present |= used.iter().any(|(pid, percent)| *percent > 0 && self.is_mine(*pid, pids, sight));
        }
    }

    /// Whether a record of use is the job's. Outside the first PID namespace a record may have the host's number of
    /// another's process, so that only those count that the lists of running processes have named.
    fn is_mine(&self, pid: u32, pids: &JobPids, sight: Sight) -> bool {
        sight.used && pids.has(pid) && (sight.everybody || self.seen.contains(&pid))
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

    fn take_samples(&mut self, polled: &PolledDevice, pids: &JobPids, sight: Sight, ours: bool, until_us: u64) {
        let samples = match &polled.samples {
            Ok(samples) => samples,
            Err(fault) => return self.take_fault(fault, polled.at_us.min(until_us)),
        };
        if samples.iter().any(|(end, _)| *end > self.integral.cursor()) {
            self.quiet_since_us = polled.at_us;
        }
        let unread_us = polled.at_us.min(until_us).saturating_sub(self.read_at_us);
        self.read_at_us = polled.at_us;
        if std::mem::take(&mut self.blind) {
            // What the ring has kept of that time is not charged a second time.
            return self.integral.seed(samples, polled.at_us);
        }
        let window = self.integral.take(samples, polled.at_us, until_us);
        self.note_window(&window);
        match self.figures.mode {
            Mode::Exclusive if ours => self.divide(&window, Parts::ALL_MINE),
            Mode::Shared => match self.parts(polled, pids, sight, window.percents, unread_us) {
                Ok(parts) => {
                    if (parts.nobodys > 0 || self.tenants.come_and_go()) && window.busy_us > 0 {
                        self.restless_until_us = polled.at_us.saturating_add(RESTLESS_US);
                    }
                    if ours {
                        self.divide(&window, parts);
                    }
                }
                Err(why) if ours => {
                    self.give_up(&why);
                    self.estimate(unread_us, polled.at_us.min(until_us));
                }
                Err(_) => {}
            },
            Mode::Exclusive | Mode::Mig | Mode::Allocated => {}
        }
    }

    fn divide(&mut self, window: &Window, parts: Parts) {
        self.use_up(parts.of(parts.mine, window.busy_us));
        self.figures.unattributed_us += parts.of(parts.nobodys, window.busy_us);
        let charted = window.samples.iter().map(|(at_us, busy_us)| (*at_us, parts.of(parts.mine, *busy_us)));
        charted.for_each(|(at_us, mine_us)| self.chart.add(at_us, mine_us));
    }

    /// How the device's time is divided; an error where nobody will ever be able to tell.
    fn parts(
        &self,
        polled: &PolledDevice,
        pids: &JobPids,
        sight: Sight,
        percents: (u64, u64),
        unread_us: u64,
    ) -> Result<Parts, String> {
        if polled.mps {
            return Err("MPS: the time of its clients cannot be told apart".to_owned());
        }
        let alone = sight.everybody && self.tenants.are_all_mine();
        if !sight.used && !alone {
            return Err("this driver names processes by the host's ids, which mean nothing in a container; \
                        --gpu-exclusive declares that no other job has the device"
                .to_owned());
        }
        let used: &[(u32, u32)] = match &polled.used {
            Ok(used) => used,
            Err(fault) if fault.kind == FaultKind::Failed || alone => &[],
            Err(fault) => return Err(format!("its processes cannot be told apart: {}", fault.why)),
        };
        let used = used.iter().filter(|(_, percent)| *percent <= 100);
        let used = used.map(|(pid, percent)| (u64::from(*percent), self.is_mine(*pid, pids, sight)));
        let used: Vec<_> = used.collect();
        Ok(self.tenants.divide(&used, percents, sight.everybody, unread_us <= ATTENTIVE_US))
    }

    /// Whether it works for processes that come and go between looks.
    #[must_use]
    pub fn is_restless(&self, now_us: u64) -> bool {
        now_us < self.restless_until_us
    }

    fn take_instance(
        &mut self,
        instance: &Got<Stretch>,
        polled: &PolledDevice,
        pids: &JobPids,
        sight: Sight,
        ours: bool,
        until_us: u64,
    ) {
        let stretch = match instance {
            Ok(stretch) => stretch,
            Err(fault) => return self.take_fault(fault, polled.at_us.min(until_us)),
        };
        let read_at_us = std::mem::replace(&mut self.read_at_us, polled.at_us);
        if std::mem::take(&mut self.blind) || self.figures.mode == Mode::Allocated || !ours {
            return;
        }
        let foreign = polled.running.as_ref().is_ok_and(|running| running.iter().any(|(pid, _)| !pids.has(*pid)));
        if foreign && sight.running && !self.figures.exclusive {
            self.give_up("others use the same MIG device, whose time cannot be told apart");
            return self.estimate(polled.at_us.min(until_us).saturating_sub(read_at_us), polled.at_us);
        }
        let (from_us, until_us) = (stretch.from_us.max(read_at_us), stretch.until_us.min(until_us));
        let busy = u128::from(until_us.saturating_sub(from_us)) * u128::from(stretch.busy_ppm) / 1_000_000;
        let busy_us = u64::try_from(busy).unwrap_or(0);
        self.use_up(busy_us);
        self.chart.spread(from_us, until_us, busy_us);
    }

    fn use_up(&mut self, us: u64) {
        self.figures.busy_us += us.min(self.figures.allocated_us.saturating_sub(self.figures.busy_us));
    }

    fn note_window(&mut self, window: &Window) {
        if window.restarted {
            self.notes.insert("the driver was loaded anew; what it had not told yet is lost".to_owned());
        }
        if self.is_ours() {
            self.lost_us += window.lost_us;
        }
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

    /// It could not be read. What never works is given up, and what fails for long is charged as allocated.
    pub fn take_fault(&mut self, fault: &Fault, now_us: u64) {
        match fault.kind {
            FaultKind::Unsupported | FaultKind::Denied if self.figures.mode != Mode::Allocated => {
                self.give_up(&fault.why);
                self.estimate(now_us.saturating_sub(self.read_at_us), now_us);
            }
            FaultKind::Lost | FaultKind::Failed if !self.is_charged_by_time() => {
                let unread_us = now_us.saturating_sub(self.read_at_us);
                if unread_us > STALE_US || fault.kind == FaultKind::Lost {
                    self.go_blind(&fault.why);
                    if self.is_ours() {
                        self.estimate(unread_us, now_us);
                    }
                }
            }
            FaultKind::Unsupported | FaultKind::Denied | FaultKind::Lost | FaultKind::Failed => {}
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

    /// Which.
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

    /// How busy it was: how long a column is, and percent of each.
    #[must_use]
    pub fn utilization(&self) -> (u64, Vec<u64>) {
        self.chart.columns()
    }

    /// What could not be done exactly, one sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let lost = (self.lost_us > 0)
            .then(|| format!("{} s were not read in time, and are not charged", Microseconds(self.lost_us)));
        self.notes.iter().cloned().chain(lost).collect()
    }

    /// Whether it is the job's, and read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        !self.is_charged_by_time() && self.usage().is_some()
    }

    /// Since when it is not known whether the job has it open: were it opened then, the next look would tell.
    #[must_use]
    pub fn unseen_us(&self, now_us: u64) -> u64 {
        if self.is_ours() { 0 } else { now_us.saturating_sub(self.looked_at_us) }
    }

    /// How much of its time is not known yet.
    #[must_use]
    pub fn age_us(&self, now_us: u64) -> u64 {
        match self.figures.mode {
            _ if self.is_charged_by_time() => self.unseen_us(now_us),
            Mode::Allocated => 0,
            Mode::Mig => now_us.saturating_sub(self.read_at_us),
            Mode::Exclusive | Mode::Shared => {
                now_us.saturating_sub(self.read_at_us).saturating_add(2 * self.integral.period_us())
            }
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
            Mode::Exclusive => {
                Some(4 * self.integral.period_us() + self.figures.allocated_us / 100 + self.figures.estimated_us)
            }
            Mode::Mig | Mode::Shared => None,
        }
    }
}
