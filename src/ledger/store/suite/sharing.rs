//! Several jobs of one user: each gets its share of what is left, whoever came first.

use super::*;

/// A job that burns two CPUs for as long as its ceiling allows, and reports each second.
struct Burner {
    attempt: Uuid,
    lease: Lease,
    seq: u64,
    cpu_us: u64,
    stopped: bool,
}

impl Burner {
    fn start(world: &mut World, job: &str) -> Self {
        let (attempt, lease) = world.open(job, None);
        Self { attempt, lease, seq: 0, cpu_us: 0, stopped: false }
    }

    /// One second: burns up to the ceiling less the guard band, reports, and obeys.
    fn pass(&mut self, world: &mut World) {
        if self.stopped {
            return;
        }
        const GUARD_US: u64 = 2 * 6_000;
        let most_us = cpu_at(self.lease.ceiling).0.saturating_sub(GUARD_US);
        let wanted_us = self.cpu_us + 2_000_000;
        self.cpu_us = wanted_us.min(most_us).max(self.cpu_us);
        self.seq += 1;
        let usage = Usage { cpu_used_seconds: Microseconds(self.cpu_us), ..Usage::default() };
        match world.report(self.attempt, self.seq, &usage, &self.lease, wanted_us > most_us) {
            Decision::Lease(lease) if lease.version >= self.lease.version => self.lease = lease,
            Decision::Lease(_) | Decision::Wait { .. } => {}
            Decision::Stop(_) => {
                self.stopped = true;
                world.finish(self.attempt, &usage, self.lease.period);
            }
        }
    }
}

fn burn_all(world: &mut World, burners: &mut [Burner]) {
    for _ in 0..10_000 {
        if burners.iter().all(|burner| burner.stopped) {
            return;
        }
        world.pass_s(1);
        for burner in &mut *burners {
            burner.pass(world);
        }
        world.check();
    }
    panic!("they are never stopped");
}

/// What was kept from the report before is read again where another process has written since.
#[test]
fn what_another_process_wrote_between_two_reports_counts() {
    let mut world = World::new();
    let mut other = StoreLedger::new(another_store(&world.place, Box::new(world.clock.clone())));
    let (attempt, lease) = world.open("j", None);
    for (seq, cpu) in [(1, "0.1"), (3, "0.3"), (5, "0.5")] {
        world.report(attempt, seq, &seconds(cpu), &lease, false);
        let usage = seconds(&format!("0.{}", seq + 1));
        other.report(&report(attempt, seq + 1, &usage, &lease, false)).unwrap();
    }
    assert_eq!(world.account().current.0, 150_000);
    world.report(attempt, 7, &seconds("0.7"), &lease, false);
    // It charges nothing, and holds more.
    let more = Resources { cpus_ppm: 8_000_000, ..RESOURCES };
    other.report(&Report { resources: more, ..report(attempt, 8, &seconds("0.7"), &lease, false) }).unwrap();
    world.report(attempt, 9, &seconds("0.7"), &lease, false);
    other.change(&Change::StopJob { job: "j".into(), by: "op".into(), why: String::new() }).unwrap();
    let decision = world.report(attempt, 10, &seconds("0.8"), &lease, false);
    assert_eq!(decision, Decision::Stop(StopReason::OperatorStop));
    assert_eq!(world.job("j").charged.total.0, 200_000);
    world.check();
}

#[test]
fn jobs_that_start_together_burn_the_same() {
    let mut world = World::with_limit("0.05");
    let mut burners: Vec<Burner> = (0..5).map(|at| Burner::start(&mut world, &format!("job-{at}"))).collect();
    burn_all(&mut world, &mut burners);
    let burned: Vec<u64> = burners.iter().map(|burner| burner.cpu_us).collect();
    let (least, most) = (*burned.iter().min().unwrap(), *burned.iter().max().unwrap());
    // 0.05 credits are 200 s of CPU time, 40 s for each.
    assert!(least >= 36_000_000 && most <= 44_000_000, "{burned:?}");
    let left = world.account().left.unwrap();
    assert!(left.0 < 500_000, "{left} of 0.05 credits stayed unburned");
}

#[test]
fn a_job_that_comes_late_gets_half_of_what_is_left() {
    let mut world = World::with_limit("0.05");
    let mut burners = vec![Burner::start(&mut world, "early")];
    for _ in 0..20 {
        world.pass_s(1);
        burners[0].pass(&mut world);
    }
    let before_us = burners[0].cpu_us;
    burners.push(Burner::start(&mut world, "late"));
    burn_all(&mut world, &mut burners);
    let (early_us, late_us) = (burners[0].cpu_us - before_us, burners[1].cpu_us);
    assert!(late_us * 10 > early_us * 8, "{early_us} µs and {late_us} µs");
}
