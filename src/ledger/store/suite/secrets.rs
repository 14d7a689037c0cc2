//! The secrets of attempts: whoever shows another or none changes nothing, be the key valid as it may.

use super::*;
use crate::ledger::attempt_secret::AttemptSecret;
use crate::ledger::book::{Operation, Outcome};

fn secret(of: u8) -> Option<AttemptSecret> {
    Some(AttemptSecret::from([of; 32]))
}

fn foreign<T: std::fmt::Debug>(answer: Result<T, LedgerError>) {
    assert!(matches!(answer, Err(LedgerError::Foreign)), "{answer:?}");
}

fn opened(world: &mut World, job: &str, of: Option<AttemptSecret>) -> (OpenRequest, Lease) {
    let request = OpenRequest { secret: of, ..World::request(job, None) };
    match world.ledger.open(&request).unwrap() {
        OpenAnswer::Opened { lease, again: false, .. } => (request, lease),
        other => panic!("not opened: {other:?}"),
    }
}

/// Everything that an account shows, with its entries.
fn all_of(world: &mut World) -> String {
    let account = world.account();
    let query = Query::Entries { user: "u".into(), count_max: 1_000, before: None };
    format!("{account:?} {:?} {:?}", world.ledger.read(&query).unwrap(), world.job("j"))
}

#[test]
fn who_shows_another_secret_or_none_changes_nothing() {
    let mut world = World::new();
    let (request, lease) = opened(&mut world, "j", secret(1));
    let attempt = request.identity.attempt;
    let mine = |seq, cpu| Report { secret: secret(1), ..report(attempt, seq, &seconds(cpu), &lease, false) };
    let last = Finish { secret: secret(1), ..finish(attempt, &seconds("0.3"), lease.period) };
    world.ledger.report(&mine(1, "0.1")).unwrap();
    let before = all_of(&mut world);
    for wrong in [secret(2), None] {
        foreign(world.ledger.report(&Report { secret: wrong, ..mine(9, "7") }));
        foreign(world.ledger.finish(&Finish { secret: wrong, ..finish(attempt, &seconds("0"), lease.period) }));
        foreign(world.ledger.open(&OpenRequest { secret: wrong, ..request.clone() }));
        assert_eq!(all_of(&mut world), before);
    }
    // The one that opened it goes on as if nobody had asked.
    let again = world.ledger.open(&request).unwrap();
    assert!(matches!(again, OpenAnswer::Opened { again: true, .. }), "{again:?}");
    assert_eq!(world.ledger.report(&mine(2, "0.2")).unwrap().seq, 2);
    let told = world.ledger.finish(&last).unwrap();
    assert_eq!((told.again, told.charged.total.0), (false, 75_000));
    // Nor is it corrected by anybody else once it has ended.
    for wrong in [secret(2), None] {
        foreign(world.ledger.finish(&Finish { secret: wrong, ..last.clone() }));
        foreign(world.ledger.report(&Report { secret: wrong, ..mine(9, "7") }));
    }
    assert!(world.ledger.finish(&last).unwrap().again);
    assert_eq!(world.account().current.0, 75_000);
    world.check();
}

#[test]
fn a_refused_report_leaves_its_group_alone() {
    let mut world = World::new();
    let attempts: Vec<_> = (1..=3).map(|at| opened(&mut world, &format!("job-{at}"), secret(at))).collect();
    let of = |at: usize, of: Option<AttemptSecret>| {
        let (request, lease) = &attempts[at];
        Report { secret: of, ..report(request.identity.attempt, 1, &seconds("0.1"), lease, false) }
    };
    let reports = [of(0, secret(1)), of(1, secret(9)), of(1, None), of(2, secret(3)), of(1, secret(2))];
    let asked: Vec<_> = reports.iter().map(|report| Operation::Report(report).into()).collect();
    let told = world.ledger.post(&asked).unwrap();
    let taken: Vec<bool> = told.iter().map(|one| matches!(one, Ok(Outcome::Reported { .. }))).collect();
    assert_eq!(taken, [true, false, false, true, true], "{told:?}");
    assert_eq!(world.account().current.0, 75_000);
    world.check();
}

/// As of a sidecar of an earlier version, or a service of one that another has replaced under the sidecar.
#[test]
fn an_attempt_without_a_secret_has_the_first_that_is_shown() {
    let mut world = World::new();
    let (old, lease) = opened(&mut world, "old", None);
    let attempt = old.identity.attempt;
    let of = |secret, seq, cpu: &str| Report { secret, ..report(attempt, seq, &seconds(cpu), &lease, false) };
    // Nothing but its CPU time is new with either of them.
    world.ledger.report(&of(None, 1, "0.1")).unwrap();
    world.ledger.report(&of(None, 2, "0.2")).unwrap();
    world.ledger.report(&of(secret(1), 3, "0.3")).unwrap();
    // From the database as well, and not by what is kept of it in memory alone.
    let mut other = StoreLedger::new(another_store(&world.place, Box::new(world.clock.clone())));
    for ledger in [&mut other, &mut world.ledger] {
        foreign(ledger.report(&of(None, 9, "7")));
        foreign(ledger.report(&of(secret(2), 9, "7")));
        ledger.report(&of(secret(1), 4, "0.4")).unwrap();
    }
    let last = finish(attempt, &seconds("0.5"), lease.period);
    foreign(other.finish(&last));
    assert_eq!(other.finish(&Finish { secret: secret(1), ..last }).unwrap().charged.total.0, 125_000);
    // One that is shown with the last word, or when it is opened again, counts too.
    let (late, lease) = opened(&mut world, "late", None);
    let last = finish(late.identity.attempt, &seconds("0.1"), lease.period);
    world.ledger.finish(&Finish { secret: secret(3), ..last.clone() }).unwrap();
    foreign(world.ledger.finish(&last));
    let (again, _) = opened(&mut world, "again", None);
    world.ledger.open(&OpenRequest { secret: secret(4), ..again.clone() }).unwrap();
    foreign(world.ledger.open(&again));
    world.check();
}

#[test]
fn an_operator_settles_without_a_secret() {
    let mut world = World::new();
    let (request, lease) = opened(&mut world, "j", secret(1));
    let attempt = request.identity.attempt;
    world.pass_s(31);
    let (usage, by, why) = (Some(seconds("0.1")), "op".to_owned(), "host gone".to_owned());
    assert_eq!(world.change(Change::Settle { attempt, usage, by, why }).unwrap().charged.0, 25_000);
    // Its own last word corrects that, and nobody else's.
    let last = finish(attempt, &seconds("0.2"), lease.period);
    foreign(world.ledger.finish(&last));
    world.ledger.finish(&Finish { secret: secret(1), ..last }).unwrap();
    assert_eq!(world.job("j").charged.total.0, 50_000);
    world.check();
}
