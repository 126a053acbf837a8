//! `envoy.filters.http.csrf`

use outrigger_proto::envoy::extensions::filters::http::csrf::v3 as proto;

use crate::config::Problems;
use crate::config::http_filters::CsrfPolicy;

use super::super::common::required;
use super::super::{matcher, percent};

/// A policy, the same in a connection manager and in a route.
pub(in super::super) fn policy(
    problems: &mut Problems,
    proto: proto::CsrfPolicy,
) -> Option<CsrfPolicy> {
    let proto::CsrfPolicy { filter_enabled, shadow_enabled, additional_origins } = proto;
    let enabled = required(problems, "filter_enabled", filter_enabled)
        .and_then(|proto| percent::runtime(problems, "filter_enabled", proto));
    let shadow_enabled =
        shadow_enabled.and_then(|proto| percent::runtime(problems, "shadow_enabled", proto));
    let origins = additional_origins.into_iter().enumerate().filter_map(|(index, proto)| {
        problems.element("additional_origins", index, |problems| matcher::string(problems, proto))
    });
    let origins = origins.collect();
    Some(CsrfPolicy { enabled: enabled?, shadow_enabled, origins })
}
