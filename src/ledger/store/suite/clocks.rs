//! A clock that jumps: believed within a day, refused beyond it, and what it did is put back.

use super::*;

/// A wall clock that can be set, beside one that nobody sets.
#[derive(Clone, Debug)]
struct Both {
    wall: HandClock,
    monotonic: HandClock,
}

impl Clock for Both {
    fn boottime_us(&self) -> u64 {
        self.monotonic.boottime_us()
    }
    fn realtime_us(&self) -> i64 {
        self.wall.realtime_us()
    }
}

fn world() -> (World, Both) {
    let hand = |us: i64| HandClock(Arc::new(AtomicI64::new(us)));
    let clock = Both { wall: hand(NOON_S * 1_000_000), monotonic: hand(5_000_000) };
    let (place, store) = store_for_tests(Box::new(clock.clone()));
    (World { place, clock: clock.wall.clone(), ledger: StoreLedger::new(store) }, clock)
}

impl Both {
    /// Both go on.
    fn pass_s(&self, s: i64) {
        self.wall.0.fetch_add(s * 1_000_000, Ordering::Relaxed);
        self.monotonic.0.fetch_add(s * 1_000_000, Ordering::Relaxed);
    }

    /// Somebody sets the wall clock.
    fn jump_s(&self, s: i64) {
        self.wall.0.fetch_add(s * 1_000_000, Ordering::Relaxed);
    }
}

fn ends(world: &mut World) -> String {
    world.account().period_end
}

#[test]
fn a_clock_that_is_years_ahead_for_a_moment_moves_nobody() {
    let (mut world, clock) = world();
    let (attempt, lease) = world.open("j", None);
    let today = ends(&mut world);
    clock.jump_s(3_650 * DAY_S);
    let told = world.ledger.report(&report(attempt, 1, &seconds("1"), &lease, false)).unwrap_err();
    assert!(matches!(&told, LedgerError::Unavailable(why) if why.contains("trust-clock")), "{told}");
    // Nor does another process, which has seen nothing itself.
    let mut other = StoreLedger::new(another_store(&world.place, Box::new(clock.clone())));
    assert!(matches!(other.read(&Query::Account { user: "u".into() }), Err(LedgerError::Unavailable(_))));
    clock.jump_s(-3_650 * DAY_S);
    assert!(matches!(world.report(attempt, 1, &seconds("1"), &lease, false), Decision::Lease(_)));
    assert_eq!(ends(&mut world), today);
    // A wrong time zone is believed, and so is a machine that slept for a year.
    clock.jump_s(14 * 3_600);
    assert_eq!(ends(&mut world), "2026-11-26T00:00:00Z");
    clock.pass_s(365 * DAY_S);
    assert_eq!(ends(&mut world), "2027-11-26T00:00:00Z");
    world.check();
}

#[test]
fn an_operator_says_that_the_clock_is_right() {
    let (mut world, clock) = world();
    world.limit("5").unwrap();
    clock.jump_s(90 * DAY_S);
    assert!(world.ledger.read(&Query::Account { user: "u".into() }).is_err());
    let mut other = StoreLedger::new(another_store(&world.place, Box::new(clock.clone())));
    other.trust_clock("op", "the battery was flat").unwrap();
    assert_eq!(ends(&mut world), "2027-02-23T00:00:00Z");
    let View::Entries(entries) =
        world.ledger.read(&Query::Entries { user: String::new(), count_max: 1, before: None }).unwrap()
    else {
        panic!()
    };
    assert_eq!((entries[0].kind.as_str(), entries[0].why.as_str()), ("clock", "the battery was flat"));
}

/// What was believed once, and was wrong.
#[test]
fn an_account_that_is_years_ahead_is_put_back() {
    let (mut world, clock) = world();
    let (attempt, lease) = world.open("j", None);
    world.finish(attempt, &seconds("4"), lease.period);
    clock.jump_s(3_650 * DAY_S);
    world.ledger.trust_clock("op", "w").unwrap();
    world.open("k", None);
    clock.jump_s(-3_650 * DAY_S);
    assert_eq!(ends(&mut world), "2036-11-22T00:00:00Z", "a period never moves back by itself");
    let repair = Change::RepairPeriod { user: "u".into(), by: "op".into(), why: "w".into() };
    assert!(!world.change(repair.clone()).unwrap().again);
    let account = world.account();
    assert_eq!((account.period_end.as_str(), account.charged.0), ("2026-11-25T00:00:00Z", 1_000_000));
    assert!(world.change(repair).unwrap().again);
    world.check();
    // Whoever runs in the period that is years ahead is silent, and can be settled.
    assert_eq!(world.job("k").state, "running");
    clock.pass_s(1);
    world.account();
    assert_eq!(world.job("k").state, "provisional");
    world.open("l", None);
    world.check();
}

impl Both {
    /// The clock goes years ahead, is believed, and the account is looked at; then it is set back.
    fn go_ahead(&self, world: &mut World, days: i64, meanwhile: impl FnOnce(&mut World)) {
        self.jump_s(days * DAY_S);
        world.ledger.trust_clock("op", "w").unwrap();
        world.account();
        meanwhile(world);
        self.jump_s(-days * DAY_S);
        world.ledger.trust_clock("op", "w").unwrap();
    }
}

fn repair(world: &mut World) -> AccountView {
    world.change(Change::RepairPeriod { user: "u".into(), by: "op".into(), why: "w".into() }).unwrap();
    world.check();
    world.account()
}

fn spend(world: &mut World, credits: u64) {
    let (by, key) = (String::new(), Uuid::now_v7().to_string());
    world.change(Change::ChargeTokens { job: "j".into(), count: credits * 200_000, by, key }).unwrap();
}

fn adjust(world: &mut World, credits: i64) {
    let (by, why, key) = ("t".to_owned(), String::new(), Uuid::now_v7().to_string());
    let amount = Nanocredits(credits * 1_000_000_000);
    world.change(Change::Adjust { user: "u".into(), amount, grant: None, expires_at: None, by, why, key }).unwrap();
}

/// `left debt corrected`, in credits.
fn stands(account: &AccountView) -> String {
    let left = account.left.map_or("none".to_owned(), |left| left.for_people().to_string());
    assert_eq!(account.limit.map(|limit| limit.0 - account.current.0), account.left.map(|left| left.0));
    format!("{left} {} {}", account.debt.for_people(), account.corrected.for_people())
}

fn with_job() -> (World, Both) {
    let (mut world, clock) = world();
    let (attempt, lease) = world.open("j", None);
    world.finish(attempt, &Usage::default(), lease.period);
    (world, clock)
}

/// Ten years of allowances, carried over in a moment.
#[test]
fn a_repair_takes_back_what_was_carried_over_ahead_of_time() {
    let (mut world, clock) = with_job();
    let (by, why) = ("t".to_owned(), String::new());
    let (limit, period) = (Some(Nanocredits(5_000_000_000)), PeriodLength::Day);
    world
        .change(Change::SetLimit { user: "u".into(), limit, period, since: None, carry_over: Some(true), by, why })
        .unwrap();
    spend(&mut world, 2);
    clock.go_ahead(&mut world, 3_650, |world| assert!(world.account().left.unwrap().0 > 18_000_000_000_000));
    assert_eq!(stands(&repair(&mut world)), "3 0 -18245");
    // The days that did pass unused count: the first of them was moved into, and the last one is today.
    let (mut world, clock) = with_job();
    let (by, why) = ("t".to_owned(), String::new());
    world
        .change(Change::SetLimit { user: "u".into(), limit, period, since: None, carry_over: Some(true), by, why })
        .unwrap();
    clock.pass_s(3 * DAY_S);
    clock.go_ahead(&mut world, 365, |_| ());
    assert_eq!(repair(&mut world).left, Some(Nanocredits(20_000_000_000)));
    clock.pass_s(DAY_S);
    assert_eq!(world.account().left, Some(Nanocredits(25_000_000_000)));
    world.check();
}

#[test]
fn a_repair_brings_back_a_debt_that_was_paid_ahead_of_time() {
    let (mut world, clock) = with_job();
    adjust(&mut world, -105);
    clock.go_ahead(&mut world, 3_650, |world| assert_eq!(world.account().debt, Nanocredits::ZERO));
    assert_eq!(repair(&mut world).debt.0, 100_000_000_000);
    clock.pass_s(20 * DAY_S);
    assert_eq!(stands(&world.account()), "0 0 -5");
    clock.pass_s(DAY_S);
    assert_eq!(stands(&world.account()), "5 0 0");
    world.check();
}

/// What was used and corrected ahead of time is paid by the period of now, and the one that was ahead gives all that it has once it comes.
#[test]
fn a_repair_charges_now_what_was_used_ahead_of_time() {
    let (mut world, clock) = with_job();
    spend(&mut world, 1);
    clock.go_ahead(&mut world, 1, |world| {
        spend(world, 3);
        adjust(world, -4);
    });
    // Of 5 credits 1 is charged today; 3 were tomorrow, and 2 of the correction; the rest of it, 2, was owed there.
    assert_eq!(stands(&repair(&mut world)), "-3 3 -7");
    clock.pass_s(DAY_S);
    let account = world.account();
    assert_eq!((account.left, account.debt.0), (Some(Nanocredits(2_000_000_000)), 0));
    world.check();
    let again = world.change(Change::RepairPeriod { user: "u".into(), by: "op".into(), why: "w".into() }).unwrap();
    assert!(again.again);
}

#[test]
fn a_limit_that_was_raised_ahead_of_time_is_no_fault() {
    let (mut world, clock) = with_job();
    clock.go_ahead(&mut world, 3_650, |world| {
        world.limit("100").unwrap();
    });
    repair(&mut world);
    clock.pass_s(DAY_S);
    spend(&mut world, 50);
    world.limit("1").unwrap();
    let (user, period, by, why) = ("u".to_owned(), PeriodLength::Day, "t".to_owned(), String::new());
    let (limit, since) = (Some(Nanocredits(1_000_000_000)), Some(crate::ledger::views::LimitSince::Now));
    world.change(Change::SetLimit { user, limit, period, since, carry_over: None, by, why }).unwrap();
    world.check();
}

/// Whoever sees the windfall revokes it first, and repairs the account then: it is taken back once.
#[test]
fn a_repair_takes_nothing_back_that_was_revoked() {
    let (mut world, clock) = with_job();
    let (by, why) = ("t".to_owned(), String::new());
    let (limit, period) = (Some(Nanocredits(5_000_000_000)), PeriodLength::Day);
    let (user, since, carry_over) = ("u".to_owned(), None, Some(true));
    world.change(Change::SetLimit { user, limit, period, since, carry_over, by, why }).unwrap();
    clock.go_ahead(&mut world, 3_650, |_| ());
    let grant = world.account().grants[0].id;
    let (by, why) = ("op".to_owned(), "w".to_owned());
    world.change(Change::RevokeGrant { user: "u".into(), grant, by, why }).unwrap();
    assert_eq!(repair(&mut world).debt, Nanocredits::ZERO);
    clock.pass_s(DAY_S);
    assert_eq!(world.account().left, Some(Nanocredits(5_000_000_000)));
    world.check();
}
