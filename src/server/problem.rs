//! What went wrong, as a problem document (RFC 9457) with a stable `type`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::ledger::LedgerError;

/// What every request may be answered with, for the OpenAPI document.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes answers, and is none")]
pub(super) enum Refusals {
    /// The key is missing or not valid.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(Problem),
    /// The key may not do that, or the attempt is another sidecar's.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// There is no such thing.
    #[response(status = 404, content_type = "application/problem+json")]
    Missing(Problem),
    /// The ledger refused it, and would again.
    #[response(status = 409, content_type = "application/problem+json")]
    Refused(Problem),
    /// The body came too slowly.
    #[response(status = 408, content_type = "application/problem+json")]
    TooSlow(Problem),
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// The request cannot be understood.
    #[response(status = 422, content_type = "application/problem+json")]
    Malformed(Problem),
    /// Try again later.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// A problem document.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    /// What the ledger answered, where the problem is an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    answer: Option<serde_json::Value>,
}

impl Problem {
    fn new(status: StatusCode, kind: &str, title: &'static str, detail: impl Into<String>) -> Self {
        let (kind, status, detail) = (format!("urn:jobmeter:problem:{kind}"), status.as_u16(), detail.into());
        Self { kind, title, status, detail, answer: None }
    }

    /// What was sent cannot be read, or is out of range.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "malformed", "The request cannot be understood.", detail)
    }

    /// A header is not what its standard says, or a cursor was never given.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "The request cannot be understood.", detail)
    }

    /// What was to be changed is no longer as the request says that it is.
    pub(super) fn precondition_failed(detail: impl Into<String>) -> Self {
        let title = "It was changed by somebody else meanwhile.";
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition-failed", title, detail)
    }

    /// Who asks did not say who they are.
    pub(super) fn unauthorized() -> Self {
        let detail = "send a valid key as `Authorization: Bearer KEY`";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "A valid key is needed.", detail)
    }

    /// Who asks may not do that.
    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "This key may not do that.", detail)
    }

    /// Who asks has as much of something as may be.
    pub(super) fn too_many(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", "There are too many of these already.", detail)
    }

    /// There is no such thing, or none that who asks may know of.
    pub(super) fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing.", detail)
    }

    /// More was sent than the path takes.
    pub(super) fn too_large(bytes_max: usize) -> Self {
        let detail = format!("the body of this request may have {bytes_max} bytes at most");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large.", detail)
    }

    /// What was sent came too slowly.
    pub(super) fn too_slow(seconds_max: u64) -> Self {
        let detail = format!("the body of a request has to come within {seconds_max} s: send it again");
        Self::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The request came too slowly.", detail)
    }

    /// What was refused before anybody here looked at it: a path that is no text.
    pub(super) fn of_status(status: StatusCode) -> Self {
        let detail = status.canonical_reason().unwrap_or("refused");
        Self::new(status, "malformed", "The request cannot be understood.", detail)
    }

    /// For a page: status, title and detail.
    pub(super) fn told(&self) -> (StatusCode, String, String) {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, self.title.to_owned(), self.detail.clone())
    }

    /// No credits: nothing was started.
    pub(super) fn exhausted(answer: serde_json::Value) -> Self {
        let problem = Self::new(
            StatusCode::PAYMENT_REQUIRED,
            "credits-exhausted",
            "The account has no credits for that.",
            "nothing was started; see `answer` for why and until when",
        );
        Self { answer: Some(answer), ..problem }
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Refused(why) | LedgerError::Outdated(why) => {
                Self::new(StatusCode::CONFLICT, "refused", "The ledger refused that.", why)
            }
            LedgerError::Missing(why) => Self::missing(why),
            LedgerError::Unknown(why) => {
                Self::new(StatusCode::NOT_FOUND, "attempt-unknown", "The ledger does not know this attempt.", why)
            }
            LedgerError::Foreign => {
                let title = "The attempt belongs to another sidecar.";
                Self::new(StatusCode::FORBIDDEN, "attempt-secret", title, error.to_string())
            }
            LedgerError::Unavailable(why) | LedgerError::Conflict(why) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Try again later.", why)
            }
            LedgerError::Broken(why) => {
                // What is broken is the operator's business: the text may hold paths and rows.
                tracing::error!(why, "The ledger is broken.");
                let detail = "the ledger's log says more";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "broken", "The ledger is broken.", detail)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
