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
    ends(&mut world);
    clock.jump_s(90 * DAY_S);
    assert!(world.ledger.read(&Query::Account { user: "u".into() }).is_err());
    let mut other = StoreLedger::new(another_store(&world.place, Box::new(clock.clone())));
    other.trust_clock("op", "the battery was flat").unwrap();
    assert_eq!(ends(&mut world), "2027-02-23T00:00:00Z");
    let View::Entries(entries) = world.ledger.read(&Query::Entries { user: String::new(), count_max: 1 }).unwrap()
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
