//! Grants, tokens, rates, stops and corrections.

use super::*;
use crate::domain::lease::burned_in;
use crate::domain::usage::GpuUsage;
use crate::domain::weight::GpuWeight;

#[test]
fn the_allowance_is_spent_first_and_then_the_grant_that_expires_first() {
    let mut world = World::with_limit("0.0005");
    for (amount, after_s, key) in [("0.0005", None, "never"), ("0.0004", Some(3_600), "soon")] {
        let expires_at = after_s.map(|after| NOON_S + after);
        let amount = amount.parse().unwrap();
        let change =
            Change::Grant { user: "u".into(), amount, expires_at, by: "t".into(), why: key.into(), key: key.into() };
        assert!(!world.change(change.clone()).unwrap().again);
        assert!(world.change(change).unwrap().again);
    }
    let (attempt, lease) = world.open("j", None);
    let (cpu_us, _) = world.burn_out(attempt, lease);
    assert_eq!(cpu_us, 5_600_000);
    let account = world.account();
    assert_eq!((account.left, account.grants.len()), (Some(Nanocredits::ZERO), 0));
}

/// One number says whether anything was stopped, and one look of whom.
#[test]
fn stops_are_counted_and_told_of_many_attempts_at_once() {
    let mut world = World::with_limit("5");
    let (first, lease) = world.open("a", None);
    let (second, _) = world.open("b", None);
    let unknown = Uuid::now_v7();
    let told = |world: &mut World| {
        let mut stops = world.ledger.attempt_stops(&[first, second, unknown]).unwrap();
        stops.sort_by_key(|stop| stop.attempt != first);
        stops.iter().map(|stop| (stop.attempt == first, stop.owner.clone(), stop.is_stopped)).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut world), [(true, "u".to_owned(), false), (false, "u".to_owned(), false)]);
    let asked = Query::AttemptStop { attempt: second, wait_ms: 0 };
    assert_eq!(world.ledger.read(&asked).unwrap(), View::Stopped(false));
    let before = world.ledger.stop_count().unwrap();
    world.report(first, 1, &seconds("1"), &lease, false);
    assert_eq!(world.ledger.stop_count().unwrap(), before);
    let stop = Change::StopJob { job: "b".into(), by: "t".into(), why: "w".into() };
    let mut other = StoreLedger::new(another_store(&world.place, Box::new(world.clock.clone())));
    other.change(&stop).unwrap();
    assert_eq!(world.ledger.stop_count().unwrap(), before + 1);
    other.change(&stop).unwrap();
    assert_eq!(world.ledger.stop_count().unwrap(), before + 1, "nothing more was stopped");
    assert_eq!(told(&mut world), [(true, "u".to_owned(), false), (false, "u".to_owned(), true)]);
    assert_eq!(world.ledger.read(&asked).unwrap(), View::Stopped(true));
    // One that has ended is told so as well.
    world.finish(first, &seconds("1"), lease.period);
    assert_eq!(told(&mut world)[0], (true, "u".to_owned(), true));
}

#[test]
fn an_expired_grant_is_free_no_more() {
    let mut world = World::with_limit("0");
    let expires_at = Some(NOON_S + 10);
    let amount = Nanocredits(1_000_000);
    world
        .change(Change::Grant {
            user: "u".into(),
            amount,
            expires_at,
            by: "t".into(),
            why: "w".into(),
            key: "k".into(),
        })
        .unwrap();
    assert_eq!(world.account().available, Some(amount));
    world.pass_s(11);
    assert_eq!(world.account().available, Some(Nanocredits::ZERO));
    assert_eq!(world.refused("j"), StopReason::CreditsExhausted);
    world.check();
}

#[test]
fn tokens_are_charged_once_for_a_key() {
    let mut world = World::with_limit("0.01");
    let (_, _) = world.open("j", None);
    let tokens = |count, key: &str| Change::ChargeTokens { job: "j".into(), count, by: "b".into(), key: key.into() };
    let first = world.change(tokens(1_000, "a")).unwrap();
    assert_eq!((first.charged.0, first.again), (5_000_000, false));
    assert_eq!(world.change(tokens(1_000, "a")).unwrap().charged.0, 5_000_000);
    let from_another = Change::ChargeTokens { job: "j".into(), count: 1_000, by: "c".into(), key: "a".into() };
    assert!(world.change(from_another).unwrap().again);
    assert!(matches!(world.change(tokens(999, "a")), Err(LedgerError::Refused(_))));
    let much = world.change(tokens(1_000_000, "b")).unwrap();
    assert!(much.overshoot.0 > 0 && much.charged.0 < 5_000_000);
    assert!(
        world.change(Change::ChargeTokens { job: "none".into(), count: 1, by: "b".into(), key: "c".into() }).is_err()
    );
    world.check();
}

#[test]
fn a_clock_set_back_stays_in_the_period_that_was_reached() {
    let mut world = World::new();
    let (attempt, lease) = world.open("j", None);
    world.report(attempt, 1, &seconds("0.4"), &lease, false);
    world.pass_s(-2 * DAY_S);
    let account = world.account();
    assert_eq!((account.current.0, account.period_start.as_str()), (100_000, "2026-11-24T00:00:00Z"));
    world.report(attempt, 2, &seconds("0.5"), &lease, false);
    world.pass_s(4 * DAY_S);
    world.report(attempt, 3, &seconds("0.6"), &lease, false);
    world.finish(attempt, &seconds("0.6"), lease.period);
    assert_eq!(world.job("j").charged.total.0, 150_000);
    world.check();
}

#[test]
fn a_promised_period_begins_though_the_clock_was_set_back() {
    let mut world = World::new();
    world.pass_s(DAY_S / 2 - 20);
    let (attempt, lease) = world.open("j", None);
    let next = lease.next.unwrap();
    world.pass_s(-DAY_S / 2);
    let report = crossing(attempt, 1, &lease, ["0.4", "0.8"]);
    let Decision::Lease(lease) = world.ledger.report(&report).unwrap().decision else { panic!() };
    assert!(lease.period == next.period && lease.lasts_ms == 30_000, "{lease:?}");
    assert_eq!(world.account().current.0, 100_000);
    world.check();
}

#[test]
fn rates_are_pinned_for_an_attempt() {
    let mut world = World::new();
    let (attempt, lease) = world.open("j", None);
    let rates = RateCard { cpu_per_second: Nanocredits(500_000), ..RateCard::default() };
    world.change(Change::SetRates { rates, by: "t".into() }).unwrap();
    let answer = world.finish(attempt, &seconds("1"), lease.period);
    assert_eq!(answer.charged.total.0, 250_000);
    let (attempt, lease) = world.open("k", None);
    assert_eq!(world.finish(attempt, &seconds("1"), lease.period).charged.total.0, 500_000);
    world.check();
}

#[test]
fn gpus_are_charged_by_their_names() {
    let mut world = World::new();
    let weight = |pattern: &str, weight_ppm| GpuWeight { pattern: pattern.to_owned(), weight_ppm };
    let gpu_weights = vec![weight("*MIG 1g.*", 250_000), weight("*H200*", 4_000_000)];
    world.change(Change::SetRates { rates: RateCard { gpu_weights, ..RateCard::default() }, by: "t".into() }).unwrap();
    // A whole H200, a part of one, and one of a name that nobody knows: 5.25 of weight together.
    let mut request = World::request("j", None);
    let (whole, part) = ("NVIDIA H200".to_owned(), "NVIDIA H200 MIG 1g.18gb".to_owned());
    request.resources.gpu_models = [(whole.clone(), 1), (part.clone(), 1)].into();
    request.resources.gpus = 1;
    let OpenAnswer::Opened { lease, rates, .. } = world.ledger.open(&request).unwrap() else { panic!() };
    let pace = request.resources.pace(&rates);
    assert_eq!(pace.gpus_ppm, 5_250_000);
    assert!(lease.ceiling >= burned_in(rates.highest_rate_per_second(pace.cpus_ppm, pace.gpus_ppm), 500_000));
    let gpu = |model: &str, busy: &str| GpuUsage {
        model: model.to_owned(),
        busy_seconds: busy.parse().unwrap(),
        allocated_seconds: "10".parse().unwrap(),
    };
    let gpus = [("GPU-a".to_owned(), gpu(&whole, "0.5")), ("MIG-b".to_owned(), gpu(&part, "1"))].into();
    let mut used = Usage { gpus, ..Usage::default() };
    let mut told = report(request.identity.attempt, 1, &used, &lease, false);
    told.resources = request.resources.clone();
    world.ledger.report(&told).unwrap();
    // What it was called first is what it is priced as, and time does not go back.
    used.gpus.insert("GPU-a".to_owned(), gpu("Tesla T4", "0.4"));
    let answer = world.finish(request.identity.attempt, &used, lease.period);
    assert_eq!((answer.charged.gpu.0, answer.charged.total.0), (5_625_000, 5_625_000));
    world.check();
}

#[test]
fn an_operators_stop_reaches_every_task_and_keeps_new_ones_out() {
    let mut world = World::new();
    let (attempt, lease) = world.open("j", None);
    world.change(Change::StopJob { job: "j".into(), by: "op".into(), why: "w".into() }).unwrap();
    let decision = world.report(attempt, 1, &seconds("0.1"), &lease, false);
    assert_eq!(decision, Decision::Stop(StopReason::OperatorStop));
    assert_eq!(world.refused("j"), StopReason::OperatorStop);
}

#[test]
fn a_correction_moves_the_balance_and_is_an_entry() {
    let mut world = World::with_limit("1");
    let adjust = |amount: &str, key: &str| Change::Adjust {
        user: "u".into(),
        amount: amount.parse().unwrap(),
        grant: None,
        expires_at: None,
        by: "op".into(),
        why: "refund".into(),
        key: key.into(),
    };
    world.change(adjust("0.5", "a")).unwrap();
    world.change(adjust("-0.25", "b")).unwrap();
    assert_eq!(world.account().left, Some(Nanocredits(1_250_000_000)));
    world.check();
}

/// One that says it is slow and burns much: what its hold does not cover is charged from what is free, and the rest is
/// overshoot; nobody else loses what they hold.
#[test]
fn a_task_that_lies_about_its_rate_takes_nothing_from_others() {
    let mut world = World::with_limit("0.001");
    let (honest, held) = world.open("honest", None);
    let mut request = World::request("liar", None);
    request.resources.cpus_ppm = 1;
    let OpenAnswer::Opened { lease, .. } = world.ledger.open(&request).unwrap() else { panic!() };
    let liar = request.identity.attempt;
    let mut told = report(liar, 1, &seconds("9"), &lease, false);
    told.resources = request.resources;
    world.ledger.report(&told).unwrap();
    world.check();
    let answer = world.finish(liar, &seconds("9"), lease.period);
    assert_eq!(answer.charged.total.saturating_add(answer.overshoot).0, 2_250_000);
    assert_eq!(answer.charged.total, Nanocredits(1_000_000).saturating_sub(held.ceiling));
    let charged =
        world.finish(honest, &Usage { cpu_used_seconds: cpu_at(held.ceiling), ..Usage::default() }, held.period);
    assert_eq!(charged.overshoot, Nanocredits::ZERO);
    world.check();
}
