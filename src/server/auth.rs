//! Who asks: a key, what it may do, and for whose account.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};

use super::App;
use super::problem::Problem;
use crate::ledger::keys::{KeyView, Scope, Secret};
use crate::ledger::views::{Query, View};
use crate::sys::clock::{Clock, SystemClock};

/// Whoever asks, with a valid key.
#[derive(Clone, Debug)]
pub(super) struct Caller(Arc<KeyView>);

impl Caller {
    /// The account to which the key is bound.
    pub(super) fn only(&self) -> Option<String> {
        self.0.user.clone()
    }

    /// For the books.
    pub(super) fn name(&self) -> String {
        format!("key {} ({})", self.0.id, self.0.name)
    }

    /// Everything.
    pub(super) fn may_administer(&self) -> Result<(), Problem> {
        let may = self.0.scope == Scope::Admin && self.0.user.is_none();
        if may { Ok(()) } else { Err(Problem::forbidden("this needs a key of the scope admin")) }
    }

    /// Attempts and tokens.
    pub(super) fn may_report(&self) -> Result<(), Problem> {
        match self.0.scope {
            Scope::Admin | Scope::Report => Ok(()),
            Scope::Read => Err(Problem::forbidden("this needs a key of the scope report")),
        }
    }

    /// This account. To who may not, it is as if it were not there.
    pub(super) fn may_see(&self, user: &str) -> Result<(), Problem> {
        match &self.0.user {
            Some(own) if own != user => Err(Problem::missing(format!("no account {user:?} is known to this key"))),
            _ => Ok(()),
        }
    }

    /// Every account.
    pub(super) fn may_see_all(&self) -> Result<(), Problem> {
        let own = self.0.user.is_some();
        if own { Err(Problem::forbidden("this key sees its own account alone")) } else { Ok(()) }
    }
}

/// The cookie of the pages.
pub(super) const COOKIE_NAME: &str = "jobmeter-key";
/// The header of the platform's own client.
const PLATFORM_HEADER: &str = "x-mostly-api-key";

/// The key that a request shows. The cookie, which a browser sends by itself, is good for reading alone.
fn secret_of(parts: &Parts) -> Option<Secret> {
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let shown = match text(AUTHORIZATION.as_str()) {
        Some(header) => header.strip_prefix("Bearer "),
        None => text(PLATFORM_HEADER),
    };
    match shown {
        Some(text) => text.parse().ok(),
        None if parts.method == Method::GET || parts.method == Method::HEAD => secret_of_cookie(&parts.headers),
        None => None,
    }
}

/// The key in the cookie of the pages.
pub(super) fn secret_of_cookie(headers: &HeaderMap) -> Option<Secret> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).and_then(|(_, text)| text.parse().ok())
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        if let Some(caller) = Self::named_by_proxy(&parts.headers, app)? {
            return Ok(caller);
        }
        let secret = secret_of(parts).ok_or_else(Problem::unauthorized)?;
        Self::of(&secret, app).await
    }
}

impl Caller {
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
        Ok(Some(Self(Arc::new(KeyView {
            id: "proxy".to_owned(),
            name: name.to_string(),
            scope: Scope::Read,
            user: Some(user),
            created_at: String::new(),
            revoked_at: None,
            hash: String::new(),
        }))))
    }

    /// The holder of this key.
    pub(super) async fn of(secret: &Secret, app: &Arc<App>) -> Result<Self, Problem> {
        let look = || async {
            let found = app.key_readers.read(Query::Keys { id: Some(secret.id().to_owned()) }).await?;
            let View::Keys(mut found) = found else { return Err(Problem::unauthorized()) };
            found.pop().map(Arc::new).ok_or_else(Problem::unauthorized)
        };
        let key = app.keys.key(secret.id(), SystemClock.boottime_us(), look).await?;
        // The hashes of two long random texts: how far they agree tells nothing.
        if key.hash != secret.hash() || key.revoked_at.is_some() {
            return Err(Problem::unauthorized());
        }
        Ok(Self(key))
    }
}
