//! Requests that another site made a browser send, `envoy.filters.http.csrf`: what changes something has to come from where
//! it goes to.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::{Passage, happens};
use crate::config::http_filters::CsrfPolicy;
use crate::http::headers::host_of;
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::router::Refusal;
use crate::stats::CsrfCells;

pub(super) fn run(
    policy: &CsrfPolicy,
    stats: &CsrfCells,
    passage: &Passage<'_>,
) -> Result<(), Refusal> {
    let enabled = happens(policy.enabled.current());
    if !enabled && !policy.shadow_enabled.as_ref().is_some_and(|share| happens(share.current())) {
        return Ok(());
    }
    let changes = [Method::POST, Method::PUT, Method::DELETE, Method::PATCH];
    if !changes.contains(&passage.request.method) {
        return Ok(());
    }
    let headers = &passage.request.headers;
    match source(headers) {
        None => stats.missing_source_origin.inc(),
        Some(source) => {
            let target = host_and_port(host_of(headers).as_bytes());
            if source == target || policy.origins.iter().any(|origin| origin.matches(source)) {
                stats.request_valid.inc();
                return Ok(());
            }
            stats.request_invalid.inc();
        }
    }
    if !enabled {
        return Ok(());
    }
    let reply = LocalReply::new(StatusCode::FORBIDDEN, "Invalid origin", "csrf_origin_mismatch");
    Err(reply.because(Reason::CsrfDenied).into())
}

/// Where a request comes from. A browser that does not want to say says `null`.
fn source(headers: &HeaderMap) -> Option<&[u8]> {
    let named = |name| {
        let value: &HeaderValue = headers.get(name)?;
        Some(host_and_port(value.as_bytes())).filter(|it| !it.is_empty())
    };
    match named(&header::ORIGIN) {
        Some(b"null") => None,
        Some(origin) => Some(origin),
        None => named(&header::REFERER),
    }
}

/// Host and port of a URL as they stand there, which is how Envoy compares them; all of what is no URL.
fn host_and_port(text: &[u8]) -> &[u8] {
    let authority = || {
        let is_of_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        let scheme = text.iter().position(|byte| !is_of_scheme(byte))?;
        let rest = text.get(scheme..)?.strip_prefix(b"://").filter(|_| scheme > 0)?;
        let authority = rest.split(|byte| b"/?".contains(byte)).next()?;
        // Who asks is no part of where.
        authority.rsplit(|byte| *byte == b'@').next().filter(|it| !it.is_empty())
    };
    authority().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_the_host_and_port_of_its_url() {
        for (text, expected) in [
            ("http://a.example", "a.example"),
            ("http://A.example:80/path?q", "A.example:80"),
            ("https://u@a.example?q", "a.example"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("ftp://a.example", "a.example"),
            ("a.example:80", "a.example:80"),
            ("null", "null"),
            ("://a", "://a"),
            ("http:///a", "http:///a"),
            ("a-b://a", "a"),
            ("a_b://a", "a_b://a"),
            ("", ""),
        ] {
            assert_eq!(*host_and_port(text.as_bytes()), *expected.as_bytes(), "{text}");
        }
    }
}
