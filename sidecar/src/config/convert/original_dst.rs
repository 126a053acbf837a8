//! Clusters of type ORIGINAL_DST.

use std::time::Duration;

use http::HeaderName;
use outrigger_proto::envoy::config::cluster::v3::cluster::{LbConfig, OriginalDstLbConfig};
use outrigger_proto::google::protobuf::Duration as DurationProto;

use crate::config::Problems;
use crate::config::cluster::OriginalDst;

use super::common::{header_name, number_in, positive_duration, unsupported};

/// The header that may name the destination where the configuration does not say which.
const DEFAULT_HEADER: HeaderName = HeaderName::from_static("x-envoy-original-dst-host");
/// How often endpoints that are not used are given up, where nothing is set.
const DEFAULT_CLEANUP: Duration = Duration::from_secs(5);

/// What belongs to the type in a cluster's fields.
pub(super) struct Fields {
    pub(super) lb_config: Option<LbConfig>,
    pub(super) cleanup_interval: Option<DurationProto>,
    pub(super) has_load_assignment: bool,
}

/// Where such a cluster finds its endpoints.
pub(super) fn convert(problems: &mut Problems, fields: Fields) -> OriginalDst {
    let Fields { lb_config, cleanup_interval, has_load_assignment } = fields;
    if has_load_assignment {
        problems.reject_field("load_assignment", "set on a cluster of type ORIGINAL_DST");
    }
    let config = match lb_config {
        Some(LbConfig::OriginalDstLbConfig(config)) => config,
        // Settings of another policy say nothing, in Envoy too.
        _ => OriginalDstLbConfig::default(),
    };
    let cleanup_interval = positive_duration(problems, "cleanup_interval", cleanup_interval)
        .unwrap_or(DEFAULT_CLEANUP);
    problems.field("original_dst_lb_config", |problems| {
        let OriginalDstLbConfig {
            use_http_header,
            http_header_name,
            upstream_port_override,
            metadata_key,
        } = config;
        unsupported!(problems; metadata_key);
        if !use_http_header && !http_header_name.is_empty() {
            problems.reject_field("http_header_name", "set without use_http_header");
        }
        let header = match http_header_name.as_str() {
            _ if !use_http_header => None,
            "" => Some(DEFAULT_HEADER),
            name => header_name(problems, "http_header_name", name),
        };
        let port =
            number_in(problems, "upstream_port_override", upstream_port_override, 0..=65_535);
        OriginalDst {
            header,
            port: port.and_then(|port| u16::try_from(port).ok()),
            cleanup_interval,
        }
    })
}
