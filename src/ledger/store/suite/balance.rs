//! The one rule for a balance: the cases by which it was stated, and who may not start.

use super::*;
use crate::ledger::views::LimitSince;

const CREDIT: i64 = 1_000_000_000;

fn why() -> (String, String) {
    ("t".to_owned(), "w".to_owned())
}

fn nano(credits: &str) -> Nanocredits {
    credits.parse().unwrap()
}

impl World {
    /// One with a job that has ended, to which tokens can be charged.
    fn with_job() -> Self {
        let mut world = Self::with_limit("5");
        let (attempt, lease) = world.open("j", None);
        world.finish(attempt, &Usage::default(), lease.period);
        world
    }

    /// Five credits are a million tokens.
    fn tokens(credits: &str) -> u64 {
        u64::try_from(nano(credits).0 / 5_000).unwrap()
    }

    fn spend(&mut self, credits: &str) {
        let (by, key) = (String::new(), Uuid::now_v7().to_string());
        let charged = self.change(Change::ChargeTokens { job: "j".into(), count: Self::tokens(credits), by, key });
        assert_eq!(charged.unwrap().charged, nano(credits));
    }

    fn reserve(&mut self, credits: &str) -> Uuid {
        let (by, new_id) = (String::new(), Uuid::now_v7());
        let (key, count, lasts_ms) = (new_id.to_string(), Self::tokens(credits), 3 * 86_400_000);
        let job = "j".into();
        let held = self.change(Change::ReserveTokens { job, count, lasts_ms, new_id, by, key }).unwrap().reserved;
        assert_eq!(held.map(|held| held.held), Some(nano(credits)));
        new_id
    }

    fn settle(&mut self, reservation: Uuid, credits: &str) {
        let (by, key) = (String::new(), Uuid::now_v7().to_string());
        let count = Self::tokens(credits);
        self.change(Change::SettleTokens { job: "j".into(), reservation, count, by, key }).unwrap();
    }

    fn grant(&mut self, credits: &str, expires_at: Option<i64>) {
        let ((by, why), key) = (why(), Uuid::now_v7().to_string());
        let (user, amount) = ("u".to_owned(), nano(credits));
        self.change(Change::Grant { user, amount, expires_at, by, why, key }).unwrap();
    }

    fn adjust(&mut self, credits: &str, grant: Option<i64>) -> Result<ChangeAnswer, LedgerError> {
        let ((by, why), key) = (why(), Uuid::now_v7().to_string());
        let (user, amount) = ("u".to_owned(), nano(credits));
        self.change(Change::Adjust { user, amount, grant, expires_at: None, by, why, key })
    }

    fn set_limit(&mut self, limit: &str, since: Option<LimitSince>, period: PeriodLength, carry_over: Option<bool>) {
        let ((by, why), limit) = (why(), (limit != "none").then(|| nano(limit)));
        self.change(Change::SetLimit { user: "u".into(), limit, period, since, carry_over, by, why }).unwrap();
    }

    /// `limit charged corrected left free`.
    fn stands(&mut self) -> String {
        self.check();
        let account = self.account();
        let or_none =
            |amount: Option<Nanocredits>| amount.map_or("none".to_owned(), |amount| amount.for_people().to_string());
        let (limit, left, free) = (or_none(account.limit), or_none(account.left), or_none(account.free));
        let left_by_the_client = account.limit.map(|limit| limit.0 - account.current.0);
        assert_eq!(left_by_the_client, account.left.map(|left| left.0));
        format!("{limit} {} {} {left} {free}", account.charged.for_people(), account.corrected.for_people())
    }
}

#[test]
fn a_grant_raises_what_can_be_spent_by_what_it_had_when_the_period_began() {
    let mut world = World::with_job();
    world.grant("100", None);
    world.spend("60");
    assert_eq!(world.stands(), "105 60 0 45 45");
    let mut world = World::with_job();
    world.grant("100", None);
    world.spend("45");
    world.pass_s(DAY_S);
    world.spend("10");
    assert_eq!(world.stands(), "65 10 0 55 55");
}

#[test]
fn what_a_grant_has_held_stays_good_when_it_ends() {
    let mut world = World::with_job();
    world.grant("10", Some(NOON_S + 100));
    world.spend("8");
    let held = world.reserve("1");
    world.pass_s(100);
    assert_eq!(world.stands(), "9 8 0 1 0");
    world.settle(held, "1");
    assert_eq!(world.stands(), "9 9 0 0 0");
    // An end by an operator is the same.
    let mut world = World::with_job();
    world.grant("10", None);
    world.spend("8");
    world.reserve("1");
    let (by, why) = why();
    let revoke = Change::RevokeGrant { user: "u".into(), grant: 1, by, why };
    assert!(!world.change(revoke.clone()).unwrap().again);
    assert_eq!(world.stands(), "9 8 0 1 0");
    assert!(world.change(revoke).unwrap().again);
}

#[test]
fn what_a_correction_cannot_take_is_owed_and_paid_by_what_becomes_free_next() {
    let mut world = World::with_job();
    world.spend("2");
    world.adjust("-12", None).unwrap();
    assert_eq!(world.stands(), "5 2 -12 -9 0");
    world.pass_s(DAY_S);
    assert_eq!(world.stands(), "5 0 -9 -4 0");
    assert_eq!(world.refused("k"), StopReason::CreditsExhausted);
    world.pass_s(DAY_S);
    assert_eq!(world.stands(), "5 0 -4 1 1");
}

#[test]
fn days_that_nobody_saw_pay_what_is_owed() {
    let mut world = World::with_job();
    world.spend("2");
    world.adjust("-12", None).unwrap();
    world.pass_s(2 * DAY_S);
    assert_eq!(world.stands(), "5 0 -4 1 1");
    world.spend("1");
    assert_eq!(world.stands(), "5 1 -4 0 0");
    world.pass_s(10 * DAY_S);
    assert_eq!(world.stands(), "5 0 0 5 5");
}

#[test]
fn a_grant_pays_what_is_owed_first_and_so_does_what_is_released() {
    let mut world = World::with_job();
    let held = world.reserve("1");
    world.adjust("-12", None).unwrap();
    assert_eq!(world.stands(), "5 0 -12 -7 0");
    world.settle(held, "0.25");
    assert_eq!(world.stands(), "5 0.25 -12 -7.25 0");
    world.grant("10", None);
    assert_eq!(world.stands(), "15 0.25 -12 2.75 2.75");
    let account = world.account();
    assert_eq!((account.debt.0, account.grants[0].left), (0, nano("2.75")));
}

#[test]
fn a_lowered_limit_makes_no_debt_and_touches_no_grant() {
    let mut world = World::with_job();
    world.spend("4");
    let held = world.reserve("0.5");
    world.grant("10", None);
    world.set_limit("2", Some(LimitSince::Now), PeriodLength::Day, None);
    assert_eq!(world.stands(), "14.5 4 0 10.5 10");
    world.settle(held, "0");
    assert_eq!(world.stands(), "14 4 0 10 10");
    world.set_limit("5", None, PeriodLength::Day, None);
    assert_eq!(world.stands(), "15 4 0 11 11");
}

#[test]
fn what_a_day_leaves_is_carried_over_and_what_is_released_later_follows() {
    let mut world = World::with_job();
    world.set_limit("5", None, PeriodLength::Day, Some(true));
    world.spend("2");
    let held = world.reserve("0.3");
    world.pass_s(DAY_S);
    assert_eq!(world.stands(), "7.7 0 0 7.7 7.7");
    world.settle(held, "0");
    assert_eq!(world.stands(), "8 0 0 8 8");
    // Three days that nobody saw, and no more than one grant for all of them.
    world.pass_s(4 * DAY_S);
    assert_eq!(world.stands(), "28 0 0 28 28");
    world.spend("6");
    assert_eq!(world.stands(), "28 6 0 22 22");
    assert_eq!(
        world.account().grants.iter().map(|grant| (grant.id, grant.left.0)).collect::<Vec<_>>(),
        [(1, 22 * CREDIT)]
    );
}

#[test]
fn a_correction_of_a_grant_takes_of_it_alone_or_nothing() {
    let mut world = World::with_job();
    world.grant("1", None);
    assert!(matches!(world.adjust("-2", Some(1)), Err(LedgerError::Refused(_))));
    assert!(matches!(world.adjust("-1", Some(7)), Err(LedgerError::Missing(_))));
    assert!(matches!(world.adjust("1", Some(1)), Err(LedgerError::Refused(_))));
    assert_eq!(world.stands(), "6 0 0 6 6");
    world.adjust("-0.75", Some(1)).unwrap();
    assert_eq!(world.stands(), "6 0 -0.75 5.25 5.25");
    assert_eq!(world.account().grants[0].left, nano("0.25"));
    // What was given is a grant that ends with the day.
    world.adjust("3", None).unwrap();
    assert_eq!(world.stands(), "9 0 -0.75 8.25 8.25");
    world.pass_s(DAY_S);
    assert_eq!(world.stands(), "5.25 0 0 5.25 5.25");
}

#[test]
fn who_has_no_limit_has_nothing_left_to_count() {
    let mut world = World::with_job();
    world.set_limit("none", None, PeriodLength::Day, None);
    world.spend("7");
    assert_eq!(world.stands(), "none 7 0 none none");
    world.adjust("-1", None).unwrap();
    assert_eq!(world.stands(), "none 7 -1 none none");
    world.set_limit("9", Some(LimitSince::Now), PeriodLength::Day, None);
    assert_eq!(world.stands(), "9 7 -1 1 1");
}

/// What was used of yesterday's hold and more is paid by what yesterday left, then by grants, and then it is owed.
#[test]
fn late_usage_is_owed_where_nothing_pays_it() {
    let mut world = World::with_limit("0.001");
    let (attempt, lease) = world.open("j", None);
    world.pass_s(DAY_S);
    let today = world.stands();
    assert_eq!(today, "0.001 0 0 0.001 0.001");
    // 8 s at 250 000 nanocredits: yesterday had a million of these two.
    world.finish(attempt, &seconds("8"), lease.period);
    assert_eq!(world.stands(), "0.001 0 -0.001 0 0");
    assert_eq!(world.job("j").charged.total.0, 2_000_000);
    assert_eq!(world.job("j").overshoot.0, 0);
}

#[test]
fn a_suspended_account_starts_nothing_and_stops_what_runs() {
    let mut world = World::with_limit("5");
    let (attempt, lease) = world.open("j", None);
    let (by, why) = why();
    let suspend = Change::Suspend { user: "u".into(), by: by.clone(), why: why.clone() };
    let answer = world.change(suspend.clone()).unwrap();
    assert!(!answer.again && answer.balance.unwrap().suspended);
    assert!(world.change(suspend).unwrap().again);
    let stopped = |world: &mut World| match world.ledger.read(&Query::Stopped { job: "j".into(), first: None }).unwrap()
    {
        View::Stopped(stopped) => stopped,
        other => panic!("{other:?}"),
    };
    assert!(stopped(&mut world));
    let decision = world.report(attempt, 1, &seconds("1"), &lease, false);
    assert_eq!(decision, Decision::Stop(StopReason::OperatorStop));
    assert_eq!(world.finish(attempt, &seconds("1"), lease.period).charged.total.0, 250_000);
    assert_eq!(world.refused("k"), StopReason::OperatorStop);
    let reserve = Change::ReserveTokens {
        job: "j".into(),
        count: 1,
        lasts_ms: 1_000,
        new_id: Uuid::now_v7(),
        by: by.clone(),
        key: "r".into(),
    };
    assert_eq!(world.change(reserve).unwrap().refused, Some(StopReason::OperatorStop));
    assert_eq!(world.stands(), "5 0.00025 0 4.9997 4.9997");
    assert!(!world.change(Change::Resume { user: "u".into(), by, why }).unwrap().again);
    assert!(!stopped(&mut world));
    world.open("k", None);
}

#[test]
fn a_new_account_has_the_limit_that_was_set_for_it_from_its_first_moment() {
    let mut world = World::new();
    world.set_limit("30", None, PeriodLength::Month, None);
    assert_eq!(world.stands(), "30 0 0 30 30");
    let account = world.account();
    assert_eq!((account.period, account.period_end.as_str()), (PeriodLength::Month, "2026-12-01T00:00:00Z"));
    world.set_limit("3", None, PeriodLength::Day, None);
    assert_eq!((world.stands().as_str(), world.account().period_end.as_str()), ("3 0 0 3 3", "2026-11-25T00:00:00Z"));
}

/// A month that follows days gives its part, and days that follow a month begin the next day.
#[test]
fn another_length_of_the_period_gives_nothing_twice_and_starves_nobody() {
    let mut world = World::with_job();
    world.spend("1");
    world.set_limit("30", None, PeriodLength::Month, None);
    assert_eq!(world.stands(), "5 1 0 4 4");
    let pending = world.account().pending.unwrap();
    assert_eq!((pending.limit, pending.since.as_str()), (Some(nano("30")), "2026-11-25T00:00:00Z"));
    world.pass_s(DAY_S);
    // Six of the thirty days of November.
    assert_eq!(world.stands(), "6 0 0 6 6");
    world.spend("2");
    world.set_limit("5", None, PeriodLength::Day, None);
    assert_eq!(world.stands(), "2 2 0 0 0");
    // A credit of the month for each of two days.
    world.pass_s(DAY_S);
    assert_eq!(world.stands(), "2 2 0 0 0");
    world.pass_s(DAY_S);
    assert_eq!(world.stands(), "5 0 0 5 5");
}
