//! Whole jobs on scripted devices, in simulated time. The script is that of the fake library, and is the truth.

#![allow(clippy::pedantic, reason = "a test, not an interface")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::declared::Declared;
use super::device::Device as Metered;
use super::figures::{Mode, Sight};
use super::gpus::{Gpus, sight};
use super::identity::OpenFiles;
use super::need::Asking;
use super::wire::Stretch as Counted;
use super::wire::{Ask, AskCounters, AskDevice, Fault, FaultKind, Listed, ListedDevice, Polled, PolledDevice};

mod mishaps;
#[path = "../../../tests/fake-nvml/script.rs"]
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    reason = "shared with the fake library"
)]
mod script;

use script::{Device, PERIOD_US, Pid, Stretch};

const CLOCK_US: u64 = 77_000_000;
const SECOND: u64 = 1_000_000;
/// The job begins then, so that the driver has a past.
const START_US: u64 = 20 * SECOND;

fn stretch(from_ms: u64, until_ms: u64, percent: u64, pids: &[u32]) -> Stretch {
    Stretch { from_ms, until_ms, percent, pids: pids.iter().map(|pid| Pid::Number(*pid)).collect() }
}

fn device(busy: Vec<Stretch>) -> Device {
    let mut device: Device = serde_json::from_value(serde_json::json!({ "uuid": "GPU-a" })).unwrap();
    device.busy = busy;
    device
}

fn polled(device: &Device, ask: &AskDevice, now_us: u64, counted_from_us: u64) -> PolledDevice {
    let mut polled = PolledDevice::new(ask.uuid.clone(), now_us);
    let ring = device.ring(now_us, CLOCK_US).into_iter().filter(|sample| ask.whole_ring || sample.at > ask.after);
    polled.samples = Ok(ring.map(|sample| (sample.at, sample.value)).collect());
    let used = device.used(now_us, CLOCK_US, ask.after).into_iter();
    polled.used = Ok(used.map(|(pid, percent, _)| (pid, percent)).collect());
    polled.running = Ok(script::open(&device.busy, now_us).into_iter().map(|pid| (pid, 1)).collect());
    if ask.counters != AskCounters::No && device.counters {
        let from_us = if ask.counters == AskCounters::Anew { now_us } else { counted_from_us };
        let ppm = script::busy_ppm(&device.busy, from_us, now_us) * device.counters_percent.unwrap_or(100) / 100;
        let busy_ppm = u32::try_from(ppm).unwrap();
        polled.counted = Some(Ok(Counted { from_us, until_us: now_us, busy_ppm, ..Counted::default() }));
    }
    polled.energy_mj = Some(device.energy_mj(now_us));
    polled.mps = device.mps;
    polled
}

struct Job {
    gpus: Gpus,
    pid: i32,
    /// When the counters were read before.
    counted_us: u64,
}

impl Job {
    fn new(pid: i32, declared: bool, exclusive: bool, driver: &str, host_pids: bool) -> Self {
        let (uuid, model) = ("GPU-a".to_owned(), "NVIDIA H200".to_owned());
        let info = ListedDevice { uuid, model, minor: Some(0), ..ListedDevice::default() };
        let listed = Listed { driver: driver.to_owned(), devices: vec![info], ..Listed::default() };
        let uuids = declared.then(|| "GPU-a".to_owned()).into_iter().collect();
        let declared = Declared { uuids, exclusive, ..Declared::default() };
        Self { gpus: Gpus::new(&listed, declared, host_pids, 0), pid, counted_us: 0 }
    }

    /// On the host, under a driver of today.
    fn here(pid: i32, exclusive: bool) -> Self {
        Self::new(pid, true, exclusive, "570.124.06", true)
    }

    fn look(&mut self, device: &Device, now_us: u64) {
        self.look_with(device, &[self.pid], now_us);
    }

    fn look_with(&mut self, device: &Device, living: &[i32], now_us: u64) {
        let Some(Ask::Poll { devices, .. }) = self.gpus.ask(&Asking::All, now_us, now_us) else {
            panic!("nothing is asked")
        };
        let devices = devices.iter().map(|ask| polled(device, ask, now_us, self.counted_us)).collect();
        self.counted_us = now_us;
        self.gpus.take(&Polled { devices, cpu_us: 0 }, living, None, now_us);
    }

    fn begin(&mut self, device: &Device) {
        self.look(device, START_US - SECOND);
        self.gpus.begin(self.pid, START_US);
        self.look(device, START_US + 5_000);
    }

    /// Looks at these times, ends at `end_us`, and looks for the last time; busy and allocated time.
    fn run(&mut self, device: &Device, looks: &[u64], end_us: u64) -> (u64, u64) {
        self.begin(device);
        looks.iter().take_while(|at_us| **at_us < end_us).for_each(|at_us| self.look(device, *at_us));
        self.end(device, end_us)
    }

    fn end(&mut self, device: &Device, end_us: u64) -> (u64, u64) {
        self.look(device, end_us);
        self.gpus.end(end_us);
        self.look(device, end_us + 400_000);
        let usage = self.gpus.usage(end_us + 400_000);
        usage.get("GPU-a").map_or((0, 0), |of| (of.busy_seconds.0, of.allocated_seconds.0))
    }

    fn metered(&self) -> &Metered {
        &self.gpus.all()[0]
    }

    fn said(&self, words: &str) -> bool {
        self.metered().notes().iter().any(|note| note.contains(words))
    }
}

fn each_second(until_us: u64) -> Vec<u64> {
    (1..).map(|second| START_US + second * SECOND).take_while(|at_us| *at_us < until_us).collect()
}

fn truth(device: &Device, from_us: u64, until_us: u64) -> u64 {
    script::busy_ppm(&device.busy, from_us, until_us) * (until_us - from_us) / 1_000_000
}

#[test]
fn known_duty_cycles_are_read_within_a_percent() {
    for (percent, period_us) in
        [1, 10, 50, 90, 100].into_iter().flat_map(|percent| [(percent, PERIOD_US), (percent, 200_000)])
    {
        for long_ms in [300, 1_500, 60_000] {
            let mut device = device(vec![stretch(0, u64::MAX / 2_000, percent, &[9])]);
            device.period_us = period_us;
            let end_us = START_US + long_ms * 1_000;
            let (busy, allocated) = Job::here(7, true).run(&device, &each_second(end_us), end_us);
            let truth = truth(&device, START_US, end_us);
            assert_eq!(allocated, long_ms * 1_000);
            // What is below a percent is cut off to nothing.
            let allowed = (truth / 100).max(50_000).max(if percent < 2 { long_ms * 5 } else { 0 });
            assert!(busy.abs_diff(truth) <= allowed, "{percent} % of {long_ms} ms: {busy} for {truth}");
        }
    }
}

/// Looks at any time, late ones and stalls included.
#[test]
fn counters_are_exact_to_three_thousandths() {
    for percent in [1, 10, 50, 90, 100] {
        let mut device = device(vec![stretch(0, u64::MAX / 2_000, percent, &[9])]);
        device.counters = true;
        let looks: Vec<u64> = [700, 1_900, 2_000, 6_900, 7_100, 9_000].map(|ms| START_US + ms * 1_000).to_vec();
        let mut job = Job::here(7, true);
        let (busy, allocated) = job.run(&device, &looks, START_US + 10 * SECOND);
        let truth = truth(&device, START_US, START_US + 10 * SECOND);
        assert!(busy.abs_diff(truth) <= truth * 3 / 1_000, "{percent} %: {busy} for {truth}");
        assert!(job.metered().error_bound_us().unwrap() <= 100_000 + allocated * 3 / 1_000);
    }
}

#[test]
fn two_jobs_get_what_is_theirs_as_far_as_samples_tell() {
    let device = device(vec![stretch(0, 200_000, 100, &[7, 8])]);
    let end_us = START_US + 60 * SECOND;
    let of = |pid| Job::here(pid, false).run(&device, &each_second(end_us), end_us).0;
    let (a, b) = (of(7), of(8));
    assert!((a + b).abs_diff(60 * SECOND) <= 600_000, "{a} + {b}");
    // 360 samples, each given to one of the two by chance: a standard deviation of 5.3 % of either one's time.
    assert!(a.abs_diff(30 * SECOND) < 3 * 1_600_000, "{a}");
}

#[test]
fn a_driver_that_says_zero_for_processes_is_seen_through_where_one_job_is_alone() {
    let mut device = device(vec![stretch(0, 200_000, 80, &[7])]);
    device.says_zero = true;
    let end_us = START_US + 10 * SECOND;
    let (busy, _) = Job::here(7, false).run(&device, &each_second(end_us), end_us);
    assert!(busy.abs_diff(8 * SECOND) < 100_000, "{busy}");
    device.busy[0].pids.push(Pid::Number(8));
    let mut job = Job::here(7, false);
    assert_eq!(job.run(&device, &each_second(end_us), end_us).0, 0);
    assert!(job.metered().figures().unattributed_us.abs_diff(8 * SECOND) < 100_000);
}

#[test]
fn in_a_container_anothers_number_is_not_ours() {
    // The host's process 7 works; ours, which is 7 in its namespace, is not on the device.
    let device = device(vec![stretch(0, 200_000, 80, &[7])]);
    let end_us = START_US + 10 * SECOND;
    let mut job = Job::new(7, true, false, "570.124.06", false);
    job.gpus.begin(7, START_US);
    for at_us in each_second(end_us) {
        let Some(Ask::Poll { devices, .. }) = job.gpus.ask(&Asking::All, at_us, at_us) else { panic!() };
        let mut polled = polled(&device, &devices[0], at_us, 0);
        polled.running = Ok(Vec::new());
        job.gpus.take(&Polled { devices: vec![polled], cpu_us: 0 }, &[7], None, at_us);
    }
    assert_eq!(job.gpus.usage(end_us)["GPU-a"].busy_seconds.0, 0);
    // Under an older driver nothing can be matched at all: it is charged as allocated, and told.
    let mut job = Job::new(7, true, false, "550.90.07", false);
    let (busy, allocated) = job.run(&device, &each_second(end_us), end_us);
    assert!(busy == allocated && job.said("--gpu-exclusive"), "{busy} {allocated}");
    assert_eq!(sight("535.104.12", false), Sight::default());
    assert!(sight("535.113.01", false).running && !sight("565.77", false).used && sight("580.1", false).used);
}

#[test]
fn what_cannot_be_told_apart_is_charged_as_allocated() {
    let mut mps = device(vec![stretch(0, 200_000, 80, &[7, 8])]);
    mps.mps = true;
    let end_us = START_US + 5 * SECOND;
    let mut job = Job::here(7, false);
    let (busy, allocated) = job.run(&mps, &each_second(end_us), end_us);
    assert!(allocated - busy < 300_000 && job.said("MPS"), "{busy} of {allocated}");
    assert_eq!(job.metered().figures().mode, Mode::Allocated);
}

#[test]
fn a_driver_loaded_anew_loses_no_more_than_its_ring() {
    let mut device = device(vec![stretch(0, 200_000, 60, &[9])]);
    device.reloaded_ms = Some(25_300);
    let end_us = START_US + 12 * SECOND;
    let mut job = Job::here(7, true);
    let (busy, _) = job.run(&device, &each_second(end_us), end_us);
    assert!(busy <= 7_200_000 && busy > 7_200_000 - 1_500_000, "{busy}");
    assert!(job.said("loaded anew"), "{:?}", job.metered().notes());
}

#[test]
fn a_process_shorter_than_a_look_is_seen_by_what_it_used() {
    let mut device = device(vec![stretch(21_100, 21_700, 100, &[7])]);
    device.keeps_the_dead = true;
    let end_us = START_US + 5 * SECOND;
    let mut job = Job::new(7, false, false, "570.124.06", true);
    let (busy, allocated) = job.run(&device, &each_second(end_us), end_us);
    assert!(busy.abs_diff(600_000) < 200_000 && allocated >= busy, "{busy} of {allocated}");
}

/// Looks each second, or as often as the device makes samples where processes come and go; busy time.
fn run_attentively(mut job: Job, device: &Device, living: &[i32], end_us: u64) -> u64 {
    job.begin(device);
    let mut now_us = START_US;
    while now_us < end_us {
        now_us += if job.gpus.is_restless(now_us) { SECOND / 5 } else { SECOND };
        job.look_with(device, living, now_us);
    }
    job.end(device, end_us).0
}

/// Sixty processes one after the other. Each works for the last part of the 400 ms that it has the device.
fn sixty(work_ms: u64, neighbour: &[u32]) -> Device {
    let of = |number: u64| {
        let (from_ms, pids) = (20_100 + 530 * number, [&[100 + u32::try_from(number).unwrap()], neighbour].concat());
        let busy_ms = from_ms + 400 - work_ms;
        [(from_ms, busy_ms, 0), (busy_ms, from_ms + 400, 100)]
            .map(|(from, until, percent)| stretch(from, until, percent, &pids))
    };
    let mut device = device((0..60).flat_map(of).chain([stretch(0, 200_000, 0, neighbour)]).collect());
    (device.period_us, device.tells_idle) = (200_000, true);
    device
}

#[test]
fn processes_that_come_and_go_between_looks_are_looked_for_more_often() {
    let (device, end_us) = (sixty(100, &[]), START_US + 33 * SECOND);
    let busy = run_attentively(Job::here(7, false), &device, &(100..160).collect::<Vec<_>>(), end_us);
    let truth = truth(&device, START_US, end_us);
    assert!(busy.abs_diff(truth) <= truth / 10, "{busy} of {truth}");
}

#[test]
fn a_neighbour_does_not_pay_for_processes_that_come_and_go() {
    let (device, end_us) = (sixty(400, &[50]), START_US + 33 * SECOND);
    let neighbour = run_attentively(Job::here(50, false), &device, &[50], end_us);
    let guests = run_attentively(Job::here(7, false), &device, &(100..160).collect::<Vec<_>>(), end_us);
    let half = truth(&device, START_US, end_us) / 2;
    assert!(
        neighbour.abs_diff(half) <= half / 5 && guests.abs_diff(half) <= half / 5,
        "{neighbour}, {guests}: {half} each"
    );
}

#[test]
fn the_end_of_a_process_costs_its_neighbour_no_more_than_a_look() {
    let device = device(vec![stretch(0, 25_900, 100, &[7, 8]), stretch(25_900, 200_000, 0, &[8])]);
    let end_us = START_US + 8 * SECOND;
    let mut looks = each_second(end_us);
    let neighbour = Job::here(8, false).run(&device, &looks, end_us).0;
    looks.iter_mut().for_each(|at_us| *at_us -= 300_000);
    let ended = Job::here(7, false).run(&device, &looks, end_us).0;
    assert!(
        (ended + neighbour).abs_diff(5_900_000) < SECOND && neighbour.abs_diff(2_950_000) < SECOND,
        "{ended} + {neighbour}"
    );
}

#[test]
fn a_frozen_job_has_no_device() {
    let device = device(vec![stretch(0, 200_000, 100, &[9])]);
    let mut job = Job::here(7, true);
    job.begin(&device);
    job.look(&device, START_US + SECOND);
    job.gpus.hold(true, START_US + 2 * SECOND);
    job.look(&device, START_US + 3 * SECOND);
    job.gpus.hold(false, START_US + 5 * SECOND);
    let (busy, allocated) = job.end(&device, START_US + 6 * SECOND);
    assert_eq!(allocated, 3 * SECOND);
    assert!(busy <= allocated);
}

#[test]
fn what_could_not_be_read_at_the_end_is_charged_as_allocated() {
    let device = device(vec![stretch(0, 200_000, 50, &[9])]);
    let mut job = Job::here(7, true);
    job.begin(&device);
    let fault = Fault { kind: FaultKind::Failed, why: "NVML did not answer".to_owned() };
    (1..=4).for_each(|second| job.look(&device, START_US + second * SECOND));
    (5..=9).for_each(|second| job.gpus.fail(&fault, &OpenFiles::default(), START_US + second * SECOND));
    job.gpus.end(START_US + 10 * SECOND);
    job.gpus.close();
    let busy = job.gpus.usage(START_US + 11 * SECOND)["GPU-a"].busy_seconds.0;
    assert!(busy.abs_diff(2 * SECOND + 6 * SECOND) < 200_000, "{busy}");
    assert!(job.said("last seconds"));
}

#[test]
fn without_the_library_open_files_tell() {
    let mut job = Job::new(7, false, false, "570.124.06", true);
    job.gpus.begin(7, START_US);
    let fault = Fault { kind: FaultKind::Failed, why: "no library".to_owned() };
    for second in 1..=30 {
        let minors = if second > 10 { BTreeSet::from([0]) } else { BTreeSet::new() };
        let open = OpenFiles { minors, complete: true, ..OpenFiles::default() };
        job.gpus.fail(&fault, &open, START_US + second * SECOND);
    }
    let usage = job.gpus.usage(START_US + 30 * SECOND);
    assert_eq!(usage["GPU-a"].allocated_seconds.0, 20 * SECOND);
    assert_eq!(usage["GPU-a"].busy_seconds.0, 20 * SECOND);
}

fn stretches() -> impl Strategy<Value = Vec<Stretch>> {
    let one = (0..50_000u64, 200..8_000u64, 1..=100u64, prop::sample::subsequence(vec![7u32, 8, 9], 1..=3));
    // One after the other: two at once would make a device more than busy.
    prop::collection::vec(one, 1..12).prop_map(|all| {
        let mut from = 18_000;
        let mut found = Vec::new();
        for (gap, long, percent, pids) in all {
            from += gap / 10;
            found.push(stretch(from, from + long, percent, &pids));
            from += long;
        }
        found
    })
}

proptest! {
    #![proptest_config(crate::properties::config())]

    #[test]
    fn jobs_never_get_more_than_the_device_did(
        busy in stretches(), steps in prop::collection::vec((100_000..9_000_000u64, 100_000..9_000_000u64), 1..40), long in 1..60u64,
        often in prop::sample::select(vec![1, 9]),
    ) {
        let device = device(busy);
        let end_us = START_US + long * SECOND;
        let looks = |which: fn(&(u64, u64)) -> u64| {
            let mut looks: Vec<u64> = steps.iter().scan(START_US, |at, step| { *at += which(step) / often; Some(*at) }).collect();
            while let Some(last) = looks.last().copied().filter(|last| *last < end_us) {
                looks.push(last + 9 * SECOND / often);
            }
            looks
        };
        let (first, second) = (looks(|step| step.0), looks(|step| step.1));
        let alone = Job::here(6, true).run(&device, &first, end_us);
        let again = Job::here(6, true).run(&device, &second, end_us);
        let truth = truth(&device, START_US, end_us);
        // The same however often it is read: but for what the driver cuts off, and a period where a stretch begins or ends.
        let edges = 2 * PERIOD_US;
        prop_assert!(alone.0.abs_diff(again.0) <= edges, "{} {}", alone.0, again.0);
        prop_assert!(alone.0 <= truth + edges + PERIOD_US * 12 / 10 && alone.0 <= alone.1, "{} of {truth}", alone.0);
        prop_assert!(alone.0 + edges + long * SECOND / 100 >= truth, "{} of {truth}", alone.0);
        let a = Job::here(7, false).run(&device, &first, end_us).0;
        let b = Job::here(8, false).run(&device, &second, end_us).0;
        // Who comes and goes between two looks can be taken for one that was seen.
        let gap = |looks: &[u64]| {
            let ends = looks.iter().copied().chain([end_us]).map(|at_us| at_us.min(end_us));
            ends.scan(START_US, |before, at_us| Some(at_us - std::mem::replace(before, at_us))).max()
        };
        let gap_ms = gap(&first).max(gap(&second)).unwrap_or(0) / 1_000 + 400;
        let unseen = device.busy.iter().map(|one| (one.until_ms - one.from_ms, one.percent)).filter(|(ms, _)| *ms <= gap_ms);
        let unseen: u64 = unseen.map(|(ms, percent)| ms * 10 * percent).sum();
        prop_assert!(a + b <= alone.0 + edges + long * SECOND / 50 + unseen, "{a} + {b} of {}, {unseen}", alone.0);
        prop_assert!(a <= long * SECOND && b <= long * SECOND, "{a}, {b} in {long} s");
    }
}
