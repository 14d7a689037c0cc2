//! Each source counts in each rule, sums stay where they can be summed, and nobody undoes what another did.

use super::*;
use crate::domain::units::NANOCREDITS_MAX;

fn grant(amount: i64, expires_at: Option<i64>, key: &str) -> Change {
    let (user, amount) = ("u".to_owned(), Nanocredits(amount));
    Change::Grant { user, amount, expires_at, by: "t".into(), why: "w".into(), key: key.into() }
}

/// Who pays by grants alone does not lose his job at midnight.
#[test]
fn grants_pay_for_the_next_period_as_well() {
    let mut world = World::with_limit("0");
    world.change(grant(10_000_000, None, "k")).unwrap();
    // One that ends with this period does not.
    world.change(grant(1_000_000, Some(NOON_S + DAY_S / 2), "soon")).unwrap();
    let (attempt, lease) = world.open("j", None);
    world.pass_s(DAY_S / 2 - 10);
    let Decision::Lease(lease) = world.report(attempt, 1, &seconds("1"), &lease, false) else { panic!() };
    assert_eq!(lease.next.map(|next| next.period), Some(lease.period + DAY_S), "{lease:?}");
    world.pass_s(11);
    let crossed = crossing(attempt, 2, &lease, ["1.2", "1.4"]);
    let Decision::Lease(after) = world.ledger.report(&crossed).unwrap().decision else { panic!() };
    assert_eq!(after.period, lease.period + DAY_S);
    world.finish(attempt, &seconds("1.5"), after.period);
    let grants = world.account().grants;
    // 0.3 s of the new day, at 250 000 nanocredits a second; before that the one that expires pays.
    assert_eq!(grants.iter().map(|grant| grant.left.0).collect::<Vec<_>>(), [10_000_000 - 75_000]);
    world.check();
}

#[test]
fn what_is_given_can_be_summed_by_every_reader() {
    let mut world = World::new();
    world.change(grant(NANOCREDITS_MAX - 1, None, "a")).unwrap();
    let adjust = |amount: i64, key: &str| {
        let (user, amount) = ("u".to_owned(), Nanocredits(amount));
        Change::Adjust { user, amount, grant: None, expires_at: None, by: "t".into(), why: "w".into(), key: key.into() }
    };
    assert!(matches!(world.change(grant(2, None, "b")), Err(LedgerError::Refused(_))));
    for at in 0..12 {
        let corrected = world.change(adjust(-NANOCREDITS_MAX / 3, &at.to_string()));
        assert_eq!(corrected.is_ok(), at < 3, "{corrected:?}");
    }
    let left = world.account().left.unwrap();
    assert_eq!(left.0, 5_000_000_000 + NANOCREDITS_MAX - 1 - NANOCREDITS_MAX / 3 * 3);
    world.check();
}

#[test]
fn a_rate_card_is_changed_by_who_has_seen_it() {
    let mut world = World::new();
    let set = |rates: RateCard| Change::SetRates { rates, by: "t".into() };
    let first = RateCard { cpu_per_second: Nanocredits(1), ..RateCard::default() };
    assert!(!world.change(set(first.clone())).unwrap().again);
    // Another administrator has seen the version before.
    let late = RateCard { gpu_per_second: Nanocredits(2), ..RateCard::default() };
    let refused = world.change(set(late.clone()));
    assert!(matches!(&refused, Err(LedgerError::Outdated(why)) if why.contains("version 2")), "{refused:?}");
    let second = RateCard { version: 2, ..first.clone() };
    assert!(world.change(set(second.clone())).unwrap().again, "nothing to change");
    let both = RateCard { gpu_per_second: Nanocredits(2), ..second };
    assert!(!world.change(set(both)).unwrap().again);
    let View::Rates(versions) = world.ledger.read(&Query::Rates).unwrap() else { panic!() };
    let prices = versions.iter().map(|of| (of.rates.version, of.rates.cpu_per_second.0, of.rates.gpu_per_second.0));
    assert_eq!(prices.collect::<Vec<_>>()[..2], [(3, 1, 2), (2, 1, 2_500_000)]);
}

/// What two CPUs cannot do in the time is nobody's usage, and the books can be read afterwards.
#[test]
fn usage_is_bounded_by_what_the_resources_can_do_in_the_time() {
    let mut world = World::with_limit("5");
    let (attempt, lease) = world.open("j", None);
    world.pass_s(16);
    let absurd = Usage { cpu_used_seconds: Microseconds(u64::MAX), ..Usage::default() };
    world.report(attempt, 1, &absurd, &lease, false);
    // 16 s of two CPUs, a sixteenth more, and ten seconds of both.
    let believed_us = 32_000_000 + 2_000_000 + 20_000_000;
    assert_eq!(world.job("j").charged.total.0, believed_us / 4);
    world.pass_s(16);
    let answer = world.finish(attempt, &absurd, lease.period);
    assert_eq!(answer.charged.total.0, (believed_us + 34_000_000) / 4);
    world.check();
    let View::Entries(entries) =
        world.ledger.read(&Query::Entries { user: "u".into(), count_max: 1, before: None }).unwrap()
    else {
        panic!()
    };
    assert_eq!(entries[0].kind, "unbelieved");
}

/// What was taken in can be read and verified for ever, however dear it is; what could not be is refused, and changes nothing.
#[test]
fn absurd_usages_break_no_sum() {
    let mut world = World::new();
    let dear = RateCard { cpu_per_second: Nanocredits(NANOCREDITS_MAX), ..RateCard::default() };
    let heavy = RateCard { cpu_per_second: Nanocredits(0), cpu_weight_ppm: 1_000_000_000, ..RateCard::default() };
    for (version, card) in [(1, dear), (2, heavy)] {
        // Of the second card only the time is too much.
        world.change(Change::SetRates { rates: RateCard { version, ..card }, by: "t".into() }).unwrap();
        world.unlimited("u");
        let mut taken = 0;
        for at in 0..4 {
            let mut request = World::request(&format!("j{version}-{at}"), None);
            request.resources.cpus_ppm = 0;
            let OpenAnswer::Opened { lease, .. } = world.ledger.open(&request).unwrap() else { panic!("not opened") };
            let attempt = request.identity.attempt;
            world.pass_s(1);
            for (seq, us) in [(1, u64::MAX), (2, 1 << 62), (3, 1 << 53), (4, 2_000_000_000_000_000), (5, 500_000)] {
                let usage = Usage { cpu_used_seconds: Microseconds(us), ..Usage::default() };
                let resources = Resources { cpus_ppm: 0, ..RESOURCES };
                let report = Report { resources, ..report(attempt, seq, &usage, &lease, false) };
                match world.ledger.report(&report) {
                    Ok(_) => taken += 1,
                    Err(LedgerError::Refused(why)) => assert!(why.contains("sums can hold"), "{why}"),
                    Err(other) => panic!("{other:?}"),
                }
                world.check();
            }
            let most = Usage { cpu_used_seconds: Microseconds(u64::MAX), ..Usage::default() };
            if let Err(error) = world.ledger.finish(&finish(attempt, &most, lease.period)) {
                assert!(matches!(error, LedgerError::Refused(_)), "{error:?}");
                world.finish(attempt, &Usage::default(), lease.period);
            }
        }
        assert!(taken > 0, "what is possible is taken");
        world.check();
        assert!(!world.usage_of_days().is_empty());
        assert!(matches!(world.ledger.read(&Query::Figures), Ok(View::Figures(_))));
        let charged = Change::ChargeTokens {
            job: format!("j{version}-0").into(),
            count: 1 << 62,
            by: "t".into(),
            key: format!("{version}"),
        };
        assert!(matches!(world.change(charged), Err(LedgerError::Refused(_))));
    }
}

/// Each account can be summed up; all together may be more than 64 bits hold, which is said, and each is told all the same.
#[test]
fn the_sum_of_all_accounts_is_exact_or_refused() {
    let mut world = World::new();
    let card = RateCard { cpu_per_second: Nanocredits(NANOCREDITS_MAX), ..RateCard::default() };
    world.change(Change::SetRates { rates: card, by: "t".into() }).unwrap();
    for at in 0..10 {
        let user = format!("u{at}");
        world.unlimited(&user);
        let mut request = World::request(&format!("j{at}"), None);
        (request.identity.user, request.resources.cpus_ppm) = (user, 0);
        let OpenAnswer::Opened { lease, .. } = world.ledger.open(&request).unwrap() else { panic!("not opened") };
        // One CPU second each: a thousand million credits.
        world.finish(request.identity.attempt, &seconds("1"), lease.period);
    }
    use crate::ledger::usage_range::UsageRange;
    use crate::ledger::views::Whose;
    let range = UsageRange::new(Some("2026-11"), None, None, None).unwrap();
    let each = Query::UsageOfEach { range, after: None, count_max: 100 };
    let View::UsagePage { rows: each, next } = world.ledger.read(&each).unwrap() else { panic!() };
    assert!(
        next.is_none() && each.len() == 10 && each.iter().all(|row| row.total_credits.0 == NANOCREDITS_MAX),
        "{each:?}"
    );
    let all = world.ledger.read(&Query::Usage { whose: Whose::All, range });
    assert!(matches!(&all, Err(LedgerError::Refused(why)) if why.contains("each=true")), "{all:?}");
    assert!(matches!(world.ledger.read(&Query::Figures), Ok(View::Figures(_))));
    world.check();
}
