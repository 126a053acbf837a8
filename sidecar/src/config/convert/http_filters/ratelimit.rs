//! `envoy.filters.http.ratelimit`

use std::time::Duration;

use http::StatusCode;
use outrigger_proto::envoy::config::core::v3::ApiVersion;
use outrigger_proto::envoy::config::ratelimit::v3::RateLimitServiceConfig;
use outrigger_proto::envoy::extensions::filters::http::ratelimit::v3 as proto;
use outrigger_proto::envoy::extensions::filters::http::ratelimit::v3::rate_limit::XRateLimitHeadersRfcVersion;
use outrigger_proto::envoy::extensions::filters::http::ratelimit::v3::rate_limit_per_route::{
    OverrideOptions, VhRateLimitsOptions,
};

use crate::config::Problems;
use crate::config::rate_limit::{HostRules, RateLimit, RateLimitPerRoute};
use crate::config::runtime::RuntimeFraction;

use super::super::common::{enumeration, http_status, limit, optional, required, text};
use super::super::rate_limit::{self, Place};
use super::super::{grpc_service, header, percent};
use super::local_ratelimit::refusal_status;

/// Envoy's time for an answer.
const TIMEOUT: Duration = Duration::from_millis(20);
/// Envoy's namespace.
const NAMESPACE: &str = "envoy.filters.http.ratelimit";
const MAX_STAGE: u32 = 10;
/// Envoy's most of added headers.
const MAX_HEADERS: usize = 10;

/// The filter's own configuration.
pub(in super::super) fn filter(
    problems: &mut Problems,
    proto: proto::RateLimit,
) -> Option<RateLimit> {
    let proto::RateLimit {
        domain,
        stage,
        request_type,
        timeout,
        failure_mode_deny,
        rate_limited_as_resource_exhausted,
        rate_limit_service,
        enable_x_ratelimit_headers,
        disable_x_envoy_ratelimited_header,
        rate_limited_status,
        response_headers_to_add,
        status_on_error,
        stat_prefix,
        filter_enabled,
        filter_enforced,
        failure_mode_deny_percent,
        rate_limits,
        metadata_namespace,
        enable_retry_after_header,
    } = proto;
    let domain = text(problems, "domain", domain).into();
    if stage > MAX_STAGE {
        problems.reject_field("stage", format!("{stage} is out of range: 0 to {MAX_STAGE}"));
    }
    let internal = match request_type.as_str() {
        "" | "both" => None,
        "internal" => Some(true),
        "external" => Some(false),
        other => {
            let reason = format!("{other:?} is not one of internal, external, both");
            problems.reject_field("request_type", reason);
            None
        }
    };
    if response_headers_to_add.len() > MAX_HEADERS {
        let reason = format!("must have {MAX_HEADERS} entries at most");
        problems.reject_field("response_headers_to_add", reason);
    }
    let mut share = |name: &str, proto, default| {
        let proto: Option<_> = proto;
        proto.and_then(|proto| percent::runtime(problems, name, proto)).unwrap_or(default)
    };
    let enabled = share(
        "filter_enabled",
        filter_enabled,
        RuntimeFraction::new((100, 100), "ratelimit.http_filter_enabled"),
    );
    let enforced = share(
        "filter_enforced",
        filter_enforced,
        RuntimeFraction::new((100, 100), "ratelimit.http_filter_enforcing"),
    );
    let deny = if failure_mode_deny { (100, 100) } else { (0, 100) };
    let deny_on_failure =
        share("failure_mode_deny_percent", failure_mode_deny_percent, deny.into());
    let x_headers = enumeration(problems, "enable_x_ratelimit_headers", enable_x_ratelimit_headers)
        == Some(XRateLimitHeadersRfcVersion::DraftVersion03);
    let rules = rate_limit::rules(problems, "rate_limits", rate_limits, Place::GlobalFilter);
    let response_headers =
        header::additions(problems, "response_headers_to_add", response_headers_to_add);
    let status_on_error = http_status(problems, "status_on_error", status_on_error)
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let timeout = limit(problems, "timeout", timeout, Some(TIMEOUT));
    let service = required(problems, "rate_limit_service", rate_limit_service)?;
    let service = problems.field("rate_limit_service", |problems| {
        let RateLimitServiceConfig { grpc_service: service, transport_api_version } = service;
        // As in Envoy what is not said is the version that there is.
        if enumeration(problems, "transport_api_version", transport_api_version)
            == Some(ApiVersion::V2)
        {
            problems.reject_field("transport_api_version", "must be V3");
        }
        let service = required(problems, "grpc_service", service)?;
        problems.field("grpc_service", |problems| grpc_service::convert(problems, service))
    })?;
    Some(RateLimit {
        domain,
        stage,
        internal,
        service,
        timeout,
        deny_on_failure,
        resource_exhausted: rate_limited_as_resource_exhausted,
        x_headers,
        limited_header: !disable_x_envoy_ratelimited_header,
        status: refusal_status(problems, "rate_limited_status", rate_limited_status),
        status_on_error,
        response_headers,
        stat_prefix: stat_prefix.into(),
        enabled,
        enforced,
        rules,
        namespace: optional(metadata_namespace).unwrap_or_else(|| NAMESPACE.into()),
        retry_after: enable_retry_after_header,
    })
}

/// What a route says.
pub(in super::super) fn per_route(
    problems: &mut Problems,
    proto: proto::RateLimitPerRoute,
) -> RateLimitPerRoute {
    let proto::RateLimitPerRoute { vh_rate_limits, override_option, rate_limits, domain } = proto;
    let of_host = match enumeration(problems, "vh_rate_limits", vh_rate_limits) {
        None | Some(VhRateLimitsOptions::Override) => HostRules::Override,
        Some(VhRateLimitsOptions::Include) => HostRules::Include,
        Some(VhRateLimitsOptions::Ignore) => HostRules::Ignore,
    };
    let host_rules = match enumeration(problems, "override_option", override_option) {
        None | Some(OverrideOptions::Default) => of_host,
        Some(OverrideOptions::OverridePolicy) => HostRules::Override,
        Some(OverrideOptions::IncludePolicy) => HostRules::Include,
        Some(OverrideOptions::IgnorePolicy) => HostRules::Ignore,
    };
    let rules = rate_limit::rules(problems, "rate_limits", rate_limits, Place::GlobalFilter);
    RateLimitPerRoute { host_rules, rules, domain: optional(domain) }
}
