//! `GrpcService` and `HttpService`: whom the sidecar itself calls, and how.

use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use outrigger_proto::envoy::config::core::v3::http_uri::HttpUpstreamType;

use crate::config::Problems;
use crate::config::grpc_service::{GrpcService, HttpService};
use crate::config::header::HeaderTemplate;

use super::common::{
    duration, header_name, header_value, optional, positive_duration, required, text, unsupported,
};
use super::header;

/// A service that is called now and then. `retry_policy` is refused: a call that fails is not repeated.
pub(super) fn convert(problems: &mut Problems, proto: core::GrpcService) -> Option<GrpcService> {
    let core::GrpcService { timeout, initial_metadata, retry_policy, target_specifier } = proto;
    unsupported!(problems; retry_policy);
    let timeout = duration(problems, "timeout", timeout).filter(|limit| !limit.is_zero());
    let initial_metadata = metadata(problems, initial_metadata);
    let (cluster, authority) = target(problems, target_specifier)?;
    Some(GrpcService { cluster: cluster.into(), authority, timeout, initial_metadata })
}

/// `initial_metadata`.
pub(super) fn metadata(
    problems: &mut Problems,
    protos: Vec<core::HeaderValue>,
) -> Vec<(Box<str>, Box<str>)> {
    let one = |(index, proto)| {
        problems.element("initial_metadata", index, |problems| {
            let core::HeaderValue { key, value, raw_value } = proto;
            unsupported!(problems; raw_value);
            header_name(problems, "key", &key)?;
            header_value(problems, "value", value.as_bytes())?;
            Some((key.to_ascii_lowercase().into(), value.into()))
        })
    };
    protos.into_iter().enumerate().filter_map(one).collect()
}

/// The cluster, and the authority if it is not the cluster's name.
pub(super) fn target(
    problems: &mut Problems,
    proto: Option<TargetSpecifier>,
) -> Option<(String, Option<Box<str>>)> {
    let target = match proto {
        Some(TargetSpecifier::EnvoyGrpc(target)) => target,
        Some(TargetSpecifier::GoogleGrpc(_)) => {
            problems.reject_field(
                "google_grpc",
                "not supported here, but for discovery: use envoy_grpc with a cluster",
            );
            return None;
        }
        None => {
            problems.reject_field("envoy_grpc", "required");
            return None;
        }
    };
    Some(problems.field("envoy_grpc", |problems| {
        let EnvoyGrpc {
            cluster_name,
            authority,
            retry_policy,
            max_receive_message_length,
            skip_envoy_headers: _, // there are none on calls of our own
        } = target;
        unsupported!(problems; retry_policy, max_receive_message_length);
        header_value(problems, "authority", authority.as_bytes());
        (text(problems, "cluster_name", cluster_name), optional(authority))
    }))
}

/// Bounds of the pause before a call is made again.
pub(super) fn backoff(
    problems: &mut Problems,
    proto: core::RetryPolicy,
) -> Option<(Duration, Duration)> {
    let core::RetryPolicy {
        retry_back_off,
        num_retries: _, // a stream is tried again for ever
        retry_on,
        retry_priority,
        retry_host_predicate,
        host_selection_retry_max_attempts: _, // of retry_host_predicate, which is refused
    } = proto;
    unsupported!(problems; retry_on, retry_priority, retry_host_predicate);
    let core::BackoffStrategy { base_interval, max_interval } = retry_back_off?;
    problems.field("retry_back_off", |problems| {
        let base = required(problems, "base_interval", base_interval)?;
        let base = positive_duration(problems, "base_interval", Some(base))?;
        let max = positive_duration(problems, "max_interval", max_interval)
            .unwrap_or_else(|| base.saturating_mul(10));
        if max < base {
            problems.reject_field("max_interval", "must not be less than base_interval");
        }
        Some((base, max))
    })
}

/// A service over plain HTTP.
pub(super) fn http(problems: &mut Problems, proto: core::HttpService) -> Option<HttpService> {
    let core::HttpService { http_uri, request_headers_to_add, formatters } = proto;
    unsupported!(problems; formatters);
    let additions = header::additions(problems, "request_headers_to_add", request_headers_to_add);
    let mut headers = Vec::with_capacity(additions.add.len());
    for (index, addition) in additions.add.iter().enumerate() {
        match &addition.value {
            HeaderTemplate::Fixed(value) => headers.push((addition.name.clone(), value.clone())),
            HeaderTemplate::Format(_) => problems.reject_field(
                &format!("request_headers_to_add[{index}].header.value"),
                "command operators are not supported here by this version of Outrigger",
            ),
        }
    }
    let uri = required(problems, "http_uri", http_uri)?;
    problems.field("http_uri", |problems| {
        let core::HttpUri { uri, timeout, http_upstream_type } = uri;
        let timeout = required(problems, "timeout", timeout);
        let timeout = timeout.and_then(|it| positive_duration(problems, "timeout", Some(it)));
        let cluster = match http_upstream_type {
            Some(HttpUpstreamType::Cluster(name)) => text(problems, "cluster", name),
            None => {
                problems.reject_field("cluster", "required");
                return None;
            }
        };
        let parsed = uri.parse::<Uri>().ok().filter(|uri| uri.authority().is_some());
        let Some(parsed) = parsed else {
            problems.reject_field("uri", format!("{uri:?} is not a URI with a host"));
            return None;
        };
        let authority = parsed.authority().map_or("", |authority| authority.as_str());
        Some(HttpService {
            cluster: cluster.into(),
            authority: header_value(problems, "uri", authority.as_bytes())?,
            path: parsed.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")),
            timeout: timeout?,
            headers,
        })
    })
}
