//! Sessions of browsers: how long they last, and what ends them.

use super::*;
use crate::ledger::book::{Operation, Outcome};
use crate::ledger::keys::{KeyView, Scope};
use crate::ledger::session::SessionToken;
use crate::ledger::views::NewKey;

const HOUR_S: i64 = 3_600;

impl World {
    fn key(&mut self, id: &str) {
        let (hash, key) = (format!("hash of {id}"), NewKey::new(id, Scope::Read, "t"));
        self.change(Change::CreateKey { id: id.to_owned(), hash, key }).unwrap();
    }

    fn key_seen(&mut self, id: &str) -> KeyView {
        match self.ledger.read(&Query::Keys { id: Some(id.to_owned()) }).unwrap() {
            View::Keys(mut keys) => keys.pop().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn signed_in(&mut self, key: &str) -> SessionToken {
        let token = SessionToken::new();
        self.ledger.begin_session(&token, key, None).unwrap();
        token
    }

    /// The key that it stands for, and whether its use is to be written down.
    fn session(&mut self, token: &SessionToken) -> Option<(String, bool)> {
        self.ledger.session(token).unwrap().map(|session| (session.key.id, session.is_due))
    }

    fn rows(&mut self) -> i64 {
        let store = &mut self.ledger.store;
        store.begin_reading().unwrap();
        let count = store.query("SELECT count(*) FROM session", &[]).unwrap().pop().unwrap().int().unwrap();
        store.rollback();
        count
    }
}

#[test]
fn a_session_lasts_an_hour_without_use_and_twelve_with_it() {
    let mut world = World::new();
    world.key("k");
    let (used, idle) = (world.signed_in("k"), world.signed_in("k"));
    assert_eq!(world.session(&used), Some(("k".to_owned(), false)));
    assert_eq!(world.session(&SessionToken::new()), None);
    world.pass_s(59);
    assert_eq!(world.session(&used), Some(("k".to_owned(), false)));
    world.pass_s(1);
    assert_eq!(world.session(&used), Some(("k".to_owned(), true)));
    world.pass_s(HOUR_S - 61);
    world.ledger.session_used(&used).unwrap();
    assert_eq!(world.session(&used), Some(("k".to_owned(), false)));
    assert!(world.session(&idle).is_some());
    world.pass_s(1);
    assert_eq!((world.session(&idle), world.rows()), (None, 2));
    // It does not come back, and goes with the next that is used.
    world.ledger.session_used(&idle).unwrap();
    assert_eq!((world.session(&idle), world.rows()), (None, 1));
    for _ in 0..21 {
        world.pass_s(HOUR_S / 2);
        world.ledger.session_used(&used).unwrap();
    }
    world.pass_s(HOUR_S / 2 - 1);
    assert!(world.session(&used).is_some());
    world.pass_s(1);
    assert_eq!(world.session(&used), None);
    world.signed_in("k");
    assert_eq!(world.rows(), 1);
}

#[test]
fn a_session_ends_with_its_key_and_for_every_replica() {
    let mut world = World::new();
    world.key("a");
    world.key("b");
    let (of_a, left, of_b) = (world.signed_in("a"), world.signed_in("a"), world.signed_in("b"));
    let mut replica = StoreLedger::new(another_store(&world.place, Box::new(world.clock.clone())));
    assert!(replica.session(&of_a).unwrap().is_some());
    replica.end_session(&left).unwrap();
    assert_eq!((world.session(&left), world.session(&of_a).is_some()), (None, true));
    replica.end_session(&left).unwrap();
    world.change(Change::RevokeKey { id: "a".into(), by: "t".into() }).unwrap();
    assert_eq!((replica.session(&of_a).unwrap(), world.session(&of_b).is_some()), (None, true));
    world.ledger.session_used(&of_a).unwrap();
    assert_eq!((world.session(&of_a), world.rows()), (None, 1));
    // The same is said of all at once.
    let hashes = [&of_a, &left, &of_b].map(SessionToken::hash);
    let keys = ["a", "b", "none"].map(str::to_owned);
    let lasting = replica.lasting(keys.to_vec(), hashes.to_vec()).unwrap();
    assert_eq!(lasting, (vec!["b".to_owned()], vec![of_b.hash()]));
    assert_eq!(replica.lasting(Vec::new(), Vec::new()).unwrap(), (Vec::new(), Vec::new()));
    world.pass_s(HOUR_S);
    let lasting = replica.lasting(keys.to_vec(), hashes.to_vec()).unwrap();
    assert_eq!(lasting, (vec!["b".to_owned()], Vec::new()));
    // Nobody signs in with a key that is revoked meanwhile, or that there is not.
    for key in ["a", "none"] {
        let token = world.signed_in(key);
        assert_eq!(world.session(&token), None, "{key}");
    }
}

/// A key ends by itself, at the ledger's time, and its sessions with it.
#[test]
fn a_session_ends_with_the_end_of_its_key() {
    let mut world = World::new();
    let new = NewKey { expires_at: Some(NOON_S + 600), ..NewKey::new("w", Scope::Report, "t") };
    world.change(Change::CreateKey { id: "k".into(), hash: "h".into(), key: new.clone() }).unwrap();
    let token = world.signed_in("k");
    let lasting = |world: &mut World| {
        let (keys, hashes) = world.ledger.lasting(vec!["k".to_owned()], vec![token.hash()]).unwrap();
        (keys.len(), hashes.len())
    };
    world.pass_s(599);
    assert!(!world.key_seen("k").is_over && world.session(&token).is_some());
    assert_eq!(lasting(&mut world), (1, 1));
    world.pass_s(1);
    assert!(world.key_seen("k").is_over && world.session(&token).is_none());
    assert_eq!(lasting(&mut world), (0, 0));
    world.ledger.session_used(&token).unwrap();
    assert_eq!(world.rows(), 0);
    // No key is made that has ended already, and none that ends after the end of time.
    for at_s in [NOON_S, NOON_S + 600, -1, i64::MIN, i64::MAX] {
        let key = NewKey { expires_at: Some(at_s), ..new.clone() };
        let made = world.change(Change::CreateKey { id: "l".into(), hash: "h".into(), key });
        assert!(matches!(made, Err(LedgerError::Refused(_))), "{at_s}");
    }
}

/// That a key is used is due once an hour. Nothing else of it is written with that, whatever becomes of it meanwhile.
#[test]
fn the_use_of_a_key_is_written_down_once_an_hour() {
    let mut world = World::new();
    world.key("k");
    world.key("other");
    let used = |world: &mut World, id: &str| {
        let outcome = world.ledger.post(&[Operation::KeyUsed(id).into()]).unwrap().remove(0);
        assert!(matches!(outcome, Ok(Outcome::Noted)), "{outcome:?}");
    };
    assert!(world.key_seen("k").is_due && world.key_seen("k").used_at.is_none());
    used(&mut world, "k");
    let seen = world.key_seen("k");
    assert_eq!((seen.is_due, seen.used_at.as_deref()), (false, Some("2026-11-24T12:00:00Z")));
    assert!(world.key_seen("other").used_at.is_none());
    world.pass_s(HOUR_S - 1);
    assert!(!world.key_seen("k").is_due);
    world.pass_s(1);
    assert!(world.key_seen("k").is_due);
    // A clock that was years ahead keeps nobody from writing it down.
    world.pass_s(-400 * DAY_S);
    assert!(world.key_seen("k").is_due);
    world.pass_s(400 * DAY_S);
    world.change(Change::RevokeKey { id: "k".into(), by: "t".into() }).unwrap();
    used(&mut world, "k");
    used(&mut world, "none");
    let seen = world.key_seen("k");
    assert!(seen.is_over && seen.revoked_at.is_some());
    assert_eq!(seen.used_at.as_deref(), Some("2026-11-24T13:00:00Z"));
    world.check();
}

#[test]
fn a_session_takes_the_place_of_another() {
    let mut world = World::new();
    world.key("k");
    let before = world.signed_in("k");
    let after = SessionToken::new();
    world.ledger.begin_session(&after, "k", Some(&before)).unwrap();
    assert_eq!((world.session(&before), world.session(&after).is_some(), world.rows()), (None, true, 1));
}

/// Whoever has a key cannot fill the database with sessions of it.
#[test]
fn a_key_has_so_many_sessions_at_most() {
    let mut world = World::new();
    world.key("k");
    world.key("other");
    let (first, other) = (world.signed_in("k"), world.signed_in("other"));
    world.pass_s(1);
    let second = world.signed_in("k");
    world.pass_s(1);
    let many = world.ledger.within(|store, now_us| {
        (0..998).try_for_each(|at| {
            let sql = "INSERT INTO session (hash, key_id, made_us, seen_us) VALUES ($1, 'k', $2, $2)";
            store.query(sql, &[format!("{at}").into(), now_us.into()]).map(|_| ())
        })
    });
    many.unwrap();
    assert!(world.session(&first).is_some() && world.rows() == 1_001);
    world.signed_in("k");
    assert!(world.session(&first).is_none() && world.session(&second).is_some() && world.session(&other).is_some());
    assert_eq!(world.rows(), 1_001);
}

/// A clock that was ten years ahead for a moment makes no session that lasts as long.
#[test]
fn a_session_from_the_future_has_ended() {
    let mut world = World::new();
    world.key("k");
    let early = world.signed_in("k");
    world.pass_s(3_650 * DAY_S);
    let late = world.signed_in("k");
    assert_eq!((world.session(&early), world.session(&late).is_some()), (None, true));
    world.pass_s(-3_650 * DAY_S);
    assert_eq!(world.session(&late), None);
    let now = world.signed_in("k");
    assert_eq!((world.session(&now).is_some(), world.rows()), (true, 1));
    // Set back a little, as clocks are.
    world.pass_s(-10);
    assert!(world.session(&now).is_some());
}
