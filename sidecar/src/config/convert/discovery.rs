//! `ApiConfigSource`: a discovery server and how it is spoken to.

use std::time::Duration;

use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::api_config_source::ApiType;

use crate::config::Problems;
use crate::config::bootstrap::{DiscoveryService, Variant};

use super::common::{enumeration, unsupported};
use super::{config_source, grpc_service};

/// Upper bounds of the first and of any pause before a new stream, where nothing is set.
const DEFAULT_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A discovery service over gRPC.
pub(super) fn convert(
    problems: &mut Problems,
    proto: core::ApiConfigSource,
) -> Option<DiscoveryService> {
    let core::ApiConfigSource {
        api_type,
        transport_api_version,
        cluster_names,
        grpc_services,
        refresh_delay: _,   // of REST, which is refused
        request_timeout: _, // of REST, which is refused
        rate_limit_settings,
        set_node_on_first_message_only,
        config_validators,
    } = proto;
    unsupported!(problems; cluster_names, rate_limit_settings, config_validators);
    let variant = match enumeration(problems, "api_type", api_type) {
        Some(ApiType::Grpc) => Some(Variant::StateOfTheWorld),
        Some(ApiType::DeltaGrpc) => Some(Variant::Delta),
        Some(other) => {
            problems.reject_field(
                "api_type",
                format!(
                    "{} is not supported by this version of Outrigger: GRPC, DELTA_GRPC",
                    other.as_str_name()
                ),
            );
            None
        }
        None => None,
    };
    config_source::version(problems, "transport_api_version", transport_api_version);
    let mut services = grpc_services.into_iter().enumerate();
    let Some((_, service)) = services.next() else {
        problems.reject_field("grpc_services", "must have one entry");
        return None;
    };
    for (index, _) in services {
        problems.element("grpc_services", index, |problems| {
            problems.reject("a second server is not supported by this version of Outrigger");
        });
    }
    let Target { cluster, authority, initial_metadata, backoff } =
        problems.element("grpc_services", 0, |problems| server(problems, service))?;
    Some(DiscoveryService {
        cluster: cluster.into(),
        authority,
        variant: variant?,
        set_node_on_first_message_only,
        initial_metadata,
        backoff,
    })
}

struct Target {
    cluster: String,
    authority: Option<Box<str>>,
    initial_metadata: Vec<(Box<str>, Box<str>)>,
    backoff: (Duration, Duration),
}

fn server(problems: &mut Problems, proto: core::GrpcService) -> Option<Target> {
    let core::GrpcService {
        timeout: _, // of single calls; a discovery stream is meant to last
        initial_metadata,
        retry_policy,
        target_specifier,
    } = proto;
    let backoff = retry_policy
        .and_then(|proto| {
            problems.field("retry_policy", |problems| grpc_service::backoff(problems, proto))
        })
        .unwrap_or(DEFAULT_BACKOFF);
    let initial_metadata = grpc_service::metadata(problems, initial_metadata);
    let (cluster, authority) = grpc_service::target(problems, target_specifier)?;
    Some(Target { cluster, authority, initial_metadata, backoff })
}
