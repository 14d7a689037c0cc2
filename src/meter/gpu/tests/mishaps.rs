//! What goes wrong for a while, or for good.

use std::ops::RangeInclusive;

use super::*;
use crate::meter::gpu::wire::Mig;

/// Looks each second, of which those of `hung_s` get no answer, and once more at the end; busy and allocated time.
fn hang(job: &mut Job, device: &Device, hung_s: RangeInclusive<u64>, last_s: u64) -> (u64, u64) {
    job.begin(device);
    let fault = Fault { kind: FaultKind::Failed, why: "NVML did not answer".to_owned() };
    for second in 1..=last_s {
        let now_us = START_US + second * SECOND;
        if hung_s.contains(&second) {
            job.gpus.fail(&fault, &OpenFiles::default(), now_us)
        } else {
            job.look(device, now_us)
        }
    }
    job.end(device, START_US + (last_s + 1) * SECOND)
}

/// Counters that are wrong would be charged by for ever.
#[test]
fn counters_that_the_samples_contradict_are_given_up() {
    let mut device = device(vec![stretch(0, u64::MAX / 2_000, 90, &[9])]);
    (device.counters, device.counters_percent) = (true, Some(40));
    let end_us = START_US + 60 * SECOND;
    let mut job = Job::here(7, true);
    let (busy, _) = job.run(&device, &each_second(end_us), end_us);
    let truth = truth(&device, START_US, end_us);
    assert!(job.said("differ"));
    assert!(busy.abs_diff(truth) <= 2 * SECOND, "{busy} for {truth}");
}

/// A client of MPS, or a device that one look finds unsupported, is no reason for the rest of the job.
#[test]
fn what_cannot_be_read_for_a_while_is_read_again() {
    let mut device = device(vec![stretch(0, u64::MAX / 2_000, 50, &[9])]);
    let end_us = START_US + 30 * SECOND;
    for kind in [FaultKind::Unsupported, FaultKind::Denied, FaultKind::Failed] {
        let mut job = Job::here(7, true);
        job.begin(&device);
        job.look(&device, START_US + SECOND);
        let fault = Fault { kind, why: "not now".to_owned() };
        job.gpus.fail(&fault, &OpenFiles::default(), START_US + 2 * SECOND);
        (3..30).for_each(|second| job.look(&device, START_US + second * SECOND));
        let (busy, _) = job.end(&device, end_us);
        assert!(busy.abs_diff(15 * SECOND) <= 2 * SECOND, "{kind:?}: {busy}");
    }
    let mut job = Job::here(9, false);
    job.begin(&device);
    for second in 1..30 {
        device.mps = second == 5;
        job.look(&device, START_US + second * SECOND);
    }
    let (busy, _) = job.end(&device, end_us);
    assert!(busy.abs_diff(15 * SECOND) <= 2 * SECOND && job.said("MPS"), "{busy}");
}

/// It is nobody's from its loss on, and the job's again if it comes back.
#[test]
fn a_lost_device_is_not_charged() {
    let device = device(vec![stretch(0, u64::MAX / 2_000, 50, &[9])]);
    let mut job = Job::here(7, true);
    job.begin(&device);
    (1..=5).for_each(|second| job.look(&device, START_US + second * SECOND));
    let lost = Fault { kind: FaultKind::Lost, why: "fell off the bus".to_owned() };
    for second in 6..=20 {
        job.gpus.fail(&lost, &OpenFiles::default(), START_US + second * SECOND);
    }
    let allocated = job.gpus.usage(START_US + 20 * SECOND)["GPU-a"].allocated_seconds.0;
    assert!(allocated <= 6 * SECOND && job.said("not charged from then on"), "{allocated}");
    (21..30).for_each(|second| job.look(&device, START_US + second * SECOND));
    let (_, allocated) = job.end(&device, START_US + 30 * SECOND);
    assert!((14 * SECOND..=16 * SECOND).contains(&allocated), "{allocated}");
}

#[test]
fn a_hang_is_charged_as_allocated_and_never_twice() {
    let device = device(vec![stretch(0, 200_000, 50, &[9])]);
    let mut job = Job::here(7, true);
    let (busy, _) = hang(&mut job, &device, 11..=40, 60);
    // 10 s and 20 s are read, the 30 s between are charged whole; what the ring has kept of them is not counted again.
    assert!(busy.abs_diff(5 * SECOND + 31 * SECOND + 10 * SECOND) < 1_200_000, "{busy}");
    assert!(job.said("did not answer"));
    assert!(job.metered().figures().estimated_us >= 30 * SECOND);
}

#[test]
fn a_hang_that_the_ring_outlasts_costs_nothing() {
    let device = device(vec![stretch(0, 200_000, 50, &[9])]);
    let mut job = Job::here(7, true);
    let (busy, _) = hang(&mut job, &device, 5..=13, 20);
    assert!(busy.abs_diff(10_500_000) < 100_000, "{busy}");
    assert_eq!(job.metered().figures().estimated_us, 0);
}

/// A device that the driver's files tell of is its MIG devices once NVML has told, unless it is charged as a whole by then.
#[test]
fn a_device_is_known_by_its_parts_once_nvml_has_told() {
    let whole = ListedDevice { uuid: "GPU-a".to_owned(), minor: Some(0), ..ListedDevice::default() };
    let mig = Mig { parent: "GPU-a".to_owned(), ..Mig::default() };
    let part = ListedDevice { uuid: "MIG-1".to_owned(), mig: Some(mig), ..whole.clone() };
    let of = |devices: &[&ListedDevice]| Listed {
        devices: devices.iter().map(|info| (*info).clone()).collect(),
        ..Listed::default()
    };
    for (declared, expected) in [(None, "MIG-1"), (Some("GPU-a"), "GPU-a")] {
        let declared = Declared { uuids: declared.into_iter().map(str::to_owned).collect(), ..Declared::default() };
        let fault = Fault { kind: FaultKind::Failed, why: "not yet".to_owned() };
        let mut gpus = Gpus::unlisted(&of(&[&whole]), declared.clone(), true, 0);
        gpus.begin(7, SECOND);
        gpus.fail(&fault, &OpenFiles::default(), 2 * SECOND);
        gpus.take_listing(&of(&[&part]), declared, 3 * SECOND);
        let known: Vec<&str> = gpus.all().iter().map(|device| device.info().uuid.as_str()).collect();
        assert_eq!(known, [expected]);
    }
}

/// What NVML had not told by the start is read out of its ring, if it tells within some seconds.
#[test]
fn a_slow_start_of_the_driver_costs_nothing() {
    let device = device(vec![stretch(0, u64::MAX / 2_000, 50, &[9])]);
    for (late_s, exact) in [(6, true), (14, false)] {
        let info = ListedDevice { uuid: "GPU-a".to_owned(), minor: Some(0), ..ListedDevice::default() };
        let listed = Listed { driver: "570.124.06".to_owned(), devices: vec![info], ..Listed::default() };
        let declared = Declared { uuids: ["GPU-a".to_owned()].into(), exclusive: true, ..Declared::default() };
        let fault = Fault { kind: FaultKind::Failed, why: "not yet".to_owned() };
        let mut gpus = Gpus::unlisted(&listed, declared.clone(), true, START_US - SECOND);
        gpus.begin(7, START_US);
        for second in 1..late_s {
            gpus.fail(&fault, &OpenFiles::default(), START_US + second * SECOND);
        }
        gpus.take_listing(&listed, declared, START_US + late_s * SECOND);
        let mut job = Job { gpus, pid: 7, counted_us: 0 };
        (late_s..20).for_each(|second| job.look(&device, START_US + second * SECOND + 10_000));
        let (busy, allocated) = job.end(&device, START_US + 20 * SECOND);
        assert_eq!(allocated, 20 * SECOND);
        let estimated = job.metered().figures().estimated_us;
        let truth = 10 * SECOND + if exact { 0 } else { late_s * SECOND / 2 };
        assert!(
            busy.abs_diff(truth) <= SECOND && (estimated == 0) == exact,
            "{late_s} s: {busy}, {estimated} estimated"
        );
    }
}

/// Its processes still have it open.
#[test]
fn what_is_lost_or_anothers_is_not_charged_for_being_open() {
    let device = device(vec![stretch(0, u64::MAX / 2_000, 50, &[7])]);
    let open = OpenFiles { minors: [0].into(), complete: true, ..OpenFiles::default() };
    let mut job = Job::here(7, true);
    job.begin(&device);
    let lost = Fault { kind: FaultKind::Lost, why: "fell off the bus".to_owned() };
    (1..=10).for_each(|second| job.gpus.fail(&lost, &open, START_US + second * SECOND));
    let (_, allocated) = job.end(&device, START_US + 11 * SECOND);
    assert!(allocated <= 2 * SECOND, "{allocated}");

    let mut task = Job::here(7, true);
    task.gpus.of_the_job_alone(START_US - SECOND).for_each(|device| device.is_others(START_US - SECOND));
    task.begin(&device);
    (1..10).for_each(|second| task.look(&device, START_US + second * SECOND));
    assert_eq!(task.end(&device, START_US + 10 * SECOND), (0, 0));
}

/// Where files tell who may use a device, those that the job has nothing of are left alone.
#[test]
fn only_what_the_job_may_use_is_asked_for() {
    let listed = |uuid: &str, minor| ListedDevice { uuid: uuid.to_owned(), minor, ..ListedDevice::default() };
    let devices = vec![listed("mine", Some(0)), listed("other", Some(1)), listed("hidden", None)];
    let listed = Listed { driver: "570.124.06".to_owned(), devices, ..Listed::default() };
    let declared = Declared { uuids: ["mine".to_owned()].into(), ..Declared::default() };
    let mut gpus = Gpus::new(&listed, declared, true, START_US);
    gpus.begin(7, START_US);
    let asked = |gpus: &Gpus, asking| match gpus.ask(&asking, START_US, START_US) {
        Some(Ask::Poll { devices, .. }) => devices.into_iter().map(|device| device.uuid).collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    assert_eq!(asked(&gpus, Asking::Open([].into())), ["mine", "hidden"]);
    assert_eq!(asked(&gpus, Asking::Open([0, 1].into())), ["mine", "other", "hidden"]);
    assert_eq!(asked(&gpus, Asking::All), ["mine", "other", "hidden"]);
    assert!(asked(&gpus, Asking::Nothing).is_empty());
    // It was not looked at for ten seconds, and is the job's from then on.
    let look = |uuids: &[&str], running: &[(u32, u64)], at_us| {
        let of =
            |uuid: &&str| PolledDevice { running: Ok(running.to_vec()), ..PolledDevice::new(uuid.to_string(), at_us) };
        Polled { devices: uuids.iter().map(of).collect(), cpu_us: 0 }
    };
    gpus.take(&look(&["mine", "hidden"], &[], START_US + 10 * SECOND), &[7], None, START_US + 10 * SECOND);
    gpus.take(&look(&["other"], &[(7, 1)], START_US + 11 * SECOND), &[7], None, START_US + 11 * SECOND);
    let allocated_us = gpus.usage(START_US + 11 * SECOND)["other"].allocated_seconds.0;
    assert_eq!(allocated_us, SECOND);
}

/// Where the driver lists no processes, who has its file open has the device.
#[test]
fn a_device_that_hides_its_processes_is_known_by_its_file() {
    let device = device(vec![stretch(0, u64::MAX / 2_000, 50, &[9])]);
    let mut job = Job::new(7, false, false, "570.124.06", true);
    job.begin(&device);
    let open = OpenFiles { minors: [0].into(), pids: [7].into(), complete: true, ..OpenFiles::default() };
    let hidden = Err(Fault { kind: FaultKind::Unsupported, why: "a vGPU".to_owned() });
    for second in 1..=10 {
        let at_us = START_US + second * SECOND;
        let polled = PolledDevice { running: hidden.clone(), ..PolledDevice::new("GPU-a".to_owned(), at_us) };
        let needs_files = job.gpus.needs_files();
        assert_eq!(needs_files, second > 1);
        let polled = Polled { devices: vec![polled], cpu_us: 0 };
        job.gpus.take(&polled, &[7], needs_files.then_some(&open), at_us);
    }
    assert_eq!(job.gpus.usage(START_US + 10 * SECOND).len(), 1);
}
