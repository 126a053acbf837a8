//! Cross-origin requests, `envoy.filters.http.cors`: preflights are answered, and what browsers need to see of a response
//! is added to it. All of it stands in routes and virtual hosts; what one level leaves open the next one says.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::{Passage, Step, happens};
use crate::config::http_filters::{CorsPolicy, FilterOverride, RouteFilter};
use crate::http::local_reply::LocalReply;
use crate::http::router::Refusal;
use crate::stats::CorsCells;

const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// What is added to the response of a cross-origin request.
pub(super) struct Answer {
    origin: HeaderValue,
    credentials: bool,
    expose: Option<HeaderValue>,
}

impl Answer {
    pub(super) fn apply(self, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.origin);
        if self.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if let Some(expose) = self.expose {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose);
        }
    }
}

/// Lets the request pass, or answers it if it is a preflight.
pub(super) fn run(name: &str, stats: &CorsCells, passage: &mut Passage<'_>) -> Result<(), Refusal> {
    let levels = passage.overrides.map(|level| match level.and_then(|level| level.of(name)) {
        Some(FilterOverride::Configured(RouteFilter::Cors(policy))) => Some(policy),
        _ => None,
    });
    let policies = Policies(levels);
    let Some(first) = policies.0.iter().flatten().next() else { return Ok(()) };
    let enabled = first.enabled.as_ref().is_none_or(|share| happens(share.current()));
    if !enabled && !first.shadow_enabled.as_ref().is_some_and(|share| happens(share.current())) {
        return Ok(());
    }
    let headers = &passage.request.headers;
    let origin = headers.get(header::ORIGIN).filter(|origin| !origin.is_empty());
    let Some(origin) = origin.cloned() else { return Ok(()) };
    let is_preflight = passage.request.method == Method::OPTIONS
        && headers
            .get(header::ACCESS_CONTROL_REQUEST_METHOD)
            .is_some_and(|method| !method.is_empty());
    let origins = policies.0.iter().flatten().find(|policy| !policy.origins.is_empty());
    let allowed = origins.is_some_and(|policy| {
        policy.origins.iter().any(|one| one.matches(b"*") || one.matches(origin.as_bytes()))
    });
    if !allowed {
        stats.origin_invalid.inc();
        let forward = policies.first(|policy| policy.forward_not_matching_preflights);
        if is_preflight && !forward.unwrap_or(true) {
            // As in Envoy it learns everything but that its origin is allowed.
            let mut reply = policies.preflight(headers);
            if policies.first(|policy| policy.credentials).unwrap_or(false) {
                reply.headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
            }
            return Err(reply.into());
        }
        return Ok(());
    }
    stats.origin_valid.inc();
    if !enabled {
        return Ok(());
    }
    let credentials = policies.first(|policy| policy.credentials).unwrap_or(false);
    let expose = policies.first(|policy| policy.expose.clone());
    passage.steps.0.push(Step::Cors(Answer { origin, credentials, expose }));
    if is_preflight { Err(policies.preflight(headers).into()) } else { Ok(()) }
}

/// The policies of all levels, the most specific first.
struct Policies<'a>([Option<&'a Arc<CorsPolicy>>; 4]);

impl Policies<'_> {
    fn first<T>(&self, of: impl Fn(&CorsPolicy) -> Option<T>) -> Option<T> {
        self.0.iter().flatten().find_map(|policy| of(policy))
    }

    /// What a preflight is answered, without what [`Answer`] adds to every response.
    fn preflight(&self, request: &HeaderMap) -> LocalReply {
        let mut reply = LocalReply::new(StatusCode::OK, "", "cors_response");
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, self.first(|policy| policy.methods.clone())),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, self.first(|policy| policy.headers.clone())),
            (header::ACCESS_CONTROL_MAX_AGE, self.first(|policy| policy.max_age.clone())),
        ] {
            if let Some(value) = value {
                reply.headers.insert(name, value);
            }
        }
        if self.first(|policy| policy.private_network).unwrap_or(false)
            && request.get(REQUEST_PRIVATE_NETWORK).is_some_and(|value| value == "true")
        {
            reply.headers.insert(ALLOW_PRIVATE_NETWORK, TRUE);
        }
        reply
    }
}
