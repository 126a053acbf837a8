//! What a request that gets no response is answered with, in Envoy's words, and what it counts as.

use http::{HeaderName, HeaderValue, StatusCode};

use super::attempt::Attempt;
use super::exchange::Exchange;
use super::limits::{Expired, Limits};
use super::local_reply::{LocalReply, Reason};
use super::router::Refusal;
use crate::access_log::ResponseFlags;
use crate::cluster::Outcome;
use crate::local::ClusterRef;
use crate::upstream::Failure;

/// Counts a failed attempt.
pub(crate) fn count_failure(cluster: &ClusterRef, failure: &Failure) {
    let stats = cluster.stats.local();
    match failure {
        Failure::RemoteReset | Failure::Refused => stats.upstream_rq_rx_reset.inc(),
        Failure::Protocol(_) => stats.upstream_cx_protocol_error.inc(),
        Failure::Connect(_) | Failure::ConnectTimeout => {
            stats.upstream_rq_pending_failure_eject.inc();
        }
        Failure::Overflow | Failure::ConnectionTermination => {}
    }
}

/// Counts an attempt that took too long.
pub(crate) fn count_expired(cluster: &ClusterRef, expired: Expired) {
    let stats = cluster.stats.local();
    match expired {
        Expired::PerTry => stats.upstream_rq_per_try_timeout.inc(),
        Expired::PerTryIdle => stats.upstream_rq_per_try_idle_timeout.inc(),
        Expired::Attempt => stats.upstream_rq_max_duration_reached.inc(),
        Expired::Route | Expired::Stream | Expired::Idle | Expired::Request => {}
    }
}

/// What outlier detection is told; an open circuit breaker says nothing about an endpoint.
pub(crate) fn outcome_of(failure: &Failure) -> Option<Outcome> {
    match failure {
        Failure::Overflow => None,
        Failure::Connect(_) => Some(Outcome::ConnectFailure),
        Failure::ConnectTimeout => Some(Outcome::Timeout),
        Failure::Refused
        | Failure::RemoteReset
        | Failure::ConnectionTermination
        | Failure::Protocol(_) => Some(Outcome::Reset),
    }
}

/// Counts a response of a cluster, or ours in its place.
pub(crate) fn count_response(cluster: &ClusterRef, internal: bool, status: StatusCode) {
    let stats = cluster.stats.local();
    let responses = if internal { &stats.responses_internal } else { &stats.responses_external };
    responses.record(status.as_u16());
}

/// Our answer in place of a response of this cluster, counted as such.
pub(crate) fn charged(cluster: &ClusterRef, internal: bool, reply: Refusal) -> Refusal {
    if reply.of_cluster {
        count_response(cluster, internal, reply.status);
    }
    if matches!(reply.reason, Some(Reason::UpstreamOverflow)) {
        cluster.stats.local().rq_dropped.inc();
    }
    reply
}

pub(crate) fn unavailable() -> Refusal {
    LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream", "no_healthy_upstream")
        .because(Reason::NoHealthyUpstream)
        .flagged(ResponseFlags::NO_HEALTHY_UPSTREAM)
        .in_place_of_a_response()
        .into()
}

/// Of so many requests in a million, a cluster whose endpoints are overloaded takes none (`drop_overloads`). Whether this
/// is one of them, and then its reply, as Envoy's.
pub(crate) fn drop_overload(per_million: u32, envoy_headers: bool) -> Option<Refusal> {
    if per_million == 0 || fastrand::u32(..1_000_000) >= per_million {
        return None;
    }
    let (body, details, flag, name) = if per_million == 1_000_000 {
        (
            "unconditional drop overload",
            "unconditional_drop_overload",
            ResponseFlags::UNCONDITIONAL_DROP_OVERLOAD,
            "x-envoy-unconditional-drop-overload",
        )
    } else {
        ("drop overload", "drop_overload", ResponseFlags::DROP_OVERLOAD, "x-envoy-drop-overload")
    };
    let mut reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, body, details)
        .because(Reason::DropOverload)
        .flagged(flag);
    if envoy_headers {
        let name = HeaderName::from_static(name);
        reply.headers.insert(name, HeaderValue::from_static("true"));
    }
    Some(reply.into())
}

/// The client's own request broke off.
pub(crate) fn broken_request() -> Refusal {
    LocalReply::new(StatusCode::BAD_REQUEST, "Bad Request", "request_body_error")
        .because(Reason::BadRequest)
        .flagged(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR)
        .closing()
        .into()
}

/// The answer for a request that got none, in Envoy's words.
pub(crate) fn failed(failure: &Failure, retried: bool) -> Refusal {
    let (status, flags, reason) = match failure {
        Failure::Connect(_) | Failure::ConnectTimeout => (
            StatusCode::SERVICE_UNAVAILABLE,
            ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
            Reason::UpstreamConnectFailure,
        ),
        Failure::Overflow => (
            StatusCode::SERVICE_UNAVAILABLE,
            ResponseFlags::UPSTREAM_OVERFLOW,
            Reason::UpstreamOverflow,
        ),
        Failure::Refused | Failure::RemoteReset => (
            StatusCode::SERVICE_UNAVAILABLE,
            ResponseFlags::UPSTREAM_REMOTE_RESET,
            Reason::UpstreamReset,
        ),
        Failure::ConnectionTermination => (
            StatusCode::SERVICE_UNAVAILABLE,
            ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
            Reason::UpstreamReset,
        ),
        Failure::Protocol(_) => {
            (StatusCode::BAD_GATEWAY, ResponseFlags::UPSTREAM_PROTOCOL_ERROR, Reason::UpstreamReset)
        }
    };
    let what = failure.text();
    let retried = if retried { "retried and the latest " } else { "" };
    let text = format!(
        "upstream connect error or disconnect/reset before headers. {retried}reset reason: {what}"
    );
    let mut details = format!("upstream_reset_before_response_started{{{what}}}");
    if let Failure::Connect(cause) = failure {
        details = format!("upstream_reset_before_response_started{{{what}|{cause}}}");
    }
    let reply = LocalReply::new(status, text, details.replace(' ', "_"));
    let reply = reply.because(reason).flagged(flags).in_place_of_a_response();
    if *failure == Failure::Overflow { reply.overloaded() } else { reply }.into()
}

/// The answer for a request that took too long.
pub(crate) fn timed_out(
    expired: Expired,
    limits: &Limits,
    exchange: &Exchange,
    attempt: Option<(&mut Attempt, &ClusterRef)>,
) -> Refusal {
    let stats = exchange.connection.stats();
    // Envoy blames the side that has not finished.
    let blame = if exchange.request_is_complete() {
        StatusCode::GATEWAY_TIMEOUT
    } else {
        StatusCode::REQUEST_TIMEOUT
    };
    if let Some((attempt, cluster)) = attempt {
        if expired == Expired::Route {
            cluster.stats.local().upstream_rq_timeout.inc();
        }
        attempt.failed(Outcome::Timeout);
    }
    let mut reply = match expired {
        Expired::Route | Expired::PerTry | Expired::PerTryIdle => {
            let details = match expired {
                Expired::PerTry => "upstream_per_try_timeout",
                Expired::PerTryIdle => "upstream_per_try_idle_timeout",
                _ => "response_timeout",
            };
            let (status, body) = if limits.no_content_on_timeout {
                (StatusCode::NO_CONTENT, "")
            } else {
                (StatusCode::GATEWAY_TIMEOUT, "upstream request timeout")
            };
            LocalReply::new(status, body, details)
                .because(Reason::UpstreamTimeout)
                .flagged(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT)
                .in_place_of_a_response()
        }
        Expired::Attempt => LocalReply::new(
            blame,
            "upstream max stream duration reached",
            "upstream_max_stream_duration_reached",
        )
        .because(Reason::UpstreamTimeout)
        .flagged(ResponseFlags::UPSTREAM_MAX_STREAM_DURATION_REACHED),
        Expired::Stream => {
            stats.downstream_rq_max_duration_reached.inc();
            let mut reply =
                LocalReply::new(blame, "downstream duration timeout", "max_duration_timeout")
                    .because(Reason::RequestTimeout)
                    .flagged(ResponseFlags::DURATION_TIMEOUT);
            reply.grpc_status = Some(4);
            reply
        }
        Expired::Idle => {
            stats.downstream_rq_idle_timeout.inc();
            LocalReply::new(blame, "stream timeout", "stream_idle_timeout")
                .because(Reason::RequestTimeout)
                .flagged(ResponseFlags::STREAM_IDLE_TIMEOUT)
        }
        Expired::Request => {
            stats.downstream_rq_timeout.inc();
            LocalReply::new(
                StatusCode::REQUEST_TIMEOUT,
                "request timeout",
                "request_overall_timeout",
            )
            .because(Reason::RequestTimeout)
        }
    };
    if !exchange.request_is_complete() {
        reply.close = true;
    }
    reply.into()
}
