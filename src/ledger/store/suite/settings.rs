//! What an administrator sets for the ledger as a whole.

use super::*;
use crate::ledger::settings::{LEASE_MAX_MS, LEASE_MIN_MS, LedgerSettings};
use crate::ledger::views::{SettingsView, Standing};

fn settings(world: &mut World) -> SettingsView {
    match world.ledger.read(&Query::Settings).unwrap() {
        View::Settings(view) => view,
        other => panic!("{other:?}"),
    }
}

fn set(world: &mut World, change: impl FnOnce(&mut LedgerSettings)) {
    let mut settings = settings(world).settings;
    change(&mut settings);
    world.change(Change::SetSettings { settings, by: "root".into() }).unwrap();
}

fn set_lease(world: &mut World, lease_ms: u64) {
    set(world, |settings| settings.lease_ms = lease_ms);
}

#[test]
fn settings_have_versions_and_are_an_entry() {
    let mut world = World::new();
    let first = settings(&mut world);
    assert_eq!(first, SettingsView { settings: LedgerSettings::default(), since: None, by: String::new() });
    set_lease(&mut world, 60_000);
    let second = settings(&mut world);
    assert_eq!((second.settings.version, second.settings.lease_ms, second.by.as_str()), (2, 60_000, "root"));
    // Somebody who has not seen that changes nothing, and who changes nothing makes no version.
    let outdated = Change::SetSettings { settings: first.settings, by: "t".into() };
    assert!(matches!(world.change(outdated), Err(LedgerError::Outdated(_))));
    assert!(world.change(Change::SetSettings { settings: second.settings, by: "t".into() }).unwrap().again);
    let View::Entries(entries) =
        world.ledger.read(&Query::Entries { user: String::new(), before: None, count_max: 10 }).unwrap()
    else {
        panic!()
    };
    let told: Vec<_> = entries.iter().map(|entry| (entry.kind.as_str(), entry.by.as_str())).collect();
    assert_eq!(told, [("settings", "root")]);
    for lease_ms in [0, LEASE_MIN_MS - 1, LEASE_MAX_MS + 1] {
        let wrong = LedgerSettings { lease_ms, ..second.settings };
        assert!(matches!(
            world.change(Change::SetSettings { settings: wrong, by: "t".into() }),
            Err(LedgerError::Refused(_))
        ));
    }
    world.check();
}

#[test]
fn a_lease_lasts_as_long_as_the_ledger_says() {
    let mut world = World::new();
    set_lease(&mut world, 180_000);
    let (attempt, lease) = world.open("j", None);
    assert_eq!(lease.lasts_ms, 180_000);
    // What it may burn without a word follows from the same figure.
    world.pass_s(10);
    let Decision::Lease(lease) = world.report(attempt, 1, &seconds("10"), &lease, false) else { panic!() };
    let slice = lease.ceiling.saturating_sub(Nanocredits(2_500_000));
    assert_eq!((lease.lasts_ms, slice.0), (180_000, 180 * 250_000));
    world.pass_s(179);
    assert_eq!((world.account().running, world.account().provisional), (1, Nanocredits::ZERO));
    world.pass_s(3);
    let account = world.account();
    assert_eq!((account.running, account.provisional), (0, slice));
    world.check();
}

#[test]
fn a_lease_that_was_given_before_leases_became_shorter_lasts_as_it_was_given() {
    let mut world = World::new();
    set_lease(&mut world, 600_000);
    let (attempt, lease) = world.open("j", None);
    set_lease(&mut world, 5_000);
    // The answer to this report is lost: its sidecar still has ten minutes.
    let Decision::Lease(short) = world.report(attempt, 1, &seconds("0.1"), &lease, false) else { panic!() };
    assert_eq!(short.lasts_ms, 5_000);
    world.pass_s(590);
    let settle = Change::Settle { attempt, usage: Some(seconds("0.1")), by: "op".into(), why: "gone".into() };
    let Err(LedgerError::Refused(why)) = world.change(settle.clone()) else { panic!() };
    assert!(why.contains("live lease"), "{why}");
    world.pass_s(20);
    world.change(settle).unwrap();
    // Nothing of before is out any more: a lease is as long as it is told.
    world.pass_s(1_200);
    let (second, lease) = world.open("k", None);
    world.report(second, 1, &seconds("0.1"), &lease, false);
    world.pass_s(6);
    assert_eq!(world.account().running, 0);
    world.check();
}

#[test]
fn new_accounts_have_the_limit_that_is_set_and_others_keep_theirs() {
    let mut world = World::new();
    let (attempt, lease) = world.open("j", None);
    world.finish(attempt, &seconds("0.1"), lease.period);
    set(&mut world, |settings| {
        (settings.day_limit, settings.month_limit) = ("2".parse().ok(), "70".parse().ok());
    });
    assert_eq!(world.account().limit, "5".parse().ok());
    let of = |world: &mut World, user: &str| match world.ledger.read(&Query::Account { user: user.into() }).unwrap() {
        View::Account(account) => *account,
        other => panic!("{other:?}"),
    };
    let opened = |world: &mut World, user: &str| {
        let mut request = World::request("j", None);
        request.identity.user = user.into();
        assert!(matches!(world.ledger.open(&request).unwrap(), OpenAnswer::Opened { .. }));
    };
    let shown = of(&mut world, "new");
    assert_eq!((shown.standing, shown.allowance), (Standing::Unknown, "2".parse().ok()));
    opened(&mut world, "new");
    let shown = of(&mut world, "new");
    assert_eq!((shown.standing, shown.allowance, shown.period), (Standing::Known, "2".parse().ok(), PeriodLength::Day));
    set(&mut world, |settings| settings.period = PeriodLength::Month);
    opened(&mut world, "monthly");
    let shown = of(&mut world, "monthly");
    assert_eq!((shown.allowance, shown.period), ("70".parse().ok(), PeriodLength::Month));
    set(&mut world, |settings| settings.month_limit = None);
    opened(&mut world, "unlimited");
    assert_eq!(of(&mut world, "unlimited").limit, None);
    world.check();
}

#[test]
fn a_user_without_an_account_runs_nothing_where_the_settings_say_so() {
    let mut world = World::with_limit("1");
    set(&mut world, |settings| settings.unknown_users = false);
    let (_, _) = world.open("j", None);
    let mut request = World::request("j", None);
    request.identity.user = "stranger".into();
    let Err(LedgerError::Refused(why)) = world.ledger.open(&request) else { panic!() };
    assert!(why.contains("jobmeter account limit --user stranger"), "{why}");
    let shown = |world: &mut World| match world.ledger.read(&Query::Account { user: "stranger".into() }).unwrap() {
        View::Account(account) => account.standing,
        other => panic!("{other:?}"),
    };
    assert_eq!(shown(&mut world), Standing::NotAdmitted);
    world.change(Change::limit("stranger", "1".parse().ok(), PeriodLength::Day, "root")).unwrap();
    assert_eq!(shown(&mut world), Standing::Known);
    assert!(matches!(world.ledger.open(&request).unwrap(), OpenAnswer::Opened { .. }));
    world.check();
}
