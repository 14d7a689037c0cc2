//! Whose a name, a key of a repeat and a cursor are.

use super::*;
use crate::ledger::asker::{Asker, Reach};
use crate::ledger::views::NewKey;

fn opened_for(world: &mut World, user: &str, job: &str) -> Result<OpenAnswer, LedgerError> {
    let mut request = World::request(job, None);
    request.identity.user = user.to_owned();
    world.ledger.open(&request)
}

fn limit(user: &str) -> Change {
    let (limit, period) = (Some(Nanocredits(7)), PeriodLength::Day);
    Change::SetLimit {
        user: user.into(),
        limit,
        period,
        since: None,
        carry_over: None,
        by: "t".into(),
        why: String::new(),
    }
}

fn grant(user: &str, key: &str) -> Change {
    let (user, amount) = (user.to_owned(), Nanocredits(7));
    Change::Grant { user, amount, expires_at: None, by: "t".into(), why: "w".into(), key: key.into() }
}

fn adjust(user: &str, key: &str) -> Change {
    let (user, amount) = (user.to_owned(), Nanocredits(7));
    Change::Adjust { user, amount, grant: None, expires_at: None, by: "t".into(), why: "w".into(), key: key.into() }
}

fn bound_to(user: &str) -> Asker {
    Asker { principal: "node".to_owned(), reach: Reach::Owner(user.to_owned()) }
}

fn key_for(user: &str) -> Change {
    let (id, hash, user) = (Uuid::new_v4().to_string(), "h".to_owned(), Some(user.to_owned()));
    let key = NewKey { user, ..NewKey::new("n", crate::ledger::keys::Scope::Report, "t") };
    Change::CreateKey { id, hash, key }
}

#[test]
fn no_two_names_differ_by_case_form_or_spaces_alone() {
    let mut world = World::new();
    opened_for(&mut world, "Zoë", "a").unwrap();
    for name in ["zoë", "ZOË", "Zoe\u{308}", "Zoë ", " Zoë"] {
        let refused = [
            opened_for(&mut world, name, "b").map(|_| ()),
            world.change(limit(name)).map(|_| ()),
            world.change(grant(name, "k")).map(|_| ()),
            world.change(adjust(name, "k")).map(|_| ()),
            world.change(key_for(name)).map(|_| ()),
            world.ledger.read(&Query::Account { user: name.into() }).map(|_| ()),
        ];
        for refused in refused {
            let told = refused.unwrap_err();
            assert!(matches!(&told, LedgerError::Refused(why) if why.contains("Zoë")), "{name:?}: {told:?}");
        }
    }
    // Nothing of what was refused has taken a name.
    world.change(key_for("Zoë")).unwrap();
    world.change(limit("Zoë")).unwrap();
    world.change(limit("zoe")).unwrap();
    world.check();
}

/// A look takes no name: whoever reads could keep others from having an account.
#[test]
fn who_looks_makes_no_account() {
    let mut world = World::new();
    let seen = |world: &mut World, user: &str| match world.ledger.read(&Query::Account { user: user.into() }) {
        Ok(View::Account(account)) => account.left,
        other => panic!("{other:?}"),
    };
    assert_eq!(seen(&mut world, "ANN"), Some(Nanocredits(5_000_000_000)));
    assert_eq!(world.check().accounts, 0);
    opened_for(&mut world, "ann", "a").unwrap();
    assert!(world.ledger.read(&Query::Account { user: "ANN".into() }).is_err());
    assert!(world.check().accounts > 0);
}

#[test]
fn no_new_name_has_what_cannot_be_seen() {
    let mut world = World::new();
    for name in ["", " ", "a\u{202e}b", "a\u{200b}b", "a\u{200d}b", "a\nb", "a\u{0}b"] {
        let refused = opened_for(&mut world, name, "b");
        assert!(matches!(refused, Err(LedgerError::Refused(_))), "{name:?}: {refused:?}");
        assert!(world.change(limit(name)).is_err() && world.change(key_for(name)).is_err(), "{name:?}");
    }
    world.check();
}

/// Two in one transaction are seen by each other, and one that was undone by nobody.
#[test]
fn a_name_is_taken_within_a_transaction_as_well() {
    use crate::ledger::book::{Asked, Operation};
    let mut world = World::new();
    let [bad, first, second] = [grant("ANN", ""), limit("Ann"), limit("ann")];
    let bad = match bad {
        Change::Grant { user, by, why, key, .. } => {
            // Expired: it fails after the account is made.
            Change::Grant { user, amount: Nanocredits(1), expires_at: Some(1), by, why, key }
        }
        other => other,
    };
    let changes = [bad, first, second];
    let asked: Vec<Asked<'_>> = changes.iter().map(|change| Operation::Change(change).into()).collect();
    let done: Vec<bool> = world.ledger.post(&asked).unwrap().iter().map(Result::is_ok).collect();
    assert_eq!(done, [false, true, false]);
    assert!(world.change(limit("ANN")).is_err());
    world.check();
}

#[test]
fn a_key_of_a_repeat_tells_nothing_of_another_account() {
    let mut world = World::new();
    let tokens = |job: &str, count: u64| {
        let (job, by, key) = (job.into(), "t".to_owned(), "k".to_owned());
        Change::ChargeTokens { job, count, by, key }
    };
    opened_for(&mut world, "ann", "a").unwrap();
    opened_for(&mut world, "bob", "b").unwrap();
    for (change, again) in [
        (grant("ann", "k"), false),
        (grant("bob", "k"), false),
        (grant("ann", "k"), true),
        (tokens("b", 5), false),
        (tokens("b", 5), true),
    ] {
        // Each account has keys of its own, whatever they were used for elsewhere.
        let change = match change {
            Change::ChargeTokens { job, count, by, .. } => Change::ChargeTokens { job, count, by, key: "t".into() },
            other => other,
        };
        assert_eq!(world.change(change.clone()).unwrap().again, again, "{change:?}");
    }
    let other = Change::ChargeTokens { job: "b".into(), count: 6, by: "t".into(), key: "t".into() };
    assert!(matches!(world.change(other), Err(LedgerError::Refused(_))), "its own is told");
    // By somebody who may touch bob's account alone, ann's job is not there, whatever the key.
    use crate::ledger::book::{Asked, Operation};
    let change = tokens("a", 5);
    for only in ["bob", "eve"] {
        let asker = bound_to(only);
        let asked = [Asked { operation: Operation::Change(&change), asker: &asker }];
        let done = world.ledger.post(&asked).unwrap().remove(0);
        assert!(matches!(&done, Err(LedgerError::Missing(why)) if why.contains("no job")), "{done:?}");
    }
    let change = grant("ann", "k");
    let asker = bound_to("bob");
    let asked = [Asked { operation: Operation::Change(&change), asker: &asker }];
    let done = world.ledger.post(&asked).unwrap().remove(0);
    assert!(matches!(done, Err(LedgerError::Missing(_))), "{done:?}");
    world.check();
}

/// A key of before stands under itself alone.
#[test]
fn keys_of_before_go_on_for_their_owners() {
    let mut world = World::new();
    opened_for(&mut world, "ann", "a").unwrap();
    opened_for(&mut world, "bob", "b").unwrap();
    let answer = world.change(grant("ann", "new")).unwrap();
    let answer = serde_json::to_string(&answer).unwrap();
    let body = |change: &Change| serde_json::to_string(change).unwrap();
    let tokens = |job: &str| Change::ChargeTokens { job: job.into(), count: 5, by: "t".into(), key: "turn".into() };
    let mut other = another_store(&world.place, Box::new(world.clock.clone()));
    other.begin().unwrap();
    let rows = [("old", body(&grant("ann", "old"))), ("turn", body(&tokens("a")))];
    for (key, body) in rows {
        let sql = "INSERT INTO once (key, body, answer) VALUES ($1, $2, $3)";
        other.query(sql, &[key.into(), body.into(), answer.as_str().into()]).unwrap();
    }
    other.commit().unwrap();
    assert!(world.change(grant("ann", "old")).unwrap().again);
    assert!(world.change(tokens("a")).unwrap().again);
    assert!(matches!(world.change(adjust("ann", "old")), Err(LedgerError::Refused(_))));
    assert!(!world.change(grant("bob", "old")).unwrap().again);
    assert!(!world.change(tokens("b")).unwrap().again);
    world.check();
}

/// To who asks for the jobs of one account, one of another is no cursor, as one that there is not.
#[test]
fn a_cursor_is_a_job_of_the_same_page() {
    let mut world = World::new();
    for (user, job) in [("ann", "a1"), ("ann", "a2"), ("bob", "b1")] {
        opened_for(&mut world, user, job).unwrap();
        world.pass_s(1);
    }
    let mut page = |user: Option<&str>, before: &str| {
        let (user, before) = (user.map(str::to_owned), Some(before.to_owned()));
        match world.ledger.read(&Query::Jobs { user, kind: None, running_only: false, count_max: 10, before }) {
            Ok(View::Jobs { jobs, .. }) => Ok(jobs.into_iter().map(|job| job.job).collect::<Vec<_>>()),
            other => Err(format!("{other:?}")),
        }
    };
    assert_eq!(page(Some("ann"), "a2").unwrap(), ["a1"]);
    assert_eq!(page(None, "b1").unwrap(), ["a2", "a1"]);
    let (of_bob, of_nobody) = (page(Some("ann"), "b1").unwrap_err(), page(Some("ann"), "no").unwrap_err());
    assert_eq!(of_bob, of_nobody.replace("no\\\"", "b1\\\""));
}
