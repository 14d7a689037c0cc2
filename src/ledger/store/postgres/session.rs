//! Whether a connection is a session of its own. Behind a pooler that lends a server's connection for a transaction alone, what
//! is set for a session (how long a lock is waited for, that commits are durable, that revisions are ours) would be set for others,
//! and be missing here.

use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};
use uuid::Uuid;

use super::target::Target;
use super::tls;
use crate::ledger::LedgerError;

/// A pooler that has no second connection keeps the question waiting, and nothing is known then.
const SECOND_MAX: Duration = Duration::from_secs(3);

/// What is set for the session; each transaction asks for it again.
#[derive(Clone, Debug)]
pub(super) struct SessionMark(String);

impl SessionMark {
    pub(super) fn new() -> Self {
        Self(Uuid::new_v4().simple().to_string())
    }

    /// The statement that sets it.
    pub(super) fn set(&self) -> String {
        format!("SELECT set_config('jobmeter.session', '{}', false)", self.0)
    }

    /// The expression that asks for it.
    pub(super) const ASKED: &str = "current_setting('jobmeter.session', true)";

    pub(super) fn is(&self, found: Option<&str>) -> bool {
        found == Some(&self.0)
    }
}

/// What a pooler in the wrong mode is told by.
pub(super) fn no_session() -> LedgerError {
    LedgerError::Refused(
        "a pooler gives each transaction another connection of the server: use PgBouncer's pool_mode=session, or connect \
         to PostgreSQL itself"
            .to_owned(),
    )
}

fn answer(messages: &[SimpleQueryMessage]) -> Option<&str> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    })
}

/// Whether others use this connection of the server's between our transactions. With nobody else there a pooler gives us the
/// same one again and again; so another of ours holds that meanwhile.
pub(super) async fn is_shared(client: &Client, mark: &SessionMark, target: &Target) -> bool {
    let asked = format!("SELECT {}", SessionMark::ASKED);
    let looked = tokio::time::timeout(SECOND_MAX, async {
        let other = tls::connect(target).await?;
        let theirs = other.simple_query(&format!("BEGIN; {asked}")).await?;
        let own = client.simple_query(&asked).await?;
        Ok::<_, LedgerError>(mark.is(answer(&theirs)) || !mark.is(answer(&own)))
    });
    match looked.await {
        Ok(Ok(is_shared)) => is_shared,
        // PgBouncer's answer to a transaction in its third mode. Where there is no room for another connection each
        // transaction looks for itself.
        Ok(Err(error)) => error.to_string().contains("pooling mode"),
        Err(_) => false,
    }
}
