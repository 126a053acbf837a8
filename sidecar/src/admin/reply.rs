//! What a path answers.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::Value as Json;
use tonic::body::Body;

/// Status, kind of content and content.
pub(super) struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
}

impl Reply {
    pub(super) fn text(body: impl Into<String>) -> Self {
        Self::with(StatusCode::OK, body)
    }

    pub(super) fn ok() -> Self {
        Self::text("OK\n")
    }

    pub(super) fn with(status: StatusCode, body: impl Into<String>) -> Self {
        let body = Bytes::from(body.into());
        Self { status, content_type: "text/plain; charset=UTF-8", body }
    }

    pub(super) fn bad_request(body: impl Into<String>) -> Self {
        Self::with(StatusCode::BAD_REQUEST, body)
    }

    pub(super) fn html(body: String) -> Self {
        let body = Bytes::from(body);
        Self { status: StatusCode::OK, content_type: "text/html; charset=UTF-8", body }
    }

    /// Indented by one space, as Envoy prints its messages.
    pub(super) fn json(value: &Json) -> Self {
        let mut body = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
        // A value serializes, and writing to memory does not fail.
        let _ = value.serialize(&mut serde_json::Serializer::with_formatter(&mut body, formatter));
        body.push(b'\n');
        Self { status: StatusCode::OK, content_type: "application/json", body: body.into() }
    }

    /// On one line, as Envoy prints statistics.
    pub(super) fn compact_json(value: &Json) -> Self {
        let body = Bytes::from(value.to_string());
        Self { status: StatusCode::OK, content_type: "application/json", body }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::new(Full::new(self.body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(http::header::SERVER, HeaderValue::from_static("envoy"));
        response
    }
}

/// The parameters of a query, decoded, in order.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn of(query: Option<&str>) -> Self {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        };
        let query = query.unwrap_or_default();
        Self(query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect())
    }

    /// The first value of a parameter that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, value)| *other == name && !value.is_empty()).map(|(_, v)| v)
    }

    /// Whether a parameter is there, with a value or without.
    pub(super) fn has(&self, name: &str) -> bool {
        self.iter().any(|(other, _)| other == name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Undoes percent encoding; a `%` that begins none stays. `+` is a plus: these are no forms, and it is frequent in regexes.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = |at: usize| tail.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
