//! HTTP connection managers and the other terminal filters.

use crate::model::Config;
use crate::model::service::HashKey;
use crate::translate::proto::{ads, boolean, duration};
use crate::translate::rule;
use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::Http2ProtocolOptions;
use outrigger_proto::envoy::config::listener::v3::{Filter, filter};
use outrigger_proto::envoy::config::route::v3::RouteConfiguration;
use outrigger_proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use outrigger_proto::envoy::extensions::filters::http::router::v3::Router;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
    SetCurrentClientCertDetails, UpgradeConfig,
};
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_filter,
};
use outrigger_proto::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use outrigger_proto::envoy::r#type::v3::HashPolicy;
use outrigger_proto::envoy::r#type::v3::hash_policy::{PolicySpecifier, SourceIp};
use std::time::Duration;

/// Requests whose route configuration is discovered.
pub(crate) fn discovered(
    config: &Config,
    stat_prefix: String,
    route_config: String,
) -> HttpConnectionManager {
    let rds = Rds { config_source: ads(), route_config_name: route_config };
    manager(stat_prefix, RouteSpecifier::Rds(rds), faults(config))
}

/// For a gRPC client, which knows little of a connection manager.
pub(crate) fn of_grpc_client(config: &Config, route_config: String) -> HttpConnectionManager {
    let rds = Rds { config_source: ads(), route_config_name: route_config };
    HttpConnectionManager {
        http_filters: faults(config).into_iter().chain([router()]).collect(),
        route_specifier: Some(RouteSpecifier::Rds(rds)),
        ..Default::default()
    }
}

/// Requests from outside the mesh: nothing they say about where they came from is believed.
pub(crate) fn at_the_edge(
    config: &Config,
    stat_prefix: String,
    route_config: String,
) -> HttpConnectionManager {
    HttpConnectionManager {
        use_remote_address: boolean(true),
        normalize_path: boolean(true),
        merge_slashes: true,
        request_headers_timeout: duration(Duration::from_secs(10)),
        ..discovered(config, stat_prefix, route_config)
    }
}

/// Requests to the application, after these filters. The application learns who calls from
/// `x-forwarded-client-cert`. With `strict_paths` a path that could mean two things is refused.
pub(crate) fn inbound(
    stat_prefix: String,
    routes: RouteConfiguration,
    filters: Vec<HttpFilter>,
    strict_paths: bool,
) -> HttpConnectionManager {
    let escaped_slashes = if strict_paths {
        PathWithEscapedSlashesAction::RejectRequest
    } else {
        PathWithEscapedSlashesAction::KeepUnchanged
    };
    HttpConnectionManager {
        forward_client_cert_details: ForwardClientCertDetails::SanitizeSet.into(),
        set_current_client_cert_details: Some(SetCurrentClientCertDetails {
            uri: true,
            ..Default::default()
        }),
        normalize_path: boolean(true),
        merge_slashes: true,
        path_with_escaped_slashes_action: escaped_slashes.into(),
        ..manager(stat_prefix, RouteSpecifier::RouteConfig(routes), filters)
    }
}

fn manager(
    stat_prefix: String,
    routes: RouteSpecifier,
    mut filters: Vec<HttpFilter>,
) -> HttpConnectionManager {
    filters.push(router());
    HttpConnectionManager {
        stat_prefix,
        route_specifier: Some(routes),
        http_filters: filters,
        // WebSockets, over HTTP/2 too (RFC 8441).
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..Default::default()
        }],
        http2_protocol_options: Some(Http2ProtocolOptions {
            allow_connect: true,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The filter for faults, if any route injects one; what it does, the routes say.
fn faults(config: &Config) -> Vec<HttpFilter> {
    let filter = || HttpFilter {
        name: rule::FAULT.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any::pack(&HttpFault::default()))),
        ..Default::default()
    };
    rule::injects_faults(config).then(filter).into_iter().collect()
}

fn router() -> HttpFilter {
    HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any::pack(&Router::default()))),
        ..Default::default()
    }
}

/// As the terminal filter of a chain.
pub(crate) fn http_filter_chain(manager: &HttpConnectionManager) -> Filter {
    Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any::pack(manager))),
    }
}

/// Bytes to a cluster.
pub(crate) fn tcp_filter_chain(
    stat_prefix: String,
    cluster: String,
    hash_on: &[HashKey],
) -> Filter {
    // Nothing else of a connection is known.
    let by_source = hash_on.contains(&HashKey::SourceIp(true));
    let source = PolicySpecifier::SourceIp(SourceIp {});
    let proxy = TcpProxy {
        stat_prefix,
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster)),
        hash_policy: by_source
            .then_some(HashPolicy { policy_specifier: Some(source) })
            .into_iter()
            .collect(),
        ..Default::default()
    };
    Filter {
        name: "envoy.filters.network.tcp_proxy".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any::pack(&proxy))),
    }
}
