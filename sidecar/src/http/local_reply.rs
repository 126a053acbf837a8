//! Every response that we make ourselves: status, text and flag as Envoy has them, and a reason that names the cause.
//!
//! The reason is sent as `x-outrigger-reason`, so that a caller can tell our answer from the application's:
//!
//! | reason | what happened |
//! |---|---|
//! | `no_route` | no virtual host or route takes the request |
//! | `cluster_not_found` | the route names a cluster that does not exist |
//! | `no_healthy_upstream` | the cluster has no endpoint that may be used |
//! | `upstream_connect_failure` | no connection to the endpoint could be made |
//! | `upstream_reset` | the endpoint broke off before it answered, or did not speak HTTP |
//! | `upstream_timeout` | the endpoint did not answer in time |
//! | `upstream_overflow` | a circuit breaker is open |
//! | `authorization_denied` | an external service denies the request, or does not say |
//! | `jwt_denied` | the request has no token that is needed, or a wrong one |
//! | `health_check_failed` | the proxy was asked for its health, and is not well |
//! | `rbac_denied` | no policy allows the request, or one denies it |
//! | `csrf_denied` | the request changes something, and comes from another origin or from none that it names |
//! | `fault_injected` | the fault filter is configured to answer with an error |
//! | `rate_limited` | a rate limit is reached, or the service that knows the limits does not say |
//! | `request_body_too_large` | the body is larger than may be buffered |
//! | `request_headers_too_large` | too many or too long headers |
//! | `bad_request` | the request is malformed |
//! | `client_address_unknown` | the request does not say who it is from, where it has to |
//! | `invalid_envoy_header` | an `x-envoy-*` header is malformed, where it has to be well-formed |
//! | `upgrade_refused` | the upgrade is not allowed, or the endpoint cannot do it |
//! | `request_timeout` | the request did not arrive in time, or the stream was idle for too long |

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::filters::Steps;
use super::headers::{GRPC_MESSAGE, GRPC_STATUS, X_ENVOY_OVERLOADED, X_OUTRIGGER_REASON};
use crate::access_log::ResponseFlags;

/// Why we answer ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the table above
pub(crate) enum Reason {
    NoRoute,
    ClusterNotFound,
    NoHealthyUpstream,
    DropOverload,
    UpstreamConnectFailure,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamOverflow,
    RbacDenied,
    CsrfDenied,
    JwtDenied,
    AuthorizationDenied,
    HealthCheckFailed,
    FaultInjected,
    RateLimited,
    RequestBodyTooLarge,
    RequestHeadersTooLarge,
    BadRequest,
    ClientAddressUnknown,
    InvalidEnvoyHeader,
    UpgradeRefused,
    RequestTimeout,
    NoFilterConfig,
}

impl Reason {
    /// As it stands in the header.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::ClusterNotFound => "cluster_not_found",
            Self::NoHealthyUpstream => "no_healthy_upstream",
            Self::DropOverload => "drop_overload",
            Self::UpstreamConnectFailure => "upstream_connect_failure",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamOverflow => "upstream_overflow",
            Self::RbacDenied => "rbac_denied",
            Self::CsrfDenied => "csrf_denied",
            Self::JwtDenied => "jwt_denied",
            Self::AuthorizationDenied => "authorization_denied",
            Self::HealthCheckFailed => "health_check_failed",
            Self::FaultInjected => "fault_injected",
            Self::RateLimited => "rate_limited",
            Self::RequestBodyTooLarge => "request_body_too_large",
            Self::RequestHeadersTooLarge => "request_headers_too_large",
            Self::BadRequest => "bad_request",
            Self::ClientAddressUnknown => "client_address_unknown",
            Self::InvalidEnvoyHeader => "invalid_envoy_header",
            Self::UpgradeRefused => "upgrade_refused",
            Self::RequestTimeout => "request_timeout",
            Self::NoFilterConfig => "no_filter_config",
        }
    }
}

/// A response of ours.
#[derive(Debug, Clone)]
pub(crate) struct LocalReply {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    pub(crate) flags: ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`
    pub(crate) details: Cow<'static, str>,
    pub(crate) reason: Option<Reason>,
    /// Headers beside those every reply has.
    pub(crate) headers: HeaderMap,
    /// `grpc-status` for a gRPC client, where it does not follow from the status.
    pub(crate) grpc_status: Option<u8>,
    /// It stands for a response of the cluster, and counts as one.
    pub(crate) of_cluster: bool,
    /// The connection is closed after it: where the request ends is in doubt, or it was not read to its end.
    pub(crate) close: bool,
}

impl LocalReply {
    pub(crate) fn new(
        status: StatusCode,
        body: impl Into<Bytes>,
        details: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            body: body.into(),
            flags: ResponseFlags::default(),
            details: details.into(),
            reason: None,
            headers: HeaderMap::new(),
            grpc_status: None,
            of_cluster: false,
            close: false,
        }
    }

    #[must_use]
    pub(crate) fn because(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    #[must_use]
    pub(crate) fn flagged(mut self, flags: ResponseFlags) -> Self {
        self.flags.insert(flags);
        self
    }

    #[must_use]
    pub(crate) fn in_place_of_a_response(mut self) -> Self {
        self.of_cluster = true;
        self
    }

    #[must_use]
    pub(crate) fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    #[must_use]
    pub(crate) fn overloaded(mut self) -> Self {
        self.headers.insert(X_ENVOY_OVERLOADED, HeaderValue::from_static("true"));
        self
    }

    /// The response. A gRPC client gets it as trailers alone, with the status that stands for ours.
    pub(crate) fn into_response(
        mut self,
        mut exchange: Exchange,
        grpc: bool,
        head: bool,
        steps: Steps,
    ) -> Response<ResponseBody> {
        exchange.fail(self.flags, std::mem::take(&mut self.details));
        exchange.status = self.status.as_u16();
        let connection = Rc::clone(&exchange.connection);
        if let Some(rules) = &connection.manager.replies {
            rules.rewrite(&mut self, &mut exchange);
        }
        let mut headers = self.headers;
        if let Some(reason) = self.reason {
            headers.insert(X_OUTRIGGER_REASON, HeaderValue::from_static(reason.as_str()));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        exchange.status = if grpc { 200 } else { self.status.as_u16() };
        let response = if grpc {
            let status = self.grpc_status.unwrap_or_else(|| grpc_status(self.status));
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status)));
            if let Ok(message) = HeaderValue::from_str(&percent_encoded(&self.body))
                && !message.is_empty()
            {
                headers.insert(GRPC_MESSAGE, message);
            }
            steps.apply(StatusCode::OK, true, &mut headers, &exchange);
            Response::new(ResponseBody::empty(exchange))
        } else {
            if !self.body.is_empty() {
                headers
                    .entry(header::CONTENT_TYPE)
                    .or_insert(HeaderValue::from_static("text/plain"));
            }
            // Also where the body itself is left out: it is what a GET would get.
            if !self.body.is_empty() && !matches!(self.status.as_u16(), 100..=199 | 204 | 304) {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
            }
            let body = if head { Bytes::new() } else { self.body };
            let pipe = steps.apply(self.status, body.is_empty(), &mut headers, &exchange);
            let mut response = Response::new(ResponseBody::whole(body, exchange).through(pipe));
            *response.status_mut() = self.status;
            response
        };
        let mut response = response;
        *response.headers_mut() = headers;
        response
    }
}

/// gRPC's mapping of HTTP statuses, as Envoy applies it.
pub(crate) fn grpc_status(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// The HTTP status that a gRPC status counts as for outlier detection.
pub(crate) fn http_status(grpc: u8) -> u16 {
    match grpc {
        0 => 200,
        1 => 499,
        2 | 13 | 15 => 500,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// `grpc-message` is ASCII; the rest is percent-encoded (gRPC over HTTP/2).
fn percent_encoded(text: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text {
        match byte {
            b' '..=b'~' if *byte != b'%' => encoded.push(char::from(*byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_message_is_plain_ascii() {
        assert_eq!(percent_encoded("a b%\nä".as_bytes()), "a b%25%0A%C3%A4");
    }
}
