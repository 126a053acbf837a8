//! `Host` and the target of a request.

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Uri, Version};

use super::{Peer, Refused};
use crate::config::http_connection_manager::{HttpConnectionManager, StripPort};
use crate::http::route_table::without_port;

/// `Host` as RFC 9112 section 3.2 wants it, and the target as a path.
pub(super) fn host(
    parts: &mut Parts,
    config: &HttpConnectionManager,
    peer: &Peer<'_>,
) -> Result<(), Refused> {
    if parts.method == Method::CONNECT {
        return target_of_connect(parts);
    }
    if let Some(authority) = parts.uri.authority() {
        // HTTP/2, or the absolute form of HTTP/1: the target's authority wins over `Host`.
        if authority.as_str().contains('@') {
            return Err(Refused::bad("invalid_host"));
        }
        let needs_none = parts.version == Version::HTTP_2
            || parts.version == Version::HTTP_10 && !parts.headers.contains_key(header::HOST);
        if !needs_none {
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
            let host = match &config.http1.default_host {
                Some(host) => host.clone(),
                None => HeaderValue::from_str(&peer.local.to_string())
                    .map_err(|_| Refused::bad("invalid_host"))?,
            };
            parts.headers.insert(header::HOST, host);
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
        || config.strip_port == StripPort::Matching && port.is_some() && port == peer.local.port()
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

/// The target of a CONNECT is a host with its port, which is what counts as its `Host` (RFC 9110 section 9.3.6). It has no
/// path, and its port belongs to it whatever the configuration strips.
fn target_of_connect(parts: &mut Parts) -> Result<(), Refused> {
    let invalid = Refused::bad("http1.invalid_url");
    let authority = parts.uri.authority().filter(|_| parts.uri.scheme().is_none());
    let authority = authority.filter(|it| it.port().is_some() && !it.as_str().contains('@'));
    let value = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    parts.headers.insert(header::HOST, value.ok_or(invalid)?);
    one_host(&parts.headers)
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
