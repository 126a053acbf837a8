//! `envoy.filters.http.fault`

use http::StatusCode;
use outrigger_proto::envoy::extensions::filters::common::fault::v3 as common;
use outrigger_proto::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use outrigger_proto::envoy::extensions::filters::common::fault::v3::fault_rate_limit::{
    FixedLimit, HeaderLimit, LimitType,
};
use outrigger_proto::envoy::extensions::filters::http::fault::v3 as proto;
use outrigger_proto::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;

use crate::config::Problems;
use crate::config::http_filters::{Fault, FaultAbort, FaultDelay, FaultError, FaultRate, Fraction};
use crate::config::runtime::{RuntimeFraction, RuntimeNumber};

use super::super::common::{number, optional, positive_duration, unsupported};
use super::super::{matcher, percent};

/// The filter's configuration, the same in a connection manager and in a route.
pub(in super::super) fn filter(problems: &mut Problems, proto: proto::HttpFault) -> Fault {
    let proto::HttpFault {
        delay,
        abort,
        upstream_cluster,
        headers,
        downstream_nodes,
        max_active_faults,
        response_rate_limit,
        delay_percent_runtime,
        abort_percent_runtime,
        delay_duration_runtime,
        abort_http_status_runtime,
        max_active_faults_runtime,
        response_rate_limit_percent_runtime,
        abort_grpc_status_runtime,
        disable_downstream_cluster_stats: _, // statistics by downstream cluster are not kept
        filter_metadata,
    } = proto;
    unsupported!(problems; filter_metadata);
    Fault {
        delay: delay
            .and_then(|proto| problems.field("delay", |problems| delay_of(problems, proto))),
        abort: abort
            .and_then(|proto| problems.field("abort", |problems| abort_of(problems, proto))),
        response_rate: response_rate_limit.and_then(|proto| {
            problems.field("response_rate_limit", |problems| rate_of(problems, proto))
        }),
        response_rate_percent: RuntimeFraction::new(
            (0, 100),
            key(&response_rate_limit_percent_runtime, "fault.http.rate_limit.response_percent"),
        ),
        upstream_cluster: optional(upstream_cluster),
        headers: matcher::headers(problems, "headers", headers),
        downstream_nodes: downstream_nodes.into_iter().map(Into::into).collect(),
        max_active: RuntimeNumber::new(
            number(max_active_faults).map_or(NO_LIMIT, f64::from),
            key(&max_active_faults_runtime, "fault.http.max_active_faults"),
        ),
        // What a request or the configuration says is the default of these.
        delay_percent: RuntimeFraction::new(
            (0, 100),
            key(&delay_percent_runtime, "fault.http.delay.fixed_delay_percent"),
        ),
        delay_duration: RuntimeNumber::new(
            0.0,
            key(&delay_duration_runtime, "fault.http.delay.fixed_duration_ms"),
        ),
        abort_percent: RuntimeFraction::new(
            (0, 100),
            key(&abort_percent_runtime, "fault.http.abort.abort_percent"),
        ),
        abort_http_status: RuntimeNumber::new(
            0.0,
            key(&abort_http_status_runtime, "fault.http.abort.http_status"),
        ),
        abort_grpc_status: RuntimeNumber::new(
            0.0,
            key(&abort_grpc_status_runtime, "fault.http.abort.grpc_status"),
        ),
    }
}

/// More requests than there can be at once.
const NO_LIMIT: f64 = f64::MAX;

/// The key of the runtime: Envoy's own where none is configured.
fn key<'a>(configured: &'a str, default: &'a str) -> &'a str {
    if configured.is_empty() { default } else { configured }
}

fn delay_of(problems: &mut Problems, proto: common::FaultDelay) -> Option<(FaultDelay, Fraction)> {
    let common::FaultDelay { fault_delay_secifier, percentage } = proto;
    let percentage = share(problems, percentage)?;
    let delay = match fault_delay_secifier {
        None => {
            problems.reject("one of fixed_delay, header_delay is required");
            return None;
        }
        Some(FaultDelaySecifier::FixedDelay(delay)) => {
            FaultDelay::Fixed(positive_duration(problems, "fixed_delay", Some(delay))?)
        }
        Some(FaultDelaySecifier::HeaderDelay(common::fault_delay::HeaderDelay {})) => {
            FaultDelay::Header
        }
    };
    Some((delay, percentage))
}

fn rate_of(
    problems: &mut Problems,
    proto: common::FaultRateLimit,
) -> Option<(FaultRate, Fraction)> {
    let common::FaultRateLimit { percentage, limit_type } = proto;
    let percentage = share(problems, percentage)?;
    let rate = match limit_type {
        None => {
            problems.reject("one of fixed_limit, header_limit is required");
            return None;
        }
        Some(LimitType::FixedLimit(FixedLimit { limit_kbps })) => {
            if limit_kbps == 0 {
                problems.reject_field("fixed_limit.limit_kbps", "must be more than 0");
                return None;
            }
            FaultRate::Fixed(limit_kbps)
        }
        Some(LimitType::HeaderLimit(HeaderLimit {})) => FaultRate::Header,
    };
    Some((rate, percentage))
}

fn abort_of(problems: &mut Problems, proto: proto::FaultAbort) -> Option<FaultAbort> {
    let proto::FaultAbort { percentage, response_body, error_type } = proto;
    let percentage = share(problems, percentage)?;
    let error = match error_type {
        None => {
            problems.reject("one of http_status, grpc_status, header_abort is required");
            return None;
        }
        Some(ErrorType::HttpStatus(status)) => {
            let code = u16::try_from(status).ok().filter(|code| (200..600).contains(code));
            let Some(code) = code.and_then(|code| StatusCode::from_u16(code).ok()) else {
                problems
                    .reject_field("http_status", format!("{status} is out of range: 200 to 599"));
                return None;
            };
            FaultError::Http(code)
        }
        Some(ErrorType::GrpcStatus(status)) => {
            let Ok(status) = u8::try_from(status) else {
                problems.reject_field("grpc_status", format!("{status} is out of range: 0 to 255"));
                return None;
            };
            FaultError::Grpc(status)
        }
        Some(ErrorType::HeaderAbort(proto::fault_abort::HeaderAbort {})) => FaultError::Header,
    };
    Some(FaultAbort { error, percentage, body: optional(response_body) })
}

/// Unset it is none, as in Envoy.
fn share(
    problems: &mut Problems,
    proto: Option<outrigger_proto::envoy::r#type::v3::FractionalPercent>,
) -> Option<Fraction> {
    match proto {
        None => Some((0, 100)),
        Some(proto) => percent::plain(problems, "percentage", proto),
    }
}
