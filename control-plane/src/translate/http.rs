//! HTTP connection managers and the other terminal filters.

use crate::translate::proto::{ads, boolean, duration};
use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::Http2ProtocolOptions;
use outrigger_proto::envoy::config::listener::v3::{Filter, filter};
use outrigger_proto::envoy::config::route::v3::RouteConfiguration;
use outrigger_proto::envoy::extensions::filters::http::router::v3::Router;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
    SetCurrentClientCertDetails, UpgradeConfig,
};
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_filter,
};
use outrigger_proto::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use std::time::Duration;

/// Requests whose route configuration is discovered.
pub(crate) fn discovered(stat_prefix: String, route_config: String) -> HttpConnectionManager {
    let rds = Rds { config_source: ads(), route_config_name: route_config };
    manager(stat_prefix, RouteSpecifier::Rds(rds), Vec::new())
}

/// For a gRPC client, which knows little of a connection manager.
pub(crate) fn of_grpc_client(route_config: String) -> HttpConnectionManager {
    let rds = Rds { config_source: ads(), route_config_name: route_config };
    HttpConnectionManager {
        http_filters: vec![router()],
        route_specifier: Some(RouteSpecifier::Rds(rds)),
        ..Default::default()
    }
}

/// Requests from outside the mesh: nothing they say about where they came from is believed.
pub(crate) fn at_the_edge(stat_prefix: String, route_config: String) -> HttpConnectionManager {
    HttpConnectionManager {
        use_remote_address: boolean(true),
        normalize_path: boolean(true),
        merge_slashes: true,
        request_headers_timeout: duration(Duration::from_secs(10)),
        ..discovered(stat_prefix, route_config)
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
pub(crate) fn tcp_filter_chain(stat_prefix: String, cluster: String) -> Filter {
    let proxy = TcpProxy {
        stat_prefix,
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster)),
        ..Default::default()
    };
    Filter {
        name: "envoy.filters.network.tcp_proxy".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any::pack(&proxy))),
    }
}
