//! What a route changes of a request's target: path, host, redirects; and the form a target has in each version of HTTP.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use regex::bytes::Regex;

use super::body::RequestBody;
use super::connection_manager::Connection;
use super::headers::{
    Accepted, X_ENVOY_ORIGINAL_HOST, X_ENVOY_ORIGINAL_PATH, X_FORWARDED_HOST, host_of,
};
use super::local_reply::LocalReply;
use super::matching::joined;
use super::route_table::without_port;
use super::router::{Refusal, set_path};
use crate::cluster::Endpoint;
use crate::config::route::{
    Forward, HostRewrite, PathRewrite, PathSpecifier, Redirect, RouteMatch,
};
use crate::config::uri_template::{RewritePart, UriTemplate, UriTemplateRewrite};

/// Rewrites the path of a forwarded request.
pub(crate) fn path(
    action: &Forward,
    matches: &RouteMatch,
    request: &mut Parts,
    envoy_headers: bool,
) -> Result<(), Refusal> {
    let Some(rewrite) = &action.path_rewrite else { return Ok(()) };
    // A CONNECT has no path.
    let Some(old) = request.uri.path_and_query().map(PathAndQuery::as_str) else { return Ok(()) };
    let new = rewritten(rewrite, matches, old);
    if envoy_headers && let Ok(value) = HeaderValue::from_str(old) {
        request.headers.insert(X_ENVOY_ORIGINAL_PATH, value);
    }
    new.map_or(Ok(()), |new| set_path(request, &new))
}

/// The path and query after a rewrite; `None`: as before.
fn rewritten(rewrite: &PathRewrite, matches: &RouteMatch, path_and_query: &str) -> Option<String> {
    let end = path_and_query.find('?').unwrap_or(path_and_query.len());
    let (path, query) = path_and_query.split_at(end);
    let new = match rewrite {
        PathRewrite::Full(new) => new.to_string(),
        PathRewrite::Prefix(new) => {
            let matched = match &matches.path {
                PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix) => {
                    prefix.len()
                }
                PathSpecifier::Path(_)
                | PathSpecifier::Regex(_)
                | PathSpecifier::Template(_)
                | PathSpecifier::Connect => path.len(),
            };
            format!("{new}{}", path.get(matched..).unwrap_or_default())
        }
        PathRewrite::Regex { pattern, substitution } => replaced(pattern, path, substitution)?,
        PathRewrite::Template(rewrite) => match &matches.path {
            PathSpecifier::Template(template) => filled_in(rewrite, template, path)?,
            _ => return None,
        },
    };
    (new != path).then(|| new + query)
}

/// A path made of what its template has found.
fn filled_in(rewrite: &UriTemplateRewrite, template: &UriTemplate, path: &str) -> Option<String> {
    let found = template.0.captures(path.as_bytes())?;
    let mut new = String::new();
    for part in &rewrite.0 {
        match part {
            RewritePart::Literal(text) => new.push_str(text),
            RewritePart::Variable(name) => {
                new.push_str(std::str::from_utf8(found.name(name)?.as_bytes()).ok()?);
            }
        }
    }
    Some(new)
}

fn replaced(pattern: &Regex, text: &str, substitution: &str) -> Option<String> {
    String::from_utf8(replace(pattern, text.as_bytes(), substitution)).ok()
}

/// Replaces every match; `\1` in the substitution is a group, `\\` a backslash.
pub(crate) fn replace(pattern: &Regex, bytes: &[u8], substitution: &str) -> Vec<u8> {
    let replaced = pattern.replace_all(bytes, |captures: &regex::bytes::Captures<'_>| {
        let mut out = Vec::new();
        let mut characters = substitution.bytes();
        while let Some(byte) = characters.next() {
            match (byte, if byte == b'\\' { characters.next() } else { None }) {
                (b'\\', Some(digit)) if digit.is_ascii_digit() => {
                    let group = captures.get(usize::from(digit - b'0'));
                    out.extend_from_slice(group.map_or(&[], |group| group.as_bytes()));
                }
                (b'\\', Some(other)) => out.push(other),
                (byte, _) => out.push(byte),
            }
        }
        out
    });
    replaced.into_owned()
}

/// Rewrites the host of a forwarded request, as far as it does not depend on the endpoint.
pub(crate) fn host(
    action: &Forward,
    literal: Option<&HeaderValue>,
    request: &mut Parts,
    envoy_headers: bool,
) {
    let new = match (literal, &action.host_rewrite) {
        (Some(literal), _) | (None, Some(HostRewrite::Literal(literal))) => Some(literal.clone()),
        (None, Some(HostRewrite::Header(name))) => {
            request.headers.get(name).filter(|value| !value.is_empty()).cloned()
        }
        (None, Some(HostRewrite::PathRegex { pattern, substitution })) => {
            replaced(pattern, request.uri.path(), substitution)
                .and_then(|host| HeaderValue::from_str(&host).ok())
        }
        (None, Some(HostRewrite::Auto) | None) => None,
    };
    if let Some(new) = new {
        set_host(&mut request.headers, new, action.append_x_forwarded_host, envoy_headers);
    }
}

/// The host of a request that is to have the endpoint's.
pub(crate) fn for_endpoint(
    action: &Forward,
    literal: Option<&HeaderValue>,
    endpoint: &Endpoint,
    request: &mut Request<RequestBody>,
    envoy_headers: bool,
) {
    if literal.is_none()
        && matches!(action.host_rewrite, Some(HostRewrite::Auto))
        && !endpoint.hostname.is_empty()
        && let Ok(host) = HeaderValue::from_str(&endpoint.hostname)
    {
        set_host(request.headers_mut(), host, action.append_x_forwarded_host, envoy_headers);
    }
}

fn set_host(headers: &mut HeaderMap, new: HeaderValue, keep: bool, envoy_headers: bool) {
    let Some(old) = headers.insert(header::HOST, new) else { return };
    if keep {
        let value = match joined(headers, &X_FORWARDED_HOST) {
            Some(before) => {
                HeaderValue::from_bytes(&[&before, b",".as_slice(), old.as_bytes()].concat())
            }
            None => Ok(old.clone()),
        };
        if let Ok(value) = value {
            headers.insert(X_FORWARDED_HOST, value);
        }
    }
    if envoy_headers {
        headers.insert(X_ENVOY_ORIGINAL_HOST, old);
    }
}

/// A redirect, as Envoy builds its location.
pub(crate) fn redirect(
    redirect: &Redirect,
    matches: &RouteMatch,
    request: &Parts,
    accepted: &Accepted,
) -> LocalReply {
    let old_scheme = if accepted.https { "https" } else { "http" };
    let scheme = redirect.scheme.as_deref().unwrap_or(old_scheme);
    let old_host = host_of(&request.headers);
    let host = redirect.host.as_deref().unwrap_or_else(|| {
        let bare = without_port(old_host);
        let default_port = match old_scheme {
            "https" => ":443",
            _ => ":80",
        };
        let changes = scheme != old_scheme && old_host.get(bare.len()..) == Some(default_port);
        if redirect.port.is_some() || changes { bare } else { old_host }
    });
    let port = redirect.port.map(|port| format!(":{port}")).unwrap_or_default();

    let old = request.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let query = old.find('?').map_or("", |at| &old[at..]);
    let (path, own_query) = match &redirect.path {
        Some(PathRewrite::Full(new)) if new.contains('?') => (new.to_string(), true),
        Some(PathRewrite::Full(new)) => (format!("{new}{query}"), false),
        Some(rewrite) => {
            (rewritten(rewrite, matches, old).unwrap_or_else(|| old.to_owned()), false)
        }
        None => (old.to_owned(), false),
    };
    let path = match path.find('?') {
        Some(at) if redirect.strip_query && !own_query => &path[..at],
        _ => &path,
    };
    let mut reply = LocalReply::new(redirect.status, "", "direct_response");
    if let Ok(location) = HeaderValue::from_str(&format!("{scheme}://{host}{port}{path}")) {
        reply.headers.insert(header::LOCATION, location);
    }
    reply
}

/// The redirect of a virtual host that wants TLS.
pub(crate) fn redirect_to_tls(request: &Parts, _: &Accepted) -> LocalReply {
    let path = request.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let location = format!("https://{}{path}", host_of(&request.headers));
    let mut reply = LocalReply::new(StatusCode::MOVED_PERMANENTLY, "", "direct_response");
    if let Ok(location) = HeaderValue::from_str(&location) {
        reply.headers.insert(header::LOCATION, location);
    }
    reply
}

/// The form of HTTP/1: the path as target, `Host`, and a framing that says where the body ends.
pub(crate) fn for_http1<B: http_body::Body>(request: &mut Request<B>, connection: &Connection) {
    if let Some(authority) = request.uri().authority() {
        // It was meant for an HTTP/2 connection that turned out to be closed.
        let host = connection.host(authority);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        host.map(|host| request.headers_mut().insert(header::HOST, host));
    }
    *request.version_mut() = Version::HTTP_11;
    framing(request);
}

/// The form of HTTP/1 for whoever wants the whole URL as target.
pub(crate) fn fully_qualified<B>(request: &mut Request<B>, connection: &Connection, https: bool) {
    let host = request.headers().get(header::HOST);
    let Some(authority) = host.and_then(|host| connection.authority(host)) else { return };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if https { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    // Cannot fail: all three are there.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

/// The form of a CONNECT: the host and its port as target, in HTTP/1 with `Host` and in HTTP/2 without. `None`: the host
/// that the route has given it cannot be a target.
pub(crate) fn for_connect<B>(
    request: &mut Request<B>,
    connection: &Connection,
    version: Version,
) -> Option<()> {
    let authority = match request.uri().authority() {
        // It was meant for a connection that turned out to be closed.
        Some(authority) if !request.headers().contains_key(header::HOST) => authority.clone(),
        _ => connection.authority(request.headers().get(header::HOST)?)?,
    };
    if version == Version::HTTP_2 {
        request.headers_mut().remove(header::HOST);
    } else {
        let host = connection.host(&authority)?;
        request.headers_mut().insert(header::HOST, host);
    }
    let mut parts = http::uri::Parts::default();
    parts.authority = Some(authority);
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = version;
    Some(())
}

/// Says where the body of an HTTP/1 request ends.
pub(crate) fn framing<B: http_body::Body>(request: &mut Request<B>) {
    if request.headers().contains_key(header::CONTENT_LENGTH) {
        return;
    }
    if request.body().is_end_stream() {
        // Where a body is the rule, its absence is said, as Envoy does.
        let rule = !matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::DELETE | Method::TRACE | Method::CONNECT
        );
        if rule {
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    } else if request.body().size_hint().exact().is_none() {
        // hyper would take a GET of unknown length for one without a body, and lose it.
        request
            .headers_mut()
            .insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// The form of HTTP/2: scheme, authority and path, and no `Host`.
pub(crate) fn for_http2<B>(request: &mut Request<B>, connection: &Connection, https: bool) {
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(header::TRANSFER_ENCODING);
    let Some(host) = request.headers_mut().remove(header::HOST) else { return };
    let Some(authority) = connection.authority(&host) else { return };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if https { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    // Cannot fail: all three are there.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}
