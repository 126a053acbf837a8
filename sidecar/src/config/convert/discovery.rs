//! `ApiConfigSource`: a discovery server and how it is spoken to.

use std::time::Duration;

use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::api_config_source::ApiType;
use outrigger_proto::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};

use crate::config::Problems;
use crate::config::bootstrap::{DiscoveryService, Variant};

use super::common::{
    enumeration, header_name, header_value, optional, positive_duration, required, text,
    unsupported,
};
use super::config_source;

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
        problems.element("grpc_services", 0, |problems| grpc_service(problems, service))?;
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

fn grpc_service(problems: &mut Problems, proto: core::GrpcService) -> Option<Target> {
    let core::GrpcService {
        timeout: _, // of single calls; a discovery stream is meant to last
        initial_metadata,
        retry_policy,
        target_specifier,
    } = proto;
    let backoff = retry_policy
        .and_then(|proto| problems.field("retry_policy", |problems| backoff(problems, proto)))
        .unwrap_or(DEFAULT_BACKOFF);
    let initial_metadata = initial_metadata
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element("initial_metadata", index, |problems| {
                let core::HeaderValue { key, value, raw_value } = proto;
                unsupported!(problems; raw_value);
                header_name(problems, "key", &key)?;
                header_value(problems, "value", value.as_bytes())?;
                Some((key.to_ascii_lowercase().into(), value.into()))
            })
        })
        .collect();
    let target = match target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(target)) => target,
        Some(TargetSpecifier::GoogleGrpc(_)) => {
            problems.reject_field(
                "google_grpc",
                "not supported by this version of Outrigger: use envoy_grpc with a cluster",
            );
            return None;
        }
        None => {
            problems.reject_field("envoy_grpc", "required");
            return None;
        }
    };
    let (cluster, authority) = problems.field("envoy_grpc", |problems| {
        let EnvoyGrpc {
            cluster_name,
            authority,
            retry_policy,
            max_receive_message_length,
            skip_envoy_headers: _, // there are none on discovery streams
        } = target;
        unsupported!(problems; retry_policy, max_receive_message_length);
        header_value(problems, "authority", authority.as_bytes());
        (text(problems, "cluster_name", cluster_name), optional(authority))
    });
    Some(Target { cluster, authority, initial_metadata, backoff })
}

fn backoff(problems: &mut Problems, proto: core::RetryPolicy) -> Option<(Duration, Duration)> {
    let core::RetryPolicy {
        retry_back_off,
        num_retries: _, // a discovery stream is tried again for ever
        retry_on,
        retry_priority,
        retry_host_predicate,
        host_selection_retry_max_attempts: _, // of retry_host_predicate, which is refused
    } = proto;
    unsupported!(problems; retry_on, retry_priority, retry_host_predicate);
    let core::BackoffStrategy { base_interval, max_interval } = retry_back_off?;
    problems.field("retry_back_off", |problems| {
        let base = required(problems, "base_interval", base_interval)?;
        let base = positive_duration(problems, "base_interval", Some(base))?;
        let max = positive_duration(problems, "max_interval", max_interval)
            .unwrap_or_else(|| base.saturating_mul(10));
        if max < base {
            problems.reject_field("max_interval", "must not be less than base_interval");
        }
        Some((base, max))
    })
}
