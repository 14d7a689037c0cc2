//! What an administrator sets for a ledger as a whole.

use serde_json::json;

use crate::service::Service;
use crate::station::{Station, nano};

#[test]
fn users_without_an_account_are_admitted_as_the_ledger_says() {
    let service = Service::start();
    let key = service.key(&["worker"]);
    let run = |user: &str| service.call(&key, &["--user", user, "run", "-q", "--", "true"]);
    service.json(&["ledger", "set", "--day-limit", "7", "--unknown-users", "yes"]);
    let shown = |user: &str| service.json(&["--user", user, "account", "show"])["account"].clone();
    let before = shown("ann");
    assert_eq!((&before["standing"], nano(&before["limit"])), (&json!("unknown"), 7_000_000_000));
    // Whoever looks makes none.
    assert_eq!(shown("ann")["standing"], before["standing"]);
    assert_eq!(run("ann").status, 0);
    assert_eq!((&shown("ann")["standing"], nano(&shown("ann")["allowance"])), (&json!("known"), 7_000_000_000));
    service.json(&["ledger", "set", "--unknown-users", "no"]);
    assert_eq!(shown("bob")["standing"], "notAdmitted");
    let refused = run("bob");
    assert!(refused.status == 125 && refused.err.contains("jobmeter account limit --user bob"), "{refused:?}");
    assert_eq!(run("ann").status, 0);
    service.json(&["--user", "bob", "account", "limit", "1"]);
    assert_eq!(run("bob").status, 0);
    service.verify();
}

#[test]
fn settings_are_for_administrators_and_within_their_range() {
    let service = Service::start();
    let (report, read) = (service.key(&["worker"]), service.key(&["reader", "--scope", "read"]));
    let path = "/api/v1/ledger/settings";
    let (status, before) = service.ask(&service.admin, "GET", path, "");
    assert_eq!(
        (status, &before["settings"]["leaseMs"], &before["settings"]["version"]),
        (200, &json!(30_000), &json!(1))
    );
    for key in [&report, &read] {
        assert_eq!(service.ask(key, "GET", path, "").0, 403);
        assert_eq!(service.ask(key, "PUT", path, &before["settings"].to_string()).0, 403);
    }
    let mut settings = before["settings"].clone();
    for lease_ms in [0, 4_999, 3_600_001] {
        settings["leaseMs"] = lease_ms.into();
        assert_eq!(service.ask(&service.admin, "PUT", path, &settings.to_string()).0, 422);
    }
    settings["leaseMs"] = 120_000.into();
    assert_eq!(service.ask(&service.admin, "PUT", path, &settings.to_string()).0, 200);
    // By somebody who has not seen that.
    settings["leaseMs"] = 60_000.into();
    assert_eq!(service.ask(&service.admin, "PUT", path, &settings.to_string()).0, 409);
    let wrong = service.call(&service.admin, &["ledger", "set", "--lease", "2h"]);
    assert!(wrong.status == 1 && wrong.err.contains("7200000 ms"), "{wrong:?}");
    assert!(service.call(&service.admin, &["ledger", "show"]).out.starts_with("lease: 120 s\n"));
}

/// A ledger in a file has them as well.
#[test]
fn a_ledger_in_a_file_has_settings() {
    let station = Station::new();
    let shown = station.json(&["ledger", "set", "--period", "month", "--month-limit", "none"]);
    assert_eq!((&shown["settings"]["period"], &shown["settings"]["version"]), (&json!("month"), &json!(2)));
    station.ok(&["run", "-q", "--", "true"]);
    assert_eq!(station.credits()["limit"], json!(null));
    station.verify();
}
