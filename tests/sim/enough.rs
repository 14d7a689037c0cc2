//! One job on devices whose readings come in steps, late, or not at all for a while, and a ledger that has enough and answers within its
//! bound: whatever the source, the prices and the times are, the job is neither ended nor frozen for longer than an answer takes.

use std::collections::BTreeMap;

use jobmeter::domain::deadline::{Bounds, HighestRate};
use jobmeter::domain::job::{AccountState, Action, Event, Job, Rules};
use jobmeter::domain::lease::{Ask, Sized, burned_in, minimum_slice, report_in_ms, size};
use jobmeter::domain::rating::RateCard;
use jobmeter::domain::units::{Microseconds, Nanocredits};
use jobmeter::domain::usage::{GpuUsage, Usage};
use jobmeter::ledger::protocol::{Decision, Lease, Resources};
use jobmeter::runner::leases::{grant, resources, verdict};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const UNTIL_US: u64 = 60_000_000;
/// A sample is known only so late.
const SAMPLE_US: u64 = 400_000;
const ENOUGH: Nanocredits = Nanocredits(i64::MAX / 4);

#[derive(Clone, Debug)]
struct Scene {
    can_hold: bool,
    cpus: u64,
    cpu_percent: u64,
    gpus: u64,
    gpu_percent: u64,
    rates: RateCard,
    stop_us: u64,
    step_us: u64,
    /// From when on and for how long the devices cannot be read.
    stalls: Vec<(u64, u64)>,
    /// In which the ledger answers, one after the other.
    answers_us: Vec<u64>,
}

fn scene() -> impl Strategy<Value = Scene> {
    let machine = (any::<bool>(), 1..128u64, 0..=100u64, 1..=8u64, 0..=100u64);
    let prices = (0..2_000_000i64, 0..500_000_000i64);
    let stalls = proptest::collection::vec((0..UNTIL_US, 0..5_000_000u64), 0..6);
    let answers = proptest::collection::vec(1_000..480_000u64, 1..8);
    (machine, prices, 5_000..40_000u64, 200_000..=1_000_000u64, stalls, answers).prop_map(
        |((can_hold, cpus, cpu_percent, gpus, gpu_percent), (cpu, gpu), stop_us, step_us, stalls, answers_us)| Scene {
            can_hold,
            cpus,
            cpu_percent,
            gpus,
            gpu_percent,
            rates: RateCard {
                cpu_per_second: Nanocredits(cpu),
                gpu_per_second: Nanocredits(gpu),
                ..RateCard::default()
            },
            stop_us,
            step_us,
            stalls,
            answers_us,
        },
    )
}

struct World {
    scene: Scene,
    job: Job,
    now_us: u64,
    cpu_us: u64,
    gpu_us: u64,
    /// What is known of the devices, and when that was read.
    read: (u64, u64),
    next_read_us: u64,
    frozen_since_us: Option<u64>,
    /// When the ledger answers, to what, and what it then says.
    answer: Option<(u64, u64, Lease)>,
    answered: usize,
    version: u64,
}

fn models(scene: &Scene) -> BTreeMap<String, u64> {
    [("X".to_owned(), scene.gpus)].into()
}

impl Scene {
    fn bounds(&self, now_us: u64, read_at_us: u64) -> Bounds {
        let least_us = self.step_us + SAMPLE_US;
        Bounds {
            cpu: HighestRate { cpus_ppm: self.cpus * 1_000_000, quota: None },
            gpus_ppm: self.rates.gpus_ppm(&models(self)),
            stop_us: self.stop_us,
            gpu_age_us: now_us.saturating_sub(read_at_us).saturating_add(SAMPLE_US).max(least_us),
            gpu_step_us: least_us,
        }
    }

    fn resources(&self, bounds: &Bounds) -> Resources {
        resources(bounds, &models(self), self.can_hold)
    }

    /// What a ledger that has enough says.
    fn lease(
        &self,
        price: Nanocredits,
        ceiling: Nanocredits,
        declared: &Resources,
        waiting: bool,
        version: u64,
        per_second: Nanocredits,
    ) -> Lease {
        let pace = declared.pace(&self.rates);
        let highest = self.rates.highest_rate_per_second(pace.cpus_ppm, pace.gpus_ppm);
        let guard = burned_in(highest, pace.stop_us);
        let ask = Ask {
            price,
            ceiling,
            guard,
            minimum: minimum_slice(highest, guard),
            rate: per_second,
            lease_ms: 30_000,
            left: ENOUGH,
            available: ENOUGH,
            reclaimable: Nanocredits::ZERO,
            job_available: ENOUGH,
            job_reclaimable: Nanocredits::ZERO,
            live: 1,
            waiting,
            somebody_waits: false,
        };
        let Sized::Ceiling(ceiling) = size(&ask) else { panic!("a ledger with enough gives some: {ask:?}") };
        Lease {
            version,
            ceiling,
            period: 0,
            lasts_ms: 30_000,
            report_in_ms: report_in_ms(&ask),
            next: None,
            last: None,
            unbounded: false,
        }
    }
}

impl World {
    fn new(scene: Scene) -> Self {
        let bounds = scene.bounds(0, 0);
        let first =
            scene.lease(Nanocredits::ZERO, Nanocredits::ZERO, &scene.resources(&bounds), false, 1, Nanocredits::ZERO);
        let rules = Rules {
            rates: scene.rates.clone(),
            interval_us: 1_000_000,
            hold_us: 5_000_000,
            can_hold: scene.can_hold,
            notice_before_us: None,
            spread: 7,
        };
        let job = Job::new(rules, grant(&first, 0), bounds, AccountState::default(), 0);
        Self {
            next_read_us: scene.step_us,
            scene,
            job,
            now_us: 0,
            cpu_us: 0,
            gpu_us: 0,
            read: (0, 0),
            frozen_since_us: None,
            answer: None,
            answered: 0,
            version: 1,
        }
    }

    fn pass(&mut self, until_us: u64) {
        let us = until_us - self.now_us;
        self.now_us = until_us;
        if self.frozen_since_us.is_none() {
            self.cpu_us += us * self.scene.cpus * self.scene.cpu_percent / 100;
            self.gpu_us += us * self.scene.gpus * self.scene.gpu_percent / 100;
        } else {
            // What stands still burns nothing that is unread.
            self.read.1 += us;
        }
    }

    fn usage(&self) -> Usage {
        let busy = Microseconds(self.read.0);
        let gpu = GpuUsage { model: "X".into(), busy_seconds: busy, allocated_seconds: busy };
        Usage {
            cpu_used_seconds: Microseconds(self.cpu_us),
            gpus: [("GPU-x".to_owned(), gpu)].into(),
            ..Usage::default()
        }
    }

    fn read_devices(&mut self) {
        self.next_read_us = self.now_us + self.scene.step_us;
        let is_stalled = |(from, long): &(u64, u64)| (*from..from + long).contains(&self.now_us);
        if !self.scene.stalls.iter().any(is_stalled) {
            self.read = (self.gpu_us, self.now_us);
        }
    }

    fn feed(&mut self, event: Event) -> Result<(), TestCaseError> {
        let bounds = self.scene.bounds(self.now_us, self.read.1);
        self.job.set_bounds(bounds);
        let mut event = Some(event);
        while let Some(happened) = event.take() {
            let usage = self.usage();
            for action in self.job.step(self.now_us, &usage, happened) {
                match action {
                    Action::End(end) => prop_assert!(false, "ended as {end:?} at {} µs", self.now_us),
                    Action::Notice => {}
                    Action::Freeze => {
                        self.frozen_since_us = Some(self.now_us);
                        event = Some(Event::Looked);
                    }
                    Action::Thaw => self.frozen_since_us = None,
                    Action::Report(due) => {
                        let took_us = self.scene.answers_us[self.answered % self.scene.answers_us.len()];
                        self.answered += 1;
                        self.version += 1;
                        let price = self.scene.rates.price(&usage).total;
                        let per_second = Nanocredits(price.0 * 1_000_000 / i64::try_from(self.now_us.max(1)).unwrap());
                        let declared = self.scene.resources(&bounds);
                        let lease = self.scene.lease(
                            price,
                            self.job.grant().ceiling,
                            &declared,
                            due.waiting,
                            self.version,
                            per_second,
                        );
                        self.answer = Some((self.now_us + took_us, due.seq, lease));
                    }
                }
            }
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), TestCaseError> {
        while self.now_us < UNTIL_US {
            let answers_at_us = self.answer.as_ref().map_or(u64::MAX, |(at_us, _, _)| *at_us);
            let next_us = self.job.look_at_us().min(answers_at_us).min(self.next_read_us).max(self.now_us);
            self.pass(next_us);
            if let Some(since_us) = self.frozen_since_us {
                let longest_us = self.scene.answers_us.iter().max().copied().unwrap_or(0);
                // A question that was open when it was frozen may have to be answered first.
                prop_assert!(
                    self.now_us - since_us <= 2 * longest_us + 1_000,
                    "frozen for {} µs",
                    self.now_us - since_us
                );
            }
            if self.now_us == self.next_read_us {
                self.read_devices();
            }
            match self.answer.take_if(|(at_us, _, _)| *at_us == self.now_us) {
                Some((at_us, seq, lease)) => {
                    let verdict = verdict(Decision::Lease(lease), at_us);
                    self.feed(Event::Answered { seq, verdict, account: AccountState::default() })?;
                }
                None => self.feed(Event::Looked)?,
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/regressions/sim/enough.txt"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_job_is_ended_or_frozen_for_long_while_there_is_enough(scene in scene()) {
        World::new(scene).run()?;
    }
}
