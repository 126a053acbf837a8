//! `envoy.filters.http.cors`

use outrigger_proto::envoy::extensions::filters::http::cors::v3 as proto;

use crate::config::Problems;
use crate::config::http_filters::CorsPolicy;

use super::super::common::optional_header_value;
use super::super::{matcher, percent};

/// A policy of a route or virtual host.
pub(in super::super) fn policy(problems: &mut Problems, proto: proto::CorsPolicy) -> CorsPolicy {
    let proto::CorsPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    } = proto;
    let origins = allow_origin_string_match
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element("allow_origin_string_match", index, |problems| {
                matcher::string(problems, proto)
            })
        })
        .collect();
    CorsPolicy {
        origins,
        methods: optional_header_value(problems, "allow_methods", &allow_methods),
        headers: optional_header_value(problems, "allow_headers", &allow_headers),
        expose: optional_header_value(problems, "expose_headers", &expose_headers),
        max_age: optional_header_value(problems, "max_age", &max_age),
        credentials: allow_credentials.map(|set| set.value),
        private_network: allow_private_network_access.map(|set| set.value),
        forward_not_matching_preflights: forward_not_matching_preflights.map(|set| set.value),
        enabled: filter_enabled
            .and_then(|proto| percent::runtime(problems, "filter_enabled", proto)),
        shadow_enabled: shadow_enabled
            .and_then(|proto| percent::runtime(problems, "shadow_enabled", proto)),
    }
}
