//! What is taken from a request, and within which limits.

use super::failure::Failure;
use crate::model::{Kind, duration};
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;
use std::io::Read;
use std::time::Duration;

/// The largest body, as it is sent and as it is after inflation.
pub(super) const BODY_LIMIT: usize = 10 << 20;
/// Of a body that is too large, so much more is read before the answer: a client that is cut off while it still sends
/// would see a reset connection and not the reason.
const DRAIN_LIMIT: usize = 64 << 20;
/// A body that is not there by then is not waited for.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads a body as text.
///
/// # Errors
/// 400 if it is no text, 408 if it does not come, 413 if it is too large, 415 if its encoding is not known.
pub(super) async fn text(headers: &HeaderMap, body: Body) -> Result<String, Failure> {
    let encoding =
        headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
    let gzip = match encoding.as_deref() {
        None | Some(b"" | b"identity") => false,
        Some(b"gzip" | b"x-gzip") => true,
        Some(_) => {
            return Err(Failure::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-encoding",
                "Unsupported content encoding",
                "the body may be encoded with gzip, or not at all",
            ));
        }
    };
    refuse_announced(headers)?;
    let bytes = tokio::time::timeout(BODY_TIMEOUT, collect(body)).await.map_err(|_| {
        let detail = "the body did not arrive in time";
        Failure::new(StatusCode::REQUEST_TIMEOUT, "timeout", "Request timeout", detail)
    })??;
    let bytes = if gzip { inflate(&bytes)? } else { bytes };
    String::from_utf8(bytes).map_err(|_| Failure::bad_request("the body is not UTF-8"))
}

/// A client that asks before it sends (`Expect: 100-continue`) need not send what is too large.
fn refuse_announced(headers: &HeaderMap) -> Result<(), Failure> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let too_large =
        length.and_then(|text| text.parse().ok()).is_some_and(|n: u64| n > BODY_LIMIT as u64);
    if too_large && headers.contains_key(header::EXPECT) {
        return Err(body_too_large());
    }
    Ok(())
}

fn body_too_large() -> Failure {
    Failure::too_large(format!("a body has at most {BODY_LIMIT} bytes"))
}

async fn collect(mut body: Body) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Failure::bad_request(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length <= BODY_LIMIT {
            bytes.extend_from_slice(&data);
        } else if length > DRAIN_LIMIT {
            break;
        } else {
            bytes = Vec::new();
        }
    }
    if length > BODY_LIMIT {
        return Err(body_too_large());
    }
    Ok(bytes)
}

fn inflate(compressed: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let limit = BODY_LIMIT as u64 + 1;
    MultiGzDecoder::new(compressed)
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::bad_request(format!("the body is not gzip: {error}")))?;
    if bytes.len() > BODY_LIMIT {
        return Err(Failure::too_large(format!("a body has at most {BODY_LIMIT} bytes, inflated")));
    }
    Ok(bytes)
}

/// Parameters of a query; each is taken once, and one that nobody took is a mistake.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let pairs = Query::from_request_parts(parts, state).await;
        let pairs: Query<Vec<(String, String)>> =
            pairs.map_err(|error: QueryRejection| Failure::bad_request(error.body_text()))?;
        Ok(Self(pairs.0))
    }
}

impl Parameters {
    /// Takes a parameter.
    ///
    /// # Errors
    /// If it is there more than once.
    pub(super) fn take(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let mut values: Vec<_> = self.0.extract_if(.., |(key, _)| key == name).collect();
        match values.len() {
            0 | 1 => Ok(values.pop().map(|(_, value)| value)),
            _ => Err(Failure::bad_request(format!("the query parameter `{name}` is there twice"))),
        }
    }

    /// Takes `true` or `false`; absent is `false`.
    ///
    /// # Errors
    /// If it is something else.
    pub(super) fn take_flag(&mut self, name: &str) -> Result<bool, Failure> {
        match self.take(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                let detail =
                    format!("the query parameter `{name}` is `true` or `false`, not `{other}`");
                Err(Failure::bad_request(detail))
            }
        }
    }

    /// Takes a duration of at most `longest`.
    ///
    /// # Errors
    /// If it is none, or longer.
    pub(super) fn take_duration(
        &mut self,
        name: &str,
        longest: Duration,
    ) -> Result<Option<Duration>, Failure> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        let failure =
            |reason| Failure::bad_request(format!("the query parameter `{name}`: {reason}"));
        let value = duration::parse(&text).map_err(failure)?;
        if value > longest {
            return Err(failure(format!("`{text}` is longer than {}", duration::format(longest))));
        }
        Ok(Some(value))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// If a parameter is left, naming those there are.
    pub(super) fn finish(self, known: &[&str]) -> Result<(), Failure> {
        let Some((name, _)) = self.0.first() else { return Ok(()) };
        let mut detail = format!("there is no query parameter `{name}` here");
        if let Some(meant) = crate::model::problem::did_you_mean(name, known.iter().copied()) {
            detail = format!("{detail}; did you mean `{meant}`?");
        } else if !known.is_empty() {
            detail = format!("{detail}; there are {}", known.join(", "));
        }
        Err(Failure::bad_request(detail))
    }
}

/// The kind in a path, lower-case plural.
pub(super) fn kind(plural: &str) -> Result<Kind, Failure> {
    Kind::from_plural(plural).ok_or_else(|| {
        let known = Kind::ALL.map(Kind::plural);
        let hint = crate::model::problem::did_you_mean(plural, known.into_iter());
        let hint = hint.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        Failure::not_found(format!("there is no `{plural}` here{hint}"))
    })
}

/// What a path holds, or the failure to understand it.
pub(super) fn path<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Failure> {
    match path {
        Ok(Path(value)) => Ok(value),
        Err(rejection) => Err(Failure::bad_request(rejection.body_text())),
    }
}
