//! What is measured of one running attempt: the billing meter, the highest rate, and how well the looks kept time.

use std::collections::{BTreeMap, BTreeSet};

use nix::unistd::Pid;

use super::gpu_part::GpuPart;
use super::receipt::LedgerAnswers;
use super::wire::SpawnFailure;
use crate::domain::deadline::{Bounds, HighestRate};
use crate::domain::job::Job;
use crate::domain::lease::burned_in;
use crate::domain::rating::{GpuBasis, RateCard};
use crate::domain::units::Microseconds;
use crate::domain::usage::Usage;
use crate::domain::weight::UNREAD_MODELS;
use crate::meter::breakdown::{Breakdown, Sampler};
use crate::meter::gpu::declared::Selection;
use crate::meter::gpu::options::{Giver, GpuOptions};
use crate::meter::gpu::others::OtherGpus;
use crate::meter::gpu::watch::{NO_GPU, Watch};
use crate::meter::select::Plan;
use crate::meter::{CpuSource, Meter, MeterError, Reading};
use crate::sys::bell::Bell;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::containment::ContainmentSpec;
use crate::sys::shared::SharedPage;

/// From the end of a sample of a device until it can be read: two periods, and what a look takes.
const GPU_SAMPLE_US: u64 = 400_000;
/// A device is looked at more often where less is left than its highest rate burns in this time.
const GPU_HURRY_US: u64 = 4_000_000;
/// Where no device was at the start, one is looked for so often.
const LATE_GPUS_LOOK_US: u64 = 1_000_000;
/// A late wake-up widens the guard band by at most this.
const LATENESS_MAX_US: u64 = 4_000;

/// The figures.
#[derive(Debug)]
pub(super) struct Figures {
    meter: Option<Box<dyn Meter>>,
    sampler: Option<Sampler>,
    gpus: Option<Watch>,
    gpu_models: BTreeMap<String, u64>,
    late_gpus: LateGpus,
    /// Of which the time alone is known for which the job has them.
    other_gpus: OtherGpus,
    /// Which models of them the rate card has a weight for.
    charged_models: BTreeSet<String>,
    last: Reading,
    rate: HighestRate,
    allocated_us: u64,
    allocated_at_us: u64,
    held_since_us: Option<u64>,
    held_us: u64,
    lateness_us: u64,
    spooled_at_us: u64,
    /// How late a look was at most.
    pub(super) lateness_max_us: u64,
    /// Looks.
    pub(super) readings: u64,
    /// Answers of the ledger.
    pub(super) reports: u64,
    /// How long they took.
    pub(super) ledger_answers: LedgerAnswers,
    /// µs since 1970.
    pub(super) notice_sent_at_us: Option<i64>,
}

/// Devices that come while the job runs: the driver makes its files when it is first used.
#[derive(Debug)]
struct LateGpus {
    options: GpuOptions,
    job: ContainmentSpec,
    child: Option<i32>,
    look_at_us: u64,
}

impl LateGpus {
    /// Once one is there, it is metered from now on.
    fn look(&mut self, now_us: u64) -> Option<Watch> {
        let child = self.child.filter(|_| now_us >= self.look_at_us)?;
        self.look_at_us = now_us.saturating_add(LATE_GPUS_LOOK_US);
        self.options.no_helper = self.options.giver == Giver::Container;
        let watch = self.options.concern_a_gpu().then(|| Watch::spawn(&self.options, self.job.clone()).ok())??;
        watch.begin(child, now_us);
        Some(watch)
    }
}

impl Figures {
    /// # Errors
    /// Where `--gpus` names what is not there, for people.
    pub(super) fn new(plan: &Plan, gpus: &GpuOptions) -> Result<Self, String> {
        let late_gpus = LateGpus { options: gpus.clone(), job: plan.specification(), child: None, look_at_us: 0 };
        let gpus = gpus.concern_a_gpu().then(|| Watch::start(gpus, plan.specification())).transpose()?;
        if gpus.is_none() && late_gpus.options.selection == Some(Selection::All) {
            return Err(NO_GPU.to_owned());
        }
        let has_nvml = gpus.as_ref().is_some_and(|watch| watch.with(|gpus| !gpus.all().is_empty()));
        let other_gpus = OtherGpus::new(&late_gpus.options, has_nvml);
        let mut gpu_models = gpus.as_ref().map(|watch| watch.with(|gpus| gpus.models())).unwrap_or_default();
        gpu_models.extend(other_gpus.models());
        Ok(Self {
            meter: None,
            sampler: None,
            gpus,
            gpu_models,
            late_gpus,
            other_gpus,
            charged_models: BTreeSet::new(),
            last: Reading::default(),
            rate: plan.highest_rate(),
            allocated_us: 0,
            allocated_at_us: SystemClock.boottime_us(),
            held_since_us: None,
            held_us: 0,
            lateness_us: 0,
            spooled_at_us: 0,
            lateness_max_us: 0,
            readings: 0,
            reports: 0,
            ledger_answers: LedgerAnswers::default(),
            notice_sent_at_us: None,
        })
    }

    /// Opens the counter, now that the command's process exists: since `at_us`, however late the keeper woke. One behind
    /// a gate has not begun.
    pub(super) fn begin(
        &mut self,
        plan: &mut Plan,
        child: Pid,
        at_us: u64,
        shared: SharedPage,
    ) -> Result<(), MeterError> {
        self.meter = Some(plan.started(child, shared)?);
        self.allocated_at_us = if plan.needs_gate() { SystemClock.boottime_us() } else { at_us };
        self.spooled_at_us = self.allocated_at_us;
        self.late_gpus.child = Some(child.as_raw());
        if let Some(watch) = &self.gpus {
            watch.begin(child.as_raw(), self.allocated_at_us);
        }
        Ok(())
    }

    /// Reads the counters. Before the command exists there is nothing to read.
    pub(super) fn look(&mut self, now_us: u64, plan: &mut Plan) -> Result<Usage, MeterError> {
        if let Some(meter) = &mut self.meter {
            if let Some(watch) = &self.gpus {
                meter.set_helpers_us(watch.own_helpers_us());
            }
            self.last = meter.read()?;
            self.readings += 1;
        }
        let passed_us = now_us.saturating_sub(self.allocated_at_us);
        self.allocated_at_us = now_us;
        if self.held_since_us.is_none() && self.meter.is_some() {
            let allocated = u128::from(passed_us) * u128::from(self.rate.sustained_ppm()) / 1_000_000;
            self.allocated_us = self.allocated_us.saturating_add(u64::try_from(allocated).unwrap_or(u64::MAX));
            self.other_gpus.advance(passed_us, || plan.containment().processes());
        }
        self.rate = plan.highest_rate();
        if self.gpus.is_none() {
            self.gpus = self.late_gpus.look(now_us);
        }
        let found = self.gpus.as_ref().map(|watch| watch.with(|gpus| (gpus.usage(now_us), gpus.models())));
        let (mut gpus, mut gpu_models) = found.unwrap_or_default();
        // A ledger of before would charge what the card has no weight for.
        let others = self.other_gpus.usage().into_iter();
        gpus.extend(others.filter(|(_, usage)| self.charged_models.contains(&usage.model)));
        gpu_models.extend(self.other_gpus.models());
        self.gpu_models = gpu_models;
        Ok(Usage {
            cpu_used_seconds: self.last.cpu_seconds,
            cpu_allocated_seconds: Microseconds(self.allocated_us),
            gpus,
            ..Usage::default()
        })
    }

    /// By which the job's end is decided, as of the last look.
    pub(super) fn bounds(&self, plan: &Plan, rates: &RateCard) -> Bounds {
        let age_us = match (&self.gpus, rates.gpu_basis) {
            (Some(watch), GpuBasis::Busy) => watch.with(|gpus| gpus.age_us(SystemClock.boottime_us())),
            // What is allocated is known at any time.
            (Some(_), GpuBasis::Allocated) | (None, _) => 0,
        };
        // Between two looks it is as old as this, and the ledger has to know that beforehand.
        let step_us = self.gpus.as_ref().filter(|_| age_us > 0).map_or(0, |watch| watch.look_us() + GPU_SAMPLE_US);
        // Of a device that is idle the rest is known at any time.
        let unknown = |us: u64| rates.busy_part(us);
        Bounds {
            cpu: self.rate,
            gpus_ppm: rates.gpus_ppm(&self.gpu_models),
            stop_us: self.stop_us(plan),
            gpu_age_us: unknown(age_us.max(step_us)),
            gpu_step_us: unknown(step_us),
        }
    }

    /// How many of each model the job could open.
    pub(super) fn openable_gpu_models(&self) -> BTreeMap<String, u64> {
        self.gpus.as_ref().map(|watch| watch.with(|gpus| gpus.openable_models())).unwrap_or_default()
    }

    /// Rings when a device becomes the job's.
    pub(super) fn gpu_bell(&self) -> Option<&Bell> {
        self.gpus.as_ref().map(Watch::bell)
    }

    /// How many of each model are the job's.
    pub(super) fn gpu_models(&self) -> &BTreeMap<String, u64> {
        &self.gpu_models
    }

    /// What cannot be metered exactly, as is known at the start.
    pub(super) fn gpu_notes(&self, rates: &RateCard) -> Vec<String> {
        let of_devices = self.gpus.as_ref().map(|watch| watch.with(|gpus| gpus.all_notes())).unwrap_or_default();
        of_devices.into_iter().chain(self.other_gpu_notes(rates)).collect()
    }

    /// What is said of them at the start: to a terminal which they are, and to all what cannot be metered exactly.
    pub(super) fn gpu_lines(&self, rates: &RateCard, is_terminal: bool) -> Vec<String> {
        let devices = self.gpus.as_ref().filter(|_| is_terminal).and_then(|watch| watch.with(|gpus| gpus.line()));
        let notes =
            self.gpu_notes(rates).into_iter().map(|note| format!("note: GPU: {note} (`jobmeter doctor` says more)"));
        devices.into_iter().chain(notes).map(|line| format!("jobmeter: {line}")).collect()
    }

    fn other_gpu_notes(&self, rates: &RateCard) -> Vec<String> {
        self.other_gpus.notes(|model| rates.gpu_weight_ppm_of(model))
    }

    /// Where the settings say so, nothing starts that has a device which nobody charges.
    pub(super) fn gpu_refusal(&self, rates: &RateCard) -> Option<SpawnFailure> {
        let models = self.other_gpus.models();
        let is_uncharged = |model: &&str| rates.gpu_weight_ppm_of(model) == 0;
        let uncharged: Vec<&str> = models.keys().map(String::as_str).filter(is_uncharged).collect();
        if !self.late_gpus.options.refuses_uncharged || uncharged.is_empty() {
            return None;
        }
        let names = uncharged.join(", ");
        let message = format!("the job has what is not metered here, and the rate card has no weight for it: {names}");
        Some(SpawnFailure { message, status: 125 })
    }

    /// Where the last credits burn, devices are looked at more often, so that fewer stay unburned.
    pub(super) fn hurry(&self, job: &Job) {
        if let Some(watch) = &self.gpus {
            let per_second = job.rules().rates.highest_gpu_rate_per_second(job.bounds().gpus_ppm);
            watch.hurry(job.is_last() && job.left() < burned_in(per_second, GPU_HURRY_US));
        }
    }

    /// The job stands still: what devices do after this is not its own.
    pub(super) fn cut_gpus(&self, now_us: u64) {
        if let Some(watch) = &self.gpus {
            watch.cut(now_us);
        }
    }

    /// By which the job is charged.
    pub(super) fn take_rates(&mut self, rates: &RateCard) {
        let models = UNREAD_MODELS.into_iter().filter(|model| rates.gpu_weight_ppm_of(model) > 0);
        self.charged_models = models.map(str::to_owned).collect();
    }

    /// Waits for the last samples of the devices, with which `usage` is complete.
    pub(super) fn finish_gpus(&mut self, usage: &mut Usage, now_us: u64) {
        self.other_gpus.release();
        if let Some(watch) = &mut self.gpus {
            watch.finish();
            let gpus = watch.with(|gpus| gpus.usage(now_us));
            *usage = usage.merged(&Usage { gpus, ..Usage::default() });
        }
    }

    /// For the receipt.
    pub(super) fn gpu_part(&self, rates: &RateCard) -> GpuPart {
        let part = self.gpus.as_ref().map_or_else(GpuPart::none, |watch| watch.with(|gpus| GpuPart::of(gpus, rates)));
        let others = self.other_gpus.usage();
        part.with_unread(&others, self.other_gpu_notes(rates), rates)
    }

    /// CPU time of the helper that asks the devices.
    pub(super) fn helper_cpu_us(&self) -> u64 {
        self.gpus.as_ref().map_or(0, Watch::helper_cpu_us)
    }

    fn hold_gpus(&self, held: bool, now_us: u64) {
        if let Some(watch) = &self.gpus {
            watch.with(|gpus| gpus.hold(held, now_us));
        }
    }

    /// Where the keeper was late lately, it may be late again.
    fn stop_us(&self, plan: &Plan) -> u64 {
        plan.stop_us() + self.lateness_us.min(LATENESS_MAX_US)
    }

    /// A look was `late_us` late. Old lateness fades by an eighth each time.
    pub(super) fn woke(&mut self, late_us: u64) {
        self.lateness_max_us = self.lateness_max_us.max(late_us);
        self.lateness_us = late_us.max(self.lateness_us - self.lateness_us / 8);
    }

    pub(super) fn held_from(&mut self, now_us: u64) {
        self.held_since_us.get_or_insert(now_us);
        self.hold_gpus(true, now_us);
    }

    pub(super) fn held_until(&mut self, now_us: u64) {
        if let Some(since_us) = self.held_since_us.take() {
            self.held_us += now_us.saturating_sub(since_us);
            self.hold_gpus(false, now_us);
        }
    }

    pub(super) fn held_us(&self) -> u64 {
        self.held_us
    }

    pub(super) fn ledger_answered(&mut self, took_us: u64) {
        self.reports += 1;
        self.ledger_answers.took(took_us);
    }

    pub(super) fn notice_sent(&mut self) {
        self.notice_sent_at_us = Some(SystemClock.realtime_us());
    }

    /// Whether a reading is to be written to the spool now.
    pub(super) fn spool_is_due(&mut self, now_us: u64, interval_us: u64) -> bool {
        let due = now_us >= self.spooled_at_us.saturating_add(interval_us);
        if due {
            self.spooled_at_us = now_us;
        }
        due
    }

    /// Samples what is shown but not billed. The first sample comes with the first interval, so that a short job pays
    /// nothing for it.
    pub(super) fn sample(&mut self, plan: &Plan) {
        self.sampler.get_or_insert_with(Sampler::new).sample(plan.containment());
    }

    /// The other truths, read for the last time.
    pub(super) fn breakdown(&mut self, plan: &Plan) -> Breakdown {
        let mut sampler = self.sampler.take().unwrap_or_default();
        sampler.finish(plan.containment())
    }

    /// The last reading.
    pub(super) fn last(&self) -> Reading {
        self.last
    }

    /// What has been burned since the last look: by the kill.
    pub(super) fn burned_since(&mut self) -> Microseconds {
        let now = self.meter.as_mut().and_then(|meter| meter.read().ok());
        now.map_or(Microseconds::ZERO, |now| now.cpu_seconds.saturating_sub(self.last.cpu_seconds))
    }

    /// What the job has done that its source cannot count.
    pub(super) fn degraded(&self) -> Option<String> {
        self.meter.as_ref().and_then(|meter| meter.degraded()).map(str::to_owned)
    }

    /// Which source, and how exact.
    pub(super) fn source(&self) -> (CpuSource, Option<Microseconds>) {
        self.meter.as_ref().map_or((CpuSource::Procfs, None), |meter| (meter.source(), meter.error_bound()))
    }
}
