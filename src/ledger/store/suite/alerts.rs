//! Thresholds are told once.

use super::*;

/// The percentages that were to be told since the last look.
fn told(world: &mut World) -> Vec<i64> {
    let alerts = world.ledger.take_alerts().unwrap();
    world.ledger.alerts_sent(&alerts).unwrap();
    alerts.iter().map(|alert| alert.percent).collect()
}

fn tokens(world: &mut World, count: u64, key: &str) {
    let (job, by, key) = ("j".into(), "b".to_owned(), key.to_owned());
    world.change(Change::ChargeTokens { job, count, by, key }).unwrap();
}

#[test]
fn each_threshold_is_told_once() {
    let mut world = World::with_limit("0.01");
    let (attempt, lease) = world.open("j", None);
    world.finish(attempt, &seconds("0"), lease.period);
    assert_eq!(told(&mut world), [0; 0]);
    for (count, expected) in
        [(1_500, &[][..]), (99, &[]), (1, &[80]), (200, &[]), (100, &[95]), (101, &[100]), (9, &[])]
    {
        tokens(&mut world, count, &count.to_string());
        assert_eq!(told(&mut world), expected, "{count}");
    }
    // More to spend: it can be reached again.
    world.limit("0.02").unwrap();
    tokens(&mut world, 1_200, "more");
    assert_eq!(told(&mut world), [80]);
    world.pass_s(DAY_S);
    assert_eq!(told(&mut world), [0; 0]);
    tokens(&mut world, 3_200, "another day");
    assert_eq!(told(&mut world), [80]);
    world.check();
}

#[test]
fn a_job_that_burns_out_is_told_of_and_so_is_one_that_is_refused() {
    let mut world = World::with_limit("0.001");
    let (attempt, lease) = world.open("j", None);
    world.burn_out(attempt, lease);
    let told_of = told(&mut world);
    assert_eq!(told_of.last(), Some(&100), "{told_of:?}");
    let poor = Change::limit("poor", Some(Nanocredits(10)), PeriodLength::Day, "t");
    world.change(poor).unwrap();
    assert_eq!(told(&mut world), [0; 0]);
    for job in ["k", "l"] {
        let mut request = World::request(job, None);
        request.identity.user = "poor".into();
        assert!(matches!(world.ledger.open(&request).unwrap(), OpenAnswer::Refused { .. }));
    }
    assert_eq!(told(&mut world), [100]);
}

/// It asks for more than there ever was.
#[test]
fn a_wide_job_that_cannot_begin_exhausts_no_account() {
    let mut world = World::with_limit("0.01");
    let mut request = World::request("wide", None);
    request.resources.cpus_ppm = 1_000_000_000;
    assert!(matches!(world.ledger.open(&request).unwrap(), OpenAnswer::Refused { .. }));
    assert_eq!(told(&mut world), [0; 0]);
    let (attempt, lease) = world.open("narrow", None);
    world.finish(attempt, &seconds("0.1"), lease.period);
    world.check();
}

#[test]
fn what_did_not_arrive_is_tried_again_later_and_later() {
    let mut world = World::with_limit("0.001");
    let (attempt, lease) = world.open("j", None);
    world.burn_out(attempt, lease);
    let first = world.ledger.take_alerts().unwrap().len();
    assert!(first > 0);
    let mut waited_s = Vec::new();
    for _ in 0..4 {
        let mut waits_s = 0;
        while world.ledger.take_alerts().unwrap().is_empty() {
            world.pass_s(1);
            waits_s += 1;
        }
        waited_s.push(waits_s);
    }
    assert!(waited_s.windows(2).all(|pair| pair[0] < pair[1]), "{waited_s:?}");
    world.pass_s(4 * DAY_S);
    world.ledger.take_alerts().unwrap();
    world.pass_s(30 * DAY_S);
    assert_eq!(told(&mut world), [0; 0]);
}
