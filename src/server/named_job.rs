//! Which job a request is about: its id in the path, and where several have that, whose it is in the query.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::Deserialize;
use utoipa::IntoParams;

use super::bounds;
use super::problem::Problem;
use crate::ledger::job_name::JobName;

/// The job that a request names.
pub(super) struct NamedJob(pub(super) JobName);

/// Whose the job is, where the id alone does not say it.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OfJob {
    /// Of this account alone.
    user: Option<String>,
    /// Opened by this node, cluster or service; empty for what was opened without a service.
    principal: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for NamedJob {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(id) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
        let query = Query::<OfJob>::from_request_parts(parts, state).await;
        let Query(OfJob { user, principal }) = query.map_err(|error| Problem::malformed(error.body_text()))?;
        let said = [("job", Some(&id)), ("user", user.as_ref()), ("principal", principal.as_ref())];
        for (what, text) in said {
            text.map_or(Ok(()), |text| bounds::lookup(what, text))?;
        }
        Ok(Self(JobName { id, user, principal }))
    }
}
