//! Who asks: a key or a browser's session, what it may do, and for whose account.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};

use super::App;
use super::admission::Place;
use super::doors::Door;
use super::problem::Problem;
use crate::ledger::asker::{Asker, Reach};
use crate::ledger::keys::{KeyView, Scope, Secret};
use crate::ledger::session::{Session, SessionToken};
use crate::ledger::views::{Query, View};
use crate::sys::clock::{Clock, SystemClock};

/// Whoever asks, with a valid key or a session that was made with one.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    key: Arc<KeyView>,
    by: By,
}

/// What was shown, for whoever has to know when it ends.
#[derive(Clone, Debug)]
enum By {
    Key,
    Session(SessionToken),
    /// A header of the proxy in front.
    Proxy,
}

impl Caller {
    /// For whoever stays (see [`super::doors`]).
    pub(super) fn door(&self) -> Option<Door> {
        match &self.by {
            By::Key => Some(Door::Key(self.key.id.clone())),
            By::Session(token) => Some(Door::Session(token.hash())),
            By::Proxy => None,
        }
    }

    /// What names the key.
    pub(super) fn key_id(&self) -> &str {
        &self.key.id
    }

    /// The account to which the key is bound.
    pub(super) fn only(&self) -> Option<String> {
        self.key.user.clone()
    }

    /// For the rules of the books, which say what of them may be changed.
    pub(super) fn asker(&self) -> Asker {
        let reach = match (&self.key.user, self.key.scope) {
            (Some(own), _) => Reach::Owner(own.clone()),
            (None, Scope::Admin) => Reach::All,
            (None, Scope::Report | Scope::Read) => Reach::Principal,
        };
        Asker { principal: self.key.principal.clone(), reach }
    }

    /// For the books.
    pub(super) fn name(&self) -> String {
        format!("key {} ({})", self.key.id, self.key.name)
    }

    /// Everything.
    pub(super) fn may_administer(&self) -> Result<(), Problem> {
        let may = self.key.scope == Scope::Admin && self.key.user.is_none();
        if may { Ok(()) } else { Err(Problem::forbidden("this needs a key of the scope admin")) }
    }

    /// Attempts and tokens.
    pub(super) fn may_report(&self) -> Result<(), Problem> {
        match self.key.scope {
            Scope::Admin | Scope::Report => Ok(()),
            Scope::Read => Err(Problem::forbidden("this needs a key of the scope report")),
        }
    }

    /// This account. To who may not, it is as if it were not there.
    pub(super) fn may_see(&self, user: &str) -> Result<(), Problem> {
        match &self.key.user {
            Some(own) if own != user => Err(Problem::missing(format!("no account {user:?} is known to this key"))),
            _ => Ok(()),
        }
    }

    /// Every account.
    pub(super) fn may_see_all(&self) -> Result<(), Problem> {
        let own = self.key.user.is_some();
        if own { Err(Problem::forbidden("this key sees its own account alone")) } else { Ok(()) }
    }
}

/// The header of the platform's own client.
const PLATFORM_HEADER: &str = "x-mostly-api-key";

/// The name of the cookie with the session. Browsers take one that begins with `__Host-` from this host alone, and only with TLS.
pub(super) const fn session_cookie(tls: bool) -> &'static str {
    if tls { "__Host-jobmeter-session" } else { "jobmeter-session" }
}

/// The value of a cookie.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, text)| text)
}

/// The session that a browser shows.
pub(super) fn session_of(headers: &HeaderMap, tls: bool) -> Option<SessionToken> {
    cookie(headers, session_cookie(tls)).and_then(|text| text.parse().ok())
}

/// Browsers say what is asked for by a script, as a page does by itself that moves: nobody need be there for that. Older ones say
/// nothing.
fn is_by_a_person(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-dest").is_none_or(|what| what != "empty")
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let caller = Self::found(parts, app).await?;
        caller.is_shown(parts);
        Ok(caller)
    }
}

impl Caller {
    /// Its connection is no stranger's from now on.
    pub(super) fn is_shown(&self, parts: &Parts) {
        if let Some(place) = parts.extensions.get::<Arc<Place>>() {
            let own = self.key.user.is_some() || !matches!(self.by, By::Key);
            place.show(own.then_some(&self.key.id));
        }
    }

    async fn found(parts: &Parts, app: &Arc<App>) -> Result<Self, Problem> {
        if let Some(caller) = Self::named_by_proxy(&parts.headers, app)? {
            return Ok(caller);
        }
        let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let shown = match text(AUTHORIZATION.as_str()) {
            // Whatever else stands there may be for a proxy in front, as a browser sends it with each request.
            Some(header) => header.strip_prefix("Bearer "),
            None => text(PLATFORM_HEADER),
        };
        match shown {
            Some(text) => Self::of(&text.parse().map_err(|_| Problem::unauthorized())?, app).await,
            // The cookie, which a browser sends by itself, is good for reading alone.
            None if parts.method == Method::GET || parts.method == Method::HEAD => {
                Self::signed_in(&parts.headers, app).await
            }
            None => Err(Problem::unauthorized()),
        }
    }

    /// Whom the proxy in front has signed in, where one is trusted (`--trust-header`): they read, and see themselves alone.
    pub(super) fn named_by_proxy(headers: &HeaderMap, app: &App) -> Result<Option<Self>, Problem> {
        let Some(name) = app.trust_header.as_ref().filter(|_| !headers.contains_key(AUTHORIZATION)) else {
            return Ok(None);
        };
        let mut values = headers.get_all(name).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            // None came; or two, of which one is somebody else's.
            let twice = headers.contains_key(name).then(Problem::unauthorized);
            return twice.map_or(Ok(None), Err);
        };
        let user = value.to_str().map_err(|_| Problem::unauthorized())?.to_owned();
        super::bounds::name("user", &user)?;
        let key = KeyView {
            id: "proxy".to_owned(),
            name: name.to_string(),
            scope: Scope::Read,
            user: Some(user),
            created_at: String::new(),
            revoked_at: None,
            principal: String::new(),
            expires_at: None,
            used_at: None,
            hash: String::new(),
            is_over: false,
            is_due: false,
        };
        Ok(Some(Self { key: Arc::new(key), by: By::Proxy }))
    }

    /// Whoever has signed in with a browser. The session, and whether its key is revoked, is looked up each time: both end at once.
    pub(super) async fn signed_in(headers: &HeaderMap, app: &Arc<App>) -> Result<Self, Problem> {
        let token = session_of(headers, app.tls).ok_or_else(Problem::unauthorized)?;
        let shown = token.clone();
        let found = app.pools.sessions.with(move |ledger| ledger.session(&shown)).await?;
        let Session { key, is_due } = found.ok_or_else(Problem::unauthorized)?;
        if is_due && is_by_a_person(headers) {
            let used = token.clone();
            let written = app.pools.session_writer.with(move |ledger| ledger.session_used(&used)).await;
            // The session goes on until its time is over, and its next use may be written down.
            if let Err(error) = written {
                tracing::warn!(%error, "The use of a session cannot be written down.");
            }
        }
        Ok(Self { key: Arc::new(key), by: By::Session(token) })
    }

    /// The holder of this key.
    pub(super) async fn of(secret: &Secret, app: &Arc<App>) -> Result<Self, Problem> {
        let look = || async {
            let found = app.pools.key_readers.read(Query::Keys { id: Some(secret.id().to_owned()) }).await?;
            let View::Keys(mut found) = found else { return Err(Problem::unauthorized()) };
            found.pop().map(Arc::new).ok_or_else(Problem::unauthorized)
        };
        let now_us = SystemClock.boottime_us();
        let key = app.keys.key(secret.id(), now_us, look).await?;
        // The hashes of two long random texts: how far they agree tells nothing.
        if key.hash != secret.hash() || key.is_over {
            return Err(Problem::unauthorized());
        }
        if key.is_due && app.keys.takes_note(&key.id, now_us) {
            app.poster.note_use(&key.id);
        }
        Ok(Self { key, by: By::Key })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_session_is_read_from_its_own_cookie_alone() {
        const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for (text, is_read) in [
            ("a=b; jobmeter-session=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef; c=d", true),
            ("__Host-jobmeter-session=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", false),
            ("jobmeter-session=", false),
            ("jobmeter-session", false),
            ("", false),
        ] {
            let read = session_of(&headers(&[("cookie", text)]), false);
            assert_eq!(read.map(|token| token.text().to_owned()), is_read.then(|| TOKEN.to_owned()), "{text}");
        }
        let two = [("cookie", "x=y"), ("cookie", "__Host-jobmeter-session=z")];
        assert_eq!(cookie(&headers(&two), session_cookie(true)), Some("z"));
    }

    #[test]
    fn a_page_that_moves_by_itself_uses_no_session() {
        for (what, is_by_one) in [("document", true), ("iframe", true), ("empty", false)] {
            assert_eq!(is_by_a_person(&headers(&[("sec-fetch-dest", what)])), is_by_one, "{what}");
        }
        assert!(is_by_a_person(&HeaderMap::new()));
    }
}
