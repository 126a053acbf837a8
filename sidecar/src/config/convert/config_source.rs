//! `ConfigSource`: where a discovered resource comes from. It is always ADS here.

use std::time::Duration;

use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;

use crate::config::Problems;

use super::common::{enumeration, limit, unsupported};

/// How long a resource is waited for where the configuration does not say.
const DEFAULT_INITIAL_FETCH: Duration = Duration::from_secs(15);

/// The initial fetch timeout of a source that has to be ADS: `Some(None)` is without end.
pub(super) fn ads(problems: &mut Problems, proto: core::ConfigSource) -> Option<Option<Duration>> {
    let core::ConfigSource {
        authorities,
        initial_fetch_timeout,
        resource_api_version,
        config_source_specifier,
    } = proto;
    unsupported!(problems; authorities);
    version(problems, "resource_api_version", resource_api_version);
    let timeout = limit(
        problems,
        "initial_fetch_timeout",
        initial_fetch_timeout,
        Some(DEFAULT_INITIAL_FETCH),
    );
    let only_ads = |problems: &mut Problems, name| {
        problems.reject_field(name, "not supported by this version of Outrigger: use ads");
        None
    };
    match config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})) => Some(timeout),
        Some(ConfigSourceSpecifier::Path(_)) => only_ads(problems, "path"),
        Some(ConfigSourceSpecifier::PathConfigSource(_)) => {
            only_ads(problems, "path_config_source")
        }
        Some(ConfigSourceSpecifier::ApiConfigSource(_)) => only_ads(problems, "api_config_source"),
        Some(ConfigSourceSpecifier::Self_(_)) => only_ads(problems, "self"),
        None => {
            problems.reject_field("ads", "required");
            None
        }
    }
}

/// V3, or unset where Envoy takes that as V3 too.
pub(super) fn version(problems: &mut Problems, name: &str, value: i32) {
    if enumeration(problems, name, value) == Some(core::ApiVersion::V2) {
        problems.reject_field(name, "V2 is no longer spoken: V3 is");
    }
}
