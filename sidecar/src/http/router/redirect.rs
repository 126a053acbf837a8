//! Redirects that are followed here (`internal_redirect_policy`): instead of the response, the client gets that of the
//! place which it names.
//!
//! The redirected request is one of its own, with a route, filters, a log line and counts, and is not told that it is:
//! only the header `x-envoy-original-url` says so.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, Uri};

use super::matched::Matched;
use crate::config::internal_redirect::{InternalRedirect, RedirectPredicate};
use crate::http::body::Whole;
use crate::http::connection_manager::Connection;
use crate::http::exchange::Exchange;
use crate::http::headers::{Accepted, X_ENVOY_ORIGINAL_URL, host_of};
use crate::http::route_table::RouteTable;
use crate::local::View;

/// The redirects that a request has followed.
#[derive(Debug, Default, Clone)]
pub(crate) struct Followed {
    count: u32,
    /// Which route was left for which, as far as a predicate asks.
    ways: Vec<(Arc<str>, Arc<str>)>,
}

/// What comes next: a request that has its route found anew.
pub(crate) struct Next {
    pub(crate) request: Parts,
    pub(crate) accepted: Accepted,
    pub(crate) body: Option<Box<Whole>>,
    pub(crate) followed: Followed,
    /// The response that led there, for logs.
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// A response that may be followed.
pub(crate) struct Redirecting<'r> {
    pub(crate) connection: &'r Rc<Connection>,
    pub(crate) view: &'r View,
    pub(crate) table: &'r RouteTable,
    pub(crate) policy: &'r InternalRedirect,
    /// The route that is left.
    pub(crate) route: &'r Arc<str>,
    pub(crate) accepted: &'r Accepted,
}

impl Redirecting<'_> {
    /// The next request, if the redirect can and may be followed; what hinders it is counted.
    pub(crate) fn follow(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        exchange: &Exchange,
        request: &Parts,
        body: Option<Box<Whole>>,
    ) -> Option<Box<Next>> {
        let stats = self.connection.stats();
        let Some(target) = headers.get(header::LOCATION).and_then(target_of) else {
            if headers.contains_key(header::LOCATION) {
                stats.passthrough_internal_redirect_bad_location.inc();
            }
            return None;
        };
        let was_https = self.accepted.https;
        // As in Envoy every other scheme is none of http.
        let https = target.scheme != "http";
        if https != was_https && !self.policy.allow_cross_scheme {
            stats.passthrough_internal_redirect_unsafe_scheme.inc();
            return None;
        }
        if https && target.scheme != "https" {
            stats.passthrough_internal_redirect_bad_location.inc();
            return None;
        }
        let mut followed = exchange.followed.as_deref().cloned().unwrap_or_default();
        if followed.count >= self.policy.max {
            stats.passthrough_internal_redirect_too_many_redirects.inc();
            return None;
        }

        let (mut next, ()) = Request::new(()).into_parts();
        next.method = request.method.clone();
        next.version = request.version;
        next.headers = request.headers.clone();
        for name in &self.policy.headers_to_copy {
            next.headers.remove(name);
            for value in headers.get_all(name) {
                next.headers.append(name.clone(), value.clone());
            }
        }
        next.headers.insert(header::HOST, target.host);
        next.uri = Uri::from(target.path);
        let accepted = Accepted { https, ..self.accepted.clone() };

        let state = exchange.state.as_deref();
        let matched =
            Matched::find(self.connection, self.view, self.table, &next, &accepted, state);
        let Some(matched) = matched else {
            stats.passthrough_internal_redirect_no_route.inc();
            return None;
        };
        let name = &matched.route.config.name;
        if !self.is_allowed(name, https, &mut followed) {
            stats.passthrough_internal_redirect_predicate.inc();
            return None;
        }

        let mut body = body;
        if status == StatusCode::SEE_OTHER && !matches!(next.method, Method::GET | Method::HEAD) {
            next.method = Method::GET;
            next.headers.remove(header::CONTENT_LENGTH);
            body = None;
        }
        followed.count += 1;
        let scheme = if was_https { "https" } else { "http" };
        let path = request.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let url = format!("{scheme}://{}{path}", host_of(&request.headers));
        if let Ok(url) = HeaderValue::from_str(&url) {
            next.headers.insert(X_ENVOY_ORIGINAL_URL, url);
        }
        let headers = headers.clone();
        Some(Box::new(Next { request: next, accepted, body, followed, status, headers }))
    }

    /// Whether every predicate accepts the route that comes next.
    fn is_allowed(&self, name: &Arc<str>, https: bool, followed: &mut Followed) -> bool {
        self.policy.predicates.iter().all(|predicate| match predicate {
            RedirectPredicate::AllowListedRoutes(names) => names.contains(name),
            RedirectPredicate::SafeCrossScheme => self.accepted.https || !https,
            RedirectPredicate::PreviousRoutes => {
                let way = (Arc::clone(self.route), Arc::clone(name));
                let is_new = !followed.ways.contains(&way);
                if is_new {
                    followed.ways.push(way);
                }
                is_new
            }
        })
    }
}

/// Where a `Location` leads to.
struct Target {
    /// Lower case.
    scheme: String,
    host: HeaderValue,
    path: PathAndQuery,
}

/// The target of an absolute URL without user information; its fragment does not count.
fn target_of(location: &HeaderValue) -> Option<Target> {
    let text = location.to_str().ok()?;
    let text = text.split_once('#').map_or(text, |(url, _)| url);
    let uri: Uri = text.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let host = HeaderValue::from_str(authority.as_str()).ok()?;
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    Some(Target { scheme, host, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_an_absolute_url_of_http() {
        for (location, expected) in [
            ("http://a/b?c#d", Some(("http", "a", "/b?c"))),
            ("https://a:1", Some(("https", "a:1", "/"))),
            ("/b", None),
            ("//a/b", None),
            ("", None),
            ("ftp://a/", Some(("ftp", "a", "/"))),
            ("http://user@a/", None),
            ("http:///b", None),
        ] {
            let target = target_of(&HeaderValue::from_static(location));
            let found = target.as_ref().map(|target| {
                (&*target.scheme, target.host.to_str().unwrap(), target.path.as_str())
            });
            assert_eq!(found, expected, "{location}");
        }
    }
}
