//! [`Failure`]: what is answered when a request is not served, as RFC 9457 `application/problem+json`.

use crate::model::problem::{Code, MOST, Problem};
use crate::store::StoreError;
use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// A request that is not served, and why.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Failure {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    #[serde(serialize_with = "number")]
    status: StatusCode,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Problem>,
    /// Members of its own.
    #[serde(flatten)]
    more: serde_json::Map<String, serde_json::Value>,
}

fn number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Failure {
    /// A failure of the type `urn:outrigger:problem:KIND`.
    pub(crate) fn new(
        status: StatusCode,
        kind: &str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind: format!("urn:outrigger:problem:{kind}"),
            title,
            status,
            detail: detail.into(),
            errors: Vec::new(),
            more: serde_json::Map::new(),
        }
    }

    /// With a member of its own.
    pub(super) fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    /// What is wrong, in one line.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// What is wrong with the input.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.errors
    }

    /// With problems of its own.
    pub(super) fn errors(mut self, errors: Vec<Problem>) -> Self {
        self.errors = errors;
        self
    }

    /// Documents with problems. If nothing is wrong but that others use what they take away, it is a conflict.
    pub(super) fn invalid(mut problems: Vec<Problem>) -> Self {
        let detail = match problems.len() {
            1 => "there is 1 problem; nothing was changed".to_owned(),
            count if count >= MOST => {
                problems.truncate(MOST);
                format!("there are {MOST} problems or more; nothing was changed")
            }
            count => format!("there are {count} problems; nothing was changed"),
        };
        let in_use = problems.iter().all(|problem| problem.code == Code::InUse);
        let failure = if in_use {
            Self::new(StatusCode::CONFLICT, "in-use", "In use", detail)
        } else {
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "Invalid input", detail)
        };
        failure.errors(problems)
    }

    /// A request that cannot be understood.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "Bad request", detail)
    }

    /// There is no such thing.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// There is no such path.
    pub(super) fn no_such_path(path: &str) -> Self {
        Self::not_found(format!("there is no {path} here"))
    }

    /// The path knows other methods.
    pub(super) fn method_not_allowed(method: &Method, path: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "Method not allowed",
            format!("{path} does not take {method}; the header Allow names what it takes"),
        )
    }

    /// The request holds more than is taken.
    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail)
    }

    /// The object is not (or no longer) what the request was made for.
    pub(super) fn precondition(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "changed", "Precondition failed", detail)
    }

    /// Something of ours failed, whatever the request.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable", detail)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        Self::unavailable(error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}
