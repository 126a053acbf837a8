//! What may go wrong between a command and the API.

use std::time::Duration;

use http::StatusCode;

use super::types::Problem;
use crate::exit::Failure;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No connection, or it broke.
    #[error(
        "no control plane answers at {url}: {why}\n  \
         start one with `outrigger control-plane`, or name another with --api URL or OUTRIGGER_API"
    )]
    Unreachable {
        /// The API's URL.
        url: String,
        /// The operating system's or the HTTP library's words.
        why: String,
    },
    /// The connection stands and nothing comes.
    #[error("the control plane at {url} did not answer within {after:?}")]
    Timeout {
        /// The API's URL.
        url: String,
        /// How long it was waited.
        after: Duration,
    },
    /// The API refused, with its reasons.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// Something answered that is not this API, or not of this version.
    #[error("unexpected answer to {path}: {why}")]
    Answer {
        /// Path of the call.
        path: String,
        /// What is wrong with the answer.
        why: String,
    },
}

impl ApiError {
    /// From an answer that is not a success.
    pub(super) fn refused(status: StatusCode, path: &str, body: &[u8]) -> Self {
        match serde_json::from_slice::<Problem>(body) {
            Ok(mut problem) => {
                problem.status = status.as_u16();
                Self::Refused(Box::new(problem))
            }
            Err(_) => {
                let body = String::from_utf8_lossy(body);
                let excerpt: String = body.chars().take(200).collect();
                Self::Answer { path: path.to_owned(), why: format!("status {status}: {excerpt}") }
            }
        }
    }

    /// The refusal, if it is one.
    pub(crate) fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let message = error.to_string();
        match error {
            ApiError::Timeout { .. } => Self::Timeout(message),
            ApiError::Refused(problem) if problem.is_about_resources() => Self::Rejected(message),
            ApiError::Refused(problem) if problem.status == 504 => Self::Timeout(message),
            _ => Self::Error(message),
        }
    }
}
