//! All devices that a job could open: which of them are its own, and what it used of them.

use std::collections::{BTreeMap, BTreeSet};

use super::declared::Declared;
use super::device::Device;
use super::figures::Sight;
use super::identity::OpenFiles;
use super::need::Asking;
use super::pids::{JobPids, owner_of};
use super::wire::{Ask, Fault, FaultKind, Listed, Polled};
use crate::domain::usage::GpuUsage;

/// From this driver on the lists of running processes have ids of the caller's PID namespace.
const RUNNING_TRANSLATED: [u32; 3] = [535, 113, 1];
/// From this one on, its records of use as well.
const USED_TRANSLATED: [u32; 3] = [570, 86, 15];

/// Whether NVML has told its devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Listing {
    #[default]
    Told,
    /// Not yet, and why, where it was asked.
    Awaited(Option<String>),
}

/// The devices, as of the last look.
#[derive(Clone, Debug, Default)]
pub struct Gpus {
    devices: Vec<Device>,
    declared: Declared,
    pids: JobPids,
    host_pids: bool,
    sight: Sight,
    held: bool,
    /// After this nothing is the job's any more.
    until_us: Option<u64>,
    began: bool,
    notes: BTreeSet<String>,
    refused: Vec<String>,
    driver: Option<String>,
    readings: u64,
    listing: Listing,
}

/// What is to be said about all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Sentences.
    pub notes: Vec<String>,
    /// Version of the driver; `None` where NVML was never asked.
    pub driver: Option<String>,
    /// Who has said which are the job's.
    pub declared_by: String,
    /// Looks.
    pub readings: u64,
    /// Devices that could not be opened, and why.
    pub refused: Vec<String>,
}

/// What is known of processes under this driver.
#[must_use]
pub fn sight(driver: &str, host_pids: bool) -> Sight {
    let mut numbers = driver.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let version: [u32; 3] = std::array::from_fn(|_| numbers.next().unwrap_or(0));
    Sight {
        running: host_pids || version >= RUNNING_TRANSLATED,
        used: host_pids || version >= USED_TRANSLATED,
        everybody: host_pids,
    }
}

fn models<'a>(devices: impl Iterator<Item = &'a Device>) -> BTreeMap<String, u64> {
    let mut models = BTreeMap::new();
    for device in devices {
        *models.entry(device.info().model.clone()).or_default() += 1;
    }
    models
}

impl Gpus {
    /// What the helper listed.
    #[must_use]
    pub fn new(listed: &Listed, declared: Declared, host_pids: bool, now_us: u64) -> Self {
        let mut gpus = Self { declared, host_pids, ..Self::default() };
        gpus.notes.extend(gpus.declared.notes.iter().cloned());
        gpus.add(listed, now_us);
        gpus
    }

    /// What the files of the driver say, before NVML has told its devices.
    #[must_use]
    pub fn unlisted(listed: &Listed, declared: Declared, host_pids: bool, now_us: u64) -> Self {
        let mut gpus = Self::new(listed, declared, host_pids, now_us);
        gpus.driver = None;
        gpus.listing = Listing::Awaited(None);
        gpus.devices.iter_mut().for_each(Device::await_listing);
        gpus
    }

    /// NVML cannot be asked, unless it has told its devices before.
    pub fn cannot_be_listed(&mut self, why: &Fault, now_us: u64) {
        if let Listing::Awaited(known) = &mut self.listing {
            *known = Some(why.why.clone());
            // It is not waited for.
            let unsupported = Fault { kind: FaultKind::Unsupported, why: why.why.clone() };
            self.devices.iter_mut().for_each(|device| device.take_fault(&unsupported, now_us));
        }
    }

    /// NVML was asked for its devices, and has not answered yet.
    pub fn await_listing(&mut self) {
        if let Listing::Awaited(why) = &mut self.listing {
            why.get_or_insert_with(|| "it has not answered yet".to_owned());
        }
    }

    /// NVML has told its devices, for the first time or again. Those that were known by their files alone can be read from now on.
    pub fn take_listing(&mut self, listed: &Listed, declared: Declared, now_us: u64) {
        self.listing = Listing::Told;
        if !self.began {
            *self = Self::new(listed, declared, self.host_pids, now_us);
            return;
        }
        self.notes.extend(declared.notes.iter().cloned());
        self.declared = declared;
        self.driver = Some(listed.driver.clone());
        for device in &mut self.devices {
            device.find_in(&listed.devices, now_us);
        }
        // One that was known as a whole, and of which nothing is charged yet, is known by its parts from now on.
        let parents: BTreeSet<&String> =
            listed.devices.iter().filter_map(|info| Some(&info.mig.as_ref()?.parent)).collect();
        self.devices.retain(|device| device.usage().is_some() || !parents.contains(&device.info().uuid));
        self.add(listed, now_us);
    }

    fn unlisted_note(&self) -> Option<String> {
        match &self.listing {
            Listing::Awaited(Some(why)) => Some(format!("NVML cannot be asked: {why}")),
            Listing::Awaited(None) | Listing::Told => None,
        }
    }

    /// To be said of all.
    pub fn note(&mut self, why: &str) {
        self.notes.insert(why.to_owned());
    }

    /// Devices that are not known yet are watched. Parts of a device that is charged as a whole are not charged a second time.
    fn add(&mut self, listed: &Listed, now_us: u64) {
        self.driver = Some(listed.driver.clone());
        self.sight = sight(&listed.driver, self.host_pids);
        self.refused.clone_from(&listed.refused);
        let known: BTreeSet<String> = self.devices.iter().map(|device| device.nvml_uuid().to_owned()).collect();
        let is_known = |uuid: &String| known.contains(uuid);
        let new = listed
            .devices
            .iter()
            .filter(|info| !is_known(&info.uuid) && !info.mig.as_ref().is_some_and(|mig| is_known(&mig.parent)));
        for info in new {
            let declared = self.declared.uuids.contains(&info.uuid);
            let mut device = Device::new(info.clone(), declared, self.declared.exclusive, now_us);
            if self.began {
                device.join(now_us);
            }
            self.devices.push(device);
        }
    }

    /// The command's process exists.
    pub fn begin(&mut self, child: i32, now_us: u64) {
        self.began = true;
        self.notes.extend(self.unlisted_note());
        self.pids.see(&[child], now_us);
        self.devices.iter_mut().for_each(|device| device.begin(now_us));
    }

    /// Whether the command's process exists.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.began
    }

    /// Nothing after this is the job's.
    pub fn end(&mut self, now_us: u64) {
        self.advance(now_us);
        self.until_us.get_or_insert(now_us);
    }

    /// What is after this is not the job's; `None` while it runs.
    #[must_use]
    pub fn until_us(&self) -> Option<u64> {
        self.until_us
    }

    /// Nobody reads the devices any more.
    pub fn close(&mut self) {
        if let (Some(until_us), true) = (self.until_us, self.began) {
            self.devices.iter_mut().for_each(|device| device.close(until_us));
        }
    }

    /// From now on the job is frozen, or not.
    pub fn hold(&mut self, held: bool, now_us: u64) {
        self.held = held;
        self.advance(now_us);
    }

    fn advance(&mut self, now_us: u64) {
        if self.began {
            let now_us = now_us.min(self.until_us.unwrap_or(u64::MAX));
            self.devices.iter_mut().for_each(|device| device.advance(now_us, self.held));
        }
    }

    /// What the helper is asked next, of a look that is not older than `since_us`; `None` where there is nothing to ask.
    #[must_use]
    pub fn ask(&self, asking: &Asking, now_us: u64, since_us: u64) -> Option<Ask> {
        let is_concerned = |device: &&Device| match asking {
            Asking::Nothing => false,
            Asking::Open(minors) => device.may_be_the_jobs(minors),
            Asking::All => true,
        };
        let devices: Vec<_> = self.devices.iter().filter(is_concerned).map(|device| device.ask(now_us)).collect();
        (!devices.is_empty()).then_some(Ask::Poll { devices, since_us })
    }

    /// Whether the driver's lists tell nothing of the job's processes here, or on some device, so that open files have to.
    #[must_use]
    pub fn needs_files(&self) -> bool {
        !self.sight.running || self.devices.iter().any(Device::hides_processes)
    }

    /// Takes one look; `living` are the processes of the job, and `open` what they have open, where that is needed.
    pub fn take(&mut self, polled: &Polled, living: &[i32], open: Option<&OpenFiles>, now_us: u64) {
        if !self.began {
            for (device, polled) in self.pairs(polled) {
                device.seed(polled);
            }
            return;
        }
        self.readings += 1;
        let mut pids = std::mem::take(&mut self.pids);
        pids.see(living, now_us);
        let owner = living.first().and_then(|pid| owner_of(*pid));
        let (sight, until_us) = (self.sight, self.until_us.unwrap_or(u64::MAX));
        for (device, polled) in self.pairs(polled) {
            device.look_for_strangers(polled, &pids, owner, sight.everybody);
            if let Some(open) = open.filter(|_| !sight.running || device.hides_processes()) {
                device.take_open_file(open, polled.at_us.min(until_us));
            }
            device.take(polled, &pids, sight, until_us);
        }
        self.pids = pids;
        let is_told = |device: &Device| polled.devices.iter().any(|polled| polled.uuid == device.nvml_uuid());
        let untold = self.devices.iter_mut().filter(|device| !is_told(device));
        untold.for_each(|device| device.take_none_open(now_us.min(until_us)));
    }

    fn pairs<'a>(
        &'a mut self,
        polled: &'a Polled,
    ) -> impl Iterator<Item = (&'a mut Device, &'a super::wire::PolledDevice)> {
        let of = |uuid: &str| polled.devices.iter().find(|polled| polled.uuid == uuid);
        self.devices.iter_mut().filter_map(move |device| of(device.nvml_uuid()).map(|polled| (device, polled)))
    }

    /// Those that are the job's alone, as of now: one of its tasks on this machine charges them.
    pub fn of_the_job_alone(&mut self, now_us: u64) -> impl Iterator<Item = &mut Device> {
        self.advance(now_us);
        self.devices.iter_mut().filter(|device| device.is_the_jobs_alone())
    }

    /// None of the job's processes has a device open.
    pub fn take_none_open(&mut self, now_us: u64) {
        let now_us = now_us.min(self.until_us.unwrap_or(u64::MAX));
        if self.began {
            self.advance(now_us);
            self.devices.iter_mut().for_each(|device| device.take_none_open(now_us));
        }
    }

    /// Whether some device is the job's now.
    #[must_use]
    pub fn has_one_of_the_job(&self) -> bool {
        self.devices.iter().any(Device::is_ours)
    }

    /// The helper could not be asked.
    pub fn fail(&mut self, fault: &Fault, open: &OpenFiles, now_us: u64) {
        let now_us = now_us.min(self.until_us.unwrap_or(u64::MAX));
        self.advance(now_us);
        if self.began {
            for device in &mut self.devices {
                device.take_open_file(open, now_us);
                device.take_fault(fault, now_us);
            }
        }
    }

    /// Of all devices that were the job's at some time, as of now.
    pub fn usage(&mut self, now_us: u64) -> BTreeMap<String, GpuUsage> {
        self.advance(now_us);
        self.devices.iter().filter_map(|device| Some((device.info().uuid.clone(), device.usage()?))).collect()
    }

    /// How much of the job's time on some device is not known yet.
    #[must_use]
    pub fn age_us(&self, now_us: u64) -> u64 {
        self.devices.iter().map(|device| device.age_us(now_us)).max().unwrap_or(0)
    }

    /// Whether it is not known yet what some device that is read did until the end of the job: that is known only a little later.
    #[must_use]
    pub fn is_to_be_read_on(&self) -> bool {
        let until_us = self.until_us.unwrap_or(u64::MAX);
        self.began && self.devices.iter().any(|device| device.is_read() && !device.is_known_until(until_us))
    }

    /// Whether some device works for processes that come and go between looks.
    #[must_use]
    pub fn is_restless(&self, now_us: u64) -> bool {
        self.devices.iter().any(|device| device.is_restless(now_us))
    }

    /// How many of each model could be opened.
    #[must_use]
    pub fn openable_models(&self) -> BTreeMap<String, u64> {
        models(self.devices.iter())
    }

    /// Those that are the job's now, for people; `None` where there is none.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let mut counts: BTreeMap<(String, &str), u64> = BTreeMap::new();
        for device in self.devices.iter().filter(|device| device.is_ours()) {
            let model = Some(device.info().model.clone()).filter(|model| !model.is_empty());
            let model = model.unwrap_or_else(|| "GPU".to_owned());
            *counts.entry((model, device.figures().mode.as_str())).or_default() += 1;
        }
        let told = counts.iter().map(|((model, mode), count)| format!("{count} × {model} ({mode})"));
        let told = told.collect::<Vec<_>>().join(", ");
        (!told.is_empty()).then(|| format!("{told}, by {}", self.declared.by))
    }

    /// How many of each model are the job's now.
    #[must_use]
    pub fn models(&self) -> BTreeMap<String, u64> {
        models(self.devices.iter().filter(|device| device.is_ours()))
    }

    /// What is known at the start to be less than exact: of all, and of those that are the job's.
    #[must_use]
    pub fn all_notes(&self) -> Vec<String> {
        let of_devices = self.of_job().flat_map(|device| {
            let index = device.info().index;
            device.notes().into_iter().map(move |note| format!("{index}: {note}"))
        });
        self.notes.iter().cloned().chain(self.unlisted_note()).chain(of_devices).collect()
    }

    /// Those that were the job's at some time.
    pub fn of_job(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.usage().is_some())
    }

    /// All.
    #[must_use]
    pub fn all(&self) -> &[Device] {
        &self.devices
    }

    /// What is to be said about all of them.
    #[must_use]
    pub fn said(&self) -> Said {
        let (notes, driver) = (self.notes.iter().cloned().collect(), self.driver.clone());
        let (declared_by, refused) = (self.declared.by.clone(), self.refused.clone());
        Said { notes, driver, declared_by, readings: self.readings, refused }
    }
}
