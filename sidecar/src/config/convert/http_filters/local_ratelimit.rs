//! `envoy.filters.http.local_ratelimit`

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use outrigger_proto::envoy::extensions::common::ratelimit::v3 as common;
use outrigger_proto::envoy::extensions::common::ratelimit::v3::{
    VhRateLimitsOptions, XRateLimitHeadersRfcVersion,
};
use outrigger_proto::envoy::extensions::filters::http::local_ratelimit::v3 as proto;
use outrigger_proto::envoy::r#type::v3 as types;

use crate::config::Problems;
use crate::config::http_filters::{LimitStats, LocalRateLimit};
use crate::config::limiter::Limiter;
use crate::config::rate_limit::{Entries, HostRules};
use crate::config::token_bucket::TokenBucket;

use super::super::common::{
    boolean, enumeration, http_status, number_in, positive_duration, required, text, unsupported,
};
use super::super::rate_limit::{self, Place};
use super::super::{header, percent};

/// Envoy's shortest `fill_interval`.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// Envoy's highest stage.
const MAX_STAGE: u32 = 10;

/// The filter's configuration, the same in a connection manager and in a route; `per_route`: where a bucket is a must.
pub(in super::super) fn filter(
    problems: &mut Problems,
    proto: proto::LocalRateLimit,
    per_route: bool,
) -> LocalRateLimit {
    let proto::LocalRateLimit {
        stat_prefix,
        status,
        token_bucket,
        filter_enabled,
        filter_enforced,
        request_headers_to_add_when_not_enforced,
        response_headers_to_add,
        descriptors,
        stage,
        local_rate_limit_per_downstream_connection,
        local_cluster_rate_limit,
        enable_x_ratelimit_headers,
        vh_rate_limits,
        always_consume_default_token_bucket,
        rate_limited_as_resource_exhausted,
        rate_limits,
        max_dynamic_descriptors,
        enable_retry_after_header,
    } = proto;
    unsupported!(problems; local_rate_limit_per_downstream_connection, local_cluster_rate_limit);
    if stage > MAX_STAGE {
        problems.reject_field("stage", format!("{stage} is out of range: 0 to {MAX_STAGE}"));
    }
    let x_headers = enumeration(problems, "enable_x_ratelimit_headers", enable_x_ratelimit_headers)
        == Some(XRateLimitHeadersRfcVersion::DraftVersion03);
    let host_rules = match enumeration(problems, "vh_rate_limits", vh_rate_limits) {
        None | Some(VhRateLimitsOptions::Override) => HostRules::Override,
        Some(VhRateLimitsOptions::Include) => HostRules::Include,
        Some(VhRateLimitsOptions::Ignore) => HostRules::Ignore,
    };
    let stat_prefix = text(problems, "stat_prefix", stat_prefix);
    if per_route && token_bucket.is_none() {
        problems.reject_field("token_bucket", "required in a route");
    }
    let bucket =
        token_bucket.and_then(|p| problems.field("token_bucket", |problems| bucket(problems, p)));
    let always_default = boolean(always_consume_default_token_bucket, true);
    let most =
        number_in(problems, "max_dynamic_descriptors", max_dynamic_descriptors, 1..=u32::MAX);
    let most = usize::try_from(most.unwrap_or(20)).ok().and_then(NonZeroUsize::new);
    let mut limiter = Limiter::new(bucket, always_default);
    for (index, proto) in descriptors.into_iter().enumerate() {
        problems.element("descriptors", index, |problems| {
            let most = most.unwrap_or(NonZeroUsize::MIN);
            descriptor(problems, proto, &mut limiter, most);
        });
    }
    let rules = rate_limit::rules(problems, "rate_limits", rate_limits, Place::LocalFilter);
    let enabled = filter_enabled.map(|p| percent::runtime(problems, "filter_enabled", p));
    let enforced = filter_enforced.map(|p| percent::runtime(problems, "filter_enforced", p));
    LocalRateLimit {
        stat_prefix: stat_prefix.into(),
        status: refusal_status(problems, "status", status),
        limiter: Arc::new(limiter),
        rules,
        stage,
        host_rules,
        x_headers,
        retry_after: enable_retry_after_header,
        enabled: enabled.flatten().unwrap_or((0, 100).into()),
        enforced: enforced.flatten().unwrap_or((0, 100).into()),
        request_headers: header::additions(
            problems,
            "request_headers_to_add_when_not_enforced",
            request_headers_to_add_when_not_enforced,
        ),
        response_headers: header::additions(
            problems,
            "response_headers_to_add",
            response_headers_to_add,
        ),
        stats: LimitStats::default(),
        resource_exhausted: rate_limited_as_resource_exhausted,
    }
}

/// A limit for requests that are described so.
fn descriptor(
    problems: &mut Problems,
    proto: common::LocalRateLimitDescriptor,
    limiter: &mut Limiter,
    most: NonZeroUsize,
) {
    let common::LocalRateLimitDescriptor { entries, token_bucket, shadow_mode } = proto;
    if entries.is_empty() {
        problems.reject_field("entries", "must have at least one entry");
    }
    let entries = entries.into_iter().enumerate().map(|(index, proto)| {
        let common::rate_limit_descriptor::Entry { key, value } = proto;
        let key = problems.element("entries", index, |problems| text(problems, "key", key));
        (key.into(), value.into())
    });
    let entries: Entries = entries.collect();
    let Some(proto) = required(problems, "token_bucket", token_bucket) else { return };
    let Some(bucket) = problems.field("token_bucket", |problems| bucket(problems, proto)) else {
        return;
    };
    if !limiter.add(entries, bucket, shadow_mode, most) {
        problems.reject("the same description has a limit already");
    }
}

/// A bucket of tokens.
pub(in super::super) fn bucket(
    problems: &mut Problems,
    proto: types::TokenBucket,
) -> Option<TokenBucket> {
    let types::TokenBucket { max_tokens, tokens_per_fill, fill_interval } = proto;
    let per_fill = number_in(problems, "tokens_per_fill", tokens_per_fill, 1..=u32::MAX);
    let interval = required(problems, "fill_interval", fill_interval)?;
    let interval = positive_duration(problems, "fill_interval", Some(interval))?;
    if interval < MIN_INTERVAL {
        problems.reject_field("fill_interval", "must be 50ms or more");
    }
    Some(TokenBucket::new(max_tokens, per_fill.unwrap_or(1), interval))
}

/// Below 400 it would not be a refusal: as in Envoy it is 429 then.
pub(in super::super) fn refusal_status(
    problems: &mut Problems,
    name: &str,
    proto: Option<types::HttpStatus>,
) -> StatusCode {
    http_status(problems, name, proto)
        .filter(|status| status.as_u16() >= 400)
        .unwrap_or(StatusCode::TOO_MANY_REQUESTS)
}
