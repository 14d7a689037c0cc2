//! What falls silent, expires or was used up costs what it touches, however much of it there is.

use super::*;

/// More than one transaction marks.
const MANY: usize = 700;

#[test]
fn many_that_fall_silent_together_are_marked_by_and_by() {
    let mut world = World::with_limit("1000");
    let attempts: Vec<_> = (0..MANY).map(|at| world.open(&format!("j{at}"), None).0).collect();
    world.pass_s(40);
    let (runs, lease) = world.open("runs", None);
    let live = |world: &mut World| {
        let rows =
            world.ledger.look(|store, _| store.query("SELECT live FROM account WHERE owner = 'u'", &[])).unwrap();
        rows.into_iter().next().unwrap().count().unwrap()
    };
    let mut before = live(&mut world);
    assert!((1..MANY as u64).contains(&before), "one transaction marks some of them: {before}");
    for seq in 1..10 {
        world.pass_s(1);
        world.report(runs, seq, &seconds("0.1"), &lease, false);
        let now = live(&mut world);
        assert!(before - now <= 256 && (now == 1 || now < before), "{before} {now}");
        before = now;
    }
    assert_eq!(before, 1);
    // Which were marked makes no difference to an operator.
    let settle = Change::Settle { attempt: attempts[3], usage: Some(seconds("0.1")), by: "op".into(), why: "w".into() };
    world.change(settle).unwrap();
    world.check();
}

#[test]
fn whoever_looks_at_an_account_sees_what_fell_silent() {
    let mut world = World::with_limit("1000");
    let leases: Vec<_> = (0..MANY).map(|at| world.open(&format!("j{at}"), None).1).collect();
    world.pass_s(40);
    let held = leases.iter().fold(Nanocredits::ZERO, |sum, lease| sum.saturating_add(lease.ceiling));
    let account = world.account();
    assert_eq!((account.running, account.provisional), (0, held));
    world.check();
}

#[test]
fn grants_that_expired_are_not_read() {
    let mut world = World::with_limit("0");
    for at in 0..3 {
        let (amount, key) = (Nanocredits(1_000_000_000), format!("k{at}"));
        let expires_at = Some(NOON_S + 10 + i64::from(at) * 100);
        let grant = Change::Grant { user: "u".into(), amount, expires_at, by: "t".into(), why: "w".into(), key };
        world.change(grant).unwrap();
    }
    assert_eq!(world.account().grants.len(), 3);
    world.pass_s(20);
    // One of which something is held is shown to its end.
    let (attempt, lease) = world.open("j", None);
    world.pass_s(100);
    let ids = |world: &mut World| world.account().grants.iter().map(|grant| grant.id).collect::<Vec<_>>();
    assert_eq!(ids(&mut world), [2, 3]);
    world.finish(attempt, &seconds("0.1"), lease.period);
    assert_eq!(ids(&mut world), [3]);
    world.check();
}
