//! Clusters.

use crate::identity::workload_id;
use crate::model::service::{
    CircuitBreaker, LoadBalancer, LoadBalancerPolicy, OutlierDetection, Probe, Protocol, Service,
    ServicePort,
};
use crate::registry::AppPort;
use crate::translate::proto::{ads, boolean, duration, transport_socket, uint32};
use crate::translate::{endpoint, names, tls};
use outrigger_proto::any;
use outrigger_proto::envoy::config::cluster::v3 as proto;
use outrigger_proto::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use outrigger_proto::envoy::config::cluster::v3::circuit_breakers::thresholds::RetryBudget;
use outrigger_proto::envoy::config::cluster::v3::cluster::common_lb_config::LocalityConfigSpecifier;
use outrigger_proto::envoy::config::cluster::v3::cluster::{
    self, ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbConfig, LbPolicy,
    TransportSocketMatch,
};
use outrigger_proto::envoy::config::cluster::v3::{
    Cluster, LoadBalancingPolicy, load_balancing_policy,
};
use outrigger_proto::envoy::config::core::v3 as proto_core;
use outrigger_proto::envoy::config::core::v3::health_check::{
    GrpcHealthCheck, HealthChecker, HttpHealthCheck, TcpHealthCheck,
};
use outrigger_proto::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonHttpOptions,
    TypedExtensionConfig,
};
use outrigger_proto::envoy::extensions::load_balancing_policies::common::v3 as common;
use outrigger_proto::envoy::extensions::load_balancing_policies::common::v3::locality_lb_config::LocalityWeightedLbConfig;
use outrigger_proto::envoy::extensions::load_balancing_policies::common::v3::{
    LocalityLbConfig, locality_lb_config,
};
use outrigger_proto::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use outrigger_proto::envoy::extensions::load_balancing_policies::maglev::v3::Maglev;
use outrigger_proto::envoy::extensions::load_balancing_policies::random::v3::Random;
use outrigger_proto::envoy::extensions::load_balancing_policies::ring_hash::v3::RingHash;
use outrigger_proto::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use outrigger_proto::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use outrigger_proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use outrigger_proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use outrigger_proto::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use outrigger_proto::envoy::r#type::v3::{CodecClientType, Percent};
use outrigger_proto::google::protobuf::value::Kind;
use outrigger_proto::google::protobuf::{Any, Struct, Value};
use outrigger_proto::json::TypedStruct;
use outrigger_proto::load_balancing::v1::PeakEwma;
use prost::{Message, Name};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// What the instances of a service are, as far as the model says. A service whose instances are observed never changes
/// kind because one of them comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instances {
    /// Sidecars: mTLS, HTTP/2 between them.
    Sidecars,
    /// There are Endpoint objects, which are plaintext; sidecars may be among them, told apart by metadata.
    Mixed,
}

/// What a sidecar uses to reach a service port, or a subset of it.
pub(crate) fn mesh(
    trust_domain: &str,
    service: &Service,
    port: &ServicePort,
    subset: Option<&str>,
    instances: Instances,
) -> Cluster {
    let mut cluster = eds(service, port, subset);
    balance(&mut cluster, &service.load_balancer);
    let http = port.protocol.is_http();
    let http2 = match instances {
        Instances::Sidecars => true,
        Instances::Mixed => port.protocol.is_http2(),
    };
    cluster.health_checks = health_checks(service, http2);
    if http {
        set_http(&mut cluster, http2, service.timeouts.idle);
    }
    let alpn: &[&str] = match (http, http2) {
        (true, true) => &["h2"],
        (true, false) => &["http/1.1"],
        (false, _) => &[],
    };
    let id = workload_id(trust_domain, &service.name);
    let context = tls::upstream(&id, names::server_name(port.port, &service.name), alpn);
    let mutual = transport_socket("envoy.transport_sockets.tls", &context);
    match instances {
        Instances::Sidecars => cluster.transport_socket = Some(mutual),
        Instances::Mixed => {
            let plain = transport_socket("envoy.transport_sockets.raw_buffer", &RawBuffer {});
            cluster.transport_socket_matches = vec![
                TransportSocketMatch {
                    name: "mtls".to_owned(),
                    r#match: Some(endpoint::sidecar_metadata()),
                    transport_socket: Some(mutual),
                },
                TransportSocketMatch {
                    name: "plaintext".to_owned(),
                    r#match: Some(Struct::default()),
                    transport_socket: Some(plain),
                },
            ];
        }
    }
    cluster
}

/// What a client without a sidecar uses.
pub(crate) fn foreign(service: &Service, port: &ServicePort, subset: Option<&str>) -> Cluster {
    let mut cluster = eds(service, port, subset);
    if port.protocol.is_http() {
        set_http(&mut cluster, port.protocol.is_http2(), service.timeouts.idle);
    }
    cluster.health_checks = health_checks(service, port.protocol.is_http2());
    cluster.load_balancing_policy = Some(policies(&service.load_balancer));
    cluster
}

/// The application behind a sidecar.
pub(crate) fn inbound(service: &str, port: &AppPort, protocol: Protocol) -> Cluster {
    let name = names::inbound(port.port, service);
    let address = SocketAddr::new(port.address, port.port);
    let mut cluster = Cluster {
        load_assignment: Some(endpoint::single(&name, address)),
        name,
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        // What reaches the application is limited by its callers.
        circuit_breakers: Some(breakers(Thresholds {
            max_connections: uint32(u32::MAX),
            max_pending_requests: uint32(u32::MAX),
            max_requests: uint32(u32::MAX),
            max_retries: uint32(u32::MAX),
            ..Default::default()
        })),
        ..Default::default()
    };
    if protocol.is_http() {
        set_http(&mut cluster, protocol.is_http2(), None);
    }
    cluster
}

fn eds(service: &Service, port: &ServicePort, subset: Option<&str>) -> Cluster {
    Cluster {
        name: names::outbound_cluster(port.port, subset, &service.name),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: ads(), ..Default::default() }),
        connect_timeout: service.timeouts.connect.and_then(duration),
        circuit_breakers: service.circuit_breaker.as_ref().map(circuit_breakers),
        outlier_detection: service.outlier_detection.as_ref().map(outlier_detection),
        ..Default::default()
    }
}

fn set_http(cluster: &mut Cluster, http2: bool, idle: Option<Duration>) {
    let protocol = if http2 {
        let options = Http2ProtocolOptions { allow_connect: true, ..Default::default() };
        ProtocolConfig::Http2ProtocolOptions(options)
    } else {
        ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())
    };
    let options = HttpProtocolOptions {
        common_http_protocol_options: idle
            .map(|idle| CommonHttpOptions { idle_timeout: duration(idle), ..Default::default() }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig { protocol_config: Some(protocol) },
        )),
        ..Default::default()
    };
    cluster.typed_extension_protocol_options =
        HashMap::from([(HTTP_OPTIONS.to_owned(), any::pack(&options))]);
}

fn circuit_breakers(limits: &CircuitBreaker) -> proto::CircuitBreakers {
    let CircuitBreaker {
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget_percent,
    } = *limits;
    // Envoy does not look at max_retries beside a budget: there it is the budget's lower bound.
    let retry_budget = retry_budget_percent.map(|percent| RetryBudget {
        budget_percent: Some(Percent { value: percent.into() }),
        min_retry_concurrency: max_retries.and_then(uint32),
        ..Default::default()
    });
    breakers(Thresholds {
        max_connections: max_connections.and_then(uint32),
        max_pending_requests: max_pending_requests.and_then(uint32),
        max_requests: max_requests.and_then(uint32),
        max_retries: max_retries.and_then(uint32),
        retry_budget,
        ..Default::default()
    })
}

fn breakers(thresholds: Thresholds) -> proto::CircuitBreakers {
    proto::CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }
}

/// Says for each detection whether it ejects: Envoy's defaults would add some that nobody asked for.
fn outlier_detection(it: &OutlierDetection) -> proto::OutlierDetection {
    let OutlierDetection {
        consecutive_5xx,
        consecutive_gateway_failure,
        interval,
        base_ejection_time,
        max_ejection_percent,
        always_eject_one,
    } = *it;
    let enforcing = |detection: Option<u32>| uint32(if detection.is_some() { 100 } else { 0 });
    proto::OutlierDetection {
        consecutive_5xx: consecutive_5xx.and_then(uint32),
        enforcing_consecutive_5xx: enforcing(consecutive_5xx),
        consecutive_gateway_failure: consecutive_gateway_failure.and_then(uint32),
        enforcing_consecutive_gateway_failure: enforcing(consecutive_gateway_failure),
        enforcing_success_rate: uint32(0),
        interval: duration(interval),
        base_ejection_time: duration(base_ejection_time),
        max_ejection_percent: uint32(max_ejection_percent.into()),
        always_eject_one_host: boolean(always_eject_one),
        ..Default::default()
    }
}

fn health_checks(service: &Service, http2: bool) -> Vec<proto_core::HealthCheck> {
    let Some(it) = &service.health_check else { return Vec::new() };
    let checker = match &it.probe {
        Probe::Http { path } => HealthChecker::HttpHealthCheck(HttpHealthCheck {
            host: service.name.clone(),
            path: path.clone(),
            codec_client_type: (if http2 {
                CodecClientType::Http2
            } else {
                CodecClientType::Http1
            })
            .into(),
            ..Default::default()
        }),
        Probe::Grpc { service: name } => HealthChecker::GrpcHealthCheck(GrpcHealthCheck {
            service_name: name.clone(),
            authority: service.name.clone(),
            ..Default::default()
        }),
        Probe::Tcp {} => HealthChecker::TcpHealthCheck(TcpHealthCheck::default()),
    };
    vec![proto_core::HealthCheck {
        timeout: duration(it.timeout),
        interval: duration(it.interval),
        unhealthy_threshold: uint32(it.unhealthy_threshold),
        healthy_threshold: uint32(it.healthy_threshold),
        health_checker: Some(checker),
        ..Default::default()
    }]
}

/// By the fields that a cluster has for it.
fn balance(cluster: &mut Cluster, it: &LoadBalancer) {
    let LoadBalancer { policy, hash_on: _, slow_start, locality_weighted } = it;
    if *policy == LoadBalancerPolicy::PeakEwma {
        cluster.load_balancing_policy = Some(policies(it));
        return;
    }
    let slow = slow_start.map(|window| cluster::SlowStartConfig {
        slow_start_window: duration(window),
        ..Default::default()
    });
    cluster.lb_policy = match policy {
        LoadBalancerPolicy::RoundRobin => LbPolicy::RoundRobin,
        // Beside the list it says nothing.
        LoadBalancerPolicy::LeastRequest | LoadBalancerPolicy::PeakEwma => LbPolicy::LeastRequest,
        LoadBalancerPolicy::Random => LbPolicy::Random,
        LoadBalancerPolicy::RingHash => LbPolicy::RingHash,
        LoadBalancerPolicy::Maglev => LbPolicy::Maglev,
    }
    .into();
    cluster.lb_config = slow.and_then(|slow| match policy {
        LoadBalancerPolicy::RoundRobin => {
            Some(LbConfig::RoundRobinLbConfig(cluster::RoundRobinLbConfig {
                slow_start_config: Some(slow),
            }))
        }
        LoadBalancerPolicy::LeastRequest => {
            Some(LbConfig::LeastRequestLbConfig(cluster::LeastRequestLbConfig {
                slow_start_config: Some(slow),
                ..Default::default()
            }))
        }
        _ => None,
    });
    if *locality_weighted {
        cluster.common_lb_config = Some(cluster::CommonLbConfig {
            locality_config_specifier: Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(
                Default::default(),
            )),
            ..Default::default()
        });
    }
}

/// A list of which each client takes the first that it knows: Envoy the first, gRPC the one within `wrr_locality`.
fn policies(it: &LoadBalancer) -> LoadBalancingPolicy {
    let LoadBalancer { policy, hash_on: _, slow_start, locality_weighted } = it;
    let slow_start_config = slow_start.map(|window| common::SlowStartConfig {
        slow_start_window: duration(window),
        ..Default::default()
    });
    let weighted = locality_weighted.then(LocalityWeightedLbConfig::default);
    let locality_lb_config = weighted.map(|weighted| LocalityLbConfig {
        locality_config_specifier: Some(
            locality_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(weighted),
        ),
    });
    let round_robin =
        || extension("envoy.load_balancing_policies.round_robin", &RoundRobin::default());
    let by_locality = extension(
        "envoy.load_balancing_policies.wrr_locality",
        &WrrLocality {
            endpoint_picking_policy: Some(LoadBalancingPolicy { policies: vec![round_robin()] }),
        },
    );
    let least_request = |slow_start_config, locality_lb_config| {
        extension(
            "envoy.load_balancing_policies.least_request",
            &LeastRequest { slow_start_config, locality_lb_config, ..Default::default() },
        )
    };
    let peak_ewma = (*policy == LoadBalancerPolicy::PeakEwma).then(|| peak_ewma(it));
    let first = match policy {
        LoadBalancerPolicy::RoundRobin => extension(
            "envoy.load_balancing_policies.round_robin",
            &RoundRobin { slow_start_config, locality_lb_config },
        ),
        LoadBalancerPolicy::LeastRequest | LoadBalancerPolicy::PeakEwma => {
            least_request(slow_start_config, locality_lb_config)
        }
        LoadBalancerPolicy::Random => {
            extension("envoy.load_balancing_policies.random", &Random { locality_lb_config })
        }
        LoadBalancerPolicy::RingHash => extension(
            "envoy.load_balancing_policies.ring_hash",
            &RingHash { locality_weighted_lb_config: weighted, ..Default::default() },
        ),
        LoadBalancerPolicy::Maglev => extension(
            "envoy.load_balancing_policies.maglev",
            &Maglev { locality_weighted_lb_config: weighted, ..Default::default() },
        ),
    };
    let policies = peak_ewma.into_iter().chain([first, by_locality]).collect();
    LoadBalancingPolicy { policies }
}

/// As a `TypedStruct`: a client that does not know it can pass over it, and show it all the same.
fn peak_ewma(it: &LoadBalancer) -> load_balancing_policy::Policy {
    let mut fields = HashMap::new();
    if let Some(window) = it.slow_start {
        let window = Kind::StringValue(format!("{}s", window.as_secs_f64()));
        fields.insert("slow_start_window".to_owned(), Value { kind: Some(window) });
    }
    if it.locality_weighted {
        fields.insert("locality_weighted".to_owned(), Value { kind: Some(Kind::BoolValue(true)) });
    }
    let config =
        TypedStruct { type_url: any::type_url::<PeakEwma>(), value: Some(Struct { fields }) };
    load_balancing_policy::Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            name: "outrigger.load_balancing_policies.peak_ewma".to_owned(),
            typed_config: Some(Any {
                type_url: "type.googleapis.com/xds.type.v3.TypedStruct".to_owned(),
                value: config.encode_to_vec(),
            }),
        }),
    }
}

fn extension<M: Name>(name: &str, config: &M) -> load_balancing_policy::Policy {
    load_balancing_policy::Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            name: name.to_owned(),
            typed_config: Some(any::pack(config)),
        }),
    }
}
