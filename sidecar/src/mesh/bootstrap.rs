//! The bootstrap of a member: discovery of everything over one delta stream, and an admin interface.

use std::collections::HashMap;

use outrigger_proto::any;
use outrigger_proto::envoy::config::bootstrap::v3 as bootstrap;
use outrigger_proto::envoy::config::cluster::v3::{Cluster, cluster};
use outrigger_proto::envoy::config::core::v3::{
    self as core, Address, ApiConfigSource, ApiVersion, ConfigSource, GrpcService,
    Http2ProtocolOptions, Locality, Node, SocketAddress, TransportSocket, address,
    api_config_source, config_source, grpc_service, socket_address, transport_socket,
};
use outrigger_proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use outrigger_proto::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions, http_protocol_options,
};
use outrigger_proto::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};
use outrigger_proto::google::protobuf::Duration;
use prost::Message;

use super::identity::Identity;
use super::{Error, IDENTITY, TRUST};
use crate::cli::Args;
use crate::config;
use crate::config::bootstrap::Bootstrap;

/// The cluster that is the control plane.
const CONTROL_PLANE: &str = "control-plane";

/// The bootstrap, with the identity as its static secrets. What the admin interface shows of it holds no secret.
pub(super) fn bootstrap(args: &Args, identity: &Identity) -> Result<Bootstrap, Error> {
    let over_ads = || {
        Some(ConfigSource {
            resource_api_version: ApiVersion::V3.into(),
            config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(
                core::AggregatedConfigSource {},
            )),
            ..ConfigSource::default()
        })
    };
    let mut proto = bootstrap::Bootstrap {
        node: Some(Node {
            id: identity.instance.clone(),
            cluster: identity.service.clone(),
            locality: Some(Locality {
                region: args.region.clone(),
                zone: args.service_zone.clone().unwrap_or_default(),
                sub_zone: String::new(),
            }),
            ..Node::default()
        }),
        admin: Some(bootstrap::Admin {
            address: Some(socket_address(&args.admin.ip().to_string(), args.admin.port())),
            ..bootstrap::Admin::default()
        }),
        static_resources: Some(bootstrap::bootstrap::StaticResources {
            clusters: vec![cluster(&identity.control_plane, &identity.trust_domain, true)?],
            ..bootstrap::bootstrap::StaticResources::default()
        }),
        dynamic_resources: Some(bootstrap::bootstrap::DynamicResources {
            lds_config: over_ads(),
            cds_config: over_ads(),
            ads_config: Some(ApiConfigSource {
                api_type: api_config_source::ApiType::DeltaGrpc.into(),
                transport_api_version: ApiVersion::V3.into(),
                set_node_on_first_message_only: true,
                grpc_services: vec![GrpcService {
                    target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(
                        grpc_service::EnvoyGrpc {
                            cluster_name: CONTROL_PLANE.to_owned(),
                            ..grpc_service::EnvoyGrpc::default()
                        },
                    )),
                    ..GrpcService::default()
                }],
                ..ApiConfigSource::default()
            }),
            ..bootstrap::bootstrap::DynamicResources::default()
        }),
        ..bootstrap::Bootstrap::default()
    };
    let shown = proto.encode_to_vec();
    proto.static_resources.get_or_insert_default().secrets = identity.secret_protos();
    let mut bootstrap = config::bootstrap::from_proto(proto)?;
    bootstrap.encoded = shown;
    Ok(bootstrap)
}

/// The control plane as a joining sidecar sees it: it has no certificate to show yet.
pub(super) fn joining_cluster(
    address: &str,
    trust_domain: &str,
) -> Result<config::cluster::Cluster, Error> {
    Ok(config::cluster::from_proto(cluster(address, trust_domain, false)?)?)
}

fn cluster(address: &str, trust_domain: &str, with_identity: bool) -> Result<Cluster, Error> {
    let (host, port) = address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse::<u16>().ok()?)))
        .ok_or_else(|| {
            Error::Refused(format!("control plane address {address:?} is not HOST:PORT"))
        })?;
    let discovery = if host.parse::<std::net::IpAddr>().is_ok() {
        cluster::DiscoveryType::Static
    } else {
        cluster::DiscoveryType::StrictDns
    };
    let http2 = HttpProtocolOptions {
        upstream_protocol_options: Some(http_protocol_options::UpstreamProtocolOptions::ExplicitHttpConfig(
            http_protocol_options::ExplicitHttpConfig {
                protocol_config: Some(
                    http_protocol_options::explicit_http_config::ProtocolConfig::Http2ProtocolOptions(
                        Http2ProtocolOptions::default(),
                    ),
                ),
            },
        )),
        ..HttpProtocolOptions::default()
    };
    Ok(Cluster {
        name: CONTROL_PLANE.to_owned(),
        connect_timeout: Some(Duration { seconds: 2, nanos: 0 }),
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(discovery.into())),
        typed_extension_protocol_options: HashMap::from([(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
            any::pack(&http2),
        )]),
        transport_socket: Some(TransportSocket {
            name: "envoy.transport_sockets.tls".to_owned(),
            config_type: Some(transport_socket::ConfigType::TypedConfig(any::pack(&tls_context(
                trust_domain,
                with_identity,
            )))),
        }),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: CONTROL_PLANE.to_owned(),
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: vec![LbEndpoint {
                    host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
                        address: Some(socket_address(host, port)),
                        ..Endpoint::default()
                    })),
                    ..LbEndpoint::default()
                }],
                ..LocalityLbEndpoints::default()
            }],
            ..ClusterLoadAssignment::default()
        }),
        ..Cluster::default()
    })
}

/// The server's chain leads to a trusted root, and its certificate names the control plane of this trust domain.
fn tls_context(trust_domain: &str, with_identity: bool) -> tls::UpstreamTlsContext {
    let secret = |name: &str| tls::SdsSecretConfig { name: name.to_owned(), sds_config: None };
    let id = format!("spiffe://{trust_domain}/control-plane");
    let names_control_plane = tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Uri.into(),
        matcher: Some(StringMatcher {
            match_pattern: Some(string_matcher::MatchPattern::Exact(id)),
            ..StringMatcher::default()
        }),
        ..tls::SubjectAltNameMatcher::default()
    };
    let validation = tls::common_tls_context::CombinedCertificateValidationContext {
        default_validation_context: Some(tls::CertificateValidationContext {
            match_typed_subject_alt_names: vec![names_control_plane],
            ..tls::CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(secret(TRUST)),
        ..tls::common_tls_context::CombinedCertificateValidationContext::default()
    };
    tls::UpstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            alpn_protocols: vec!["h2".to_owned()],
            tls_certificate_sds_secret_configs: with_identity
                .then(|| secret(IDENTITY))
                .into_iter()
                .collect(),
            validation_context_type: Some(
                tls::common_tls_context::ValidationContextType::CombinedValidationContext(
                    validation,
                ),
            ),
            ..tls::CommonTlsContext::default()
        }),
        ..tls::UpstreamTlsContext::default()
    }
}

fn socket_address(host: &str, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: host.to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
            ..SocketAddress::default()
        })),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::identity::tests::issued;
    use super::*;
    use crate::config::bootstrap::Variant;

    #[test]
    fn a_member_discovers_everything_over_one_delta_stream_and_is_named_after_its_instance() {
        let args = Args::try_parse_from(["sidecar", "--admin", "127.0.0.1:0"]).unwrap();
        let bootstrap = bootstrap(&args, &issued(std::time::Duration::from_secs(60))).unwrap();
        let ads = bootstrap.ads.unwrap();
        assert_eq!((&*ads.cluster, ads.variant), (CONTROL_PLANE, Variant::Delta));
        assert!(bootstrap.lds.is_some() && bootstrap.cds.is_some());
        assert_eq!((&*bootstrap.node.id, &*bootstrap.node.cluster), ("api-1", "api"));
    }

    #[test]
    fn the_encoded_bootstrap_which_the_admin_interface_shows_holds_no_key() {
        let args = Args::try_parse_from(["sidecar"]).unwrap();
        let bootstrap = bootstrap(&args, &issued(std::time::Duration::from_secs(60))).unwrap();
        assert!(!String::from_utf8_lossy(&bootstrap.encoded).contains("PRIVATE KEY"));
    }
}
