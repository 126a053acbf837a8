//! `ApiConfigSource`: a discovery server and how it is spoken to.

use std::cmp::Ordering;
use std::time::Duration;

use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::api_config_source::ApiType;
use outrigger_proto::envoy::config::core::v3::grpc_service::TargetSpecifier;

use crate::config::Problems;
use crate::config::bootstrap::{DiscoveryService, RequestRate, Variant};

use super::common::{enumeration, number, unsupported};
use super::google_grpc::{Google, Target};
use super::{config_source, google_grpc, grpc_service};

/// Upper bounds of the first and of any pause before a new stream, where nothing is set.
const DEFAULT_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Requests that may go out at once, where `rate_limit_settings` does not say.
const DEFAULT_BURST: u32 = 100;

/// Requests a second that may go out, where `rate_limit_settings` does not say.
const DEFAULT_FILL_RATE: f64 = 10.0;

/// The longest time in which a token comes: Envoy raises lower rates to this one.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

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
    unsupported!(problems; cluster_names, config_validators);
    let rate_limit = rate_limit_settings
        .and_then(|proto| problems.field("rate_limit_settings", |problems| rate(problems, proto)));
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
    config_source::transport_version(problems, transport_api_version);
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
    let Server { target, initial_metadata, backoff } =
        problems.element("grpc_services", 0, |problems| server(problems, service))?;
    let Target { cluster, channel, authority } = target;
    Some(DiscoveryService {
        cluster,
        channel,
        authority,
        variant: variant?,
        set_node_on_first_message_only,
        initial_metadata,
        backoff,
        rate_limit,
    })
}

struct Server {
    target: Target,
    initial_metadata: Vec<(Box<str>, Box<str>)>,
    backoff: (Duration, Duration),
}

fn server(problems: &mut Problems, proto: core::GrpcService) -> Option<Server> {
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
    let mut initial_metadata = grpc_service::metadata(problems, initial_metadata);
    let target = match target_specifier {
        Some(TargetSpecifier::GoogleGrpc(proto)) => {
            let Google { target, metadata } =
                problems.field("google_grpc", |problems| google_grpc::convert(problems, proto))?;
            initial_metadata.extend(metadata);
            target
        }
        other => {
            let (cluster, authority) = grpc_service::target(problems, other)?;
            Target { cluster: cluster.into(), channel: None, authority }
        }
    };
    Some(Server { target, initial_metadata, backoff })
}

/// `rate_limit_settings`: there is a limit as soon as the message is there.
fn rate(problems: &mut Problems, proto: core::RateLimitSettings) -> Option<RequestRate> {
    let core::RateLimitSettings { max_tokens, fill_rate } = proto;
    let burst = number(max_tokens).unwrap_or(DEFAULT_BURST);
    if burst == 0 {
        problems.reject_field("max_tokens", "0: no request would ever be sent");
    }
    let rate = fill_rate.map_or(DEFAULT_FILL_RATE, |rate| rate.value);
    // What is not a number is not more than 0 either.
    if rate.partial_cmp(&0.0) != Some(Ordering::Greater) {
        problems.reject_field("fill_rate", format!("{rate} is out of range: more than 0"));
        return None;
    }
    let interval = (1.0 / rate).clamp(1e-9, YEAR.as_secs_f64());
    Some(RequestRate { burst, interval: Duration::from_secs_f64(interval) })
}
