//! `ConfigSource`: where a discovered resource comes from.

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;

use crate::config::Problems;
use crate::config::config_source::{ConfigSource, Origin};

use super::common::{enumeration, limit, unsupported};
use super::discovery;

/// How long a resource is waited for where the configuration does not say.
const DEFAULT_INITIAL_FETCH: Duration = Duration::from_secs(15);

/// A source of resources.
pub(super) fn convert(problems: &mut Problems, proto: core::ConfigSource) -> Option<ConfigSource> {
    let core::ConfigSource {
        authorities,
        initial_fetch_timeout,
        resource_api_version,
        config_source_specifier,
    } = proto;
    unsupported!(problems; authorities);
    version(problems, "resource_api_version", resource_api_version);
    let initial_fetch_timeout = limit(
        problems,
        "initial_fetch_timeout",
        initial_fetch_timeout,
        Some(DEFAULT_INITIAL_FETCH),
    );
    let unsupported = |problems: &mut Problems, name| {
        problems.reject_field(name, "not supported by this version of Outrigger: use ads");
        None
    };
    let origin = match config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})) => Some(Origin::Ads),
        Some(ConfigSourceSpecifier::ApiConfigSource(proto)) => {
            let service =
                problems.field("api_config_source", |problems| discovery::convert(problems, proto));
            service.map(|service| Origin::Service(Arc::new(service)))
        }
        Some(ConfigSourceSpecifier::Path(_)) => unsupported(problems, "path"),
        Some(ConfigSourceSpecifier::PathConfigSource(_)) => {
            unsupported(problems, "path_config_source")
        }
        Some(ConfigSourceSpecifier::Self_(core::SelfConfigSource { .. })) => {
            problems.reject_field("self", "not supported, as in Envoy: name the source");
            None
        }
        None => {
            problems.reject("one of ads, api_config_source is required");
            None
        }
    }?;
    Some(ConfigSource { origin, initial_fetch_timeout })
}

/// V3, or unset where Envoy takes that as V3 too.
pub(super) fn version(problems: &mut Problems, name: &str, value: i32) {
    if enumeration(problems, name, value) == Some(core::ApiVersion::V2) {
        problems.reject_field(name, "V2 is no longer spoken: V3 is");
    }
}
