//! Clusters.

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::any;
use outrigger_proto::envoy::config::cluster::v3 as proto;
use outrigger_proto::envoy::config::cluster::v3::cluster::{
    self as parts, ClusterDiscoveryType, DiscoveryType,
};
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_proto::envoy::extensions::clusters::aggregate::v3 as aggregate;
use outrigger_proto::envoy::extensions::clusters::dns::v3::DnsCluster;
use outrigger_proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;

use crate::config::Problems;
use crate::config::cluster::{
    Cluster, Discovery, HappyEyeballs, HealthRules, TcpKeepalive, TransportSocketMatch,
    UpstreamProtocol,
};
use crate::config::endpoint::{AssignmentPolicy, LoadAssignment, MetadataMatch};
use crate::config::health_check::Check;
use crate::config::load_balancer::LoadBalancer;
use crate::config::proxy_protocol::UpstreamProxyProtocol;
use crate::config::tls::UpstreamTls;

use super::common::{
    boolean, enumeration, fingerprint, json_object, number, number_in, optional, positive_duration,
    required, text, unknown_type, unpack, unsupported,
};
use super::common_lb::{self, Common};
use super::endpoint::{self, Hosts};
use super::load_balancer::{self, Chosen};
use super::upstream_http::{self, Legacy};
use super::{
    bind_config, buffer_limit, circuit_breakers, config_source, dns, extensions, health_check,
    metadata, original_dst, outlier_detection, proxy_protocol, subset, tls,
};

/// A connection has to be there within this time where nothing is set.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A cluster.
#[allow(clippy::too_many_lines)] // one field after the other, as in the proto
pub(super) fn convert(problems: &mut Problems, proto: proto::Cluster) -> Option<Cluster> {
    let proto::Cluster {
        transport_socket_matches,
        transport_socket_matcher,
        name,
        alt_stat_name,
        stats_matcher: _, // only leaves statistics out
        eds_cluster_config,
        connect_timeout,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        lb_policy,
        load_assignment,
        health_checks,
        max_requests_per_connection,
        circuit_breakers,
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        typed_extension_protocol_options,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config: _, // which resolver library; there is one here
        wait_for_warm_on_init,
        outlier_detection,
        cleanup_interval,
        upstream_bind_config,
        lb_subset_config,
        common_lb_config,
        transport_socket,
        metadata,
        protocol_selection,
        upstream_connection_options,
        close_connections_on_host_health_failure,
        ignore_health_on_host_removal,
        filters,
        load_balancing_policy,
        lrs_server: _, // of gRPC's clients; Envoy reports by load_stats_config alone
        lrs_report_endpoint_metrics,
        track_timeout_budgets: _, // only adds statistics
        upstream_config,
        track_cluster_stats: _, // only adds statistics
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
        cluster_discovery_type,
        lb_config,
    } = proto;
    unsupported!(problems;
        transport_socket_matcher, per_connection_buffer_high_watermark_timeout,
        dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config,
        lrs_report_endpoint_metrics,
        upstream_config, preconnect_policy, connection_pool_per_downstream_connection,
        queuing_policies);
    for (index, filter) in filters.into_iter().enumerate() {
        problems.element("filters", index, |problems| upstream_filter(problems, filter));
    }
    if !boolean(wait_for_warm_on_init, true) {
        problems.unsupported("wait_for_warm_on_init", true);
    }
    let name = text(problems, "name", name);
    let dns = dns::Legacy {
        refresh_rate: dns_refresh_rate,
        failure_refresh_rate: dns_failure_refresh_rate,
        respect_ttl: respect_dns_ttl,
        jitter: dns_jitter,
        family: dns_lookup_family,
    };
    let original_dst = original_dst::Fields {
        lb_config: lb_config.clone(),
        cleanup_interval,
        has_load_assignment: load_assignment.is_some(),
    };
    let discovery = discovery(
        problems,
        &name,
        cluster_discovery_type,
        load_assignment,
        eds_cluster_config,
        dns,
        original_dst,
    );
    let Common {
        healthy_panic_threshold,
        localities,
        consistent_hashing,
        ignore_new_until_checked,
        close_on_change,
    } = common_lb::convert(problems, common_lb_config);
    let use_hostname = consistent_hashing.use_hostname;
    if load_balancing_policy.is_some() && lb_subset_config.is_some() {
        problems.reject_field(
            "lb_subset_config",
            "does not go with load_balancing_policy: use its policy envoy.load_balancing_policies.subset",
        );
    }
    let subsets = problems
        .field("lb_subset_config", |problems| subset::convert_legacy(problems, lb_subset_config));
    let chosen = match load_balancing_policy {
        // The list counts before the enumeration, as in Envoy, and so do its settings.
        Some(list) => problems
            .field("load_balancing_policy", |problems| load_balancer::first_known(problems, list)),
        None => load_balancer::of_enumeration(
            problems,
            lb_policy,
            lb_config,
            localities,
            consistent_hashing,
        ),
    };
    let provides = matches!(discovery, Some(Discovery::Aggregate(_) | Discovery::OriginalDst(_)));
    if let (Some(discovery), Some(chosen)) = (&discovery, &chosen) {
        let provided = matches!(chosen.load_balancer, LoadBalancer::ClusterProvided);
        if provided && !provides {
            let reason = "CLUSTER_PROVIDED is for clusters of type ORIGINAL_DST and for aggregates";
            problems.reject_field("lb_policy", reason);
        } else if provides && !provided {
            let kind = discovery.kind();
            problems
                .reject_field("lb_policy", format!("must be CLUSTER_PROVIDED with type {kind}"));
        }
    }
    if use_hostname && !matches!(discovery, None | Some(Discovery::Dns(_))) {
        problems.reject_field(
            "common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing",
            "set on a cluster that is not of type STRICT_DNS or LOGICAL_DNS",
        );
    }
    let connect_timeout = positive_duration(problems, "connect_timeout", connect_timeout)
        .unwrap_or(DEFAULT_CONNECT_TIMEOUT);
    let transport = transport_socket.map(|proto| {
        problems.field("transport_socket", |problems| upstream_transport(problems, proto))
    });
    let Transport { tls: transport, proxy_protocol } = transport.unwrap_or_default();
    let transport_socket_matches: Vec<TransportSocketMatch> = transport_socket_matches
        .into_iter()
        .enumerate()
        .map(|(index, proto)| {
            problems.element("transport_socket_matches", index, |problems| {
                transport_socket_match(problems, proto)
            })
        })
        .collect();
    let http = upstream_http::convert(
        problems,
        typed_extension_protocol_options,
        Legacy {
            upstream_http_protocol_options,
            common_http_protocol_options,
            http_protocol_options,
            http2_protocol_options,
            protocol_selection,
            max_requests_per_connection,
        },
    );
    let negotiates = transport.is_some()
        && transport_socket_matches.iter().all(|entry| entry.transport.is_some());
    if http.protocol == UpstreamProtocol::Auto && !negotiates {
        problems.reject_field(
            "transport_socket",
            "auto_config chooses the protocol by ALPN: every transport socket must be TLS",
        );
    }
    let breakers = circuit_breakers::convert(problems, circuit_breakers);
    let outlier_detection = outlier_detection.map(|proto| {
        problems.field("outlier_detection", |problems| outlier_detection::convert(problems, proto))
    });
    let health_check = health_check::convert(problems, health_checks).map(Arc::new);
    let asks_grpc =
        matches!(health_check.as_deref(), Some(it) if matches!(it.check, Check::Grpc(_)));
    if asks_grpc && http.protocol == UpstreamProtocol::Http1 {
        problems.reject_field(
            "health_checks[0].grpc_health_check",
            "needs a cluster that speaks HTTP/2: set http2_protocol_options",
        );
    }
    let connections = upstream_connection_options.map(|proto| {
        problems
            .field("upstream_connection_options", |problems| connection_options(problems, proto))
    });
    let (tcp_keepalive, happy_eyeballs) = connections.unwrap_or_default();
    let bind = upstream_bind_config.and_then(|proto| {
        problems.field("upstream_bind_config", |problems| bind_config::convert(problems, proto))
    });
    let Chosen { mut load_balancer, localities, slow_start, subsets: of_policy, override_host } =
        chosen?;
    if let Some(hashing) = load_balancer.hashing_mut()
        && hashing.hash_policy.is_empty()
    {
        hashing.hash_policy = http.hash_policy;
    }
    let mut cluster = Cluster {
        name: name.into(),
        alt_stat_name: optional(alt_stat_name),
        discovery: discovery?,
        load_balancer,
        override_host,
        healthy_panic_threshold,
        fail_traffic_on_panic: localities.fail_traffic_on_panic,
        slow_start,
        locality_weighted: localities.weighted,
        zone_aware: localities.zone_aware,
        subsets: of_policy.or(subsets),
        connect_timeout,
        per_connection_buffer_limit: buffer_limit(per_connection_buffer_limit_bytes),
        transport,
        proxy_protocol,
        transport_socket_matches,
        protocol: http.protocol,
        http1: http.http1,
        http2: http.http2,
        idle_timeout: http.common.idle_timeout,
        max_requests_per_connection: http.common.max_requests_per_connection,
        max_connection_duration: http.common.max_connection_duration,
        max_response_headers_count: http.common.max_headers_count,
        max_response_headers_bytes: http.common.max_response_headers_bytes,
        circuit_breakers: breakers,
        outlier_detection,
        health_check,
        health: HealthRules {
            ignore_on_removal: ignore_health_on_host_removal,
            ignore_new_until_checked,
            close_on_failure: close_connections_on_host_health_failure,
            close_on_change,
        },
        tcp_keepalive,
        happy_eyeballs,
        bind: bind.map(Arc::new),
        auto_sni: http.auto_sni,
        metadata: Arc::new(metadata.map(metadata::of).unwrap_or_default()),
        fingerprint: 0,
    };
    cluster.fingerprint = fingerprint(&cluster);
    Some(cluster)
}

/// A network filter of connections to endpoints. There is none, but some can be left out.
fn upstream_filter(problems: &mut Problems, proto: proto::Filter) {
    let proto::Filter { name: _, typed_config, config_discovery } = proto;
    unsupported!(problems; config_discovery);
    let Some(config) = required(problems, "typed_config", typed_config) else { return };
    if !extensions::is_harmless_network(&config) {
        problems.field("typed_config", |problems| unknown_type(problems, &config, &[]));
    }
}

fn discovery(
    problems: &mut Problems,
    name: &str,
    kind: Option<ClusterDiscoveryType>,
    assignment: Option<ClusterLoadAssignment>,
    eds: Option<parts::EdsClusterConfig>,
    dns: dns::Legacy,
    original_dst: original_dst::Fields,
) -> Option<Discovery> {
    let kind = match kind {
        // Unset, it is the first of the enumeration.
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => enumeration(problems, "type", kind)?,
        Some(ClusterDiscoveryType::ClusterType(kind)) => {
            if eds.is_some() {
                problems
                    .reject_field("eds_cluster_config", "set on a cluster that is not of type EDS");
            }
            return extension(problems, kind, assignment);
        }
    };
    if kind != DiscoveryType::Eds && eds.is_some() {
        problems.reject_field("eds_cluster_config", "set on a cluster that is not of type EDS");
    }
    match kind {
        DiscoveryType::Static => {
            let assignment = match assignment {
                Some(_) => inline(problems, assignment, Hosts::Addresses)?,
                // Without endpoints it answers every request with 503, which is what black holes are for.
                None => Arc::new(LoadAssignment {
                    cluster_name: name.into(),
                    localities: Vec::new(),
                    policy: AssignmentPolicy::default(),
                    drop_category: None,
                }),
            };
            Some(Discovery::Static(assignment))
        }
        DiscoveryType::StrictDns => {
            dns::legacy(problems, assignment, dns, false).map(Discovery::Dns)
        }
        DiscoveryType::LogicalDns => {
            dns::legacy(problems, assignment, dns, true).map(Discovery::Dns)
        }
        DiscoveryType::Eds => {
            if assignment.is_some() {
                problems.reject_field("load_assignment", "set on a cluster of type EDS");
            }
            let config = required(problems, "eds_cluster_config", eds)?;
            problems.field("eds_cluster_config", |problems| eds_config(problems, name, config))
        }
        DiscoveryType::OriginalDst => {
            Some(Discovery::OriginalDst(original_dst::convert(problems, original_dst)))
        }
    }
}

/// The field `cluster_type`.
fn extension(
    problems: &mut Problems,
    kind: parts::CustomClusterType,
    assignment: Option<ClusterLoadAssignment>,
) -> Option<Discovery> {
    let parts::CustomClusterType { name, typed_config } = kind;
    problems.field("cluster_type", |problems| text(problems, "name", name.clone()));
    match typed_config {
        Some(config) if any::holds::<DnsCluster>(&config) => {
            let config = problems.field("cluster_type", |problems| {
                problems.field("typed_config", |problems| unpack(problems, &config))
            })?;
            dns::typed(problems, assignment, config).map(Discovery::Dns)
        }
        Some(config) if any::holds::<aggregate::ClusterConfig>(&config) => {
            if assignment.is_some() {
                problems.reject_field(
                    "load_assignment",
                    "set on an aggregate, whose endpoints are those of its clusters",
                );
            }
            problems.field("cluster_type", |problems| {
                problems.field("typed_config", |problems| {
                    let aggregate::ClusterConfig { clusters } = unpack(problems, &config)?;
                    if clusters.is_empty() {
                        problems.reject_field("clusters", "must have at least one entry");
                    }
                    Some(Discovery::Aggregate(clusters.into_iter().map(Arc::from).collect()))
                })
            })
        }
        Some(config) => {
            problems.field("cluster_type", |problems| {
                problems.field("typed_config", |problems| {
                    unknown_type(problems, &config, &["DnsCluster", "aggregate.v3.ClusterConfig"]);
                });
            });
            None
        }
        None => {
            problems.field("cluster_type", |problems| {
                problems.reject(format!(
                    "{name:?} without a typed_config is not supported by this version of Outrigger: use type STATIC, STRICT_DNS, LOGICAL_DNS or EDS"
                ));
            });
            None
        }
    }
}

fn inline(
    problems: &mut Problems,
    assignment: Option<ClusterLoadAssignment>,
    hosts: Hosts,
) -> Option<Arc<LoadAssignment>> {
    let proto = required(problems, "load_assignment", assignment)?;
    Some(Arc::new(
        problems.field("load_assignment", |problems| endpoint::convert(problems, proto, hosts)),
    ))
}

fn eds_config(
    problems: &mut Problems,
    cluster: &str,
    proto: parts::EdsClusterConfig,
) -> Option<Discovery> {
    let parts::EdsClusterConfig { eds_config, service_name } = proto;
    let source = required(problems, "eds_config", eds_config)?;
    let source =
        problems.field("eds_config", |problems| config_source::convert(problems, source))?;
    let service_name = if service_name.is_empty() { cluster } else { &service_name };
    Some(Discovery::Eds { service_name: service_name.into(), source })
}

/// How endpoints are connected to.
#[derive(Default)]
struct Transport {
    /// `None` is plaintext, or refused.
    tls: Option<Arc<UpstreamTls>>,
    proxy_protocol: Option<Arc<UpstreamProxyProtocol>>,
}

fn upstream_transport(problems: &mut Problems, proto: core::TransportSocket) -> Transport {
    let Some(config) = tls::transport_socket(problems, proto) else { return Transport::default() };
    problems.field("typed_config", |problems| {
        if !any::holds::<ProxyProtocolUpstreamTransport>(&config) {
            let tls = tls::upstream(problems, &config).map(Arc::new);
            return Transport { tls, proxy_protocol: None };
        }
        let Some((header, inner)) = proxy_protocol::upstream(problems, &config) else {
            return Transport::default();
        };
        let tls = problems.field("transport_socket", |problems| {
            let config = tls::transport_socket(problems, inner)?;
            problems.field("typed_config", |problems| tls::upstream(problems, &config))
        });
        Transport { tls: tls.map(Arc::new), proxy_protocol: Some(Arc::new(header)) }
    })
}

fn transport_socket_match(
    problems: &mut Problems,
    proto: parts::TransportSocketMatch,
) -> TransportSocketMatch {
    let parts::TransportSocketMatch { name, r#match, transport_socket } = proto;
    let name = text(problems, "name", name);
    let transport = required(problems, "transport_socket", transport_socket).map(|proto| {
        problems.field("transport_socket", |problems| upstream_transport(problems, proto))
    });
    let Transport { tls: transport, proxy_protocol } = transport.unwrap_or_default();
    TransportSocketMatch {
        name: name.into(),
        matches: MetadataMatch(r#match.map(json_object).unwrap_or_default()),
        transport,
        proxy_protocol,
    }
}

fn connection_options(
    problems: &mut Problems,
    proto: proto::UpstreamConnectionOptions,
) -> (Option<TcpKeepalive>, Option<HappyEyeballs>) {
    let proto::UpstreamConnectionOptions {
        tcp_keepalive,
        set_local_interface_name_on_upstream_connections,
        happy_eyeballs_config,
    } = proto;
    unsupported!(problems; set_local_interface_name_on_upstream_connections);
    let eyeballs = happy_eyeballs_config.and_then(|proto| {
        problems.field("happy_eyeballs_config", |problems| happy_eyeballs(problems, proto))
    });
    let keepalive = tcp_keepalive.map(|proto| {
        let core::TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval } = proto;
        let seconds = |value| number(value).map(|value| Duration::from_secs(u64::from(value)));
        TcpKeepalive {
            probes: number(keepalive_probes),
            time: seconds(keepalive_time),
            interval: seconds(keepalive_interval),
        }
    });
    (keepalive, eyeballs)
}

fn happy_eyeballs(
    problems: &mut Problems,
    proto: proto::upstream_connection_options::HappyEyeballsConfig,
) -> Option<HappyEyeballs> {
    use proto::upstream_connection_options::FirstAddressFamilyVersion as Version;
    let proto::upstream_connection_options::HappyEyeballsConfig {
        first_address_family_version,
        first_address_family_count,
    } = proto;
    let count = "first_address_family_count";
    let count = number_in(problems, count, first_address_family_count, 1..=u32::MAX);
    let version = "first_address_family_version";
    let first_is_ipv6 = match enumeration(problems, version, first_address_family_version)? {
        Version::Default => None,
        Version::V4 => Some(false),
        Version::V6 => Some(true),
        Version::Pipe | Version::Internal => {
            problems.unsupported(version, true);
            None
        }
    };
    Some(HappyEyeballs { first_is_ipv6, first_count: count.unwrap_or(1) })
}
