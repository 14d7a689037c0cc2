//! What the platform's own client asks (the PyPI package mostlyai): who I am, with credits as it names them.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::App;
use super::auth::Caller;
use super::problem::Problem;
use crate::ledger::LedgerError;
use crate::ledger::views::{Query, View};

/// Its routes.
pub(super) fn routes() -> Router<Arc<App>> {
    let about =
        || async { Json(json!({ "version": concat!("jobmeter ", env!("CARGO_PKG_VERSION")), "assistant": false })) };
    Router::new().route("/api/v2/users/me", get(me)).route("/api/v2/about", get(about))
}

async fn me(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Value>, Problem> {
    let of_nobody = || Problem::forbidden("this key is of no account: make one with --only-user");
    let user = caller.only().ok_or_else(of_nobody)?;
    let View::Account(account) = app.pools.read(Query::Account { user: user.clone() }).await? else {
        return Err(LedgerError::unasked().into());
    };
    let credits = json!({
        "current": account.current,
        "limit": account.limit,
        "periodStart": account.period_start,
        "periodEnd": account.period_end,
    });
    Ok(Json(json!({ "id": user, "name": user, "usage": { "credits": credits } })))
}
