//! Tokens that are reserved before they are used.

use super::*;
use crate::ledger::views::Reserved;

fn reserve(world: &mut World, count: u64, key: &str) -> ChangeAnswer {
    let (job, by, key) = ("j".into(), "b".to_owned(), key.to_owned());
    let answer =
        world.change(Change::ReserveTokens { job, count, lasts_ms: 60_000, new_id: Uuid::now_v7(), by, key }).unwrap();
    world.check();
    answer
}

fn settle(world: &mut World, reserved: &Reserved, count: u64, key: &str) -> Result<ChangeAnswer, LedgerError> {
    let (job, by, key) = ("j".into(), "b".to_owned(), key.to_owned());
    let answer = world.change(Change::SettleTokens { job, reservation: reserved.reservation, count, by, key });
    world.check();
    answer
}

#[test]
fn what_is_reserved_is_held_until_it_is_settled() {
    let mut world = World::with_limit("0.01");
    let (attempt, lease) = world.open("j", None);
    let before = world.account().available.unwrap();
    let reserved = reserve(&mut world, 1_000, "r").reserved.unwrap();
    assert_eq!(reserved.held.0, 5_000_000);
    let account = world.account();
    assert_eq!((account.available.unwrap(), account.current.0), (before.saturating_sub(reserved.held), 0));
    // The same key answers the same, whatever id the repeat has thought of.
    let again = reserve(&mut world, 1_000, "r");
    assert!(again.again && again.reserved == Some(reserved));
    let settled = settle(&mut world, &reserved, 300, "s").unwrap();
    assert_eq!((settled.charged.0, settled.overshoot.0), (1_500_000, 0));
    assert!(settle(&mut world, &reserved, 300, "s").unwrap().again);
    assert!(matches!(settle(&mut world, &reserved, 400, "t"), Err(LedgerError::Refused(_))));
    let account = world.account();
    assert_eq!((account.available.unwrap().0, account.current.0), (before.0 - 1_500_000, 1_500_000));
    let job = world.job("j");
    assert_eq!((job.tokens, job.charged.tokens.0), (300, 1_500_000));
    world.finish(attempt, &seconds("0"), lease.period);
    assert_eq!(world.account().held, Nanocredits::ZERO);
    world.check();
}

#[test]
fn more_than_is_free_is_refused_and_may_be_asked_for_again() {
    let mut world = World::with_limit("0.01");
    let _ = world.open("j", None);
    let refused = reserve(&mut world, 2_000, "r");
    assert_eq!((refused.refused, refused.reserved), (Some(StopReason::CreditsExhausted), None));
    world.limit("0.05").unwrap();
    assert!(reserve(&mut world, 2_000, "r").reserved.is_some());
}

#[test]
fn a_reservation_keeps_within_the_jobs_own_limit() {
    let mut world = World::new();
    let _ = world.open("j", Some("0.01"));
    let first = reserve(&mut world, 1_900, "a").reserved.unwrap();
    assert_eq!(reserve(&mut world, 1_000, "b").refused, Some(StopReason::JobLimit));
    settle(&mut world, &first, 0, "c").unwrap();
    assert!(reserve(&mut world, 1_000, "b").reserved.is_some());
}

/// Nothing is summed up for a job that has no limit of its own, until it gets one.
#[test]
fn a_jobs_first_limit_counts_what_was_before() {
    let mut world = World::new();
    let (first, lease) = world.open("j", None);
    world.report(first, 1, &seconds("1"), &lease, false);
    let reserved = reserve(&mut world, 1_000, "a").reserved.unwrap();
    let (second, second_lease) = world.open("j", Some("0.01"));
    world.check();
    assert_eq!(reserve(&mut world, 1_000, "b").refused, Some(StopReason::JobLimit));
    settle(&mut world, &reserved, 0, "c").unwrap();
    world.finish(first, &seconds("1"), lease.period);
    world.check();
    assert_eq!(world.burn_out(second, second_lease), (39_000_000, StopReason::JobLimit));
}

#[test]
fn a_reservation_that_nobody_settles_goes_back_and_is_still_owed() {
    let mut world = World::with_limit("0.01");
    let _ = world.open("j", None);
    let available = world.account().available;
    let reserved = reserve(&mut world, 1_000, "r").reserved.unwrap();
    world.pass_s(20);
    assert_ne!(world.account().available, available);
    world.pass_s(41);
    assert_eq!(world.account().available, available);
    world.check();
    let settled = settle(&mut world, &reserved, 1_000, "s").unwrap();
    assert_eq!((settled.charged.0, settled.overshoot.0), (5_000_000, 0));
}

#[test]
fn more_than_was_reserved_is_charged_out_of_what_is_free() {
    let mut world = World::with_limit("0.01");
    let _ = world.open("j", None);
    let reserved = reserve(&mut world, 1_000, "r").reserved.unwrap();
    let settled = settle(&mut world, &reserved, 3_000, "s").unwrap();
    assert!(settled.charged.0 > 5_000_000 && settled.overshoot.0 > 0, "{settled:?}");
    assert_eq!(settled.charged.0 + settled.overshoot.0, 15_000_000);
}

/// What was held of a period that is over pays for what was reserved in it; grants get back what they gave.
#[test]
fn a_reservation_outlives_its_period() {
    let mut world = World::with_limit("0.001");
    let (by, why, key) = ("t".to_owned(), "w".to_owned(), "k".to_owned());
    let amount = Nanocredits(10_000_000);
    world.change(Change::Grant { user: "u".into(), amount, expires_at: None, by, why, key }).unwrap();
    let (attempt, lease) = world.open("j", None);
    world.finish(attempt, &seconds("0"), lease.period);
    world.pass_s(DAY_S / 2 - 20);
    let reserved = reserve(&mut world, 1_000, "r").reserved.unwrap();
    world.pass_s(30);
    assert_eq!(world.account().current.0, 0);
    let settled = settle(&mut world, &reserved, 300, "s").unwrap();
    assert_eq!(settled.charged.0, 1_500_000);
    let account = world.account();
    assert_eq!((account.current.0, account.grants[0].left.0), (0, 9_500_000));
    let credits: Vec<i64> = world.usage_of_days().iter().map(|(_, credits, _)| *credits).collect();
    assert_eq!(credits, [1_500_000]);
}

/// Found by the simulation: tokens of a job that was not known yet were charged to one whose id begins with its id.
#[test]
fn what_is_charged_is_charged_to_the_job_of_that_very_id() {
    let mut world = World::new();
    let _ = world.open("job-12", None);
    let charge = Change::ChargeTokens { job: "job-1".into(), count: 7, by: "b".into(), key: "k".into() };
    assert!(matches!(world.change(charge), Err(LedgerError::Missing(_))));
    let stop = Change::StopJob { job: "job-1".into(), by: "b".into(), why: String::new() };
    assert!(matches!(world.change(stop), Err(LedgerError::Missing(_))));
    assert_eq!(world.job("job-1").tokens, 0);
}

/// As long as names, ids and keys may be, a repeat is one.
#[test]
fn a_key_of_any_length_makes_a_repeat_harmless() {
    let mut world = World::new();
    let (long, key) = ("é".repeat(512), "k".repeat(1_024));
    let mut request = World::request(&long, None);
    request.identity.user = "u".repeat(1_024);
    world.ledger.open(&request).unwrap();
    let charge = |world: &mut World, count: u64| {
        let (job, by, key) = (long.as_str().into(), "t".to_owned(), key.clone());
        world.change(Change::ChargeTokens { job, count, by, key })
    };
    assert!(!charge(&mut world, 1).unwrap().again);
    assert!(charge(&mut world, 1).unwrap().again);
    assert!(matches!(charge(&mut world, 2), Err(LedgerError::Refused(_))));
}
