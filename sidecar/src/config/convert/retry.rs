//! Retry policies.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use outrigger_proto::any;
use outrigger_proto::envoy::config::route::v3 as proto;
use outrigger_proto::envoy::config::route::v3::retry_policy as policy;
use outrigger_proto::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;

use crate::config::Problems;
use crate::config::route::{ResetFormat, RetryOn, RetryPolicy};

use super::common::{
    duration, enumeration, header_name, number, positive_duration, required, text, unknown_type,
    unpack, unsupported,
};
use super::matcher;

/// Upper bound of the first delay where the policy does not say.
const DEFAULT_BASE: Duration = Duration::from_millis(25);

/// A longer wait is not taken from a response where the policy does not say.
const DEFAULT_RESET_MAX: Duration = Duration::from_secs(300);

/// The policy in the field `retry_policy`.
pub(super) fn convert(
    problems: &mut Problems,
    proto: Option<proto::RetryPolicy>,
) -> Option<Arc<RetryPolicy>> {
    let proto = proto?;
    problems.field("retry_policy", |problems| policy_of(problems, proto)).map(Arc::new)
}

/// The policy in the field `hedge_policy`: whether an attempt over its timeout goes on beside the next.
pub(super) fn hedging(problems: &mut Problems, proto: Option<proto::HedgePolicy>) -> Option<bool> {
    let proto::HedgePolicy {
        initial_requests,
        additional_request_chance,
        hedge_on_per_try_timeout,
    } = proto?;
    problems.field("hedge_policy", |problems| {
        // Envoy has neither, and takes one request for what is meant.
        match number(initial_requests) {
            None | Some(1) => {}
            Some(0) => problems.reject_field("initial_requests", "must be at least 1"),
            Some(_) => problems.unsupported("initial_requests", true),
        }
        let chance = additional_request_chance.is_some_and(|chance| chance.numerator > 0);
        problems.unsupported("additional_request_chance", chance);
    });
    Some(hedge_on_per_try_timeout)
}

fn policy_of(problems: &mut Problems, proto: proto::RetryPolicy) -> Option<RetryPolicy> {
    let proto::RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        retry_options_predicates,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        refresh_cluster_on_retry,
    } = proto;
    unsupported!(problems;
        retry_priority, retry_options_predicates, refresh_cluster_on_retry);
    let mut avoid_previous_hosts = false;
    for (index, proto) in retry_host_predicate.into_iter().enumerate() {
        avoid_previous_hosts |= problems
            .element("retry_host_predicate", index, |problems| host_predicate(problems, proto));
    }
    let host_selection_retry_max_attempts = attempts(problems, host_selection_retry_max_attempts);
    let retriable_status_codes = retriable_status_codes
        .into_iter()
        .enumerate()
        .filter_map(|(index, code)| {
            let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
            if status.is_none() {
                problems.element("retriable_status_codes", index, |problems| {
                    problems.reject(format!("{code} is not a status"));
                });
            }
            status
        })
        .collect();
    let (base_interval, max_interval) = back_off(problems, retry_back_off);
    let (reset_headers, reset_max_interval) = rate_limited(problems, rate_limited_retry_back_off);
    Some(RetryPolicy {
        on: conditions(&retry_on),
        num_retries: number(num_retries).unwrap_or(1),
        per_try_timeout: duration(problems, "per_try_timeout", per_try_timeout)
            .filter(|timeout| !timeout.is_zero()),
        per_try_idle_timeout: duration(problems, "per_try_idle_timeout", per_try_idle_timeout)
            .filter(|timeout| !timeout.is_zero()),
        retriable_status_codes,
        retriable_headers: matcher::headers(problems, "retriable_headers", retriable_headers),
        retriable_request_headers: matcher::headers(
            problems,
            "retriable_request_headers",
            retriable_request_headers,
        ),
        avoid_previous_hosts,
        host_selection_retry_max_attempts,
        base_interval,
        max_interval,
        reset_headers,
        reset_max_interval,
    })
}

/// Conditions by name. Names that are unknown do not count, as in Envoy: a policy may name what later versions know.
fn conditions(text: &str) -> RetryOn {
    text.split(',')
        .filter_map(|name| RetryOn::parse(name.trim()))
        .fold(RetryOn::default(), RetryOn::union)
}

fn host_predicate(problems: &mut Problems, proto: policy::RetryHostPredicate) -> bool {
    let policy::RetryHostPredicate { name, config_type } = proto;
    text(problems, "name", name);
    let Some(policy::retry_host_predicate::ConfigType::TypedConfig(config)) = config_type else {
        problems.reject_field("typed_config", "required");
        return false;
    };
    problems.field("typed_config", |problems| {
        if !any::holds::<PreviousHostsPredicate>(&config) {
            unknown_type(problems, &config, &["PreviousHostsPredicate"]);
            return false;
        }
        let Some(PreviousHostsPredicate {}) = unpack(problems, &config) else { return false };
        true
    })
}

/// Unset, and so zero, means one pick and no other.
fn attempts(problems: &mut Problems, value: i64) -> u32 {
    if value < 0 {
        let reason = format!("{value} is out of range: at least 0");
        problems.reject_field("host_selection_retry_max_attempts", reason);
    }
    u32::try_from(value.max(1)).unwrap_or(u32::MAX)
}

fn back_off(problems: &mut Problems, proto: Option<policy::RetryBackOff>) -> (Duration, Duration) {
    let default = (DEFAULT_BASE, DEFAULT_BASE * 10);
    let Some(policy::RetryBackOff { base_interval, max_interval }) = proto else { return default };
    problems.field("retry_back_off", |problems| {
        let base = required(problems, "base_interval", base_interval)
            .and_then(|base| positive_duration(problems, "base_interval", Some(base)));
        let Some(base) = base else { return default };
        let max = positive_duration(problems, "max_interval", max_interval)
            .unwrap_or_else(|| base.saturating_mul(10));
        if max < base {
            problems.reject_field("max_interval", "must not be less than base_interval");
        }
        (base, max)
    })
}

fn rate_limited(
    problems: &mut Problems,
    proto: Option<policy::RateLimitedRetryBackOff>,
) -> (Vec<(HeaderName, ResetFormat)>, Duration) {
    let Some(policy::RateLimitedRetryBackOff { reset_headers, max_interval }) = proto else {
        return (Vec::new(), DEFAULT_RESET_MAX);
    };
    problems.field("rate_limited_retry_back_off", |problems| {
        if reset_headers.is_empty() {
            problems.reject_field("reset_headers", "must have at least one entry");
        }
        let headers = reset_headers.into_iter().enumerate().filter_map(|(index, proto)| {
            problems.element("reset_headers", index, |problems| {
                let policy::ResetHeader { name, format } = proto;
                let format = match enumeration(problems, "format", format)? {
                    policy::ResetHeaderFormat::Seconds => ResetFormat::Seconds,
                    policy::ResetHeaderFormat::UnixTimestamp => ResetFormat::UnixTimestamp,
                };
                Some((header_name(problems, "name", &name)?, format))
            })
        });
        let headers = headers.collect();
        let max = positive_duration(problems, "max_interval", max_interval);
        (headers, max.unwrap_or(DEFAULT_RESET_MAX))
    })
}
