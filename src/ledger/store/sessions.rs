//! Sessions of browsers, in the database, so that every replica of the service knows them. The ledger's time decides whether one has
//! ended; what has ended is removed with the next one that begins, is used or ends.

use super::{Store, StoreLedger, Value, views};
use crate::ledger::LedgerError;
use crate::ledger::session::{SESSION_IDLE_MAX_US, SESSION_MAX_US, SESSION_SEEN_EACH_US, Session, SessionToken};

/// No key has more sessions: the oldest ends when another one begins, so that nobody fills the database.
const SESSIONS_OF_KEY_MAX: i64 = 1_000;
/// What was made so far in the future, in µs, was made by a clock that was wrong, and would last too long. A clock that is set back a
/// little ends nothing.
const AHEAD_MAX_US: i64 = 300 * 1_000_000;

/// Ids of keys, and hashes of tokens.
type KeysAndSessions = (Vec<String>, Vec<String>);

/// When what has not ended was made and used: after the first two times, and not after the third.
fn limits(now_us: i64) -> [Value; 3] {
    let ago = |us: i64| now_us.checked_sub(us).unwrap_or(i64::MIN).into();
    [ago(SESSION_MAX_US), ago(SESSION_IDLE_MAX_US), ago(-AHEAD_MAX_US)]
}

fn remove_ended(store: &mut dyn Store, now_us: i64) -> Result<(), LedgerError> {
    let sql = "DELETE FROM session WHERE made_us <= $1 OR seen_us <= $2 OR made_us > $3 OR seen_us > $3 \
               OR key_id IN (SELECT id FROM api_key WHERE revoked_us IS NOT NULL OR ends_us <= $4)";
    let [made, seen, ahead] = limits(now_us);
    store.query(sql, &[made, seen, ahead, now_us.into()]).map(|_| ())
}

fn remove(store: &mut dyn Store, token: &SessionToken) -> Result<(), LedgerError> {
    store.query("DELETE FROM session WHERE hash = $1", &[token.hash().into()]).map(|_| ())
}

/// Ends all of them: what is restored may have forgotten that one was ended.
pub(super) fn remove_all(store: &mut dyn Store) -> Result<(), LedgerError> {
    store.query("DELETE FROM session", &[]).map(|_| ())
}

fn found(store: &mut dyn Store, now_us: i64, token: &SessionToken) -> Result<Option<Session>, LedgerError> {
    let sql = "SELECT key_id, seen_us FROM session WHERE made_us > $1 AND seen_us > $2 AND made_us <= $3 AND seen_us <= $3 \
               AND hash = $4";
    let [made, seen, ahead] = limits(now_us);
    let Some(mut row) = store.query(sql, &[made, seen, ahead, token.hash().into()])?.pop() else { return Ok(None) };
    let (id, seen_us) = (row.text()?, row.int()?);
    let key = views::keys(store, now_us, Some(&id))?.pop().filter(|key| !key.is_over);
    let is_due = now_us.checked_sub(seen_us).is_none_or(|since_us| since_us >= SESSION_SEEN_EACH_US);
    Ok(key.map(|key| Session { key, is_due }))
}

fn lasting(store: &mut dyn Store, now_us: i64, of: KeysAndSessions) -> Result<KeysAndSessions, LedgerError> {
    let mut texts = |sql: &str, parameters: &[Value]| -> Result<Vec<String>, LedgerError> {
        store.query(sql, parameters)?.into_iter().map(|mut row| row.text()).collect()
    };
    let (keys, hashes) = of;
    let sql = "SELECT id FROM api_key WHERE revoked_us IS NULL AND (ends_us IS NULL OR ends_us > $1) AND id = ANY($2)";
    let keys = texts(sql, &[now_us.into(), Value::Texts(keys)])?;
    let sql = "SELECT s.hash FROM session s JOIN api_key k ON k.id = s.key_id WHERE k.revoked_us IS NULL \
               AND s.made_us > $1 AND s.seen_us > $2 AND s.made_us <= $3 AND s.seen_us <= $3 \
               AND (k.ends_us IS NULL OR k.ends_us > $4) AND s.hash = ANY($5)";
    let [made, seen, ahead] = limits(now_us);
    Ok((keys, texts(sql, &[made, seen, ahead, now_us.into(), Value::Texts(hashes)])?))
}

impl<S: Store> StoreLedger<S> {
    /// Which of these keys (by their ids) and sessions (by the hashes of their tokens) have not ended.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn lasting(&mut self, keys: Vec<String>, hashes: Vec<String>) -> Result<KeysAndSessions, LedgerError> {
        self.look(|store, now_us| lasting(store, now_us, (keys, hashes)))
    }

    /// Begins a session of a key, in the place of another one where one is given.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn begin_session(
        &mut self,
        token: &SessionToken,
        key_id: &str,
        instead_of: Option<&SessionToken>,
    ) -> Result<(), LedgerError> {
        self.within(|store, now_us| {
            remove_ended(store, now_us)?;
            instead_of.map_or(Ok(()), |before| remove(store, before))?;
            let sql = "DELETE FROM session WHERE key_id = $1 AND hash NOT IN \
                       (SELECT hash FROM session WHERE key_id = $1 ORDER BY made_us DESC, hash LIMIT $2)";
            store.query(sql, &[key_id.into(), (SESSIONS_OF_KEY_MAX - 1).into()])?;
            let sql = "INSERT INTO session (hash, key_id, made_us, seen_us) VALUES ($1, $2, $3, $4)";
            store.query(sql, &[token.hash().into(), key_id.into(), now_us.into(), now_us.into()]).map(|_| ())
        })
    }

    /// The session of this token; `None` where there is none, or where it or its key has ended.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn session(&mut self, token: &SessionToken) -> Result<Option<Session>, LedgerError> {
        self.look(|store, now_us| found(store, now_us, token))
    }

    /// A session is used. One that has ended stays so.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn session_used(&mut self, token: &SessionToken) -> Result<(), LedgerError> {
        self.within(|store, now_us| {
            remove_ended(store, now_us)?;
            let sql = "UPDATE session SET seen_us = $1 WHERE seen_us < $1 AND hash = $2";
            store.query(sql, &[now_us.into(), token.hash().into()]).map(|_| ())
        })
    }

    /// Ends a session.
    ///
    /// # Errors
    /// Where the store fails: then it goes on.
    pub fn end_session(&mut self, token: &SessionToken) -> Result<(), LedgerError> {
        self.within(|store, now_us| {
            remove(store, token)?;
            remove_ended(store, now_us)
        })
    }
}
