//! `ConfigSource`: where a discovered resource comes from.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;

use crate::config::Problems;
use crate::config::config_source::{ConfigFile, ConfigSource, Origin, WatchedDirectory};

use super::common::{enumeration, limit, positive_duration, text, unsupported};
use super::discovery;

/// How long a resource is waited for where the configuration does not say.
const DEFAULT_INITIAL_FETCH: Duration = Duration::from_secs(15);

/// A source of resources.
pub(super) fn convert(problems: &mut Problems, proto: core::ConfigSource) -> Option<ConfigSource> {
    let core::ConfigSource {
        authorities,
        initial_fetch_timeout,
        resource_api_version: _, // as in Envoy: resources are V3, whatever it says
        config_source_specifier,
    } = proto;
    unsupported!(problems; authorities);
    let initial_fetch_timeout = limit(
        problems,
        "initial_fetch_timeout",
        initial_fetch_timeout,
        Some(DEFAULT_INITIAL_FETCH),
    );
    let origin = match config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})) => Some(Origin::Ads),
        Some(ConfigSourceSpecifier::ApiConfigSource(proto)) => {
            let service =
                problems.field("api_config_source", |problems| discovery::convert(problems, proto));
            service.map(|service| Origin::Service(Arc::new(service)))
        }
        Some(ConfigSourceSpecifier::Path(path)) => existing(problems, path).map(|path| {
            Origin::File(Arc::new(ConfigFile {
                path,
                watched_directory: None,
                poll_interval: None,
            }))
        }),
        Some(ConfigSourceSpecifier::PathConfigSource(proto)) => {
            problems.field("path_config_source", |problems| file(problems, proto))
        }
        Some(ConfigSourceSpecifier::Self_(core::SelfConfigSource { .. })) => {
            problems.reject_field("self", "not supported, as in Envoy: name the source");
            None
        }
        None => {
            problems.reject("one of ads, api_config_source, path_config_source is required");
            None
        }
    }?;
    Some(ConfigSource { origin, initial_fetch_timeout })
}

fn file(problems: &mut Problems, proto: core::PathConfigSource) -> Option<Origin> {
    let core::PathConfigSource { path, watched_directory, poll_interval } = proto;
    let path = existing(problems, path);
    if watched_directory.is_some() && poll_interval.is_some() {
        problems.reject_field("poll_interval", "cannot be set together with watched_directory");
    }
    let poll_interval = positive_duration(problems, "poll_interval", poll_interval)
        .map(|interval| interval.max(Duration::from_millis(1)));
    let watched_directory = watched_directory.and_then(|proto| {
        let core::WatchedDirectory { path, watch_modify } = proto;
        let path = problems.field("watched_directory", |problems| existing(problems, path))?;
        Some(WatchedDirectory { path, watch_modify })
    });
    Some(Origin::File(Arc::new(ConfigFile { path: path?, watched_directory, poll_interval })))
}

/// A path that leads somewhere now: as in Envoy, one that does not is a mistake and nothing to wait for.
fn existing(problems: &mut Problems, path: String) -> Option<PathBuf> {
    let path = PathBuf::from(text(problems, "path", path));
    if path.as_os_str().is_empty() || path.exists() {
        return Some(path);
    }
    problems.reject_field("path", format!("{} does not exist", path.display()));
    None
}

/// `transport_api_version`: V3, or unset, which Envoy takes for V3 too.
pub(super) fn transport_version(problems: &mut Problems, value: i32) {
    if enumeration(problems, "transport_api_version", value) == Some(core::ApiVersion::V2) {
        problems.reject_field("transport_api_version", "V2 is no longer spoken: V3 is");
    }
}
