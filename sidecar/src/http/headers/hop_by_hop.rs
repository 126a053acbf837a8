//! Headers that are meant for one connection and end there (RFC 9110 section 7.6.1).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::{HTTP2_SETTINGS, KEEP_ALIVE, PROXY_CONNECTION, Refused, Seen};

/// Whether a comma-separated header lists a token, in any case.
pub(super) fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|listed| listed.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Headers that a client may not have removed by naming them in `Connection`.
pub(super) fn is_protected(name: &str) -> bool {
    matches!(
        name,
        "host" | "content-length" | "cookie" | "authorization" | "x-request-id" | "cache-control"
    ) || name.starts_with("x-forwarded-")
        || name.starts_with("x-envoy-")
        || name.starts_with(':')
}

pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap, seen: Seen) -> Result<(), Refused> {
    if seen.any(Seen::CONNECTION) {
        let mut named: Vec<HeaderName> = Vec::new();
        for value in headers.get_all(header::CONNECTION) {
            for token in value.as_bytes().split(|byte| *byte == b',') {
                let token = token.trim_ascii();
                if token.is_empty()
                    || token.eq_ignore_ascii_case(b"close")
                    || token.eq_ignore_ascii_case(b"keep-alive")
                    || token.eq_ignore_ascii_case(b"upgrade")
                    || token.eq_ignore_ascii_case(b"te")
                {
                    continue;
                }
                if let Ok(name) = HeaderName::from_bytes(token) {
                    if is_protected(name.as_str()) {
                        return Err(Refused::bad("invalid_connection_nomination"));
                    }
                    named.push(name);
                }
            }
        }
        named.iter().for_each(|name| drop(headers.remove(name)));
        headers.remove(header::CONNECTION);
    }
    if seen.any(Seen::TE) {
        // The one value that a proxy may pass on; gRPC servers insist on it.
        let trailers = lists(headers, &header::TE, "trailers");
        headers.remove(header::TE);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    for (flag, name) in [
        (Seen::KEEP_ALIVE, KEEP_ALIVE),
        (Seen::PROXY_CONNECTION, PROXY_CONNECTION),
        (Seen::TRANSFER_ENCODING, header::TRANSFER_ENCODING),
        (Seen::UPGRADE, header::UPGRADE),
        (Seen::HTTP2_SETTINGS, HTTP2_SETTINGS),
    ] {
        if seen.any(flag) {
            headers.remove(name);
        }
    }
    Ok(())
}
