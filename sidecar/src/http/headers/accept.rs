//! A request's headers brought into the form that everything behind this point sees.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Version};

use super::hop_by_hop::{lists, remove_hop_by_hop};
use super::host::host;
use super::request_id::request_id;
use super::{Seen, client_cert, forwarding};
use super::{
    X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER, X_ENVOY_DOWNSTREAM_SERVICE_NODE,
    X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT, X_ENVOY_INTERNAL,
    X_ENVOY_MAX_RETRIES, X_ENVOY_ORIGINAL_URL, X_ENVOY_RETRIABLE_HEADER_NAMES,
    X_ENVOY_RETRIABLE_STATUS_CODES, X_ENVOY_RETRY_GRPC_ON, X_ENVOY_RETRY_ON,
    X_ENVOY_UPSTREAM_ALT_STAT_NAME, X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS,
    X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE, X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS,
    X_ENVOY_UPSTREAM_STREAM_DURATION_MS,
};
use crate::config::address::Address;
use crate::config::http_connection_manager::{HttpConnectionManager, RequestScheme, Underscores};
use crate::config::http1::METHODS;
use crate::config::matcher::StringMatcher;
use crate::http::head_tap::HeadTap;
use crate::http::local_reply::Reason;
use crate::http::matching::joined;
use crate::tls::PeerIdentity;

/// `x-envoy-*` headers that only an internal caller may set.
const INTERNAL_ONLY: [HeaderName; 15] = [
    X_ENVOY_RETRIABLE_STATUS_CODES,
    X_ENVOY_RETRIABLE_HEADER_NAMES,
    X_ENVOY_RETRY_ON,
    X_ENVOY_RETRY_GRPC_ON,
    X_ENVOY_MAX_RETRIES,
    X_ENVOY_UPSTREAM_ALT_STAT_NAME,
    X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS,
    X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS,
    X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE,
    X_ENVOY_UPSTREAM_STREAM_DURATION_MS,
    X_ENVOY_EXPECTED_RQ_TIMEOUT_MS,
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-ip-tags"),
    X_ENVOY_ORIGINAL_URL,
    X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT,
];

/// What a CONNECT is called among upgrades.
pub(crate) const CONNECT: &str = "connect";

/// Removed where the direct peer is the client (`use_remote_address`).
const EDGE_ONLY: [HeaderName; 3] = [
    HeaderName::from_static("x-envoy-decorator-operation"),
    X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER,
    X_ENVOY_DOWNSTREAM_SERVICE_NODE,
];

/// Who sends the request, for the rules of forwarding headers.
pub(crate) struct Peer<'a> {
    /// The other end of the connection.
    pub(crate) address: &'a Address,
    /// This end.
    pub(crate) local: &'a Address,
    /// The connection is encrypted.
    pub(crate) tls: bool,
    /// The client's certificate.
    pub(crate) identity: Option<&'a PeerIdentity>,
    /// URI SANs of our own certificate.
    pub(crate) local_uri_sans: &'a [Box<str>],
    /// The bytes that an HTTP/1 request was made of.
    pub(crate) head: Option<&'a HeadTap>,
}

/// What was found out about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The client: the peer, or whom trusted proxies name. `None`: at the other end of a Unix domain socket.
    pub(crate) client: Option<IpAddr>,
    /// It is one of ours.
    pub(crate) internal: bool,
    /// It may steer what is done with its request, and has headers that could say so.
    pub(crate) asks: bool,
    /// `https` if `x-forwarded-proto` or the connection says so.
    pub(crate) https: bool,
    /// The protocol that the client wants to upgrade to, lower case; [`CONNECT`] for a CONNECT.
    pub(crate) upgrade: Option<Box<str>>,
}

/// A request that is answered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    /// `%RESPONSE_CODE_DETAILS%`, as Envoy names it where it has a name.
    pub(crate) details: &'static str,
    pub(crate) reason: Reason,
}

impl Refused {
    pub(super) const fn new(status: StatusCode, details: &'static str, reason: Reason) -> Self {
        Self { status, details, reason }
    }

    pub(super) const fn bad(details: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, details, Reason::BadRequest)
    }
}

/// Brings a request into the form that everything behind this point sees: `Host` is there and holds the authority, the
/// target is the path alone, hop-by-hop headers are gone, forwarding headers are ours.
///
/// `early` is done to the headers once they are known to be well-formed, before they mean anything.
///
/// # Errors
/// If the request must not be passed on.
pub(crate) fn accept(
    parts: &mut Parts,
    config: &HttpConnectionManager,
    peer: &Peer<'_>,
    internal_only: &[HeaderName],
    early: Option<&mut dyn FnMut(&mut HeaderMap)>,
) -> Result<Accepted, Refused> {
    if parts.version == Version::HTTP_10 && !config.http1.accept_http_10 {
        return Err(Refused::new(StatusCode::UPGRADE_REQUIRED, "low_version", Reason::BadRequest));
    }
    if parts.version != Version::HTTP_2
        && !config.http1.allow_custom_methods
        && !METHODS.contains(&parts.method.as_str())
    {
        return Err(Refused::bad("http1.codec_error"));
    }
    if parts.headers.len() > config.max_headers_count {
        return Err(Refused::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "http1.too_many_headers",
            Reason::RequestHeadersTooLarge,
        ));
    }
    let mut seen = Seen::of(&parts.headers);
    if seen.any(Seen::UNDERSCORE) {
        underscores(&mut parts.headers, config.underscores)?;
    }
    if seen.any(Seen::TRANSFER_ENCODING) {
        transfer_encoding(&parts.headers)?;
        // hyper takes the coding and drops the length without a word.
        let has_length =
            seen.any(Seen::CONTENT_LENGTH) || peer.head.is_some_and(HeadTap::names_length);
        if has_length && !config.http1.allow_chunked_length {
            return Err(Refused::bad("http1.content_length_and_chunked_not_allowed"));
        }
    }
    if seen.any(Seen::EXPECT) {
        let only_continue = parts
            .headers
            .get_all(header::EXPECT)
            .iter()
            .all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        if !only_continue {
            return Err(Refused::new(
                StatusCode::EXPECTATION_FAILED,
                "unknown_expectation",
                Reason::BadRequest,
            ));
        }
        // hyper answers 100 when the body is first read; upstream does not see it.
        parts.headers.remove(header::EXPECT);
    }
    if seen.any(Seen::UPGRADE)
        && !config.http1.ignored_upgrades.is_empty()
        && pass_over(&mut parts.headers, &config.http1.ignored_upgrades)
    {
        seen = seen.without(Seen::UPGRADE);
    }
    let upgrade = upgrade(parts, seen)?;
    host(parts, config, peer)?;
    if let Some(early) = early {
        early(&mut parts.headers);
        seen = Seen::of(&parts.headers);
    }
    if seen.any(Seen::HOP_BY_HOP) {
        remove_hop_by_hop(&mut parts.headers, seen)?;
    }
    if seen.any(Seen::COOKIE) && parts.version == Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    if seen.any(Seen::CONTENT_LENGTH) {
        // hyper has parsed it; a spelling that another parser could take for octal does not get further.
        let odd = parts.headers.get(header::CONTENT_LENGTH).is_some_and(|value| {
            matches!(value.as_bytes(), [b'0', _, ..])
                || !value.as_bytes().iter().all(u8::is_ascii_digit)
        });
        if odd {
            return Err(Refused::bad("http1.invalid_content_length"));
        }
    }
    let origin = forwarding::client(&mut parts.headers, config, peer)?;
    let https = match config.scheme {
        Some(RequestScheme::Http) => forwarding::overwrite_proto(&mut parts.headers, false),
        Some(RequestScheme::Https) => forwarding::overwrite_proto(&mut parts.headers, true),
        Some(RequestScheme::Upstream) | None => forwarding::proto(&mut parts.headers, config, peer),
    };
    let x_envoy = seen.any(Seen::X_ENVOY);
    if x_envoy {
        parts.headers.remove(X_ENVOY_INTERNAL);
    }
    if origin.internal {
        parts.headers.insert(X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
    } else {
        if x_envoy {
            INTERNAL_ONLY.iter().for_each(|name| drop(parts.headers.remove(name)));
        }
        internal_only.iter().for_each(|name| drop(parts.headers.remove(name)));
        if config.use_remote_address {
            if x_envoy {
                EDGE_ONLY.iter().for_each(|name| drop(parts.headers.remove(name)));
            }
            if let Some(client) = origin.client {
                forwarding::name_external_address(&mut parts.headers, client);
            }
        }
    }
    client_cert::apply(&mut parts.headers, seen, config, peer);
    request_id(&mut parts.headers, config, origin.internal);
    if let Some(via) = &config.via {
        forwarding::append_via(&mut parts.headers, via);
    }
    let asks = origin.internal && x_envoy;
    Ok(Accepted { client: origin.client, internal: origin.internal, asks, https, upgrade })
}

fn underscores(headers: &mut HeaderMap, rule: Underscores) -> Result<(), Refused> {
    match rule {
        Underscores::Allow => {}
        Underscores::RejectRequest => {
            return Err(Refused::bad("http1.unexpected_underscore"));
        }
        Underscores::DropHeader => {
            let names: Vec<HeaderName> =
                headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
            names.iter().for_each(|name| drop(headers.remove(name)));
        }
    }
    Ok(())
}

/// Exactly one coding, `chunked`: anything else could be read in two ways by two servers.
fn transfer_encoding(headers: &HeaderMap) -> Result<(), Refused> {
    let mut values = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = values.next().map(HeaderValue::as_bytes).unwrap_or_default();
    if values.next().is_some() {
        return Err(Refused::bad("http1.invalid_transfer_encoding"));
    }
    if first.eq_ignore_ascii_case(b"chunked") {
        Ok(())
    } else {
        Err(Refused::new(
            StatusCode::NOT_IMPLEMENTED,
            "http1.invalid_transfer_encoding",
            Reason::BadRequest,
        ))
    }
}

/// RFC 9110 section 9.3.6: what comes behind the head of a CONNECT is no body.
fn without_body(parts: &mut Parts, seen: Seen) -> Result<(), Refused> {
    if seen.any(Seen::TRANSFER_ENCODING) {
        return Err(Refused::bad("http1.transfer_encoding_not_allowed"));
    }
    if seen.any(Seen::CONTENT_LENGTH)
        && parts.headers.remove(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
    {
        return Err(Refused::bad("http1.content_length_not_allowed"));
    }
    Ok(())
}

/// Which upgrade the request asks for, in either version of HTTP. A CONNECT is one of its own kind. h2c is passed over: a
/// client offers it and does not demand it.
fn upgrade(parts: &mut Parts, seen: Seen) -> Result<Option<Box<str>>, Refused> {
    let refused = Refused::new(StatusCode::FORBIDDEN, "upgrade_failed", Reason::UpgradeRefused);
    let token = if parts.method == Method::CONNECT {
        match parts.extensions.get::<hyper::ext::Protocol>() {
            Some(protocol) => Some(protocol.as_str().to_ascii_lowercase()),
            None => {
                without_body(parts, seen)?;
                return Ok(Some(CONNECT.into()));
            }
        }
    } else if seen.any(Seen::UPGRADE) && lists(&parts.headers, &header::CONNECTION, "upgrade") {
        let mut values = parts.headers.get_all(header::UPGRADE).iter();
        let token = values.next().and_then(|value| value.to_str().ok());
        let token = token.filter(|_| values.next().is_none()).ok_or(refused)?;
        (!token.trim().eq_ignore_ascii_case("h2c")).then(|| token.trim().to_ascii_lowercase())
    } else {
        None
    };
    let Some(token) = token else { return Ok(None) };
    if !matches!(parts.method, Method::GET | Method::CONNECT) {
        return Err(refused);
    }
    // From here on it is a GET, however it was asked for. Whether it is allowed, its route says.
    parts.method = Method::GET;
    Ok(Some(token.into()))
}

/// Takes the protocols that are passed over out of `Upgrade`. Tells whether none is left.
fn pass_over(headers: &mut HeaderMap, ignored: &[StringMatcher]) -> bool {
    let is_ignored = |token: &[u8]| ignored.iter().any(|matcher| matcher.matches(token));
    let Some(value) = joined(headers, &header::UPGRADE) else { return true };
    let tokens: Vec<&[u8]> = value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|it| !it.is_empty())
        .collect();
    let left: Vec<&[u8]> = tokens.iter().copied().filter(|token| !is_ignored(token)).collect();
    if left.len() == tokens.len() {
        return false;
    }
    let left = HeaderValue::from_bytes(&left.join(&b","[..])).ok().filter(|it| !it.is_empty());
    match left {
        Some(left) => {
            headers.insert(header::UPGRADE, left);
            false
        }
        None => {
            headers.remove(header::UPGRADE);
            true
        }
    }
}

/// RFC 9113 section 8.2.3: the pieces of a cookie are one header everywhere else.
fn join_cookies(headers: &mut HeaderMap) {
    let mut values = headers.get_all(header::COOKIE).iter();
    let Some(first) = values.next() else { return };
    let mut joined = first.as_bytes().to_vec();
    let alone = joined.len();
    for value in values {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(value.as_bytes());
    }
    if joined.len() != alone
        && let Ok(value) = HeaderValue::from_bytes(&joined)
    {
        headers.insert(header::COOKIE, value);
    }
}
