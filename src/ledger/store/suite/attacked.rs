//! What attacks on the rule for a balance have found.

use super::*;
use crate::ledger::views::LimitSince;

fn set(world: &mut World, limit: &str, period: PeriodLength, since: Option<LimitSince>) {
    let limit = (limit != "none").then(|| limit.parse().unwrap());
    let (by, why) = ("t".to_owned(), String::new());
    world.change(Change::SetLimit { user: "u".into(), limit, period, since, carry_over: None, by, why }).unwrap();
}

fn spend(world: &mut World, credits: u64) {
    let (by, key) = (String::new(), Uuid::now_v7().to_string());
    world.change(Change::ChargeTokens { job: "j".into(), count: credits * 200_000, by, key }).unwrap();
}

fn with_job() -> World {
    let mut world = World::with_limit("5");
    let (attempt, lease) = world.open("j", None);
    world.finish(attempt, &Usage::default(), lease.period);
    world
}

/// A month that was promised, and days after all: the day that follows is one.
#[test]
fn a_promised_month_becomes_no_day_that_lasts_a_month() {
    let mut world = with_job();
    set(&mut world, "150", PeriodLength::Month, Some(LimitSince::NextPeriod));
    world.pass_s(DAY_S / 2 - 20);
    let (attempt, lease) = world.open("k", None);
    assert!(lease.next.is_some());
    set(&mut world, "5", PeriodLength::Day, None);
    world.pass_s(30);
    world.finish(attempt, &Usage::default(), lease.period);
    let account = world.account();
    assert_eq!((account.period, account.period_end.as_str()), (PeriodLength::Day, "2026-11-26T00:00:00Z"));
    world.check();
}

/// A month that was cut for days to follow is whole again where it is to be months after all, and nothing is given twice.
#[test]
fn a_length_that_is_set_back_gives_nothing_twice() {
    let mut world = World::with_limit("5");
    set(&mut world, "30", PeriodLength::Month, None);
    let (attempt, lease) = world.open("j", None);
    world.finish(attempt, &Usage::default(), lease.period);
    spend(&mut world, 5);
    set(&mut world, "1", PeriodLength::Day, None);
    // A credit a day: its part covers five of them when five days have passed.
    assert_eq!(world.account().period_end, "2026-11-29T00:00:00Z");
    set(&mut world, "30", PeriodLength::Month, None);
    world.pass_s(2 * DAY_S);
    let account = world.account();
    assert_eq!((account.period_end.as_str(), account.free.unwrap().0), ("2026-12-01T00:00:00Z", 25_000_000_000));
    world.check();
}

/// Who has spent a month's credits gets those of its days when the month is over.
#[test]
fn days_that_follow_a_spent_month_give_nothing_of_it_again() {
    let mut world = World::with_limit("5");
    set(&mut world, "30", PeriodLength::Month, None);
    let (attempt, lease) = world.open("j", None);
    world.finish(attempt, &Usage::default(), lease.period);
    spend(&mut world, 30);
    set(&mut world, "1", PeriodLength::Day, None);
    let account = world.account();
    assert_eq!((account.period_end.as_str(), account.free), ("2026-12-01T00:00:00Z", Some(Nanocredits::ZERO)));
    world.pass_s(7 * DAY_S);
    let account = world.account();
    assert_eq!((account.period, account.free.unwrap().0), (PeriodLength::Day, 1_000_000_000));
    world.check();
}

#[test]
fn a_part_of_a_month_stays_a_part() {
    let mut world = with_job();
    spend(&mut world, 1);
    set(&mut world, "30", PeriodLength::Month, None);
    world.pass_s(DAY_S);
    assert_eq!(world.account().free, Some(Nanocredits(6_000_000_000)));
    set(&mut world, "0", PeriodLength::Month, Some(LimitSince::Now));
    set(&mut world, "30", PeriodLength::Month, Some(LimitSince::Now));
    assert_eq!(world.account().free, Some(Nanocredits(6_000_000_000)));
    world.check();
}

/// Whoever opens his attempt again gets no lease while the account is suspended.
#[test]
fn an_attempt_of_a_suspended_account_is_not_opened_again() {
    let mut world = World::with_limit("5");
    let request = World::request("j", None);
    world.ledger.open(&request).unwrap();
    let (by, why) = ("t".to_owned(), "w".to_owned());
    world.change(Change::Suspend { user: "u".into(), by, why }).unwrap();
    let again = world.ledger.open(&request).unwrap();
    assert!(matches!(again, OpenAnswer::Refused { reason: StopReason::OperatorStop, .. }), "{again:?}");
}

#[test]
fn a_clock_that_is_set_back_costs_no_usage() {
    let mut world = World::with_limit("5");
    let (attempt, lease) = world.open("j", None);
    world.pass_s(3_600);
    world.report(attempt, 1, &seconds("7200"), &lease, false);
    world.pass_s(-7_200);
    world.pass_s(3_600);
    let charged = world.finish(attempt, &seconds("14000"), lease.period).charged.total;
    assert_eq!(charged.0, 14_000 * 250_000);
    world.check();
}

/// A limit that was lowered below what was spent is no overspending.
#[test]
fn a_lowered_limit_alarms_nobody() {
    let mut world = World::new();
    let (attempt, lease) = world.open("j", None);
    world.finish(attempt, &Usage::default(), lease.period);
    spend(&mut world, 3);
    set(&mut world, "1", PeriodLength::Day, Some(LimitSince::Now));
    let View::Figures(figures) = world.ledger.read(&Query::Figures).unwrap() else { panic!() };
    assert_eq!(figures.overspent, 0);
    world.check();
}
