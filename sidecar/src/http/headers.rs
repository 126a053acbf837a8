//! What is done to the headers of every request before anything decides by them, and of every response before it leaves.
//!
//! hyper keeps the framing right; the rules of a proxy are here: `Host`, hop-by-hop headers, forwarding headers, request
//! ids, and what a client may not say. Rules and order are Envoy's (`ConnectionManagerUtility::mutateRequestHeaders`).
//!
//! One pass over the headers notes which of the special ones are there ([`Seen`]). Only those are touched: a request that
//! has none of them costs that pass and nothing else.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Uri, Version};

use super::head_tap::HeadTap;
use super::local_reply::Reason;
use super::route_table::without_port;
use crate::config::http_connection_manager::{
    ForwardClientCertMode, HttpConnectionManager, StripPort, Underscores,
};
use crate::tls::PeerIdentity;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_CLIENT_CERT: HeaderName =
    HeaderName::from_static("x-forwarded-client-cert");
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const X_ENVOY_INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
pub(crate) const X_ENVOY_EXTERNAL_ADDRESS: HeaderName =
    HeaderName::from_static("x-envoy-external-address");
pub(crate) const X_ENVOY_ORIGINAL_PATH: HeaderName =
    HeaderName::from_static("x-envoy-original-path");
pub(crate) const X_ENVOY_ORIGINAL_HOST: HeaderName =
    HeaderName::from_static("x-envoy-original-host");
pub(crate) const X_ENVOY_EXPECTED_RQ_TIMEOUT_MS: HeaderName =
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
pub(crate) const X_ENVOY_ATTEMPT_COUNT: HeaderName =
    HeaderName::from_static("x-envoy-attempt-count");
pub(crate) const X_ENVOY_UPSTREAM_SERVICE_TIME: HeaderName =
    HeaderName::from_static("x-envoy-upstream-service-time");
pub(crate) const X_ENVOY_OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
pub(crate) const X_ENVOY_RATELIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
pub(crate) const X_OUTRIGGER_REASON: HeaderName = HeaderName::from_static("x-outrigger-reason");
pub(crate) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
pub(crate) const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
pub(crate) const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// `x-envoy-*` headers that only an internal caller may set; nobody is internal unless configured, and that cannot be
/// configured yet. They are removed from every request.
const INTERNAL_ONLY: [HeaderName; 16] = [
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-upstream-stream-duration-ms"),
    X_ENVOY_EXPECTED_RQ_TIMEOUT_MS,
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-original-url"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    X_ENVOY_INTERNAL,
];

/// Removed where the direct peer is the client (`use_remote_address`).
const EDGE_ONLY: [HeaderName; 3] = [
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
];

/// Which special headers a message has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen(u32);

impl Seen {
    const CONNECTION: u32 = 1;
    const KEEP_ALIVE: u32 = 1 << 1;
    const PROXY_CONNECTION: u32 = 1 << 2;
    const TE: u32 = 1 << 3;
    const TRANSFER_ENCODING: u32 = 1 << 4;
    const UPGRADE: u32 = 1 << 5;
    const EXPECT: u32 = 1 << 6;
    const COOKIE: u32 = 1 << 7;
    const X_ENVOY: u32 = 1 << 8;
    const XFCC: u32 = 1 << 9;
    const UNDERSCORE: u32 = 1 << 10;
    const HTTP2_SETTINGS: u32 = 1 << 11;
    const CONTENT_LENGTH: u32 = 1 << 12;

    const HOP_BY_HOP: u32 = Self::CONNECTION
        | Self::KEEP_ALIVE
        | Self::PROXY_CONNECTION
        | Self::TE
        | Self::TRANSFER_ENCODING
        | Self::UPGRADE
        | Self::HTTP2_SETTINGS;

    fn of(headers: &HeaderMap) -> Self {
        let mut seen = 0;
        for name in headers.keys() {
            let name = name.as_str();
            seen |= match name {
                "connection" => Self::CONNECTION,
                "keep-alive" => Self::KEEP_ALIVE,
                "proxy-connection" => Self::PROXY_CONNECTION,
                "te" => Self::TE,
                "transfer-encoding" => Self::TRANSFER_ENCODING,
                "upgrade" => Self::UPGRADE,
                "expect" => Self::EXPECT,
                "cookie" => Self::COOKIE,
                "x-forwarded-client-cert" => Self::XFCC,
                "http2-settings" => Self::HTTP2_SETTINGS,
                "content-length" => Self::CONTENT_LENGTH,
                _ if name.starts_with("x-envoy-") => Self::X_ENVOY,
                _ => 0,
            };
            if name.contains('_') {
                seen |= Self::UNDERSCORE;
            }
        }
        Self(seen)
    }

    fn any(self, which: u32) -> bool {
        self.0 & which != 0
    }
}

/// Who sends the request, for the rules of forwarding headers.
pub(crate) struct Peer<'a> {
    /// The other end of the connection.
    pub(crate) address: SocketAddr,
    /// This end.
    pub(crate) local: SocketAddr,
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
    /// The client: the peer, or whom trusted proxies name.
    pub(crate) client: IpAddr,
    /// `https` if `x-forwarded-proto` or the connection says so.
    pub(crate) https: bool,
    /// The protocol that the client wants to upgrade to, lower case.
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
    const fn new(status: StatusCode, details: &'static str, reason: Reason) -> Self {
        Self { status, details, reason }
    }

    const fn bad(details: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, details, Reason::BadRequest)
    }
}

/// Brings a request into the form that everything behind this point sees: `Host` is there and holds the authority, the
/// target is the path alone, hop-by-hop headers are gone, forwarding headers are ours.
///
/// # Errors
/// If the request must not be passed on.
pub(crate) fn accept(
    parts: &mut Parts,
    config: &HttpConnectionManager,
    peer: &Peer<'_>,
    internal_only: &[HeaderName],
) -> Result<Accepted, Refused> {
    if parts.version == Version::HTTP_10 && !config.accept_http_10 {
        return Err(Refused::new(StatusCode::UPGRADE_REQUIRED, "low_version", Reason::BadRequest));
    }
    if parts.headers.len() > config.max_headers_count {
        return Err(Refused::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "http1.too_many_headers",
            Reason::RequestHeadersTooLarge,
        ));
    }
    let seen = Seen::of(&parts.headers);
    if seen.any(Seen::UNDERSCORE) {
        underscores(&mut parts.headers, config.underscores)?;
    }
    if seen.any(Seen::TRANSFER_ENCODING) {
        transfer_encoding(&parts.headers)?;
        // hyper takes the coding and drops the length without a word.
        if seen.any(Seen::CONTENT_LENGTH) || peer.head.is_some_and(HeadTap::names_length) {
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
    let upgrade = upgrade(parts, seen)?;
    host(parts, config, peer)?;
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
    if seen.any(Seen::X_ENVOY) {
        INTERNAL_ONLY.iter().for_each(|name| drop(parts.headers.remove(name)));
        if config.use_remote_address {
            EDGE_ONLY.iter().for_each(|name| drop(parts.headers.remove(name)));
        }
    }
    internal_only.iter().for_each(|name| drop(parts.headers.remove(name)));

    let client = forwarded_for(&mut parts.headers, config, peer);
    let https = forwarded_proto(&mut parts.headers, config, peer);
    client_cert(&mut parts.headers, seen, config, peer);
    request_id(&mut parts.headers, config);
    if let Some(via) = &config.via {
        append_via(&mut parts.headers, via);
    }
    Ok(Accepted { client, https, upgrade })
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

/// Which upgrade the request asks for, in either version of HTTP. h2c is passed over: a client offers it and does not
/// demand it.
fn upgrade(parts: &mut Parts, seen: Seen) -> Result<Option<Box<str>>, Refused> {
    let refused = Refused::new(StatusCode::FORBIDDEN, "upgrade_failed", Reason::UpgradeRefused);
    let token = if parts.method == Method::CONNECT {
        match parts.extensions.get::<hyper::ext::Protocol>() {
            Some(protocol) if parts.version == Version::HTTP_2 => {
                Some(protocol.as_str().to_ascii_lowercase())
            }
            _ => {
                return Err(Refused::new(
                    StatusCode::NOT_FOUND,
                    "connect_not_allowed",
                    Reason::UpgradeRefused,
                ));
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

/// `Host` as RFC 9112 section 3.2 wants it, and the target as a path.
fn host(parts: &mut Parts, config: &HttpConnectionManager, peer: &Peer<'_>) -> Result<(), Refused> {
    if let Some(authority) = parts.uri.authority() {
        // HTTP/2, or the absolute form of HTTP/1: the target's authority wins over `Host`.
        if authority.as_str().contains('@') {
            return Err(Refused::bad("invalid_host"));
        }
        if parts.version != Version::HTTP_2 {
            one_host(&parts.headers)?;
        }
        match parts.uri.scheme_str() {
            Some("http" | "https") => {}
            None if parts.version == Version::HTTP_2 => {}
            // The authority form is for CONNECT alone.
            None => return Err(Refused::bad("http1.invalid_url")),
            Some(_) => return Err(Refused::bad("invalid_scheme")),
        }
        let value =
            HeaderValue::from_str(authority.as_str()).map_err(|_| Refused::bad("invalid_host"))?;
        let path = parts.uri.path_and_query().cloned();
        let path = path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
        parts.uri = Uri::from(path);
        parts.headers.insert(header::HOST, value);
    } else {
        let without_host =
            parts.version == Version::HTTP_10 && !parts.headers.contains_key(header::HOST);
        if without_host {
            let local = HeaderValue::from_str(&peer.local.to_string())
                .map_err(|_| Refused::bad("invalid_host"))?;
            parts.headers.insert(header::HOST, local);
        }
        one_host(&parts.headers)?;
    }
    let path = parts.uri.path();
    let whole_server = path == "*" && parts.method == Method::OPTIONS;
    if !path.starts_with('/') && !whole_server {
        return Err(Refused::bad("http1.invalid_url"));
    }
    if config.strip_port == StripPort::Keep && !config.strip_trailing_host_dot {
        return Ok(());
    }
    let text = host_of(&parts.headers);
    let mut new = text;
    let bare = without_port(text);
    let port = text.get(bare.len() + 1..).and_then(|port| port.parse::<u16>().ok());
    if config.strip_port == StripPort::Any
        || config.strip_port == StripPort::Matching && port == Some(peer.local.port())
    {
        new = bare;
    }
    if config.strip_trailing_host_dot {
        new = new.strip_suffix('.').unwrap_or(new);
    }
    if new.len() != text.len() {
        let value = HeaderValue::from_str(new).map_err(|_| Refused::bad("invalid_host"))?;
        parts.headers.insert(header::HOST, value);
    }
    Ok(())
}

/// The request's `Host`; empty if it has none or an unreadable one.
pub(crate) fn host_of(headers: &HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn one_host(headers: &HeaderMap) -> Result<(), Refused> {
    let mut values = headers.get_all(header::HOST).iter();
    let Some(value) = values.next() else { return Err(Refused::bad("missing_host")) };
    let valid = !value.is_empty()
        && value
            .as_bytes()
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]!$&'()*+;=%".contains(byte))
        && values.next().is_none();
    if valid { Ok(()) } else { Err(Refused::bad("invalid_host")) }
}

/// Whether a comma-separated header lists a token, in any case.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|listed| listed.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Headers that a client may not have removed by naming them in `Connection`.
fn is_protected(name: &str) -> bool {
    matches!(
        name,
        "host" | "content-length" | "cookie" | "authorization" | "x-request-id" | "cache-control"
    ) || name.starts_with("x-forwarded-")
        || name.starts_with("x-envoy-")
        || name.starts_with(':')
}

fn remove_hop_by_hop(headers: &mut HeaderMap, seen: Seen) -> Result<(), Refused> {
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

fn forwarded_for(
    headers: &mut HeaderMap,
    config: &HttpConnectionManager,
    peer: &Peer<'_>,
) -> IpAddr {
    let direct = peer.address.ip().to_canonical();
    let hops = config.xff_num_trusted_hops as usize;
    if !config.use_remote_address {
        return from_right(headers, hops).unwrap_or(direct);
    }
    let client = hops.checked_sub(1).and_then(|hop| from_right(headers, hop)).unwrap_or(direct);
    if !config.skip_xff_append {
        let before = super::matching::joined(headers, &X_FORWARDED_FOR);
        let text = match before.as_deref() {
            Some(before) if !before.is_empty() => {
                let mut text = before.to_vec();
                text.extend_from_slice(format!(",{direct}").as_bytes());
                text
            }
            _ => direct.to_string().into_bytes(),
        };
        if let Ok(value) = HeaderValue::from_bytes(&text) {
            headers.insert(X_FORWARDED_FOR, value);
        }
    }
    if let Ok(value) = HeaderValue::from_str(&client.to_string()) {
        headers.insert(X_ENVOY_EXTERNAL_ADDRESS, value);
    }
    client
}

/// The address that stands so many places from the right in `x-forwarded-for`.
fn from_right(headers: &HeaderMap, skip: usize) -> Option<IpAddr> {
    let all = super::matching::joined(headers, &X_FORWARDED_FOR)?;
    let entry = all.rsplit(|byte| *byte == b',').nth(skip)?;
    std::str::from_utf8(entry.trim_ascii()).ok()?.parse().ok()
}

fn forwarded_proto(
    headers: &mut HeaderMap,
    config: &HttpConnectionManager,
    peer: &Peer<'_>,
) -> bool {
    let trusted = !config.use_remote_address || config.xff_num_trusted_hops > 0;
    let said = headers.get(X_FORWARDED_PROTO).filter(|_| trusted);
    match said.map(HeaderValue::as_bytes) {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => true,
        Some(proto) if proto.eq_ignore_ascii_case(b"http") => false,
        Some(_) => peer.tls,
        None => {
            let proto = if peer.tls { "https" } else { "http" };
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
            peer.tls
        }
    }
}

fn client_cert(
    headers: &mut HeaderMap,
    seen: Seen,
    config: &HttpConnectionManager,
    peer: &Peer<'_>,
) {
    let rule = &config.forward_client_cert;
    let identity = match (rule.mode, peer.identity) {
        (ForwardClientCertMode::AlwaysForwardOnly, _) => return,
        (ForwardClientCertMode::Sanitize, _) | (_, None) => {
            if seen.any(Seen::XFCC) {
                headers.remove(X_FORWARDED_CLIENT_CERT);
            }
            return;
        }
        (ForwardClientCertMode::ForwardOnly, _) => return,
        (ForwardClientCertMode::AppendForward | ForwardClientCertMode::SanitizeSet, Some(peer)) => {
            peer
        }
    };
    let mut text = Vec::new();
    if rule.mode == ForwardClientCertMode::AppendForward
        && let Some(before) = super::matching::joined(headers, &X_FORWARDED_CLIENT_CERT)
    {
        text.extend_from_slice(&before);
        text.push(b',');
    }
    text.extend_from_slice(client_cert_element(identity, rule, peer.local_uri_sans).as_bytes());
    match HeaderValue::from_bytes(&text) {
        Ok(value) => drop(headers.insert(X_FORWARDED_CLIENT_CERT, value)),
        Err(_) => drop(headers.remove(X_FORWARDED_CLIENT_CERT)),
    }
}

fn client_cert_element(
    identity: &PeerIdentity,
    rule: &crate::config::http_connection_manager::ForwardClientCert,
    local_uri_sans: &[Box<str>],
) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for uri in local_uri_sans {
        // Writing to a string cannot fail.
        let _ = write!(text, "By={uri};");
    }
    text.push_str("Hash=");
    for byte in identity.sha256 {
        let _ = write!(text, "{byte:02x}");
    }
    let pem =
        |text: &mut String, key: &str, certificates: &[rustls_pki_types::CertificateDer<'_>]| {
            let _ = write!(text, ";{key}=\"");
            for certificate in certificates {
                text.push_str(&crate::access_log::url_encoded_pem(certificate));
            }
            text.push('"');
        };
    if rule.cert {
        pem(&mut text, "Cert", identity.chain.get(..1).unwrap_or_default());
    }
    if rule.chain {
        pem(&mut text, "Chain", &identity.chain);
    }
    if rule.subject {
        let _ = write!(text, ";Subject=\"{}\"", identity.subject.replace('"', "\\\""));
    }
    if rule.uri {
        if identity.uri_sans.is_empty() {
            text.push_str(";URI=");
        }
        for uri in &identity.uri_sans {
            let _ = write!(text, ";URI={uri}");
        }
    }
    if rule.dns {
        for name in &identity.dns_sans {
            let _ = write!(text, ";DNS={name}");
        }
    }
    text
}

fn request_id(headers: &mut HeaderMap, config: &HttpConnectionManager) {
    if !config.generate_request_id {
        return;
    }
    let replace = config.use_remote_address && !config.preserve_external_request_id;
    if replace || !headers.contains_key(X_REQUEST_ID) {
        headers.insert(X_REQUEST_ID, new_request_id());
    }
}

/// A random UUID (version 4).
fn new_request_id() -> HeaderValue {
    let random = fastrand::u128(..);
    let random = random & !(0xf << 76) | (4 << 76);
    let random = random & !(0x3 << 62) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let mut digits = (0..32).rev().map(|digit| ((random >> (4 * digit)) & 0xf) as u8);
    for (at, byte) in text.iter_mut().enumerate() {
        if !matches!(at, 8 | 13 | 18 | 23) {
            let digit = digits.next().unwrap_or_default();
            *byte = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        }
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A number as a header value. Small ones, of which there is one in most responses, cost nothing.
pub(crate) fn number(number: u64) -> HeaderValue {
    const SMALL: [&str; 21] = [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
        "17", "18", "19", "20",
    ];
    let small = usize::try_from(number).ok().and_then(|number| SMALL.get(number));
    small.map_or_else(|| HeaderValue::from(number), |text| HeaderValue::from_static(text))
}

/// A copy that shares its bytes with nobody: cloning a value of the configuration would make all workers write to the one
/// count of its bytes.
pub(crate) fn own(value: &HeaderValue) -> HeaderValue {
    if value == "envoy" {
        return HeaderValue::from_static("envoy");
    }
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

fn append_via(headers: &mut HeaderMap, via: &HeaderValue) {
    let text = match super::matching::joined(headers, &header::VIA) {
        Some(before) => [&before, b", ".as_slice(), via.as_bytes()].concat(),
        None => return drop(headers.insert(header::VIA, via.clone())),
    };
    if let Ok(value) = HeaderValue::from_bytes(&text) {
        headers.insert(header::VIA, value);
    }
}

/// Removes from a response what was meant for our connection to its server, and a `Content-Length` beside a
/// `Transfer-Encoding`.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    let seen = Seen::of(headers);
    if !seen.any(Seen::HOP_BY_HOP) {
        return;
    }
    if seen.any(Seen::TRANSFER_ENCODING) && seen.any(Seen::CONTENT_LENGTH) {
        headers.remove(header::CONTENT_LENGTH);
    }
    // A server may name what it likes; what is protected stays.
    if remove_hop_by_hop(headers, seen).is_err() {
        headers.remove(header::CONNECTION);
        // Cannot fail without `Connection`.
        let _ = remove_hop_by_hop(headers, Seen(seen.0 & !Seen::CONNECTION));
    }
    if seen.any(Seen::TE) {
        headers.remove(header::TE);
    }
}

/// Puts `server`, `via` and what else every response of this connection manager has.
pub(crate) fn finish_response(
    headers: &mut HeaderMap,
    config: &HttpConnectionManager,
    server_name: &HeaderValue,
) {
    use crate::config::http_connection_manager::ServerHeader;
    match config.server_header {
        ServerHeader::Overwrite => {
            headers.insert(header::SERVER, server_name.clone());
        }
        ServerHeader::AppendIfAbsent => {
            headers.entry(header::SERVER).or_insert_with(|| server_name.clone());
        }
        ServerHeader::PassThrough => {}
    }
    if let Some(via) = &config.via {
        append_via(headers, via);
    }
}

/// Whether a field may stand in trailers: nothing that decides about framing, routing or identity (RFC 9110 section 6.5.1).
pub(crate) fn is_allowed_in_trailers(name: &HeaderName) -> bool {
    let text = name.as_str();
    !(is_protected(text)
        || text == "set-cookie"
        || matches!(
            *name,
            header::TRANSFER_ENCODING
                | header::TE
                | header::TRAILER
                | header::CONNECTION
                | header::UPGRADE
                | header::EXPECT
                | header::RANGE
                | header::CONTENT_ENCODING
                | header::CONTENT_TYPE
                | header::CONTENT_RANGE
                | header::PROXY_AUTHORIZATION
                | header::PROXY_AUTHENTICATE
                | header::WWW_AUTHENTICATE
        )
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION)
}

/// Removes forbidden fields from trailers. Too many are cut off entirely.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    const MOST: usize = 100;
    if trailers.len() > MOST {
        trailers.clear();
        return;
    }
    if trailers.keys().all(is_allowed_in_trailers) {
        return;
    }
    let forbidden: Vec<HeaderName> =
        trailers.keys().filter(|name| !is_allowed_in_trailers(name)).cloned().collect();
    forbidden.iter().for_each(|name| drop(trailers.remove(name)));
}
