//! What one look tells of how busy a device was for the job.

use super::{ATTENTIVE_US, Device, RESTLESS_US};
use crate::meter::gpu::figures::{Mode, Sight};
use crate::meter::gpu::integral::Window;
use crate::meter::gpu::pids::JobPids;
use crate::meter::gpu::tenants::Parts;
use crate::meter::gpu::wire::{FaultKind, Got, PolledDevice, Stretch};

/// From one look to the counters of the next one.
const UNTOLD_MAX_US: u64 = 300_000;

impl Device {
    /// Of the whole device, by its counters where it has some and else by its samples.
    pub(super) fn take_whole(
        &mut self,
        polled: &PolledDevice,
        pids: &JobPids,
        sight: Sight,
        ours: bool,
        until_us: u64,
    ) {
        let samples = match &polled.samples {
            Ok(samples) => samples,
            Err(fault) => return self.take_fault(fault, polled.at_us.min(until_us)),
        };
        if samples.iter().any(|(end, _)| *end > self.integral.cursor()) {
            self.quiet_since_us = polled.at_us;
        }
        let unread_us = polled.at_us.min(until_us).saturating_sub(self.read_at_us);
        self.was_read(polled.at_us);
        if self.sees_again() {
            // What the ring has kept of that time is not charged a second time.
            self.counters.pass(polled.at_us);
            return self.integral.seed(samples, polled.at_us);
        }
        let window = self.integral.take(samples, polled.at_us, until_us);
        self.note_window(&window);
        match self.figures.mode {
            Mode::Exclusive if ours && !self.has_strangers => self.take_all(&window, polled, until_us),
            Mode::Exclusive if ours => {
                self.counters.pass(polled.at_us.min(until_us));
                // Where they cannot be told apart, it is as was declared.
                let parts = self.parts(polled, pids, sight, window.percents, unread_us);
                self.divide(&window, parts.unwrap_or(Parts::ALL_MINE));
            }
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
                    self.go_blind(&why);
                    self.estimate(unread_us, polled.at_us.min(until_us));
                }
                Err(_) => {}
            },
            Mode::Exclusive | Mode::Mig | Mode::Allocated => {}
        }
    }

    /// All that it did.
    fn take_all(&mut self, window: &Window, polled: &PolledDevice, until_us: u64) {
        let sampled = (window.busy_us, self.integral.known_until_us());
        let taken = self.counters.take(polled.counted.as_ref(), sampled, polled.at_us, until_us);
        self.notes.extend(taken.note);
        match taken.stretch {
            None => self.divide(window, Parts::ALL_MINE),
            Some(stretch) => self.use_stretch(stretch),
        }
    }

    /// Returns when it was read before.
    fn was_read(&mut self, at_us: u64) -> u64 {
        self.allocated_at_read_us = self.figures.allocated_us;
        std::mem::replace(&mut self.read_at_us, at_us)
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

    pub(super) fn take_instance(
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
        let read_at_us = self.was_read(polled.at_us);
        if self.sees_again() || self.figures.mode == Mode::Allocated || !ours {
            return;
        }
        let foreign = polled.running.as_ref().is_ok_and(|running| running.iter().any(|(pid, _)| !pids.has(*pid)));
        if foreign && sight.running && !self.figures.exclusive {
            self.go_blind("others use the same MIG device, whose time cannot be told apart");
            return self.estimate(polled.at_us.min(until_us).saturating_sub(read_at_us), polled.at_us);
        }
        // Another helper has nothing to compare with.
        let untold_us = stretch.from_us.min(until_us).saturating_sub(read_at_us);
        if untold_us > UNTOLD_MAX_US {
            self.estimate(untold_us, stretch.from_us.min(until_us));
        }
        self.use_stretch(stretch.between(read_at_us, until_us));
    }

    fn use_stretch(&mut self, (from_us, until_us, busy_us): (u64, u64, u64)) {
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
        if self.is_ours() && window.lost_us > 0 {
            self.notes.insert("it was not read in time, which is charged as allocated".to_owned());
            self.estimate(window.lost_us, self.counted_until_us);
        }
    }
}
